//! From mail hosts and their addresses to the list of candidates to try, in order.
//!
//! Pure: DNS answers, a seed and [`Surroundings`] in; [`Candidate`]s or a [`Verdict`] out. The order is that
//! of RFC 5321 §5.1: by preference, equal preferences shuffled. What must not be spoken to is taken
//! out here, after resolution, so that no name and no redirection leads around it: ourselves (a loop), and
//! addresses that are not of the public internet unless they are allowed.

use std::net::{IpAddr, SocketAddr};

use postroad_address::Domain;
use postroad_dns::{DnsError, HostName, MailHosts, MxHost};
use postroad_envelope::{
    HostPort, NextHop as RoutedHop, RemoteHost, Route, SocketPath, StatusReport, TlsFacts,
};
use postroad_net::{Networks, Peer, is_forbidden_destination};
use postroad_reply::{
    BAD_DOMAIN_5_1_2, DIRECTORY_FAILURE_4_4_3, EnhancedStatusCode, LOOP_5_4_6, MISCONFIGURED_4_3_5,
    NOT_AUTHORIZED_5_7_1, NULL_MX_5_1_10, UNROUTABLE_5_4_4,
};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt as _, SeedableRng};

use crate::config::AddressPreference;

/// Addresses tried of one host; both families have a share.
pub const MAX_PER_HOST: usize = 4;
/// Addresses tried in one attempt (RFC 5321 §5.1: at least two, and a limit is allowed).
pub const MAX_CANDIDATES: usize = 16;
/// A site is named by at most so many octets.
const MAX_SITE: usize = 255;

/// What we are, and where we may send.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Names by which we are known, in MX records among others.
    pub own_names: Vec<HostName>,
    /// Addresses of this host, and public ones that lead here through NAT. Loopback is always ours.
    pub own_addresses: Vec<IpAddr>,
    /// Ports on which we take mail. On others this host may run another server.
    pub own_ports: Vec<u16>,
    /// `mta.outbound.allow_networks`: may be sent to although not of the public internet.
    pub allow_networks: Networks,
    /// `mta.outbound.address_preference`; without it the resolver's order.
    pub prefer: Option<AddressPreference>,
    /// `mta.outbound.port`: where mail hosts are spoken to, 25 in the real world.
    pub port: u16,
}

/// What a job is aimed at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The mail hosts of a domain.
    Domain(Domain),
    /// An address literal (RFC 5321 §4.1.3): no DNS at all.
    Literal(Domain, IpAddr),
    /// A host named by our own routes: addresses only, its MX records mean nothing.
    Host(HostName, u16),
    /// An address named by our own routes.
    Address(SocketAddr),
    /// A socket of this host named by our own routes, for LMTP.
    Socket(SocketPath),
}

/// A mail host and what the DNS said of its addresses.
#[derive(Clone, Debug)]
pub struct ResolvedHost {
    /// The host.
    pub host: MxHost,
    /// Its addresses, in the order to try them.
    pub addresses: Result<Vec<IpAddr>, DnsError>,
}

/// One address to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The name it was found under, or the literal: for logs, DSNs and certificates. Of a socket what routes call it.
    pub host: String,
    /// Where to connect to.
    pub door: Door,
}

/// Where a host is connected to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Door {
    /// By TCP.
    Tcp(SocketAddr),
    /// By a socket of this host.
    Unix(SocketPath),
}

impl Candidate {
    /// For a person: `mx.example.com [192.0.2.1]:25`, `unix:/run/dovecot/lmtp`.
    pub fn name(&self) -> String {
        match &self.door {
            Door::Tcp(address) => format!("{} {}", self.host, Peer::new(*address)),
            Door::Unix(_) => self.host.clone(),
        }
    }

    /// As reports and settlements name it.
    pub fn remote(&self, tls: Option<TlsFacts>) -> RemoteHost {
        RemoteHost {
            name: self.host.clone(),
            address: match self.door {
                Door::Tcp(address) => Some(address),
                Door::Unix(_) => None,
            },
            tls,
            tls_policy: None,
        }
    }
}

