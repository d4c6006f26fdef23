//! From which address a job is sent, and what is said in EHLO there.
//!
//! Pure but for [`Sources::warn`]: pools, a route and the seed of an attempt in; a [`Source`] out. All connections of an attempt go by one
//! choice, so that its hosts see one sender.

use std::net::{IpAddr, TcpListener};

use postroad_envelope::{Route, StatusReport};
use postroad_reply::MISCONFIGURED_4_3_5;
use postroad_smtp::HeloName;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::next_hop::{Candidate, Door};
use crate::Error;
use crate::config::OutboundConfig;
use crate::config::sources::{SourceAddress, SourceConfig};

/// Where mail is sent from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The pool, if the route names one.
    pool: Option<String>,
    v4: Option<Place>,
    v6: Option<Place>,
    /// What to say in EHLO where an address has no name of its own.
    helo_name: HeloName,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    ip: IpAddr,
    helo_name: Option<HeloName>,
}

/// Every pool, and what there is without one.
#[derive(Clone, Debug)]
pub struct Sources {
    usual: Source,
    pools: Vec<(String, SourceConfig)>,
}

impl Sources {
    /// The pools of a configuration, whose names for EHLO can be said; `helo_name` where nothing else is written.
    pub fn new(config: &OutboundConfig, helo_name: HeloName) -> Result<Self, Error> {
        let place = |ip: IpAddr| Place {
            ip,
            helo_name: None,
        };
        for pool in config.sources.values() {
            let names = pool
                .addresses
                .iter()
                .filter_map(|address| address.helo_name.as_ref());
            for name in names.chain(pool.helo_name.as_ref()) {
                let name = name.0.a_label();
                HeloName::parse(name).ok_or_else(|| Error::HeloName(name.to_owned()))?;
            }
        }
        let pools = config.sources.iter();
        Ok(Self {
            usual: Source {
                pool: None,
                v4: config.bind_ipv4.map(IpAddr::V4).map(place),
                v6: config.bind_ipv6.map(IpAddr::V6).map(place),
                helo_name,
            },
            pools: pools
                .map(|(name, pool)| (name.clone(), pool.clone()))
                .collect(),
        })
    }

    /// The source of an attempt, or why there is none.
    pub fn of(&self, route: &Route, seed: u64) -> Result<Source, Box<StatusReport>> {
        let Some(name) = &route.source else {
            return Ok(self.usual.clone());
        };
        let found = self.pools.iter().find(|(known, _)| known == name.as_str());
        let Some((name, pool)) = found else {
            // A fault of our own set-up never bounces mail.
            let known: Vec<&str> = self.pools.iter().map(|(name, _)| name.as_str()).collect();
            let known = match known.as_slice() {
                [] => "none".to_owned(),
                known => known.join(", "),
            };
            let text = format!(
                "{} sends from the pool {name}, which is not in mta.outbound.sources of this host (there: {known}); the mail waits until it is, or until the route names another",
                route.rule
            );
            return Err(Box::new(StatusReport::local(MISCONFIGURED_4_3_5, text)));
        };
        let mut rng = StdRng::seed_from_u64(seed);
        let mut of_family = |is_v4: bool| {
            let of_it = pool.addresses.iter();
            let of_it: Vec<_> = of_it
                .filter(|address| address.ip.is_ipv4() == is_v4)
                .collect();
            let chosen = choose(&of_it, &mut rng)?;
            let own = chosen.helo_name.as_ref().or(pool.helo_name.as_ref());
            Some(Place {
                ip: chosen.ip,
                helo_name: own.and_then(|name| HeloName::parse(name.0.a_label())),
            })
        };
        Ok(Source {
            pool: Some(name.clone()),
            v4: of_family(true),
            v6: of_family(false),
            helo_name: self.usual.helo_name.clone(),
        })
    }

    /// Tells of addresses that this host does not have: what is sent from them waits. Asks the system.
    pub fn warn(&self) {
        let pools = self.pools.iter();
        for (name, address) in
            pools.flat_map(|(name, pool)| pool.addresses.iter().map(move |a| (name, a)))
        {
            if let Err(error) = TcpListener::bind((address.ip, 0)) {
                tracing::warn!(
                    event = "fault",
                    "mta.outbound.sources.{name}: cannot send from {}: {error}; give the address to this host, or take it out of the pool",
                    address.ip
                );
            }
        }
    }
}

/// One by its share; none if no address has one.
fn choose<'a>(addresses: &[&'a SourceAddress], rng: &mut StdRng) -> Option<&'a SourceAddress> {
    let all: u32 = addresses
        .iter()
        .map(|address| u32::from(address.weight))
        .sum();
    let mut mark = if all == 0 {
        return None;
    } else {
        rng.random_range(0..all)
    };
    let chosen = addresses
        .iter()
        .find(|address| match mark.checked_sub(address.weight.into()) {
            Some(rest) => {
                mark = rest;
                false
            }
            None => true,
        });
    chosen.copied()
}

