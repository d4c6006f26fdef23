//! Who may come in: counts of connections, in all and per peer.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::{IpNet, Ipv6Net};

use crate::Limits;

/// The open connections of one listener.
pub struct Admission {
    max: usize,
    max_per_ip: usize,
    ipv6_prefix: u8,
    counts: Arc<Mutex<Counts>>,
}

#[derive(Default)]
struct Counts {
    all: usize,
    by_network: HashMap<IpNet, usize>,
}

/// Why a connection was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    TooMany,
    TooManyFromPeer,
}

impl Refusal {
    pub fn rule(self) -> &'static str {
        match self {
            Self::TooMany => "max_connections",
            Self::TooManyFromPeer => "max_connections_per_ip",
        }
    }
}

/// One admitted connection; dropping it gives the place back.
pub struct Permit {
    network: IpNet,
    counts: Arc<Mutex<Counts>>,
}

impl Admission {
    pub fn new(limits: &Limits) -> Self {
        Self {
            max: limits.max_connections,
            max_per_ip: limits.max_connections_per_ip,
            ipv6_prefix: limits.ipv6_prefix.min(128),
            counts: Arc::default(),
        }
    }

    pub fn admit(&self, ip: IpAddr) -> Result<Permit, Refusal> {
        let network = self.network_of(ip);
        let mut counts = lock(&self.counts);
        if counts.all >= self.max {
            return Err(Refusal::TooMany);
        }
        let from_peer = counts.by_network.get(&network).copied().unwrap_or(0);
        if from_peer >= self.max_per_ip {
            return Err(Refusal::TooManyFromPeer);
        }
        counts.all += 1;
        counts.by_network.insert(network, from_peer + 1);
        Ok(Permit {
            network,
            counts: Arc::clone(&self.counts),
        })
    }

    fn network_of(&self, ip: IpAddr) -> IpNet {
        match ip {
            IpAddr::V4(_) => IpNet::from(ip),
            IpAddr::V6(v6) => {
                Ipv6Net::new(v6, self.ipv6_prefix).map_or(IpNet::from(ip), |net| net.trunc().into())
            }
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = lock(&self.counts);
        counts.all -= 1;
        if let Some(count) = counts.by_network.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                counts.by_network.remove(&self.network);
            }
        }
    }
}

/// A panic elsewhere cannot leave the counts half changed, so a poisoned lock is still good.
fn lock(counts: &Mutex<Counts>) -> MutexGuard<'_, Counts> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(max: usize, per_ip: usize) -> Admission {
        Admission::new(&Limits {
            max_connections: max,
            max_connections_per_ip: per_ip,
            ..Limits::default()
        })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_ipv6_network_counts_as_one_peer() {
        let admission = admission(10, 1);
        let first = admission.admit(ip("2001:db8::1")).unwrap();
        assert_eq!(
            admission.admit(ip("2001:db8::2:3")).err(),
            Some(Refusal::TooManyFromPeer)
        );
        let _other = admission.admit(ip("2001:db8:0:1::1")).unwrap();
        drop(first);
        assert!(admission.admit(ip("2001:db8::2:3")).is_ok());
    }

    #[test]
    fn the_total_holds_across_peers_and_places_come_back() {
        let admission = admission(2, 2);
        let first = admission.admit(ip("192.0.2.1")).unwrap();
        let _second = admission.admit(ip("192.0.2.2")).unwrap();
        assert_eq!(
            admission.admit(ip("192.0.2.3")).err(),
            Some(Refusal::TooMany)
        );
        drop(first);
        let third = admission.admit(ip("192.0.2.3"));
        assert!(third.is_ok());
        assert_eq!(
            lock(&admission.counts).by_network.len(),
            2,
            "no memory of peers that left"
        );
    }
}
