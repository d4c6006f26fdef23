//! A short life of the mail store, for the recorder, and the look at an image of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use postroad_envelope::QueueId;
use postroad_maildir::{Begin, FileSystem, Store, SyncOptions};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::{
    boundaries::Subject,
    maildir::{HOST, begin, deliver, delivery_of, filed, mark_as_read, new_mail, now},
    told::{Mails, Word, len_of, tell},
};

const MAILS: usize = 24;
const LONGEST: usize = 100 << 10;

/// Every file is synced by itself.
pub fn live_alone(mount: &Path, seed: u64) -> Result<()> {
    live(mount, seed, 2, &[])
}

/// Every sync is one of the whole file system, for all who wait.
pub fn live_together(mount: &Path, seed: u64) -> Result<()> {
    live(mount, seed, 6, &FileSystem::ALL)
}

/// Takes up what the life before has left, and delivers; half of it is settled then, and forgotten.
fn live(mount: &Path, seed: u64, deliverers: usize, whole: &[FileSystem]) -> Result<()> {
    let syncs = SyncOptions {
        from: 1,
        on: whole.to_vec(),
        slow: Duration::MAX,
        ..SyncOptions::default()
    };
    let (store, _) = Store::open_with(mount, HOST, syncs)?;
    let counts = store.syncs();
    for id in store.unsettled() {
        file(&store, id.queue_id().parse()?)?;
    }
    thread::scope(|all| {
        let each = MAILS / deliverers;
        let deliverers = (0..deliverers as u64).map(|number| {
            let random = StdRng::seed_from_u64(seed ^ (number << 8));
            let store = &store;
            all.spawn(move || deliver_some(store, mount, random, each))
        });
        let deliverers: Vec<_> = deliverers.collect();
        for deliverer in deliverers {
            let delivered = deliverer.join();
            delivered.map_err(|_| anyhow!("a deliverer panicked"))??;
        }
        anyhow::Ok(())
    })?;
    let is_whole = counts.file_systems() > 0;
    ensure!(
        is_whole != whole.is_empty(),
        "not synced as it should be: {counts:?}"
    );
    Ok(())
}

fn deliver_some(store: &Store, mount: &Path, mut random: StdRng, mails: usize) -> Result<()> {
    for _ in 0..mails {
        let id = loop {
            let id = QueueId::mint(now(), rand::random());
            if len_of(id) <= LONGEST {
                break id;
            }
        };
        if random.random_bool(0.1) {
            give_up(store, id)?;
        }
        file(store, id)?;
        // Whether its name is durable or not.
        if random.random_bool(0.3)
            && let Some(mail) = new_mail(mount, id)?
        {
            mark_as_read(&mail)?;
        }
        if random.random_bool(0.5) {
            tell(Word::Ended, id, 1);
            store.forget(&delivery_of(id)?);
            if random.random_bool(0.3) {
                store.tidy();
            }
        }
        if random.random_bool(0.2) {
            // The queue asks again, for it did not hear the answer.
            if store.unsettled().contains(&delivery_of(id)?) {
                file(store, id)?;
            }
        }
    }
    Ok(())
}

fn file(store: &Store, id: QueueId) -> Result<()> {
    tell(Word::Trying, id, 1);
    deliver(store, id)?;
    tell(Word::Acknowledged, id, 1);
    Ok(())
}

/// A connection that breaks in the middle of a mail.
fn give_up(store: &Store, id: QueueId) -> Result<()> {
    if let Begin::Write(mut delivery) = begin(store, id)? {
        delivery.write(b"half of it")?;
    }
    Ok(())
}

/// What the mailboxes have once the store was opened, and of which mails it says that they are delivered.
pub struct Filed {
    filed: BTreeMap<QueueId, usize>,
    decided: BTreeSet<QueueId>,
}

impl Subject for Filed {
    const ROLE: &str = "short-store";
    /// Of what was not synced yet a part may be missing with more behind it, which looks like damage.
    const FLAW: &str = "ledgers called damaged";

    async fn look(mount: &Path) -> Result<(Self, bool)> {
        let (store, recovery) = Store::open(mount, HOST)?;
        let is_damaged = recovery.damaged.iter().any(|damage| !damage.torn_tail);
        let decided = store.unsettled().into_iter();
        let decided = decided.map(|id| Ok(id.queue_id().parse()?));
        let decided = decided.collect::<Result<BTreeSet<QueueId>>>()?;
        let seen = filed(mount)?;
        for &id in &decided {
            deliver(&store, id).with_context(|| format!("{id}, again"))?;
        }
        ensure!(filed(mount)? == seen, "what came again was filed again");
        let seen = Self {
            filed: seen,
            decided,
        };
        Ok((seen, is_damaged))
    }

    /// What was acknowledged is filed once, nothing twice, and nothing would be if it came again.
    fn judge(&self, mails: &Mails) -> Result<()> {
        for id in self.filed.keys() {
            ensure!(
                mails.contains_key(id),
                "{id} is there and nobody delivered it"
            );
        }
        for (id, told) in mails {
            let count = self.filed.get(id).copied().unwrap_or_default();
            ensure!(count < 2, "{id} was filed {count} times: {told:?}");
            ensure!(
                told.acknowledged == 0 || count == 1,
                "{id} was acknowledged and is lost: {told:?}"
            );
            let may_come_again = count == 1 && told.ended == 0;
            ensure!(
                !may_come_again || self.decided.contains(id),
                "{id} would be filed twice: {told:?}"
            );
        }
        Ok(())
    }
}

/// The same of a life whose deliveries were synced together.
pub struct FiledTogether(Filed);

impl Subject for FiledTogether {
    const ROLE: &str = "short-store-together";
    const FLAW: &str = Filed::FLAW;

    async fn look(mount: &Path) -> Result<(Self, bool)> {
        let (filed, is_damaged) = Filed::look(mount).await?;
        Ok((Self(filed), is_damaged))
    }

    fn judge(&self, mails: &Mails) -> Result<()> {
        self.0.judge(mails)
    }
}
