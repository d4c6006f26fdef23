//! With less room than the reserve new mail gets 452 4.3.1, while what is in the queue goes on.

#![allow(clippy::print_stdout, reason = "the report of a test")]

use std::process::Command;

use anyhow::{Result, ensure};
use postroad_tests::{Agent, Peer, mail, stack, wait_for};

#[tokio::test]
async fn new_mail_waits_and_old_mail_leaves() -> Result<()> {
    let mut stack = stack!().start().await?;
    let mut peer = Peer::down(stack.peer_address(1));
    let mut client = stack.login("alice@demo.test").await?;
    client
        .deliver(
            "alice@demo.test",
            &["friend@world.test"],
            &mail("old", "a\r\n"),
        )
        .await?;

    stack.configure("50-disk", "[queued.disk]\nreserve = \"1000TiB\"\n")?;
    stack.restart(Agent::Queued).await?;
    let refused = mail("refused", "a\r\n");
    let full = stack
        .submit_while("451 4.3.0", "bob@demo.test", &refused)
        .await?;
    ensure!(full.starts_with("452 4.3.1"), "{full}");
    peer.go_up().await?;
    wait_for("the old mail", async || peer.kept().pop()).await?;
    stack.wait_for_empty_queue().await?;
    let mut world = stack.world_client().await?;
    let reply = world
        .attempt(
            "a@world.test",
            &["bob@demo.test"],
            &mail("refused", "a\r\n"),
        )
        .await?;
    ensure!(reply.starts_with("452 4.3.1"), "{reply}");

    stack.configure("50-disk", "")?;
    stack.restart(Agent::Queued).await?;
    let welcome = mail("welcome", "a\r\n");
    let reply = stack.submit_while("45", "bob@demo.test", &welcome).await?;
    ensure!(reply.starts_with("250"), "{reply}");
    let mails = stack.wait_for_mails("bob@demo.test", 1).await?;
    ensure!(
        mails.len() == 1 && mails[0].contains("Subject: welcome"),
        "{mails:?}"
    );
    stack.end().await
}

/// A disk that really fills up. Needs the right to mount one; elsewhere the test above has to do.
#[tokio::test]
async fn a_disk_that_fills_up_loses_nothing_and_recovers() -> Result<()> {
    let Some(disk) = SmallDisk::mount()? else {
        println!("NOT RUN: no right to mount a tmpfs");
        return Ok(());
    };
    let queue = disk.folder.path().join("queue");
    let settings = format!("[queued]\nfolder = {queue:?}\n[queued.disk]\nreserve = \"8MiB\"\n");
    let mut stack = stack!().settings(&settings).prepare()?;
    // Without the MDA everything stays in the queue.
    for agent in [Agent::Queued, Agent::Msa] {
        stack.start(agent)?;
        stack.ready(agent).await?;
    }
    let mut client = stack.login("alice@demo.test").await?;
    let line = "a line of a mail that fills the disk\r\n";
    let mut taken = 0;
    let refusal = loop {
        let content = mail(
            &format!("number {taken}"),
            &line.repeat(200_000 / line.len()),
        );
        let reply = client
            .attempt("alice@demo.test", &["bob@demo.test"], &content)
            .await?;
        if !reply.starts_with("250") {
            break reply;
        }
        taken += 1;
        ensure!(taken < 1000, "{taken} mails fit on a disk of {SMALL_DISK}");
    };
    ensure!(refusal.starts_with("452 4.3.1"), "{refusal}");
    ensure!(taken > 10, "only {taken} mails were taken");

    stack.start(Agent::Mda)?;
    let mails = stack.wait_for_mails("bob@demo.test", taken).await?;
    ensure!(mails.len() == taken, "{} of {taken} mails", mails.len());
    stack.wait_for_empty_queue().await?;
    let reply = stack
        .submit_while("45", "bob@demo.test", &mail("room again", "a\r\n"))
        .await?;
    ensure!(reply.starts_with("250"), "{reply}");
    stack.wait_for_mails("bob@demo.test", taken + 1).await?;
    stack.end().await
}

const SMALL_DISK: &str = "64m";

/// A file system of its own in memory, until it is dropped.
struct SmallDisk {
    folder: tempfile::TempDir,
}

impl SmallDisk {
    /// `None` without the right to mount.
    fn mount() -> Result<Option<Self>> {
        let disk = Self {
            folder: tempfile::tempdir()?,
        };
        let size = format!("size={SMALL_DISK}");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(disk.folder.path())
            .output();
        Ok(mount
            .is_ok_and(|mount| mount.status.success())
            .then_some(disk))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Fails if it was never mounted.
        let _ = Command::new("umount")
            .arg("--lazy")
            .arg(self.folder.path())
            .output();
    }
}
