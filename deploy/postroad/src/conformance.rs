//! `postroad conformance`: plays the other side of the contract, and tells of each of its rules whether it holds.

mod agent;
mod queue;

use std::{path::Path, process::Stdio, sync::Arc, time::Duration};

use clap::{Args, Subcommand};
use comfy_table::Cell;
use postroad_conformance::{Deed, Finding, Verdict};
use postroad_daemon::TlsFiles;
use serde_json::{Value, json};
use tokio::process::Command;

use self::{
    agent::{MdaArguments, MsaArguments, MtaArguments},
    queue::QueueArguments,
};
use crate::fault::Fault;
use crate::progress::Progress;
use crate::runtime;
use crate::terminal::{Terminal, lines, one_line, table};

/// `postroad conformance …`.
#[derive(Debug, Subcommand)]
pub enum ConformanceVerb {
    /// Try a queue: as the agents that submit to it and take mail from it
    Queue(QueueArguments),
    /// Try a delivery agent: as the queue that it takes local mail from
    Mda(MdaArguments),
    /// Try a transfer agent: as its queue, as the hosts that it relays to and as those that hand it mail
    Mta(MtaArguments),
    /// Try a submission agent: as its queue, and as the mail program of an account
    Msa(MsaArguments),
}

/// How long is waited.
#[derive(Debug, Args)]
pub struct Waits {
    /// Seconds that an answer may take
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=600))]
    patience: u64,
    /// Milliseconds for which nothing must come where nothing should
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    quiet: u64,
}

impl Waits {
    fn patience(&self) -> Duration {
        Duration::from_secs(self.patience)
    }

    fn quiet(&self) -> Duration {
        Duration::from_millis(self.quiet)
    }
}

/// Carries out the verb.
pub fn carry_out(verb: &ConformanceVerb, terminal: &mut Terminal<'_>) -> Result<(), Fault> {
    let runtime = runtime()?;
    let _inside = runtime.enter();
    let findings = runtime.block_on(async {
        match verb {
            ConformanceVerb::Queue(arguments) => queue::run(arguments).await,
            ConformanceVerb::Mda(arguments) => agent::run(arguments.target()?).await,
            ConformanceVerb::Mta(arguments) => agent::run(arguments.target()?).await,
            ConformanceVerb::Msa(arguments) => agent::run(arguments.target()?).await,
        }
    })?;
    tell(&findings, terminal)
}

/// The files that an agent shows over TCP, as `postroad pki issue` lays them out.
fn tls(folder: &Path) -> TlsFiles {
    TlsFiles {
        ca_file: folder.join("agents-ca.pem"),
        cert_file: folder.join("agent.pem"),
        key_file: folder.join("agent.key"),
        revoked: None,
        warning: None,
    }
}

/// A command of a shell. What it prints is no part of the result.
fn deed(command: &str) -> Deed {
    let command = command.to_owned();
    Arc::new(move || {
        let command = command.clone();
        Box::pin(async move {
            let mut shell = Command::new("sh");
            shell.arg("-c").arg(&command);
            shell.stdin(Stdio::null()).stdout(Stdio::null());
            match shell.status().await {
                Ok(status) if status.success() => Ok(()),
                Ok(status) => Err(format!("{command}: {status}")),
                Err(error) => Err(format!("{command}: {error}")),
            }
        })
    })
}

/// Shows how far the rules have got, and which was tried last.
fn watched(all: usize) -> impl FnMut(&Finding) + Send {
    let (mut done, mut progress) = (0, Progress::new());
    let all = u64::try_from(all).unwrap_or(u64::MAX);
    progress.at(done, all, "rules");
    move |finding| {
        done += 1;
        progress.at(done, all, finding.rule.id);
    }
}

fn tell(findings: &[Finding], terminal: &mut Terminal<'_>) -> Result<(), Fault> {
    let count = |wanted: fn(&Verdict) -> bool| {
        let found = findings.iter().filter(|finding| wanted(&finding.verdict));
        found.count()
    };
    let passed = count(|verdict| *verdict == Verdict::Passed);
    let failed = count(|verdict| matches!(verdict, Verdict::Failed(_)));
    let not_tried = count(|verdict| matches!(verdict, Verdict::NotTried(_)));
    if terminal.wants_json() {
        let rules: Vec<Value> = findings.iter().map(object).collect();
        terminal.object(json!({
            "passed": passed, "failed": failed, "not_tried": not_tried, "rules": rules,
        }));
    } else {
        let mut rows = table(["RULE", "", "THE CONTRACT SAYS, AND WHAT CAME"]);
        for finding in findings {
            let said = one_line(finding.rule.sentence, 100);
            let told = match why(&finding.verdict) {
                Some(why) => format!("{said}\n→ {}", one_line(why, 160)),
                None => said,
            };
            rows.add_row([
                Cell::new(finding.rule.id),
                Cell::new(&finding.verdict),
                Cell::new(told),
            ]);
        }
        terminal.line(lines(&rows));
        let rest = match not_tried {
            0 => String::new(),
            count => format!(", {count} not tried"),
        };
        terminal.line(format_args!("{passed} passed, {failed} failed{rest}"));
    }
    match failed {
        0 => Ok(()),
        _ => Err(Fault::Told),
    }
}

fn why(verdict: &Verdict) -> Option<&str> {
    match verdict {
        Verdict::Passed => None,
        Verdict::Failed(why) | Verdict::NotTried(why) => Some(why),
    }
}

fn object(finding: &Finding) -> Value {
    json!({
        "rule": finding.rule.id,
        "sentence": finding.rule.sentence,
        "verdict": match finding.verdict {
            Verdict::Passed => "passed",
            Verdict::Failed(_) => "failed",
            Verdict::NotTried(_) => "not_tried",
        },
        "why": why(&finding.verdict),
    })
}
