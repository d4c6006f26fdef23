//! `bench`: how fast the queue and the stack are, beside Postfix on the same disk. How to use it and what it
//! showed: `tests/bench/README.md`.
//!
//! ```text
//! store-and-forward   load ─SMTP─► product (Postroad or Postfix, fresh each round) ─SMTP─► sink, which checks every mail
//! delivery            load ─SMTP─► product ─► Maildirs, whose mails are read and compared
//! submission          load ─TLS, log-in─► product ─► Maildirs; the same, with passwords hashed each time and remembered
//! latency             load at a steady rate ─SMTP─► product ─► a Maildir, looked at every millisecond
//! memory              idle, with busy clients, with idle ones, with a full queue: Postroad and Postfix in turn
//! queue-core          submitters ─► queue (in this process, or behind its socket) ─► worker that settles at once
//! scale               a million mails: rates, lists, starts, memory, and being rid of them
//! schedule            the schedule alone: memory for each job, and the time of each step
//! idle                clients that say nothing: memory of the listener for each
//! disk                what a plain writer gets that syncs each write
//! plot                what --json printed, as a picture
//! dead-site           load at a steady rate ─SMTP─► Postroad ─by MX─► many sites, one of which is away every other round
//! fairness            simulated arrivals ─► the schedule ─► simulated workers; or a queue process and workers that take time
//! ```
//!
//! Called by the name of an agent it is that agent, so that one build has all that is measured.
#![forbid(unsafe_code)]
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for a terminal"
)]

mod dead_site;
mod delivery;
mod disk;
mod dovecot;
mod fairness;
mod figures;
mod forward;
mod idle;
mod kept;
mod latency;
mod load;
mod machine;
mod mails;
mod memory;
mod plot;
mod postfix;
mod product;
mod queue_core;
mod scale;
mod schedule;
mod sink;
mod source;
mod submission;
mod trial;

use std::{env, ffi::OsStr, path::Path, process::ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand};
use postroad_daemon::run_main;
use serde_json::{Value, json};

use self::machine::Machine;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Measures Postroad.
#[derive(Parser)]
#[command(name = "bench")]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Mails from a relay client to a remote host, by Postroad and by Postfix in turn.
    StoreAndForward(forward::Options),
    /// Mails from a client into Maildirs, by Postroad and by Postfix in turn.
    Delivery(delivery::Options),
    /// Mails from clients that log in under TLS into Maildirs, by Postroad and by Postfix with Dovecot in turn.
    Submission(submission::Options),
    /// How long a mail takes from its 250 to the mailbox, by Postroad and by Postfix in turn.
    Latency(latency::Options),
    /// What a product holds in memory: with nothing to do, with many clients, with a full queue; in turn.
    Memory(memory::Options),
    /// Submit, durable, lease, settle: the queue without SMTP.
    QueueCore(queue_core::Options),
    /// The queue with a million mails: rates, lists, starts, memory, space.
    Scale(scale::Options),
    /// The schedule alone with a million jobs: memory, and how fast each step is.
    Schedule(schedule::Options),
    /// TLS connections that say nothing: what the listener holds for each.
    Idle(idle::Options),
    /// One slow destination with half of all mails: what the others notice of it. Simulated, or with a queue process.
    Fairness(fairness::Options),
    /// One of many sites does not answer: what mail for the others notices of it.
    DeadSite(dead_site::Options),
    /// Writes and syncs, one after the other: what the disk gives.
    Disk(disk::Options),
    /// Draws what `--json` printed of rounds in turn.
    Plot(plot::Options),
}

fn main() -> ExitCode {
    let name = env::args_os().next().unwrap_or_default();
    match Path::new(&name).file_name().and_then(OsStr::to_str) {
        Some("postroad-queued") => return run_main("queued", VERSION, postroad_queued::run),
        Some("postroad-msa") => return run_main("msa", VERSION, postroad_msa::run),
        Some("postroad-mta") => return run_main("mta", VERSION, postroad_mta::run),
        Some("postroad-mda") => return run_main("mda", VERSION, postroad_mda::run),
        Some("postroad") => return postroad::main(),
        _ => {}
    }
    match measure(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &Arguments) -> Result<()> {
    if let What::Plot(options) = &arguments.what {
        return plot::run(options);
    }
    if cfg!(debug_assertions) {
        eprintln!("bench: this is a debug build; its figures say nothing (use --profile dist)");
    }
    let before = Machine::look()?;
    before.warn();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let (json, mut result) = match &arguments.what {
        What::StoreAndForward(options) => (
            options.rounds.json,
            runtime.block_on(forward::run(options))?,
        ),
        What::Delivery(options) => (
            options.rounds.json,
            runtime.block_on(delivery::run(options))?,
        ),
        What::Submission(options) => (
            options.rounds.json,
            runtime.block_on(submission::run(options))?,
        ),
        What::Latency(options) => (options.json, runtime.block_on(latency::run(options))?),
        What::Memory(options) => (options.json, runtime.block_on(memory::run(options))?),
        What::QueueCore(options) => (options.json, runtime.block_on(queue_core::run(options))?),
        What::Scale(options) => (options.json, runtime.block_on(scale::run(options))?),
        What::Schedule(options) => (options.json, schedule::run(options)?),
        What::Idle(options) => (options.json, runtime.block_on(idle::run(options))?),
        What::DeadSite(options) => (options.json, runtime.block_on(dead_site::run(options))?),
        What::Disk(options) => (options.json, disk::run(options)?),
        What::Plot(_) => return Ok(()),
        What::Fairness(options) => (options.json, runtime.block_on(fairness::run(options))?),
    };
    let after = Machine::look()?;
    let command: Vec<String> = env::args().skip(1).collect();
    println!("\ncommand: bench {}", command.join(" "));
    println!("machine before: {before}\nmachine after:  {after}");
    if json {
        result["schema"] = json!(1);
        result["command"] = json!(command);
        result["debug_build"] = Value::Bool(cfg!(debug_assertions));
        result["machine"] = json!([before.to_string(), after.to_string()]);
        println!("{result:#}");
    }
    Ok(())
}
