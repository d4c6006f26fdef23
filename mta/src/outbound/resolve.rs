//! Asks the resolver what [`next_hop`](super::next_hop) needs to know.

use std::net::IpAddr;

use futures::future::join_all;
use postroad_dns::{DnsError, HostName, Resolver};

use super::next_hop::{self, NextHop, ResolvedHost, Surroundings, Target, Verdict};

/// Where an attempt for `target` goes. `seed` decides the order among equal preferences.
pub async fn next_hop(
    resolver: &dyn Resolver,
    target: &Target,
    around: &Surroundings,
    seed: u64,
) -> Result<NextHop, Verdict> {
    match target {
        Target::Literal(domain, ip) => next_hop::literal(domain, *ip, around),
        Target::Address(address) => next_hop::routed(
            &address.ip().to_string(),
            Ok(vec![address.ip()]),
            address.port(),
            around,
        ),
        Target::Host(host, port) => next_hop::routed(
            host.as_str(),
            addresses(resolver, host).await,
            *port,
            around,
        ),
        Target::Socket(path) => Ok(next_hop::socket(path)),
        Target::Domain(domain) => {
            let found = resolver.mail_hosts(domain).await;
            let dropped = found
                .as_ref()
                .map(|f| f.dropped.clone())
                .unwrap_or_default();
            let hosts = next_hop::order(domain, found, around, seed)?;
            // All of them at once, the resolver bounds their number: the loop guard needs every address.
            let lookups = hosts.iter().map(|host| addresses(resolver, &host.name));
            let answers = join_all(lookups).await;
            let resolved = hosts.into_iter().zip(answers);
            let resolved = resolved
                .map(|(host, addresses)| ResolvedHost { host, addresses })
                .collect();
            let mut hop = next_hop::candidates(domain, resolved, around)?;
            hop.notes.extend(dropped);
            Ok(hop)
        }
    }
}

async fn addresses(resolver: &dyn Resolver, host: &HostName) -> Result<Vec<IpAddr>, DnsError> {
    resolver.addresses(host).await.map(|answer| answer.records)
}
