//! What is done with leases.

use std::sync::Arc;

use async_trait::async_trait;
use futures::FutureExt as _;
use postroad_envelope::LeaseRef;

use super::{Desk, Party};
use crate::{HandBack, Lease, Settlement};

/// What a worker does with a lease.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Carries the job out and tells the result. Must not panic; a panic leaves the lease to expire.
    async fn handle(&self, lease: Lease) -> Verdict;

    /// The same, with somebody to ask whether a site may be connected to.
    async fn handle_at(&self, lease: Lease, _desk: Desk) -> Verdict {
        self.handle(lease).await
    }

    /// The settlement of this lease is durable: what the worker kept for it may go.
    async fn settled(&self, _lease: LeaseRef) {}

    /// Whether it sends several leases of one mail together where it can.
    fn joins(&self) -> bool {
        false
    }

    /// Sorts leases of one mail by which of them go together. What is to be done for each party begins later, for all of them at once.
    async fn part(self: Arc<Self>, leases: Vec<Lease>, desk: Desk) -> Vec<Party> {
        let alone = leases.into_iter().map(|lease| {
            let (handler, desk) = (Arc::clone(&self), desk.clone());
            let name = lease.lease;
            let work = async move { vec![(name, handler.handle_at(lease, desk).await)] };
            Party {
                leases: vec![name],
                work: work.boxed(),
            }
        });
        alone.collect()
    }
}

/// The end of a lease.
#[derive(Debug)]
pub enum Verdict {
    /// Outcomes for the recipients.
    Settle(Settlement),
    /// Untried; the queue offers it again later.
    HandBack(HandBack),
}
