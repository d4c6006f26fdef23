//! The agents as processes, on free ports of loopback, in a folder of their own.

mod files;
mod host;
mod maildir;
mod ports;
mod process;
mod reach;
mod second;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt, fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use postroad_daemon::{health_socket, query_health};
use postroad_envelope::MailState;
use postroad_queue_client::{ListQuery, QueueAdmin as _};
use tempfile::TempDir;

use self::process::Process;
pub use self::{
    host::Host,
    maildir::{Mail, mails_below},
    ports::{Ports, free_port},
    second::Second,
};
use crate::wait::{wait_for, wait_for_within};

/// The password of every account.
pub const PASSWORD: &str = "correct horse";
/// How long a process may take to end: only one that hangs takes longer on a busy machine.
const FAREWELL: Duration = Duration::from_secs(60);

/// A program of the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Agent {
    /// The queue.
    Queued,
    /// Submission.
    Msa,
    /// Transfer.
    Mta,
    /// Delivery.
    Mda,
    /// All of them in one process.
    All,
}

impl Agent {
    /// The four processes in the order a supervisor would start them.
    pub const SEPARATE: [Self; 4] = [Self::Queued, Self::Msa, Self::Mta, Self::Mda];

    fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Msa => "msa",
            Self::Mta => "mta",
            Self::Mda => "mda",
            Self::All => "postroad",
        }
    }

    fn arguments(self) -> &'static [&'static str] {
        if self == Self::All { &["run"] } else { &[] }
    }

    fn program(self) -> String {
        if self == Self::All {
            "postroad".to_owned()
        } else {
            format!("postroad-{}", self.name())
        }
    }
}

impl fmt::Display for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A stack to be.
pub struct Builder {
    binary: PathBuf,
    agents: Vec<Agent>,
    settings: Vec<String>,
    accounts: Vec<String>,
    directory: String,
    zone: String,
}

impl Builder {
    /// Four processes, made of the multi-call `binary`.
    pub fn new(binary: &str) -> Self {
        Self {
            binary: binary.into(),
            agents: Agent::SEPARATE.to_vec(),
            settings: Vec::new(),
            accounts: Vec::new(),
            directory: String::new(),
            zone: String::new(),
        }
    }

    /// One process that hosts all agents, or one for each.
    pub fn all_in_one(mut self, all_in_one: bool) -> Self {
        self.agents = if all_in_one {
            vec![Agent::All]
        } else {
            Agent::SEPARATE.to_vec()
        };
        self
    }

    /// TOML that is read after the configuration and wins over it key by key.
    pub fn settings(mut self, toml: &str) -> Self {
        self.settings.push(toml.to_owned());
        self
    }

    /// Accounts besides alice, bob and carol of demo.test.
    pub fn accounts(mut self, addresses: impl IntoIterator<Item = String>) -> Self {
        self.accounts.extend(addresses);
        self
    }

    /// TOML that is added to the directory of demo.test.
    pub fn directory(mut self, toml: &str) -> Self {
        self.directory.push_str(toml);
        self
    }

    /// Lines that are added to the zone.
    pub fn zone(mut self, lines: &str) -> Self {
        self.zone.push_str(lines);
        self
    }

    /// Writes all files and starts nothing.
    pub fn prepare(self) -> Result<Stack> {
        let folder = tempfile::Builder::new().prefix("postroad-").tempdir()?;
        let ports = Ports::free()?;
        files::write(folder.path(), &ports, &self)?;
        let processes = self.agents.iter().map(|&agent| (agent, None)).collect();
        let folder = Some(folder);
        Ok(Stack {
            folder,
            ports,
            binary: self.binary,
            processes,
            runs: 0,
            environments: BTreeMap::new(),
        })
    }

    /// Starts all processes and waits until they are ready.
    pub async fn start(self) -> Result<Stack> {
        let mut stack = self.prepare()?;
        stack.start_all().await?;
        Ok(stack)
    }
}

/// A running stack. End it by [`Stack::end`]: one that is merely dropped is a failed test, whose processes are killed,
/// whose logs are shown and whose folder is kept.
pub struct Stack {
    /// `None` once it is gone.
    folder: Option<TempDir>,
    /// Where it listens.
    pub ports: Ports,
    binary: PathBuf,
    processes: BTreeMap<Agent, Option<Process>>,
    /// How many processes were started; numbers the logs.
    runs: usize,
    environments: BTreeMap<Agent, Vec<(String, OsString)>>,
}

impl Stack {
    /// The folder of everything.
    pub fn folder(&self) -> &Path {
        self.folder
            .as_ref()
            .map_or(Path::new("/nonexistent"), TempDir::path)
    }

    /// The certificate clients must trust.
    pub fn ca_file(&self) -> PathBuf {
        self.folder().join("ca.pem")
    }

    /// The configuration file.
    pub fn config_file(&self) -> PathBuf {
        self.folder().join("postroad.toml")
    }

