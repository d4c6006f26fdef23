//! How a connection to one host must be protected, and why.
//!
//! Pure: what the configuration says, what the DNS says of the host's certificate (DANE, RFC 7672), what the domain says by
//! MTA-STS (RFC 8461) and what the mail asks for (RFC 8689) go in; [`Security`] comes out, or why this host cannot be used
//! ([`Refusal`]). `postroad explain` calls the same function.
//!
//! ```text
//! none ─► plain text          may, encrypt ─► DANE, else MTA-STS, else as it says
//! verify ─► as it says        dane ─► DANE or nothing
//! ```

use std::fmt;

use postroad_mta_sts::Mode;
use postroad_net::Dane;
use postroad_reply::{
    CRYPTOGRAPHY_4_7_5, EnhancedStatusCode, POLICY_4_7_0, REQUIRETLS_NEEDED_5_7_30,
};
use postroad_smtp_session::TlsUse;

use crate::config::TlsPolicy;

/// What the configuration says, and where it says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The word.
    pub policy: TlsPolicy,
    /// The key, such as `mta.outbound.tls`.
    pub from: String,
    /// The names of which a certificate must have one where it is verified by them.
    pub names: Vec<String>,
}

/// What the DNS says of a host's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DaneFacts {
    /// DNSSEC does not vouch for the names that lead to the host, so its records mean nothing.
    Insecure,
    /// DNSSEC vouches for the host, and it has no TLSA record.
    Absent,
    /// None of its records can be used: it has TLS, and no certificate to compare (RFC 7672 §2.2).
    Unusable,
    /// A certificate is published.
    Usable(Dane),
    /// It cannot be told now; somebody may want it so (RFC 7672 §2.1.2).
    Failed(String),
}

/// What the recipients' domain says by MTA-STS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StsFacts {
    /// It has no policy, or is not asked: a route of ours names the host.
    Absent,
    /// It has one.
    Policy {
        /// Of this domain.
        domain: String,
        /// How strict.
        mode: Mode,
        /// Whether it names the host.
        names_host: bool,
    },
}

/// All that counts for a connection to one host.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// What the configuration says.
    pub rule: &'a Rule,
    /// The host's name.
    pub host: &'a str,
    /// What the DNS says.
    pub dane: &'a DaneFacts,
    /// What the domain says.
    pub sts: &'a StsFacts,
    /// REQUIRETLS was asked for (RFC 8689 §2).
    pub requiretls: bool,
    /// The mail says `TLS-Required: No` (RFC 8689 §5): what the recipients' side wishes does not count for it.
    pub waived: bool,
}

/// How a connection is protected. Each is more than those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// In plain text.
    None,
    /// By TLS if it can be had, with whoever answers.
    May,
    /// By TLS, with whoever answers.
    Encrypt,
    /// By TLS, with a host whose certificate was verified.
    Verify,
    /// The same, by what the DNS says of the certificate.
    Dane,
}

/// What the certificate must be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Match {
    /// Any.
    Anything,
    /// One from an authority of the configuration, for one of these names.
    Names(Vec<String>),
    /// One from an authority that all believe, for the host's own name.
    Host(String),
    /// The one that is published.
    Dane(Dane),
}

/// By whose wish a connection is as it is; what reports tell (RFC 8460 §4.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Basis {
    /// Ours alone.
    Ours,
    /// The domain's, by TLSA records.
    Tlsa,
    /// The domain's, by MTA-STS.
    Sts,
    /// The domain tries MTA-STS, and wants to know whether it would have worked.
    StsTesting,
}

/// How to connect.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Security {
    /// What is reached, or the connection is not used.
    pub level: Level,
    /// What the certificate must be for that.
    pub certificate: Match,
    /// By whose wish.
    pub basis: Basis,
    /// For a person.
    pub why: String,
}

/// Why a host cannot be used for this mail.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    /// Class 4: it may be mended; class 5: this mail is not for this host.
    pub status: EnhancedStatusCode,
    /// What is wrong, and what to do.
    pub text: String,
    /// By whose wish.
    pub basis: Basis,
}

/// The decision.
pub fn decide(facts: &Facts<'_>) -> Result<Security, Refusal> {
    let security = wished(facts)?;
    if facts.requiretls {
        return required(security, facts);
    }
    Ok(security)
}

fn wished(facts: &Facts<'_>) -> Result<Security, Refusal> {
    let rule = facts.rule;
    match (rule.policy, facts.dane) {
        (TlsPolicy::None, _) => Ok(ours(Level::None, Match::Anything, rule)),
        (TlsPolicy::Verify, _) => {
            let names = Match::Names(rule.names.clone());
            Ok(ours(Level::Verify, names, rule))
        }
        (TlsPolicy::Dane, DaneFacts::Usable(dane)) => Ok(by_dane(dane, facts.host)),
        (TlsPolicy::Dane, DaneFacts::Failed(detail)) => Err(dane_failed(detail)),
        (TlsPolicy::Dane, missing) => Err(no_dane(missing, facts)),
        (TlsPolicy::May | TlsPolicy::Encrypt, _) if facts.waived && !facts.requiretls => {
            let level = floor(rule);
            let why = format!("the mail says TLS-Required: No, {}", rule.from);
            Ok(Security {
                why,
                ..ours(level, Match::Anything, rule)
            })
        }
        (TlsPolicy::May | TlsPolicy::Encrypt, DaneFacts::Usable(dane)) => {
            Ok(by_dane(dane, facts.host))
        }
        // Who fell back to less here could be made to by whoever keeps the answer from us.
        (TlsPolicy::May | TlsPolicy::Encrypt, DaneFacts::Failed(detail)) => {
            Err(dane_failed(detail))
        }
        (TlsPolicy::May | TlsPolicy::Encrypt, DaneFacts::Unusable) => {
            let security = by_sts(facts)?;
            Ok(match security.level {
                Level::Verify => security,
                _ => Security {
                    level: Level::Encrypt,
                    basis: Basis::Tlsa,
                    why: format!(
                        "the TLSA records of {} cannot be used, so that it has TLS and no certificate to compare",
                        facts.host
                    ),
                    certificate: Match::Anything,
                },
            })
        }
        (TlsPolicy::May | TlsPolicy::Encrypt, DaneFacts::Insecure | DaneFacts::Absent) => {
            by_sts(facts)
        }
    }
}

