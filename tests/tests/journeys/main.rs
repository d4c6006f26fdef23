//! Journeys: what a mail, a client or an operator meets at agents that run as processes, a file for each behaviour. One program, so that
//! there is one to build; `cargo test -p postroad-tests --test journeys quotas` runs those of a file.

mod accounts_from_the_queue;
mod agents_start_in_any_order;
mod aliases_expand;
mod bad_config;
mod bad_input;
mod bans_and_sending_limits;
mod behind_a_balancer;
mod certificate_by_name;
mod certificates_are_renewed;
mod certificates_are_revoked;
mod connections_are_reused;
mod conversations;
mod deliver_by;
mod domains_of_one_host;
mod expired_mail_makes_a_dsn;
mod forged_records;
mod inbound_for_our_domains_only;
mod leases;
mod lmtp_per_recipient;
mod log_in_mechanisms;
mod migrate_postfix;
mod observed;
mod queue_restart_loses_nothing;
mod quotas;
mod relay_550_makes_a_dsn;
mod relay_tempfail_then_ok;
mod reload;
mod sendmail;
mod setup_from_nothing;
mod sigterm_drains;
mod smarthosts;
mod submit_and_deliver;
mod success_is_reported;
mod world_mail_by_mx;
