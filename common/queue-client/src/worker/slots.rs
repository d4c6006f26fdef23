//! How the leases of an agent are shared among the nodes of its queue.
//!
//! Credits cannot be taken back, and an idle node keeps what it has. So each node may have credits for all that the others leave
//! free, and never less than its share; if several nodes use theirs at once, leases beyond the bound wait here for a moment, and
//! with what ends each node is given no more than its share again.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// Places for handlers, and who uses them.
pub(super) struct Slots {
    total: u32,
    free: Arc<Semaphore>,
    /// Leases in hand, by node.
    held: Vec<AtomicU32>,
}

impl Slots {
    /// For so many handlers at once and so many nodes.
    pub(super) fn new(total: u32, nodes: usize) -> Arc<Self> {
        let total = total.max(1);
        Arc::new(Self {
            total,
            free: Arc::new(Semaphore::new(total as usize)),
            held: (0..nodes.max(1)).map(|_| AtomicU32::new(0)).collect(),
        })
    }

    /// Those of one node.
    pub(super) fn of(self: &Arc<Self>, node: usize) -> NodeSlots {
        let slots = Arc::clone(self);
        NodeSlots { slots, node }
    }
}

/// [`Slots`] as one node's worker uses them.
#[derive(Clone)]
pub(super) struct NodeSlots {
    slots: Arc<Slots>,
    node: usize,
}

impl NodeSlots {
    /// Tells the others how many leases this node has handlers for, at work or waiting.
    pub(super) fn hold(&self, leases: usize) {
        if let Some(held) = self.slots.held.get(self.node) {
            held.store(u32::try_from(leases).unwrap_or(u32::MAX), Ordering::Relaxed);
        }
    }

    /// How many leases this node may give us in all.
    pub(super) fn room(&self) -> u32 {
        let others = self.slots.held.iter().enumerate();
        let others = others
            .filter(|(node, _)| *node != self.node)
            .fold(0_u32, |sum, (_, held)| {
                sum.saturating_add(held.load(Ordering::Relaxed))
            });
        let nodes = u32::try_from(self.slots.held.len()).unwrap_or(u32::MAX);
        room(self.slots.total, nodes, others)
    }

    /// A place for one handler, once there is one; none if the agent stops before.
    pub(super) async fn take(&self, shutdown: &CancellationToken) -> Option<OwnedSemaphorePermit> {
        tokio::select! {
            biased;
            slot = Arc::clone(&self.slots.free).acquire_owned() => slot.ok(),
            () = shutdown.cancelled() => None,
        }
    }
}

/// What the others leave, and at least a share.
fn room(total: u32, nodes: u32, others: u32) -> u32 {
    let share = (total / nodes.max(1)).max(1);
    total.saturating_sub(others).max(share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_what_the_others_leave_and_never_less_than_its_share() {
        assert_eq!(room(16, 1, 0), 16);
        assert_eq!(room(16, 2, 0), 16, "the other is idle or away");
        assert_eq!(room(16, 2, 5), 11);
        assert_eq!(room(16, 2, 16), 8, "the other was here first");
        assert_eq!(room(2, 5, 2), 1, "more nodes than places");
    }

    #[tokio::test]
    async fn handlers_are_bounded_in_all_and_those_that_wait_are_let_go_at_the_end() {
        let slots = Slots::new(2, 2);
        let stop = CancellationToken::new();
        let (one, other) = (slots.of(0), slots.of(1));
        one.hold(2);
        assert_eq!((one.room(), other.room()), (2, 1));
        let first = one.take(&stop).await.unwrap();
        let _second = one.take(&stop).await.unwrap();
        let third = other.take(&stop);
        tokio::pin!(third);
        assert!(futures::poll!(&mut third).is_pending());
        drop(first);
        let _third = third.await.unwrap();
        stop.cancel();
        assert!(other.take(&stop).await.is_none());
    }
}
