//! Asking several nodes as if they were one.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use async_trait::async_trait;
use postroad_counters::Key;
use postroad_envelope::{Event, Filter, QueueId, QueueIdPrefix, Suppression};
use postroad_queue_client::{
    AgentDetails, BackupStream, Change, Changed, ContentStream, CounterList, CountersQuery,
    HoldOrder, HoldRuleDetails, ImportedMail, ListPage, ListQuery, MailDetails, Order, QueueAdmin,
    QueueError, QueueStats, RemoteAdmin, Removal, Resend, Resent, SiteList, SitesQuery, Usage,
    UsageQuery, VerifyStream, WatchQuery, WatchStream,
};

use super::{
    Admin,
    answers::{in_time, one_page, sum_of},
};

#[async_trait]
impl QueueAdmin for Admin {
    async fn list(&self, query: ListQuery) -> Result<ListPage, QueueError> {
        let pages = self.ask_all(|admin| admin.list(query.clone())).await?;
        for (at, page) in &pages {
            for mail in &page.mails {
                self.saw(mail.queue_id, *at);
            }
        }
        let pages = pages.into_iter().map(|(_, page)| page).collect();
        Ok(one_page(pages, &query))
    }

    async fn find(&self, prefix: QueueIdPrefix) -> Result<QueueId, QueueError> {
        let found = self.ask_all(|admin| admin.find(prefix.clone())).await?;
        let Some((_, mail)) = found.first().copied() else {
            return Err(QueueError::NotFound);
        };
        if found.iter().any(|(_, other)| *other != mail) {
            let why = format!("{prefix} is the beginning of several mails, at different nodes");
            return Err(QueueError::Conflict(why));
        }
        let at = self.only_one(found.iter().map(|(at, _)| *at), mail)?;
        self.saw(mail, at);
        Ok(mail)
    }

    async fn show(&self, queue_id: QueueId) -> Result<MailDetails, QueueError> {
        self.at(queue_id).await?.show(queue_id).await
    }

    async fn change(&self, change: Change, order: Order) -> Result<Changed, QueueError> {
        let orders = self.by_node(order).await?;
        let mut sum = Sum::default();
        for (at, order) in orders {
            let Some(node) = self.nodes.get(at) else {
                continue;
            };
            let dry_run = order.dry_run;
            let changed = node.admin.change(change.clone(), order).await;
            self.add(&mut sum, at, changed, dry_run);
        }
        sum.end()
    }

    async fn resend(&self, resend: Resend) -> Result<Resent, QueueError> {
        let admin = self.at(resend.queue_id).await?;
        admin.resend(resend).await
    }

    async fn purge(&self, order: Order) -> Result<Changed, QueueError> {
        let orders = self.by_node(order).await?;
        let mut sum = Sum::default();
        for (at, order) in orders {
            let Some(node) = self.nodes.get(at) else {
                continue;
            };
            let dry_run = order.dry_run;
            let purged = node.admin.purge(order).await;
            self.add(&mut sum, at, purged, dry_run);
        }
        sum.end()
    }

    async fn put_hold_rule(&self, order: HoldOrder) -> Result<Changed, QueueError> {
        let put = self.ask_all(|admin| admin.put_hold_rule(order.clone()));
        Ok(self.sum(put.await?, order.dry_run))
    }

    async fn remove_hold_rule(&self, removal: Removal) -> Result<Changed, QueueError> {
        let removed = self.ask_all(|admin| admin.remove_hold_rule(removal.clone()));
        Ok(self.sum(removed.await?, removal.dry_run))
    }

    async fn hold_rules(&self) -> Result<Vec<HoldRuleDetails>, QueueError> {
        let rules = self.ask_all(RemoteAdmin::hold_rules).await?;
        Ok(rules.into_iter().flat_map(|(_, rules)| rules).collect())
    }