/// Where an attempt goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// In the order to try; at least one, at most [`MAX_CANDIDATES`].
    pub candidates: Vec<Candidate>,
    /// The mail hosts behind the destination, as one name for limits per site.
    pub site: String,
    /// What was left out and why, for the log.
    pub notes: Vec<String>,
    /// The hosts whose names and addresses DNSSEC vouches for, all the way from the destination.
    pub secure: Vec<String>,
}

/// Why there is nowhere to go: for all recipients of the job, without a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Class 4 (again later) or 5 (never).
    pub status: EnhancedStatusCode,
    /// The reason, for a person.
    pub text: String,
}

impl Verdict {
    fn new(status: EnhancedStatusCode, text: impl Into<String>) -> Self {
        Self {
            status,
            text: text.into(),
        }
    }

    /// RFC 3463 §3.4 X.3.5: a fault of our own set-up never bounces mail, a person is to mend it.
    fn ours_to_mend(text: String) -> Self {
        Self::new(MISCONFIGURED_4_3_5, text)
    }

    /// The same as what was in the way of an attempt.
    pub fn into_report(self) -> StatusReport {
        StatusReport::local(self.status, self.text)
    }
}

impl Target {
    /// The target of a route: its own host if it names one, else the mail hosts of its destination.
    pub fn of(route: &Route) -> Result<Self, Verdict> {
        match &route.next_hop {
            Some(hop) if !hop.fits(route.class) => Err(Verdict::ours_to_mend(format!(
                "{} names {hop}, but by a socket mail goes by LMTP alone",
                route.rule
            ))),
            Some(RoutedHop::Unix(path)) => Ok(Self::Socket(path.clone())),
            Some(RoutedHop::Host(host)) => Self::host(host).map_err(|problem| {
                Verdict::ours_to_mend(format!("{} names {host}, but {problem}", route.rule))
            }),
            None => match Domain::parse(&route.destination) {
                Ok(domain) => Ok(domain
                    .literal()
                    .map_or(Self::Domain(domain.clone()), |ip| Self::Literal(domain, ip))),
                Err(error) => Err(Verdict::new(
                    BAD_DOMAIN_5_1_2,
                    format!("cannot send to {}: {error}", route.destination),
                )),
            },
        }
    }

    fn host(hop: &HostPort) -> Result<Self, postroad_dns::NameError> {
        match hop.host.parse::<IpAddr>() {
            Ok(ip) => Ok(Self::Address(SocketAddr::new(ip, hop.port))),
            Err(_) => HostName::parse(&hop.host).map(|name| Self::Host(name, hop.port)),
        }
    }
}

/// The mail hosts to look up, in the order to try them: equal preferences shuffled, the list cut off at
/// our own name.
pub fn order(
    domain: &Domain,
    found: Result<MailHosts, DnsError>,
    around: &Surroundings,
    seed: u64,
) -> Result<Vec<MxHost>, Verdict> {
    let found = found.map_err(|error| no_mail_hosts(&error))?;
    let ours = |host: &MxHost| {
        around.own_ports.contains(&around.port) && around.own_names.contains(&host.name)
    };
    // RFC 5321 §5.1: if we are in the list, hosts of our preference and above must not be used.
    let cut = found
        .hosts
        .iter()
        .filter(|host| ours(host))
        .map(|host| host.preference)
        .min();
    let mut rng = StdRng::seed_from_u64(seed);
    let mut ordered = Vec::with_capacity(found.hosts.len());
    for group in found.groups() {
        let mut group = group.to_vec();
        group.retain(|host| cut.is_none_or(|cut| host.preference < cut));
        group.shuffle(&mut rng);
        ordered.append(&mut group);
    }
    if ordered.is_empty() {
        Err(loops_back(domain))
    } else {
        Ok(ordered)
    }
}

/// The addresses of a host with the preferred family first, each family in its order. `seed` decides where either may be.
pub fn preferred(
    mut addresses: Vec<IpAddr>,
    prefer: Option<AddressPreference>,
    seed: u64,
) -> Vec<IpAddr> {
    let ipv4_first = match prefer {
        None => return addresses,
        Some(AddressPreference::Ipv4) => true,
        Some(AddressPreference::Ipv6) => false,
        // Not the numbers by which mail hosts are shuffled.
        Some(AddressPreference::Any) => StdRng::seed_from_u64(!seed).random(),
    };
    addresses.sort_by_key(|ip| ip.is_ipv4() != ipv4_first);
    addresses
}

