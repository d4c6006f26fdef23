//! Two delivery agents, each with the mailboxes of its own accounts; and an account that moves from one to the other while mail
//! comes in and everything that has to do with it is killed.
//!
//! `POSTROAD_KILL_ROUNDS` runs more rounds, `POSTROAD_SEED` repeats a run.

#![allow(clippy::print_stdout, reason = "the report of a test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    ffi::OsStr,
    fs::File,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use postroad_queue_client::{ListQuery, QueueAdmin as _, RemoteQueue};
use postroad_tests::{
    Agent, Mail, PATIENCE, Second, Stack, envelope, mail, mails_below, stack, submit, wait_for,
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

const BOB: &str = "bob@demo.test";
/// Of the second store.
const DAVE: &str = "dave@demo.test";
const IN_B: &str = "[[account]]\naddress = \"dave@demo.test\"\nstore = \"b\"\n";
const ROUNDS: usize = 12;

/// Starts the agent of store b, with mailboxes of its own.
async fn start_b(stack: &mut Stack) -> Result<Second> {
    let root = root_of_b(stack);
    let settings = format!(
        "[mda]\nstore = \"b\"\nmail_root = {root:?}\nlmtp.listeners.lmtp = \"127.0.0.1:0\"\n"
    );
    stack.second(Agent::Mda, &settings).await
}

fn root_of_b(stack: &Stack) -> PathBuf {
    stack.folder().join("mail-b")
}

async fn send(queue: &RemoteQueue, to: &[&str], token: &str) -> Result<()> {
    let content = mail(&format!("token {token}"), "to be filed once\r\n");
    let envelope = envelope(to)?;
    // The id makes one mail of all tries.
    let accepted = async {
        while submit(queue, &envelope, &content).await.is_err() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    Ok(timeout(PATIENCE, accepted).await?)
}

fn tokens(mails: &[Mail]) -> Result<Vec<String>> {
    let token = |mail: &Mail| {
        let text = mail.text();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("Subject: token "));
        Ok(line.context("a mail without a token")?.to_owned())
    };
    mails.iter().map(token).collect()
}

async fn arrives(root: &Path, account: &str, token: &str) -> Result<()> {
    wait_for(&format!("{token} of {account}"), async || {
        let mails = mails_below(root, account).ok()?;
        tokens(&mails)
            .ok()?
            .contains(&token.to_owned())
            .then_some(())
    })
    .await
}

/// The mails that wait, by the accounts they are for.
async fn waiting(stack: &Stack) -> Result<BTreeSet<String>> {
    let page = stack.admin()?.list(ListQuery::default()).await?;
    let open = page.mails.into_iter().flat_map(|mail| mail.open_recipients);
    Ok(open.map(|address| address.to_string()).collect())
}

#[tokio::test]
async fn each_store_files_its_own_mail_and_one_that_is_down_delays_no_other() -> Result<()> {
    let mut stack = stack!().directory(IN_B).start().await?;
    let (queue, a, b) = (
        stack.queue()?,
        stack.folder().join("mail"),
        root_of_b(&stack),
    );
    send(&queue, &[DAVE, BOB], "first").await?;
    arrives(&a, BOB, "first").await?;
    let only_dave = wait_for("settlement", async || {
        let waiting = waiting(&stack).await.ok()?;
        (waiting.len() == 1).then_some(waiting)
    });
    ensure!(only_dave.await? == BTreeSet::from([DAVE.to_owned()]));

    let second = start_b(&mut stack).await?;
    arrives(&b, DAVE, "first").await?;
    let agents = stack.admin()?.agents().await?;
    let stores = agents.iter().flat_map(|agent| &agent.stores);
    let stores: BTreeSet<&str> = stores.map(|store| store.as_str()).collect();
    ensure!(stores == BTreeSet::from(["b", "default"]), "{agents:?}");

    stack.kill_nine(Agent::Mda).await?;
    send(&queue, &[BOB, DAVE], "second").await?;
    arrives(&b, DAVE, "second").await?;
    ensure!(waiting(&stack).await?.contains(BOB));
    stack.bring_up(&[Agent::Mda]).await?;
    arrives(&a, BOB, "second").await?;
    stack.wait_for_empty_queue().await?;
    ensure!(mails_below(&a, DAVE)?.is_empty() && mails_below(&b, BOB)?.is_empty());

    // An account that moves takes along what waits for it.
    second.end().await?;
    send(&queue, &[DAVE], "third").await?;
    let moved = verb(
        &stack,
        &stack.config_file(),
        ["account", "move", DAVE, "--to-store", "default"],
    )?;
    ensure!(moved.success());
    arrives(&a, DAVE, "third").await?;
    stack
        .wait_for_log(Agent::Queued, &["\"rerouted\"", "local domain"])
        .await?;
    stack.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_moves_under_load_and_kills_and_each_mail_is_in_one_store_once() -> Result<()> {
    let seed = number("POSTROAD_SEED").unwrap_or_else(rand::random);
    let rounds = number("POSTROAD_KILL_ROUNDS").map_or(Ok(ROUNDS), usize::try_from)?;
    println!("POSTROAD_SEED={seed} POSTROAD_KILL_ROUNDS={rounds}");
    let mut chance = StdRng::seed_from_u64(seed);
    let mut stack = stack!().directory(IN_B).start().await?;
    let mut second = Some(start_b(&mut stack).await?);
    let load = Load::start(stack.queue()?);
    load.reaches(60).await?;

    let moved = verb(
        &stack,
        &stack.config_file(),
        ["account", "move", BOB, "--to-store", "b"],
    )?;
    ensure!(moved.success());
    let (mut killed, mut removed) = (0, 0);
    for round in 0..rounds {
        load.reaches(load.acknowledged() + chance.random_range(1..10))
            .await?;
        match round % 4 {
            0 => restart(&mut stack, Agent::Mda).await?,
            1 => {
                second.take().context("the agent of b")?.kill_nine()?;
                second = Some(start_b(&mut stack).await?);
            }
            2 => restart(&mut stack, Agent::Queued).await?,
            _ => {}
        }
        let mut moving = Moving::begin(&stack)?;
        if chance.random_bool(0.6) {
            sleep(Duration::from_millis(chance.random_range(0..40))).await;
            killed += usize::from(moving.kill_one(chance.random_bool(0.5))?);
        }
        if moving.end()? {
            let mut remove = Moving::remove(&stack)?;
            sleep(Duration::from_millis(chance.random_range(0..60))).await;
            if chance.random_bool(0.5) {
                let _ = remove.kill();
            }
            removed += usize::from(remove.wait()?.success());
        }
    }
    let sent = load.stop().await?;
    stack.wait_for_empty_queue().await?;
    // The documented way: until nothing is left.
    wait_for("an empty old mailbox", async || {
        let whole = Moving::begin(&stack).and_then(Moving::end).ok()?;
        let removed = Moving::remove(&stack).ok()?.wait().ok()?;
        (whole && removed.success()).then_some(())
    })
    .await?;
    println!(
        "{} mails, {killed} steps were killed, {removed} removals came through before the end",
        sent.len()
    );
    ensure!(killed > 0, "no step was killed");
    judge(&stack, &sent)?;
    second.context("the agent of b")?.end().await?;
    stack.end().await
}

fn judge(stack: &Stack, sent: &BTreeSet<String>) -> Result<()> {
    let old = mails_below(&stack.folder().join("mail"), BOB)?;
    ensure!(old.is_empty(), "{} mails are left", old.len());
    let mut seen = BTreeMap::<String, usize>::new();
    for token in tokens(&mails_below(&root_of_b(stack), BOB)?)? {
        *seen.entry(token).or_default() += 1;
    }
    let twice: Vec<_> = seen.iter().filter(|(_, count)| **count > 1).collect();
    ensure!(twice.is_empty(), "more than once: {twice:?}");
    let lost: Vec<_> = sent
        .iter()
        .filter(|token| !seen.contains_key(*token))
        .collect();
    ensure!(lost.is_empty(), "lost: {lost:?}");
    ensure!(
        seen.len() == sent.len(),
        "{} came of {}",
        seen.len(),
        sent.len()
    );
    Ok(())
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok()?.parse().ok()
}

async fn restart(stack: &mut Stack, agent: Agent) -> Result<()> {
    stack.kill_nine(agent).await?;
    stack.bring_up(&[agent]).await
}

fn command<A: AsRef<OsStr>>(config: &Path, arguments: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_agents"));
    command.arg0("postroad-verb").arg("--config").arg(config);
    command.args(arguments);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

fn verb<const N: usize>(_: &Stack, config: &Path, arguments: [&str; N]) -> Result<ExitStatus> {
    Ok(command(config, arguments).status()?)
}

/// An export that an import reads, as over ssh.
struct Moving {
    export: Child,
    import: Child,
}

impl Moving {
    fn begin(stack: &Stack) -> Result<Self> {
        let mut export = command(&stack.config_file(), ["mailbox", "export", BOB]);
        let mut export = export.stdout(Stdio::piped()).spawn()?;
        let stream = export.stdout.take().context("its output")?;
        let mut import = command(&stack.second_config_file(), ["mailbox", "import", BOB]);
        let receipt = File::create(receipt(stack))?;
        let import = import.stdin(stream).stdout(receipt).spawn()?;
        Ok(Self { export, import })
    }

    /// Whether it was still at work.
    fn kill_one(&mut self, export: bool) -> Result<bool> {
        let victim = if export {
            &mut self.export
        } else {
            &mut self.import
        };
        let works = victim.try_wait()?.is_none();
        victim.kill()?;
        Ok(works)
    }

    /// Whether both came to their end.
    fn end(mut self) -> Result<bool> {
        let (export, import) = (self.export.wait()?, self.import.wait()?);
        Ok(export.success() && import.success())
    }

    fn remove(stack: &Stack) -> Result<Child> {
        let receipt = receipt(stack).display().to_string();
        let arguments = ["mailbox", "remove", BOB, "--as-imported", &receipt];
        Ok(command(&stack.config_file(), arguments).spawn()?)
    }
}

fn receipt(stack: &Stack) -> PathBuf {
    stack.folder().join("receipt")
}

/// Mail for Bob, one after the other.
struct Load {
    acknowledged: Arc<AtomicUsize>,
    stop: CancellationToken,
    sending: JoinHandle<Result<BTreeSet<String>>>,
}

impl Load {
    fn start(queue: RemoteQueue) -> Self {
        let (acknowledged, stop) = (Arc::new(AtomicUsize::new(0)), CancellationToken::new());
        let sending = tokio::spawn({
            let (acknowledged, stop) = (Arc::clone(&acknowledged), stop.clone());
            async move {
                let mut sent = BTreeSet::new();
                while !stop.is_cancelled() {
                    let token = format!("{:06}", sent.len());
                    send(&queue, &[BOB], &token).await?;
                    sent.insert(token);
                    acknowledged.store(sent.len(), Ordering::Relaxed);
                }
                Ok(sent)
            }
        });
        Self {
            acknowledged,
            stop,
            sending,
        }
    }

    fn acknowledged(&self) -> usize {
        self.acknowledged.load(Ordering::Relaxed)
    }

    async fn reaches(&self, count: usize) -> Result<()> {
        wait_for("acknowledged mail", async || {
            (self.acknowledged() >= count).then_some(())
        })
        .await
    }

    async fn stop(self) -> Result<BTreeSet<String>> {
        self.stop.cancel();
        self.sending.await?
    }
}
