//! `cargo ci`: all that CI checks, one step after the other, with a summary at the end.
//!
//! A step whose tools are missing is listed as NOT RUN; with `CI=true` it is a failure. `cargo ci STEP…` runs only the
//! named steps.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a program for a terminal")]

use std::{
    env,
    process::{Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

/// How many tests of a program run at once.
const THREADS: &str = "RUST_TEST_THREADS";

struct Step {
    name: &'static str,
    /// A program besides cargo that the step needs.
    needs: Option<&'static str>,
    command: &'static [&'static str],
}

const STEPS: [Step; 7] = [
    Step {
        name: "format",
        needs: None,
        command: &["cargo", "fmt", "--all", "--check"],
    },
    Step {
        name: "clippy",
        needs: None,
        command: &[
            "cargo",
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ],
    },
    Step {
        name: "licences",
        needs: Some("cargo-deny"),
        command: &[
            "cargo",
            "deny",
            "--config",
            ".deny.toml",
            "check",
            "licenses",
            "bans",
            "sources",
        ],
    },
    // Includes the freshness of generated code, the architecture and the journeys.
    Step {
        name: "tests",
        needs: None,
        command: &["cargo", "test", "--no-fail-fast", "--workspace"],
    },
    // What single steps cost in instructions, against what they did.
    Step {
        name: "counts",
        needs: Some("valgrind"),
        command: &[
            "cargo",
            "run",
            "--quiet",
            "--profile",
            "counts",
            "--package",
            "postroad-micro",
            "--",
            "count",
        ],
    },
    // Foreign peers, power cuts, disks that fail, and the containers: each test names what it needs; with CI=true what is missing fails.
    // The whole workspace is selected so that dependencies keep the features of the step before and are not built again.
    Step {
        name: "interop",
        needs: None,
        command: &[
            "cargo",
            "test",
            "--no-fail-fast",
            "--workspace",
            "--features",
            "postroad-tests/interop",
            "--test",
            "interop",
            "--test",
            "hosts",
            "--test",
            "power_cut",
            "--test",
            "io_errors",
            "--test",
            "tokens_of_an_issuer",
            "--test",
            "compose",
        ],
    },
    // The one step that needs Kerberos to build: agents that take tickets, and a KDC for them.
    Step {
        name: "kerberos",
        needs: Some("krb5-config"),
        command: &[
            "cargo",
            "test",
            "--no-fail-fast",
            "--workspace",
            "--features",
            "postroad-tests/gssapi",
            "--test",
            "kerberos",
        ],
    },
];

enum Verdict {
    Passed(Duration),
    Failed(Duration),
    NotRun(String),
}

fn main() -> ExitCode {
    let strict = env::var("CI").is_ok_and(|value| value == "true");
    let wanted: Vec<String> = env::args().skip(1).collect();
    if let Some(unknown) = wanted
        .iter()
        .find(|name| STEPS.iter().all(|step| step.name != **name))
    {
        println!(
            "no step {unknown:?}; the steps are: {}",
            STEPS.map(|step| step.name).join(", ")
        );
        return ExitCode::from(2);
    }
    let chosen = STEPS
        .iter()
        .filter(|step| wanted.is_empty() || wanted.iter().any(|name| name == step.name));
    let verdicts: Vec<(&str, Verdict)> =
        chosen.map(|step| (step.name, run(step, strict))).collect();
    summary(&verdicts)
}

fn run(step: &Step, strict: bool) -> Verdict {
    println!("\n=== {}: {}", step.name, step.command.join(" "));
    if let Some(program) = step.needs.filter(|program| !is_installed(program)) {
        let missing = format!("{program} is not installed");
        return if strict {
            Verdict::Failed(Duration::ZERO)
        } else {
            Verdict::NotRun(missing)
        };
    }
    let began = Instant::now();
    let [program, arguments @ ..] = step.command else {
        return Verdict::NotRun("no command".to_owned());
    };
    let status = Command::new(program)
        .args(arguments)
        .env(THREADS, test_threads())
        .stdin(Stdio::null())
        .status();
    if status.is_ok_and(|status| status.success()) {
        Verdict::Passed(began.elapsed())
    } else {
        Verdict::Failed(began.elapsed())
    }
}

/// Most tests wait most of the time: for a disk, a peer, or a moment.
fn test_threads() -> String {
    let processors = thread::available_parallelism().map_or(1, usize::from);
    env::var(THREADS).unwrap_or_else(|_| (processors * 2).to_string())
}

fn is_installed(program: &str) -> bool {
    let quiet = Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    quiet.is_ok_and(|status| status.success())
}

fn summary(verdicts: &[(&str, Verdict)]) -> ExitCode {
    println!("\n=== summary");
    let (mut passed, mut failed, mut not_run) = (0, 0, 0);
    for (name, verdict) in verdicts {
        match verdict {
            Verdict::Passed(took) => {
                passed += 1;
                println!("  {name:<10} passed   {:>5} s", took.as_secs());
            }
            Verdict::Failed(took) => {
                failed += 1;
                println!("  {name:<10} FAILED   {:>5} s", took.as_secs());
            }
            Verdict::NotRun(why) => {
                not_run += 1;
                println!("  {name:<10} NOT RUN  {why}");
            }
        }
    }
    println!("steps: {passed} passed, {failed} failed, {not_run} skipped");
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
