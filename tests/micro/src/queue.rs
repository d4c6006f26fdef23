//! Journal, schedule and queue.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use postroad_address::{Mailbox, ReversePath};
use postroad_envelope::{
    Envelope, Outcome, QueueId, Recipient, RecipientIndex, Route, RouteClass, StatusReport,
    StoreName, Timestamp,
};
use postroad_journal::{
    self as journal, Entropy, Journal, Location, Lsn, RecordDraft, RecordKind, SegmentNumber,
};
use postroad_queue::{
    Admission, Content, Fairness, Holder, JobFacts, JobKey, LeaseTimes, Leased, MailRecord,
    Options, Prepared, Queue, Revision, Schedule, SenderPrint, TakenOver, Term, Wait,
};
use postroad_reply::SUCCESS_2_0_0;

use crate::{Step, mail};

const SIZE: usize = 5 << 10;
const GROUP: usize = 16;
/// Jobs that wait beside the one that is looked at.
const OTHERS: u64 = 10_000;
const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const DAY_MS: u64 = 86_400_000;

pub fn append() -> Result<Step> {
    let folder = tempfile::tempdir()?;
    // Not random: what is counted is to be the same each time.
    let entropy: Entropy = Arc::new(|octets: &mut [u8]| octets.fill(7));
    let (mut journal, _) = Journal::open(folder.path(), journal::Options::default(), entropy)?;
    let content = Bytes::from(mail(SIZE));
    let group: Vec<RecordDraft> = (0..GROUP)
        .map(|_| RecordDraft::new(RecordKind(1), content.clone()))
        .collect();
    Ok(Box::new(move || {
        let _ = &folder;
        ensure!(
            journal.append_group(&group)?.len() == GROUP,
            "all were appended"
        );
        Ok(())
    }))
}

pub fn record() -> Result<Step> {
    let (envelope, content) = (envelope(1)?, Content::Inline(mail(SIZE).into()));
    let record = MailRecord {
        digest: Queue::digest_of(&envelope, content.len(), content.crc32c()),
        envelope,
        content,
        jobs: Vec::new(),
    };
    Ok(Box::new(move || {
        let draft = record.draft();
        let payload: Bytes = draft.parts.concat().into();
        ensure!(MailRecord::decode(payload)? == record, "as it was");
        Ok(())
    }))
}

pub fn schedule() -> Result<Step> {
    let mut schedule = Schedule::new(LeaseTimes::default(), Fairness::default());
    schedule.begin_epoch(1);
    for other in 1..=OTHERS {
        let waits = NOW.plus(std::time::Duration::from_secs(60 + other));
        schedule.place_facts(facts(other, waits)?);
    }
    let (mut number, holder) = (OTHERS, holder());
    Ok(Box::new(move || {
        number += 1;
        schedule.place_facts(facts(number, NOW)?);
        schedule.tick(NOW);
        let leases = schedule.lease(RouteClass::Relay, &holder, 1, NOW);
        let lease = leases.first().context("one is due")?;
        schedule.remove(lease.job);
        schedule.take_ended();
        Ok(())
    }))
}

fn facts(number: u64, due: Timestamp) -> Result<JobFacts> {
    Ok(JobFacts {
        store: StoreName::default(),
        key: JobKey {
            queue_id: id(number),
            number: 0,
        },
        revision: Revision(1),
        class: RouteClass::Relay,
        destination: format!("d{number}.example").into(),
        sender: SenderPrint::UNKNOWN,
        priority: 0,
        on_delay: true,
        term: Term::GivesUp(Timestamp::from_millis(NOW.as_millis() + 5 * DAY_MS)),
        wait: Wait::Due(due),
    })
}

pub fn through() -> Result<Step> {
    let folder = tempfile::tempdir()?;
    let (queue, _) = Queue::open(folder.path(), Options::default(), NOW)?;
    queue.finish_replay(NOW)?;
    let mut house = House { queue, next: 1 };
    let epoch = house.queue.prepare_epoch()?;
    house.commit(epoch)?;
    let (mut number, holder) = (0, holder());
    let content = Bytes::from(mail(SIZE));
    Ok(Box::new(move || {
        let _ = &folder;
        number += 1;
        let inline = Content::Inline(content.clone());
        let admitted = house
            .queue
            .prepare_insert(envelope(number)?, inline, NOW, &route)?;
        let Admission::New(prepared) = admitted else {
            bail!("it is new");
        };
        house.commit(prepared)?;
        house.queue.tick(NOW);
        let leases = house.queue.lease(RouteClass::Relay, &holder, 1, NOW)?;
        house.settle(leases.first().context("one is due")?)?;
        house.queue.take_ended();
        Ok(())
    }))
}

/// A queue whose records are told where they would lie.
struct House {
    queue: Queue,
    next: u32,
}

impl House {
    fn settle(&mut self, leased: &Leased) -> Result<()> {
        let done = Outcome::Relayed(StatusReport::local(SUCCESS_2_0_0, "taken"));
        let outcomes = leased
            .state
            .pending()
            .map(|index| (index, done.clone()))
            .collect();
        let (job, fence) = (leased.lease.job, leased.lease.fence);
        let settled = self
            .queue
            .prepare_settle(job, fence, outcomes, TakenOver::default(), NOW)?;
        self.commit(settled.0)
    }

    fn commit(&mut self, prepared: Prepared) -> Result<()> {
        let places = prepared.records().iter().map(|draft| {
            self.next += 1;
            Ok(Location {
                segment: SegmentNumber(1),
                offset: self.next,
                len: u32::try_from(draft.payload_len())?,
                lsn: Lsn(u64::from(self.next)),
            })
        });
        let places: Vec<Location> = places.collect::<Result<_>>()?;
        self.queue.apply(prepared, &places)?;
        Ok(())
    }
}

fn holder() -> Holder {
    Holder {
        agent: "mta@test".into(),
        stream: 1,
    }
}

fn route(_: &Envelope, recipient: &Recipient) -> Route {
    let domain = recipient.address.domain().a_label().to_owned();
    Route::new(RouteClass::Relay, domain, "mx".to_owned())
}

fn envelope(number: u64) -> Result<Envelope> {
    let sender = ReversePath::parse("alice@client.example")?;
    let mut envelope = Envelope::new(id(number), sender, NOW);
    let to = Mailbox::parse(&format!("bob@d{number}.example"))?;
    envelope.recipients = vec![Recipient::new(RecipientIndex(0), to)];
    envelope.size = u64::try_from(SIZE)?;
    Ok(envelope)
}

fn id(number: u64) -> QueueId {
    let [a, b, c, d, e, f, g, h] = number.to_be_bytes();
    QueueId::mint(NOW, [0, 0, a, b, c, d, e, f, g, h])
}
