//! A queue with its index in a folder and its journal in memory, and the book that says what must be seen of it.

use std::collections::BTreeSet;

use bytes::Bytes;
use postroad_envelope::QueueId;
use postroad_journal::{Location, Lsn, RecordDraft, RecordKind, RecordRef, SegmentNumber};
use postroad_queue::{
    Fairness, LeaseTimes, Options, Prepared, Queue, QueueError, RetrySchedule, record::Snapshot,
};
use tempfile::TempDir;

use crate::{
    acts::{Act, Life, Restart},
    book::{Book, MOST_LEASES, Next, WINDOW},
    model::{DROP_GRACE, GATHER, LEASE, RESUME_GRACE, TELL_AFTER},
    seen::same_states,
    shapes::SHAPES,
};

pub struct House {
    pub queue: Option<Queue>,
    pub book: Book,
    folder: TempDir,
    pub log: Vec<(Location, RecordKind, Bytes)>,
    pub segment: u32,
    next: u64,
    /// Where a replay begins.
    checkpoint: u64,
    /// Prepared, in this order, and not committed.
    pub pending: Vec<(Prepared, Vec<Next>)>,
    /// So many reports were made.
    pub reports: u8,
}

pub fn live(life: &Life) {
    let mut house = House::open(life.retire);
    for (number, act) in life.acts.iter().enumerate() {
        house.act(act);
        house.compare();
        if number.is_multiple_of(25) {
            house.verify();
        }
    }
    house.commit();
    house.verify();
}

/// In memory where that can be had: nothing here asks a disk for its word.
fn folder() -> TempDir {
    let in_memory = tempfile::tempdir_in("/dev/shm");
    in_memory.or_else(|_| tempfile::tempdir()).unwrap()
}

impl House {
    fn open(retire: bool) -> Self {
        let mut house = Self {
            queue: None,
            book: Book::new(retire),
            folder: folder(),
            log: Vec::new(),
            segment: 1,
            next: 1,
            checkpoint: 0,
            pending: Vec::new(),
            reports: 0,
        };
        house.start(false);
        house
    }

    pub fn queue(&self) -> &Queue {
        self.queue.as_ref().expect("it is open")
    }

    fn options(&self) -> Options {
        Options {
            times: LeaseTimes {
                duration: LEASE,
                drop_grace: DROP_GRACE,
                resume_grace: RESUME_GRACE,
                report_gather: GATHER,
            },
            fairness: Fairness {
                max_leases: u32::try_from(MOST_LEASES).unwrap(),
                ..Fairness::default()
            },
            cache_capacity: 1 << 20,
            retry: RetrySchedule {
                tell_after: Some(TELL_AFTER),
                ..RetrySchedule::default()
            },
            finished_window: WINDOW,
            retire: self.book.retire,
            ..Options::default()
        }
    }

    fn act(&mut self, act: &Act) {
        match *act {
            Act::Insert { number, shape } => self.insert(number, shape),
            Act::Pass { seconds } => self.pass(seconds),
            Act::Lease { class, stream, max } => self.lease(class, stream, max),
            Act::Extend(lease) => self.extend(lease),
            Act::HandBack { lease, delay } => self.hand_back(lease, delay),
            Act::Settle { lease, outcomes } => self.settle(lease, outcomes),
            Act::DropStream(stream) => self.drop_stream(stream),
            Act::FreeStream(stream) => self.free_stream(stream),
            Act::Resume { lease, stream } => self.resume(lease, stream),
            Act::Tell(job, told) => self.tell(job, told),
            Act::Report { mail, with_mail } => self.report(mail, with_mail),
            Act::ExpireOld(max) => self.expire_old(max),
            Act::Commit => self.commit(),
            Act::Abandon => self.abandon(),
            Act::Snapshot => self.snapshot(),
            Act::Checkpoint { reaches_index } => self.checkpoint(reaches_index),
            Act::NextSegment => self.segment += 1,
            Act::Reclaim => self.reclaim(),
            Act::Retire(most) => self.retire(most),
            Act::Restart(restart) => self.restart(restart),
        }
    }

    pub fn append(&mut self, records: &[RecordDraft]) -> Vec<Location> {
        let mut locations = Vec::new();
        for draft in records {
            let payload: Bytes = draft.parts.concat().into();
            let location = Location {
                segment: SegmentNumber(self.segment),
                offset: u32::try_from(self.next).unwrap(),
                len: u32::try_from(payload.len()).unwrap(),
                lsn: Lsn(self.next),
            };
            self.next += 1;
            self.log.push((location, draft.kind, payload));
            locations.push(location);
        }
        locations
    }

    fn write_hints(&mut self) {
        if let Some(hints) = self.queue().lease_hints() {
            self.append(&[hints]);
        }
        self.book.hints_written();
    }

    pub fn commit(&mut self) {
        self.write_hints();
        for (prepared, next) in std::mem::take(&mut self.pending) {
            self.commit_one(prepared, next);
        }
    }

    fn commit_one(&mut self, prepared: Prepared, next: Vec<Next>) {
        let locations = self.append(prepared.records());
        let applied = self.queue().apply(prepared, &locations).unwrap();
        let finished: Vec<QueueId> = applied
            .finished
            .iter()
            .map(|mail| mail.finished.queue_id)
            .collect();
        let expected: Vec<QueueId> = next
            .into_iter()
            .filter_map(|next| self.book.commit(next))
            .collect();
        assert_eq!(finished, expected, "mails that ended");
        for mail in applied.finished {
            let shape = self.book.ended[&mail.finished.queue_id].mail.shape;
            let in_file = SHAPES.get(shape).is_some_and(|shape| shape.in_file);
            assert_eq!(mail.file.is_some(), in_file);
            assert_eq!(mail.leaving, self.book.retire);
        }
    }

