//! Which workers are connected, for operators.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use postroad_envelope::{RouteClass, Timestamp};
use postroad_queue_client::WorkHello;

use crate::clock;

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
    pub since: Timestamp,
    settled: AtomicU64,
    draining: AtomicBool,
}

impl Agents {
    pub fn connect(&self, stream: u64, hello: &WorkHello) -> Arc<Connected> {
        let connected = Arc::new(Connected {
            name: hello.agent.clone(),
            version: hello.version.clone(),
            host: hello.host.clone(),
            classes: hello.classes.clone(),
            since: clock::now(),
            settled: AtomicU64::new(0),
            draining: AtomicBool::new(false),
        });
        self.lock().insert(stream, Arc::clone(&connected));
        connected
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

    /// Marks the workers of this name, so that they are given no more leases; tells how many there are.
    pub fn drain(&self, name: &str) -> usize {
        let all = self.lock();
        let named = all.values().filter(|connected| connected.name == name);
        named
            .inspect(|connected| connected.draining.store(true, Ordering::Relaxed))
            .count()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Connected>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connected {
    pub fn count_settled(&self) {
        self.settled.fetch_add(1, Ordering::Relaxed);
    }

    pub fn settled(&self) -> u64 {
        self.settled.load(Ordering::Relaxed)
    }

    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}
