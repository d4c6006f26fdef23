//! What the child does until it is killed: a load that takes mail through every state there is.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    env,
    io::{Read, Write},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    thread,
    time::Duration,
};

use postroad_address::ReversePath;
use postroad_envelope::{
    Envelope, Fence, JobKey, LeaseRef, Outcome, QueueId, RecipientIndex, RouteClass, Timestamp,
};
use postroad_queue_client::{HandBack, QueueAdmin, SettleResult, WorkUp};
use postroad_queued::LocalQueue;
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{
    check, kill_config, operator,
    told::{Told, content_of, hush, say},
};
use crate::setup::{Worker, delayed, delivered, failed, mail, submit};

/// The index of a recipient is its place here.
pub const ADDRESSES: [&str; 7] = [
    "bob@local.test",
    "x@far.test",
    "y@far.test",
    "z@other.test",
    "alice@local.test",
    "h@kept.test",
    "d@gone.test",
];
pub const HELD_BY_RULE: u32 = 1 << 5;
const DISCARDED: u32 = 1 << 6;
pub const CLASSES: &[RouteClass] = &[RouteClass::Local, RouteClass::Relay, RouteClass::Lmtp];
/// Recipients that are open at once, more or less.
const OPEN: i64 = 200;

/// What all tasks of a life know.
pub struct Life {
    pub queue: LocalQueue,
    seen: Mutex<Seen>,
    open: AtomicI64,
}

#[derive(Default)]
pub struct Seen {
    /// The newest lease of each job.
    newest: HashMap<JobKey, Fence>,
    /// Mails that nobody may be given.
    pub held: HashSet<QueueId>,
    /// Mails for the operator.
    pub known: VecDeque<QueueId>,
}

