//! Agents that know nothing of us but `proto/README.md`, under kills of either end.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use postroad_tests::{Agent, Stack, stack, wait_for};
use tokio::{
    io::AsyncWriteExt as _,
    process::{Child, Command},
    task::JoinSet,
    time::timeout,
};

use crate::{needs::python, world::World};

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../proto/examples/python");
const PROTO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../proto");
const SENDER: &str = "alice@demo.test";
const RECIPIENTS: [&str; 2] = ["bob@demo.test", "carol@demo.test"];
/// Processes that submit, and mails of each.
const SUBMITTERS: usize = 2;
const MAILS: usize = 12;
/// Mails between two kills.
const STRIDE: usize = 5;
/// Too much for a lease: it is read.
const LARGE: usize = 600_000;
const PATIENCE: Duration = Duration::from_secs(100);

/// A submitter and a worker in Python carry mail through a queue, each mail once, while worker and queue are killed.
pub async fn in_python_lose_nothing(_: &World) -> Result<()> {
    let mut stack = stack!().prepare()?;
    stack.bring_up(&[Agent::Queued]).await?;
    let place = Place::make(stack.folder()).await?;
    let mut worker = place.worker()?;
    let mut submitters = JoinSet::new();
    for submitter in 0..SUBMITTERS {
        let place = place.clone();
        submitters.spawn(async move {
            for number in 0..MAILS {
                place.submit(&format!("{submitter}-{number}")).await?;
            }
            anyhow::Ok(())
        });
    }
    for kill in 1..=4 {
        let enough = (kill * STRIDE * RECIPIENTS.len()).min(place.filed()?.len() + STRIDE);
        wait_for("filed mail", async || {
            (place.filed().ok()?.len() >= enough).then_some(())
        })
        .await?;
        if kill % 2 == 0 {
            stack.kill_nine(Agent::Queued).await?;
            stack.bring_up(&[Agent::Queued]).await?;
        } else {
            worker.kill().await?;
            worker = place.worker()?;
        }
    }
    while let Some(submitter) = submitters.join_next().await {
        submitter??;
    }
    stack.wait_for_empty_queue().await?;
    leave(&stack, worker).await?;

    let filed = place.filed()?;
    let mut copies: BTreeMap<&str, usize> = BTreeMap::new();
    for subject in &filed {
        *copies.entry(subject).or_default() += 1;
    }
    for subject in (0..SUBMITTERS).flat_map(|one| (0..MAILS).map(move |n| format!("{one}-{n}"))) {
        let found = copies.remove(subject.as_str());
        ensure!(
            found == Some(RECIPIENTS.len()),
            "{found:?} copies of {subject} in {} mboxes",
            RECIPIENTS.len()
        );
    }
    ensure!(copies.is_empty(), "nobody sent {copies:?}");
    stack.end().await
}

/// A worker that is told to stop says so to the queue, which has nothing to wait for then.
async fn leave(stack: &Stack, mut worker: Child) -> Result<()> {
    // The queue was killed, and may have had nothing left to do: then the worker is still on its way back to it.
    stack
        .wait_for_log(Agent::Queued, &["worker_connected", "mbox@"])
        .await?;
    let id = worker.id().context("the worker has ended by itself")?;
    let id = rustix::process::Pid::from_raw(i32::try_from(id)?).context("no process")?;
    rustix::process::kill_process(id, rustix::process::Signal::TERM)?;
    let status = timeout(PATIENCE, worker.wait()).await??;
    ensure!(status.success(), "the worker ended with {status}");
    let lost = stack.wait_for_log(Agent::Queued, &["worker_lost"]).await?;
    ensure!(lost.contains("mbox@"), "{lost}");
    Ok(())
}

/// The examples as a user has them, with the stubs that were made of the `.proto` files.
#[derive(Clone)]
struct Place {
    code: PathBuf,
    mail: PathBuf,
    target: String,
}

impl Place {
    async fn make(folder: &Path) -> Result<Self> {
        let code = folder.join("python");
        fs::create_dir(&code)?;
        for entry in fs::read_dir(EXAMPLES)? {
            let path = entry?.path();
            if let Some(name) = path.file_name().filter(|_| path.is_file()) {
                fs::copy(&path, code.join(name))?;
            }
        }
        let made = Command::new(python())
            .args(["-m", "grpc_tools.protoc", "-I", PROTO])
            .args(["--python_out=.", "--grpc_python_out=."])
            .args(["types", "queue"].map(|name| format!("{PROTO}/postroad/queue/v1/{name}.proto")))
            .current_dir(&code)
            .output()
            .await?;
        let said = String::from_utf8_lossy(&made.stderr);
        ensure!(made.status.success(), "no stubs: {said}");
        Ok(Self {
            mail: folder.join("mboxes"),
            target: format!("unix:{}", folder.join("run/queue.sock").display()),
            code,
        })
    }

    fn worker(&self) -> Result<Child> {
        let worker = Command::new(python())
            .args(["mbox_worker.py", &self.target])
            .arg(&self.mail)
            .current_dir(&self.code)
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        Ok(worker)
    }

    async fn submit(&self, subject: &str) -> Result<()> {
        let mut submitter = Command::new(python())
            .args(["submitter.py", &self.target, SENDER])
            .args(RECIPIENTS)
            .current_dir(&self.code)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let mut content = format!("Subject: {subject}\n\nFrom the first line on\n");
        if subject.ends_with("-3") {
            content.push_str(&"and on\n".repeat(LARGE / 7));
        }
        let mut input = submitter.stdin.take().context("no input")?;
        input.write_all(content.as_bytes()).await?;
        drop(input);
        let status = timeout(PATIENCE, submitter.wait()).await??;
        ensure!(status.success(), "{subject} was not taken: {status}");
        Ok(())
    }

    /// Subjects of what the ledger names; a mail behind that may be half written.
    fn filed(&self) -> Result<Vec<String>> {
        let mut subjects = Vec::new();
        let Ok(ledger) = fs::read_to_string(self.mail.join("LEDGER")) else {
            return Ok(subjects);
        };
        let mut lengths: BTreeMap<&str, usize> = BTreeMap::new();
        for line in ledger.lines() {
            let fields: Vec<&str> = line.split(' ').collect();
            if let [_, _, length, address] = fields[..] {
                lengths.insert(address, length.parse()?);
            }
        }
        for (address, length) in lengths {
            let text = fs::read(self.mail.join(format!("{address}.mbox")))?;
            let whole = text.get(..length).context("the mbox is too short")?;
            let whole = String::from_utf8_lossy(whole);
            let found = whole.lines().filter_map(|l| l.strip_prefix("Subject: "));
            subjects.extend(found.map(str::to_owned));
        }
        Ok(subjects)
    }
}
