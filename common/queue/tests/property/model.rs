//! What the table of states says, in plain maps: jobs and what becomes of them.

use std::{collections::BTreeMap, time::Duration};

use postroad_envelope::{Notify, QueueId, RouteClass, Timestamp};
use postroad_queue::{Fence, JobKey};

use crate::{
    acts::{Said, Told},
    shapes::{Shape, class_of},
};

pub const LEASE: Duration = Duration::from_secs(300);
pub const DROP_GRACE: Duration = Duration::from_secs(10);
pub const RESUME_GRACE: Duration = Duration::from_secs(30);
pub const GATHER: Duration = Duration::from_secs(2);
/// After so long the sender of what waits is told.
pub const TELL_AFTER: Duration = Duration::from_secs(900);
pub const LIFE: Duration = Duration::from_secs(5 * 86_400);

/// A mail that lives: its jobs by their numbers, ended ones too.
#[derive(Debug, Clone)]
pub struct Mail {
    /// Two submissions of one id are one mail if they have one shape.
    pub shape: usize,
    pub jobs: BTreeMap<u32, Job>,
}

#[derive(Debug, Clone)]
pub struct Job {
    pub durable: Durable,
    pub place: Place,
    /// A change of it was prepared.
    pub changing: bool,
}

/// What a crash leaves.
#[derive(Debug, Clone, PartialEq)]
pub struct Durable {
    pub revision: u64,
    pub class: RouteClass,
    pub destination: String,
    pub hold: Option<String>,
    pub due: Timestamp,
    pub arrived_at: Timestamp,
    pub expires_at: Timestamp,
    pub priority: i8,
    pub attempts: u32,
    pub debt_since: Option<Timestamp>,
    pub changed_at: Timestamp,
    pub recipients: Vec<Rcpt>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Rcpt {
    pub index: u32,
    pub stands: Stands,
    pub on_failure: bool,
    pub on_success: bool,
    pub on_delay: bool,
    /// A worker said that it takes longer.
    pub delayed: bool,
    pub owed: bool,
}

/// Where a recipient stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stands {
    Pending,
    Delivered,
    Relayed,
    Failed,
    Dropped,
}

/// The one place of a job.
#[derive(Debug, Clone, PartialEq)]
pub enum Place {
    Waiting(Timestamp),
    Ready,
    Leased {
        fence: Fence,
        stream: u64,
        /// It is over then: at its deadline, or when the grace of a lost stream is.
        until: Timestamp,
        deadline: Timestamp,
    },
    Resuming {
        fence: Fence,
        until: Timestamp,
    },
    Held,
    /// Its sender is told at this time.
    Owing(Timestamp),
    HeldOwing(Timestamp),
    Ended,
}

/// A living lease, as the journal remembers it.
#[derive(Debug, Clone, Copy)]
pub struct Hint {
    pub fence: Fence,
    pub revision: u64,
    /// None: taken back.
    pub deadline: Option<Timestamp>,
}

impl Mail {
    /// One job for each domain, in the order in which they are named.
    pub fn accepted(shape: usize, said: &Shape, now: Timestamp) -> Self {
        let mut jobs: BTreeMap<u32, Job> = BTreeMap::new();
        for (index, (address, notify)) in (0..).zip(said.to) {
            let domain = address.split_once('@').unwrap().1;
            let rcpt = Rcpt::new(index, *notify, said.sender.is_empty(), class_of(domain));
            let known = jobs
                .values_mut()
                .find(|job| job.durable.destination == domain);
            match known {
                Some(job) => job.durable.recipients.push(rcpt),
                None => {
                    let number = u32::try_from(jobs.len()).unwrap();
                    jobs.insert(number, Job::new(Durable::new(domain, said, rcpt, now)));
                }
            }
        }
        Self { shape, jobs }
    }

    pub fn has_ended(&self) -> bool {
        self.jobs.values().all(|job| job.durable.has_ended())
    }

    /// When its last job ended.
    pub fn last_change(&self) -> Timestamp {
        let changes = self.jobs.values().map(|job| job.durable.changed_at);
        changes.max().unwrap()
    }

    pub fn owes(&self) -> bool {
        self.jobs.values().any(|job| job.durable.owes())
    }
}

impl Rcpt {
    fn new(index: u32, notify: Notify, no_sender: bool, class: RouteClass) -> Self {
        let (on_success, on_failure, on_delay) = match notify {
            Notify::On {
                success,
                failure,
                delay,
            } if !no_sender => (success, failure, delay),
            _ => (false, false, false),
        };
        let discarded = class == RouteClass::Discard;
        Self {
            index,
            stands: if discarded {
                Stands::Delivered
            } else {
                Stands::Pending
            },
            on_failure,
            on_success,
            on_delay,
            delayed: false,
            owed: false,
        }
    }

    /// RFC 3461 §5.2.
    fn said(&mut self, said: Said) {
        (self.stands, self.owed) = match said {
            Said::Nothing => return,
            Said::Delayed => {
                self.delayed = true;
                (Stands::Pending, false)
            }
            Said::Delivered => (Stands::Delivered, self.on_success),
            Said::Relayed => (Stands::Relayed, self.on_success),
            Said::TakenOver => (Stands::Relayed, false),
            Said::Failed => (Stands::Failed, self.on_failure),
        };
    }
}

impl Job {
    fn new(durable: Durable) -> Self {
        Self {
            place: durable.place(),
            durable,
            changing: false,
        }
    }

    /// A lease that a settlement may name.
    pub fn valid_lease(&self, now: Timestamp) -> Option<Fence> {
        match self.place {
            Place::Leased { fence, until, .. } if until > now && !self.changing => Some(fence),
            _ => None,
        }
    }

