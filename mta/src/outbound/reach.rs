//! Which family of addresses does not lead anywhere from here, for a little while.
//!
//! A host without a way into the IPv6 world would otherwise begin each mail with an address that it cannot reach. What is remembered
//! only changes the order of the addresses of one host, and nothing is left out for it: an error here costs no mail.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use postroad_net::Error as NetError;
use tokio::time::Instant;

use super::next_hop::{Candidate, Door};
use super::race::{Lost, Raced};
use super::sources::Source;

/// So many addresses one after the other were overtaken: then it is the family's fault, and not that of one host.
const ENOUGH: usize = 3;
/// The system knows no such family (EAFNOSUPPORT of Linux), which the standard library has no word for.
const NO_SUCH_FAMILY: i32 = 97;

/// What is known; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Reach {
    ways: Arc<Mutex<HashMap<Way, Line>>>,
}

/// A way out of this host: there are two for each address that it sends from, and two without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Way {
    is_v4: bool,
    source: Option<IpAddr>,
}

/// What became of a way since it last led anywhere.
#[derive(Debug, Default)]
struct Line {
    /// Different addresses that were overtaken, at most [`ENOUGH`].
    overtaken: Vec<IpAddr>,
    doubtful_until: Option<Instant>,
    told: bool,
}

impl Reach {
    /// Whether other addresses of a host are better tried before this one.
    pub fn doubts(&self, candidate: &Candidate, source: &Source, now: Instant) -> bool {
        let Some((way, _)) = way(candidate, source) else {
            return false;
        };
        let ways = self.ways();
        let until = ways.get(&way).and_then(|line| line.doubtful_until);
        until.is_some_and(|until| now < until)
    }

    /// What a race showed; for how long it is remembered.
    pub fn learn<S>(
        &self,
        raced: &Raced<'_, S, NetError>,
        source: &Source,
        memory: Duration,
        now: Instant,
    ) {
        let won = raced.result.is_ok();
        match &raced.result {
            Ok(_) => {
                if let Some((way, _)) = way(raced.at, source) {
                    self.ways().remove(&way);
                }
            }
            Err(error) => self.failed((raced.at, source), error, won, memory, now),
        }
        match &raced.other {
            Some((other, Lost::Failed(error))) => {
                self.failed((other, source), error, won, memory, now);
            }
            Some((other, Lost::Overtaken)) => {
                if let Some((way, to)) = way(other, source) {
                    self.lost(way, Some(to), memory, now);
                }
            }
            // It had less time than the other.
            Some((_, Lost::Superfluous)) | None => {}
        }
    }

    fn failed(
        &self,
        (candidate, source): (&Candidate, &Source),
        error: &NetError,
        other_won: bool,
        memory: Duration,
        now: Instant,
    ) {
        let Some((way, to)) = way(candidate, source) else {
            return;
        };
        match error {
            NetError::Io(error) if has_no_way(error, way.source) => {
                self.lost(way, None, memory, now);
            }
            // That nobody answers at either address of a host says nothing.
            NetError::TimedOut(_) if other_won => self.lost(way, Some(to), memory, now),
            _ => {}
        }
    }

    /// A way led not, or not soon enough, to this address; or to none at all.
    fn lost(&self, way: Way, to: Option<IpAddr>, memory: Duration, now: Instant) {
        if memory.is_zero() {
            return;
        }
        let mut ways = self.ways();
        let line = ways.entry(way).or_default();
        if let Some(to) = to {
            if !line.overtaken.contains(&to) && line.overtaken.len() < ENOUGH {
                line.overtaken.push(to);
            }
            if line.overtaken.len() < ENOUGH {
                return;
            }
        }
        line.doubtful_until = Some(now + memory);
        if !std::mem::replace(&mut line.told, true) {
            drop(ways);
            way.tell(to.is_none());
        }
    }

