//! What the child does until it is killed: a load that takes mail through every state there is.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    env,
    io::{Read, Write},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    thread,
    time::{Duration, SystemTime},
};

use postroad_envelope::{Fence, JobKey, LeaseRef, QueueId, RecipientIndex, Timestamp};
use postroad_metrics::Metrics;
use postroad_queue_client::{QueueAdmin, SettleResult};
use postroad_queued::LocalQueue;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::sync::{RwLock, watch};

use super::{
    check, kill_config,
    load::{self, CLASSES},
    offline, operator, retired,
    told::{Rule, Told, hush, say},
};
use crate::setup::{Worker, delivered, failed};

/// What all tasks of a life know.
pub struct Life {
    pub queue: LocalQueue,
    seen: Mutex<Seen>,
    pub open: AtomicI64,
    /// The index is level with the journal.
    pub is_level: AtomicBool,
    /// What lay there was compared with what was told.
    pub looked_at: watch::Sender<bool>,
    /// When this life began.
    pub born: Timestamp,
    /// Of which failures no report was seen before.
    pub owed: HashMap<QueueId, u32>,
    /// Whether the rule is in force for certain. Nobody changes it while a mail is offered that it is for.
    pub rule: RwLock<bool>,
}

#[derive(Default)]
pub struct Seen {
    /// The newest lease of each job.
    newest: HashMap<JobKey, Fence>,
    /// Mails that nobody may be given.
    pub held: HashSet<QueueId>,
    /// Mails of which nobody may be given what the rule holds.
    pub ruled: HashSet<QueueId>,
    /// Mails for the operator.
    pub known: VecDeque<QueueId>,
    /// Accepted before the index was level, each with all its recipients.
    pub early: Vec<(QueueId, u32)>,
}

pub fn live(folder: &Path, seed: u64) {
    die_with_the_parent();
    // The test harness has left a line open.
    say(format_args!(""));
    let told = Told::read(folder);
    let index = check::queue_folder(folder).join("index");
    match env::var("POSTROAD_KILL_KIND").as_deref() {
        Ok("compare") => {
            if let Err(why) = offline::compare(folder, &told) {
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

pub fn die_with_the_parent() {
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
    let born = Timestamp::from(SystemTime::now());
    let (queue, running) =
        postroad_queued::start(kill_config(), &common, directory, &Metrics::new("queued"))
            .await
            .unwrap_or_else(|error| complain(&format!("the queue does not open: {error:?}")));
    say(format_args!("open"));
    let stop = tokio_util::sync::CancellationToken::new();
    let running = tokio::spawn(running.run(stop, Duration::ZERO));
    let is = |what: fn(&super::told::Mail) -> bool| {
        let mails = told.mails.iter().filter(move |(_, mail)| what(mail));
        mails.map(|(id, _)| *id).collect::<HashSet<_>>()
    };
    let seen = Seen {
        held: is(|mail| mail.held),
        ruled: is(|mail| mail.ruled),
        ..Seen::default()
    };
    let owed = told.mails.iter().map(|(id, mail)| {
        let reported = mail.reports.values().fold(0, |all, set| all | set);
        (*id, mail.failed & !reported)
    });
    let life = Arc::new(Life {
        born,
        owed: owed.collect(),
        queue,
        seen: Mutex::new(seen),
        open: AtomicI64::new(0),
        is_level: AtomicBool::new(false),
        looked_at: watch::Sender::new(false),
        rule: RwLock::new(told.rule == Rule::In),
    });
    let mut random = StdRng::seed_from_u64(seed);
    for _ in 0..3 {
        let random = StdRng::seed_from_u64(random.random());
        tokio::spawn(load::submit_for_ever(Arc::clone(&life), random));
    }
    load::send_again(&life, &told, false, &mut random).await;
    life.queue.caught_up().await;
    say(format_args!("level"));
    life.is_level.store(true, Ordering::Relaxed);
    look_around(&life, &told, born).await;
    come_back(&life, &told, &mut random).await;
    life.looked_at.send_replace(true);
    load::send_again(&life, &told, true, &mut random).await;
    say(format_args!("counted"));
    say(format_args!("ready"));
    for _ in 0..5 {
        let random = StdRng::seed_from_u64(random.random());
        tokio::spawn(load::settle_for_ever(Arc::clone(&life), random));
    }
    tokio::spawn(operator::operate(Arc::clone(&life), random));
    complain(&format!("the queue ended: {:?}", running.await));
}

/// Compares all that is there with what was told.
async fn look_around(life: &Life, told: &Told, born: Timestamp) {
    let present = match check::present(&life.queue, told, born).await {
        Ok(present) => present,
        Err(why) => complain(&why),
    };
    if let Err(why) = retired::look(&life.queue, told).await {
        complain(&why);
    }
    operator::look_at_rule(life, told.rule).await;
    let open: u32 = present.values().map(|open| open.count_ones()).sum();
    life.open.fetch_add(open.into(), Ordering::Relaxed);
    // Reports are left alone: each must arrive.
    let mails = present.keys().filter(|id| told.mails.contains_key(*id));
    let known = mails.rev().take(200).copied();
    life.seen().known.extend(known);
    if !told.leases.is_empty() {
        say(format_args!("met killed-leased"));
    }
}

/// A worker of the life before comes back with what it held.
async fn come_back(life: &Life, told: &Told, random: &mut StdRng) {
    let epoch = told.epoch;
    // What was being settled is asked for first: whether it is durable can be told by that.
    let (mut held, others): (Vec<LeaseRef>, Vec<_>) = told
        .leases
        .values()
        .partition(|lease| told.settling.contains(&lease.job));
    held.extend(others.into_iter().filter(|_| random.random_bool(0.7)));
    held.truncate(20);
    let mut worker = Worker::reconnect(&life.queue, CLASSES, &held).await;
    if worker.epoch <= epoch {
        complain(&format!("epoch {} after {epoch}", worker.epoch));
    }
    say(format_args!("epoch {}", worker.epoch));
    for (old, new) in worker.resumed.clone() {
        let Some(new) = new else {
            if told.settling.contains(&old.job) {
                say(format_args!("met killed-settled"));
            }
            refused(&mut worker, old).await;
            continue;
        };
        if told.settling.contains(&old.job) {
            say(format_args!("met killed-settling"));
        }
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
            if told.mails.contains_key(&new.job.queue_id) {
                say(format_args!("trying {} {open}", new.job.queue_id));
            }
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
pub async fn refused(worker: &mut Worker, lease: LeaseRef) {
    let all = (0..32).map(|index| (RecipientIndex(index), failed()));
    if worker.settle_each(lease, all.collect()).await != SettleResult::Stale {
        complain(&format!("{lease:?} is over and has settled something"));
    }
    say(format_args!("met late"));
}

impl Life {
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A worker was given a lease.
    pub fn received(&self, lease: LeaseRef) {
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

    pub fn is_newest(&self, lease: LeaseRef) -> bool {
        self.seen().newest.get(&lease.job) == Some(&lease.fence)
    }

    pub fn let_go(&self, lease: LeaseRef) {
        let JobKey { queue_id, number } = lease.job;
        say(format_args!("let-go {queue_id} {number}"));
    }

    pub fn submitted(&self, id: QueueId, set: u32) {
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
