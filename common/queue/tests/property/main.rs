//! The pure [`Queue`](postroad_queue::Queue) against a simple model: random operations on few mails, in any order, with
//! crashes in between. The model is written from the table of states in the README of this crate; after each operation
//! all that can be seen of the queue must be what the model says.
//!
//! `POSTROAD_PROPERTY_RUNS` chooses how many sequences are tried, `POSTROAD_SEED` repeats a run. A sequence that fails is
//! made as short as can be and printed.

#![allow(clippy::print_stdout, reason = "the report of a test")]

mod acts;
mod book;
mod deeds;
mod house;
mod model;
mod seen;
mod shapes;

use std::{
    env,
    hash::{BuildHasher as _, RandomState},
};

use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// Of each of two chains, which run side by side.
const RUNS: u32 = 100;

#[test]
fn whatever_happens_the_queue_is_as_its_table_says() {
    check(0);
}

#[test]
fn whatever_else_happens_too() {
    check(1);
}

fn check(chain: u64) {
    let seed = number("POSTROAD_SEED").unwrap_or_else(|| RandomState::new().hash_one(chain));
    let runs = number("POSTROAD_PROPERTY_RUNS").and_then(|runs| u32::try_from(runs).ok());
    let runs = runs.unwrap_or(RUNS);
    let repeat = format!("POSTROAD_SEED={seed} POSTROAD_PROPERTY_RUNS={runs}, chain {chain}");
    println!("{repeat}");
    let config = Config {
        cases: runs,
        failure_persistence: None,
        max_shrink_iters: 600,
        ..Config::default()
    };
    let octets = [(seed ^ chain).to_be_bytes(); 4].concat();
    let chance = TestRng::from_seed(RngAlgorithm::ChaCha, &octets);
    let mut runner = TestRunner::new_with_rng(config, chance);
    let outcome = runner.run(&acts::lives(), |life| {
        house::live(&life);
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{repeat}\n{error}");
    }
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok()?.parse().ok()
}
