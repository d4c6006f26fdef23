//! Which workers are connected, for operators.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use postroad_envelope::{RouteClass, StoreName, Timestamp};
use postroad_queue_client::WorkHello;

use crate::{clock, dispatch::Worker};

/// The connected workers, by the number of their stream.
#[derive(Debug, Default)]
pub(crate) struct Agents(Mutex<BTreeMap<u64, Arc<Connected>>>);

/// A worker as it introduced itself, and what it has done since.
#[derive(Debug)]
pub(crate) struct Connected {
    pub name: String,
    pub version: String,
    pub host: String,
    pub classes: Vec<RouteClass>,
    /// Of local mail.
    pub stores: Vec<StoreName>,
    pub since: Timestamp,
    settled: Mutex<Settled>,
    draining: AtomicBool,
}

impl Agents {
    pub fn connect(&self, stream: u64, hello: &WorkHello) -> Arc<Connected> {
        let connected = Arc::new(Connected {
            name: hello.agent.clone(),
            version: hello.version.clone(),
            host: hello.host.clone(),
            classes: hello.classes.clone(),
            stores: served(hello),
            since: clock::now(),
            settled: Mutex::default(),
            draining: AtomicBool::new(false),
        });
        self.lock().insert(stream, Arc::clone(&connected));
        connected
    }

    /// Another worker on another host that serves a store which this one says it serves too, and that store.
    pub fn also_serving(&self, hello: &WorkHello) -> Option<(Arc<Connected>, StoreName)> {
        let mine = served(hello);
        let all = self.lock();
        all.values().find_map(|other| {
            let elsewhere = other.host != hello.host && !other.is_draining();
            let mut shared = mine.iter().filter(|store| other.stores.contains(store));
            let shared = shared.next().filter(|_| elsewhere)?;
            Some((Arc::clone(other), shared.clone()))
        })
    }

    pub fn disconnect(&self, stream: u64) {
        self.lock().remove(&stream);
    }

    /// All of them with their streams, in the order they connected.
    pub fn all(&self) -> Vec<(u64, Arc<Connected>)> {
        let all = self.lock();
        all.iter()
            .map(|(&stream, connected)| (stream, Arc::clone(connected)))
            .collect()
    }

