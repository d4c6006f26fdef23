//! What is expected of the whole queue: all mails, all leases, what the journal remembers.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use postroad_envelope::{QueueId, RouteClass, Timestamp};
use postroad_queue::{Fence, JobKey};

use crate::{
    model::{DROP_GRACE, Durable, Hint, Job, LEASE, Mail, Place, key},
    shapes::at,
};

pub const WINDOW: Duration = Duration::from_secs(2 * 3600);
const REPORT_AGAIN: Duration = Duration::from_secs(60);
/// Most leases of one destination that is reached over the network.
pub const MOST_LEASES: usize = 2;

/// A mail that has ended.
#[derive(Debug, Clone)]
pub struct Ended {
    pub at: Timestamp,
    pub mail: Mail,
    /// It waits to be retired.
    pub leaving: bool,
}

/// A lease that was ever given, living or not.
#[derive(Debug, Clone, Copy)]
pub struct Given {
    pub job: JobKey,
    pub fence: Fence,
    pub revision: u64,
}

#[derive(Debug)]
pub struct Book {
    pub now: Timestamp,
    pub epoch: u64,
    pub retire: bool,
    pub living: BTreeMap<QueueId, Mail>,
    pub ended: BTreeMap<QueueId, Ended>,
    pub given: Vec<Given>,
    /// What a restart would find of leases; and what is still to be written of them.
    pub hints: BTreeMap<JobKey, Hint>,
    pub unwritten: Vec<(JobKey, Hint)>,
}

/// What a commit does.
#[derive(Debug, Clone)]
pub enum Next {
    Mail(QueueId, Mail),
    Job(JobKey, Durable),
    Nothing,
}

impl Book {
    pub fn new(retire: bool) -> Self {
        Self {
            now: at(0),
            epoch: 0,
            retire,
            living: BTreeMap::new(),
            ended: BTreeMap::new(),
            given: Vec::new(),
            hints: BTreeMap::new(),
            unwritten: Vec::new(),
        }
    }

    pub fn job(&self, job: JobKey) -> Option<&Job> {
        self.living.get(&job.queue_id)?.jobs.get(&job.number)
    }

    pub fn job_mut(&mut self, job: JobKey) -> Option<&mut Job> {
        let mail = self.living.get_mut(&job.queue_id)?;
        mail.jobs.get_mut(&job.number)
    }

    /// Jobs that have not ended.
    pub fn jobs(&self) -> impl Iterator<Item = (JobKey, &Job)> {
        let jobs = self.living.iter().flat_map(|(id, mail)| {
            let jobs = mail.jobs.iter();
            jobs.map(|(number, job)| (key(*id, *number), job))
        });
        jobs.filter(|(_, job)| job.place != Place::Ended)
    }

    fn jobs_mut(&mut self) -> impl Iterator<Item = (JobKey, &mut Job)> {
        self.living.iter_mut().flat_map(|(id, mail)| {
            let jobs = mail.jobs.iter_mut();
            jobs.map(|(number, job)| (key(*id, *number), job))
        })
    }

    /// Which mail is meant by a number; the newest leases are meant most.
    pub fn pick_lease(&self, number: usize) -> Option<Given> {
        let near = self.given.len().min(8);
        let back = number.checked_rem(near)?;
        self.given.get(self.given.len() - 1 - back).copied()
    }

    pub fn pick_job(&self, number: usize) -> Option<JobKey> {
        let jobs: Vec<JobKey> = self.jobs().map(|(job, _)| job).collect();
        jobs.get(number.checked_rem(jobs.len())?).copied()
    }

    /// Ends leases, and names them, and the mails whose senders are to be told.
    pub fn tick(&mut self) -> (BTreeSet<Fence>, BTreeSet<QueueId>) {
        let now = self.now;
        let (mut expired, mut reports) = (BTreeSet::new(), BTreeSet::new());
        for (job, state) in self.jobs_mut().filter(|(_, job)| !job.changing) {
            match &mut state.place {
                Place::Waiting(at) if *at <= now => state.place = Place::Ready,
                Place::Resuming { until, .. } if *until <= now => state.place = Place::Ready,
                Place::Leased { until, fence, .. } if *until <= now => {
                    expired.insert(*fence);
                    state.place = Place::Ready;
                }
                Place::Owing(at) | Place::HeldOwing(at) if *at <= now => {
                    reports.insert(job.queue_id);
                    *at = now.plus(REPORT_AGAIN);
                }
                _ => {}
            }
        }
        (expired, reports)
    }

