//! A process that lives until the power is cut; the parent's side.

use std::{
    collections::BTreeSet,
    env,
    fs::File,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};
use postroad_envelope::QueueId;

use crate::{
    disk::Switch,
    phases,
    told::{self, Word},
};

const PATIENCE: Duration = Duration::from_secs(90);

/// What to start: this program again, in another role.
pub struct Role<'a> {
    pub name: &'a str,
    pub mount: &'a Path,
    pub seed: u64,
    /// Where what was told lies, and where the process may write its complaints.
    pub folder: &'a Path,
    pub preload: Option<&'a Path>,
}

impl Role<'_> {
    fn complaints(&self) -> PathBuf {
        self.folder.join(format!("{}.stderr", self.name))
    }

    fn spawn(&self) -> Result<Child> {
        let mut command = Command::new(env::current_exe()?);
        command
            .args(["role", self.name])
            .args([self.mount, &self.folder.join("told")])
            .arg(self.seed.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(self.complaints())?);
        if let Some(preload) = self.preload {
            command
                .env("LD_PRELOAD", preload)
                .env("POSTROAD_RECORD_FOLDER", self.mount)
                .env("POSTROAD_RECORD_LOG", self.folder.join("recording"));
        }
        Ok(command.spawn()?)
    }

    /// Lets it end by itself; what it said is the result, what it complained about the error.
    pub fn run(&self) -> Result<Vec<String>> {
        let mut child = self.spawn()?;
        let output = child.stdout.take().context("no output")?;
        let lines = thread::spawn(move || lines(output).collect());
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            match child.try_wait()? {
                Some(status) => break status,
                None if Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
                None => {
                    child.kill()?;
                    child.wait()?;
                    bail!("{} did not end within {PATIENCE:?}", self.name);
                }
            }
        };
        if !status.success() {
            let complaints = std::fs::read_to_string(self.complaints())?;
            bail!("{} ({status}): {}", self.name, complaints.trim());
        }
        lines.join().map_err(|_| anyhow!("the reader panicked"))
    }
}

/// What a life told before its end.
#[derive(Debug, Default)]
pub struct Heard {
    pub told: Vec<(Word, QueueId, u32)>,
    /// Whether it had opened.
    pub was_ready: bool,
    /// What was under way in the upkeep.
    pub phases: BTreeSet<&'static str>,
}

pub struct Life {
    child: Child,
    cut: Arc<AtomicBool>,
    ready: mpsc::Receiver<()>,
    heard: JoinHandle<Heard>,
    complaints: PathBuf,
}

impl Life {
    pub fn start(role: &Role<'_>) -> Result<Self> {
        let mut child = role.spawn()?;
        let output = child.stdout.take().context("no output")?;
        let answers = child.stdin.take().context("no input")?;
        let (tell_ready, ready) = mpsc::channel();
        let cut = Arc::new(AtomicBool::new(false));
        let is_cut = Arc::clone(&cut);
        let heard = thread::spawn(move || listen(output, answers, &tell_ready, &is_cut));
        Ok(Self {
            child,
            cut,
            ready,
            heard,
            complaints: role.complaints(),
        })
    }

    pub fn ready(&self) -> Result<()> {
        let ready = self.ready.recv_timeout(PATIENCE);
        ready.map_err(|_| anyhow!("not ready: {}", self.complaints()))
    }

    /// What was told before the power went. What is read later may be of a dead disk; but that something was tried
    /// counts even then.
    pub fn cut(mut self, switch: Switch) -> Result<Heard> {
        if let Some(status) = self.child.try_wait()? {
            bail!(
                "ended by itself before the cut ({status}): {}",
                self.complaints()
            );
        }
        self.cut.store(true, Ordering::SeqCst);
        switch.cut()?;
        self.child.kill()?;
        self.child.wait()?;
        self.heard
            .join()
            .map_err(|_| anyhow!("the reader panicked"))
    }

    fn complaints(&self) -> String {
        std::fs::read_to_string(&self.complaints).unwrap_or_default()
    }
}

/// Answers each acknowledgement that counts, as a queue answers a settlement that is durable.
fn listen(
    output: ChildStdout,
    mut answers: ChildStdin,
    ready: &mpsc::Sender<()>,
    cut: &AtomicBool,
) -> Heard {
    let mut heard = Heard::default();
    for line in lines(output) {
        // Asked after the line is in hand: then the line is older than the cut.
        let counts = !cut.load(Ordering::SeqCst);
        if line == "ready" {
            heard.was_ready |= counts;
            let _ = ready.send(());
        }
        if let Some((phase, begins)) = phases::hear(&line).filter(|_| counts) {
            match begins {
                true => heard.phases.insert(phase),
                false => heard.phases.remove(phase),
            };
        }
        let Some((word, id, recipients)) = told::hear(&line) else {
            continue;
        };
        if counts || matches!(word, Word::Trying | Word::LettingGo) {
            heard.told.push((word, id, recipients));
        }
        if counts && word == Word::Acknowledged {
            // It may be gone, or not care.
            let _ = writeln!(answers, "{id}");
        }
    }
    heard
}

fn lines(output: ChildStdout) -> impl Iterator<Item = String> {
    BufReader::new(output).lines().map_while(Result::ok)
}
