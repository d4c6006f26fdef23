mod checks;
mod crashes;
mod deadline;
mod lists;
mod mails;
mod reclaim;
mod restarts;
mod results;
mod waiting;

use std::path::Path;

use bytes::Bytes;
use postroad_envelope::{Filter, MailState, Outcome, RecipientIndex, RouteClass, StatusReport};
use postroad_journal::{
    ContentNonce, ContentRef, RecordDraft, RecordKind, RecordRef, SegmentNumber,
};
use postroad_reply::SUCCESS_2_0_0;

use super::*;
use crate::{
    Content, Holder, Lease, Phase, StaleLease,
    record::{MailRecord, Snapshot},
    samples::{at, envelope, id, key, mailbox, route},
};

mod usage;

/// A queue with a journal in memory: records with the places they would have.
struct House {
    options: Options,
    queue: Queue,
    log: Vec<(Location, RecordKind, Bytes)>,
    segment: u32,
    next: u64,
}

const LOCAL: RouteClass = RouteClass::Local;
const RELAY: RouteClass = RouteClass::Relay;

impl House {
    fn open(folder: &Path, now: Timestamp) -> Self {
        Self::open_with(folder, Options::default(), now)
    }

    fn open_with(folder: &Path, options: Options, now: Timestamp) -> Self {
        let (queue, report) = Queue::open(folder, options.clone(), now).unwrap();
        assert_eq!((report.needs_replay_from, report.rebuilt), (Lsn(0), None));
        let mut house = Self {
            options,
            queue,
            log: Vec::new(),
            segment: 1,
            next: 1,
        };
        house.start(now);
        house
    }

    fn start(&mut self, now: Timestamp) {
        self.queue.finish_replay(now).unwrap();
        let epoch = self.queue.prepare_epoch().unwrap();
        self.commit(epoch);
    }

    /// Ends this queue and opens another on the same log; tells where the replay began and whether it was a rebuild.
    fn reopen(self, folder: &Path, now: Timestamp) -> (Self, Lsn, bool) {
        let Self {
            options,
            queue,
            log,
            segment,
            next,
        } = self;
        drop(queue);
        let (queue, report) = Queue::open(folder, options.clone(), now).unwrap();
        let mut house = Self {
            options,
            queue,
            log,
            segment,
            next,
        };
        let from = report.needs_replay_from;
        house.replay(from);
        house.start(now);
        (house, from, report.rebuilt.is_some())
    }

    fn replay(&self, from: Lsn) {
        for (location, kind, payload) in self.log.iter().filter(|(l, ..)| l.lsn >= from) {
            let record = RecordRef {
                lsn: location.lsn,
                location: *location,
                kind: *kind,
                payload,
            };
            self.queue.replay(record).unwrap();
        }
    }

    fn append(&mut self, records: &[RecordDraft]) -> Vec<Location> {
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

    fn commit(&mut self, prepared: Prepared) -> Applied {
        let locations = self.append(prepared.records());
        self.queue.apply(prepared, &locations).unwrap()
    }

    fn checkpoint(&mut self, now: Timestamp) {
        let prepared = self.queue.prepare_checkpoint(now);
        let lsn = Lsn(self.next);
        self.commit(prepared);
        self.queue.checkpoint(lsn, now).unwrap();
    }

    fn admit(&self, number: u8, to: &[&str]) -> Admission {
        let content = Content::Inline(Bytes::from_static(b"Subject: x\r\n\r\nhello\r\n"));
        self.queue
            .prepare_insert(envelope(number, to), content, at(0), &route)
            .unwrap()
    }

    fn insert(&mut self, number: u8, to: &[&str]) -> Applied {
        match self.admit(number, to) {
            Admission::New(prepared) => self.commit(prepared),
            other => panic!("{other:?}"),
        }
    }

    fn lease(&self, class: RouteClass, now: Timestamp) -> Vec<Leased> {
        self.queue.tick(now);
        self.queue.lease(class, &holder(), 100, now).unwrap()
    }

    fn settle(&mut self, leased: &Leased, outcome: &Outcome, now: Timestamp) -> (Settled, Applied) {
        let all = leased
            .state
            .pending()
            .map(|index| (index, outcome.clone()))
            .collect();
        let lease = &leased.lease;
        let (prepared, settled) = self
            .queue
            .prepare_settle(
                lease.job,
                lease.fence,
                all,
                crate::TakenOver::default(),
                now,
            )
            .unwrap();
        (settled, self.commit(prepared))
    }

    fn list(&self, filter: &Filter, from: Option<QueueId>, limit: usize) -> Page {
        let listing = Listing::oldest(filter, from, limit);
        self.queue.list(&listing, at(1), &|| true).unwrap()
    }

    /// All that can be seen from outside.
    fn view(&self) -> (Vec<MailSummary>, Stats, Vec<Option<Finished>>) {
        let page = self.list(&Filter::all(), None, 1000);
        let finished = (0..20)
            .map(|n| self.queue.finished(id(n)).unwrap())
            .collect();
        (page.mails, self.queue.stats(), finished)
    }
}

fn holder() -> Holder {
    Holder {
        agent: "worker".into(),
        stream: 1,
    }
}

fn delivered() -> Outcome {
    Outcome::Delivered(StatusReport::local(SUCCESS_2_0_0, "filed"))
}

fn delayed() -> Outcome {
    Outcome::Delayed(StatusReport::local(
        "4.4.1".parse().unwrap(),
        "connection refused",
    ))
}

fn failed() -> Outcome {
    Outcome::Failed(StatusReport::local(
        "5.1.1".parse().unwrap(),
        "no such user",
    ))
}

/// A little of everything, with a checkpoint in the middle.
fn lived_in(folder: &Path) -> House {
    let mut house = House::open(folder, at(0));
    for number in 1..=8 {
        house.insert(
            number,
            &["bob@demo.test", "carol@a.example", "dave@b.example"],
        );
    }
    for (n, leased) in house.lease(LOCAL, at(10)).iter().enumerate() {
        house.settle(leased, [&delivered(), &delayed(), &failed()][n % 3], at(11));
    }
    house.checkpoint(at(12));
    for (n, leased) in house.lease(RELAY, at(13)).iter().enumerate().take(12) {
        house.settle(
            leased,
            [&delivered(), &delivered(), &delivered(), &delayed()][n % 4],
            at(14),
        );
    }
    let held = house
        .queue
        .prepare(key(8, 0), Instruction::Hold("why".to_owned()), at(15));
    let held = held.unwrap();
    house.commit(held);
    house
}
