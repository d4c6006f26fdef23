//! What a connection came to, in the words of RFC 8460 §4.3.

use std::net::IpAddr;

use postroad_metrics::labels::Protection;
use postroad_mta_sts::Policy;
use postroad_net::Error as NetError;
use postroad_smtp_session::ClientError;
use postroad_tlsrpt::{Failure, PolicyKind, PolicyText};

use super::super::Sender;
use super::super::conversation::Conversation;
use super::super::demands::Demands;
use super::super::next_hop::{Candidate, Door};
use super::super::security::{Basis, Level, Match, Security};
use super::super::sources::Source;
use super::super::sts::StsFault;
use super::super::trouble::Trouble;

impl Sender {
    /// Counts a connection on which mail can be sent.
    pub fn count_conversation(
        &self,
        (candidate, source): (&Candidate, &Source),
        security: &Security,
        demands: &Demands,
        conversation: &Conversation,
    ) {
        let verified = conversation.tls().map(|tls| tls.verified.is_some());
        let level = protection(security.level, verified);
        self.counts.connections.protected.count(level);
        let fault = match verified {
            None => Some("starttls-not-supported"),
            Some(verified) => tested(security, verified, demands.names(&candidate.host)),
        };
        let policy = policy(security.basis, Some(&security.certificate), demands);
        self.count_tls(
            (candidate, source),
            &policy,
            demands,
            fault.map(|kind| (kind, None)),
        );
    }

    /// Counts a connection that TLS was in the way of.
    pub fn count_trouble(
        &self,
        (candidate, source): (&Candidate, &Source),
        security: Option<&Security>,
        demands: &Demands,
        trouble: &Trouble,
    ) {
        if let Some(kind) = of_trouble(trouble) {
            let detail = Some(trouble.to_string());
            let basis = match trouble {
                Trouble::Unprotected(refusal) => refusal.basis,
                _ => security.map_or(Basis::Ours, |security| security.basis),
            };
            let certificate = security.map(|security| &security.certificate);
            let policy = policy(basis, certificate, demands);
            self.count_tls((candidate, source), &policy, demands, Some((kind, detail)));
        }
    }

    fn count_tls(
        &self,
        (candidate, source): (&Candidate, &Source),
        policy: &PolicyText,
        demands: &Demands,
        fault: Option<(&str, Option<String>)>,
    ) {
        let (Some(domain), true) = (&demands.domain, self.config.tls_reports.enabled) else {
            return;
        };
        let from = match candidate.door {
            Door::Tcp(address) => source.address(address.ip()),
            Door::Unix(_) => None,
        };
        let failure = fault.map(|(kind, detail)| failure(kind, candidate, from, detail));
        self.reports.count(domain.as_str(), policy, failure);
        if let Some(fault) = &demands.sts.fault {
            let policy = PolicyText {
                kind: PolicyKind::Sts,
                lines: Vec::new(),
                hosts: Vec::new(),
            };
            let kind = of_sts(fault);
            let failure = failure_of(kind, Some(fault.to_string()));
            self.reports.count(domain.as_str(), &policy, Some(failure));
        }
    }
}

/// What went wrong before there was a host.
fn failure_of(kind: &str, detail: Option<String>) -> Failure {
    Failure {
        kind: kind.to_owned(),
        from: None,
        host: None,
        to: None,
        detail,
    }
}

/// The policy under which a connection was made.
fn policy(basis: Basis, certificate: Option<&Match>, demands: &Demands) -> PolicyText {
    let (kind, lines, hosts) = match basis {
        Basis::Tlsa => {
            let lines = match certificate {
                Some(Match::Dane(dane)) => dane.lines().collect(),
                _ => Vec::new(),
            };
            (PolicyKind::Tlsa, lines, Vec::new())
        }
        Basis::Sts | Basis::StsTesting => {
            let policy = demands.sts.policy.as_ref();
            let lines = policy.map(Policy::to_string).unwrap_or_default();
            let lines = lines.lines().map(str::to_owned).collect();
            let hosts = policy.map(|policy| policy.mx.clone()).unwrap_or_default();
            (PolicyKind::Sts, lines, hosts)
        }
        Basis::Ours => (PolicyKind::None, Vec::new(), Vec::new()),
    };
    PolicyText { kind, lines, hosts }
}

/// What went wrong with a host.
fn failure(
    kind: &str,
    candidate: &Candidate,
    from: Option<IpAddr>,
    detail: Option<String>,
) -> Failure {
    let to = match candidate.door {
        Door::Tcp(address) => Some(address.ip()),
        Door::Unix(_) => None,
    };
    Failure {
        kind: kind.to_owned(),
        from,
        host: Some(candidate.host.clone()),
        to,
        detail,
    }
}

/// The word for a trouble, if it is one of TLS.
fn of_trouble(trouble: &Trouble) -> Option<&'static str> {
    match trouble {
        Trouble::Session(ClientError::TlsNotOffered) => Some("starttls-not-supported"),
        Trouble::Session(ClientError::Refused { .. })
            if trouble.stage() == postroad_smtp_session::Stage::StartTls =>
        {
            Some("starttls-not-supported")
        }
        Trouble::Handshake(NetError::Refused(refused)) => Some(of_certificate(&refused.reason)),
        Trouble::Handshake(_) => Some("validation-failure"),
        Trouble::Unprotected(refusal) => match refusal.basis {
            Basis::Tlsa => Some("dnssec-invalid"),
            Basis::Sts | Basis::StsTesting => Some("validation-failure"),
            Basis::Ours => None,
        },
        _ => None,
    }
}

/// Our own words for what is wrong with a certificate.
fn of_certificate(reason: &str) -> &'static str {
    let has = |words: &[&str]| words.iter().any(|word| reason.contains(word));
    match () {
        () if has(&["run out", "expired", "Expired"]) => "certificate-expired",
        () if has(&["other names", "not valid for name", "NotValidForName"]) => {
            "certificate-host-mismatch"
        }
        () if has(&["no authority", "UnknownIssuer"]) => "certificate-not-trusted",
        () => "validation-failure",
    }
}

/// Why a policy of MTA-STS could not be had.
fn of_sts(fault: &StsFault) -> &'static str {
    match fault {
        StsFault::Fetch(..) | StsFault::NotAsked(_) => "sts-policy-fetch-error",
        StsFault::Certificate(..) => "sts-webpki-invalid",
        StsFault::Invalid(..) => "sts-policy-invalid",
    }
}

/// How a conversation is protected that came about at this level; whether its certificate was verified, if it has TLS.
fn protection(level: Level, verified: Option<bool>) -> Protection {
    match (verified, level) {
        (None, _) => Protection::Plain,
        (Some(_), Level::Dane) => Protection::Dane,
        (Some(true), _) => Protection::Verified,
        (Some(false), _) => Protection::Encrypted,
    }
}

/// Under a policy that is only tried: whether the host would have stood up to it.
fn tested(security: &Security, verified: bool, names_host: bool) -> Option<&'static str> {
    match (security.basis, names_host, verified) {
        (Basis::StsTesting, false, _) => Some("validation-failure"),
        (Basis::StsTesting, true, false) => Some("certificate-not-trusted"),
        _ => None,
    }
}
