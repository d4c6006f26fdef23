//! The mail store: a life of deliveries, with a reader at work, and who looks at what the cut left. The parent plays the
//! queue: what it heard acknowledged is settled, all else comes again.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io,
    path::Path,
    process, thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use postroad_envelope::{QueueId, Timestamp};
use postroad_maildir::{Begin, DeliveryId, Entry, FileSystem, Store, SyncOptions, Target, list};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::told::{self, Word, content_of, say, tell};

pub const HOST: &str = "mx.local.test";
const ACCOUNTS: [&str; 3] = ["alice", "bob", "carol"];
/// Enough that some wait at the same time and are synced together.
const DELIVERERS: u64 = 8;
/// Mails that one of them brings at a time.
const LARGEST_GROUP: usize = 5;

fn target_of(id: QueueId) -> Result<Target> {
    let number = usize::from(id.to_bytes()[15]);
    let folder = number.is_multiple_of(5).then_some("Lists/Rust");
    let account = ACCOUNTS[number % ACCOUNTS.len()];
    Ok(Target::new("local.test", account, folder)?)
}

pub fn delivery_of(id: QueueId) -> Result<DeliveryId> {
    Ok(DeliveryId::new(&id.to_string(), 0)?)
}

/// Delivers until the power is cut.
pub fn live(mount: &Path, seed: u64) -> Result<()> {
    let syncs = SyncOptions {
        on: vec![FileSystem::Ext4],
        slow: Duration::MAX,
        ..SyncOptions::default()
    };
    let (store, _) = Store::open_with(mount, HOST, syncs)?;
    say("ready\n");
    thread::scope(|all| {
        for _ in 0..DELIVERERS {
            all.spawn(|| {
                let failed = deliver_for_ever(&store);
                end(failed);
            });
        }
        all.spawn(|| read_for_ever(mount, StdRng::seed_from_u64(seed)));
        all.spawn(|| end(forget_what_is_settled(&store)));
    });
    Ok(())
}

/// After the cut nothing works any more; before it, the parent takes the end for the failure it is.
fn end(outcome: Result<()>) {
    if let Err(error) = outcome {
        let _ = io::Write::write_fmt(&mut io::stderr(), format_args!("{error:#}\n"));
    }
    process::exit(70);
}

fn deliver_for_ever(store: &Store) -> Result<()> {
    loop {
        let size = rand::random_range(1..=LARGEST_GROUP);
        let ids: Vec<QueueId> = (0..size)
            .map(|_| QueueId::mint(now(), rand::random()))
            .collect();
        ids.iter().for_each(|id| tell(Word::Trying, *id, 1));
        deliver_together(store, &ids)?;
        ids.iter().for_each(|id| tell(Word::Acknowledged, *id, 1));
    }
}

pub fn deliver(store: &Store, id: QueueId) -> Result<()> {
    deliver_together(store, &[id])
}

fn deliver_together(store: &Store, ids: &[QueueId]) -> Result<()> {
    let mut open = Vec::new();
    for id in ids {
        if let Begin::Write(mut delivery) = begin(store, *id)? {
            for piece in content_of(*id).chunks(100_000) {
                delivery.write(piece)?;
            }
            open.push(delivery);
        }
    }
    for filed in store.commit_all(open) {
        filed?;
    }
    Ok(())
}

pub fn begin(store: &Store, id: QueueId) -> Result<Begin> {
    let received_sec = now().as_millis() / 1000;
    Ok(store.begin(&target_of(id)?, delivery_of(id)?, received_sec)?)
}

fn forget_what_is_settled(store: &Store) -> Result<()> {
    for line in io::stdin().lines() {
        store.forget(&delivery_of(line?.parse()?)?);
        if store.calls_for_tidying() {
            store.tidy();
        }
    }
    Ok(())
}