    async fn put_suppression(&self, one: Suppression) -> Result<(), QueueError> {
        let put = self.ask_all(|admin| admin.put_suppression(one.clone()));
        put.await.map(drop)
    }

    async fn release_suppression(
        &self,
        address: &str,
        tenant: &str,
        account: Option<&str>,
        by: &str,
    ) -> Result<u64, QueueError> {
        let mut released = 0;
        let mut failure = QueueError::NotFound;
        for node in &self.nodes {
            let told = node.admin.release_suppression(address, tenant, account, by);
            match told.await {
                Ok(entries) => released += entries,
                Err(QueueError::NotFound) => {}
                Err(error) => failure = error,
            }
        }
        match released {
            0 => Err(failure),
            released => Ok(released),
        }
    }

    async fn suppressions(&self) -> Result<Vec<Suppression>, QueueError> {
        let lists = self.ask_all(RemoteAdmin::suppressions).await?;
        let mut all: Vec<Suppression> = Vec::new();
        for one in lists.into_iter().flat_map(|(_, list)| list) {
            if !all.iter().any(|known| known.is_of(&one)) {
                all.push(one);
            }
        }
        all.sort_by(|one, next| one.address.cmp(&next.address));
        Ok(all)
    }

    async fn stats(&self, limit: u32) -> Result<QueueStats, QueueError> {
        let stats = self.ask_all(|admin| admin.stats(limit)).await?;
        Ok(sum_of(stats.into_iter().map(|(_, stats)| stats)))
    }

    async fn usage(&self, query: UsageQuery) -> Result<Vec<Usage>, QueueError> {
        let usages = self.ask_all(|admin| admin.usage(query)).await?;
        Ok(usages.into_iter().flat_map(|(_, usages)| usages).collect())
    }

    async fn counters(&self, query: CountersQuery) -> Result<CounterList, QueueError> {
        let lists = self.ask_all(|admin| admin.counters(query)).await?;
        let mut all = CounterList::default();
        for (_, list) in lists {
            all.counters.extend(list.counters);
            all.bans.extend(list.bans);
            all.total = all.total.saturating_add(list.total);
        }
        all.counters.sort_by_key(|counter| Reverse(counter.value));
        all.bans.sort_by_key(|ban| Reverse(ban.since));
        Ok(all)
    }

    async fn clear_counters(&self, keys: Vec<Key>, by: &str) -> Result<u64, QueueError> {
        let cleared = self.ask_all(|admin| admin.clear_counters(keys.clone(), by));
        Ok(cleared.await?.into_iter().map(|(_, cleared)| cleared).sum())
    }

    async fn sites(&self, query: SitesQuery) -> Result<SiteList, QueueError> {
        let lists = self.ask_all(|admin| admin.sites(query.clone())).await?;
        let mut all = SiteList::default();
        for (_, list) in lists {
            all.sites.extend(list.sites);
            all.total = all.total.saturating_add(list.total);
        }
        Ok(all)
    }

    async fn lift_site(&self, name: &str, by: &str) -> Result<u64, QueueError> {
        let lifted = self.ask_all(|admin| admin.lift_site(name, by)).await?;
        Ok(lifted.into_iter().map(|(_, sites)| sites).sum())
    }

    async fn agents(&self) -> Result<Vec<AgentDetails>, QueueError> {
        let agents = self.ask_all(RemoteAdmin::agents).await?;
        Ok(agents.into_iter().flat_map(|(_, agents)| agents).collect())
    }

    async fn drain_agent(&self, name: &str, by: &str) -> Result<u64, QueueError> {
        let drained = self.ask_all(|admin| admin.drain_agent(name, by)).await?;
        Ok(drained.into_iter().map(|(_, workers)| workers).sum())
    }

    async fn trace(&self, queue_id: QueueId) -> Result<Vec<Event>, QueueError> {
        let told = self.ask_all(|admin| admin.trace(queue_id)).await?;
        let events = told.into_iter().flat_map(|(_, events)| events).collect();
        Ok(in_time(events))
    }

