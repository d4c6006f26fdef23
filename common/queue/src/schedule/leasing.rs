//! Leases: granted, prolonged, given back, taken up again after a broken stream, and ended by a settlement.

use std::time::Duration;

use postroad_envelope::{RouteClass, StoreName, Timestamp};

use super::{Fence, Gate, Holder, Lease, Open, Phase, Schedule, Term};
use crate::{JobKey, Revision, StaleLease};

impl Schedule {
    /// As [`Schedule::lease_in`], of what is of no named store.
    pub fn lease(
        &mut self,
        class: RouteClass,
        holder: &Holder,
        max: usize,
        now: Timestamp,
    ) -> Vec<Lease> {
        self.lease_in(class, &StoreName::default(), holder, max, now)
    }

    /// Grants up to `max` leases of a class, of one store. Who is next, see [`Fairness`](super::Fairness); destinations take turns.
    pub fn lease_in(
        &mut self,
        class: RouteClass,
        store: &StoreName,
        holder: &Holder,
        max: usize,
        now: Timestamp,
    ) -> Vec<Lease> {
        self.lease_through(&mut Open, (class, store), holder, max, now)
    }

    /// As [`Schedule::lease_in`], of destinations that a gate admits.
    pub fn lease_through(
        &mut self,
        gate: &mut dyn Gate,
        (class, store): (RouteClass, &StoreName),
        holder: &Holder,
        max: usize,
        now: Timestamp,
    ) -> Vec<Lease> {
        let mut granted = Vec::new();
        let lane = (class, store.clone());
        while self.epoch() > 0 && granted.len() < max {
            let (ready, names) = (self.ready.get_mut(&lane), &self.destinations);
            let admits = |number| gate.admits(class, names.name(number), now);
            let Some(job) = ready.and_then(|ready| ready.take(admits)) else {
                break;
            };
            let entry = self.entries.get(job);
            if entry.is_some_and(|entry| Term::from(entry.term).bars(now)) {
                self.barred.insert(job);
                continue;
            }
            let Some(lease) = self.grant(job, holder, now) else {
                continue;
            };
            if let Some(entry) = self.entries.get(job) {
                gate.granted(&lease, class, self.destinations.name(entry.destination));
            }
            granted.push(lease);
        }
        granted
    }

    /// A destination that a gate refused has turns again.
    pub fn reopen(&mut self, class: RouteClass, destination: &str) {
        for number in self.destinations.numbers(destination) {
            let lane = (class, self.destinations.store(number).clone());
            if let Some(ready) = self.ready.get_mut(&lane) {
                ready.reopen(number);
            }
        }
    }

    /// The leases of mail that leaves over the network which ended since this was called last.
    pub fn take_ended(&mut self) -> Vec<Fence> {
        std::mem::take(&mut self.ended)
    }

    pub(super) fn grant(&mut self, job: JobKey, holder: &Holder, now: Timestamp) -> Option<Lease> {
        let deadline = now.plus(self.times.duration);
        let entry = *self.entries.get(job)?;
        self.last_fence.counter += 1;
        let lease = Lease {
            fence: self.last_fence,
            job,
            revision: entry.revision,
            holder: holder.clone(),
            due_at: entry.at,
            granted_at: now,
            deadline,
        };
        self.move_to(job, Phase::Leased, deadline);
        self.resumable.remove(&job);
        // One that is resumed may have its place already.
        match self.leases.insert(job, lease.clone()) {
            Some(before) => self.note_end(entry.class, before.fence),
            None => {
                let (ready, name) = self.ready_of(&entry);
                ready.lease_began(entry.destination, name);
            }
        }
        Some(lease)
    }

    /// Moves the deadline of a lease; tells the new one.
    pub fn extend(
        &mut self,
        job: JobKey,
        fence: Fence,
        now: Timestamp,
    ) -> Result<Timestamp, StaleLease> {
        self.current(job, fence, now)?;
        let deadline = now.plus(self.times.duration);
        if let Some(lease) = self.leases.get_mut(&job) {
            lease.deadline = deadline;
        }
        self.move_to(job, Phase::Leased, deadline);
        Ok(deadline)
    }

