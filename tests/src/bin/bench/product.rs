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
use postroad_queue_client::{ListQuery, QueueAdmin as _, RemoteAdmin};
use postroad_rpc::Endpoint;
use postroad_tests::{Builder, Stack, free_port, wait_for};
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::{
    kept::{Kept, Syncs},
    postfix,
};

/// A mail system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// The queue and the transfer agent as processes of their own.
    Postroad,
    /// Debian's.
    Postfix,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Postroad => "Postroad",
            Self::Postfix => "Postfix",
        })
    }
}

/// A mail system that runs.
pub struct Product {
    /// Where it takes mail.
    pub inbound: SocketAddr,
    kept: Vec<Kept>,
    place: Place,
}

enum Place {
    Postroad(Stack),
    Postfix(TempDir),
}

impl Product {
    /// Starts one that relays mail for `worldN.test` to the Nth of `hosts`.
    pub async fn start(kind: Kind, hosts: &[SocketAddr], syncs: Syncs) -> Result<Self> {
        match kind {
            Kind::Postroad => Self::postroad(hosts, syncs).await,
            Kind::Postfix => Self::postfix(hosts, syncs).await,
        }
    }

    async fn postroad(hosts: &[SocketAddr], syncs: Syncs) -> Result<Self> {
        let mut settings = String::from(AS_SHIPPED);
        for (number, host) in hosts.iter().enumerate() {
            settings += &format!(
                "[[queued.routes]]\ndomain = \"world{number}.test\"\nclass = \"relay\"\nnext_hop = \"{host}\"\n"
            );
        }
        let stack = prepare(&settings)?;
        let kept = vec![
            agent(stack.folder(), "queued", syncs).await?,
            agent(stack.folder(), "mta", syncs).await?,
        ];
        Ok(Self {
            inbound: stack.ports.smtp(),
            kept,
            place: Place::Postroad(stack),
        })
    }

    async fn postfix(hosts: &[SocketAddr], syncs: Syncs) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("postfix-").tempdir()?;
        let inbound = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let line = |(number, host): (usize, &SocketAddr)| {
            format!("world{number}.test smtp:[{}]:{}\n", host.ip(), host.port())
        };
        let transport: String = hosts.iter().enumerate().map(line).collect();
        postfix::write(folder.path(), inbound, &transport)?;
        let config = folder.path().join("etc");
        let config = config.to_str().context("a folder with a plain name")?;
        let command = [postfix::MASTER, "-c", config, "-d"];
        let kept = vec![Kept::start(folder.path(), "master", &command, syncs)?];
        wait_for("Postfix", async || TcpStream::connect(inbound).await.ok()).await?;
        Ok(Self {
            inbound,
            kept,
            place: Place::Postfix(folder),
        })
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
"#;

/// The files of a stack that [`agent`] starts parts of. `settings` is TOML.
pub fn prepare(settings: &str) -> Result<Stack> {
    let binary = std::env::current_exe()?;
    let stack = Builder::new(&binary.to_string_lossy())
        .settings(settings)
        .prepare()?;
    for name in ["queued", "mta"] {
        symlink(&binary, program(stack.folder(), name))?;
    }
    Ok(stack)
}

/// Starts one agent and waits until it is ready.
pub async fn agent(folder: &Path, name: &str, syncs: Syncs) -> Result<Kept> {
    let kept = launch(folder, name, syncs)?;
    let socket = health_socket(&folder.join("run"), name);
    wait_for(name, async || {
        let health = query_health(&socket).await.ok()?;
        health.ready.then_some(())
    })
    .await?;
    Ok(kept)
}

/// As built in, and what the upkeep of the queue does, which are a few lines a second.
const LOG: &str = "POSTROAD_LOG=warn,postroad=info,postroad_queued::upkeep=debug";

/// Starts one agent and does not wait.
pub fn launch(folder: &Path, name: &str, syncs: Syncs) -> Result<Kept> {
    let (program, config) = (program(folder, name), folder.join("postroad.toml"));
    let (program, config) = (program.to_string_lossy(), config.to_string_lossy());
    let command = ["env", LOG, &program, "--config", &config];
    Kept::start(folder, name, &command, syncs)
}

/// Programs find out by their name what they are.
fn program(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("postroad-{name}"))
}