impl Life {
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub fn live(folder: &Path, seed: u64) {
    die_with_the_parent();
    // The test harness has left a line open.
    say(format_args!(""));
    let told = Told::read(folder);
    let index = check::queue_folder(folder).join("index");
    match env::var("POSTROAD_KILL_KIND").as_deref() {
        Ok("compare") => {
            if let Err(why) = check::compare(folder, &told) {
                complain(&why);
            }
        }
        Ok("rebuild") if index.exists() => {
            std::fs::remove_dir_all(index).unwrap();
            say(format_args!("met rebuilt"));
        }
        _ => {}
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(work(folder.to_owned(), told, seed));
}

fn die_with_the_parent() {
    thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
}

/// Something is wrong: ends the process, which the parent does not expect.
pub fn complain(why: &str) -> ! {
    hush();
    let _ = writeln!(std::io::stderr(), "{why}");
    std::process::exit(3);
}

async fn work(folder: PathBuf, told: Told, seed: u64) {
    let common = crate::setup::common(&folder);
    let directory = postroad_directory::DirectoryHandle::open(&common.directory).unwrap();
    let (queue, running) = postroad_queued::start(kill_config(), &common, directory)
        .await
        .unwrap_or_else(|error| complain(&format!("the queue does not open: {error:?}")));
    let stop = tokio_util::sync::CancellationToken::new();
    let running = tokio::spawn(running.run(stop, Duration::ZERO));
    let present = match check::present(&queue, &told).await {
        Ok(present) => present,
        Err(why) => complain(&why),
    };
    let held = told.mails.iter().filter(|(_, mail)| mail.held);
    // Reports are left alone: each must arrive.
    let mails = present.keys().filter(|id| told.mails.contains_key(*id));
    let seen = Seen {
        held: held.map(|(id, _)| *id).collect(),
        known: mails.rev().take(200).copied().collect(),
        ..Seen::default()
    };
    let open: u32 = present.values().map(|open| open.count_ones()).sum();
    let life = Arc::new(Life {
        queue,
        seen: Mutex::new(seen),
        open: AtomicI64::new(open.into()),
    });
    let old: Vec<LeaseRef> = told.leases.into_values().take(20).collect();
    let mut random = StdRng::seed_from_u64(seed);
    come_back(&life, old, told.epoch, &mut random).await;
    say(format_args!("ready"));
    for _ in 0..3 {
        let random = StdRng::seed_from_u64(random.random());
        tokio::spawn(submit_for_ever(Arc::clone(&life), random));
    }
    for _ in 0..5 {
        let random = StdRng::seed_from_u64(random.random());
        tokio::spawn(settle_for_ever(Arc::clone(&life), random));
    }
    tokio::spawn(operator::operate(Arc::clone(&life), random));
    complain(&format!("the queue ended: {:?}", running.await));
}

/// A worker of the life before comes back with what it held.
async fn come_back(life: &Arc<Life>, old: Vec<LeaseRef>, epoch: u64, random: &mut StdRng) {
    let held: Vec<_> = old
        .into_iter()
        .filter(|_| random.random_bool(0.7))
        .collect();
    let mut worker = Worker::reconnect(&life.queue, CLASSES, &held).await;
    if worker.epoch <= epoch {
        complain(&format!("epoch {} after {epoch}", worker.epoch));
    }
    say(format_args!("epoch {}", worker.epoch));
    for (old, new) in worker.resumed.clone() {
        let Some(new) = new else {
            refused(&mut worker, old).await;
            continue;
        };
        if new.fence.epoch <= epoch.max(old.fence.epoch) {
            complain(&format!(
                "{} was resumed under an old fence: {new:?}",
                old.job
            ));
        }
        life.received(new);
        say(format_args!("met resumed"));
        if let Ok(details) = life.queue.show(new.job.queue_id).await {
            // Whoever comes back knows its result; which recipients it was for is not told here.
            let open = check::open_recipients(&details);
            say(format_args!("trying {} {open}", new.job.queue_id));
            let all = (0..32).filter(|index| open & 1 << index != 0);
            let outcomes = all.map(|index| (RecipientIndex(index), delivered()));
            let result = worker.settle_each(new, outcomes.collect()).await;
            if result == SettleResult::Durable {
                life.let_go(new);
            }
        }
    }
    if let Some(lease) = held.first() {
        // A second time it is nobody's.
        refused(&mut worker, *lease).await;
    }
}

/// A lease that is over settles nothing.
async fn refused(worker: &mut Worker, lease: LeaseRef) {
    let all = (0..32).map(|index| (RecipientIndex(index), failed()));
    if worker.settle_each(lease, all.collect()).await != SettleResult::Stale {
        complain(&format!("{lease:?} is over and has settled something"));
    }
    say(format_args!("met late"));
}

async fn submit_for_ever(life: Arc<Life>, mut random: StdRng) {
    loop {
        let set: u32 = match random.random_range(0..4) {
            0 => random.random_range(1..1 << ADDRESSES.len()),
            _ => 1 << random.random_range(0..5),
        };
        let slots: Vec<u32> = (0..32).filter(|slot| set & 1 << slot != 0).collect();
        let to: Vec<&str> = slots.iter().map(|slot| ADDRESSES[*slot as usize]).collect();
        let mut envelope = mail("", &to);
        for (recipient, slot) in envelope.recipients.iter_mut().zip(&slots) {
            recipient.index = RecipientIndex(*slot);
        }
        let id = envelope.queue_id;
        if random.random_bool(0.5) {
            let sender = format!("{id}@away.test");
            envelope.reverse_path = ReversePath::parse(&sender).unwrap();
        }
        say(format_args!("offered {id} {set}"));
        let mut trying = set & DISCARDED;
        if random.random_range(0..20) == 0 {
            let soon = Timestamp::from(std::time::SystemTime::now());
            envelope.expires_at = Some(soon.plus(Duration::from_millis(100)));
            trying = set;
        }
        if trying != 0 {
            say(format_args!("trying {id} {trying}"));
        }
        let content = content_of(id);
        let accepted = match submit(&life.queue, &envelope, &content).await {
            Ok(accepted) => accepted,
            Err(error) => complain(&format!("{id} was refused: {error:?}")),
        };
        if accepted.duplicate {
            complain(&format!("{id} is known already"));
        }
        say(format_args!("acknowledged {id} {set}"));
        if set & DISCARDED != 0 {
            say(format_args!("ended {id} {DISCARDED}"));
        }
        if content.len() > 256 << 10 {
            say(format_args!("met large"));
        }
        life.submitted(id, set);
        if random.random_range(0..10) == 0 {
            // Nobody heard the answer.
            match submit(&life.queue, &envelope, &content).await {
                Ok(again) if again.duplicate => {}
                other => complain(&format!("{id} again: {other:?}")),
            }
        }
        let pause = Duration::from_millis(random.random_range(0..8));
        tokio::time::sleep(pause).await;
        while life.open.load(Ordering::Relaxed) > OPEN {
            tokio::time::sleep(pause).await;
        }
    }
}

async fn settle_for_ever(life: Arc<Life>, mut random: StdRng) {
    let mut worker = Worker::connect(&life.queue, CLASSES).await;
    loop {
        let lease = worker.lease().await;
        life.received(lease.lease);
        if let Some((about, set)) = check::report_in(&life.queue, &lease).await {
            let id = lease.lease.job.queue_id;
            say(format_args!("report {about} {set} {id}"));
        }
        match random.random_range(0..40) {
            0..3 => {
                life.let_go(lease.lease);
                let back = HandBack {
                    lease: lease.lease,
                    delay: Duration::from_millis(20),
                    reason: "limited".to_owned(),
                };
                worker.say(WorkUp::HandBack(back)).await;
                say(format_args!("met handed-back"));
                continue;
            }
            // It loses its stream, and comes back with what it held, perhaps too late.
            3 | 4 => {
                drop(worker);
                say(format_args!("met stream-lost"));
                let pause = random.random_range(0..350);
                tokio::time::sleep(Duration::from_millis(pause)).await;
                worker = Worker::reconnect(&life.queue, CLASSES, &[lease.lease]).await;
                match worker.resumed.first() {
                    Some((_, Some(new))) => {
                        let new = *new;
                        life.received(new);
                        settle(&life, &mut worker, new, &lease.envelope, &mut random).await;
                        say(format_args!("met resumed"));
                    }
                    _ => refused(&mut worker, lease.lease).await,
                }
                continue;
            }
            // It sleeps beyond its deadline.
            5 => tokio::time::sleep(Duration::from_millis(450)).await,
            6 | 7 => {
                worker.say(WorkUp::Extend(vec![lease.lease])).await;
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
            _ => tokio::time::sleep(Duration::from_millis(random.random_range(0..10))).await,
        }
        let name = lease.lease;
        settle(&life, &mut worker, name, &lease.envelope, &mut random).await;
    }
}

async fn settle(
    life: &Life,
    worker: &mut Worker,
    lease: LeaseRef,
    envelope: &Envelope,
    random: &mut StdRng,
) {
    let is_report = envelope.listener == "report";
    let (mut ending, mut failing) = (0_u32, 0_u32);
    let outcomes = envelope.recipients.iter().map(|to| {
        let bit = 1 << to.index.0;
        let outcome: Outcome = match random.random_range(0..100) {
            0..15 => delayed(),
            15..30 if !is_report => failed(),
            _ => delivered(),
        };
        if outcome.is_final() {
            ending |= bit;
        }
        if matches!(outcome, Outcome::Failed(_)) {
            failing |= bit;
        }
        (to.index, outcome)
    });
    let outcomes = outcomes.collect();
    let id = lease.job.queue_id;
    if ending != 0 && !is_report {
        say(format_args!("trying {id} {ending}"));
    }
    let is_newest = life.is_newest(lease);
    let result = worker.settle_each(lease, outcomes).await;
    if result != SettleResult::Durable {
        say(format_args!("met late"));
        return;
    }
    if !is_newest {
        complain(&format!("two valid leases: {lease:?} and a newer one"));
    }
    life.let_go(lease);
    if is_report {
        return;
    }
    life.open
        .fetch_sub(i64::from(ending.count_ones()), Ordering::Relaxed);
    if ending != 0 {
        say(format_args!("ended {id} {ending}"));
    }
    if failing != 0 && !envelope.reverse_path.is_null() {
        say(format_args!("failed {id} {failing}"));
    }
}

impl Life {
    /// A worker was given a lease.
    fn received(&self, lease: LeaseRef) {
        let LeaseRef {
            job,
            revision,
            fence,
        } = lease;
        let mut seen = self.seen();
        if seen.held.contains(&job.queue_id) {
            complain(&format!("{job} is held and was given to a worker"));
        }
        let newest = seen.newest.entry(job).or_insert(fence);
        if fence < *newest {
            complain(&format!(
                "{job}: {fence:?} was given after {:?}",
                seen.newest[&job]
            ));
        }
        *newest = fence;
        drop(seen);
        let (id, number) = (job.queue_id, job.number);
        let Fence { epoch, counter } = fence;
        say(format_args!(
            "leased {id} {number} {epoch} {counter} {revision}"
        ));
    }

    fn is_newest(&self, lease: LeaseRef) -> bool {
        self.seen().newest.get(&lease.job) == Some(&lease.fence)
    }

    fn let_go(&self, lease: LeaseRef) {
        let JobKey { queue_id, number } = lease.job;
        say(format_args!("let-go {queue_id} {number}"));
    }

    fn submitted(&self, id: QueueId, set: u32) {
        self.open
            .fetch_add(i64::from(set.count_ones()), Ordering::Relaxed);
        let mut seen = self.seen();
        seen.known.push_front(id);
        seen.known.truncate(300);
    }

    pub fn ended(&self, set: u32) {
        self.open
            .fetch_sub(i64::from(set.count_ones()), Ordering::Relaxed);
    }
}