    /// The file of domains, accounts and aliases.
    pub fn directory_file(&self) -> PathBuf {
        self.folder().join("directory.toml")
    }

    /// Where a foreign server with this number is found as a mail host, e.g. `mx1.world.test`.
    pub fn peer_address(&self, number: u8) -> SocketAddr {
        (Ipv4Addr::new(127, 0, 1, number), self.ports.world).into()
    }

    /// Writes TOML that is read after the configuration by every process started from now on; the same `name`
    /// replaces what was written before.
    pub fn configure(&self, name: &str, toml: &str) -> Result<()> {
        Ok(fs::write(
            self.folder().join(format!("conf.d/{name}.toml")),
            toml,
        )?)
    }

    /// Starts all processes and waits until they are ready.
    pub async fn start_all(&mut self) -> Result<()> {
        let agents: Vec<Agent> = self.processes.keys().copied().collect();
        for &agent in &agents {
            self.start(agent)?;
        }
        for agent in agents {
            self.ready(agent).await?;
        }
        Ok(())
    }

    /// Sets a variable for processes of `agent` started from now on.
    pub fn set_variable(&mut self, agent: Agent, name: &str, value: impl Into<OsString>) {
        let of_agent = self.environments.entry(agent).or_default();
        of_agent.push((name.to_owned(), value.into()));
    }

    /// Processes started from now on are made of this multi-call program, such as one of another version.
    pub fn set_binary(&mut self, binary: &Path) {
        binary.clone_into(&mut self.binary);
    }

    /// Starts one process.
    pub fn start(&mut self, agent: Agent) -> Result<()> {
        self.runs += 1;
        let log = self.folder().join(format!("{:03}-{agent}.log", self.runs));
        let config = self.config_file();
        let environment = self.environments.get(&agent).map_or(&[][..], Vec::as_slice);
        let process = Process::start(&self.binary, agent, &config, environment, log)?;
        self.processes.insert(agent, Some(process));
        Ok(())
    }

    /// Starts these, each once the one before is ready.
    pub async fn bring_up(&mut self, agents: &[Agent]) -> Result<()> {
        for &agent in agents {
            self.start(agent)?;
            self.ready(agent).await?;
        }
        Ok(())
    }

    /// Waits until a process says that it does its work.
    pub async fn ready(&mut self, agent: Agent) -> Result<()> {
        let run = self.folder().join("run");
        let hosted = if agent == Agent::All {
            &Agent::SEPARATE[..]
        } else {
            &[agent]
        };
        let process = self.process(agent)?;
        let mut last = String::from("it does not answer");
        let ready = wait_for("readiness", async || {
            if let Some(status) = process.ended() {
                return Some(Err(anyhow::anyhow!("{agent} ended with {status}")));
            }
            for hosted in hosted {
                match query_health(&health_socket(&run, hosted.name())).await {
                    Ok(health) if health.ready => {}
                    Ok(health) => {
                        last = format!("{:?}", health.checks);
                        return None;
                    }
                    Err(_) => return None,
                }
            }
            Some(Ok(()))
        });
        ready.await.with_context(|| format!("{agent}: {last}"))?
    }

    /// Kills a process without a warning.
    pub async fn kill_nine(&mut self, agent: Agent) -> Result<()> {
        self.process(agent)?.kill()?;
        self.processes.insert(agent, None);
        Ok(())
    }

    /// Stops a process where it is (SIGSTOP), until [`Stack::thaw`].
    pub fn freeze(&mut self, agent: Agent) -> Result<()> {
        self.process(agent)?.freeze(true)
    }

    /// Lets a process go on.
    pub fn thaw(&mut self, agent: Agent) -> Result<()> {
        self.process(agent)?.freeze(false)
    }

    /// Lets a process read its configuration again (SIGHUP), and waits until it has said what came of it: that line of its log.
    pub async fn reload(&mut self, agent: Agent) -> Result<String> {
        let before = reloads(&self.log(agent)).len();
        self.process(agent)?.hang_up()?;
        wait_for(&format!("reload of {agent}"), async || {
            let log = self.log(agent);
            reloads(&log).get(before).map(|line| (*line).to_owned())
        })
        .await
    }

    /// Sends SIGTERM and waits for the end; the exit status.
    pub async fn terminate(&mut self, agent: Agent) -> Result<i32> {
        self.process(agent)?.terminate()?;
        self.status(agent).await
    }

    /// Sends SIGTERM and does not wait.
    pub fn ask_to_stop(&mut self, agent: Agent) -> Result<()> {
        self.process(agent)?.terminate()
    }

    /// The exit status of a process that has ended by itself.
    pub fn ended(&mut self, agent: Agent) -> Option<i32> {
        self.process(agent).ok()?.ended()?.code()
    }

    /// Waits for a process to end; its exit status.
    pub async fn status(&mut self, agent: Agent) -> Result<i32> {
        let process = self.process(agent)?;
        let what = format!("end of {agent}");
        let status = wait_for_within(FAREWELL, &what, async || process.ended()).await?;
        status
            .code()
            .with_context(|| format!("{agent} was killed: {status}"))
    }

