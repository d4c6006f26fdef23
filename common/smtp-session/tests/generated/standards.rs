//! What we speak, how far it goes, and what proves it besides conversations.

/// A row of the table.
pub struct Standard {
    /// Its number.
    pub rfc: u32,
    /// What it is about.
    pub what: &'static str,
    /// Words in the reply to EHLO.
    pub keywords: &'static [&'static str],
    /// received, honoured, relayed or refused.
    pub status: &'static str,
    /// How, or why not.
    pub short: &'static str,
    /// Files and functions.
    pub tests: &'static [(&'static str, &'static str)],
}

impl Standard {
    /// Whether it is not offered.
    pub fn is_refused(&self) -> bool {
        self.status.starts_with("refused")
    }
}

/// By number.
pub const STANDARDS: &[Standard] = &[
    Standard {
        rfc: 1870,
        what: "SIZE",
        keywords: &["SIZE"],
        status: "received, honoured, relayed",
        short: "judged when announced, when it comes, and for the room that is left; told to the next host",
        tests: &[
            (
                "msa/tests/submission.rs",
                "too_large_is_refused_when_announced_and_when_sent",
            ),
            (
                "tests/tests/journeys/quotas.rs",
                "a_domain_that_is_full_takes_no_mail_of_the_world_for_a_time",
            ),
        ],
    },
    Standard {
        rfc: 1985,
        what: "ETRN",
        keywords: &["ETRN"],
        status: "refused",
        short: "mail does not wait here to be fetched: 502",
        tests: &[],
    },
    Standard {
        rfc: 2033,
        what: "LMTP",
        keywords: &[],
        status: "received, honoured, relayed",
        short: "a reply for each recipient; also towards stores of others, over TCP and Unix sockets",
        tests: &[
            (
                "tests/tests/journeys/lmtp_per_recipient.rs",
                "each_recipient_has_a_reply_of_its_own",
            ),
            (
                "common/smtp-session/src/client/tests.rs",
                "lmtp_answers_for_each_accepted_recipient",
            ),
        ],
    },
    Standard {
        rfc: 2034,
        what: "ENHANCEDSTATUSCODES",
        keywords: &["ENHANCEDSTATUSCODES"],
        status: "honoured",
        short: "in every reply but the greeting, that to EHLO, and 3yz",
        tests: &[],
    },
    Standard {
        rfc: 2195,
        what: "SASL CRAM-MD5",
        keywords: &[],
        status: "honoured, relayed",
        short: "if switched on, for accounts that have a recoverable secret; others hear the same refusal",
        tests: &[
            ("common/sasl/src/server/cram.rs", "the_example_of_rfc_2195"),
            (
                "tests/tests/journeys/log_in_mechanisms.rs",
                "whoever_knows_the_password_proves_it_by_any_mechanism",
            ),
        ],
    },
    Standard {
        rfc: 2852,
        what: "DELIVERBY",
        keywords: &["DELIVERBY"],
        status: "received, honoured, relayed",
        short: "with the least time for `R`; what is left goes on to hosts that offer it, `R` to no others (5.3.3), and no further MX host is looked for one (§7)",
        tests: &[
            (
                "common/smtp-session/src/client/tests/deliver_by.rs",
                "what_is_to_be_returned_goes_where_its_time_is_kept",
            ),
            (
                "common/queue/src/queue/tests/deadline.rs",
                "what_is_only_told_of_goes_on_and_is_told_once",
            ),
            (
                "tests/tests/journeys/deliver_by.rs",
                "mail_that_is_late_is_told_of_or_returned",
            ),
        ],
    },
    Standard {
        rfc: 2920,
        what: "PIPELINING",
        keywords: &["PIPELINING"],
        status: "received, honoured, relayed",
        short: "groups are answered one by one; whoever sends content without waiting for 354 is sent away",
        tests: &[(
            "common/smtp-session/src/client/tests.rs",
            "a_pipelined_mail_with_mixed_recipients_then_another",
        )],
    },
    Standard {
        rfc: 3030,
        what: "CHUNKING, BINARYMIME",
        keywords: &["BINARYMIME", "CHUNKING"],
        status: "received, honoured, relayed",
        short: "BDAT comes in and goes out; line ends are as strict as in DATA, but for BODY=BINARYMIME, which is kept octet for octet; a host without it: 5.6.3",
        tests: &[
            (
                "common/smtp-session/tests/outgoing_content.rs",
                "chunks_hold_what_was_stored_and_no_last_one_follows_a_fault",
            ),
            (
                "common/smtp-session/src/client/tests/chunks.rs",
                "chunks_instead_of_dots",
            ),
            (
                "common/smtp/src/content/tests.rs",
                "chunks_are_checked_across_their_borders",
            ),
        ],
    },
    Standard {
        rfc: 3207,
        what: "STARTTLS",
        keywords: &["STARTTLS"],
        status: "received, honoured, relayed",
        short: "nothing said in plain text is left; required on submission, never on port 25",
        tests: &[
            (
                "common/smtp-session/src/client/tests.rs",
                "starttls_then_everything_anew",
            ),
            (
                "common/smtp-session/src/client/tests.rs",
                "tls_refused_forged_or_missing",
            ),
        ],
    },
    Standard {
        rfc: 3461,
        what: "DSN",
        keywords: &["DSN"],
        status: "received, honoured, relayed",
        short: "NOTIFY, RET, ENVID and ORCPT are stored with the mail and passed on to hosts with DSN; where there is none, and for what is filed or expanded here, our reports follow them (relayed, delivered, expanded, delayed, failed)",
        tests: &[
            (
                "tests/tests/journeys/success_is_reported.rs",
                "the_report_survives_a_queue_that_is_killed",
            ),
            (
                "tests/tests/journeys/success_is_reported.rs",
                "a_host_that_reports_is_told_what_to_report",
            ),
            (
                "mta/tests/agent/outbound/limits.rs",
                "the_queue_hears_who_reports_success",
            ),
            (
                "common/queued/tests/queue/reports.rs",
                "relayed_mail_is_reported_where_the_next_host_does_not_report",
            ),
            (
                "common/queued/tests/queue/reports.rs",
                "an_address_that_stands_for_several_is_reported_once_as_expanded",
            ),
            (
                "common/queued/tests/queue/reports.rs",
                "mail_that_takes_long_is_reported_once",
            ),
            ("common/dsn/src/decide.rs", "notify_is_respected"),
            (
                "common/dsn/src/returned.rs",
                "failures_return_all_unless_asked_otherwise",
            ),
            (
                "tests/tests/journeys/relay_550_makes_a_dsn.rs",
                "the_sender_is_told_once_and_only_about_the_refused",
            ),
            (
                "tests/tests/journeys/relay_550_makes_a_dsn.rs",
                "a_report_that_fails_is_not_reported",
            ),
        ],
    },
    Standard {
        rfc: 4422,
        what: "SASL",
        keywords: &[],
        status: "honoured",
        short: "exchanges of several lines, cancelled by `*`; LOGIN beside the registered mechanisms; EXTERNAL for clients with a certificate alone",
        tests: &[],
    },
    Standard {
        rfc: 4616,
        what: "SASL PLAIN",
        keywords: &[],
        status: "honoured, relayed",
        short: "under TLS alone; nobody acts as somebody else",
        tests: &[
            (
                "msa/tests/submission/senders.rs",
                "nobody_acts_as_somebody_else",
            ),
            (
                "common/smtp-session/src/client/tests/log_in.rs",
                "passwords_are_shown_under_tls_alone",
            ),
        ],
    },
    Standard {
        rfc: 4865,
        what: "FUTURERELEASE",
        keywords: &["FUTURERELEASE"],
        status: "received, honoured",
        short: "on submission; the queue holds the mail, so the next host is not asked to; its five days begin with the release",
        tests: &[],
    },
    Standard {
        rfc: 4752,
        what: "SASL GSSAPI",
        keywords: &[],
        status: "honoured",
        short: "tickets of Kerberos, if switched on, in builds with the feature gssapi; no layer but TLS. Else it is not offered: 504",
        tests: &[
            (
                "common/sasl/src/server/gssapi.rs",
                "a_ticket_and_no_layer_make_credentials",
            ),
            (
                "common/smtp-session/tests/log_in.rs",
                "without_a_good_ticket_nobody_gets_in",
            ),
            (
                "tests/tests/kerberos/main.rs",
                "only_a_ticket_of_ones_own_lets_in",
            ),
        ],
    },
    Standard {
        rfc: 4954,
        what: "AUTH",
        keywords: &["AUTH"],
        status: "received, honoured, relayed",
        short: "on submission under TLS; AUTH= is parsed, and said to hosts where we log in",
        tests: &[
            (
                "msa/tests/submission.rs",
                "wrong_passwords_and_unknown_accounts_hear_the_same_and_then_goodbye",
            ),
            (
                "common/smtp-session/src/client/tests/log_in.rs",
                "rfc_4954_who_submitted_is_told_where_we_have_logged_in",
            ),
        ],
    },
    Standard {
        rfc: 5321,
        what: "SMTP",
        keywords: &[],
        status: "received, honoured, relayed",
        short: "every command in every state, limits, transparency, no relay, and only CRLF ends a line",
        tests: &[
            (
                "common/smtp-session/tests/outgoing_content.rs",
                "data_is_read_in_one_way_and_as_it_was_stored",
            ),
            (
                "common/smtp/src/line.rs",
                "only_crlf_ends_a_line_however_it_arrives",
            ),
            (
                "common/smtp/src/content/tests.rs",
                "nothing_but_crlf_dot_crlf_ends_the_content",
            ),
            (
                "common/smtp/src/content/tests.rs",
                "no_octets_can_smuggle_an_end",
            ),
            (
                "common/smtpd/tests/smtpd/mails/endings.rs",
                "slow_clients_hear_421",
            ),
            (
                "mta/src/outbound/next_hop/tests.rs",
                "rfc_5321_5_1_mail_for_ourselves_loops",
            ),
        ],
    },
    Standard {
        rfc: 5802,
        what: "SASL SCRAM-SHA-1, channel binding",
        keywords: &[],
        status: "honoured, relayed",
        short: "if switched on; the password never crosses the line, and -PLUS binds the log-in to its TLS",
        tests: &[
            (
                "common/sasl/src/server/scram.rs",
                "whoever_could_bind_and_was_told_otherwise_is_refused",
            ),
            (
                "common/smtp-session/tests/log_in.rs",
                "each_mechanism_lets_in_who_knows_the_password_and_nobody_else",
            ),
        ],
    },
    Standard {
        rfc: 6152,
        what: "8BITMIME",
        keywords: &["8BITMIME"],
        status: "received, honoured, relayed",
        short: "content of eight bits is kept as it is; a host without it: 5.6.3",
        tests: &[(
            "tests/tests/journeys/submit_and_deliver.rs",
            "four_processes_carry_every_kind_of_mail",
        )],
    },
    Standard {
        rfc: 6409,
        what: "submission",
        keywords: &[],
        status: "honoured",
        short: "accounts alone, senders of their own, missing fields added",
        tests: &[
            (
                "msa/tests/submission.rs",
                "without_tls_nobody_logs_in_and_without_a_login_nobody_sends",
            ),
            (
                "tests/tests/journeys/inbound_for_our_domains_only.rs",
                "submission_wants_tls_a_login_and_an_address_of_the_account",
            ),
        ],
    },
    Standard {
        rfc: 6531,
        what: "SMTPUTF8",
        keywords: &["SMTPUTF8"],
        status: "received, honoured, relayed",
        short: "addresses and headers in UTF-8; a host without it gets the mail if that does not need it, else 5.6.7",
        tests: &[(
            "mta/tests/agent/outbound/content.rs",
            "who_needs_smtputf8_is_asked_for_only_where_it_is_offered",
        )],
    },
    Standard {
        rfc: 6533,
        what: "reports in UTF-8",
        keywords: &[],
        status: "honoured",
        short: "the global types for senders who wrote with SMTPUTF8; others read such addresses in ASCII (utf-8-addr-xtext), and 8-bit text as quoted-printable",
        tests: &[
            (
                "common/dsn/src/report/tests.rs",
                "international_mail_gets_the_global_types",
            ),
            (
                "common/dsn/src/report/tests.rs",
                "a_sender_without_smtputf8_reads_it_all_in_ascii",
            ),
        ],
    },
    Standard {
        rfc: 6710,
        what: "MT-PRIORITY",
        keywords: &["MT-PRIORITY"],
        status: "received, honoured, relayed",
        short: "on submission; lowered to msa.max_priority and said so (X.3.6); the queue goes by it, and hosts that offer it are told",
        tests: &[(
            "mta/tests/agent/outbound/limits.rs",
            "urgency_is_told_where_it_is_understood",
        )],
    },
    Standard {
        rfc: 7628,
        what: "SASL OAUTHBEARER",
        keywords: &[],
        status: "honoured",
        short: "XOAUTH2 too, if an issuer of tokens is configured; refused tokens are told the scope and where to get one. Else neither is offered: 504",
        tests: &[
            (
                "common/smtp-session/tests/log_in.rs",
                "a_refused_token_is_told_why_before_the_reply",
            ),
            (
                "tests/tests/tokens_of_an_issuer.rs",
                "smtplib_logs_in_by_tokens_and_not_by_others",
            ),
            (
                "common/oauth/src/validator/tests.rs",
                "a_token_for_somebody_else_is_none",
            ),
        ],
    },
    Standard {
        rfc: 7677,
        what: "SASL SCRAM-SHA-256",
        keywords: &[],
        status: "honoured, relayed",
        short: "if switched on; accounts without keys cannot be told from others",
        tests: &[
            ("common/sasl/src/server/scram.rs", "the_example_of_rfc_7677"),
            (
                "tests/tests/journeys/log_in_mechanisms.rs",
                "whoever_knows_the_password_proves_it_by_any_mechanism",
            ),
        ],
    },
    Standard {
        rfc: 8314,
        what: "TLS for submission",
        keywords: &[],
        status: "honoured",
        short: "port 465 begins with TLS; no password is taken in plain text",
        tests: &[(
            "msa/tests/submission.rs",
            "implicit_tls_auth_login_and_a_mail_left_as_it_is",
        )],
    },
    Standard {
        rfc: 8689,
        what: "REQUIRETLS",
        keywords: &["REQUIRETLS"],
        status: "received, honoured, relayed",
        short: "only to hosts that prove who they are (DANE, MTA-STS, or a certificate) and offer it, else 5.7.30; TLS-Required: No waives what the other side wishes",
        tests: &[(
            "mta/tests/agent/outbound/security.rs",
            "rfc_8689_requiretls_goes_only_to_who_proves_itself_and_offers_it",
        )],
    },
    Standard {
        rfc: 9422,
        what: "LIMITS",
        keywords: &["LIMITS"],
        status: "received, honoured",
        short: "MAILMAX and RCPTMAX, as they are in force; of other hosts RCPTMAX, RCPTDOMAINMAX and MAILMAX are kept",
        tests: &[
            (
                "common/smtp-session/src/server/tests.rs",
                "as_many_mails_as_are_offered_and_not_one_more",
            ),
            (
                "mta/tests/agent/outbound/limits.rs",
                "recipients_come_in_as_many_transactions_as_the_host_bears",
            ),
            (
                "mta/tests/agent/outbound/limits.rs",
                "a_host_that_bears_few_mails_a_connection_is_connected_to_again",
            ),
        ],
    },
];
