//! Changes of many mails, part by part: each part is a call of its own, so that it can be told how far it is, and
//! whoever interrupts it stops between two parts.

use std::time::{Duration, Instant};

use postroad_envelope::{Filter, QueueId};
use postroad_queue_client::{Change, Changed, ListQuery, Order, QueueAdmin as _};

use super::Admin;
use crate::fault::Fault;
use crate::terminal::Terminal;

/// Mails of one part.
const PART: u32 = 1000;
/// What takes longer tells how far it is.
const SOON: Duration = Duration::from_secs(1);

/// Changes what the order means, or counts it.
pub async fn carry_out(
    admin: &Admin,
    change: &Change,
    order: Order,
    terminal: &mut Terminal<'_>,
) -> Result<Changed, Fault> {
    if !order.filter.ids.is_empty() {
        return Ok(admin.change(change.clone(), order).await?);
    }
    // What comes while this goes on, such as the reports it brings about, was not meant.
    let Some(newest) = newest(admin).await? else {
        return Ok(Changed::default());
    };
    let begun = Instant::now();
    let mut query = ListQuery {
        limit: PART,
        ..order.filter.clone().into()
    };
    let (mut all, mut looked_at) = (Changed::default(), 0_u64);
    loop {
        let page = admin.list(query.clone()).await?;
        looked_at = looked_at.saturating_add(page.scanned);
        let ids = page.mails.iter().map(|mail| mail.queue_id);
        let ids: Vec<QueueId> = ids.filter(|id| *id <= newest).collect();
        if !ids.is_empty() {
            let part = order_of(&order, ids);
            let Changed { mails, busy } = admin.change(change.clone(), part).await?;
            all.mails = all.mails.saturating_add(mails);
            all.busy = all.busy.saturating_add(busy);
        }
        query.after = page.next.filter(|next| *next < newest);
        if query.after.is_none() {
            terminal.clear_progress();
            return Ok(all);
        }
        if begun.elapsed() > SOON {
            let done = if order.dry_run { "counted" } else { "done" };
            terminal.progress(format_args!(
                "{} mails {done}, {looked_at} looked at",
                all.mails
            ));
        }
    }
}

/// These mails, if they still fit.
fn order_of(order: &Order, ids: Vec<QueueId>) -> Order {
    let filter = Filter {
        ids,
        // Says that they were not named by a person, who would want to hear of each.
        all: true,
        ..order.filter.clone()
    };
    Order {
        filter,
        ..order.clone()
    }
}

async fn newest(admin: &Admin) -> Result<Option<QueueId>, Fault> {
    let query = ListQuery {
        limit: 1,
        newest_first: true,
        ..ListQuery::default()
    };
    let page = admin.list(query).await?;
    Ok(page.mails.first().map(|mail| mail.queue_id).or(page.next))
}
