//! The neighbours: how each is set up, and what becomes of the mail to it.

use std::net::{Ipv4Addr, SocketAddr};

use super::mails::Kind;

/// What becomes of a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The first attempt succeeds.
    Delivered,
    /// Attempts may fail for this cause, but for nothing else; some mail to this neighbour meets it.
    Eventually(&'static str),
    /// It waits for this cause until we ask for less.
    Waits(&'static str),
    /// It fails for good, with this status and cause: at once, or after what others [meet](Self::Eventually).
    Bounced(&'static str, &'static str),
    /// It is put off until its time is over.
    GivenUp(&'static str, &'static str),
}

/// Whose fate it is. The first entry of a neighbour that fits counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The recipient who is not there.
    Stranger,
    /// Those of one mail who are there.
    Of(Kind),
    /// All others who are there.
    Others,
}

/// Whether mail goes under TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    Encrypted,
    PlainText,
    /// Once we ask for less it may be either.
    Any,
}

/// Who tells of success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Ours,
    Theirs,
}

/// Which certificate it shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Certificate {
    /// Of the authority that we believe, for its own name.
    Good,
    WrongName,
    Expired,
    SelfSigned,
}

/// What runs there.
#[derive(Clone, Copy, Debug)]
pub enum Server {
    /// Its options; GREYLIST is where the policy service is.
    Postfix(&'static [&'static str]),
    /// Lines of the main part of its configuration, and of its ACL for RCPT.
    Exim {
        main: &'static str,
        mail: &'static str,
        rcpt: &'static str,
    },
}

pub struct Neighbour {
    pub name: &'static str,
    /// Of its address.
    number: u8,
    pub server: Server,
    pub certificate: Certificate,
    /// What we ask of TLS there.
    pub level: &'static str,
    pub tls: Tls,
    pub success: Shape,
    fates: Vec<(Who, Fate)>,
    kinds: &'static [Kind],
    /// For a mail that fails: whether we find it out without asking the host.
    ours: Option<(Kind, bool)>,
    /// Words that a line of its log must have.
    pub says: &'static [&'static str],
}

impl Neighbour {
    fn new(name: &'static str, server: Server) -> Self {
        Self {
            name,
            number: 0,
            server,
            certificate: Certificate::Good,
            level: "may",
            tls: Tls::Encrypted,
            success: Shape::Theirs,
            fates: Vec::new(),
            kinds: &Kind::ALL,
            ours: None,
            says: &[],
        }
    }

    fn fates(self, fates: &[(Who, Fate)]) -> Self {
        Self {
            fates: fates.to_vec(),
            ..self
        }
    }

    fn says(self, says: &'static [&'static str]) -> Self {
        Self { says, ..self }
    }

    fn ours(self, kind: Kind, ours: bool) -> Self {
        Self {
            ours: Some((kind, ours)),
            ..self
        }
    }

    fn we_report_success(self) -> Self {
        Self {
            success: Shape::Ours,
            ..self
        }
    }

    fn plain_text(self) -> Self {
        Self {
            tls: Tls::PlainText,
            ..self
        }
    }

    /// A few mails are enough to see how TLS goes.
    fn shows(self, certificate: Certificate, level: &'static str) -> Self {
        Self {
            certificate,
            level,
            kinds: &[Kind::Plain],
            ..self
        }
    }

    pub fn domain(&self) -> String {
        format!("{}.test", self.name)
    }

    pub fn host(&self) -> String {
        format!("mx.{}", self.domain())
    }

    pub fn address_of(&self, name: &str) -> String {
        format!("{name}@{}", self.domain())
    }

    pub fn ip(&self) -> Ipv4Addr {
        Ipv4Addr::new(127, 0, 3, self.number)
    }

    pub fn address(&self, port: u16) -> SocketAddr {
        (self.ip(), port).into()
    }

    pub fn zone(&self) -> String {
        let (domain, host, ip) = (self.domain(), self.host(), self.ip());
        format!("{domain} MX 10 {host}\n{host} A {ip}\n")
    }

    pub fn kinds(&self) -> &'static [Kind] {
        self.kinds
    }

    pub fn fate(&self, kind: Kind, name: &str) -> Fate {
        let (is_stranger, usual) = match name {
            "stranger" => (true, Fate::Bounced("5.1.1", "mailbox_unknown")),
            _ => (false, Fate::Delivered),
        };
        let fits = |who: &Who| match *who {
            Who::Stranger => is_stranger,
            Who::Of(of) => !is_stranger && of == kind,
            Who::Others => !is_stranger,
        };
        let own = self.fates.iter().find(|(who, _)| fits(who));
        own.map_or(usual, |(_, fate)| *fate)
    }

    /// Whether a failure of this mail is found out by us, where that is known.
    pub fn is_ours(&self, kind: Kind) -> Option<bool> {
        let (of, ours) = self.ours?;
        (of == kind).then_some(ours)
    }
}

