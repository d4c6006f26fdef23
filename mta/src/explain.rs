//! What outbound would do with a mail, without doing it: for `postroad explain`.
//!
//! Nothing is decided here. The source, the turns of the places of a route, the hosts behind them and how each must be protected
//! come from the functions that the worker asks; only names are looked up, and nothing is connected to, but for a policy of
//! MTA-STS where that is wanted. What a running agent has learned (connections, pauses after refused log-ins) is not known here.

mod asked;
mod needs;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use postroad_address::ForwardPath;
use postroad_daemon::CommonConfig;
use postroad_dns::Resolver;
use postroad_envelope::{Envelope, Route, RouteClass, StatusReport};
use postroad_mta_sts::Kept;
use postroad_smtpd::Smtpd;

pub use self::asked::Asked;
use self::asked::Recorder;
use crate::bounces::Bounces;
use crate::config::{Config, OutboundConfig};
use crate::outbound::content::Content;
use crate::outbound::deciding::Deciding;
use crate::outbound::demands::{Demands, Wishes};
use crate::outbound::next_hop::{Candidate, Door, NextHop, Surroundings};
use crate::outbound::outgoing::{outgoing, unfit};
use crate::outbound::security::{Basis, Match};
use crate::outbound::sources::{Source, Sources};
use crate::outbound::sts::Policies;
use crate::outbound::turns::{seed, turns};
use crate::outbound::ways::Ways;
use crate::outbound::{bounces, helo_name, own};
use crate::{Dependencies, Error, inbound};

/// A listener of port 25 without its port, its clients without TLS; none: there is no such listener. Reads files; blocks.
pub fn server(
    config: &Config,
    common: &CommonConfig,
    dependencies: &Dependencies,
    listener: &str,
) -> Option<Result<Smtpd, Error>> {
    inbound::rehearsal(&config.inbound, common, dependencies, listener)
}

/// Outbound that only tells.
pub struct Explainer {
    config: OutboundConfig,
    sources: Sources,
    ways: Ways,
    around: Surroundings,
    bounces: Bounces,
    policies: Policies,
    resolver: Recorder,
    fetch: bool,
}

/// How the mail of a job would leave.
#[derive(Debug)]
pub struct Sending {
    /// Why nothing is tried: all recipients get this.
    pub nowhere: Option<StatusReport>,
    /// The sender that hosts are told.
    pub mail_from: String,
    /// Extensions without which a host cannot take it.
    pub needs: Vec<&'static str>,
    /// The places of the route, in the order of this attempt.
    pub places: Vec<Place>,
    /// The key of the pool it is sent from, if the route names one.
    pub pool: Option<String>,
    /// Jobs of one destination that this agent has under way at one time.
    pub per_destination: u32,
}

/// One place of a route.
#[derive(Debug)]
pub struct Place {
    /// The route as it leads there.
    pub route: Route,
    /// What the DNS was asked, and said.
    pub asked: Vec<Asked>,
    /// The hosts behind it; or why none is tried.
    pub found: Result<Found, StatusReport>,
}

/// What there is at a place.
#[derive(Debug)]
pub struct Found {
    /// The hosts as one name, for limits.
    pub site: String,
    /// What was left out, and why.
    pub notes: Vec<String>,
    /// In the order to try them.
    pub hosts: Vec<HostTold>,
    /// The policy of MTA-STS that is kept here.
    pub kept: Option<Kept>,
    /// The policy that counts, in one line; none: none counts.
    pub policy: Option<String>,
    /// Why there is no newer one.
    pub fault: Option<String>,
    /// The configured key by which TLS is used.
    pub tls_key: String,
}

/// One address to try.
#[derive(Debug)]
pub struct HostTold {
    /// As logs name it: `mx.example.com [192.0.2.1]:25`.
    pub name: String,
    /// The host.
    pub host: String,
    /// Its address; none: it is a socket.
    pub address: Option<SocketAddr>,
    /// Whether DNSSEC vouches for it.
    pub secure: bool,
    /// How the connection must be protected; or why the host is not used.
    pub tls: Result<TlsTold, StatusReport>,
    /// The address to connect from; none: the system chooses.
    pub from: Option<IpAddr>,
    /// What is said in EHLO.
    pub helo: String,
    /// As whom we log in.
    pub login: Option<String>,
}

/// How a connection must be protected.
#[derive(Debug)]
pub struct TlsTold {
    /// `none`, `may`, `encrypt`, `verify` or `dane`.
    pub level: &'static str,
    /// By whose wish.
    pub why: String,
    /// What its certificate must be.
    pub certificate: String,
    /// TLS comes before the first word.
    pub implicit: bool,
    /// Why a certificate cannot be verified on this host.
    pub trouble: Option<String>,
}

