//! What a job costs in the schedule alone: memory, and processor time for each step of its life. Without disk, other threads
//! and other processes.

use std::{ops::Range, sync::Arc, time::Duration};

use anyhow::{Result, ensure};
use clap::Args;
use postroad_envelope::{MailState, QueueId, RouteClass, Timestamp};
use postroad_queue::{
    Fairness, Holder, JobFacts, JobKey, Lease, LeaseTimes, Revision, Scan, Schedule, SenderPrint,
    Term, Wait,
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Map, Value, json};

use crate::{
    figures::table,
    machine::{own_peak, own_resident, own_time},
};

/// Jobs looked at under one lock, as lists do it.
const STRETCH: u64 = 10_000;
/// Leases asked for at a time.
const CREDITS: usize = 100;
/// One look is over before it can be measured.
const LOOKS: u64 = 10;
/// One in so many jobs is leased and settled.
const LEASED: u64 = 10;
const HOUR: u64 = 3_600_000;
const START: u64 = 1_800_000_000_000;

#[derive(Args, Clone)]
pub struct Options {
    /// Jobs, each of a mail of its own.
    #[arg(long, default_value_t = 1_000_000)]
    jobs: u64,
    /// Recipient domains, which have as many each.
    #[arg(long, default_value_t = 10_000)]
    destinations: u64,
    /// What the times are made from that jobs are due at.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print the figures as JSON too.
    #[arg(long)]
    pub json: bool,
}

/// The schedule, and what was measured of it.
struct Bench<'a> {
    options: &'a Options,
    random: StdRng,
    destinations: Vec<Arc<str>>,
    sender: SenderPrint,
    schedule: Schedule,
    /// Octets this process had before.
    empty: f64,
    lines: Vec<Vec<String>>,
    result: Map<String, Value>,
}

pub fn run(options: &Options) -> Result<Value> {
    ensure!(
        options.jobs > 0 && options.destinations > 0,
        "nothing to measure"
    );
    let fairness = Fairness {
        max_leases: 0,
        ..Fairness::default()
    };
    let domain = |number| format!("d{number}.test").into();
    let mut bench = Bench {
        options,
        random: StdRng::seed_from_u64(options.seed),
        destinations: (0..options.destinations).map(domain).collect(),
        sender: SenderPrint::of("alice@a.test"),
        schedule: Schedule::new(LeaseTimes::default(), fairness),
        empty: own_resident()?,
        lines: vec![
            ["step", "jobs/CPU s", "octets a job"]
                .map(str::to_owned)
                .into(),
        ],
        result: Map::new(),
    };
    bench.schedule.begin_epoch(1);
    bench.load()?;
    bench.look("looked at, oldest first", false)?;
    bench.look("looked at, newest first", true)?;
    bench.wake()?;
    let leases = bench.lease()?;
    bench.settle(leases)?;
    bench.remove("removed, the first half", 0..options.jobs / 2)?;
    bench.remove("removed, the rest", options.jobs / 2..options.jobs)?;
    print!("{}", table(&bench.lines));
    Ok(
        json!({ "bench": "schedule", "jobs": options.jobs, "destinations": options.destinations,
        "seed": options.seed, "steps": bench.result }),
    )
}