    fn ways(&self) -> MutexGuard<'_, HashMap<Way, Line>> {
        self.ways.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Way {
    fn tell(self, there_is_none: bool) {
        let family = if self.is_v4 { "IPv4" } else { "IPv6" };
        let from = self
            .source
            .map_or(String::new(), |ip| format!(" from {ip}"));
        let what = match there_is_none {
            true => "leads nowhere",
            false => "is slower than the other family, or leads nowhere",
        };
        tracing::info!(
            event = "family_unreachable",
            "{family}{from} {what}: hosts that have both are tried by the other family first, until it works again"
        );
    }
}

fn way(candidate: &Candidate, source: &Source) -> Option<(Way, IpAddr)> {
    let Door::Tcp(address) = &candidate.door else {
        return None;
    };
    let to = address.ip();
    let way = Way {
        is_v4: to.is_ipv4(),
        source: source.address(to),
    };
    Some((way, to))
}

/// The system said at once that there is no way to such addresses. That our own address is not there is another matter.
fn has_no_way(error: &std::io::Error, source: Option<IpAddr>) -> bool {
    match error.kind() {
        ErrorKind::NetworkUnreachable => true,
        ErrorKind::AddrNotAvailable => source.is_none(),
        _ => error.raw_os_error() == Some(NO_SUCH_FAMILY),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::config::OutboundConfig;
    use crate::outbound::sources::Sources;
    use postroad_envelope::{Route, RouteClass};
    use postroad_smtp::HeloName;

    const MEMORY: Duration = Duration::from_secs(60);

    fn at(address: &str) -> Candidate {
        Candidate {
            host: "mx.test".to_owned(),
            door: Door::Tcp(address.parse().unwrap()),
        }
    }

    fn source(bind_ipv6: Option<&str>) -> Source {
        let config = OutboundConfig {
            bind_ipv6: bind_ipv6.map(|ip| ip.parse().unwrap()),
            ..OutboundConfig::default()
        };
        let sources = Sources::new(&config, HeloName::parse("us.test").unwrap()).unwrap();
        let route = Route::new(RouteClass::Relay, "far.test", "route far.test");
        sources.of(&route, 1).unwrap()
    }

    fn overtaken<'a>(won: &'a Candidate, other: Option<&'a Candidate>) -> Raced<'a, (), NetError> {
        Raced {
            at: won,
            result: Ok(()),
            other: other.map(|other| (other, Lost::Overtaken)),
        }
    }

    fn failed(at: &Candidate, error: NetError) -> Raced<'_, (), NetError> {
        Raced {
            at,
            result: Err(error),
            other: None,
        }
    }

    #[test]
    fn a_family_is_doubted_after_several_hosts_and_until_it_works_or_time_has_passed() {
        let (reach, us, now) = (Reach::default(), source(None), Instant::now());
        let four = at("192.0.2.1:25");
        let sixes: Vec<_> = (1..=4)
            .map(|n| at(&format!("[2001:db8::{n}]:25")))
            .collect();
        let overtake = |six| reach.learn(&overtaken(&four, Some(six)), &us, MEMORY, now);
        // One host that is slow is that host's matter, however often.
        (0..5).for_each(|_| overtake(&sixes[0]));
        overtake(&sixes[1]);
        assert!(!reach.doubts(&sixes[3], &us, now));
        overtake(&sixes[2]);
        assert!(reach.doubts(&sixes[3], &us, now) && !reach.doubts(&four, &us, now));
        assert!(!reach.doubts(&sixes[3], &us, now + MEMORY));
        // When it is tried again, once is enough.
        let later = now + MEMORY;
        reach.learn(&overtaken(&four, Some(&sixes[0])), &us, MEMORY, later);
        assert!(reach.doubts(&sixes[3], &us, later));
        reach.learn(&overtaken(&sixes[3], None), &us, MEMORY, later);
        assert!(!reach.doubts(&sixes[3], &us, later));
        // Hosts that are far away by both: the second had less time.
        for six in &sixes {
            let far = Raced {
                other: Some((six, Lost::Superfluous)),
                ..overtaken(&four, None)
            };
            reach.learn(&far, &us, MEMORY, later);
        }
        assert!(reach.ways().is_empty(), "nothing is kept of what works");
    }

    #[test]
    fn no_route_is_believed_at_once_and_a_host_that_is_away_says_nothing() {
        let now = Instant::now();
        let (six, four) = (at("[2001:db8::1]:25"), at("192.0.2.1:25"));
        let io = |kind: ErrorKind| NetError::Io(kind.into());
        for (error, source_of, doubted) in [
            (io(ErrorKind::NetworkUnreachable), None, true),
            (io(ErrorKind::NetworkUnreachable), Some("2001:db8::9"), true),
            (io(ErrorKind::AddrNotAvailable), None, true),
            // The address to send from is not there.
            (io(ErrorKind::AddrNotAvailable), Some("2001:db8::9"), false),
            (
                NetError::Io(io::Error::from_raw_os_error(NO_SUCH_FAMILY)),
                None,
                true,
            ),
            (io(ErrorKind::ConnectionRefused), None, false),
            (io(ErrorKind::HostUnreachable), None, false),
            (NetError::TimedOut("connect"), None, false),
        ] {
            let (reach, us, told) = (Reach::default(), source(source_of), error.to_string());
            reach.learn(&failed(&six, error), &us, MEMORY, now);
            assert_eq!(reach.doubts(&six, &us, now), doubted, "{told}");
            assert!(!reach.doubts(&four, &us, now));
        }
        // What holds from one address holds for no other.
        let (reach, bound) = (Reach::default(), source(Some("2001:db8::9")));
        let error = io(ErrorKind::NetworkUnreachable);
        reach.learn(&failed(&six, error), &bound, MEMORY, now);
        assert!(reach.doubts(&six, &bound, now) && !reach.doubts(&six, &source(None), now));
    }

    #[test]
    fn nothing_is_remembered_for_no_time() {
        let (reach, us, six, now) = (
            Reach::default(),
            source(None),
            at("[2001:db8::1]:25"),
            Instant::now(),
        );
        let error = NetError::Io(ErrorKind::NetworkUnreachable.into());
        reach.learn(&failed(&six, error), &us, Duration::ZERO, now);
        assert!(reach.ways().is_empty());
    }
}
