//! `postroad conformance`: plays the other side of the contract, and tells of each of its rules whether it holds.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand};
use comfy_table::Cell;
use postroad_conformance::{
    Finding, Verdict,
    queue::{self, RULES, Target},
};
use postroad_daemon::TlsFiles;
use postroad_rpc::{Endpoint, dial};
use serde_json::{Value, json};

use crate::fault::Fault;
use crate::progress::Progress;
use crate::runtime;
use crate::terminal::{Terminal, lines, one_line, table};

/// `postroad conformance …`.
#[derive(Debug, Subcommand)]
pub enum ConformanceVerb {
    /// Try a queue: as the agents that submit to it and take mail from it
    Queue(QueueArguments),
}

/// `postroad conformance queue`.
#[derive(Debug, Args)]
pub struct QueueArguments {
    /// Where it is: unix:/PATH or tcp:HOST:PORT. It should be one for tests: without mail, and without an mda
    #[arg(value_name = "TARGET")]
    pub target: Endpoint,
    /// An account of its directory
    #[arg(long, value_name = "ADDRESS")]
    pub account: String,
    /// Another address in a domain of its own [default: the account]
    #[arg(long, value_name = "ADDRESS")]
    pub recipient: Option<String>,
    /// Folder with agents-ca.pem, agent.pem and agent.key of the role msa
    #[arg(long, value_name = "DIR", requires = "mda_tls")]
    pub msa_tls: Option<PathBuf>,
    /// The same of the role mda
    #[arg(long, value_name = "DIR", requires = "msa_tls")]
    pub mda_tls: Option<PathBuf>,
    /// Seconds that an answer may take
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub patience: u64,
    /// Milliseconds for which nothing must come where nothing should
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub quiet: u64,
}

/// Carries out the verb.
pub fn carry_out(verb: &ConformanceVerb, terminal: &mut Terminal<'_>) -> Result<(), Fault> {
    let ConformanceVerb::Queue(arguments) = verb;
    let runtime = runtime()?;
    let _inside = runtime.enter();
    let target = target(arguments)?;
    let (mut done, mut progress) = (0, Progress::new());
    let all = u64::try_from(RULES.len()).unwrap_or(u64::MAX);
    progress.at(done, all, "rules");
    let findings = runtime.block_on(queue::run(&target, |finding| {
        done += 1;
        progress.at(done, all, finding.rule.id);
    }));
    progress.clear();
    tell(&findings, terminal)
}

fn target(arguments: &QueueArguments) -> Result<Target, Fault> {
    let channel = |folder: &Option<PathBuf>| {
        let tls = folder.as_ref().map(|folder| TlsFiles {
            ca_file: folder.join("agents-ca.pem"),
            cert_file: folder.join("agent.pem"),
            key_file: folder.join("agent.key"),
            revoked: None,
            warning: None,
        });
        dial(&arguments.target, tls.as_ref()).map_err(Fault::not_done)
    };
    let recipient = arguments.recipient.as_ref();
    Ok(Target {
        msa: channel(&arguments.msa_tls)?,
        mda: channel(&arguments.mda_tls)?,
        has_single_roles: arguments.msa_tls.is_some(),
        account: arguments.account.clone(),
        recipient: recipient.unwrap_or(&arguments.account).clone(),
        patience: Duration::from_secs(arguments.patience),
        quiet: Duration::from_millis(arguments.quiet),
    })
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
