//! Jobs of one mail for a worker that sends them together: what is due of it and may go to the same hosts is given in a row.

use postroad_envelope::{RouteClass, StoreName};
use postroad_queue::{Fence, Leased, QueueError};
use postroad_queue_client::Lease;

use super::Worker;
use crate::{clock, core::Core};

/// Up to `max` jobs, each with what may go with it.
pub(super) fn grant(
    core: &Core,
    worker: &Worker,
    (class, store): &(RouteClass, StoreName),
    max: usize,
) -> Result<Vec<Vec<Leased>>, QueueError> {
    let most = usize::try_from(core.config().lease.together).unwrap_or(usize::MAX);
    let (mut gate, now, holder) = (core.sites.gate(), clock::now(), &worker.holder);
    let (mut rows, mut granted) = (Vec::new(), 0);
    while granted < max {
        let first = core
            .queue
            .lease_through(&mut gate, (*class, store), holder, 1, now)?;
        let Some(first) = first.into_iter().next() else {
            break;
        };
        let room = worker.room().saturating_sub(granted);
        let more = most.min(room).saturating_sub(1);
        let along = core.queue.lease_along(&mut gate, &first, more, now);
        let mut row = vec![first];
        // Those that were granted and could not be read are over with their lease; the first goes on.
        row.extend(along.unwrap_or_else(|error| {
            tracing::error!(event = "fault", error = %error, "jobs cannot be leased together");
            Vec::new()
        }));
        granted += row.len();
        rows.push(row);
    }
    Ok(rows)
}

/// What is said of jobs that are given together.
pub(super) struct Row {
    first: Option<Fence>,
    /// Only the first has leave to connect there.
    site: Option<String>,
}

impl Row {
    pub fn of(core: &Core, leases: &[Leased]) -> Self {
        let first = leases.first().filter(|_| leases.len() > 1);
        let site = first.and_then(|first| core.sites.of(&first.state.destination));
        Self {
            first: first.map(|first| first.lease.fence),
            site: site.map(|site| site.to_string()),
        }
    }

    /// Those of them that can be sent, each with the number of those behind it, and the content with the first alone.
    pub fn of_those(self, built: Vec<(Leased, Lease)>) -> impl Iterator<Item = (Leased, Lease)> {
        let count = built.len();
        let each = built.into_iter().enumerate();
        each.map(move |(at, (leased, mut lease))| {
            let behind = count.saturating_sub(at + 1);
            lease.followed_by = u32::try_from(behind).unwrap_or(u32::MAX);
            if at > 0 {
                lease.content = None;
            }
            let went_along = self.first.is_some_and(|first| first != leased.lease.fence);
            if went_along && lease.site == self.site {
                lease.site = None;
            }
            (leased, lease)
        })
    }
}