    fn abandon(&mut self) {
        let Some((prepared, next)) = self.pending.pop() else {
            return;
        };
        self.queue().abandon(prepared);
        for next in next {
            if let Next::Job(job, _) = next
                && let Some(state) = self.book.job_mut(job)
            {
                (state.changing, state.place) = (false, state.durable.place());
            }
        }
    }

    fn checkpoint(&mut self, reaches_index: bool) {
        self.commit();
        let (lsn, now) = (self.next, self.book.now);
        let prepared = self.queue().prepare_checkpoint(now);
        self.commit_one(prepared, vec![Next::Nothing]);
        self.book.checkpoint();
        if reaches_index {
            self.retire(usize::MAX);
            self.queue().retired_before(Lsn(lsn));
            self.queue().checkpoint(Lsn(lsn), now).unwrap();
            self.checkpoint = lsn;
        }
    }

    fn snapshot(&mut self) {
        let prepared = self.queue().prepare_snapshot(&Snapshot::default());
        self.pending.push((prepared, vec![Next::Nothing]));
    }

    /// Gives up the oldest segment, as far as it may go; what still counts is copied forward.
    fn reclaim(&mut self) {
        let Some(oldest) = self.log.first().map(|(location, ..)| location.segment) else {
            return;
        };
        let records: Vec<_> = self
            .log
            .iter()
            .filter(|(l, ..)| l.segment == oldest)
            .cloned()
            .collect();
        let ends_before = records
            .last()
            .is_some_and(|(l, ..)| l.lsn.0 < self.checkpoint);
        if oldest.0 >= self.segment || !ends_before {
            return;
        }
        for (location, kind, payload) in records {
            match self.queue().prepare_keep(location, kind, &payload) {
                Ok(None) => {}
                Ok(Some(kept)) => self.pending.push((kept, vec![Next::Nothing])),
                Err(QueueError::Busy(job)) => {
                    assert!(self.book.job(job).is_some_and(|job| job.changing));
                    return;
                }
                Err(error) => panic!("{error}"),
            }
        }
        self.commit();
        self.retire(usize::MAX);
        if let Some(block) = self.queue().prepare_finished() {
            self.commit_one(block, vec![Next::Nothing]);
        }
        self.queue().forget_segment(oldest).unwrap();
        self.log.retain(|(location, ..)| location.segment != oldest);
    }

    /// Each mail that waits for it comes at least once, as it ended.
    fn retire(&mut self, most: usize) {
        let all = self.queue().leaving(None, usize::MAX).unwrap();
        let ids: BTreeSet<QueueId> = all.iter().map(|mail| mail.mail.queue_id).collect();
        for (id, ended) in self.book.ended.iter().filter(|(_, ended)| ended.leaving) {
            assert!(
                ids.contains(id),
                "{id} has ended and is not to be retired: {ended:?}"
            );
        }
        let mut gone = Vec::new();
        for mail in all.into_iter().take(most) {
            let id = mail.mail.queue_id;
            let ended = self.book.ended.get_mut(&id).expect("it has ended");
            ended.leaving = false;
            assert_eq!(mail.at, ended.at);
            let states = mail.jobs.iter().map(|state| (state.key.number, &**state));
            same_states(id, &ended.mail, states);
            gone.push(id);
        }
        self.queue().forget_leaving(&gone).unwrap();
    }

    fn restart(&mut self, restart: Restart) {
        if restart.hints {
            self.write_hints();
        }
        let mut pending = std::mem::take(&mut self.pending).into_iter();
        for (prepared, next) in pending.by_ref().take(restart.committed) {
            self.append(prepared.records());
            for next in next {
                self.book.commit(next);
            }
        }
        drop(pending);
        self.queue = None;
        if restart.rebuild {
            std::fs::remove_dir_all(self.folder.path().join("index")).unwrap();
            self.checkpoint = 0;
        }
        self.start(restart.twice);
    }

    fn start(&mut self, twice: bool) {
        let now = self.book.now;
        let (queue, report) = Queue::open(self.folder.path(), self.options(), now).unwrap();
        assert_eq!(report.rebuilt, None);
        assert_eq!(report.needs_replay_from.0, self.checkpoint);
        self.queue = Some(queue);
        self.replay(report.needs_replay_from);
        if twice {
            self.replay(Lsn(0));
        }
        self.book.restart();
        let living = self.queue().finish_replay(now).unwrap();
        assert_eq!(living, self.book.jobs().count());
        let epoch = self.queue().prepare_epoch().unwrap();
        self.commit_one(epoch, vec![Next::Nothing]);
        assert_eq!(self.queue().epoch(), self.book.epoch);
    }

    fn replay(&self, from: Lsn) {
        for (location, kind, payload) in self.log.iter().filter(|(l, ..)| l.lsn >= from) {
            let record = RecordRef {
                lsn: location.lsn,
                location: *location,
                kind: *kind,
                payload,
            };
            self.queue().replay(record).unwrap();
        }
    }
}