/// A mail program that marks mail as read as soon as it sees it, and syncs nothing.
fn read_for_ever(mount: &Path, mut random: StdRng) {
    loop {
        for account in ACCOUNTS {
            let seen = mails_of(mount, account).unwrap_or_default();
            for mail in seen.iter().filter(|mail| mail.recent) {
                if random.random_bool(0.3) {
                    // Another one may have been faster.
                    let _ = mark_as_read(mail);
                }
            }
        }
        thread::sleep(Duration::from_millis(10));
    }
}

pub fn mark_as_read(mail: &Entry) -> Result<()> {
    let mailbox = mail.path.parent().and_then(Path::parent);
    let mailbox = mailbox.context("no mailbox")?;
    let name = format!("{}:2,S", mail.file_name);
    Ok(fs::rename(&mail.path, mailbox.join("cur").join(name))?)
}

/// A mail that no reader has touched.
pub fn new_mail(mount: &Path, id: QueueId) -> Result<Option<Entry>> {
    for account in ACCOUNTS {
        let mut mails = mails_of(mount, account)?.into_iter();
        let found = mails.find(|mail| mail.recent && id_of(mail) == Some(id));
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

fn mails_of(mount: &Path, account: &str) -> Result<Vec<Entry>> {
    let maildir = postroad_maildir::maildir_path(mount, "local.test", account)?;
    Ok(list(&maildir)?)
}

pub fn now() -> Timestamp {
    Timestamp::from(std::time::SystemTime::now())
}

/// Delivers again what is not settled, and looks for each mail.
pub fn check(mount: &Path, told: &Path, seed: u64) -> Result<()> {
    let mails = told::read(told)?;
    let (store, recovery) = Store::open(mount, HOST)?;
    let damaged = recovery.damaged.iter().find(|damage| !damage.torn_tail);
    ensure!(
        damaged.is_none(),
        "the ledger is called damaged: {damaged:?}"
    );
    let unsettled = mails.iter().filter(|(_, told)| told.acknowledged == 0);
    for (&id, _) in unsettled.clone() {
        deliver(&store, id)?;
        // The answer may be lost once more.
        if seed.is_multiple_of(3) {
            deliver(&store, id)?;
        }
    }
    let filed = filed(mount)?;
    for id in filed.keys() {
        ensure!(
            mails.contains_key(id),
            "{id} is there and nobody delivered it"
        );
    }
    for (id, told) in &mails {
        match filed.get(id) {
            None => return Err(anyhow!("{id} was acknowledged and is lost: {told:?}")),
            Some(1) => {}
            Some(count) => return Err(anyhow!("{id} was filed {count} times: {told:?}")),
        }
    }
    say(&format!("found {}\n", filed.len()));
    say(&format!("filed-again {}\n", unsettled.count()));
    start_anew(mount, &store, seed)
}

/// How often each mail is in a mailbox; whole, or this is an error.
pub fn filed(mount: &Path) -> Result<BTreeMap<QueueId, usize>> {
    let mut filed = BTreeMap::new();
    for account in ACCOUNTS {
        for mail in mails_of(mount, account)? {
            let id = id_of(&mail).with_context(|| format!("whose is {:?}?", mail.path))?;
            let mut content = content_of(id);
            content.retain(|&octet| octet != b'\r');
            ensure!(fs::read(&mail.path)? == content, "{id} is half visible");
            *filed.entry(id).or_default() += 1;
        }
    }
    Ok(filed)
}

fn id_of(mail: &Entry) -> Option<QueueId> {
    let (_, rest) = mail.file_name.split_once(".Q")?;
    rest.split_once("R0.")?.0.parse().ok()
}

/// Empties the mailboxes, so that the next round tells of itself alone. The ledger keeps what it has, every other time.
fn start_anew(mount: &Path, store: &Store, seed: u64) -> Result<()> {
    let mut folders = BTreeSet::new();
    for account in ACCOUNTS {
        for mail in mails_of(mount, account)? {
            fs::remove_file(&mail.path)?;
            folders.extend(mail.path.parent().map(Path::to_owned));
        }
    }
    for folder in folders {
        File::open(folder)?.sync_all()?;
    }
    if seed.is_multiple_of(2) {
        for id in store.unsettled() {
            store.forget(&id);
        }
    }
    Ok(())
}