    async fn trace_by(&self, text: &str, limit: u32) -> Result<Vec<Event>, QueueError> {
        let told = self.ask_all(|admin| admin.trace_by(text, limit)).await?;
        let mut mails: BTreeMap<QueueId, Vec<Event>> = BTreeMap::new();
        for event in told.into_iter().flat_map(|(_, events)| events) {
            mails.entry(event.queue_id).or_default().push(event);
        }
        // The newest are wanted, and an id begins with its time.
        let most = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = mails.len().saturating_sub(most);
        let mails = mails.into_values().skip(more);
        Ok(mails.flat_map(in_time).collect())
    }

    async fn watch(&self, query: WatchQuery) -> Result<WatchStream, QueueError> {
        self.only_admin()?.watch(query).await
    }

    async fn verify(&self) -> Result<VerifyStream, QueueError> {
        self.only_admin()?.verify().await
    }

    async fn backup(&self) -> Result<BackupStream, QueueError> {
        self.only_admin()?.backup().await
    }

    async fn import(&self, mail: ImportedMail, content: ContentStream) -> Result<bool, QueueError> {
        self.only_admin()?.import(mail, content).await
    }
}

/// What changes came to, node after node.
#[derive(Default)]
struct Sum {
    changed: Changed,
    is_any: bool,
    failure: Option<QueueError>,
}

impl Sum {
    fn end(self) -> Result<Changed, QueueError> {
        match self.failure {
            Some(failure) if !self.is_any => Err(failure),
            _ => Ok(self.changed),
        }
    }
}

impl Admin {
    async fn at(&self, mail: QueueId) -> Result<&RemoteAdmin, QueueError> {
        let at = self.locate(mail).await?;
        let node = self.nodes.get(at).ok_or(QueueError::NotFound)?;
        Ok(&node.admin)
    }

    fn only_admin(&self) -> Result<&RemoteAdmin, QueueError> {
        match self.nodes.as_slice() {
            [only] => Ok(&only.admin),
            _ => Err(QueueError::Unsupported("it is done to one node".to_owned())),
        }
    }

    /// Mails that are named are changed where they are; what a filter means, everywhere.
    async fn by_node(&self, order: Order) -> Result<BTreeMap<usize, Order>, QueueError> {
        if self.nodes.len() == 1 || order.filter.ids.is_empty() {
            let all = (0..self.nodes.len()).map(|at| (at, order.clone()));
            return Ok(all.collect());
        }
        let mut ids: BTreeMap<usize, Vec<QueueId>> = BTreeMap::new();
        for mail in &order.filter.ids {
            ids.entry(self.locate(*mail).await?)
                .or_default()
                .push(*mail);
        }
        let orders = ids.into_iter().map(|(at, ids)| {
            let filter = Filter {
                ids,
                ..order.filter.clone()
            };
            let order = Order {
                filter,
                ..order.clone()
            };
            (at, order)
        });
        Ok(orders.collect())
    }

    fn add(&self, sum: &mut Sum, at: usize, changed: Result<Changed, QueueError>, dry_run: bool) {
        match changed {
            Ok(changed) => {
                sum.is_any = true;
                sum.changed.mails = sum.changed.mails.saturating_add(changed.mails);
                sum.changed.busy = sum.changed.busy.saturating_add(changed.busy);
                if !dry_run {
                    self.count(at, changed);
                }
            }
            Err(error) => {
                super::lock(&self.failed).insert(at, error.clone());
                sum.failure = Some(error);
            }
        }
    }

    fn sum(&self, each: Vec<(usize, Changed)>, dry_run: bool) -> Changed {
        let mut sum = Sum::default();
        for (at, changed) in each {
            self.add(&mut sum, at, Ok(changed), dry_run);
        }
        sum.changed
    }
}