/// The least that the configuration asks for.
fn floor(rule: &Rule) -> Level {
    match rule.policy {
        TlsPolicy::Encrypt => Level::Encrypt,
        _ => Level::May,
    }
}

fn ours(level: Level, certificate: Match, rule: &Rule) -> Security {
    Security {
        level,
        certificate,
        basis: Basis::Ours,
        why: rule.from.clone(),
    }
}

fn by_dane(dane: &Dane, host: &str) -> Security {
    Security {
        level: Level::Dane,
        certificate: Match::Dane(dane.clone()),
        basis: Basis::Tlsa,
        why: format!("{dane} of {host}"),
    }
}

fn by_sts(facts: &Facts<'_>) -> Result<Security, Refusal> {
    let rule = facts.rule;
    let otherwise = ours(floor(rule), Match::Anything, rule);
    let StsFacts::Policy {
        domain,
        mode,
        names_host,
    } = facts.sts
    else {
        return Ok(otherwise);
    };
    match (mode, names_host) {
        (Mode::None, _) => Ok(otherwise),
        (Mode::Testing, _) => Ok(Security {
            basis: Basis::StsTesting,
            why: format!("{}, {domain} tests its MTA-STS policy", rule.from),
            ..otherwise
        }),
        (Mode::Enforce, true) => Ok(Security {
            level: Level::Verify,
            certificate: Match::Host(facts.host.to_owned()),
            basis: Basis::Sts,
            why: format!("MTA-STS policy of {domain}"),
        }),
        // RFC 8461 §5: not even tried.
        (Mode::Enforce, false) => Err(Refusal {
            status: POLICY_4_7_0,
            text: format!(
                "the MTA-STS policy of {domain} does not name this mail host; whoever runs {domain} must mend the policy or the MX records"
            ),
            basis: Basis::Sts,
        }),
    }
}

/// RFC 8689 §4.2.1: under REQUIRETLS the host must prove who it is, by whatever means there is.
fn required(security: Security, facts: &Facts<'_>) -> Result<Security, Refusal> {
    let certificate = match (security.level, facts.dane) {
        (Level::Verify | Level::Dane, _) => {
            let why = format!("{}, and REQUIRETLS", security.why);
            return Ok(Security { why, ..security });
        }
        (Level::None, _) => {
            return Err(Refusal {
                status: REQUIRETLS_NEEDED_5_7_30,
                text: format!(
                    "the sender demands TLS (REQUIRETLS), and {} says that there is none with this host",
                    facts.rule.from
                ),
                basis: Basis::Ours,
            });
        }
        // DNSSEC vouches for the way from the domain to the host's name.
        (_, DaneFacts::Absent | DaneFacts::Unusable) => Match::Host(facts.host.to_owned()),
        _ => Match::Names(facts.rule.names.clone()),
    };
    Ok(Security {
        level: Level::Verify,
        certificate,
        basis: security.basis,
        why: "REQUIRETLS".to_owned(),
    })
}

fn dane_failed(detail: &str) -> Refusal {
    Refusal {
        status: POLICY_4_7_0,
        text: format!(
            "its TLSA records cannot be had now, so that nobody may take its place: {detail}"
        ),
        basis: Basis::Tlsa,
    }
}

fn no_dane(missing: &DaneFacts, facts: &Facts<'_>) -> Refusal {
    let lacks = match missing {
        DaneFacts::Absent => "it has no TLSA record",
        DaneFacts::Unusable => "none of its TLSA records can be used",
        _ => {
            "DNSSEC does not vouch for its name (nothing is vouched for unless common.dns.dnssec is true or the name server on this host validates)"
        }
    };
    Refusal {
        status: CRYPTOGRAPHY_4_7_5,
        text: format!("{} demands DANE, and {lacks}", facts.rule.from),
        basis: Basis::Tlsa,
    }
}

impl Level {
    /// For the session.
    pub fn tls_use(self) -> TlsUse {
        match self {
            Self::None => TlsUse::Never,
            Self::May => TlsUse::IfOffered,
            Self::Encrypt | Self::Verify | Self::Dane => TlsUse::Required,
        }
    }

    /// The word, as it is configured and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::May => "may",
            Self::Encrypt => "encrypt",
            Self::Verify => "verify",
            Self::Dane => "dane",
        }
    }
}

/// `verify (MTA-STS policy of example.org)`.
impl fmt::Display for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.level.as_str(), self.why)
    }
}

#[cfg(test)]
mod tests;