    /// Takes a job back that its worker could not try; costs no attempt. It is due again after `delay`.
    pub fn hand_back(
        &mut self,
        job: JobKey,
        fence: Fence,
        delay: Duration,
        now: Timestamp,
    ) -> Result<(), StaleLease> {
        self.current(job, fence, now)?;
        // However long its worker wants it to rest.
        let end = self
            .entries
            .get(job)
            .map(|entry| Term::from(entry.term).end());
        let due = now.plus(delay).min(end.map_or(now, |end| end.max(now)));
        self.take_back(job, due);
        Ok(())
    }

    fn take_back(&mut self, job: JobKey, due: Timestamp) {
        if let Some(&entry) = self.entries.get(job) {
            self.end_lease(&entry);
            let due = Term::from(entry.term).clip(due);
            self.move_to(job, Phase::Waiting, due);
        }
    }

    /// A stream has ended: its leases end after a grace, unless resumed. Tells how many.
    pub fn drop_stream(&mut self, stream: u64, now: Timestamp) -> usize {
        let dropped: Vec<_> = self
            .leases
            .values()
            .filter(|l| l.holder.stream == stream)
            .map(|l| l.job)
            .collect();
        let end = now.plus(self.times.drop_grace);
        for &job in &dropped {
            let Some(entry) = self.entries.get(job) else {
                continue;
            };
            if !entry.changing {
                let end = end.min(entry.at);
                self.move_to(job, Phase::Leased, end);
            }
        }
        dropped.len()
    }

    /// A worker left its stream: what it was given there is due at once. Tells how many.
    pub fn free_stream(&mut self, holder: &Holder, now: Timestamp) -> usize {
        let on_stream = self.leases.values().filter(|l| l.holder == *holder);
        let jobs: Vec<_> = on_stream.map(|l| l.job).collect();
        let mut freed = 0;
        for job in jobs {
            // A result that is being kept decides by itself what comes next.
            if self.entries.get(job).is_some_and(|entry| !entry.changing) {
                self.take_back(job, now);
                freed += 1;
            }
        }
        freed
    }

    /// Renews a lease after a lost stream or a restart, under a new fence. None: the job has changed or is with someone
    /// else, and what the worker did is late.
    pub fn resume(
        &mut self,
        job: JobKey,
        fence: Fence,
        revision: Revision,
        holder: &Holder,
        now: Timestamp,
    ) -> Option<Lease> {
        let entry = self.entries.get(job)?;
        let free = match entry.phase {
            Phase::Leased => self
                .leases
                .get(&job)
                .is_some_and(|lease| lease.fence == fence),
            Phase::Resuming => self.resumable.get(&job) == Some(&fence),
            // The hint was lost, or the grace is over, but nobody has taken the job since.
            Phase::Waiting | Phase::Ready => true,
            Phase::Held | Phase::Owing | Phase::HeldOwing => false,
        };
        let free = free && entry.revision == revision && !entry.changing && self.epoch() > 0;
        free.then(|| self.grant(job, holder, now)).flatten()
    }

    /// Begins to settle a lease: from now on nothing else happens to the job until [`Schedule::place`].
    pub fn begin_settle(
        &mut self,
        job: JobKey,
        fence: Fence,
        now: Timestamp,
    ) -> Result<Lease, StaleLease> {
        let lease = self.current(job, fence, now)?;
        self.begin(job);
        Ok(lease)
    }

    fn current(&mut self, job: JobKey, fence: Fence, now: Timestamp) -> Result<Lease, StaleLease> {
        let stale = StaleLease { job };
        let lease = self
            .leases
            .get(&job)
            .filter(|lease| lease.fence == fence)
            .ok_or(stale)?;
        let entry = self.entries.get(job).ok_or(stale)?;
        // Past its deadline a lease is over, also if no tick has seen it yet.
        if entry.changing || entry.at <= now {
            return Err(stale);
        }
        Ok(lease.clone())
    }
}
