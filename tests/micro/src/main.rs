//! `micro`: counts what single steps cost in instructions, which are the same on a busy machine and on a quiet one.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a program for a terminal")]

use std::{collections::BTreeMap, env, fs, path::Path, process::Command};

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Parser, Subcommand};
use postroad_micro::{Case, MARGIN};

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
        if change.is_none_or(|change| change > MARGIN) {
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

/// The least of some runs: what else a thread does once in a while only adds.
fn counted(name: &str, times: u64) -> Result<u64> {
    let runs = (0..RUNS).map(|_| counted_once(name, times));
    let runs: Vec<u64> = runs.collect::<Result<_>>()?;
    runs.into_iter().min().context("no run")
}

/// Of the thread that does the step alone: those of the index flush by the clock and wait by turning round, the more the slower the
/// machine is.
fn counted_once(name: &str, times: u64) -> Result<u64> {
    let program = env::current_exe()?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("counts");
    let output = Command::new("valgrind")
        // Threads have their turns: one that waits by turning round would keep the one processor there is to itself, for minutes.
        .args([
            "--tool=callgrind",
            "--separate-threads=yes",
            "--fair-sched=yes",
        ])
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(&program)
        .args(["run", name, &times.to_string()])
        .output()
        .context("valgrind does not start: is it installed?")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{} {name}: {said}", Path::new(&program).display());
    }
    // Threads are numbered from the one that `main` runs in.
    let of_main = folder.path().join("counts-01");
    let told = fs::read_to_string(&of_main).with_context(|| of_main.display().to_string())?;
    instructions(&told).with_context(|| format!("valgrind does not tell the instructions: {told}"))
}

/// Of the line `totals: 1234`, where instructions are all that is counted.
fn instructions(told: &str) -> Option<u64> {
    let mut lines = told.lines();
    lines.find(|line| *line == "events: Ir")?;
    let total = lines.find_map(|line| line.strip_prefix("totals: "))?;
    total.trim().parse().ok()
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
        let told =
            "# callgrind format\nthread: 1\nevents: Ir\n\nfn=(1)\n0 12\n\ntotals: 12345678\n";
        assert_eq!(instructions(told), Some(12_345_678));
        assert_eq!(instructions("events: Ir\nfn=(1)\n0 12\n"), None);
        assert_eq!(instructions("events: Ir Dr\ntotals: 12 3\n"), None);
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