/// All of them, each with an address of its own.
pub fn neighbours() -> Vec<Neighbour> {
    let mut all = postfixes();
    all.extend(refusing());
    all.extend(certificates());
    all.extend(exims());
    for (number, one) in (1..).zip(&mut all) {
        one.number = number;
    }
    all
}

fn postfix(name: &'static str, options: &'static [&'static str]) -> Neighbour {
    Neighbour::new(name, Server::Postfix(options))
}

/// What is offered.
fn postfixes() -> Vec<Neighbour> {
    use {Fate::Bounced, Kind::*, Who::Of};
    vec![
        postfix("defaults", &[]).says(&["starttls=1", "bdat="]),
        postfix("encrypted", &["smtpd_tls_security_level=encrypt"]),
        postfix("plain-text", &["smtpd_tls_security_level=none"]).plain_text(),
        postfix("no-chunking", &["smtpd_discard_ehlo_keywords=chunking"]).says(&["data="]),
        postfix("no-pipelining", &["smtpd_discard_ehlo_keywords=pipelining"]).says(&["data="]),
        postfix("no-8bitmime", &["smtpd_discard_ehlo_keywords=8bitmime"])
            .fates(&[
                (Of(EightBit), Bounced("5.6.3", "content")),
                (Of(Utf8), Bounced("5.6.3", "content")),
            ])
            .ours(EightBit, true),
        postfix("no-dsn", &["smtpd_discard_ehlo_keywords=dsn"]).we_report_success(),
        postfix("no-smtputf8", &["smtpd_discard_ehlo_keywords=smtputf8"])
            .fates(&[(Of(Utf8), Bounced("5.6.7", "content"))])
            .ours(Utf8, true),
        postfix("no-size", &["smtpd_discard_ehlo_keywords=size"]),
        postfix(
            "nothing",
            &["smtpd_discard_ehlo_keywords=chunking,pipelining,8bitmime,dsn,smtputf8,size,starttls"],
        )
        .fates(&[
            (Of(EightBit), Bounced("5.6.3", "content")),
            (Of(Utf8), Bounced("5.6.3", "content")),
        ])
        .we_report_success()
        .plain_text(),
        postfix("small", &["message_size_limit=100000"])
            .fates(&[(Of(Large), Bounced("5.3.4", "too_large"))])
            .ours(Large, true),
        postfix(
            "secretly-small",
            &["message_size_limit=100000", "smtpd_discard_ehlo_keywords=size"],
        )
        .fates(&[(Of(Large), Bounced("5.3.4", "too_large"))])
        .ours(Large, false),
        postfix(
            "secretly-small-data",
            &["message_size_limit=100000", "smtpd_discard_ehlo_keywords=size,chunking"],
        )
        .fates(&[(Of(Large), Bounced("5.3.4", "too_large"))])
        .ours(Large, false),
    ]
}

/// What is refused, for a time or for good.
fn refusing() -> Vec<Neighbour> {
    use {
        Fate::{Bounced, Eventually, GivenUp},
        Kind::*,
        Who::{Of, Others, Stranger},
    };
    vec![
        postfix("one-recipient", &["smtpd_recipient_limit=1"]),
        postfix(
            "shy",
            &["smtpd_recipient_restrictions=check_policy_service,inet:GREYLIST"],
        )
        .fates(&[(Others, Eventually("greylisted"))]),
        postfix(
            "few-connections",
            &["smtpd_client_connection_count_limit=1"],
        )
        .fates(&[(Others, Eventually("rate_limited"))]),
        postfix("few-mails", &["smtpd_client_message_rate_limit=2"])
            .fates(&[(Others, Eventually("rate_limited"))]),
        postfix("one-mistake", &["smtpd_hard_error_limit=1"])
            .fates(&[(Of(Several), Eventually("policy"))]),
        postfix(
            "well-bred",
            &[
                "smtpd_helo_required=yes",
                "smtpd_helo_restrictions=reject_invalid_helo_hostname,reject_non_fqdn_helo_hostname",
            ],
        ),
        postfix(
            "hostile",
            &["smtpd_sender_restrictions=check_sender_access,inline:{demo.test=REJECT}"],
        )
        .fates(&[
            (Stranger, Bounced("5.7.1", "sender_refused")),
            (Others, Bounced("5.7.1", "sender_refused")),
        ]),
        postfix("closed", &["smtpd_client_restrictions=reject"]).fates(&[
            (Stranger, Bounced("5.7.1", "policy")),
            (Others, Bounced("5.7.1", "policy")),
        ]),
        postfix("soft", &["soft_bounce=yes"])
            .fates(&[(Stranger, GivenUp("5.4.7", "mailbox_unknown"))]),
    ]
}

/// What is shown at the handshake, and what we make of it.
fn certificates() -> Vec<Neighbour> {
    use Certificate::{Expired, Good, SelfSigned, WrongName};
    let waits = |one: Neighbour| {
        let waits = (Who::Others, Fate::Waits("tls"));
        one.fates(&[waits])
    };
    vec![
        postfix("good-verify", &[]).shows(Good, "verify"),
        postfix("wrong-name-may", &[]).shows(WrongName, "may"),
        postfix("wrong-name-encrypt", &[]).shows(WrongName, "encrypt"),
        waits(postfix("wrong-name-verify", &[]).shows(WrongName, "verify")),
        postfix("expired-may", &[]).shows(Expired, "may"),
        postfix("expired-encrypt", &[]).shows(Expired, "encrypt"),
        waits(postfix("expired-verify", &[]).shows(Expired, "verify")),
        postfix("self-signed-may", &[]).shows(SelfSigned, "may"),
        postfix("self-signed-encrypt", &[]).shows(SelfSigned, "encrypt"),
        waits(postfix("self-signed-verify", &[]).shows(SelfSigned, "verify")),
        waits(
            postfix("plain-text-encrypt", &["smtpd_tls_security_level=none"])
                .shows(Good, "encrypt")
                .plain_text(),
        ),
        waits(
            postfix("plain-text-verify", &["smtpd_tls_security_level=none"])
                .shows(Good, "verify")
                .plain_text(),
        ),
    ]
}

fn exim(
    name: &'static str,
    main: &'static str,
    mail: &'static str,
    rcpt: &'static str,
) -> Neighbour {
    Neighbour::new(name, Server::Exim { main, mail, rcpt }).fates(&[])
}

fn exims() -> Vec<Neighbour> {
    use {
        Fate::{Bounced, Eventually},
        Kind::Large,
        Who::{Of, Others, Stranger},
    };
    let stranger = (Stranger, Bounced("5.0.0", "mailbox_unknown"));
    vec![
        exim("exim", "", "", "").fates(&[stranger]).says(&[" X=TLS1.", " K S="]),
        exim("exim-two-mails", "smtp_accept_max_per_connection = 2\n", "", "").fates(&[stranger]),
        exim("exim-one-recipient", "recipients_max = 1\n", "", "").fates(&[stranger]),
        exim(
            "exim-one-recipient-strictly",
            "recipients_max = 1\nrecipients_max_reject = true\n",
            "",
            "",
        )
        .fates(&[stranger]),
        exim(
            "exim-rate",
            "",
            "  defer message = Sender rate exceeds $sender_rate_limit / $sender_rate_period\n        ratelimit = 2 / 2s / leaky\n",
            "",
        )
        .fates(&[stranger, (Others, Eventually("rate_limited"))]),
        exim("exim-slow", "", "", "  warn delay = 2s\n").fates(&[stranger]),
        exim("exim-small", "message_size_limit = 100K\n", "", "")
            .fates(&[stranger, (Of(Large), Bounced("5.3.4", "too_large"))])
            .ours(Large, true),
    ]
}