/// The candidates of a domain whose mail hosts were ordered and looked up.
pub fn candidates(
    domain: &Domain,
    mut hosts: Vec<ResolvedHost>,
    around: &Surroundings,
) -> Result<NextHop, Verdict> {
    let site = site(hosts.iter().map(|resolved| resolved.host.name.as_str()));
    let leads_to_us = |resolved: &ResolvedHost| {
        let addresses = resolved.addresses.as_deref().unwrap_or_default();
        addresses
            .iter()
            .any(|ip| around.judge(*ip, around.port) == Judgement::Ourselves)
    };
    // RFC 5321 §5.1, the loop guard again, for names of ours that we do not know.
    let cut = hosts
        .iter()
        .filter(|h| leads_to_us(h))
        .map(|h| h.host.preference)
        .min();
    hosts.retain(|resolved| cut.is_none_or(|cut| resolved.host.preference < cut));
    if hosts.is_empty() {
        return Err(loops_back(domain));
    }
    let mut gathered = Gathered::default();
    for resolved in hosts {
        gathered.add(
            resolved.host.name.as_str(),
            resolved.addresses,
            around.port,
            around,
        );
    }
    gathered
        .finish(site)
        .map_err(|gathered| match gathered.postponed {
            Some(error) => Verdict::new(DIRECTORY_FAILURE_4_4_3, error.to_string()),
            None => {
                let notes = gathered.notes.join("; ");
                let text = format!("no mail host of {domain} can be sent to: {notes}");
                Verdict::new(UNROUTABLE_5_4_4, text)
            }
        })
}

/// The candidate of an address literal.
pub fn literal(domain: &Domain, ip: IpAddr, around: &Surroundings) -> Result<NextHop, Verdict> {
    if around.judge(ip, around.port) == Judgement::Ourselves {
        return Err(loops_back(domain));
    }
    let mut gathered = Gathered::default();
    gathered.add(&domain.to_string(), Ok(vec![ip]), around.port, around);
    gathered
        .finish(domain.a_label().to_owned())
        .map_err(|gathered| Verdict::new(NOT_AUTHORIZED_5_7_1, gathered.notes.join("; ")))
}

/// The candidates of a host that our own routes name. Nothing here is the sender's fault, so no
/// failure is for good.
pub fn routed(
    host: &str,
    addresses: Result<Vec<IpAddr>, DnsError>,
    port: u16,
    around: &Surroundings,
) -> Result<NextHop, Verdict> {
    let mut gathered = Gathered::default();
    gathered.add(host, addresses, port, around);
    gathered
        .finish(format!("{host}:{port}"))
        .map_err(|gathered| match gathered.postponed {
            Some(error) => Verdict::new(DIRECTORY_FAILURE_4_4_3, error.to_string()),
            None => Verdict::ours_to_mend(format!(
                "the route to {host}:{port} leads nowhere: {}",
                gathered.notes.join("; ")
            )),
        })
}

