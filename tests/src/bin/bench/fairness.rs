//! What one slow destination that owns half of all mails costs the others.
//!
//! Simulated: the queue's own schedule with simulated arrivals and workers. Time is a number, so a run needs no quiet
//! machine and gives the same figures every time. With `--process` (`process.rs`): a queue process and real time.

mod process;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use postroad_envelope::{QueueId, RouteClass, Timestamp};
use postroad_queue::{
    Fairness, Holder, JobFacts, JobKey, LeaseTimes, Revision, Schedule, SenderPrint, Term, Wait,
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};

use crate::figures::table;

#[derive(Args, Clone)]
pub struct Options {
    /// Recipient domains; one of them is slow.
    #[arg(long, default_value_t = 10_000)]
    destinations: usize,
    /// Leases that all workers take at a time.
    #[arg(long, default_value_t = 100)]
    credits: usize,
    /// Mails a second for all the others together; as many come for the slow one.
    #[arg(long, default_value_t = 250)]
    rate: u32,
    /// How long an attempt takes on average, in milliseconds.
    #[arg(long, default_value_t = 200)]
    attempt: u64,
    /// The same for the slow destination.
    #[arg(long, default_value_t = 30_000)]
    slow_attempt: u64,
    /// Leases that one destination may have.
    #[arg(long, default_value_t = Fairness::default().max_leases)]
    max_leases: u32,
    /// Seconds for which mail comes: 600 of simulated time unless given, or 40 of real time.
    #[arg(long)]
    seconds: Option<u64>,
    /// A queue process behind its socket, in real time.
    #[arg(long)]
    process: bool,
    /// With `--process`: rounds without the slow destination and with it, in turn.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// What arrivals and attempts are made from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print the figures as JSON too.
    #[arg(long)]
    pub json: bool,
}

impl Options {
    fn seconds(&self) -> u64 {
        self.seconds.unwrap_or(if self.process { 40 } else { 600 })
    }
}

/// What the mails for other destinations met with.
struct Measured {
    name: &'static str,
    mails: usize,
    /// From due to leased, in milliseconds.
    wait_median: f64,
    wait_p99: f64,
    /// From due to settled.
    through_p99: f64,
    /// Left when time was over, of the slow destination and of the others.
    left: [usize; 2],
}

pub async fn run(options: &Options) -> Result<Value> {
    ensure!(options.destinations > 1, "there must be others");
    println!(
        "fairness: {} destinations, one of which owns half of all mails; {} credits, {} mails/s for the others, \
         attempts of {} ms and {} ms (exponential), {} s{}, seed {}\n",
        options.destinations,
        options.credits,
        options.rate,
        options.attempt,
        options.slow_attempt,
        options.seconds(),
        if options.process {
            " with a queue process"
        } else {
            ""
        },
        options.seed
    );
    if options.process {
        return process::run(options).await;
    }
    let limited = Some(options.max_leases);
    let measured = [
        simulate(options, "without the slow one's mails", None)?,
        simulate(options, "with them, and the limit", limited)?,
        simulate(options, "with them, no limit", Some(0))?,
    ];
    Ok(report(options, &measured))
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrival { slow: bool },
    Settled(JobKey),
}

/// Microseconds.
type Time = u64;

struct Simulation<'a> {
    options: &'a Options,
    random: StdRng,
    schedule: Schedule,
    events: BinaryHeap<Reverse<(Time, u64, Event)>>,
    destinations: Vec<Arc<str>>,
    /// Since when each is due, and whether it is the slow one's.
    due: HashMap<JobKey, (Time, bool)>,
    free: usize,
    number: u64,
    waits: Vec<Time>,
    through: Vec<Time>,
}

fn simulate(options: &Options, name: &'static str, slow: Option<u32>) -> Result<Measured> {
    let fairness = Fairness {
        max_leases: slow.unwrap_or(options.max_leases),
        ..Fairness::default()
    };
    let times = LeaseTimes {
        duration: Duration::from_secs(24 * 3600),
        ..LeaseTimes::default()
    };
    let mut schedule = Schedule::new(times, fairness);
    schedule.begin_epoch(1);
    let domain = |number| format!("d{number}.test").into();
    let mut simulation = Simulation {
        options,
        random: StdRng::seed_from_u64(options.seed),
        schedule,
        events: BinaryHeap::new(),
        destinations: (0..options.destinations).map(domain).collect(),
        due: HashMap::new(),
        free: options.credits,
        number: 0,
        waits: Vec::new(),
        through: Vec::new(),
    };
    simulation.arrive_next(0, false);
    if slow.is_some() {
        simulation.arrive_next(0, true);
    }
    simulation.run(options.seconds() * 1_000_000);
    simulation.measured(name)
}

