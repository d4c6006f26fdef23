//! With less room than the reserve new mail gets 452 4.3.1, while what is in the queue goes on.

#![allow(clippy::print_stdout, reason = "the report of a test")]

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read as _},
    path::PathBuf,
    process::Command,
};

use anyhow::{Result, ensure};
use postroad_queue_client::QueueAdmin as _;
use postroad_tests::{Agent, Client, Peer, Stack, mail, stack, wait_for};

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
    fills_up_and_recovers("reserve = \"8MiB\"").await
}

/// There is never a third one, so what ends mail must come to the second, and the first must go for more mail to come.
#[tokio::test]
async fn a_disk_with_room_for_two_segments_loses_nothing_and_recovers() -> Result<()> {
    fills_up_and_recovers("reserve = \"1MiB\"\nsegment = \"24MiB\"").await
}

async fn fills_up_and_recovers(settings: &str) -> Result<()> {
    let Some(disk) = SmallDisk::mount()? else {
        println!("NOT RUN: no right to mount a tmpfs");
        return Ok(());
    };
    let queue = disk.folder.path().join("queue");
    let settings = format!("[queued]\nfolder = {queue:?}\n[queued.disk]\n{settings}\n");
    let mut stack = stack!().settings(&settings).prepare()?;
    // Without the MDA everything stays in the queue.
    stack.bring_up(&[Agent::Queued, Agent::Msa]).await?;
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

/// Others leave less than the reserve: what is in the queue leaves, and the queue goes on when there is room again. What is
/// kept of mails that ended may go without; that is counted.
#[tokio::test]
async fn a_disk_below_its_reserve_stops_no_mail_on_its_way() -> Result<()> {
    let Some((disk, mut stack)) = on_a_small_disk("16MiB").await? else {
        return Ok(());
    };
    let mut client = fill_queue(&stack).await?;
    // Room for new mail and for what is written ahead, and not for this one.
    disk.fill(30 << 20)?;
    let content = mail("too much", &LINE.repeat((40 << 20) / LINE.len()));
    let reply = client.attempt(ALICE, &[BOB], &content).await?;
    ensure!(reply.starts_with("452 4.3.1"), "{reply}");
    let files = fs::read_dir(disk.queue().join("content"))?.count();
    ensure!(files == LARGE, "{files} content files of {LARGE} mails");
    drop(client);

    disk.fill(8 << 20)?;
    let refused = mail("refused", "a\r\n");
    let reply = stack.submit_while("250", BOB, &refused).await?;
    ensure!(reply.starts_with("452 4.3.1"), "{reply}");
    stack.bring_up(&[Agent::Mda]).await?;
    stack.wait_for_empty_queue().await?;
    let lost = ["disk_failed", "retired mails cannot be written"];
    stack.wait_for_log(Agent::Queued, &lost).await?;

    disk.empty()?;
    all_is_well(&stack).await?;
    // Of the same process: each loss is told when it begins, and counted in the end. Which of the two had no room, the disk decides.
    let status = stack.terminate(Agent::Queued).await?;
    ensure!(status == 0, "the queue ended with {status}");
    let log = stack.log(Agent::Queued);
    let told = |words: &str| log.lines().filter(|line| line.contains(words)).count();
    let losses = [
        ("mails are not retired", "mails were not retired"),
        (
            "finished mails are not kept",
            "finished mails could not be kept",
        ),
    ];
    let mut begun = 0;
    for (begins, in_the_end) in losses {
        let (times, counts) = (told(begins), told(in_the_end));
        ensure!((times > 0) == (counts > 0), "{begins}: {times}, {counts}");
        ensure!(counts <= 1 && times <= 3, "{begins}: {times}, {counts}");
        begun += times;
    }
    ensure!(begun > 0, "nothing was lost on a disk without room");
    stack.end().await
}

/// Others take all there is: even the index has no room then. The queue may end and ask to be started again; mail is neither
/// lost nor doubled.
#[tokio::test]
async fn a_disk_without_an_octet_loses_nothing() -> Result<()> {
    let Some((disk, mut stack)) = on_a_small_disk("4MiB").await? else {
        return Ok(());
    };
    drop(fill_queue(&stack).await?);
    disk.fill(0)?;
    stack.bring_up(&[Agent::Mda]).await?;
    let admin = stack.admin()?;
    let ended = wait_for("empty queue, or its end", async || {
        if let Some(status) = stack.ended(Agent::Queued) {
            return Some(Some(status));
        }
        let stats = admin.stats(1).await.ok()?;
        (stats.total == 0).then_some(None)
    });
    let ended = ended.await?;
    disk.empty()?;
    // It may be about to end, too.
    let status = match ended {
        Some(status) => status,
        None => stack.terminate(Agent::Queued).await?,
    };
    ensure!(
        [0, TEMPORARY].contains(&status),
        "the queue ended with {status}"
    );
    stack.bring_up(&[Agent::Queued]).await?;
    all_is_well(&stack).await?;
    stack.end().await
}

/// Nor does a queue end that finds no room to build its index anew: it says why it takes no mail, and goes on by itself.
#[tokio::test]
async fn a_start_without_an_octet_for_the_index_waits_for_room() -> Result<()> {
    let Some((disk, mut stack)) = on_a_small_disk("4MiB").await? else {
        return Ok(());
    };
    drop(fill_queue(&stack).await?);
    stack.kill_nine(Agent::Queued).await?;
    fs::remove_dir_all(disk.queue().join("index"))?;
    disk.fill(0)?;
    stack.bring_up(&[Agent::Queued]).await?;
    let told = ["disk_full", "there is no room for the index"];
    stack.wait_for_log(Agent::Queued, &told).await?;
    let refused = mail("refused", "a\r\n");
    let reply = stack.submit_while("451", BOB, &refused).await?;
    ensure!(reply.starts_with("452 4.3.1"), "{reply}");

    // Told to stop meanwhile it does.
    let status = stack.terminate(Agent::Queued).await?;
    ensure!(status == 0, "the queue ended with {status}");
    stack.bring_up(&[Agent::Queued]).await?;
    disk.empty()?;
    stack.bring_up(&[Agent::Mda]).await?;
    all_is_well(&stack).await?;
    let ended = stack.ended(Agent::Queued);
    ensure!(ended.is_none(), "the queue ended with {ended:?}");
    stack.end().await
}

/// Queue and submission; without the MDA everything stays in the queue.
async fn on_a_small_disk(reserve: &str) -> Result<Option<(SmallDisk, Stack)>> {
    let Some(disk) = SmallDisk::mount()? else {
        println!("NOT RUN: no right to mount a tmpfs");
        return Ok(None);
    };
    let queue = disk.queue();
    let settings = format!(
        "[queued]\nfolder = {queue:?}\n[queued.disk]\nreserve = \"{reserve}\"\n[queued.retired]\ncontent = \"all\"\n"
    );
    let mut stack = stack!().settings(&settings).prepare()?;
    stack.bring_up(&[Agent::Queued, Agent::Msa]).await?;
    Ok(Some((disk, stack)))
}

async fn fill_queue(stack: &Stack) -> Result<Client> {
    let mut client = stack.login(ALICE).await?;
    for number in 0..SMALL + LARGE {
        let octets = if number < SMALL { 100_000 } else { 400_000 };
        let content = mail(
            &format!("number {number}"),
            &LINE.repeat(octets / LINE.len()),
        );
        client.deliver(ALICE, &[BOB], &content).await?;
    }
    Ok(client)
}

/// New mail is taken, and all that was accepted is filed once.
async fn all_is_well(stack: &Stack) -> Result<()> {
    let welcome = mail("welcome", "a\r\n");
    let reply = stack.submit_while("45", BOB, &welcome).await?;
    ensure!(reply.starts_with("250"), "{reply}");
    stack.wait_for_mail_with(BOB, "Subject: welcome").await?;
    stack.wait_for_empty_queue().await?;
    let mut subjects: BTreeMap<String, usize> = BTreeMap::new();
    for mail in stack.delivered(BOB)? {
        let text = mail.text();
        let subject = text.lines().find(|line| line.starts_with("Subject: "));
        *subjects
            .entry(subject.unwrap_or_default().to_owned())
            .or_default() += 1;
    }
    for number in 0..SMALL + LARGE {
        let copies = subjects.get(&format!("Subject: number {number}"));
        ensure!(copies == Some(&1), "{copies:?} copies of number {number}");
    }
    Ok(())
}

/// The exit status that asks for a restart.
const TEMPORARY: i32 = 75;
const ALICE: &str = "alice@demo.test";
const BOB: &str = "bob@demo.test";
const LINE: &str = "a line of a mail that fills the disk\r\n";
const SMALL: usize = 30;
const LARGE: usize = 3;

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

    /// Takes all room but so many octets.
    fn fill(&self, leave: u64) -> Result<()> {
        let space = rustix::fs::statvfs(self.folder.path())?;
        let take = (space.f_bavail * space.f_bsize).saturating_sub(leave);
        let mut file = File::options()
            .create(true)
            .append(true)
            .open(self.filler())?;
        let written = io::copy(&mut io::repeat(b'x').take(take), &mut file);
        // The queue may be faster.
        if written
            .as_ref()
            .is_err_and(|error| error.kind() == io::ErrorKind::StorageFull)
        {
            return Ok(());
        }
        written?;
        Ok(())
    }

    fn empty(&self) -> Result<()> {
        Ok(fs::remove_file(self.filler())?)
    }

    fn queue(&self) -> PathBuf {
        self.folder.path().join("queue")
    }

    fn filler(&self) -> PathBuf {
        self.folder.path().join("filler")
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
