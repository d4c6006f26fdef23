//! One process, killed at the latest when it is dropped.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Write as _},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use anyhow::{Context as _, Result};
use postroad_daemon::LOG_VARIABLE;
use rustix::process::{Pid, Signal, kill_process};

use super::Agent;

/// Lines of a log shown when a test failed.
const TAIL: usize = 25;

pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    pub fn start(
        binary: &Path,
        agent: Agent,
        config: &Path,
        environment: &[(String, OsString)],
        log: PathBuf,
    ) -> Result<Self> {
        let mut command = Command::new(binary);
        command.arg0(agent.program());
        Self::spawn(command, agent, config, environment, log)
    }

    /// The same in a network namespace; `program` has the agent's name.
    pub fn start_in(
        namespace: &Path,
        program: &Path,
        agent: Agent,
        config: &Path,
        log: PathBuf,
    ) -> Result<Self> {
        // It becomes the program, so signals reach that.
        let mut command = Command::new("nsenter");
        let mut network = OsString::from("--net=");
        network.push(namespace);
        command.arg(network).arg("--").arg(program);
        Self::spawn(command, agent, config, &[], log)
    }

    fn spawn(
        mut command: Command,
        agent: Agent,
        config: &Path,
        environment: &[(String, OsString)],
        log: PathBuf,
    ) -> Result<Self> {
        let child = command
            .args(agent.arguments())
            .arg("--config")
            .arg(config)
            // The process ends when this pipe does.
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .env_remove(LOG_VARIABLE)
            .env_remove("NOTIFY_SOCKET")
            .envs(environment.iter().cloned())
            .spawn()
            .with_context(|| format!("{command:?}"))?;
        Ok(Self { child, log })
    }

    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGSTOP, or SIGCONT.
    pub fn freeze(&mut self, freeze: bool) -> Result<()> {
        let signal = if freeze { Signal::STOP } else { Signal::CONT };
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    pub fn terminate(&mut self) -> Result<()> {
        // Not waited for yet, so the id is still that of the child.
        if self.ended().is_none() {
            kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        }
        Ok(())
    }

    /// SIGHUP.
    pub fn hang_up(&self) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), Signal::HUP)?)
    }

    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Most memory it ever had, in octets.
    pub fn peak_memory(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        Ok(kib.context("no VmHWM")?.trim().parse::<u64>()? * 1024)
    }

    pub fn log(&self) -> String {
        fs::read(&self.log)
            .map(|log| String::from_utf8_lossy(&log).into_owned())
            .unwrap_or_default()
    }

    pub fn show_tail(&mut self, agent: Agent) {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let state = self
            .ended()
            .map_or("running".to_owned(), |status| status.to_string());
        say(&format!(
            "--- {agent} ({state}), the end of {}",
            self.log.display()
        ));
        for line in lines.iter().skip(lines.len().saturating_sub(TAIL)) {
            say(line);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// To the person who reads the output of a test.
pub fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