impl Explainer {
    /// Of this configuration. `fetch`: a policy of MTA-STS that is not known here is fetched, and kept nowhere. Reads files; blocks.
    pub fn new(
        config: &Config,
        common: &CommonConfig,
        resolver: Arc<dyn Resolver>,
        fetch: bool,
    ) -> Result<Self, Error> {
        let outbound = config.outbound.clone();
        let listeners = config.inbound.listeners.values();
        let listening: Vec<SocketAddr> = match config.inbound.enabled {
            true => listeners.map(|listener| listener.listen.0).collect(),
            false => Vec::new(),
        };
        Ok(Self {
            sources: Sources::new(&outbound, helo_name(&outbound, common)?)?,
            ways: Ways::new(&outbound)?,
            around: own::surroundings(&outbound, common, &listening),
            bounces: bounces(&outbound)?,
            policies: Policies::look_into(&common.state_dir.join("mta"), &outbound.mta_sts),
            resolver: Recorder::new(resolver),
            config: outbound,
            fetch,
        })
    }

    /// What an attempt would do with a mail that takes this route. `content` as it was received.
    pub async fn explain(
        &self,
        route: &Route,
        mail: &Envelope,
        content: &Bytes,
        attempt: u32,
    ) -> Sending {
        let content = Content::here(content, &mail.header_edits);
        let mut said = outgoing(mail, route.class, &content);
        if route.class == RouteClass::Relay {
            said.reverse_path = match mail.recipients.first() {
                Some(first) => {
                    let first = ForwardPath::Mailbox(first.address.clone());
                    self.bounces.sender_for(&said.reverse_path, &first)
                }
                None => self.bounces.sign(&said.reverse_path),
            };
        }
        let mut sending = Sending {
            nowhere: self.deciding().looping(mail.hop_count),
            mail_from: said.reverse_path.to_string(),
            needs: needs::of(&said, mail),
            places: Vec::new(),
            pool: route.source.as_ref().map(ToString::to_string),
            per_destination: self.config.per_destination,
        };
        let fault = unfit(mail, &content).map(|outcome| outcome.report().clone());
        sending.nowhere = sending.nowhere.or(fault);
        let seed = seed(mail.queue_id, attempt);
        let source = match self.sources.of(route, seed) {
            Ok(source) => source,
            Err(report) => {
                sending.nowhere = sending.nowhere.or(Some(*report));
                return sending;
            }
        };
        for turn in turns(route, seed) {
            let wishes = Wishes::of(mail, &turn, &content);
            let found = self.place(&turn, &source, wishes, seed).await;
            sending.places.push(Place {
                route: turn,
                asked: self.resolver.take(),
                found,
            });
        }
        sending
    }

    fn deciding(&self) -> Deciding<'_> {
        Deciding {
            config: &self.config,
            ways: &self.ways,
            around: &self.around,
            resolver: &self.resolver,
            policies: &self.policies,
            fetch: self.fetch,
        }
    }

    async fn place(
        &self,
        route: &Route,
        source: &Source,
        wishes: Wishes,
        seed: u64,
    ) -> Result<Found, StatusReport> {
        let hop = self.deciding().reach(route, source, seed).await?;
        let demands = self.deciding().demands(wishes, (route, &hop)).await;
        let mut hosts = Vec::with_capacity(hop.candidates.len());
        for candidate in &hop.candidates {
            hosts.push(self.host(candidate, (route, &hop), source, &demands).await);
        }
        let domain = demands.domain.as_ref();
        let policy = demands.sts.policy.as_ref().map(|policy| {
            let hosts = policy.mx.join(", ");
            format!("{} for {hosts}, {} s long", policy.mode, policy.max_age)
        });
        Ok(Found {
            site: hop.site,
            notes: hop.notes,
            hosts,
            kept: domain.and_then(|domain| self.policies.kept(domain)),
            policy,
            fault: demands.sts.fault.as_ref().map(ToString::to_string),
            tls_key: self.ways.key(route),
        })
    }

    async fn host(
        &self,
        candidate: &Candidate,
        (route, hop): (&Route, &NextHop),
        source: &Source,
        demands: &Demands,
    ) -> HostTold {
        let way = self.ways.of(route);
        let decided = self.deciding().security(candidate, route, demands).await;
        let tls = decided.map(|security| {
            let look = security.basis == Basis::StsTesting;
            TlsTold {
                level: security.level.as_str(),
                certificate: wanted(&security.certificate),
                implicit: way.is_implicit(route),
                trouble: self.ways.tls(way, &security.certificate, look).err(),
                why: security.why,
            }
        });
        let address = match &candidate.door {
            Door::Tcp(address) => Some(*address),
            Door::Unix(_) => None,
        };
        let to = address.map(|address| address.ip());
        HostTold {
            name: candidate.name(),
            host: candidate.host.clone(),
            address,
            secure: hop.secure.contains(&candidate.host),
            tls: tls.map_err(|refusal| StatusReport::local(refusal.status, refusal.text)),
            from: to.and_then(|to| source.address(to)),
            helo: source.helo_name(to).to_string(),
            login: way.login.user().map(str::to_owned),
        }
    }
}

/// For a person.
fn wanted(certificate: &Match) -> String {
    match certificate {
        Match::Anything => "any".to_owned(),
        Match::Names(names) => format!("of a known authority, for {}", names.join(" or ")),
        Match::Host(host) => format!("of a known authority, for {host}"),
        Match::Dane(dane) => dane.to_string(),
    }
}
