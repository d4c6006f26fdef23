//! Disks whose syncs fail with EIO, by a preloaded library: nothing is acknowledged that is not durable, and what is read
//! after the restart is all that counts.
//!
//! Needs `cc`: with `CI=true` its absence is a failure, elsewhere NOT RUN.

#![allow(clippy::print_stdout, reason = "the report of a test")]

mod back_pressure;

use std::{
    env, fs,
    io::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};
use postroad_queue_client::{Filter, Order, QueueAdmin as _};
use postroad_tests::{Agent, Client, Mail, Stack, envelope, mail, stack, submit, wait_for};
use tokio::task::JoinSet;

const ALICE: &str = "alice@demo.test";
const BOB: &str = "bob@demo.test";
const RAW_CALLS: &[u8] = include_bytes!("../power_cut/raw_calls.c");
const LIBRARY: &[u8] = include_bytes!("failing_syncs.c");
const CLIENTS: usize = 4;
/// The exit status that asks for a restart.
const TEMPORARY: i32 = 75;

/// Syncs of an agent below a folder, which can be made to fail.
struct Syncs {
    trigger: PathBuf,
    stall: PathBuf,
}

impl Syncs {
    /// For processes of `agent` started from now on; none where the library cannot be made.
    fn of(stack: &mut Stack, agent: Agent, below: &str) -> Result<Option<Self>> {
        let Some(library) = compile(stack)? else {
            return Ok(None);
        };
        let trigger = stack.folder().join("syncs-fail");
        let stall = stack.folder().join("syncs-stall");
        let below = stack.folder().join(below);
        stack.set_variable(agent, "LD_PRELOAD", library);
        stack.set_variable(agent, "POSTROAD_FAIL_BELOW", below);
        stack.set_variable(agent, "POSTROAD_FAIL_WHILE", trigger.clone());
        stack.set_variable(agent, "POSTROAD_STALL_WHILE", stall.clone());
        Ok(Some(Self { trigger, stall }))
    }

    fn fail(&self) -> Result<()> {
        Ok(fs::write(&self.trigger, "")?)
    }

    fn work_again(&self) -> Result<()> {
        Ok(fs::remove_file(&self.trigger)?)
    }

    /// They do not come back, until [`Syncs::go_on`].
    fn stall(&self) -> Result<()> {
        Ok(fs::write(&self.stall, "")?)
    }

    fn go_on(&self) -> Result<()> {
        Ok(fs::remove_file(&self.stall)?)
    }
}

fn compile(stack: &Stack) -> Result<Option<PathBuf>> {
    let library = stack.folder().join("failing_syncs.so");
    let compiler = Command::new("cc")
        .args(["-shared", "-fPIC", "-x", "c", "-", "-o"])
        .arg(&library)
        .stdin(Stdio::piped())
        .spawn();
    let Ok(mut compiler) = compiler else {
        if env::var("CI").is_ok_and(|value| value == "true") {
            bail!("needs cc, of the Debian package gcc");
        }
        println!("NOT RUN: needs cc, of the Debian package gcc");
        return Ok(None);
    };
    let mut source = compiler.stdin.take().context("no input")?;
    source.write_all(RAW_CALLS)?;
    source.write_all(LIBRARY)?;
    drop(source);
    ensure!(compiler.wait()?.success(), "cc failed");
    Ok(Some(library))
}

fn copies(mails: &[Mail], subject: &str) -> usize {
    let line = format!("Subject: {subject}\n");
    mails.iter().filter(|mail| mail.contains(&line)).count()
}

/// Mails that all wait for one sync, or come after it failed; the replies to their ends.
async fn attempt_at_once(clients: Vec<Client>) -> Result<Vec<String>> {
    let mut attempts = JoinSet::new();
    for (number, mut client) in clients.into_iter().enumerate() {
        attempts.spawn(async move {
            let content = mail(&format!("refused {number}"), "a\r\n");
            client.attempt(ALICE, &[BOB], &content).await
        });
    }
    attempts.join_all().await.into_iter().collect()
}

