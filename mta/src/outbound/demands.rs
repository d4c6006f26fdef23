//! What a job asks of every connection, and what follows from that for one host.

use postroad_dns::HostName;
use postroad_envelope::{Envelope, Route, RouteClass};
use postroad_queue_client::Lease;

use super::content::Content;
use super::deciding::Deciding;
use super::next_hop::{Candidate, Door, NextHop};
use super::security::{self, Basis, DaneFacts, Facts, Level, Match, Refusal, Security, StsFacts};
use super::sts::Found;
use super::{Sender, dane};
use crate::config::TlsPolicy;

/// What does not depend on the host.
pub struct Demands {
    /// The recipients' domain, if its own mail hosts are spoken to.
    pub domain: Option<HostName>,
    /// Its policy.
    pub sts: Found,
    wishes: Wishes,
    /// The hosts that DNSSEC vouches for.
    secure: Vec<String>,
}

/// What a mail asks of connections.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wishes {
    /// REQUIRETLS (RFC 8689 §2).
    pub requiretls: bool,
    /// `TLS-Required: No` (RFC 8689 §5).
    pub waived: bool,
}

impl Wishes {
    /// Those of a mail that takes this route.
    pub fn of(mail: &Envelope, route: &Route, content: &Content) -> Self {
        Self {
            requiretls: mail.requiretls && route.class == RouteClass::Relay,
            waived: content.waives_tls(),
        }
    }
}

impl Sender {
    /// Looks up what the recipients' domain says, if that counts for this job.
    pub async fn demands(
        &self,
        lease: &Lease,
        (route, hop): (&Route, &NextHop),
        content: &Content,
    ) -> Demands {
        let wishes = Wishes::of(&lease.envelope, route, content);
        self.deciding().demands(wishes, (route, hop)).await
    }

    /// How a connection to this host must be protected, or why it cannot be used.
    pub async fn security(
        &self,
        candidate: &Candidate,
        route: &Route,
        demands: &Demands,
    ) -> Result<Security, Refusal> {
        self.deciding().security(candidate, route, demands).await
    }
}

impl Deciding<'_> {
    /// Looks up what the recipients' domain says, if that counts for this job.
    pub async fn demands(&self, wishes: Wishes, (route, hop): (&Route, &NextHop)) -> Demands {
        let own_hosts = route.class == RouteClass::Relay && route.next_hop.is_none();
        let domain = own_hosts.then(|| HostName::parse(&route.destination).ok());
        let domain = domain.flatten();
        let counts = |policy| matches!(policy, TlsPolicy::May | TlsPolicy::Encrypt);
        let asked = counts(self.ways.rule(route, Vec::new()).policy);
        let sts = match (&domain, asked) {
            (Some(domain), true) => self.policies.of(domain, &self.asking()).await,
            _ => Found::default(),
        };
        Demands {
            domain,
            sts,
            wishes,
            secure: hop.secure.clone(),
        }
    }

    /// How a connection to this host must be protected, or why it cannot be used.
    pub async fn security(
        &self,
        candidate: &Candidate,
        route: &Route,
        demands: &Demands,
    ) -> Result<Security, Refusal> {
        let Door::Tcp(address) = candidate.door else {
            return Ok(at_a_socket());
        };
        let (host, names) = self.ways.of(route).names(candidate, route);
        let rule = self.ways.rule(route, names);
        let counts = match rule.policy {
            TlsPolicy::May | TlsPolicy::Encrypt | TlsPolicy::Dane => true,
            TlsPolicy::None | TlsPolicy::Verify => false,
        };
        let dane = match counts {
            true => {
                let secure = demands.secure.contains(&candidate.host);
                let mut names = vec![host.clone()];
                names.extend(demands.domain.iter().map(ToString::to_string));
                dane::facts(self.resolver, &host, address.port(), secure, names).await
            }
            false => DaneFacts::Insecure,
        };
        let decided = security::decide(&Facts {
            rule: &rule,
            host: &host,
            dane: &dane,
            sts: &demands.sts_facts(&host),
            requiretls: demands.wishes.requiretls,
            waived: demands.wishes.waived,
        });
        let mut security = decided?;
        // A person who looks for the reason finds it here; the domain's policy, had it come, might have said more.
        if let (Basis::Ours, Some(fault)) = (security.basis, &demands.sts.fault) {
            security.why = format!("{}; {fault}", security.why);
        }
        Ok(security)
    }
}

impl Demands {
    /// Whether the domain's policy, if it has one, names the host.
    pub fn names(&self, host: &str) -> bool {
        let policy = self.sts.policy.as_ref();
        policy.is_none_or(|policy| policy.names(host))
    }

    fn sts_facts(&self, host: &str) -> StsFacts {
        match (&self.domain, &self.sts.policy) {
            (Some(domain), Some(policy)) => StsFacts::Policy {
                domain: domain.to_string(),
                mode: policy.mode,
                names_host: policy.names(host),
            },
            _ => StsFacts::Absent,
        }
    }
}

/// Nobody is in between there, and there is no name that a certificate could have.
fn at_a_socket() -> Security {
    Security {
        level: Level::None,
        certificate: Match::Anything,
        basis: Basis::Ours,
        why: "a socket of this host".to_owned(),
    }
}
