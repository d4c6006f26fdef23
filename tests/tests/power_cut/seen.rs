//! What of each mail is in a queue, and whether that agrees with what was told.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context as _, Result, ensure};
use postroad_envelope::{Outcome, QueueId};
use postroad_queue_client::{
    ListQuery, MailDetails, MailState, QueueAdmin as _, QueueService as _, collect_content,
};
use postroad_queued::LocalQueue;

use crate::{
    boundaries::Subject,
    short_life,
    told::{Mails, Told, content_of},
};

const LARGEST: usize = 6 << 20;

/// Sets of recipients, a bit for each. Reports are left out: the queue makes them itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mail {
    /// Not ended yet.
    pub open: u32,
    /// Not ended, and held.
    pub held: u32,
    /// Dropped by an order, while a worker had others.
    pub dropped: u32,
}

/// The mails of a queue that still have something to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen(BTreeMap<QueueId, Mail>);

impl Seen {
    /// Looks at each mail; one that is not as it was submitted, or is both scheduled and done, is an error.
    pub async fn of(queue: &LocalQueue) -> Result<Self> {
        queue.caught_up().await;
        let mut seen = Self::default();
        for (id, details) in present(queue).await? {
            let mail = look_at(&details)?;
            if details.envelope.listener == "report" {
                continue;
            }
            if let Ok(content) = queue.read(id, 0).await {
                let content = collect_content(content, LARGEST).await;
                let content = content.with_context(|| format!("{id} cannot be read"))?;
                ensure!(content == *expected(id), "{id} is half visible");
            } else {
                // Its report was made while we looked, which ended it.
                ensure!(mail.open == 0, "{id} has no content");
            }
            if mail.open != 0 {
                seen.0.insert(id, mail);
            }
        }
        Ok(seen)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl Subject for Seen {
    const ROLE: &str = "short-life";
    const FLAW: &str = "indexes put aside";

    async fn look(mount: &Path) -> Result<(Self, bool)> {
        short_life::look(mount).await
    }

    /// What was acknowledged is there, what has ended is not, what was held is.
    fn judge(&self, mails: &Mails) -> Result<()> {
        for (id, told) in mails {
            let Mail {
                open,
                held,
                dropped,
            } = self.0.get(id).copied().unwrap_or_default();
            let Told {
                acknowledged,
                trying,
                ended,
                held: kept,
            } = *told;
            ensure!(
                acknowledged & !trying & !open == 0,
                "{id} was acknowledged and is lost: {told:?}, open {open:b}"
            );
            let unasked = dropped & !trying;
            ensure!(
                unasked == 0,
                "{id} has recipients neither scheduled nor done: {told:?}, recipients {unasked:b}"
            );
            let back = open & ended;
            ensure!(back == 0, "{id} came back: {told:?}, recipients {back:b}");
            let let_go = kept & open & !held;
            ensure!(
                let_go == 0,
                "{id} is not held any more: {told:?}, recipients {let_go:b}"
            );
        }
        Ok(())
    }
}

fn look_at(details: &MailDetails) -> Result<Mail> {
    let id = details.summary.queue_id;
    let mut mail = Mail::default();
    for recipient in &details.recipients {
        let ended = recipient.outcome.as_ref().is_some_and(Outcome::is_final);
        ensure!(
            !ended || recipient.state.is_none(),
            "{id} has a recipient that is done and scheduled: {recipient:?}"
        );
        let bit = 1 << recipient.index.0;
        if recipient.state.is_some() {
            mail.open |= bit;
        } else if recipient.outcome.is_none() {
            mail.dropped |= bit;
        }
        if recipient.state == Some(MailState::Held) {
            mail.held |= bit;
        }
    }
    Ok(mail)
}

async fn present(queue: &LocalQueue) -> Result<BTreeMap<QueueId, MailDetails>> {
    let mut present = BTreeMap::new();
    let mut query = ListQuery {
        limit: 1000,
        ..ListQuery::default()
    };
    loop {
        let page = queue.list(query.clone()).await?;
        for mail in page.mails {
            // A report that was owed may end a mail while we look.
            if let Ok(details) = queue.show(mail.queue_id).await {
                present.insert(mail.queue_id, details);
            }
        }
        query.after = page.next;
        if query.after.is_none() {
            return Ok(present);
        }
    }
}

/// The same mails are looked at thousands of times.
fn expected(id: QueueId) -> Arc<Vec<u8>> {
    static CONTENTS: Mutex<Option<HashMap<QueueId, Arc<Vec<u8>>>>> = Mutex::new(None);
    let mut contents = CONTENTS.lock().unwrap_or_else(PoisonError::into_inner);
    let known = contents.get_or_insert_default().entry(id);
    Arc::clone(known.or_insert_with(|| Arc::new(content_of(id))))
}
