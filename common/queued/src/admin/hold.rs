//! Standing hold rules for operators.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use postroad_envelope::{Filter, QueueId};
use postroad_queue::{HoldRule, Instruction, Listing};
use postroad_queue_client::{
    Change, Changed, HoldOrder, HoldRuleDetails, Order, QueueError, Removal,
};
use tracing::info;

use super::{AT_ONCE, change, failed};
use crate::{
    LocalQueue, clock,
    core::{Core, to_client_error},
    holds,
    upkeep::instruct,
};

/// How long what a rule holds is counted; of very much the number is too low.
const COUNTING: Duration = Duration::from_secs(1);

pub(super) async fn put(queue: &LocalQueue, order: HoldOrder) -> Result<Changed, QueueError> {
    let rule = HoldRule {
        name: order.name,
        filter: order.filter.folded(),
        by: order.by,
        reason: order.reason,
        created_at: clock::now(),
    };
    holds::check(&rule, rule.created_at)?;
    let core = queue.core().await?;
    if !order.dry_run {
        holds::put(&core, rule.clone()).await?;
        let (name, by, reason) = (&rule.name, &rule.by, &rule.reason);
        info!(
            event = "admin",
            verb = "put hold rule",
            rule = name,
            by,
            reason
        );
    }
    if !order.also_present {
        return Ok(Changed::default());
    }
    hold_present(queue, &rule, order.dry_run).await
}

pub(super) async fn remove(queue: &LocalQueue, removal: Removal) -> Result<Changed, QueueError> {
    let Removal {
        name,
        by,
        release,
        dry_run,
    } = removal;
    let core = queue.core().await?;
    let known = core.queue.hold_rules();
    if !known.iter().any(|rule| rule.name == name) {
        return Err(QueueError::NotFound);
    }
    if !dry_run {
        holds::remove(&core, &name).await?;
        info!(event = "admin", verb = "remove hold rule", rule = name, by);
    }
    if !release {
        return Ok(Changed::default());
    }
    let order = Order {
        filter: holds::held_filter(&name),
        dry_run,
        by,
        reason: format!("hold rule {name} was removed"),
    };
    change::carry_out(queue, Change::Release, order).await
}

pub(super) fn list(core: &Core) -> Result<Vec<HoldRuleDetails>, QueueError> {
    let rules = core.queue.hold_rules();
    let until = Instant::now() + COUNTING;
    let counted = rules
        .iter()
        .map(|rule| Ok(holds::details(rule, held(core, &rule.name, until)?)));
    counted.collect()
}

fn held(core: &Core, name: &str, until: Instant) -> Result<u64, QueueError> {
    let filter = holds::held_filter(name);
    let (mut from, mut count) = (None, 0_u64);
    loop {
        let listing = Listing::oldest(&filter, from, AT_ONCE);
        let in_time = || Instant::now() < until;
        let page = core.queue.list(&listing, clock::now(), &in_time);
        let page = page.map_err(failed)?;
        count = count.saturating_add(u64::try_from(page.mails.len()).unwrap_or(u64::MAX));
        match page.next {
            Some(next) if in_time() => from = Some(next),
            _ => return Ok(count),
        }
    }
}

/// Holds what is in the queue already.
async fn hold_present(
    queue: &LocalQueue,
    rule: &HoldRule,
    dry_run: bool,
) -> Result<Changed, QueueError> {
    let (mut held, mut busy) = (BTreeSet::new(), BTreeSet::new());
    let core = queue.core().await?;
    let mut from = None;
    loop {
        let wanted = rule.filter.clone();
        let page = queue.blocking(move |core| open_jobs(core, &wanted, from));
        let (jobs, next) = page.await?;
        if dry_run {
            held.extend(jobs.iter().map(|job| job.queue_id));
        } else {
            let hold = |job| (job, Instruction::Hold(holds::why(rule)));
            for some in jobs.chunks(AT_ONCE) {
                let told = instruct(&core, some.iter().copied().map(hold).collect()).await;
                let told = told.map_err(to_client_error)?;
                held.extend(told.changed.into_iter().map(|job| job.queue_id));
                busy.extend(told.busy.into_iter().map(|job| job.queue_id));
            }
        }
        match next {
            Some(next) => from = Some(next),
            None => break,
        }
    }
    if !dry_run {
        for &queue_id in &held {
            info!(event = "held", %queue_id, rule = rule.name, by = rule.by);
        }
    }
    let count = |ids: &BTreeSet<QueueId>| u64::try_from(ids.len()).unwrap_or(u64::MAX);
    Ok(Changed {
        mails: count(&held),
        busy: count(&busy),
    })
}

type Jobs = (Vec<postroad_queue::JobKey>, Option<QueueId>);

/// Jobs that fit and are neither held nor only owed a report, and where to go on. Blocks.
fn open_jobs(core: &Core, filter: &Filter, from: Option<QueueId>) -> Result<Jobs, QueueError> {
    let now = clock::now();
    let listing = Listing::oldest(filter, from, AT_ONCE);
    let page = core.queue.list(&listing, now, &|| true).map_err(failed)?;
    let jobs = page.mails.iter().flat_map(|mail| &mail.jobs);
    let open = jobs.filter(|job| {
        let free = job.state.is_pending() && !job.state.is_held();
        free && job.fits(filter, now)
    });
    Ok((open.map(|job| job.state.key).collect(), page.next))
}
