//! `postroad conformance mda`, `mta` and `msa`.

use std::{fs, net::SocketAddr, path::PathBuf};

use clap::Args;
use postroad_conformance::{
    Finding,
    agent::{self, Role, Target},
};
use postroad_rpc::Endpoint;

use super::{Waits, deed, tls, watched};
use crate::fault::Fault;

/// What is said of every agent.
#[derive(Debug, Args)]
pub struct AgentArguments {
    /// Where it looks for its queue, and where one is played for it: unix:/PATH or tcp:HOST:PORT
    #[arg(value_name = "TARGET")]
    target: Endpoint,
    /// An account of the agent's directory
    #[arg(long, value_name = "ADDRESS")]
    account: String,
    /// Folder with agents-ca.pem, agent.pem and agent.key of the role queued, for tcp:
    #[arg(long, value_name = "DIR")]
    tls: Option<PathBuf>,
    #[command(flatten)]
    waits: Waits,
}

/// What can be done to a worker.
#[derive(Debug, Args)]
pub struct WorkerArguments {
    /// Command for a shell that tells the agent to stop (SIGTERM), tried at the end
    #[arg(long, value_name = "COMMAND")]
    stop: Option<String>,
}

/// `postroad conformance mda`.
#[derive(Debug, Args)]
pub struct MdaArguments {
    #[command(flatten)]
    agent: AgentArguments,
    /// The account's Maildir, to see what is filed
    #[arg(long, value_name = "DIR")]
    mailbox: Option<PathBuf>,
    /// An account that the agent's directory has in another store
    #[arg(long, value_name = "ADDRESS")]
    moved: Option<String>,
    /// Command for a shell that kills the agent (SIGKILL) and starts it again
    #[arg(long, value_name = "COMMAND")]
    restart: Option<String>,
    #[command(flatten)]
    worker: WorkerArguments,
}

/// `postroad conformance mta`.
#[derive(Debug, Args)]
pub struct MtaArguments {
    #[command(flatten)]
    agent: AgentArguments,
    /// Where it takes mail from other hosts
    #[arg(long, value_name = "IP:PORT")]
    smtp: Option<SocketAddr>,
    /// It takes mail and relays none: only that is tried
    #[arg(long, requires = "smtp")]
    inbound_only: bool,
    /// Where a host is played that it relays to; it must be allowed to (mta.outbound.allow_networks). Port 0 is any
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:0")]
    host: SocketAddr,
    #[command(flatten)]
    worker: WorkerArguments,
}

/// `postroad conformance msa`.
#[derive(Debug, Args)]
pub struct MsaArguments {
    #[command(flatten)]
    agent: AgentArguments,
    /// Where it takes mail of its users, with STARTTLS
    #[arg(long, value_name = "IP:PORT")]
    smtp: SocketAddr,
    /// File with the account's password
    #[arg(long, value_name = "FILE")]
    password_file: PathBuf,
}

impl AgentArguments {
    fn target(&self, role: Role) -> Target {
        Target {
            tls: self.tls.as_deref().map(tls),
            patience: self.waits.patience(),
            quiet: self.waits.quiet(),
            ..Target::new(role, self.target.clone(), &self.account)
        }
    }
}

impl MdaArguments {
    /// What is tried.
    pub fn target(&self) -> Result<Target, Fault> {
        Ok(Target {
            mailbox: self.mailbox.clone(),
            moved: self.moved.clone(),
            restart: self.restart.as_deref().map(deed),
            stop: self.worker.stop.as_deref().map(deed),
            ..self.agent.target(Role::Mda)
        })
    }
}

impl MtaArguments {
    /// What is tried.
    pub fn target(&self) -> Result<Target, Fault> {
        Ok(Target {
            smtp: self.smtp,
            host: self.host,
            is_inbound_only: self.inbound_only,
            stop: self.worker.stop.as_deref().map(deed),
            ..self.agent.target(Role::Mta)
        })
    }
}

impl MsaArguments {
    /// What is tried.
    pub fn target(&self) -> Result<Target, Fault> {
        let file = &self.password_file;
        let password = fs::read_to_string(file)
            .map_err(|error| Fault::not_done(format!("{}: {error}", file.display())))?;
        Ok(Target {
            smtp: Some(self.smtp),
            password: Some(password.trim_end().to_owned()),
            ..self.agent.target(Role::Msa)
        })
    }
}

/// Tries it.
pub async fn run(target: Target) -> Result<Vec<Finding>, Fault> {
    let rules = agent::rules(&target).len();
    let findings = agent::run(&target, watched(rules)).await;
    findings.map_err(Fault::not_done)
}
