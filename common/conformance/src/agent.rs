//! Agents as their queue finds them: a worker that takes leases, an edge that hands mail over, or both.
//!
//! ```text
//! stage: a played queue at the place where the agent looks for its queue, a mail host, a mail program
//! mda: working, resuming, delivering, leaving      mta: working, resuming, relaying, handing_over, inbound, leaving
//! msa: handing_over, submitting
//! ```

mod delivering;
mod handing_over;
mod inbound;
mod leaving;
mod mails;
mod relaying;
mod resuming;
mod stage;
mod submitting;
mod working;

use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};

use postroad_rpc::{Endpoint, Error, TlsFiles};

use self::stage::Stage;
use crate::{
    Deed, Finding, Rule,
    rules::{self, Set},
    smtp::Door,
};

/// What is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A worker for local mail.
    Mda,
    /// A worker for mail to other hosts, and who takes mail from them.
    Mta,
    /// Who takes mail of our own users.
    Msa,
}

/// An agent to try, and all that is known of it.
#[derive(Clone)]
pub struct Target {
    /// What it is.
    pub role: Role,
    /// Where it looks for its queue.
    pub endpoint: Endpoint,
    /// What the queue shows there over TCP, of the role queued.
    pub tls: Option<TlsFiles>,
    /// An account of its directory: of an mda it gets mail, of an mta too, of an msa it sends.
    pub account: String,
    /// Of an mda: the account's Maildir.
    pub mailbox: Option<PathBuf>,
    /// Of an mda: an account that is of another store.
    pub moved: Option<String>,
    /// Of an mta or msa: where it takes mail, in plain text at first.
    pub smtp: Option<SocketAddr>,
    /// The account's password.
    pub password: Option<String>,
    /// Of an mta: it takes no leases.
    pub is_inbound_only: bool,
    /// Of an mta: where a mail host listens that it relays to, port 0 for any.
    pub host: SocketAddr,
    /// Kills it and starts it again.
    pub restart: Option<Deed>,
    /// Tells it to stop.
    pub stop: Option<Deed>,
    /// How long an answer may take.
    pub patience: Duration,
    /// For so long nothing comes where nothing must.
    pub quiet: Duration,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { role, endpoint, .. } = self;
        write!(f, "Target {{ role: {role:?}, endpoint: {endpoint}, … }}")
    }
}

impl Target {
    /// An agent that looks for its queue there, with the least that must be known of it.
    pub fn new(role: Role, endpoint: Endpoint, account: &str) -> Self {
        Self {
            role,
            endpoint,
            tls: None,
            account: account.to_owned(),
            mailbox: None,
            moved: None,
            smtp: None,
            password: None,
            is_inbound_only: false,
            host: SocketAddr::from(([127, 0, 0, 1], 0)),
            restart: None,
            stop: None,
            patience: Duration::from_secs(15),
            quiet: Duration::from_millis(300),
        }
    }

    fn door(&self) -> Option<Door> {
        let login = match self.role {
            Role::Msa => Some((self.account.clone(), self.password.clone()?)),
            Role::Mda | Role::Mta => None,
        };
        let address = self.smtp?;
        Some(Door { address, login })
    }
}

fn sets(target: &Target) -> Vec<Set<Stage>> {
    macro_rules! sets {
        ($($module:ident),*) => { vec![$(Set { rules: $module::RULES, tries: $module::TRIES }),*] };
    }
    match target.role {
        Role::Mda => sets![working, resuming, delivering, leaving],
        Role::Mta if target.is_inbound_only => sets![handing_over, inbound],
        Role::Mta => sets![working, resuming, relaying, handing_over, inbound, leaving],
        Role::Msa => sets![handing_over, submitting],
    }
}

/// The rules for an agent, in the order in which they are tried.
pub fn rules(target: &Target) -> Vec<Rule> {
    let sets = sets(target).into_iter();
    sets.flat_map(|set| set.rules.iter().copied()).collect()
}

/// Plays the queue where the agent looks for it, and tries the rules one after the other; tells of each as it is done.
/// Fails only if the place cannot be had.
pub async fn run(
    target: &Target,
    mut tell: impl FnMut(&Finding) + Send,
) -> Result<Vec<Finding>, Error> {
    let mut stage = Stage::set(target.clone()).await?;
    let findings = rules::run(&sets(target), &mut stage, &mut tell).await;
    stage.strike().await;
    Ok(findings)
}