    /// How many leases of a class may be given now.
    pub fn leasable(&self, class: RouteClass) -> usize {
        let mut ready: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for (_, job) in self.jobs().filter(|(_, job)| job.durable.class == class) {
            let (ready, leased) = ready.entry(&job.durable.destination).or_default();
            *ready += usize::from(job.place == Place::Ready && !job.changing);
            *leased += usize::from(matches!(job.place, Place::Leased { .. }));
        }
        let room = |leased: usize| match class {
            RouteClass::Relay | RouteClass::Lmtp => MOST_LEASES.saturating_sub(leased),
            _ => usize::MAX,
        };
        let each = ready
            .values()
            .map(|(ready, leased)| room(*leased).min(*ready));
        each.sum()
    }

    /// A lease was given, or renewed: its fence is new.
    pub fn granted(&mut self, job: JobKey, fence: Fence, stream: u64) {
        let until = self.now.plus(LEASE);
        assert_eq!(fence.epoch, self.epoch, "a fence of another start");
        let is_new = self.given.iter().all(|given| given.fence < fence);
        assert!(is_new, "{fence} is not a new fence");
        let state = self.job_mut(job).expect("it lives");
        let revision = state.durable.revision;
        state.place = Place::Leased {
            fence,
            stream,
            until,
            deadline: until,
        };
        let given = Given {
            job,
            fence,
            revision,
        };
        self.given.push(given);
        self.hint(given, Some(until));
    }

    /// A lease is over without a settlement; nobody waits for its worker.
    pub fn taken_back(&mut self, given: Given, due: Timestamp) {
        if let Some(state) = self.job_mut(given.job) {
            state.place = Place::Waiting(due);
        }
        self.hint(given, None);
    }

    /// A stream was lost: its leases are over after a grace. How many it had.
    pub fn drop_stream(&mut self, lost: u64) -> usize {
        let (end, mut dropped) = (self.now.plus(DROP_GRACE), 0);
        for (_, job) in self.jobs_mut() {
            if let Place::Leased { stream, until, .. } = &mut job.place
                && *stream == lost
            {
                dropped += 1;
                if !job.changing {
                    *until = end.min(*until);
                }
            }
        }
        dropped
    }

    /// A worker left: its jobs are due, but for those it has a result for. How many.
    pub fn free_stream(&mut self, left: u64) -> usize {
        let on_stream = self.jobs().filter_map(|(job, state)| match state.place {
            Place::Leased { stream, fence, .. } if stream == left && !state.changing => {
                let revision = state.durable.revision;
                Some(Given {
                    job,
                    fence,
                    revision,
                })
            }
            _ => None,
        });
        let freed: Vec<Given> = on_stream.collect();
        let now = self.now;
        freed.iter().for_each(|given| self.taken_back(*given, now));
        freed.len()
    }

    fn hint(&mut self, given: Given, deadline: Option<Timestamp>) {
        let hint = Hint {
            fence: given.fence,
            revision: given.revision,
            deadline,
        };
        self.unwritten.push((given.job, hint));
    }

    pub fn hints_written(&mut self) {
        self.hints.extend(std::mem::take(&mut self.unwritten));
    }

    /// A checkpoint names all living leases, and nothing else is remembered.
    pub fn checkpoint(&mut self) {
        let leases = self.jobs().filter_map(|(job, state)| match state.place {
            Place::Leased {
                fence, deadline, ..
            } => {
                let hint = Hint {
                    fence,
                    revision: state.durable.revision,
                    deadline: Some(deadline),
                };
                Some((job, hint))
            }
            _ => None,
        });
        self.hints = leases.collect();
    }

    /// Applies what was committed; tells of a mail that it ends.
    pub fn commit(&mut self, next: Next) -> Option<QueueId> {
        let id = match next {
            Next::Mail(id, mail) => {
                self.ended.remove(&id);
                let before = self.living.insert(id, mail);
                assert!(before.is_none(), "{id} was accepted twice");
                id
            }
            Next::Job(job, durable) => {
                let state = self.job_mut(job).expect("it lives");
                state.place = durable.place();
                state.durable = durable;
                state.changing = false;
                job.queue_id
            }
            Next::Nothing => return None,
        };
        if !self.living.get(&id).is_some_and(Mail::has_ended) {
            return None;
        }
        let mail = self.living.remove(&id)?;
        let ended = Ended {
            at: mail.last_change(),
            mail,
            leaving: self.retire,
        };
        self.ended.insert(id, ended);
        Some(id)
    }

    /// All that is not durable is gone.
    pub fn restart(&mut self) {
        let (now, hints) = (self.now, self.hints.clone());
        for (job, state) in self.jobs_mut() {
            state.restart(hints.get(&job), now);
        }
        self.unwritten.clear();
        self.epoch += 1;
    }
}
