//! `micro`: counts what single steps cost in instructions, which are the same on a busy machine and on a quiet one.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a program for a terminal")]

use std::{collections::BTreeMap, env, fs, path::Path, process::Command};

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Parser, Subcommand};
use postroad_micro::Case;

/// What the steps cost when they were last looked at.
const BASELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/baseline.txt");
const RUNS: usize = 3;

/// Counts instructions of single steps.
#[derive(Parser)]
#[command(name = "micro")]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Does a step so many times; for profilers.
    Run { case: String, times: u64 },
    /// Counts all steps under valgrind, and fails if one costs more than it did.
    Count {
        /// Writes down what they cost now.
        #[arg(long)]
        renew: bool,
    },
}

fn main() -> Result<()> {
    match Arguments::parse().what {
        What::Run { case, times } => {
            let mut step = Case::named(&case)?.prepare()?;
            (0..times).try_for_each(|_| step())
        }
        What::Count { renew } => count(renew),
    }
}

fn count(renew: bool) -> Result<()> {
    ensure!(
        !cfg!(debug_assertions),
        "a debug build says nothing: use --profile counts"
    );
    let before = baseline(&fs::read_to_string(BASELINE).unwrap_or_default())?;
    let mut now = BTreeMap::new();
    let mut worse = Vec::new();
    println!(
        "{:<10} {:>12} {:>12} {:>8}  one repetition is",
        "step", "before", "now", "change"
    );
    for case in &Case::ALL {
        let cost = cost(case)?;
        let was = before.get(case.name).copied();
        let change = was.map(|was| (cost as f64 / was as f64 - 1.0) * 100.0);
        println!(
            "{:<10} {:>12} {cost:>12} {:>8}  {}",
            case.name,
            was.map_or_else(|| "-".to_owned(), |was| was.to_string()),
            change.map_or_else(|| "-".to_owned(), |change| format!("{change:+.1} %")),
            case.about
        );
        // One that nobody has written down yet cannot be compared, and would never be.
        if change.is_none_or(|change| change > case.margin) {
            worse.push(case.name);
        }
        now.insert(case.name, cost);
    }
    if renew {
        let lines = now.iter().map(|(name, cost)| format!("{name} {cost}\n"));
        fs::write(BASELINE, lines.collect::<String>()).context(BASELINE)?;
        return Ok(());
    }
    ensure!(
        worse.is_empty(),
        "too far above the baseline: {}; mend it, or write down with `micro count --renew` why it is worth it",
        worse.join(", ")
    );
    Ok(())
}

/// Instructions of one repetition: what twice as many cost more, so that what is done once falls out.
fn cost(case: &Case) -> Result<u64> {
    let (less, more) = (
        counted(case.name, case.repeat)?,
        counted(case.name, 2 * case.repeat)?,
    );
    Ok(more.saturating_sub(less) / case.repeat)
}

/// The least of some runs: what else a process does, such as the flushes of the index once in a while, only adds.
fn counted(name: &str, times: u64) -> Result<u64> {
    let runs = (0..RUNS).map(|_| counted_once(name, times));
    let runs: Vec<u64> = runs.collect::<Result<_>>()?;
    runs.into_iter().min().context("no run")
}

fn counted_once(name: &str, times: u64) -> Result<u64> {
    let program = env::current_exe()?;
    let output = Command::new("valgrind")
        .args([
            "--tool=cachegrind",
            "--cache-sim=no",
            "--cachegrind-out-file=/dev/null",
        ])
        .arg(&program)
        .args(["run", name, &times.to_string()])
        .output()
        .context("valgrind does not start: is it installed?")?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("{} {name}: {said}", Path::new(&program).display());
    }
    references(&said).with_context(|| format!("valgrind does not tell the instructions: {said}"))
}

/// Of the line `==7== I   refs:      1,234`.
fn references(said: &str) -> Option<u64> {
    let line = said.lines().find(|line| line.contains("refs:"))?;
    let (_, count) = line.split_once("refs:")?;
    count.trim().replace(',', "").parse().ok()
}

/// A name and a number in each line.
fn baseline(text: &str) -> Result<BTreeMap<String, u64>> {
    let lines = text.lines().enumerate();
    lines
        .map(|(number, line)| {
            let (name, cost) = line
                .split_once(' ')
                .with_context(|| format!("{BASELINE}:{}: {line:?}", number + 1))?;
            let cost = cost
                .parse()
                .with_context(|| format!("{BASELINE}:{}: {line:?}", number + 1))?;
            Ok((name.to_owned(), cost))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_valgrind_says_is_understood() {
        let said = "==7== Command: micro run server 200\n==7== \n==7== I   refs:      12,345,678\n";
        assert_eq!(references(said), Some(12_345_678));
        assert_eq!(references("==7== I   refs:      none"), None);
    }

    #[test]
    fn each_case_has_a_line_in_the_baseline() {
        let known = baseline(&fs::read_to_string(BASELINE).unwrap()).unwrap();
        let names: Vec<&str> = known.keys().map(String::as_str).collect();
        let mut cases = Case::ALL.map(|case| case.name);
        cases.sort_unstable();
        assert_eq!(names, cases);
        assert!(baseline("server\n").is_err() && baseline("server x\n").is_err());
    }
}
