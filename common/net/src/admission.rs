//! Who may come in: counts of connections, in all and per peer.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::{IpNet, Ipv6Net};
use postroad_metrics::labels::Rule;

use crate::LiveLimits;

/// The open connections of one listener.
pub struct Admission(Arc<Shared>);

struct Shared {
    limits: LiveLimits,
    counts: Mutex<Counts>,
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
    pub fn rule(self) -> Rule {
        match self {
            Self::TooMany => Rule::MaxConnections,
            Self::TooManyFromPeer => Rule::MaxConnectionsPerIp,
        }
    }
}

/// One admitted connection; dropping it gives the place back.
pub struct Permit {
    shared: Arc<Shared>,
    /// Whose it is, once that is known: behind a balancer it takes a while.
    network: Option<IpNet>,
}

impl Admission {
    pub fn new(limits: LiveLimits) -> Self {
        Self(Arc::new(Shared {
            limits,
            counts: Mutex::default(),
        }))
    }

    /// A place for a connection, whosever it is.
    pub fn enter(&self) -> Result<Permit, Refusal> {
        let max = self.0.limits.current().max_connections;
        let mut counts = self.0.lock();
        if counts.all >= max {
            return Err(Refusal::TooMany);
        }
        counts.all += 1;
        Ok(Permit {
            shared: Arc::clone(&self.0),
            network: None,
        })
    }
}

impl Permit {
    /// Counts the connection as one of the peer at `ip`; once.
    pub fn belongs_to(mut self, ip: IpAddr) -> Result<Self, Refusal> {
        let limits = self.shared.limits.current();
        // Remembered, since it may be another one under other limits.
        let network = network_of(ip, limits.ipv6_prefix);
        self.shared.count(network, limits.max_connections_per_ip)?;
        self.network = Some(network);
        Ok(self)
    }
}

/// The place that a connection has among those of its network. Clones share it.
#[derive(Clone, Default)]
pub struct Place(Option<Arc<Mutex<Permit>>>);

impl Place {
    pub(crate) fn new(permit: Permit) -> Self {
        Self(Some(Arc::new(Mutex::new(permit))))
    }

    /// Counts the connection as one of the peer at `ip` from now on, for whom the one that made it speaks. False: that has as many
    /// as it may have, and the connection is to end.
    pub fn is_of(&self, ip: IpAddr) -> bool {
        let Some(permit) = &self.0 else {
            return true;
        };
        let mut permit = permit.lock().unwrap_or_else(PoisonError::into_inner);
        let limits = permit.shared.limits.current();
        let network = network_of(ip, limits.ipv6_prefix);
        if permit.network == Some(network) {
            return true;
        }
        let counted = permit.shared.count(network, limits.max_connections_per_ip);
        if counted.is_ok() {
            permit.leave();
            permit.network = Some(network);
        }
        counted.is_ok()
    }
}

impl Shared {
    fn count(&self, network: IpNet, max: usize) -> Result<(), Refusal> {
        let mut counts = self.lock();
        let from_peer = counts.by_network.get(&network).copied().unwrap_or(0);
        if from_peer >= max {
            return Err(Refusal::TooManyFromPeer);
        }
        counts.by_network.insert(network, from_peer + 1);
        Ok(())
    }