/// The one candidate behind a socket. Whether anybody listens there is seen when it is tried.
pub fn socket(path: &SocketPath) -> NextHop {
    let host = RoutedHop::Unix(path.clone()).to_string();
    NextHop {
        site: host.clone(),
        candidates: vec![Candidate {
            host,
            door: Door::Unix(path.clone()),
        }],
        notes: Vec::new(),
        secure: Vec::new(),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Judgement {
    Open,
    Ourselves,
    Refused(&'static str),
}

impl Surroundings {
    /// Why nothing may be fetched from this address on somebody else's word, if so.
    pub fn forbids(&self, ip: IpAddr, port: u16) -> Option<&'static str> {
        match self.judge(ip, port) {
            Judgement::Open => None,
            Judgement::Ourselves => Some("that is this server itself"),
            Judgement::Refused(reason) => Some(reason),
        }
    }

    fn judge(&self, ip: IpAddr, port: u16) -> Judgement {
        let ip = ip.to_canonical();
        // Linux connects 0.0.0.0 and :: to itself.
        let ours = self.own_addresses.contains(&ip) || ip.is_loopback() || ip.is_unspecified();
        match is_forbidden_destination(ip) {
            _ if ours && self.own_ports.contains(&port) => Judgement::Ourselves,
            _ if self.allow_networks.contains(ip) => Judgement::Open,
            Some(reason) => Judgement::Refused(reason),
            None if ours => Judgement::Refused("our own address"),
            None => Judgement::Open,
        }
    }
}

/// Candidates so far, and what was left out.
#[derive(Default)]
struct Gathered {
    candidates: Vec<Candidate>,
    notes: Vec<String>,
    postponed: Option<DnsError>,
}

impl Gathered {
    fn add(
        &mut self,
        host: &str,
        addresses: Result<Vec<IpAddr>, DnsError>,
        port: u16,
        around: &Surroundings,
    ) {
        let addresses = match addresses {
            Ok(addresses) => addresses,
            Err(error) => {
                self.notes.push(error.to_string());
                if error.is_temporary() {
                    self.postponed = Some(error);
                }
                return;
            }
        };
        let mut open = Vec::new();
        for ip in addresses {
            match around.judge(ip, port) {
                Judgement::Open => open.push(ip),
                Judgement::Ourselves => self.refuse(host, ip, "that is this server itself"),
                Judgement::Refused(reason) => self.refuse(
                    host,
                    ip,
                    &format!("{reason}, not listed in mta.outbound.allow_networks"),
                ),
            }
        }
        for ip in alternating(open).into_iter().take(MAX_PER_HOST) {
            let door = Door::Tcp(SocketAddr::new(ip, port));
            let known = self.candidates.iter().any(|known| known.door == door);
            if !known && self.candidates.len() < MAX_CANDIDATES {
                self.candidates.push(Candidate {
                    host: host.to_owned(),
                    door,
                });
            }
        }
    }

    fn refuse(&mut self, host: &str, ip: IpAddr, reason: &str) {
        self.notes
            .push(format!("{host} has the address {ip}: {reason}"));
    }

    fn finish(self, site: String) -> Result<NextHop, Self> {
        if self.candidates.is_empty() {
            return Err(self);
        }
        Ok(NextHop {
            candidates: self.candidates,
            site,
            notes: self.notes,
            secure: Vec::new(),
        })
    }
}

/// The same addresses with the families taking turns, so that one dead family costs one time-out.
fn alternating(addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let first_is_v4 = addresses.first().is_some_and(IpAddr::is_ipv4);
    let (first, second): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|ip| ip.is_ipv4() == first_is_v4);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut mixed = Vec::new();
    loop {
        let pair = [first.next(), second.next()];
        if pair == [None, None] {
            return mixed;
        }
        mixed.extend(pair.into_iter().flatten());
    }
}

/// One name for a set of hosts, whatever their order; long sets are named by the first that fit.
fn site<'a>(hosts: impl Iterator<Item = &'a str>) -> String {
    let mut names: Vec<&str> = hosts.collect();
    names.sort_unstable();
    let mut site = String::new();
    for name in names {
        if site.len() + 1 + name.len() > MAX_SITE {
            break;
        }
        if !site.is_empty() {
            site.push(',');
        }
        site.push_str(name);
    }
    site
}

fn no_mail_hosts(error: &DnsError) -> Verdict {
    let status = match error {
        // RFC 7505 §4.2.
        DnsError::NullMx { .. } => NULL_MX_5_1_10,
        DnsError::Temporary { .. } => DIRECTORY_FAILURE_4_4_3,
        DnsError::Malformed { .. } => UNROUTABLE_5_4_4,
        DnsError::NoSuchDomain { .. } | DnsError::NoRecords { .. } | DnsError::NotAName { .. } => {
            BAD_DOMAIN_5_1_2
        }
    };
    Verdict::new(status, error.to_string())
}

fn loops_back(domain: &Domain) -> Verdict {
    let text = format!("mail for {domain} loops back to this server, which does not take it");
    Verdict::new(LOOP_5_4_6, text)
}

#[cfg(test)]
mod tests;