impl Bench<'_> {
    /// As at a start: by ascending id, due at any time of an hour.
    fn load(&mut self) -> Result<()> {
        let begin = own_time()?;
        for number in 0..self.options.jobs {
            let due = START + self.random.random_range(0..HOUR);
            self.place(number, Revision(1), due);
        }
        self.measured("placed", self.options.jobs, begin)?;
        let peak = (own_peak()? - self.empty) / self.options.jobs as f64;
        self.lines.push(vec![
            "the peak so far".to_owned(),
            "-".to_owned(),
            format!("{peak:.1}"),
        ]);
        self.result
            .insert("peak_octets_a_job".to_owned(), json!(peak));
        Ok(())
    }

    fn place(&mut self, number: u64, revision: Revision, due: u64) {
        let destination = number % self.options.destinations;
        self.schedule.place_facts(JobFacts {
            store: postroad_envelope::StoreName::default(),
            key: self.key(number),
            revision,
            class: RouteClass::Relay,
            destination: Arc::clone(&self.destinations[destination as usize]),
            sender: self.sender,
            priority: 0,
            on_delay: true,
            term: Term::GivesUp(at(START + 5 * 24 * HOUR)),
            wait: Wait::Due(at(due)),
        });
    }

    /// What a list by state does that finds nothing.
    fn look(&mut self, name: &str, newest_first: bool) -> Result<()> {
        let begin = own_time()?;
        let mut looked = 0;
        for _ in 0..LOOKS {
            looked += self.look_at_all(newest_first)?;
        }
        let all = LOOKS * self.options.jobs;
        ensure!(looked == all, "{looked} of {all} jobs were looked at");
        self.measured(name, looked, begin)
    }

    fn look_at_all(&self, newest_first: bool) -> Result<u64> {
        let mut range = (QueueId::from_bytes([0; 16]), QueueId::from_bytes([255; 16]));
        let scan = Scan {
            state: Some(MailState::Held),
            ..Scan::default()
        };
        let mut looked = 0;
        loop {
            let (schedule, now) = (&self.schedule, at(START));
            let found = schedule.scan(&scan, range, newest_first, STRETCH, now);
            ensure!(found.mails.is_empty(), "nobody holds anything");
            looked += found.looked;
            match found.next {
                Some(next) if newest_first => range.1 = next,
                Some(next) => range.0 = next,
                None => return Ok(looked),
            }
        }
    }

    fn wake(&mut self) -> Result<()> {
        let begin = own_time()?;
        let end = at(START + HOUR);
        while self.schedule.next_wakeup().is_some() {
            self.schedule.tick(end);
        }
        let ready = self.schedule.ready_len(RouteClass::Relay);
        ensure!(ready as u64 == self.options.jobs, "{ready} jobs are ready");
        self.measured("made ready", self.options.jobs, begin)
    }

    fn lease(&mut self) -> Result<Vec<Lease>> {
        let begin = own_time()?;
        let holder = Holder {
            agent: "mta@test".into(),
            stream: 1,
        };
        let most = (self.options.jobs / LEASED).max(1) as usize;
        let mut leases = Vec::new();
        while leases.len() < most {
            let (relay, now) = (RouteClass::Relay, at(START + HOUR));
            leases.extend(self.schedule.lease(relay, &holder, CREDITS, now));
        }
        let count = leases.len() as u64;
        self.measured("leased", count, begin)?;
        Ok(leases)
    }

    /// None of them could be delivered: all wait again.
    fn settle(&mut self, leases: Vec<Lease>) -> Result<()> {
        let begin = own_time()?;
        let now = at(START + HOUR);
        let count = leases.len() as u64;
        for lease in leases {
            self.schedule.begin_settle(lease.job, lease.fence, now)?;
            let due = START + 2 * HOUR + self.random.random_range(0..HOUR);
            self.place(number_of(lease.job), Revision(2), due);
        }
        self.measured("settled, waiting again", count, begin)
    }

    /// As if in any order, so that what is left lies scattered.
    fn remove(&mut self, name: &str, turns: Range<u64>) -> Result<()> {
        let begin = own_time()?;
        let count = turns.end - turns.start;
        // Odd, and not a multiple of 5: so every job has its turn where their number is a power of ten.
        let step = 2_654_435_761_u64;
        for turn in turns {
            let number = u128::from(turn) * u128::from(step) % u128::from(self.options.jobs);
            let job = self.key(number as u64);
            self.schedule.remove(job);
        }
        self.measured(name, count, begin)
    }

    fn measured(&mut self, name: &str, count: u64, begin: Duration) -> Result<()> {
        let took = own_time()?.saturating_sub(begin);
        let rate = count as f64 / took.max(Duration::from_nanos(1)).as_secs_f64();
        let held = own_resident()? - self.empty;
        let octets = held / self.schedule.len().max(1) as f64;
        let cell = match self.schedule.is_empty() {
            true => format!("{:.1} MiB left", held / f64::from(1 << 20)),
            false => format!("{octets:.1}"),
        };
        self.lines
            .push(vec![name.to_owned(), format!("{rate:.0}"), cell]);
        let step = json!({ "rate": rate, "resident_octets": held, "living": self.schedule.len() });
        self.result.insert(name.to_owned(), step);
        Ok(())
    }

    /// Twenty mails come in each millisecond.
    fn key(&self, number: u64) -> JobKey {
        let mut random = [0; 10];
        random[2..].copy_from_slice(&number.to_be_bytes());
        JobKey {
            queue_id: QueueId::mint(at(START - HOUR + number / 20), random),
            number: 0,
        }
    }
}

/// The number [`Bench::key`] made it from.
fn number_of(job: JobKey) -> u64 {
    let [.., a, b, c, d, e, f, g, h] = job.queue_id.to_bytes();
    // A UUID has its variant in the first two bits there.
    u64::from_be_bytes([a & 0x3f, b, c, d, e, f, g, h])
}

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}
