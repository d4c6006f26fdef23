use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use postroad_envelope::Timestamp;

use crate::JobKey;

/// Most urgent first, then longest due.
pub(super) type ReadyKey = (Reverse<i8>, Timestamp, JobKey);

/// The jobs of one class whose time has come. Destinations take turns, one job each, so that one with many jobs does
/// not hold up the others.
#[derive(Debug, Default)]
pub(super) struct ReadyQueue {
    by_destination: BTreeMap<Arc<str>, BTreeSet<ReadyKey>>,
    turns: VecDeque<Arc<str>>,
    len: usize,
}

impl ReadyQueue {
    pub fn insert(&mut self, destination: &Arc<str>, key: ReadyKey) {
        let jobs = self.by_destination.entry(destination.clone()).or_default();
        if jobs.is_empty() {
            self.turns.push_back(destination.clone());
        }
        self.len += usize::from(jobs.insert(key));
    }

    pub fn remove(&mut self, destination: &Arc<str>, key: &ReadyKey) {
        let Some(jobs) = self.by_destination.get_mut(destination) else {
            return;
        };
        self.len -= usize::from(jobs.remove(key));
        if jobs.is_empty() {
            self.by_destination.remove(destination);
            self.turns.retain(|turn| turn != destination);
        }
    }

    pub fn take(&mut self) -> Option<JobKey> {
        let destination = self.turns.pop_front()?;
        let jobs = self.by_destination.get_mut(&destination)?;
        let (_, _, job) = jobs.pop_first()?;
        self.len -= 1;
        if jobs.is_empty() {
            self.by_destination.remove(&destination);
        } else {
            self.turns.push_back(destination);
        }
        Some(job)
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn jobs(&self) -> impl Iterator<Item = JobKey> {
        self.by_destination
            .values()
            .flatten()
            .map(|(_, _, job)| *job)
    }
}
