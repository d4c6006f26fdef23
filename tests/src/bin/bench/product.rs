//! What is measured: one mail system in a folder of its own, freshly started.

use std::{
    fmt,
    net::SocketAddr,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use postroad_daemon::{health_socket, query_health};
use postroad_net::{ClientTls, Trust};
use postroad_queue_client::{ListQuery, QueueAdmin as _, RemoteAdmin};
use postroad_rpc::Endpoint;
use postroad_tests::{Builder, Stack, free_port, wait_for};
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::{
    dovecot,
    kept::{Kept, Syncs},
    load::{To, Way},
    postfix,
    submission::Passwords,
};

/// A mail system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// The queue and the agents as processes of their own.
    Postroad,
    /// All of Postroad in one process.
    Whole,
    /// Debian's.
    Postfix,
    /// The same, set for speed.
    Tuned,
}

impl Kind {
    /// In the order of tables.
    pub const ALL: [Self; 4] = [Self::Postroad, Self::Whole, Self::Postfix, Self::Tuned];

    /// Whether it is not ours.
    pub fn is_foreign(self) -> bool {
        matches!(self, Self::Postfix | Self::Tuned)
    }
}

/// As it is typed.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Postroad => "postroad",
            Self::Whole => "whole",
            Self::Postfix => "postfix",
            Self::Tuned => "tuned",
        })
    }
}

/// What a product does with mail.
#[derive(Clone, Copy)]
pub enum Task<'a> {
    /// Relays mail for `worldN.test` to the Nth host.
    Relay(&'a [SocketAddr]),
    /// Files mail for `userN@demo.test`, for so many of them.
    Deliver {
        /// How many there are.
        users: usize,
    },
    /// The same for mail of these users, who log in under TLS.
    Submit {
        /// How many there are.
        users: usize,
        passwords: Passwords,
    },
}

/// A mail system that runs.
pub struct Product {
    inbound: SocketAddr,
    /// Whether clients begin with TLS there, and log in.
    is_submission: bool,
    kept: Vec<Kept>,
    place: Place,
}

enum Place {
    Postroad(Stack),
    Postfix(TempDir),
}

impl Product {
    /// Starts one.
    pub async fn start(kind: Kind, task: Task<'_>, syncs: Syncs) -> Result<Self> {
        match kind {
            Kind::Postroad => {
                let front = match task {
                    Task::Submit { .. } => "msa",
                    Task::Relay(_) | Task::Deliver { .. } => "mta",
                };
                Self::postroad(task, &["queued", front, "mda"], syncs).await
            }
            Kind::Whole => Self::postroad(task, &["postroad"], syncs).await,
            Kind::Postfix => Self::postfix(task, false, syncs).await,
            Kind::Tuned => Self::postfix(task, true, syncs).await,
        }
    }

    async fn postroad(task: Task<'_>, agents: &[&str], syncs: Syncs) -> Result<Self> {
        let (mut settings, mut users) = (String::from(AS_SHIPPED), 0);
        match task {
            Task::Relay(hosts) => settings.extend(hosts.iter().enumerate().map(|(number, host)| {
                format!(
                    "[[queued.routes]]\ndomain = \"world{number}.test\"\nclass = \"relay\"\nnext_hop = \"{host}\"\n"
                )
            })),
            Task::Deliver { users: count } => users = count,
            Task::Submit {
                users: count,
                passwords,
            } => {
                users = count;
                if passwords == Passwords::Hashed {
                    settings += "[msa.auth]\nremember = \"0s\"\n";
                }
            }
        }
        let is_submission = matches!(task, Task::Submit { .. });
        let stack = prepare_with(&settings, users, "")?;
        let mut kept = Vec::new();
        for name in agents {
            // Without mailboxes there is nothing to do for their agent.
            if *name != "mda" || users > 0 {
                kept.push(agent(stack.folder(), name, syncs).await?);
            }
        }
        Ok(Self {
            inbound: match is_submission {
                true => stack.ports.submissions(),
                false => stack.ports.smtp(),
            },
            is_submission,
            kept,
            place: Place::Postroad(stack),
        })
    }

    async fn postfix(task: Task<'_>, tuned: bool, syncs: Syncs) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("postfix-").tempdir()?;
        let inbound = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        postfix::write(folder.path(), inbound, task, tuned)?;
        let config = folder.path().join("etc");
        let config = config.to_str().context("a folder with a plain name")?;
        let command = [postfix::MASTER, "-c", config, "-d"];
        let mut kept = Vec::new();
        if let Task::Submit { users, passwords } = task {
            kept.push(dovecot::start(folder.path(), users, passwords, syncs).await?);
        }
        kept.push(Kept::start(folder.path(), "master", &command, syncs)?);
        wait_for("Postfix", async || TcpStream::connect(inbound).await.ok()).await?;
        Ok(Self {
            inbound,
            is_submission: matches!(task, Task::Submit { .. }),
            kept,
            place: Place::Postfix(folder),
        })
    }

