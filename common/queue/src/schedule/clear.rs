//! Of which local jobs a worker may have filed some.

use postroad_envelope::RouteClass;

use super::{Entry, Schedule};
use crate::JobKey;

impl Schedule {
    /// Whether it is known that whoever had the job last has filed nothing of what is still to be tried.
    pub fn set_clear(&mut self, job: JobKey, is_clear: bool) {
        match is_clear {
            true => drop(self.unclear.remove(&job)),
            false => self.mark_unclear(job),
        }
    }

    /// Whether a worker had the job, as far as is known, and it is not known whether it filed it.
    pub fn is_unclear(&self, job: JobKey) -> bool {
        self.unclear.contains(&job)
    }

    /// Whether something of the job may have been sent since this start: a worker had it and said nothing, or is not sure.
    pub fn may_have_begun(&self, job: JobKey) -> bool {
        self.begun.contains(&job) || self.unclear.contains(&job)
    }

    /// Of local mail alone: other mail has no store to be asked again.
    pub(super) fn mark_unclear(&mut self, job: JobKey) {
        let local = |entry: &Entry| entry.class == RouteClass::Local;
        if self.entries.get(job).is_some_and(local) {
            self.unclear.insert(job);
        }
    }
}
