//! An agent on a host of its own: another network namespace, with a configuration and a folder of its own.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use postroad_daemon::{health_socket, query_health};

use super::{Agent, FAREWELL, Stack, process::Process};
use crate::wait::{wait_for, wait_for_within};

/// One host with one agent, up or down. Killed when it is dropped.
pub struct Host {
    agent: Agent,
    name: String,
    namespace: PathBuf,
    folder: PathBuf,
    program: PathBuf,
    process: Option<Process>,
    runs: usize,
}

impl Stack {
    /// A host that is down, which will be in the network namespace of this file. Its folder lies below the stack's, has the name of the host,
    /// and begins with `config` alone as its configuration.
    pub fn host(&self, name: &str, agent: Agent, namespace: &Path, config: &str) -> Result<Host> {
        let folder = self.folder().join(name);
        fs::create_dir(&folder)?;
        fs::write(folder.join("postroad.toml"), config)?;
        let program = folder.join(agent.program());
        symlink(&self.binary, &program)?;
        Ok(Host {
            agent,
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            folder,
            program,
            process: None,
            runs: 0,
        })
    }
}

impl Host {
    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Starts its process.
    pub fn start(&mut self) -> Result<()> {
        self.runs += 1;
        let log = self.folder.join(format!("{:03}.log", self.runs));
        let config = self.folder.join("postroad.toml");
        let (namespace, program) = (&self.namespace, &self.program);
        let process = Process::start_in(namespace, program, self.agent, &config, log)?;
        self.process = Some(process);
        Ok(())
    }

    /// Waits until its process says that it does its work.
    pub async fn ready(&mut self) -> Result<()> {
        let socket = health_socket(&self.folder.join("run"), self.agent.name());
        let process = self.process.as_mut().context("it is down")?;
        let ready = wait_for("readiness", async || {
            if let Some(status) = process.ended() {
                return Some(Err(anyhow::anyhow!("it ended with {status}")));
            }
            let health = query_health(&socket).await.ok()?;
            health.ready.then_some(Ok(()))
        });
        ready
            .await
            .and_then(|ready| ready)
            .context(self.name.clone())
    }

    /// Ends its process without a warning.
    pub fn kill_nine(&mut self) -> Result<()> {
        self.process.take().context("it is down")?.kill()
    }

    /// SIGTERM; it must end in peace.
    pub async fn stop(&mut self) -> Result<()> {
        let mut process = self.process.take().context("it is down")?;
        process.terminate()?;
        let what = format!("end of {}", self.name);
        let status = wait_for_within(FAREWELL, &what, async || process.ended()).await?;
        ensure!(status.success(), "{} ended with {status}", self.name);
        Ok(())
    }

    /// All that its processes wrote to standard error.
    pub fn log(&self) -> String {
        let runs = (1..=self.runs).map(|run| self.folder.join(format!("{run:03}.log")));
        let logs = runs.filter_map(|log| fs::read(log).ok());
        logs.map(|log| String::from_utf8_lossy(&log).into_owned())
            .collect()
    }

    /// Shows the end of its log to the person who reads the output of a test.
    pub fn show_tail(&mut self) {
        if let Some(process) = &mut self.process {
            process.show_tail(self.agent);
        }
    }
}
