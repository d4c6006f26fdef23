use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use postroad_envelope::{RouteClass, Timestamp};

use super::fairness::{Fairness, Lane};
use crate::JobKey;

/// By rank, see [`Fairness::rank`]: most urgent and longest due first.
type ReadyKey = (i64, JobKey);

/// A lane has earned a lease when its share has added up to this.
const WHOLE: u32 = 100;

/// The jobs of one class whose time has come, in lanes by their priority.
///
/// The next lease goes to the lane whose next job has the lowest rank, unless another lane has been passed over for so
/// long that its minimum share is due. Inside a lane destinations take turns, one job each, so that one with many jobs
/// does not hold up the others. A destination with as many leases as it may have has no turn until one of them ends.
#[derive(Debug)]
pub(super) struct ReadyQueue {
    class: RouteClass,
    fairness: Arc<Fairness>,
    destinations: HashMap<Arc<str>, Destination>,
    lanes: [Turns; Lane::ALL.len()],
    len: usize,
}

/// What a lane knows of its destinations.
#[derive(Debug, Default)]
struct Turns {
    /// By their tickets.
    waiting: BTreeMap<u64, Arc<str>>,
    last_ticket: u64,
    /// What has added up of its share.
    earned: u32,
}

#[derive(Debug, Default)]
struct Destination {
    leases: u32,
    in_lanes: [InLane; Lane::ALL.len()],
}

#[derive(Debug, Default)]
struct InLane {
    jobs: BTreeSet<ReadyKey>,
    /// Its turn; none without a job, or with as many leases as it may have.
    ticket: Option<u64>,
}

impl ReadyQueue {
    pub fn new(class: RouteClass, fairness: Arc<Fairness>) -> Self {
        Self {
            class,
            fairness,
            destinations: HashMap::new(),
            lanes: Default::default(),
            len: 0,
        }
    }

    pub fn insert(&mut self, destination: &Arc<str>, priority: i8, due: Timestamp, job: JobKey) {
        let (lane, key) = (Lane::of(priority), (self.fairness.rank(priority, due), job));
        let limit = self.fairness.limit(self.class, destination);
        let known = self.destinations.entry(destination.clone()).or_default();
        let in_lane = &mut known.in_lanes[lane as usize];
        self.len += usize::from(in_lane.jobs.insert(key));
        if in_lane.ticket.is_none() && limit.is_none_or(|limit| known.leases < limit) {
            in_lane.ticket = Some(self.lanes[lane as usize].join(destination));
        }
    }

    pub fn remove(&mut self, destination: &Arc<str>, priority: i8, due: Timestamp, job: JobKey) {
        let (lane, key) = (Lane::of(priority), (self.fairness.rank(priority, due), job));
        let Some(known) = self.destinations.get_mut(destination) else {
            return;
        };
        let in_lane = &mut known.in_lanes[lane as usize];
        self.len -= usize::from(in_lane.jobs.remove(&key));
        if in_lane.jobs.is_empty() {
            self.lanes[lane as usize].leave(in_lane.ticket.take());
        }
        self.forget_idle(destination);
    }

    /// The next job to lease. Whoever leases it says so with [`ReadyQueue::lease_began`].
    pub fn take(&mut self) -> Option<JobKey> {
        let lane = self.next_lane()?;
        let turns = &mut self.lanes[lane as usize];
        let (_, destination) = turns.waiting.pop_first()?;
        let in_lane = &mut self.destinations.get_mut(&destination)?.in_lanes[lane as usize];
        let (_, job) = in_lane.jobs.pop_first()?;
        self.len -= 1;
        let more = !in_lane.jobs.is_empty();
        in_lane.ticket = more.then(|| turns.join(&destination));
        self.forget_idle(&destination);
        Some(job)
    }

    /// A job of the destination was leased: if it has all it may have, it has no more turns.
    pub fn lease_began(&mut self, destination: &Arc<str>) {
        let limit = self.fairness.limit(self.class, destination);
        let known = self.destinations.entry(destination.clone()).or_default();
        known.leases = known.leases.saturating_add(1);
        if limit.is_some_and(|limit| known.leases >= limit) {
            for (turns, in_lane) in self.lanes.iter_mut().zip(&mut known.in_lanes) {
                turns.leave(in_lane.ticket.take());
            }
        }
    }

    /// A lease of the destination has ended: it may have turns again.
    pub fn lease_ended(&mut self, destination: &Arc<str>) {
        let limit = self.fairness.limit(self.class, destination);
        let Some(known) = self.destinations.get_mut(destination) else {
            return;
        };
        known.leases = known.leases.saturating_sub(1);
        if limit.is_none_or(|limit| known.leases < limit) {
            for (turns, in_lane) in self.lanes.iter_mut().zip(&mut known.in_lanes) {
                if in_lane.ticket.is_none() && !in_lane.jobs.is_empty() {
                    in_lane.ticket = Some(turns.join(destination));
                }
            }
        }
        self.forget_idle(destination);
    }

    pub fn len(&self) -> usize {
        self.len
    }

    #[cfg(test)]
    pub fn jobs(&self) -> impl Iterator<Item = JobKey> {
        let in_lanes = self.destinations.values().flat_map(|known| &known.in_lanes);
        in_lanes.flat_map(|in_lane| in_lane.jobs.iter().map(|(_, job)| *job))
    }

    /// Leases of a destination.
    #[cfg(test)]
    pub fn leases(&self, destination: &str) -> u32 {
        self.destinations
            .get(destination)
            .map_or(0, |known| known.leases)
    }

    fn next_lane(&mut self) -> Option<Lane> {
        let mut chosen: Option<(u32, i64, Lane)> = None;
        for lane in Lane::ALL {
            let Some(rank) = self.next_rank(lane) else {
                // A share is not saved up for later.
                self.lanes[lane as usize].earned = 0;
                continue;
            };
            let turns = &mut self.lanes[lane as usize];
            turns.earned = (turns.earned + self.fairness.minimum_share).min(2 * WHOLE);
            let owed = turns.earned / WHOLE * turns.earned;
            if chosen.is_none_or(|(most, least, _)| (most, -least) < (owed, -rank)) {
                chosen = Some((owed, rank, lane));
            }
        }
        let (.., lane) = chosen?;
        let turns = &mut self.lanes[lane as usize];
        turns.earned = turns.earned.saturating_sub(WHOLE);
        Some(lane)
    }

    /// The rank of the job that a lane would give out now.
    fn next_rank(&self, lane: Lane) -> Option<i64> {
        let (_, destination) = self.lanes[lane as usize].waiting.first_key_value()?;
        let known = self.destinations.get(destination)?;
        let (rank, _) = known.in_lanes[lane as usize].jobs.first()?;
        Some(*rank)
    }

    fn forget_idle(&mut self, destination: &Arc<str>) {
        let idle = self.destinations.get(destination).is_some_and(|known| {
            known.leases == 0 && known.in_lanes.iter().all(|in_lane| in_lane.jobs.is_empty())
        });
        if idle {
            self.destinations.remove(destination);
        }
    }
}

impl Turns {
    /// The last turn of all.
    fn join(&mut self, destination: &Arc<str>) -> u64 {
        self.last_ticket += 1;
        self.waiting.insert(self.last_ticket, destination.clone());
        self.last_ticket
    }

    fn leave(&mut self, ticket: Option<u64>) {
        if let Some(ticket) = ticket {
            self.waiting.remove(&ticket);
        }
    }
}