    /// A panic elsewhere cannot leave the counts half changed, so a poisoned lock is still good.
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What counts as one peer.
fn network_of(ip: IpAddr, ipv6_prefix: u8) -> IpNet {
    match ip {
        IpAddr::V4(_) => IpNet::from(ip),
        IpAddr::V6(v6) => {
            Ipv6Net::new(v6, ipv6_prefix.min(128)).map_or(IpNet::from(ip), |net| net.trunc().into())
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.leave();
        self.shared.lock().all -= 1;
    }
}

impl Permit {
    /// Is no more one of its network.
    fn leave(&mut self) {
        let Some(network) = self.network.take() else {
            return;
        };
        let mut counts = self.shared.lock();
        if let Some(count) = counts.by_network.get_mut(&network) {
            *count -= 1;
            if *count == 0 {
                counts.by_network.remove(&network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Limits;

    fn limits(max: usize, per_ip: usize) -> LiveLimits {
        LiveLimits::new(Limits {
            max_connections: max,
            max_connections_per_ip: per_ip,
            ..Limits::default()
        })
    }

    fn admission(max: usize, per_ip: usize) -> Admission {
        Admission::new(limits(max, per_ip))
    }

    fn admit(admission: &Admission, ip: &str) -> Result<Permit, Refusal> {
        admission.enter()?.belongs_to(ip.parse().unwrap())
    }

    #[test]
    fn an_ipv6_network_counts_as_one_peer() {
        let admission = admission(10, 1);
        let first = admit(&admission, "2001:db8::1").unwrap();
        assert_eq!(
            admit(&admission, "2001:db8::2:3").err(),
            Some(Refusal::TooManyFromPeer)
        );
        let _other = admit(&admission, "2001:db8:0:1::1").unwrap();
        drop(first);
        assert!(admit(&admission, "2001:db8::2:3").is_ok());
    }

    #[test]
    fn a_connection_is_of_whom_it_is_said_to_be() {
        let admission = admission(10, 1);
        let proxy = Place::new(admit(&admission, "192.0.2.1").unwrap());
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(proxy.is_of(ip("198.51.100.7")) && proxy.is_of(ip("198.51.100.7")));
        // The proxy has room again, its client has none.
        let second = Place::new(admit(&admission, "192.0.2.1").unwrap());
        assert!(!second.is_of(ip("198.51.100.7")));
        assert!(
            admit(&admission, "192.0.2.1").is_err(),
            "it stayed the proxy's"
        );
        drop(proxy);
        assert!(second.is_of(ip("198.51.100.7")));
        assert!(admit(&admission, "192.0.2.1").is_ok());
        assert!(Place::default().is_of(ip("198.51.100.7")));
    }

    #[test]
    fn the_total_holds_across_peers_and_places_come_back() {
        let admission = admission(2, 2);
        let first = admit(&admission, "192.0.2.1").unwrap();
        let _second = admit(&admission, "192.0.2.2").unwrap();
        assert_eq!(admit(&admission, "192.0.2.3").err(), Some(Refusal::TooMany));
        drop(first);
        let third = admit(&admission, "192.0.2.3");
        assert!(third.is_ok());
        assert_eq!(
            admission.0.lock().by_network.len(),
            2,
            "no memory of peers that left"
        );
    }

    #[test]
    fn other_limits_hold_for_the_next_and_everyone_leaves_where_they_came_in() {
        let limits = limits(10, 2);
        let admission = Admission::new(limits.clone());
        let first = admit(&admission, "2001:db8::1").unwrap();
        let second = admit(&admission, "2001:db8::2").unwrap();
        limits.set(Limits {
            max_connections: 3,
            max_connections_per_ip: 1,
            ipv6_prefix: 48,
            ..Limits::default()
        });
        let third = admit(&admission, "2001:db8:0:1::1").unwrap();
        let fourth = admit(&admission, "2001:db8:0:2::1").err();
        assert_eq!(fourth, Some(Refusal::TooMany), "three there are");
        drop((first, second));
        let fifth = admit(&admission, "2001:db8:0:3::1").err();
        assert_eq!(
            fifth,
            Some(Refusal::TooManyFromPeer),
            "one of the larger network"
        );
        drop(third);
        assert!(admission.0.lock().by_network.is_empty());
        assert_eq!(admission.0.lock().all, 0);
    }

    #[test]
    fn who_is_not_known_yet_takes_a_place_of_the_total() {
        let admission = admission(2, 1);
        let first = admission.enter().unwrap();
        let second = admission.enter().unwrap();
        assert_eq!(admission.enter().err(), Some(Refusal::TooMany));
        let ip = "192.0.2.1".parse().unwrap();
        let _first = first.belongs_to(ip).unwrap();
        assert_eq!(second.belongs_to(ip).err(), Some(Refusal::TooManyFromPeer));
        assert_eq!(
            admission.0.lock().all,
            1,
            "a refused one gives its place back"
        );
    }
}