    /// SIGTERM, start, readiness.
    pub async fn restart(&mut self, agent: Agent) -> Result<()> {
        self.terminate(agent).await?;
        self.bring_up(&[agent]).await
    }

    /// Most memory that the latest process of `agent` ever had, in octets.
    pub fn peak_memory(&self, agent: Agent) -> Result<u64> {
        let process = self.processes.get(&agent).and_then(Option::as_ref);
        let process = process.with_context(|| format!("{agent} was not started"))?;
        process.peak_memory()
    }

    /// What the latest process of `agent` wrote to standard error.
    pub fn log(&self, agent: Agent) -> String {
        let process = self.processes.get(&agent).and_then(Option::as_ref);
        process.map(Process::log).unwrap_or_default()
    }

    /// Stops what runs, in the reverse order of the start, and is content only if every process ends with status 0.
    pub async fn end(mut self) -> Result<()> {
        let running: Vec<Agent> = self
            .processes
            .iter()
            .rev()
            .filter(|(_, process)| process.is_some())
            .map(|(&agent, _)| agent)
            .collect();
        for agent in running {
            if self.process(agent)?.ended().is_none() {
                let status = self.terminate(agent).await?;
                if status != 0 {
                    bail!("{agent} ended with status {status} after SIGTERM");
                }
            }
        }
        self.processes.clear();
        drop(self.folder.take());
        Ok(())
    }

    /// What lies in the Maildir of an account, new and seen.
    pub fn delivered(&self, account: &str) -> Result<Vec<Mail>> {
        maildir::delivered(&self.maildir(account)?)
    }

    /// The Maildir of an account; it need not exist yet.
    pub fn maildir(&self, account: &str) -> Result<PathBuf> {
        maildir::path(&self.folder().join("mail"), account)
    }

    /// Waits until the latest process of `agent` has logged a line with all of `words`.
    pub async fn wait_for_log(&self, agent: Agent, words: &[&str]) -> Result<String> {
        wait_for(&format!("line of {agent} with {words:?}"), async || {
            let log = self.log(agent);
            let fits = |line: &&str| words.iter().all(|word| line.contains(word));
            log.lines().find(fits).map(ToOwned::to_owned)
        })
        .await
    }

    /// Waits until the Maildir holds so many mails.
    pub async fn wait_for_mails(&self, account: &str, count: usize) -> Result<Vec<Mail>> {
        let what = format!("{count} mails of {account}");
        let maildir = self.maildir(account)?;
        wait_for(&what, async || {
            if maildir::count(&maildir) < count {
                return None;
            }
            let mails = self.delivered(account).ok()?;
            (mails.len() >= count).then_some(mails)
        })
        .await
    }

    /// Waits until so many mails are held.
    pub async fn wait_for_held(&self, count: usize) -> Result<()> {
        let admin = self.admin()?;
        wait_for(&format!("{count} held mails"), async || {
            let page = admin.list(ListQuery::default()).await.ok()?;
            let held = page
                .mails
                .iter()
                .filter(|mail| mail.state == MailState::Held);
            (held.count() == count).then_some(())
        })
        .await
    }

    /// Waits until the queue has nothing left to do.
    pub async fn wait_for_empty_queue(&self) -> Result<()> {
        let admin = self.admin()?;
        wait_for("empty queue", async || {
            let page = admin.list(ListQuery::default()).await.ok()?;
            page.mails.is_empty().then_some(())
        })
        .await
    }

    /// Waits for the mail that has `text` somewhere in it.
    pub async fn wait_for_mail_with(&self, account: &str, text: &str) -> Result<Mail> {
        wait_for(&format!("mail of {account} with {text:?}"), async || {
            let mails = self.delivered(account).ok()?;
            mails.into_iter().find(|mail| mail.contains(text))
        })
        .await
    }

    fn process(&mut self, agent: Agent) -> Result<&mut Process> {
        let process = self.processes.get_mut(&agent).and_then(Option::as_mut);
        process.with_context(|| format!("{agent} was not started"))
    }
}

/// What a process said of reloads of its configuration.
fn reloads(log: &str) -> Vec<&str> {
    let of_config = |line: &&str| {
        line.contains("\"event\":\"reloaded\"")
            || (line.contains("\"event\":\"reload_failed\"") && line.contains("the configuration"))
    };
    log.lines().filter(of_config).collect()
}

impl Drop for Stack {
    fn drop(&mut self) {
        let Some(mut folder) = self.folder.take() else {
            return;
        };
        folder.disable_cleanup(true);
        for (agent, process) in &mut self.processes {
            if let Some(process) = process {
                process.show_tail(*agent);
                // It may have ended already.
                let _ = process.kill();
            }
        }
        process::say(&format!(
            "the stack failed (thread {:?}); its folder is kept: {}",
            thread::current().name(),
            folder.path().display()
        ));
    }
}