impl Simulation<'_> {
    fn run(&mut self, end: Time) {
        while let Some(Reverse((now, _, event))) = self.events.pop() {
            if now > end {
                return;
            }
            match event {
                Event::Arrival { slow } => {
                    self.arrive(now, slow);
                    self.arrive_next(now, slow);
                }
                Event::Settled(job) => {
                    self.schedule.remove(job);
                    self.free += 1;
                    if let Some((due, false)) = self.due.remove(&job) {
                        self.through.push(now - due);
                    }
                }
            }
            self.lease(now);
        }
    }

    fn arrive(&mut self, now: Time, slow: bool) {
        self.number += 1;
        let mut random = [0; 10];
        random[2..].copy_from_slice(&self.number.to_be_bytes());
        let key = JobKey {
            queue_id: QueueId::mint(at(now), random),
            number: 0,
        };
        let destination = match slow {
            true => 0,
            false => self.random.random_range(1..self.destinations.len()),
        };
        self.schedule.place_facts(JobFacts {
            store: postroad_envelope::StoreName::default(),
            key,
            revision: Revision(1),
            class: RouteClass::Relay,
            destination: self.destinations[destination].clone(),
            sender: SenderPrint::UNKNOWN,
            priority: 0,
            on_delay: true,
            term: Term::GivesUp(at(now).plus(Duration::from_secs(5 * 86_400))),
            wait: Wait::Due(at(now)),
        });
        self.due.insert(key, (now, slow));
    }

    fn arrive_next(&mut self, now: Time, slow: bool) {
        let mean = 1_000_000 / u64::from(self.options.rate.max(1));
        let next = now + self.exponential(mean);
        self.happens(next, Event::Arrival { slow });
    }

    fn lease(&mut self, now: Time) {
        self.schedule.tick(at(now));
        let holder = Holder {
            agent: "mta@test".into(),
            stream: 1,
        };
        let leases = self
            .schedule
            .lease(RouteClass::Relay, &holder, self.free, at(now));
        self.free -= leases.len();
        for lease in leases {
            let (due, slow) = self.due.get(&lease.job).copied().unwrap_or_default();
            if !slow {
                self.waits.push(now - due);
            }
            let mean = match slow {
                true => self.options.slow_attempt,
                false => self.options.attempt,
            };
            let took = self.exponential(mean * 1000);
            self.happens(now + took, Event::Settled(lease.job));
        }
    }

    fn happens(&mut self, at: Time, event: Event) {
        self.number += 1;
        self.events.push(Reverse((at, self.number, event)));
    }

    fn exponential(&mut self, mean: Time) -> Time {
        exponential(&mut self.random, mean)
    }

    fn measured(mut self, name: &'static str) -> Result<Measured> {
        self.waits.sort_unstable();
        self.through.sort_unstable();
        let part = |times: &[Time], part: usize| {
            let time = times.get(times.len() * part / 100);
            time.map(|time| *time as f64 / 1000.0)
                .context("nothing was settled")
        };
        let slow = self.due.values().filter(|(_, slow)| *slow).count();
        Ok(Measured {
            name,
            mails: self.through.len(),
            wait_median: part(&self.waits, 50)?,
            wait_p99: part(&self.waits, 99)?,
            through_p99: part(&self.through, 99)?,
            left: [slow, self.due.len() - slow],
        })
    }
}

fn exponential(random: &mut StdRng, mean: Time) -> Time {
    let uniform: f64 = random.random_range(f64::EPSILON..1.0);
    (-uniform.ln() * mean as f64) as Time
}

fn at(time: Time) -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000 + time / 1000)
}

fn report(options: &Options, measured: &[Measured]) -> Value {
    let head = [
        "mails of the others",
        "settled",
        "wait ms",
        "wait p99 ms",
        "through p99 ms",
        "growth of p99 %",
        "left (slow, others)",
    ];
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    let mut results = Vec::new();
    let before = measured.first().map_or(0.0, |first| first.through_p99);
    for row in measured {
        let growth = (row.through_p99 / before - 1.0) * 100.0;
        lines.push(vec![
            row.name.to_owned(),
            row.mails.to_string(),
            format!("{:.1}", row.wait_median),
            format!("{:.1}", row.wait_p99),
            format!("{:.0}", row.through_p99),
            format!("{growth:.1}"),
            format!("{}, {}", row.left[0], row.left[1]),
        ]);
        results.push(json!({ "name": row.name, "settled": row.mails, "wait_median_ms": row.wait_median,
            "wait_p99_ms": row.wait_p99, "through_p99_ms": row.through_p99, "growth_percent": growth,
            "left_slow": row.left[0], "left_others": row.left[1] }));
    }
    print!("{}", table(&lines));
    json!({ "bench": "fairness", "seed": options.seed, "destinations": options.destinations,
        "credits": options.credits, "rate": options.rate, "rows": results })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_destination_with_half_of_all_mails_does_not_hold_up_the_others() {
        let options = Options {
            destinations: 10_000,
            credits: 100,
            rate: 250,
            attempt: 200,
            slow_attempt: 30_000,
            max_leases: Fairness::default().max_leases,
            seconds: Some(60),
            process: false,
            rounds: 1,
            seed: 1,
            json: false,
        };
        let alone = simulate(&options, "", None).unwrap();
        let limited = simulate(&options, "", Some(options.max_leases)).unwrap();
        let growth = limited.through_p99 / alone.through_p99;
        assert!(growth <= 1.1, "{growth}");
        // Without the limit the slow one gets hold of every lease there is.
        let unlimited = simulate(&options, "", Some(0)).unwrap();
        assert!(
            unlimited.through_p99 > 2.0 * alone.through_p99,
            "it can fail"
        );
    }
}
