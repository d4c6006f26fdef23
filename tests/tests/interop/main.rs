//! Peers that are not Rust: real mail programs and servers against the stack.
//!
//! Each scenario names what it needs. What is missing is a failure with `CI=true`, elsewhere NOT RUN. Foreign servers
//! run on loopback from a temporary folder with a configuration of their own; `/etc` and `/var/spool` are not touched.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a program for a terminal")]

mod clients;
mod differences;
mod foreign;
mod harness;
mod log_in;
mod migrate;
mod needs;
mod neighbours;
mod reading;
mod refusals;
mod relay;
mod samples;
mod strangers;
mod submission;
mod swap_application;
mod swap_dovecot;
mod swap_exim_in_front;
mod swap_front;
mod swap_postfix_in_front;
mod swap_smarthost;
mod swap_submission;
mod swapping;
mod world;

use std::process::ExitCode;

use self::harness::scenario;

fn main() -> ExitCode {
    harness::main(&[
        scenario!(submission::of_all_samples_by_smtplib, [Python]),
        scenario!(submission::by_swaks, [Swaks]),
        scenario!(submission::by_curl, [Curl]),
        scenario!(submission::by_msmtp, [Msmtp]),
        scenario!(
            log_in::by_each_mechanism_of_a_program,
            [Python, Swaks, Msmtp]
        ),
        scenario!(submission::to_200_recipients, [Python, Swaks, Curl, Msmtp]),
        scenario!(submission::not_to_a_stranger, [Python, Swaks, Curl, Msmtp]),
        scenario!(refusals::as_clients_show_them, [Python, Swaks, Curl, Msmtp]),
        scenario!(relay::to_postfix_by_mx_of_dnsmasq, [Postfix, Dnsmasq]),
        scenario!(relay::to_postfix_by_zone, [Postfix]),
        scenario!(relay::to_aiosmtpd_with_smtputf8, [Python, Aiosmtpd]),
        scenario!(relay::to_dovecot_by_lmtp, [Dovecot, Python]),
        scenario!(relay::waits_while_postfix_is_down, [Postfix, Dnsmasq]),
        scenario!(
            relay::refused_by_postfix_makes_a_report,
            [Postfix, Dnsmasq, Python]
        ),
        scenario!(relay::a_bounce_detector_reads_our_reports, [Python, Flufl]),
        scenario!(relay::from_postfix_to_port_25, [Postfix]),
        scenario!(relay::from_postfix_by_lmtp, [Postfix]),
        scenario!(
            relay::refused_by_us_makes_a_report_of_postfix,
            [Postfix, Python]
        ),
        scenario!(swap_postfix_in_front::tells_who_its_client_is, [Postfix]),
        scenario!(swap_postfix_in_front::carries_much_and_utf8, [Postfix]),
        scenario!(swap_postfix_in_front::refuses_and_reports, [Postfix]),
        scenario!(swap_postfix_in_front::waits_for_us, [Postfix]),
        scenario!(swap_exim_in_front::names_its_client_in_its_own_line, [Exim]),
        scenario!(swap_exim_in_front::carries_much_and_utf8, [Exim]),
        scenario!(swap_exim_in_front::refuses_and_reports, [Exim]),
        scenario!(swap_exim_in_front::waits_for_us, [Exim]),
        scenario!(differences::hold, [Postfix, Exim]),
        scenario!(neighbours::of_postfix_and_exim, [Postfix, Exim]),
        scenario!(reading::dovecot_shows_what_was_filed, [Dovecot, Python]),
        scenario!(swap_dovecot::takes_mail_by_socket, [Dovecot]),
        scenario!(swap_dovecot::takes_mail_by_tcp, [Dovecot]),
        scenario!(swap_dovecot::reads_while_mail_is_filed, [Dovecot, Python]),
        scenario!(migrate::postfix_takes_the_samples, [Postfix]),
        scenario!(migrate::every_parameter_of_postfix_is_known, [Postfix]),
        scenario!(migrate::the_queue_of_postfix, [Postfix]),
        scenario!(
            swap_smarthost::sends_by_it_with_auth_and_verified_tls,
            [Postfix, Dovecot]
        ),
        scenario!(
            swap_smarthost::mail_waits_while_it_cannot_be_trusted_or_does_not_trust_us,
            [Postfix, Dovecot]
        ),
        scenario!(
            swap_smarthost::proves_its_password_by_scram,
            [Postfix, Dovecot]
        ),
        scenario!(
            swap_submission::hands_over_with_its_certificate,
            [Postfix, Dovecot, Python]
        ),
        scenario!(swap_submission::others_can_send_nothing, [Postfix, Dovecot]),
        scenario!(strangers::in_python_lose_nothing, [Grpc]),
        scenario!(
            swap_application::mailx_and_mutt_send_as_their_account,
            [Mailx, Mutt]
        ),
    ])
}