    /// Marks the workers of this name, so that they are given no more leases; tells how many there are. Copies of an
    /// agent have one name; `name/host` is the one of that machine.
    pub fn drain(&self, name: &str) -> usize {
        let all = self.lock();
        let named = all.values().filter(|connected| connected.is_called(name));
        named
            .inspect(|connected| connected.draining.store(true, Ordering::Relaxed))
            .count()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Connected>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The stores whose mail a worker takes: the default one unless it names others, and none unless it takes local mail.
fn served(hello: &WorkHello) -> Vec<StoreName> {
    let carried = Worker::carries(&hello.classes, &hello.stores).into_iter();
    let local = carried.filter(|(class, _)| *class == RouteClass::Local);
    local.map(|(_, store)| store).collect()
}

impl Connected {
    fn is_called(&self, name: &str) -> bool {
        let host = name.strip_prefix(&*self.name);
        host.is_some_and(|rest| rest.is_empty() || rest.strip_prefix('/') == Some(&*self.host))
    }

    pub fn count_settled(&self) {
        self.counts().add(clock::now());
    }

    /// Since it connected, and in the last minute.
    pub fn settled(&self) -> (u64, u64) {
        let mut counts = self.counts();
        (counts.all, counts.last_minute(clock::now()))
    }

    fn counts(&self) -> MutexGuard<'_, Settled> {
        self.settled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

/// How many results a worker gave.
#[derive(Debug)]
struct Settled {
    all: u64,
    /// Of each second of the last minute, by the second modulo 60.
    by_second: [u32; MINUTE],
    /// The second that was counted last.
    newest: u64,
}

const MINUTE: usize = 60;

impl Default for Settled {
    fn default() -> Self {
        Self {
            all: 0,
            by_second: [0; MINUTE],
            newest: 0,
        }
    }
}

impl Settled {
    fn add(&mut self, now: Timestamp) {
        self.forget_before(now);
        self.all += 1;
        let slot = &mut self.by_second[slot(self.newest)];
        *slot = slot.saturating_add(1);
    }

    fn last_minute(&mut self, now: Timestamp) -> u64 {
        self.forget_before(now);
        self.by_second.iter().map(|&count| u64::from(count)).sum()
    }

    /// Clears the seconds that passed since one was counted. A clock that was set back counts on in its newest second.
    fn forget_before(&mut self, now: Timestamp) {
        let second = now.as_millis() / 1000;
        let passed = second.saturating_sub(self.newest).min(MINUTE as u64);
        for gone in 0..passed {
            self.by_second[slot(second - gone)] = 0;
        }
        self.newest = self.newest.max(second);
    }
}

const fn slot(second: u64) -> usize {
    (second % MINUTE as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_of_an_agent_are_drained_together_or_by_their_machine() {
        let agents = Agents::default();
        for (stream, host) in [(1, "3f2a"), (2, "9c1d")] {
            let hello = WorkHello {
                stores: Vec::new(),
                agent: "mta@mail.example.org".to_owned(),
                version: "0".to_owned(),
                host: host.to_owned(),
                classes: vec![RouteClass::Relay],
                held: Vec::new(),
                former: None,
                joins: false,
            };
            agents.connect(stream, &hello);
        }
        let draining = || -> Vec<bool> {
            let all = agents.all();
            all.iter()
                .map(|(_, connected)| connected.is_draining())
                .collect()
        };
        for stranger in [
            "mta@mail.example.org/3f2",
            "mta@mail.example.org3f2a",
            "mta",
            "",
        ] {
            assert_eq!(agents.drain(stranger), 0, "{stranger}");
        }
        assert_eq!(agents.drain("mta@mail.example.org/9c1d"), 1);
        assert_eq!(draining(), [false, true]);
        assert_eq!(agents.drain("mta@mail.example.org"), 2);
        assert_eq!(draining(), [true, true]);
    }

    #[test]
    fn one_store_on_two_hosts_is_noticed() {
        let agents = Agents::default();
        let hello = |host: &str, stores: &[&str], class| WorkHello {
            agent: "mda@mail.example.org".to_owned(),
            version: "0".to_owned(),
            host: host.to_owned(),
            classes: vec![class],
            stores: stores.iter().map(|name| name.parse().unwrap()).collect(),
            held: Vec::new(),
            former: None,
            joins: false,
        };
        let shared = |hello: WorkHello| {
            let found = agents.also_serving(&hello);
            found.map(|(other, store)| format!("{} {store}", other.host))
        };
        let local = RouteClass::Local;
        agents.connect(1, &hello("one", &[], local));
        agents.connect(2, &hello("two", &["b"], local));
        agents.connect(3, &hello("three", &[], RouteClass::Relay));
        assert_eq!(shared(hello("one", &[], local)), None);
        assert_eq!(shared(hello("four", &["c"], local)), None);
        assert_eq!(shared(hello("four", &[], RouteClass::Relay)), None);
        assert_eq!(shared(hello("four", &[], local)).unwrap(), "one default");
        assert_eq!(shared(hello("four", &["b"], local)).unwrap(), "two b");
        agents.drain("mda@mail.example.org/two");
        assert_eq!(shared(hello("four", &["b"], local)), None);
    }

    #[test]
    fn results_count_for_a_minute() {
        let at = |second: u64| Timestamp::from_millis(1_700_000_000_000 + second * 1000);
        let mut settled = Settled::default();
        (0..5).for_each(|_| settled.add(at(0)));
        settled.add(at(30));
        assert_eq!(settled.last_minute(at(59)), 6);
        assert_eq!(settled.last_minute(at(60)), 1);
        // The clock was set back: nothing is lost or counted for ever.
        settled.add(at(10));
        assert_eq!(settled.last_minute(at(60)), 2);
        assert_eq!(settled.last_minute(at(500)), 0);
        assert_eq!(settled.all, 7);
    }
}
