//! Leases as they become tasks: each by itself, or several of one mail that the handler carries out together.

use std::sync::Arc;

use futures::{FutureExt as _, future::BoxFuture};
use postroad_envelope::LeaseRef;
use tokio::{sync::mpsc, task::JoinError};

use super::{EXTEND_AT_MOST_EVERY, EXTENSIONS_IN_A_LEASE, Gone, Verdict, Worker, untried};
use crate::{Lease, WorkUp};

/// Leases that are carried out together.
pub struct Party {
    /// As they were handed out.
    pub leases: Vec<LeaseRef>,
    /// Brings the end of each of them.
    pub work: BoxFuture<'static, Vec<(LeaseRef, Verdict)>>,
}

/// What a task came to.
pub(super) enum Done {
    Ended(Vec<(LeaseRef, Verdict)>),
    /// These are to be begun now.
    Parted(Vec<Party>),
}

impl Worker {
    pub(super) fn take(&mut self, lease: Lease) {
        self.running.insert(lease.lease, lease.lease);
        let every = (lease.duration / EXTENSIONS_IN_A_LEASE).max(EXTEND_AT_MOST_EVERY);
        self.extend_every = self.extend_every.min(every);
        self.credits = self.credits.saturating_sub(1);
        self.slots.hold(self.running.len());
        let mail = |lease: &Lease| lease.lease.job.queue_id;
        if self
            .row
            .first()
            .is_some_and(|first| mail(first) != mail(&lease))
        {
            self.begin_row();
        }
        let goes_on = lease.followed_by > 0 && self.handler.joins();
        self.row.push(lease);
        if !goes_on {
            self.begin_row();
        }
    }

    /// Begins what was given in a row.
    pub(super) fn begin_row(&mut self) {
        let mut row = std::mem::take(&mut self.row);
        let (handler, desk) = (Arc::clone(&self.handler), self.desk.clone());
        match row.len() {
            0 => {}
            1 => {
                let leases = row.iter().map(|lease| lease.lease).collect();
                let alone = row.into_iter().next();
                let work = async move {
                    let Some(lease) = alone else {
                        return Vec::new();
                    };
                    vec![(lease.lease, handler.handle_at(lease, desk).await)]
                };
                let work = work.boxed();
                self.begin(Party { leases, work });
            }
            _ => {
                // It travels once.
                let content = row.first().and_then(|first| first.content.clone());
                for lease in &mut row {
                    lease.content = lease.content.take().or_else(|| content.clone());
                }
                let leases = row.iter().map(|lease| lease.lease).collect();
                self.spawn(leases, async move {
                    Done::Parted(handler.part(row, desk).await)
                });
            }
        }
    }

    fn begin(&mut self, party: Party) {
        let work = party.work;
        self.spawn(party.leases, async move { Done::Ended(work.await) });
    }

    /// Once there is a place; else they go back.
    fn spawn(&mut self, leases: Vec<LeaseRef>, work: impl Future<Output = Done> + Send + 'static) {
        let (slots, shutdown, names) = (self.slots.clone(), self.shutdown.clone(), leases.clone());
        let back = move |name: LeaseRef| (name, Verdict::HandBack(untried(name)));
        let task = self.tasks.spawn(async move {
            match slots.take(&shutdown).await {
                Some(_slot) => work.await,
                None => Done::Ended(names.into_iter().map(back).collect()),
            }
        });
        self.leases.insert(task.id(), leases);
    }

    pub(super) async fn finish(
        &mut self,
        done: Result<(tokio::task::Id, Done), JoinError>,
        up: &mpsc::Sender<WorkUp>,
    ) -> Result<(), Gone> {
        let id = done.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let mut names = self.leases.remove(&id).unwrap_or_default();
        let ended = match done {
            Ok((_, Done::Ended(ended))) => ended,
            Ok((_, Done::Parted(parties))) => {
                for party in parties {
                    names.retain(|name| !party.leases.contains(name));
                    self.begin(party);
                }
                Vec::new()
            }
            Err(error) => {
                // No longer extended, the lease expires and the job is tried again.
                for name in &names {
                    tracing::error!(event = "fault", queue_id = %name.job.queue_id, reason = %error, "an attempt ended by a fault of ours; the mail is tried again");
                }
                Vec::new()
            }
        };
        // What was told on the way comes first. All results, also if the stream breaks meanwhile: they wait for the next one.
        let mut sent = self.tell(None, up).await;
        for (name, verdict) in ended {
            names.retain(|known| *known != name);
            let lease = self.over(name);
            sent = sent.and(self.offer(lease, verdict, up).await);
        }
        let is_short = !names.is_empty();
        for name in names {
            self.over(name);
        }
        match is_short {
            true => sent.and(self.give_credits(up).await),
            false => sent,
        }
    }

    /// Nobody works on a lease any more; tells what it is called now. One that was given twice under one name has two ends, and the
    /// queue hears of both.
    fn over(&mut self, name: LeaseRef) -> LeaseRef {
        let lease = self.running.remove(&name).unwrap_or(name);
        self.ended.remove(&lease);
        self.slots.hold(self.running.len());
        lease
    }
}
