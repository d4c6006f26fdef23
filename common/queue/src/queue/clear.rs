use super::Queue;
use crate::JobKey;

impl Queue {
    /// Whether it is known that whoever had the job last has filed nothing of what is still to be tried: then it may go to
    /// another store.
    pub fn set_clear(&self, job: JobKey, is_clear: bool) {
        self.core().schedule.set_clear(job, is_clear);
    }

    /// Whether a worker had the job, as far as is known, and it is not known whether it filed it.
    pub fn is_unclear(&self, job: JobKey) -> bool {
        self.core().schedule.is_unclear(job)
    }
}