#[tokio::test]
async fn a_sync_of_the_journal_that_fails_acknowledges_nothing() -> Result<()> {
    let mut stack = stack!().prepare()?;
    let Some(syncs) = Syncs::of(&mut stack, Agent::Queued, "state/queue/segments")? else {
        return Ok(());
    };
    // Without the MDA everything stays in the queue.
    stack.bring_up(&[Agent::Queued, Agent::Msa]).await?;
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let mut client = stack.login(ALICE).await?;
        let content = mail(&format!("kept {number}"), "a\r\n");
        client.deliver(ALICE, &[BOB], &content).await?;
        clients.push(client);
    }
    let queue = stack.queue()?;
    let (by_id, content) = (envelope(&[BOB])?, mail("by id", "a\r\n"));

    syncs.fail()?;
    let (answer, replies) =
        tokio::join!(submit(&queue, &by_id, &content), attempt_at_once(clients));
    ensure!(answer.is_err(), "{answer:?}");
    for reply in replies? {
        ensure!(reply.starts_with("451 4.3.0"), "{reply}");
    }
    ends_for_the_disk(&mut stack).await?;

    syncs.work_again()?;
    stack.bring_up(&[Agent::Queued]).await?;
    let again = wait_for("answer to the same mail", async || {
        submit(&queue, &by_id, &content).await.ok()
    });
    again.await?;
    stack.bring_up(&[Agent::Mda]).await?;
    stack.wait_for_empty_queue().await?;
    let mails = stack.delivered(BOB)?;
    for number in 0..CLIENTS {
        let kept = copies(&mails, &format!("kept {number}"));
        ensure!(kept == 1, "{kept} copies of an acknowledged mail");
        let refused = copies(&mails, &format!("refused {number}"));
        ensure!(refused <= 1, "{refused} copies of one that was not");
    }
    ensure!(copies(&mails, "by id") == 1, "the same mail twice");
    stack.end().await
}

#[tokio::test]
async fn in_one_process_only_the_queue_begins_anew() -> Result<()> {
    let mut stack = stack!().all_in_one(true).prepare()?;
    let Some(syncs) = Syncs::of(&mut stack, Agent::All, "state/queue/segments")? else {
        return Ok(());
    };
    stack.start_all().await?;
    let mut client = stack.login(ALICE).await?;
    client
        .deliver(ALICE, &[BOB], &mail("kept", "a\r\n"))
        .await?;

    stack.wait_for_mails(BOB, 1).await?;
    stack.wait_for_empty_queue().await?;

    syncs.fail()?;
    let refused = mail("refused", "a\r\n");
    let reply = client.attempt(ALICE, &[BOB], &refused).await?;
    ensure!(reply.starts_with("451 4.3.0"), "{reply}");
    stack
        .wait_for_log(Agent::All, &["disk_failed", "ERROR"])
        .await?;
    syncs.work_again()?;
    stack
        .wait_for_log(Agent::All, &["caught_up", "\"epoch\":2"])
        .await?;
    // On the connection of before: nobody else had to begin anew.
    client.expect("RSET", "250").await?;
    client
        .deliver(ALICE, &[BOB], &mail("again", "a\r\n"))
        .await?;
    stack.wait_for_empty_queue().await?;
    let mails = stack.delivered(BOB)?;
    ensure!(copies(&mails, "kept") == 1 && copies(&mails, "again") == 1);
    stack.end().await
}

/// The ledger is closed after that: the agent ends and asks to be started again.
#[tokio::test]
async fn a_sync_of_the_ledger_that_fails_delivers_nothing_twice() -> Result<()> {
    let mut stack = stack!().prepare()?;
    let Some(syncs) = Syncs::of(&mut stack, Agent::Mda, "mail/.ledger")? else {
        return Ok(());
    };
    stack.start_all().await?;
    let mut client = stack.login(ALICE).await?;
    syncs.fail()?;
    client
        .deliver(ALICE, &[BOB], &mail("once", "a\r\n"))
        .await?;
    let status = stack.status(Agent::Mda).await?;
    ensure!(status == TEMPORARY, "the agent ended with {status}");
    ensure!(stack.log(Agent::Mda).contains("disk_failed"));
    syncs.work_again()?;
    stack.bring_up(&[Agent::Mda]).await?;
    stack.wait_for_empty_queue().await?;
    let mails = stack.delivered(BOB)?;
    ensure!(mails.len() == 1 && copies(&mails, "once") == 1, "{mails:?}");
    stack.end().await
}