impl Source {
    /// The local address for a host of this address; none: the system chooses.
    pub fn address(&self, to: IpAddr) -> Option<IpAddr> {
        self.place(to).map(|place| place.ip)
    }

    /// What to say in EHLO to a host of this address; none: it is a socket.
    pub fn helo_name(&self, to: Option<IpAddr>) -> &HeloName {
        let own = to.and_then(|to| self.place(to)?.helo_name.as_ref());
        own.unwrap_or(&self.helo_name)
    }

    /// Whether a host can be reached from here: a pool without addresses of its family must not be passed by.
    pub fn reaches(&self, candidate: &Candidate) -> bool {
        match &candidate.door {
            Door::Tcp(to) => self.pool.is_none() || self.place(to.ip()).is_some(),
            Door::Unix(_) => true,
        }
    }

    /// Why no host of a job is reached.
    pub fn out_of_reach(&self) -> StatusReport {
        let pool = self.pool.as_deref().unwrap_or_default();
        let text = format!(
            "the pool {pool} in mta.outbound.sources has no address of the family that the hosts have"
        );
        StatusReport::local(MISCONFIGURED_4_3_5, text)
    }

    /// For a person: pool and address; none where nothing was configured.
    pub fn name(&self, to: IpAddr) -> Option<String> {
        let address = self.address(to)?;
        Some(match &self.pool {
            Some(pool) => format!("{pool} {address}"),
            None => address.to_string(),
        })
    }

    fn place(&self, to: IpAddr) -> Option<&Place> {
        match to {
            IpAddr::V4(_) => self.v4.as_ref(),
            IpAddr::V6(_) => self.v6.as_ref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use postroad_envelope::RouteClass;

    use super::*;

    fn sources() -> Sources {
        let file = postroad_daemon::ConfigFile::assemble(
            [(
                "postroad.toml".into(),
                r#"
            [mta.outbound]
            bind_ipv4 = "192.0.2.1"
            [mta.outbound.sources.bulk]
            helo_name = "bulk.test"
            addresses = [
                { ip = "192.0.2.10", weight = 3 },
                { ip = "192.0.2.11", helo_name = "eleven.test" },
                { ip = "192.0.2.12", weight = 0 },
            ]
            "#
                .to_owned(),
            )],
            [],
        )
        .unwrap();
        let config: crate::Config = file.section("mta").unwrap();
        Sources::new(&config.outbound, HeloName::parse("us.test").unwrap()).unwrap()
    }

    fn route(source: Option<&str>) -> Route {
        Route {
            source: source.map(|name| name.parse().unwrap()),
            ..Route::new(RouteClass::Relay, "far.test", "route far.test")
        }
    }

    fn at(address: &str) -> Candidate {
        Candidate {
            host: "mx.test".to_owned(),
            door: Door::Tcp(address.parse().unwrap()),
        }
    }

    #[test]
    fn each_address_has_its_share_and_its_name() {
        let (sources, route) = (sources(), route(Some("bulk")));
        let to = "203.0.113.1".parse().unwrap();
        let mut shares: HashMap<String, u32> = HashMap::new();
        for seed in 0..4000 {
            let source = sources.of(&route, seed).unwrap();
            assert_eq!(source, sources.of(&route, seed).unwrap());
            let said = format!(
                "{} {}",
                source.name(to).unwrap(),
                source.helo_name(Some(to))
            );
            *shares.entry(said).or_default() += 1;
        }
        assert_eq!(shares.len(), 2, "{shares:?}");
        let ten = shares["bulk 192.0.2.10 bulk.test"];
        assert!((2850..3150).contains(&ten), "{shares:?}");
        assert!(shares.contains_key("bulk 192.0.2.11 eleven.test"));
    }

    #[test]
    fn a_pool_is_not_passed_by_where_it_has_no_address_of_a_family() {
        let sources = sources();
        let pool = sources.of(&route(Some("bulk")), 1).unwrap();
        assert!(pool.reaches(&at("203.0.113.1:25")) && !pool.reaches(&at("[2001:db8::1]:25")));
        let usual = sources.of(&route(None), 1).unwrap();
        assert!(usual.reaches(&at("[2001:db8::1]:25")));
        assert_eq!(
            usual.address("203.0.113.1".parse().unwrap()),
            Some("192.0.2.1".parse().unwrap())
        );
        assert_eq!(usual.address("2001:db8::1".parse().unwrap()), None);
        assert_eq!(usual.helo_name(None).to_string(), "us.test");
    }

    #[test]
    fn a_pool_that_is_not_there_lets_the_mail_wait() {
        let report = sources().of(&route(Some("other")), 1).unwrap_err();
        assert_eq!(report.status, MISCONFIGURED_4_3_5);
        let told = "route far.test sends from the pool other, which is not in mta.outbound.sources of this host (there: bulk)";
        assert!(report.text.starts_with(told), "{}", report.text);
    }
}
