//! The command `postroad`: everything in one process, and administration.
//!
//! **Purpose.** `postroad run` puts the four agents together in one process, for trying and testing;
//! `postroad run --demo` needs no configuration and shows a first mail. The other verbs are for operators:
//! they read the configuration and the directory, speak to the queue over its admin socket, and look into
//! Maildirs.
//!
//! **Flow.** [`cli`] says what can be typed; each verb has a module with a function that takes its
//! arguments and a [`Terminal`](terminal::Terminal), and returns `Ok` or a [`Fault`]. `run` is the only one that
//! starts anything. The demo writes a configuration and then runs it as `postroad run` would: no agent
//! knows that it is in a demo.
//!
//! **Which configuration.** `--config FILE`; else the demo while it runs; else
//! `/etc/postroad/postroad.toml`; else the last demo ([`home`]).
//!
//! **What can fail.** A [`Fault`] carries the exit status: 0 done, 1 not done, 2 usage, 3 no match; `run`
//! ends as daemons do with 78 for a bad configuration, 75 to try again, 70 for a fault of ours. Results go to
//! standard output, everything else to standard error; `--json` prints one object with `"schema": 1`.
#![forbid(unsafe_code)]

pub mod account;
pub mod agent;
mod all_in_one;
pub mod check;
pub mod cli;
pub mod compose;
pub mod conformance;
mod demo;
pub mod explain;
pub mod fault;
pub mod health;
pub mod home;
pub mod mailbox;
mod manual;
pub mod migrate;
mod multi_call;
pub mod pki;
mod progress;
pub mod queue;
pub mod rehearse;
mod run;
mod send;
mod sendmail;
mod setup;
mod submit;
pub mod terminal;
pub mod timeline;
pub mod tlsrpt;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Verb};
use fault::Fault;
use terminal::Terminal;

/// What `main` does: the arguments and streams of this process, its exit status. Called by the name of an agent, like
/// `postroad-msa`, it is that agent.
pub fn main() -> ExitCode {
    if let Some(agent) = multi_call::agent(std::env::args_os().next().as_deref()) {
        return agent();
    }
    if let Some(words) = multi_call::sendmail(std::env::args_os()) {
        let (mut out, mut talk) = (std::io::stdout(), std::io::stderr());
        return ExitCode::from(execute(words, &mut out, &mut talk));
    }
    let (mut out, mut talk) = (std::io::stdout(), std::io::stderr());
    ExitCode::from(execute(std::env::args_os(), &mut out, &mut talk))
}

/// Carries out one command line, and returns the exit status.
pub fn execute(
    arguments: impl IntoIterator<Item = OsString>,
    out: &mut dyn std::io::Write,
    talk: &mut dyn std::io::Write,
) -> u8 {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(usage) => {
            let text = usage.render();
            let _ = match usage.use_stderr() {
                true => write!(talk, "{text}"),
                false => write!(out, "{text}"),
            };
            return u8::try_from(usage.exit_code()).unwrap_or(2);
        }
    };
    let mut terminal = Terminal::new(out, talk, cli.json);
    match carry_out(cli, &mut terminal) {
        Ok(()) => 0,
        Err(fault) => {
            terminal.fault(&fault);
            fault.status()
        }
    }
}

/// Carries out another command line, for a verb that stands for it.
fn carry_out_as(words: &[&str], terminal: &mut Terminal<'_>) -> Result<(), Fault> {
    carry_out(
        Cli::try_parse_from(words).map_err(Fault::not_done)?,
        terminal,
    )
}

fn carry_out(cli: Cli, terminal: &mut Terminal<'_>) -> Result<(), Fault> {
    let config = cli.config.as_deref();
    match cli.verb {
        Verb::Run(arguments) => run::carry_out(&arguments, config, terminal),
        Verb::Sendmail { words } => sendmail::carry_out(&words, config, terminal),
        Verb::Withdraw(arguments) => sendmail::withdraw::carry_out(&arguments, config, terminal),
        Verb::Send(arguments) => send::carry_out(&arguments, config, terminal),
        Verb::Account(verb) => account::carry_out(verb, config, terminal),
        Verb::Check(arguments) => check::carry_out(&arguments, config, terminal),
        Verb::Explain(arguments) => explain::carry_out(*arguments, config, terminal),
        Verb::Setup(arguments) => setup::carry_out(&arguments, terminal),
        Verb::Completions { shell } => manual::completions(shell, terminal),
        Verb::Man { folder } => manual::write(&folder, terminal),
        Verb::Tlsrpt(arguments) => tlsrpt::carry_out(&arguments, config, terminal),
        Verb::Pki(verb) => pki::carry_out(&verb, terminal),
        Verb::Migrate(verb) => migrate::carry_out(&verb, terminal),
        Verb::Conformance(verb) => conformance::carry_out(&verb, terminal),
        Verb::Rehearse(verb) => rehearse::carry_out(&verb, terminal),
        Verb::Health(arguments) => health::carry_out(&arguments, config, terminal),
        Verb::Queue { node, verb } => queue::carry_out(*verb, node.as_deref(), config, terminal),
        Verb::Trace { node, arguments } => {
            let verb = cli::QueueVerb::Trace(arguments);
            queue::carry_out(verb, node.as_deref(), config, terminal)
        }
        Verb::Agent { node, verb } => agent::carry_out(verb, node.as_deref(), config, terminal),
        Verb::Mailbox(verb) => mailbox::carry_out(&verb, config, terminal),
    }
}

/// For verbs that speak over sockets.
fn runtime() -> Result<tokio::runtime::Runtime, Fault> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Fault::not_done)
}
