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
        Target::Host(host, port) => {
            let (found, secure) = addresses(resolver, host, (around, seed)).await;
            let mut hop = next_hop::routed(host.as_str(), found, *port, around)?;
            hop.secure.extend(secure.then(|| host.to_string()));
            Ok(hop)
        }
        Target::Socket(path) => Ok(next_hop::socket(path)),
        Target::Domain(domain) => {
            let found = resolver.mail_hosts(domain).await;
            let dropped = found
                .as_ref()
                .map(|f| f.dropped.clone())
                .unwrap_or_default();
            // Without MX records the domain is its own host, and who vouches for its addresses vouches for that.
            let vouched = found.as_ref().is_ok_and(|f| f.authenticated || f.implicit);
            let hosts = next_hop::order(domain, found, around, seed)?;
            // All of them at once, the resolver bounds their number: the loop guard needs every address.
            let lookups = hosts
                .iter()
                .map(|host| addresses(resolver, &host.name, (around, seed)));
            let answers = join_all(lookups).await;
            let secure = hosts
                .iter()
                .zip(&answers)
                .filter(|(_, (_, secure))| vouched && *secure)
                .map(|(host, _)| host.name.to_string())
                .collect();
            let resolved = hosts.into_iter().zip(answers);
            let resolved = resolved
                .map(|(host, (addresses, _))| ResolvedHost { host, addresses })
                .collect();
            let mut hop = next_hop::candidates(domain, resolved, around)?;
            hop.secure = secure;
            hop.notes.extend(dropped);
            Ok(hop)
        }
    }
}

/// The addresses in the order to try them, and whether DNSSEC vouches for them.
async fn addresses(
    resolver: &dyn Resolver,
    host: &HostName,
    (around, seed): (&Surroundings, u64),
) -> (Result<Vec<IpAddr>, DnsError>, bool) {
    match resolver.addresses(host).await {
        Ok(answer) => {
            let ordered = next_hop::preferred(answer.records, around.prefer, seed);
            (Ok(ordered), answer.authenticated)
        }
        Err(error) => (Err(error), false),
    }
}
