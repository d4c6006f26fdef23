//! `postroad conformance queue`.

use std::path::PathBuf;

use clap::Args;
use postroad_conformance::{
    Finding,
    queue::{self, RULES, Target},
};
use postroad_rpc::{Endpoint, dial};

use super::{Waits, deed, tls, watched};
use crate::fault::Fault;

/// `postroad conformance queue`.
#[derive(Debug, Args)]
pub struct QueueArguments {
    /// Where it is: unix:/PATH or tcp:HOST:PORT. It should be one for tests: without mail, and without an mda
    #[arg(value_name = "TARGET")]
    target: Endpoint,
    /// An account of its directory
    #[arg(long, value_name = "ADDRESS")]
    account: String,
    /// Another address in a domain of its own [default: the account]
    #[arg(long, value_name = "ADDRESS")]
    recipient: Option<String>,
    /// Folder with agents-ca.pem, agent.pem and agent.key of the role msa
    #[arg(long, value_name = "DIR", requires = "mda_tls")]
    msa_tls: Option<PathBuf>,
    /// The same of the role mda
    #[arg(long, value_name = "DIR", requires = "msa_tls")]
    mda_tls: Option<PathBuf>,
    /// Command for a shell that kills the queue (SIGKILL) and starts it again
    #[arg(long, value_name = "COMMAND")]
    restart: Option<String>,
    #[command(flatten)]
    waits: Waits,
}

/// Tries it.
pub async fn run(arguments: &QueueArguments) -> Result<Vec<Finding>, Fault> {
    let target = target(arguments)?;
    Ok(queue::run(&target, watched(RULES.len())).await)
}

fn target(arguments: &QueueArguments) -> Result<Target, Fault> {
    let channel = |folder: &Option<PathBuf>| {
        let tls = folder.as_deref().map(tls);
        dial(&arguments.target, tls.as_ref()).map_err(Fault::not_done)
    };
    let recipient = arguments.recipient.as_ref();
    Ok(Target {
        msa: channel(&arguments.msa_tls)?,
        mda: channel(&arguments.mda_tls)?,
        has_single_roles: arguments.msa_tls.is_some(),
        account: arguments.account.clone(),
        recipient: recipient.unwrap_or(&arguments.account).clone(),
        restart: arguments.restart.as_deref().map(deed),
        patience: arguments.waits.patience(),
        quiet: arguments.waits.quiet(),
    })
}
