//! The queue for operators.

mod change;
pub(crate) mod header;
mod hold;
mod import;
mod resend;
mod sites;
mod stats;
mod usage;
mod view;

use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt as _;
use postroad_address::Mailbox;
use postroad_counters::Key;
use postroad_envelope::{Event, QueueId, QueueIdPrefix, Suppression};
use postroad_queue_client::{
    AgentDetails, BackupStream, Change, Changed, ContentStream, CounterList, CountersQuery,
    HoldOrder, HoldRuleDetails, ImportedMail, ListPage, ListQuery, MailDetails, Order, QueueAdmin,
    QueueError, QueueStats, Removal, Resend, Resent, SiteList, SitesQuery, Usage, UsageQuery,
    VerifyStream, WatchQuery, WatchStream,
};
use tokio::{sync::mpsc, task::spawn_blocking};
use tokio_stream::wrappers::ReceiverStream;
use tracing::info;

use crate::{
    LocalQueue, backup, clock,
    core::{Core, to_client_error},
    dispatch::ToDispatcher,
    purge, store, suppression, timeline,
};

/// Mails looked at, or jobs changed, at one time.
const AT_ONCE: usize = 500;
/// Mails whose timelines are told at one time, and at most.
const TRACED: u32 = 10;
const MOST_TRACED: u32 = 100;
/// Events on their way to a follower.
const FOLLOWED: usize = 64;

#[async_trait]
impl QueueAdmin for LocalQueue {
    async fn list(&self, query: ListQuery) -> Result<ListPage, QueueError> {
        self.blocking(move |core| view::list(core, &query)).await
    }

    async fn find(&self, prefix: QueueIdPrefix) -> Result<QueueId, QueueError> {
        let found = self.blocking(move |core| find(core, &prefix)).await?;
        match found.as_slice() {
            [] => Err(QueueError::NotFound),
            [only] => Ok(*only),
            _ => Err(QueueError::Conflict(
                "several mails begin so; give more of the id".to_owned(),
            )),
        }
    }

    async fn show(&self, queue_id: QueueId) -> Result<MailDetails, QueueError> {
        self.blocking(move |core| view::show(core, queue_id)).await
    }

    async fn change(&self, change: Change, order: Order) -> Result<Changed, QueueError> {
        change::carry_out(self, change, order).await
    }

    async fn resend(&self, order: Resend) -> Result<Resent, QueueError> {
        resend::carry_out(self, order).await
    }

    async fn purge(&self, order: Order) -> Result<Changed, QueueError> {
        purge::carry_out(self, order).await
    }

    async fn put_hold_rule(&self, order: HoldOrder) -> Result<Changed, QueueError> {
        hold::put(self, order).await
    }

    async fn remove_hold_rule(&self, removal: Removal) -> Result<Changed, QueueError> {
        hold::remove(self, removal).await
    }

    async fn hold_rules(&self) -> Result<Vec<HoldRuleDetails>, QueueError> {
        self.blocking(hold::list).await
    }

    async fn put_suppression(&self, one: Suppression) -> Result<(), QueueError> {
        let core = self.core().await?;
        let (address, by) = (one.address.clone(), one.by.clone());
        let one = Suppression {
            address: folded(&one.address),
            since: clock::now(),
            ..one
        };
        suppression::put(&core, one).await?;
        info!(event = "admin", verb = "suppress", rcpt_to = address, by);
        Ok(())
    }

    async fn release_suppression(
        &self,
        address: &str,
        tenant: &str,
        account: Option<&str>,
        by: &str,
    ) -> Result<u64, QueueError> {
        let core = self.core().await?;
        let account = account.map(str::to_owned);
        let released =
            suppression::release(&core, folded(address), tenant.to_owned(), account).await?;
        info!(event = "admin", verb = "unsuppress", rcpt_to = address, by);
        Ok(released)
    }

    async fn suppressions(&self) -> Result<Vec<Suppression>, QueueError> {
        Ok(suppression::list(&self.core().await?).await)
    }

    async fn stats(&self, limit: u32) -> Result<QueueStats, QueueError> {
        self.blocking(move |core| stats::stats(core, limit)).await
    }

    async fn usage(&self, query: UsageQuery) -> Result<Vec<Usage>, QueueError> {
        self.blocking(move |core| usage::usage(core, query)).await
    }

    async fn counters(&self, query: CountersQuery) -> Result<CounterList, QueueError> {
        let front = Arc::clone(&self.front);
        let list = spawn_blocking(move || front.counting.list(query)).await;
        list.map_err(|error| QueueError::Unavailable(error.to_string()))
    }