#[tokio::test]
async fn a_mail_whose_sync_fails_is_tried_again_and_filed_once() -> Result<()> {
    let mut stack = stack!().prepare()?;
    let maildir = stack.maildir(BOB)?;
    let below = maildir.strip_prefix(stack.folder())?.to_owned();
    let below = below.to_str().context("a path of ours")?;
    let Some(syncs) = Syncs::of(&mut stack, Agent::Mda, below)? else {
        return Ok(());
    };
    stack.start_all().await?;
    let mut client = stack.login(ALICE).await?;
    syncs.fail()?;
    client
        .deliver(ALICE, &[BOB], &mail("once", "a\r\n"))
        .await?;
    let delayed = ["\"event\":\"settled\"", "\"outcome\":\"delayed\""];
    stack.wait_for_log(Agent::Queued, &delayed).await?;
    syncs.work_again()?;
    stack.wait_for_empty_queue().await?;
    let mails = stack.delivered(BOB)?;
    ensure!(mails.len() == 1 && copies(&mails, "once") == 1, "{mails:?}");
    let reports = stack.delivered(ALICE)?;
    ensure!(reports.is_empty(), "nobody was to be told: {reports:?}");
    stack.end().await
}

/// Tried again, a sync of the index may succeed and mean nothing: the next start makes another index.
#[tokio::test]
async fn a_sync_of_the_index_that_fails_ends_the_queue_and_it_is_made_anew() -> Result<()> {
    let mut stack = stack!().prepare()?;
    let Some(syncs) = Syncs::of(&mut stack, Agent::Queued, "state/queue/index/db")? else {
        return Ok(());
    };
    stack.bring_up(&[Agent::Queued, Agent::Msa]).await?;
    let mut client = stack.login(ALICE).await?;
    client
        .deliver(ALICE, &[BOB], &mail("kept", "a\r\n"))
        .await?;
    syncs.fail()?;
    // There is something for the next checkpoint, which fails, perhaps before the mail is taken.
    let reply = client
        .attempt(ALICE, &[BOB], &mail("perhaps", "a\r\n"))
        .await?;
    ends_for_the_disk(&mut stack).await?;
    syncs.work_again()?;
    stack.start(Agent::Queued)?;
    stack.wait_for_log(Agent::Queued, &["put aside"]).await?;
    stack.bring_up(&[Agent::Mda]).await?;
    stack.wait_for_mails(BOB, 1).await?;
    stack.wait_for_empty_queue().await?;
    let mails = stack.delivered(BOB)?;
    ensure!(copies(&mails, "kept") == 1, "{mails:?}");
    let perhaps = copies(&mails, "perhaps");
    let taken = usize::from(reply.starts_with("250"));
    ensure!((taken..=1).contains(&perhaps), "{perhaps} after {reply}");
    stack.end().await
}

/// An index that was made anew has the name already, and nobody knows whether the disk says so too.
#[tokio::test]
async fn the_name_of_a_new_index_that_cannot_be_made_durable_ends_the_queue() -> Result<()> {
    let mut stack = stack!().prepare()?;
    let Some(syncs) = Syncs::of(&mut stack, Agent::Queued, "state/queue/.")? else {
        return Ok(());
    };
    stack.start_all().await?;
    let mut client = stack.login(ALICE).await?;
    client
        .deliver(ALICE, &[BOB], &mail("purged", "a\r\n"))
        .await?;
    stack.wait_for_mails(BOB, 1).await?;
    stack.wait_for_empty_queue().await?;
    let (admin, all) = (stack.admin()?, Order::from(Filter::all()));
    syncs.fail()?;
    let refused = admin.purge(all.clone()).await;
    ensure!(refused.is_err(), "{refused:?}");
    ends_for_the_disk(&mut stack).await?;

    syncs.work_again()?;
    stack.bring_up(&[Agent::Queued]).await?;
    let again = wait_for("purge", async || admin.purge(all.clone()).await.ok());
    ensure!(again.await?.mails == 1);
    let welcome = mail("welcome", "a\r\n");
    let reply = stack.submit_while("45", BOB, &welcome).await?;
    ensure!(reply.starts_with("250"), "{reply}");
    stack.wait_for_mails(BOB, 2).await?;
    stack.end().await
}

async fn ends_for_the_disk(stack: &mut Stack) -> Result<()> {
    let status = stack.status(Agent::Queued).await?;
    ensure!(status == TEMPORARY, "the queue ended with {status}");
    let log = stack.log(Agent::Queued);
    let told = |line: &str| line.contains("disk_failed") && line.contains("ERROR");
    ensure!(log.lines().any(told), "nobody was told: {log}");
    Ok(())
}
