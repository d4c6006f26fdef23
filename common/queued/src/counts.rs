//! What the queue counts, and what it tells of how it stands.

use std::sync::{Arc, Weak};

use postroad_counters::Kind;
use postroad_envelope::{Cause, Outcome, RouteClass};
use postroad_metrics::{
    Counter, Gauge, Histogram, Metrics, Table, labels,
    labels::{Counted, Offer, Refused, Report, Route, Settled, Source, State},
    list,
};
use postroad_queue::JobCounts;
use postroad_queue_client::QueueError;

use crate::{
    catch_up::Standing,
    clock,
    core::{Core, Front},
    disk::Room,
};

/// Counted as it happens.
#[derive(Debug)]
pub(crate) struct Counts {
    metrics: Metrics,
    pub mails: Table<Source, Counter>,
    refusals: Table<Refused, Counter>,
    leases: Table<Route, Counter>,
    pub leases_expired: Counter,
    settled: Table<Settled, Counter>,
    causes: Table<labels::Cause, Counter>,
    pub dropped: Counter,
    pub withdrawn: Counter,
    pub reports: Table<Report, Counter>,
    pub commits: CommitCounts,
    counted: Table<Counted, Counter>,
    banned: Table<Counted, Counter>,
    counters_dropped: Table<Counted, Counter>,
    disk_free: Gauge,
    disk_reserve: Gauge,
}

/// What the committing thread counts.
#[derive(Clone, Debug)]
pub(crate) struct CommitCounts {
    pub time: Histogram,
    pub size: Histogram,
    pub kinds: Table<Offer, Counter>,
}