    /// Whether the worker that had it under this fence may go on: nobody else has it or had it since.
    pub fn may_resume(&self, named: Fence, revision: u64) -> bool {
        let free = match self.place {
            Place::Leased { fence, .. } | Place::Resuming { fence, .. } => fence == named,
            Place::Waiting(_) | Place::Ready => true,
            Place::Held | Place::Owing(_) | Place::HeldOwing(_) | Place::Ended => false,
        };
        free && !self.changing && self.durable.revision == revision
    }

    /// After a crash.
    pub fn restart(&mut self, hint: Option<&Hint>, now: Timestamp) {
        self.changing = false;
        self.place = self.durable.place();
        let (Place::Waiting(due), Some(hint)) = (&self.place, hint) else {
            return;
        };
        let Some(deadline) = hint.deadline else {
            return;
        };
        if hint.revision == self.durable.revision && *due <= now && deadline > now {
            self.place = Place::Resuming {
                fence: hint.fence,
                until: now.plus(RESUME_GRACE).min(deadline),
            };
        }
    }
}

impl Durable {
    fn new(domain: &str, said: &Shape, first: Rcpt, now: Timestamp) -> Self {
        let class = class_of(domain);
        let later = said.later.map(Duration::from_secs);
        Self {
            revision: 1,
            class,
            destination: domain.to_owned(),
            hold: (class == RouteClass::Hold).then(|| class.to_string()),
            due: now.plus(later.unwrap_or_default()),
            arrived_at: now,
            expires_at: match later {
                Some(_) => now.plus(Duration::from_secs(3600)),
                None => now.plus(LIFE),
            },
            priority: 0,
            attempts: 0,
            debt_since: None,
            changed_at: now,
            recipients: vec![first],
        }
    }

    pub fn is_pending(&self) -> bool {
        self.pending().next().is_some()
    }

    fn pending(&self) -> impl Iterator<Item = &Rcpt> {
        let all = self.recipients.iter();
        all.filter(|rcpt| rcpt.stands == Stands::Pending)
    }

    pub fn owes(&self) -> bool {
        self.recipients.iter().any(|rcpt| rcpt.owed)
    }

    pub fn has_ended(&self) -> bool {
        !self.is_pending() && !self.owes()
    }

    /// Where a job is that nobody holds.
    pub fn place(&self) -> Place {
        match (self.debt_since, &self.hold) {
            _ if self.has_ended() => Place::Ended,
            (Some(since), Some(_)) if self.is_pending() => Place::HeldOwing(since.plus(GATHER)),
            (Some(since), _) => Place::Owing(since.plus(GATHER)),
            (None, Some(_)) => Place::Held,
            (None, None) => Place::Waiting(self.due),
        }
    }

    /// `retry`: when the rest is tried again; none: its time is over.
    pub fn settled(
        mut self,
        outcomes: &[(u32, Said)],
        retry: Option<Timestamp>,
        now: Timestamp,
    ) -> Self {
        self.attempts += 1;
        for (index, said) in outcomes {
            let mut all = self.recipients.iter_mut();
            let rcpt = all.find(|r| r.index == *index && r.stands == Stands::Pending);
            if let Some(rcpt) = rcpt {
                rcpt.said(*said);
            }
        }
        match retry {
            Some(at) => self.due = at,
            None => self.all_pending(|rcpt| rcpt.said(Said::Failed)),
        }
        if now >= self.arrived_at.plus(TELL_AFTER) {
            self.all_pending(|rcpt| rcpt.owed |= rcpt.delayed && rcpt.on_delay);
        }
        self.changed(now)
    }

    pub fn told(mut self, told: Told, now: Timestamp) -> Self {
        match told {
            Told::Hold => self.hold = Some("suspect".to_owned()),
            Told::Release => (self.hold, self.due) = (None, now),
            Told::Retry => self.due = now,
            Told::Schedule(after) => self.due = now.plus(Duration::from_secs(after)),
            Told::Fail | Told::Expire => self.all_pending(|rcpt| rcpt.said(Said::Failed)),
            Told::Drop => {
                self.all_pending(|rcpt| rcpt.stands = Stands::Dropped);
                self.recipients
                    .iter_mut()
                    .for_each(|rcpt| rcpt.owed = false);
            }
            Told::Reroute(domain) => {
                let class = class_of(domain);
                // What a person holds stays held; what the table held is as the table says now.
                if class == RouteClass::Hold {
                    self.hold = Some(class.to_string());
                } else if self.class == RouteClass::Hold {
                    self.hold = None;
                }
                (self.class, self.destination) = (class, domain.to_owned());
                self.due = now;
            }
            Told::Priority(priority) => self.priority = priority,
        }
        self.changed(now)
    }

    pub fn reported(mut self, now: Timestamp) -> Self {
        // Nobody is told twice that it takes long.
        self.all_pending(|rcpt| rcpt.on_delay &= !rcpt.owed);
        self.recipients
            .iter_mut()
            .for_each(|rcpt| rcpt.owed = false);
        self.changed(now)
    }

    fn all_pending(&mut self, change: impl FnMut(&mut Rcpt)) {
        let all = self.recipients.iter_mut();
        all.filter(|rcpt| rcpt.stands == Stands::Pending)
            .for_each(change);
    }

    fn changed(mut self, now: Timestamp) -> Self {
        self.revision += 1;
        self.changed_at = now;
        self.debt_since = self.owes().then(|| self.debt_since.unwrap_or(now));
        self
    }
}

pub fn key(queue_id: QueueId, number: u32) -> JobKey {
    JobKey { queue_id, number }
}
