//! What cannot be translated, unless it is switched off.

/// Values that switch it off; why it is lost and what to do; names.
pub(super) type Lost = (
    &'static [&'static str],
    &'static str,
    &'static [&'static str],
);

pub(super) const LOST: &[Lost] = &[
    (
        &["no"],
        "milters are not called: what they did (signatures, filtering) must be done in front of the mta or by the mailbox server",
        &["smtpd_milters", "non_smtpd_milters", "smtpd_milter_maps"],
    ),
    (
        &[],
        "no content filter is called: let the filter be the one that listens on port 25 and hands mail on by SMTP (mta.inbound), or leave it out",
        &["content_filter", "smtpd_proxy_filter"],
    ),
    (
        &[],
        "headers and bodies are not searched by expressions: let a filter in front do it, or leave it out",
        &[
            "header_checks",
            "mime_header_checks",
            "nested_header_checks",
            "body_checks",
            "milter_header_checks",
            "smtp_header_checks",
            "smtp_mime_header_checks",
            "smtp_nested_header_checks",
            "smtp_body_checks",
            "lmtp_header_checks",
            "lmtp_mime_header_checks",
            "lmtp_nested_header_checks",
            "lmtp_body_checks",
        ],
    ),
    (
        &[],
        "addresses are not rewritten in mail that passes: have the programs that send write them as they should be",
        &[
            "canonical_maps",
            "sender_canonical_maps",
            "recipient_canonical_maps",
            "smtp_generic_maps",
            "lmtp_generic_maps",
            "masquerade_domains",
            "remote_header_rewrite_domain",
        ],
    ),
    (
        &[],
        "no copies of mail are made on the way: where it was for one mailbox, an alias that leads to both does the same",
        &["always_bcc", "sender_bcc_maps", "recipient_bcc_maps"],
    ),
    (
        &[],
        "routes go by recipient: mail takes the same way whoever sent it",
        &[
            "sender_dependent_relayhost_maps",
            "sender_dependent_default_transport_maps",
        ],
    ),
    (
        &["no"],
        "one account for a host that mail is handed to, whoever the sender is",
        &[
            "smtp_sender_dependent_authentication",
            "lmtp_sender_dependent_authentication",
        ],
    ),
    (
        &[],
        "what has moved is refused like any unknown address, without a word on the new one: write an alias that leads there",
        &["relocated_maps"],
    ),
    (
        &[],
        "blocklists are not asked: put a filter in front that does, or leave it out",
        &["postscreen_dnsbl_sites", "maps_rbl_domains"],
    ),
    (
        &[],
        "clients are not let in or kept out by lists of addresses: use the firewall",
        &["postscreen_access_list"],
    ),
    (
        &["ignore", "0"],
        "how soon a client speaks is no reason to refuse it here: leave it out",
        &["postscreen_greet_action"],
    ),
    (
        &["no"],
        "such tests of clients are not made: leave it out",
        &[
            "postscreen_pipelining_enable",
            "postscreen_non_smtp_command_enable",
            "postscreen_bare_newline_enable",
        ],
    ),
    (
        &["0", "0s"],
        "clients are not limited by a rate, only by connections at one time (mta.inbound.limits, msa.limits); accounts by msa.sending",
        &[
            "smtpd_client_connection_rate_limit",
            "smtpd_client_message_rate_limit",
            "smtpd_client_recipient_rate_limit",
            "smtpd_client_new_tls_session_rate_limit",
        ],
    ),
    (
        &["0", "0s"],
        "there is no pause between mails for one destination: `max_leases` of a route limits how many go at one time",
        &["*_destination_rate_delay", "*_transport_rate_delay"],
    ),
    (
        &["0"],
        "mailboxes have no quota: leave it to the server that people read their mail with",
        &["mailbox_size_limit", "virtual_mailbox_limit"],
    ),
    (
        &[],
        "programs get no mail: let the program take mail by LMTP and name it in queued.routes, or let it read the Maildir",
        &["mailbox_command", "mailbox_command_maps"],
    ),
    (
        &[],
        "one recipient's mail goes the way of its domain: give such mailboxes a domain of their own, or an alias elsewhere",
        &["mailbox_transport_maps", "fallback_transport_maps"],
    ),
    (
        &[],
        "there is no second way for what one server does not know: list its mailboxes as accounts, or give them a domain of their own",
        &["fallback_transport"],
    ),
    (
        &["no"],
        "mail that would be refused for good is not kept instead: put a hold rule up for the time of the change (`postroad queue rule put`)",
        &["soft_bounce"],
    ),
    (
        &["0", "0h", "0s"],
        "senders are not told of a delay, only of a failure: watch the age of mail by its metric",
        &["delay_warning_time"],
    ),
    (
        &[],
        "nobody's mail is taken on trust of a client certificate: clients log in at the msa",
        &["relay_clientcerts"],
    ),
    (
        &["no"],
        "clients are not asked for a certificate here",
        &["smtpd_tls_ask_ccert", "smtpd_tls_req_ccert"],
    ),
    (
        &[],
        "a certificate of our own is shown to hosts that are named: write cert_file and key_file into mta.outbound.hosts",
        &[
            "smtp_tls_cert_file",
            "smtp_tls_key_file",
            "smtp_tls_chain_files",
            "smtp_tls_eccert_file",
            "smtp_tls_eckey_file",
            "smtp_tls_dcert_file",
            "smtp_tls_dkey_file",
            "lmtp_tls_cert_file",
            "lmtp_tls_key_file",
            "lmtp_tls_chain_files",
        ],
    ),
    (
        &[],
        "whoever may speak for others by XCLIENT is to be named anew: xclient_networks of [mta.inbound] and [msa] (deploy/guide/proxies.md)",
        &["smtpd_authorized_xclient_hosts"],
    ),
    (
        &["no"],
        "what a host said before is not kept to be tried again: let the mail wait, or name another next hop",
        &["smtp_fallback_relay", "lmtp_fallback_relay"],
    ),
    (
        &[],
        "replies of others and our own are not reworded",
        &[
            "smtp_reply_filter",
            "lmtp_reply_filter",
            "*_delivery_status_filter",
            "smtpd_reject_footer",
            "smtpd_reject_footer_maps",
            "smtpd_command_filter",
            "smtp_dns_reply_filter",
            "lmtp_dns_reply_filter",
            "smtpd_dns_reply_filter",
            "rbl_reply_maps",
            "bounce_template_file",
        ],
    ),
    (
        &[],
        "what it makes of commands of clients is not known here",
        &[
            "smtpd_discard_ehlo_keywords",
            "smtpd_discard_ehlo_keyword_address_maps",
            "smtp_discard_ehlo_keyword_address_maps",
        ],
    ),
    (
        &[],
        "this domain list of ETRN is not served: mail is tried again by time, or by `postroad queue retry`",
        &["fast_flush_domains"],
    ),
    (
        &["no"],
        "it makes old programs work that speak QMQP",
        &["qmqpd_authorized_clients"],
    ),
    (
        &[],
        "mail for these is kept only by a route of the class hold: write one for each",
        &["defer_transports"],
    ),
    (
        &["no"],
        "each instance has a folder of its own: run this for each of them, and give each a host or container",
        &["multi_instance_directories", "multi_instance_enable"],
    ),
    (
        &["no"],
        "addresses are learnt from the directory, not asked of other hosts: list them as accounts or aliases",
        &["address_verify_map"],
    ),
    (
        &[],
        "the check is made by nobody here: leave it out, or let a filter in front do it",
        &["permit_mx_backup_networks"],
    ),
    (
        &["no", "may", "none"],
        "LMTP next hops are spoken to as mta.outbound.tls has it, and without a log-in",
        &[
            "lmtp_tls_policy_maps",
            "lmtp_tls_security_level",
            "lmtp_sasl_auth_enable",
            "lmtp_sasl_password_maps",
            "lmtp_tls_wrappermode",
        ],
    ),
];
