//! What handlers are at and what came of it, from the lease to the settlement that is durable, through any number of streams.

use std::collections::HashMap;

use postroad_envelope::LeaseRef;
use tokio::sync::mpsc;

use super::{Gone, Verdict, Worker, send};
use crate::{HandBack, SettleResult, Settlement, WorkUp};

impl Worker {
    /// Renames what goes on, offers results again, and gives credits for what is free.
    pub(super) async fn resume(
        &mut self,
        resumed: Vec<(LeaseRef, Option<LeaseRef>)>,
        up: &mpsc::Sender<WorkUp>,
    ) -> Result<(), Gone> {
        let renamed: HashMap<_, _> = resumed
            .into_iter()
            .filter_map(|(old, new)| new.map(|new| (old, new)))
            .collect();
        self.ended.clear();
        for name in self.running.values_mut() {
            match renamed.get(name) {
                Some(new) => *name = *new,
                // It keeps its name: the queue refuses the result and may keep it as a late event.
                None => drop(self.ended.insert(*name)),
            }
        }
        let results = std::mem::take(&mut self.results);
        for (lease, verdict) in results {
            let lease = renamed.get(&lease).copied().unwrap_or(lease);
            self.offer(lease, verdict, up).await?;
        }
        self.give_credits(up).await
    }

    pub(super) async fn offer(
        &mut self,
        lease: LeaseRef,
        verdict: Verdict,
        up: &mpsc::Sender<WorkUp>,
    ) -> Result<(), Gone> {
        match verdict {
            Verdict::Settle(settlement) => {
                let settlement = Settlement {
                    lease,
                    ..settlement
                };
                self.results
                    .insert(lease, Verdict::Settle(settlement.clone()));
                send(up, WorkUp::Settle(settlement)).await
            }
            Verdict::HandBack(back) => {
                send(up, WorkUp::HandBack(HandBack { lease, ..back })).await?;
                self.give_credits(up).await
            }
        }
    }

    pub(super) async fn settled(
        &mut self,
        lease: LeaseRef,
        result: SettleResult,
        up: &mpsc::Sender<WorkUp>,
    ) -> Result<(), Gone> {
        let known = self.results.remove(&lease).is_some();
        if result == SettleResult::Durable {
            self.handler.settled(lease).await;
        } else {
            tracing::warn!(event = "lease_expired", queue_id = %lease.job.queue_id, "the lease had ended before its result came");
        }
        if known {
            self.give_credits(up).await
        } else {
            Ok(())
        }
    }

    /// Their handlers go on; nothing prolongs them.
    pub(super) fn revoked(&mut self, leases: &[LeaseRef]) {
        for lease in leases {
            tracing::warn!(event = "lease_expired", queue_id = %lease.job.queue_id, "the queue took the lease back");
            if self.running.values().any(|running| running == lease) {
                self.ended.insert(*lease);
            }
        }
    }

    pub(super) async fn extend(&self, up: &mpsc::Sender<WorkUp>) -> Result<(), Gone> {
        let names = self.running.values().copied();
        let living: Vec<_> = names.filter(|name| !self.ended.contains(name)).collect();
        match living.is_empty() {
            true => Ok(()),
            false => send(up, WorkUp::Extend(living)).await,
        }
    }

    /// As many as there is room for, and the queue has not of us yet.
    pub(super) async fn give_credits(&mut self, up: &mpsc::Sender<WorkUp>) -> Result<(), Gone> {
        let busy = u32::try_from(self.running.len() + self.results.len()).unwrap_or(u32::MAX);
        let more = self
            .slots
            .room()
            .saturating_sub(busy.saturating_add(self.credits));
        if more == 0 || self.drained {
            return Ok(());
        }
        self.credits += more;
        send(up, WorkUp::Credits(more)).await
    }
}