    async fn clear_counters(&self, keys: Vec<Key>, by: &str) -> Result<u64, QueueError> {
        for key in &keys {
            info!(event = "admin", verb = "clear_counter", %key, by);
        }
        let front = Arc::clone(&self.front);
        let cleared = spawn_blocking(move || front.counting.clear(&keys)).await;
        cleared.map_err(|error| QueueError::Unavailable(error.to_string()))
    }

    async fn sites(&self, query: SitesQuery) -> Result<SiteList, QueueError> {
        self.blocking(move |core| Ok(sites::list(core, &query)))
            .await
    }

    async fn lift_site(&self, name: &str, by: &str) -> Result<u64, QueueError> {
        let core = self.core().await?;
        let sites = core.sites.lift(name);
        if sites == 0 {
            return Err(QueueError::NotFound);
        }
        info!(
            event = "admin",
            verb = "lift_site",
            site = name,
            by,
            count = sites
        );
        let _ = core.dispatcher.send(ToDispatcher::Look).await;
        Ok(u64::try_from(sites).unwrap_or(u64::MAX))
    }

    async fn agents(&self) -> Result<Vec<AgentDetails>, QueueError> {
        Ok(view::agents(&*self.core().await?))
    }

    async fn drain_agent(&self, name: &str, by: &str) -> Result<u64, QueueError> {
        let core = self.core().await?;
        let workers = core.agents.drain(name);
        if workers == 0 {
            return Err(QueueError::NotFound);
        }
        info!(
            event = "admin",
            verb = "drain",
            worker = name,
            by,
            count = workers
        );
        let drain = ToDispatcher::DrainAgent(name.to_owned());
        let _ = core.dispatcher.send(drain).await;
        Ok(u64::try_from(workers).unwrap_or(u64::MAX))
    }

    async fn trace(&self, queue_id: QueueId) -> Result<Vec<Event>, QueueError> {
        let told = move |core: &Core| Ok(core.timeline.of(queue_id));
        let events = self.blocking(told).await?;
        if !events.is_empty() {
            return Ok(events);
        }
        let known = self.blocking(move |core| {
            let living = core.queue.show(queue_id).map_err(failed)?.is_some();
            Ok(living || core.queue.finished(queue_id).map_err(failed)?.is_some())
        });
        if known.await? {
            Ok(events)
        } else {
            Err(QueueError::NotFound)
        }
    }

    async fn trace_by(&self, text: &str, limit: u32) -> Result<Vec<Event>, QueueError> {
        let text = text.to_owned();
        let limit = if limit == 0 {
            TRACED
        } else {
            limit.min(MOST_TRACED)
        };
        let told = move |core: &Core| {
            let found = core
                .timeline
                .search(&text, usize::try_from(limit).unwrap_or(usize::MAX));
            let events = found.into_iter().flat_map(|id| core.timeline.of(id));
            Ok(events.collect::<Vec<_>>())
        };
        let events = self.blocking(told).await?;
        if events.is_empty() {
            return Err(QueueError::NotFound);
        }
        Ok(events)
    }

    async fn verify(&self) -> Result<VerifyStream, QueueError> {
        store::verify_live(self).await
    }

    async fn watch(&self, query: WatchQuery) -> Result<WatchStream, QueueError> {
        let (events, stream) = mpsc::channel(FOLLOWED);
        timeline::watch(&self.front, query, events).await;
        Ok(ReceiverStream::new(stream).boxed())
    }

    async fn backup(&self) -> Result<BackupStream, QueueError> {
        backup::send(self.core().await?).await
    }

    async fn import(&self, mail: ImportedMail, content: ContentStream) -> Result<bool, QueueError> {
        import::take_in(self, mail, content).await
    }
}

impl LocalQueue {
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Core) -> Result<T, QueueError> + Send + 'static,
    ) -> Result<T, QueueError> {
        let core = self.core().await?;
        let done = spawn_blocking(move || work(&core)).await;
        done.map_err(|error| QueueError::Unavailable(error.to_string()))?
    }
}

/// An address as recipients are compared with it; what is none stays as it is, and fits nobody.
fn folded(address: &str) -> String {
    let mailbox: Result<Mailbox, _> = address.parse();
    mailbox.map_or_else(|_| address.to_owned(), |mailbox| mailbox.folded())
}

/// Living mails whose ids begin so; only if there is none, retired ones.
fn find(core: &Core, prefix: &QueueIdPrefix) -> Result<Vec<QueueId>, QueueError> {
    let living = core.queue.find(prefix, 2).map_err(failed)?;
    Ok(match living.as_slice() {
        [] => {
            core.retired.retire(core).map_err(failed)?;
            core.retired.find_prefix(prefix, 2)
        }
        _ => living,
    })
}

pub(crate) fn failed(error: postroad_queue::QueueError) -> QueueError {
    to_client_error(error.into())
}
