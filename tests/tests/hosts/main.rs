//! The stack on hosts of its own: two of msa, mta and mda, one queue and then two, each in a network namespace with an address, joined by mutual TLS. Under
//! load each is stopped, killed, cut off, made to lose packets, and its line to the queue is delayed, stalled and torn; so is the line to the world. After
//! each fault all that was accepted must arrive; in the end nothing is lost and nothing was filed twice.
//!
//! ```text
//! clients ─► msa1, msa2 ─┐                      ┌─► mda1, mda2 ─► Maildirs
//!                        ├─ line ─► queue ─ line┤
//! world ──► mta1, mta2 ──┘                      └─► mta1, mta2 ─ line ─► world
//! ```
//!
//! This process is the router between the hosts, and holds clients, world and lines: it goes on in a network namespace of its own, so that nothing is left
//! behind. `POSTROAD_FAULT_SECONDS` lets each fault last longer, with the times of production, and prints the table for `deploy/guide/hosts.md`; other
//! arguments choose rows. It needs root, iproute2 and nftables: with `CI=true` their absence is a failure, elsewhere NOT RUN.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a program for a terminal")]

mod arrivals;
mod faults;
mod needs;
mod network;
mod site;
mod table;

use std::{
    env,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use postroad_tests::load::Verdict;

use self::{
    faults::{ALL, Case},
    site::{Queues, Site, Times},
};

/// Asks for longer faults, and the table.
const SECONDS: &str = "POSTROAD_FAULT_SECONDS";
/// Of a fault, where nobody asks for more: as long as it takes for everybody to be in the midst of something.
const SHORT: Duration = Duration::from_millis(1500);

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        println!("hosts: test");
        return ExitCode::SUCCESS;
    }
    let words = arguments.into_iter().filter(|word| !word.starts_with("--"));
    let words: Vec<String> = words.collect();
    let chosen: Vec<Case> = ALL
        .into_iter()
        .filter(|case| case.is_meant(&words))
        .collect();
    let alone = words.iter().any(|word| "table".contains(word.as_str()));
    if chosen.is_empty() && !alone {
        println!("test result: ok. 0 passed; 0 failed");
        return ExitCode::SUCCESS;
    }
    // Who makes a new table may do so because the old one does not fit.
    let is_fresh = env::var_os(SECONDS).is_some().then_some(Ok(()));
    if let Err(error) = is_fresh.unwrap_or_else(table::committed_has_all_rows) {
        println!("test table ... FAILED\n{error:#}\ntest result: FAILED. 0 passed; 1 failed");
        return ExitCode::FAILURE;
    }
    if let Some(missing) = needs::enter() {
        let strict = env::var("CI").is_ok_and(|value| value == "true");
        println!("NOT RUN: hosts: needs {missing}");
        let (result, failed) = if strict { ("FAILED", 1) } else { ("ok", 0) };
        println!("test result: {result}. 1 passed; {failed} failed");
        return ExitCode::from(failed);
    }
    println!("test table ... ok");
    match travel(&chosen) {
        Ok(()) => {
            println!("\ntest result: ok. {} passed; 0 failed", chosen.len() + 1);
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("\n---- hosts\n{error:#}\n\ntest result: FAILED. 1 passed; 1 failed");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn travel(cases: &[Case]) -> Result<()> {
    let asked = env::var(SECONDS).ok();
    let seconds: Option<u64> = asked.map(|asked| asked.parse()).transpose()?;
    let times = if seconds.is_some() {
        Times::Real
    } else {
        Times::Short
    };
    let lasting = seconds.map_or(SHORT, Duration::from_secs);
    network::open().await?;
    let (mut rows, mut sums) = (Vec::new(), Verdict::default());
    for queues in [Queues::One, Queues::Two] {
        let cases: Vec<Case> = cases
            .iter()
            .copied()
            .filter(|case| case.queues() == queues)
            .collect();
        if cases.is_empty() {
            continue;
        }
        let began = Instant::now();
        let mut site = Site::open(queues, times).await?;
        println!(
            "{queues:?}: all are ready after {:.1} s",
            began.elapsed().as_secs_f32()
        );
        for case in cases {
            let began = Instant::now();
            let outcome = faults::strike(&mut site, case, lasting).await;
            let took = began.elapsed().as_secs_f32();
            let outcome = outcome.with_context(|| case.name());
            let effect = outcome.inspect_err(|_| site.show_tails())?;
            println!("test {} ... ok ({took:.1} s; {effect})", case.name());
            rows.push((case, effect));
        }
        let verdict = site.close().await?;
        println!("{verdict:?}");
        sums = sums + verdict;
    }
    if seconds.is_some() {
        println!("\n{}", table::render(&rows, lasting, &sums));
    }
    Ok(())
}