    /// How mail gets into it.
    pub fn way(&self) -> Result<Way> {
        // Whose certificate it is makes no difference to what it costs.
        let tls = || ClientTls::opportunistic(Trust::Files(Vec::new()));
        Ok(Way {
            server: self.inbound,
            submission: self.is_submission.then(tls).transpose()?,
        })
    }

    /// Below it are the Maildirs.
    pub fn mailboxes(&self) -> PathBuf {
        match &self.place {
            Place::Postroad(stack) => stack.folder().join("mail"),
            Place::Postfix(folder) => folder.path().join("mail"),
        }
    }

    /// Returns when all mail is settled.
    pub async fn idle(&self) -> Result<()> {
        match &self.place {
            Place::Postroad(stack) => {
                let socket = stack.folder().join("run/queue-admin.sock");
                let admin = RemoteAdmin::connect(&Endpoint::Unix(socket), None, "bench")?;
                wait_for("empty queue", async || {
                    let page = admin.list(ListQuery::default()).await.ok()?;
                    page.mails.is_empty().then_some(())
                })
                .await
            }
            Place::Postfix(folder) => {
                wait_for("empty queue", async || {
                    postfix::is_idle(folder.path()).then_some(())
                })
                .await
            }
        }
    }

    /// Ends it and removes its folder; its syncs if they were counted.
    pub async fn end(mut self) -> Result<Option<u64>> {
        let mut syncs = None;
        // In the reverse order of the start.
        while let Some(kept) = self.kept.pop() {
            if let Some(count) = kept.end()? {
                *syncs.get_or_insert(0) += count;
            }
        }
        if let Place::Postroad(stack) = self.place {
            stack.end().await?;
        }
        Ok(syncs)
    }
}

/// What tests set for haste goes back to what is built in; one client brings all mail.
const AS_SHIPPED: &str = r#"
[queued]
relay_networks = ["127.0.0.0/8"]
[queued.retry]
first = "4m"
max = "4h"
[queued.lease]
stream_grace = "30s"
resume_grace = "30s"
[queued.disk]
reserve_percent = 0
reserve = "256MiB"
segment = "16MiB"
journal_target = "64MiB"
[mta.inbound]
relay_networks = ["127.0.0.0/8"]
queue_timeout = "30s"
limits.max_connections_per_ip = 1000
[msa]
queue_timeout = "30s"
limits.max_connections_per_ip = 1000
"#;

/// The files of a stack that [`agent`] starts parts of. `settings` is TOML.
pub fn prepare(settings: &str) -> Result<Stack> {
    prepare_with(settings, 0, "")
}

/// The same with these lines in its DNS, and all else as it is shipped.
pub fn prepare_relay(settings: &str, zone: &str) -> Result<Stack> {
    prepare_with(&format!("{AS_SHIPPED}{settings}"), 0, zone)
}

/// The same with accounts `userN@demo.test`.
fn prepare_with(settings: &str, users: usize, zone: &str) -> Result<Stack> {
    let binary = std::env::current_exe()?;
    let stack = Builder::new(&binary.to_string_lossy())
        .settings(settings)
        .zone(zone)
        .accounts((0..users).map(|user| To::Users(users).address(user)))
        .prepare()?;
    for name in ["queued", "msa", "mta", "mda", WHOLE] {
        symlink(&binary, program(stack.folder(), name))?;
    }
    Ok(stack)
}

/// Starts one agent and waits until it is ready.
pub async fn agent(folder: &Path, name: &str, syncs: Syncs) -> Result<Kept> {
    let kept = launch(folder, name, syncs)?;
    let agents = match name {
        WHOLE => vec!["queued", "msa", "mta", "mda"],
        name => vec![name],
    };
    for agent in agents {
        let socket = health_socket(&folder.join("run"), agent);
        wait_for(agent, async || {
            let health = query_health(&socket).await.ok()?;
            health.ready.then_some(())
        })
        .await?;
    }
    Ok(kept)
}

/// As built in, and what the upkeep of the queue does, which are a few lines a second.
const LOG: &str = "POSTROAD_LOG=warn,postroad=info,postroad_queued::upkeep=debug";

/// Starts one agent and does not wait.
pub fn launch(folder: &Path, name: &str, syncs: Syncs) -> Result<Kept> {
    let (program, config) = (program(folder, name), folder.join("postroad.toml"));
    let (program, config) = (program.to_string_lossy(), config.to_string_lossy());
    let mut command = vec!["env", LOG, &program, "--config", &config];
    command.extend((name == WHOLE).then_some("run"));
    Kept::start(folder, name, &command, syncs)
}

/// The process that is all agents.
const WHOLE: &str = "postroad";

/// Programs find out by their name what they are.
fn program(folder: &Path, name: &str) -> PathBuf {
    match name {
        WHOLE => folder.join(WHOLE),
        agent => folder.join(format!("postroad-{agent}")),
    }
}