impl Counts {
    /// Where it is counted.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub fn new(metrics: &Metrics) -> Self {
        Self {
            mails: metrics.counters(&list::QUEUE_MAILS, &[]),
            refusals: metrics.counters(&list::QUEUE_REFUSALS, &[]),
            leases: metrics.counters(&list::QUEUE_LEASES, &[]),
            leases_expired: metrics.counter(&list::QUEUE_LEASES_EXPIRED, &[]),
            settled: metrics.counters(&list::QUEUE_SETTLED, &[]),
            causes: metrics.counters(&list::QUEUE_CAUSES, &[]),
            dropped: metrics.counter(&list::QUEUE_DROPPED, &[]),
            withdrawn: metrics.counter(&list::QUEUE_WITHDRAWN, &[]),
            reports: metrics.counters(&list::QUEUE_REPORTS, &[]),
            commits: CommitCounts {
                time: metrics.histogram(&list::QUEUE_COMMIT_TIME, &[]),
                size: metrics.histogram(&list::QUEUE_COMMIT_SIZE, &[]),
                kinds: metrics.counters(&list::QUEUE_COMMITTED, &[]),
            },
            counted: metrics.counters(&list::QUEUE_COUNTED, &[]),
            banned: metrics.counters(&list::QUEUE_BANNED, &[]),
            counters_dropped: metrics.counters(&list::QUEUE_COUNTERS_DROPPED, &[]),
            disk_free: metrics.gauge(&list::QUEUE_DISK_FREE, &[]),
            disk_reserve: metrics.gauge(&list::QUEUE_DISK_RESERVE, &[]),
            metrics: metrics.clone(),
        }
    }

    /// A mail was not taken, for this reason.
    pub fn refused(&self, error: &QueueError) {
        self.refusals.count(match error {
            QueueError::Full(_) => Refused::Full,
            QueueError::OverQuota(_) => Refused::Quota,
            QueueError::Refused(_) => Refused::Size,
            QueueError::NotAllowed(_) => Refused::NotAllowed,
            QueueError::Unavailable(_) => Refused::Unavailable,
            QueueError::IdTaken
            | QueueError::NotFound
            | QueueError::Conflict(_)
            | QueueError::Invalid(_)
            | QueueError::Unsupported(_) => Refused::Other,
        });
    }

    /// Counts mails that the agent who came with them may not submit.
    pub fn not_allowed(&self) -> Counter {
        self.refusals.of_key(Refused::NotAllowed).clone()
    }

    pub fn leased(&self, class: RouteClass) {
        if let Some(route) = route_of(class) {
            self.leases.count(route);
        }
    }

    /// So many recipients came to this.
    pub fn settled(&self, outcome: &Outcome, recipients: usize) {
        let settled = match outcome {
            Outcome::Delivered(_) => Settled::Delivered,
            Outcome::Relayed(_) => Settled::Relayed,
            Outcome::Delayed(_) => Settled::Delayed,
            Outcome::Failed(_) => Settled::Bounced,
            Outcome::Expanded(_) => Settled::Expanded,
        };
        self.settled.add(settled, number(recipients));
        if let Some(cause) = outcome.report().cause {
            self.causes.add(cause_of(cause), number(recipients));
        }
    }

    /// So many recipients are not tried.
    pub fn suppressed(&self, recipients: usize) {
        self.settled.add(Settled::Bounced, number(recipients));
        self.causes
            .add(labels::Cause::Suppressed, number(recipients));
    }

    /// So many recipients fail without an attempt.
    pub fn given_up(&self, recipients: usize) {
        self.settled.add(Settled::Bounced, number(recipients));
    }

    /// An agent counted something, or asked how it stands.
    pub fn counted(&self, kind: Kind) {
        self.counted.count(counted_of(kind));
    }

    /// A ban began.
    pub fn banned(&self, kind: Kind) {
        self.banned.count(counted_of(kind));
    }

    /// So many counters and bans went before their time.
    pub fn counters_dropped(&self, kind: Kind, dropped: u64) {
        self.counters_dropped.add(counted_of(kind), dropped);
    }

    pub fn room(&self, room: Room) {
        self.disk_free.set(room.free);
        self.disk_reserve.set(room.reserve);
    }

    /// Tells of what there is from the first moment on. A queue that has ended is not kept by it.
    pub fn tell_front(&self, front: &Arc<Front>) {
        let flag = |metric, is: fn(&Front) -> bool| {
            let front = Arc::downgrade(front);
            // One that has ended takes no mail, and gives none.
            let read = move || front.upgrade().is_some_and(|front| is(&front));
            self.metrics
                .read(metric, &[], move || Some(f64::from(read())));
        };
        flag(&list::QUEUE_ACCEPTING, |front| front.takes_mail().is_ok());
        flag(&list::QUEUE_CAUGHT_UP, |front| {
            *front.standing.borrow() == Standing::Live
        });
        let told = |metric, labels: &[&str], read: Box<Read<Front>>| {
            let front = Arc::downgrade(front);
            self.metrics
                .read(metric, labels, move || asked(&front, &read));
        };
        told(
            &list::QUEUE_SUBMISSIONS,
            &[],
            Box::new(|front| {
                let free = front.submissions.available_permits();
                front.max_submissions.saturating_sub(free) as f64
            }),
        );
        told(
            &list::QUEUE_JOURNAL,
            &[],
            Box::new(|front| front.room_taken(&front.segments()) as f64),
        );
        for kind in Kind::ALL {
            let labels = [counted_of(kind).text()];
            let counters = move |front: &Front| front.counting.sizes(kind).0 as f64;
            told(&list::QUEUE_COUNTERS, &labels, Box::new(counters));
            let bans = move |front: &Front| front.counting.sizes(kind).1 as f64;
            told(&list::QUEUE_BANS, &labels, Box::new(bans));
        }
        for &site in <labels::Site as labels::Word>::ALL {
            let word = site.text();
            let sites = move |front: &Front| front.sites.count(word) as f64;
            told(&list::QUEUE_SITES, &[word], Box::new(sites));
        }
        for &route in <labels::Route as labels::Word>::ALL {
            let workers = move |front: &Front| {
                let all = front.agents.all();
                let takes = |class: &RouteClass| route_of(*class) == Some(route);
                let them = all
                    .iter()
                    .filter(|(_, agent)| agent.classes.iter().any(takes));
                them.count() as f64
            };
            told(&list::QUEUE_WORKERS, &[route.text()], Box::new(workers));
        }
    }

    /// Tells of what there is once the queue has caught up.
    pub fn tell_core(&self, core: &Arc<Core>) {
        type Part = fn(JobCounts) -> usize;
        let parts: [(State, Part); 4] = [
            (State::Due, |jobs| jobs.due),
            (State::Leased, |jobs| jobs.leased),
            (State::Delayed, |jobs| jobs.delayed),
            (State::Held, |jobs| jobs.held),
        ];
        for (state, part) in parts {
            let core = Arc::downgrade(core);
            let read: Box<Read<Core>> = Box::new(move |core| part(core.queue.job_counts()) as f64);
            let labels = [state.text()];
            self.metrics
                .read(&list::QUEUE_JOBS, &labels, move || asked(&core, &read));
        }
        let core = Arc::downgrade(core);
        let read: Box<Read<Core>> = Box::new(|core| {
            let since = core.queue.oldest_due();
            since.map_or(0.0, |since| clock::now().since(since).as_secs_f64())
        });
        self.metrics
            .read(&list::QUEUE_OLDEST_DUE, &[], move || asked(&core, &read));
    }
}

type Read<T> = dyn Fn(&T) -> f64 + Send + Sync;

/// None, if what is asked about is gone.
fn asked<T>(about: &Weak<T>, read: &Read<T>) -> Option<f64> {
    about.upgrade().map(|about| read(&about))
}

/// Classes that workers take.
fn route_of(class: RouteClass) -> Option<Route> {
    match class {
        RouteClass::Local => Some(Route::Local),
        RouteClass::Relay => Some(Route::Relay),
        RouteClass::Lmtp => Some(Route::Lmtp),
        RouteClass::Hold | RouteClass::Discard => None,
    }
}

/// The lists are the same, word by word.
fn cause_of(cause: Cause) -> labels::Cause {
    let mut all = <labels::Cause as labels::Word>::ALL.iter();
    let same = all.find(|label| label.text() == cause.as_str());
    same.copied().unwrap_or(labels::Cause::Other)
}

fn counted_of(kind: Kind) -> Counted {
    match kind {
        Kind::AuthFailed => Counted::AuthFailed,
        Kind::Guessed => Counted::Guessed,
        Kind::Home => Counted::Home,
        Kind::Sent => Counted::Sent,
        Kind::SentMails => Counted::SentMails,
        Kind::SentBytes => Counted::SentBytes,
        Kind::Client => Counted::Client,
    }
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_has_its_label() {
        for cause in Cause::ALL {
            assert_eq!(cause_of(*cause).text(), cause.as_str());
        }
    }
}
