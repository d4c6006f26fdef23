use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use postroad_envelope::RouteClass;

use super::{
    destinations::DestinationNumber,
    entries::Entry,
    fairness::{Fairness, Lane},
    ranks::Ranks,
};
use crate::JobKey;

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
    destinations: HashMap<DestinationNumber, Destination>,
    lanes: [Turns; Lane::ALL.len()],
    len: usize,
}

/// What a lane knows of its destinations.
#[derive(Debug, Default)]
struct Turns {
    /// By their tickets.
    waiting: BTreeMap<u64, DestinationNumber>,
    last_ticket: u64,
    /// What has added up of its share.
    earned: u32,
}

#[derive(Debug)]
struct Destination {
    leases: u32,
    /// Most it may have, see [`Fairness::limit`].
    limit: Option<u32>,
    /// A gate refused it: it has no turn until it is open again.
    closed: bool,
    in_lanes: [InLane; Lane::ALL.len()],
}

#[derive(Debug, Default)]
struct InLane {
    /// Most urgent and longest due first.
    jobs: Ranks,
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

    /// Other limits hold from now on. A destination that has more leases than it may have now has no turn until enough of them
    /// have ended.
    pub fn renew_limits<'a>(
        &mut self,
        fairness: &Arc<Fairness>,
        name: impl Fn(DestinationNumber) -> &'a Arc<str>,
    ) {
        self.fairness = Arc::clone(fairness);
        for (&number, known) in &mut self.destinations {
            known.limit = fairness.limit(self.class, name(number));
            let may_have_more = known.may_have_more();
            for (turns, in_lane) in self.lanes.iter_mut().zip(&mut known.in_lanes) {
                if !may_have_more {
                    turns.leave(in_lane.ticket.take());
                } else if in_lane.ticket.is_none() && !in_lane.jobs.is_empty() {
                    in_lane.ticket = Some(turns.join(number));
                }
            }
        }
    }

    /// A job's time has come; `name` is that of its destination.
    pub fn insert(&mut self, entry: &Entry, name: &str) {
        let lane = Lane::of(entry.priority) as usize;
        let rank = self.fairness.rank(entry.priority, entry.at);
        let known = self.destinations.entry(entry.destination);
        let known =
            known.or_insert_with(|| Destination::new(self.fairness.limit(self.class, name)));
        let may_have_more = known.may_have_more();
        let in_lane = &mut known.in_lanes[lane];
        self.len += usize::from(in_lane.jobs.insert(rank, entry.job()));
        if in_lane.ticket.is_none() && may_have_more {
            in_lane.ticket = Some(self.lanes[lane].join(entry.destination));
        }
    }

    pub fn remove(&mut self, entry: &Entry) {
        let lane = Lane::of(entry.priority);
        let rank = self.fairness.rank(entry.priority, entry.at);
        let destination = entry.destination;
        let Some(known) = self.destinations.get_mut(&destination) else {
            return;
        };
        let in_lane = &mut known.in_lanes[lane as usize];
        self.len -= usize::from(in_lane.jobs.remove(rank, entry.job()));
        if in_lane.jobs.is_empty() {
            self.lanes[lane as usize].leave(in_lane.ticket.take());
        }
        self.forget_idle(destination);
    }

    /// The next job to lease, of a destination that is admitted. Whoever leases it says so with [`ReadyQueue::lease_began`].
    pub fn take(&mut self, mut admits: impl FnMut(DestinationNumber) -> bool) -> Option<JobKey> {
        loop {
            let lane = self.next_lane()?;
            let turns = &mut self.lanes[lane as usize];
            let (_, destination) = turns.waiting.pop_first()?;
            if !admits(destination) {
                // Nothing was given out of what the lane had earned.
                turns.earned = turns.earned.saturating_add(WHOLE);
                self.close(destination);
                continue;
            }
            let in_lane = &mut self.destinations.get_mut(&destination)?.in_lanes[lane as usize];
            let job = in_lane.jobs.pop_first()?;
            self.len -= 1;
            let more = !in_lane.jobs.is_empty();
            in_lane.ticket = more.then(|| turns.join(destination));
            self.forget_idle(destination);
            return Some(job);
        }
    }

    /// Whether a destination has fewer leases than it may have, also if a gate refused it.
    pub fn has_room(&self, destination: DestinationNumber) -> bool {
        let known = self.destinations.get(&destination);
        known.is_some_and(Destination::has_room)
    }

    /// Whether a destination may have another lease now.
    pub fn has_turns(&self, destination: DestinationNumber) -> bool {
        let known = self.destinations.get(&destination);
        known.is_some_and(Destination::may_have_more)
    }

    /// A gate refused a destination: it has no turns until [`ReadyQueue::reopen`].
    pub fn close(&mut self, destination: DestinationNumber) {
        let Some(known) = self.destinations.get_mut(&destination) else {
            return;
        };
        known.closed = true;
        for (turns, in_lane) in self.lanes.iter_mut().zip(&mut known.in_lanes) {
            turns.leave(in_lane.ticket.take());
        }
    }

    /// A destination that was refused has turns again.
    pub fn reopen(&mut self, destination: DestinationNumber) {
        if let Some(known) = self.destinations.get_mut(&destination) {
            known.closed = false;
            self.give_turns(destination);
        }
    }

    /// A job of the destination was leased: if it has all it may have, it has no more turns.
    pub fn lease_began(&mut self, destination: DestinationNumber, name: &str) {
        let known = self.destinations.entry(destination);
        let known =
            known.or_insert_with(|| Destination::new(self.fairness.limit(self.class, name)));
        known.leases = known.leases.saturating_add(1);
        if !known.may_have_more() {
            for (turns, in_lane) in self.lanes.iter_mut().zip(&mut known.in_lanes) {
                turns.leave(in_lane.ticket.take());
            }
        }
    }

    /// A lease of the destination has ended: it may have turns again.
    pub fn lease_ended(&mut self, destination: DestinationNumber) {
        let Some(known) = self.destinations.get_mut(&destination) else {
            return;
        };
        known.leases = known.leases.saturating_sub(1);
        self.give_turns(destination);
        self.forget_idle(destination);
    }

    fn give_turns(&mut self, destination: DestinationNumber) {
        let Some(known) = self.destinations.get_mut(&destination) else {
            return;
        };
        if !known.may_have_more() {
            return;
        }
        for (turns, in_lane) in self.lanes.iter_mut().zip(&mut known.in_lanes) {
            if in_lane.ticket.is_none() && !in_lane.jobs.is_empty() {
                in_lane.ticket = Some(turns.join(destination));
            }
        }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    #[cfg(test)]
    pub fn jobs(&self) -> impl Iterator<Item = JobKey> {
        let in_lanes = self.destinations.values().flat_map(|known| &known.in_lanes);
        in_lanes.flat_map(|in_lane| in_lane.jobs.jobs())
    }

    /// Leases of a destination.
    #[cfg(test)]
    pub fn leases(&self, destination: DestinationNumber) -> u32 {
        self.destinations
            .get(&destination)
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
        known.in_lanes[lane as usize].jobs.first()
    }

    fn forget_idle(&mut self, destination: DestinationNumber) {
        let idle = self.destinations.get(&destination).is_some_and(|known| {
            known.leases == 0 && known.in_lanes.iter().all(|in_lane| in_lane.jobs.is_empty())
        });
        if idle {
            self.destinations.remove(&destination);
        }
    }
}

impl Destination {
    fn new(limit: Option<u32>) -> Self {
        Self {
            leases: 0,
            limit,
            closed: false,
            in_lanes: Default::default(),
        }
    }

    fn may_have_more(&self) -> bool {
        !self.closed && self.has_room()
    }

    fn has_room(&self) -> bool {
        self.limit.is_none_or(|limit| self.leases < limit)
    }
}

impl Turns {
    /// The last turn of all.
    fn join(&mut self, destination: DestinationNumber) -> u64 {
        self.last_ticket += 1;
        self.waiting.insert(self.last_ticket, destination);
        self.last_ticket
    }

    fn leave(&mut self, ticket: Option<u64>) {
        if let Some(ticket) = ticket {
            self.waiting.remove(&ticket);
        }
    }
}
