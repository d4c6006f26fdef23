//! A second process of an agent, as on another host.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result, ensure};
use postroad_daemon::{health_socket, query_health};

use super::{Agent, FAREWELL, Stack, process::Process};
use crate::wait::{wait_for, wait_for_within};

/// Killed when it is dropped.
pub struct Second {
    agent: Agent,
    process: Process,
}

impl Stack {
    /// The configuration of the second.
    pub fn second_config_file(&self) -> PathBuf {
        self.folder().join("second/postroad.toml")
    }

    /// Starts another process of `agent` with another host name and run folder and with `settings`, on the same queue, and
    /// waits until it is ready.
    pub async fn second(&mut self, agent: Agent, settings: &str) -> Result<Second> {
        let folder = self.folder().join("second");
        let (conf_d, run) = (folder.join("conf.d"), folder.join("run"));
        fs::create_dir_all(&conf_d)?;
        let config = fs::read_to_string(self.config_file())?;
        fs::write(folder.join("postroad.toml"), config)?;
        let other =
            format!("[common]\nhostname = \"second.demo.test\"\nrun_dir = {run:?}\n{settings}");
        fs::write(conf_d.join("00.toml"), other)?;
        self.runs += 1;
        let log = self
            .folder()
            .join(format!("{:03}-second-{agent}.log", self.runs));
        let config = folder.join("postroad.toml");
        let process = Process::start(&self.binary, agent, &config, &[], log)?;
        let mut second = Second { agent, process };
        let ready = wait_for("readiness of the second", async || {
            if let Some(status) = second.process.ended() {
                return Some(Err(anyhow::anyhow!("it ended with {status}")));
            }
            let health = query_health(&health_socket(&run, agent.name()))
                .await
                .ok()?;
            health.ready.then_some(Ok(()))
        });
        ready.await??;
        Ok(second)
    }
}

impl Second {
    /// Kills it without a warning.
    pub fn kill_nine(mut self) -> Result<()> {
        self.process.kill()
    }

    /// What it wrote to standard error.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// SIGTERM; it must end in peace.
    pub async fn end(mut self) -> Result<()> {
        self.process.terminate()?;
        let what = format!("end of the second {}", self.agent);
        let ended = async || self.process.ended();
        let status = wait_for_within(FAREWELL, &what, ended).await?;
        ensure!(status.success(), "{status}");
        status.code().context("it was killed").map(drop)
    }
}
