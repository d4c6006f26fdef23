//! What operators do: page by page, as many jobs as one commit should hold.

use std::collections::{BTreeMap, BTreeSet};

use postroad_envelope::{
    EventKind, Filter, NextHop, QueueId, Route, RouteClass, StatusReport, StoreName,
};
use postroad_queue::{Instruction, JobKey, JobSummary, Listing, MailSummary as Found, Phase};
use postroad_queue_client::{Change, Changed, Order, QueueError};
use postroad_reply::PERMANENT_5_0_0;
use tracing::info;

use super::{AT_ONCE, failed, sites};
use crate::{
    LocalQueue, clock,
    core::{Core, to_client_error},
    dispatch::ToDispatcher,
    routing,
    upkeep::{instruct, rerouting},
};

/// Octets of a reason that are kept: it goes into states of bounded size.
pub(super) const REASON: usize = 500;

pub(super) async fn carry_out(
    queue: &LocalQueue,
    change: Change,
    mut order: Order,
) -> Result<Changed, QueueError> {
    check(&change, &order)?;
    let core = queue.core().await?;
    order.filter = sites::found(&core, order.filter.folded());
    let named = !order.filter.ids.is_empty() && !order.filter.all;
    let newest = queue.blocking(newest).await?;
    let (mut all, mut found) = (Changed::default(), false);
    let (mut from, mut still_held) = (None, None);
    loop {
        let (wanted, after) = (order.filter.clone(), from);
        let selected = queue.blocking(move |core| select(core, &wanted, after));
        let (mut mails, next) = selected.await?;
        // What came since, such as the reports this brings about, was not meant.
        mails.retain(|mail| Some(mail.mail.queue_id) <= newest);
        found |= !mails.is_empty();
        let page = if order.dry_run {
            would_change(&change, &order, &mails)
        } else {
            let (of, to) = (mails.clone(), change.clone());
            let stores = queue.blocking(move |core| Ok(stores(core, &to, &of)));
            let stores = stores.await?;
            let (page, held) = change_page(&core, &change, &order, &mails, &stores).await?;
            still_held = held.or(still_held);
            page
        };
        all.mails += page.mails;
        all.busy += page.busy;
        from = next.filter(|next| Some(*next) <= newest);
        if from.is_none() {
            break;
        }
    }
    // Whoever named mails wants to know if none of them could be changed.
    if named && !found {
        return Err(QueueError::NotFound);
    }
    if named && all.mails == 0 {
        return Err(QueueError::Conflict(match (all.busy, still_held) {
            (_, Some(why)) => format!(
                "its route lets it go, but it is held by {why}; release it once more, or remove the rule"
            ),
            (0, None) => "none of these mails is in a state that allows it".to_owned(),
            (_, None) => "a worker holds it now; try again when its attempt is over".to_owned(),
        }));
    }
    let _ = core.dispatcher.send(ToDispatcher::Look).await;
    Ok(all)
}

fn check(change: &Change, order: &Order) -> Result<(), QueueError> {
    let invalid = |why: &str| Err(QueueError::Invalid(why.to_owned()));
    if order.reason.len() > REASON {
        return invalid("the reason is too long");
    }
    if order.filter.is_empty() {
        return invalid("the filter means no mail; give a part of it, or say that all are meant");
    }
    match change {
        Change::Reroute { class, next_hop } => check_route(*class, next_hop.as_ref()),
        Change::Priority(-9..=9) => Ok(()),
        Change::Priority(_) => invalid("a priority is a number from -9 to 9"),
        _ => Ok(()),
    }
}

/// Whether an operator may send mail this way.
pub(super) fn check_route(class: RouteClass, next_hop: Option<&NextHop>) -> Result<(), QueueError> {
    let why = match (class, next_hop) {
        (RouteClass::Hold, _) => "hold mails with the verb for it",
        (RouteClass::Discard, _) => "drop mails with the verb for it",
        (RouteClass::Lmtp, None) => "an LMTP route needs a next hop",
        (RouteClass::Local, Some(_)) => "a local route has no next hop",
        (_, Some(hop)) if !hop.fits(class) => "by a Unix socket mail goes by LMTP alone",
        _ => return Ok(()),
    };
    Err(QueueError::Invalid(why.to_owned()))
}

/// What is told to a job in this state; nothing if it makes no difference.
fn instruction(change: &Change, order: &Order, job: &JobSummary) -> Option<Instruction> {
    let (phase, _) = job.phase?;
    let state = &job.state;
    // Also while it owes a report: what is pending goes on once that is made.
    let is_open = state.is_pending();
    let is_held = state.hold.is_some() && is_open;
    Some(match change {
        Change::Retry if matches!(phase, Phase::Waiting | Phase::Resuming) => Instruction::Retry,
        Change::Hold if is_open && !is_held => {
            Instruction::Hold(with_reason("held by an operator", order))
        }
        // A class of its own keeps it; without another one nobody would ever take it.
        Change::Release if is_held && state.class == RouteClass::Hold => {
            Instruction::Reroute(routing::released(&state.destination))
        }
        Change::Release if is_held => Instruction::Release,
        Change::Fail if is_open => {
            let text = with_reason("given up by an operator of this mail system", order);
            Instruction::Fail(StatusReport::local(PERMANENT_5_0_0, text))
        }
        Change::Expire if is_open => Instruction::Expire(None),
        Change::Drop => Instruction::Drop,
        Change::Reroute { class, next_hop } if is_open => Instruction::Reroute(Route {
            next_hop: next_hop.clone(),
            ..routing::rerouted(&state.destination, *class)
        }),
        Change::Priority(priority) if is_open && state.priority != *priority => {
            Instruction::Priority(*priority)
        }
        _ => return None,
    })
}

fn with_reason(text: &str, order: &Order) -> String {
    match order.reason.as_str() {
        "" => text.to_owned(),
        reason => format!("{text}: {reason}"),
    }
}

/// The jobs of these mails that fit, with what they are told.
fn told<'a>(
    change: &'a Change,
    order: &'a Order,
    mails: &'a [Found],
) -> impl Iterator<Item = (&'a JobSummary, Instruction)> {
    let now = clock::now();
    let jobs = mails.iter().flat_map(|mail| &mail.jobs);
    let wanted = jobs.filter(move |job| job.fits(&order.filter, now));
    wanted.filter_map(|job| Some((job, instruction(change, order, job)?)))
}

/// The stores of jobs that are to be local: those of their accounts now, whatever the worker of another store may have filed.
fn stores(core: &Core, change: &Change, mails: &[Found]) -> BTreeMap<JobKey, StoreName> {
    let local = matches!(change, Change::Reroute { class, .. } if *class == RouteClass::Local);
    let directory = core.directory.current();
    let jobs = mails.iter().filter(|_| local);
    let jobs = jobs.flat_map(|mail| mail.jobs.iter().map(move |job| (mail, &job.state)));
    let stores = jobs.map(|(mail, state)| {
        let store = rerouting::store_of(&directory, state, || {
            rerouting::envelope_of(core, &mail.mail)
        });
        (state.key, store)
    });
    stores.collect()
}

fn would_change(change: &Change, order: &Order, mails: &[Found]) -> Changed {
    let (mut free, mut busy) = (BTreeSet::new(), BTreeSet::new());
    for (job, _) in told(change, order, mails) {
        let leased = matches!(job.phase, Some((Phase::Leased, _)));
        let of = if leased { &mut busy } else { &mut free };
        of.insert(job.state.key.queue_id);
    }
    counted(&free, &busy)
}

fn counted(changed: &BTreeSet<QueueId>, busy: &BTreeSet<QueueId>) -> Changed {
    let count = |ids: &BTreeSet<QueueId>| u64::try_from(ids.len()).unwrap_or(u64::MAX);
    Changed {
        mails: count(changed),
        busy: count(busy),
    }
}

/// What was changed, and why something is held that was released.
async fn change_page(
    core: &Core,
    change: &Change,
    order: &Order,
    mails: &[Found],
    stores: &BTreeMap<JobKey, StoreName>,
) -> Result<(Changed, Option<String>), QueueError> {
    let mut all: Vec<_> = told(change, order, mails)
        .map(|(job, instruction)| (job.state.key, instruction))
        .collect();
    for (job, instruction) in &mut all {
        if let (Instruction::Reroute(route), Some(store)) = (instruction, stores.get(job)) {
            route.store = store.clone();
        }
    }
    let (mut changed, mut busy) = (BTreeSet::new(), BTreeSet::new());
    let mut still_held = None;
    for some in all.chunks(AT_ONCE) {
        let told = instruct(core, some.to_vec()).await;
        let mut told = told.map_err(to_client_error)?;
        if *change == Change::Release {
            // Its route lets such a job go, and a rule does not.
            told.changed.retain(|job| !told.held.contains_key(job));
            for (job, why) in told.held {
                let queue_id = job.queue_id;
                info!(event = "held", %queue_id, by = order.by, reason = why);
                let text = format!("its route lets it go; held: {why}");
                core.tell(queue_id, EventKind::Held, &[], text, [("reason", &why)]);
                still_held = Some(why);
            }
        }
        changed.extend(told.changed.into_iter().map(|job| job.queue_id));
        busy.extend(told.busy.into_iter().map(|job| job.queue_id));
    }
    if *change == Change::Retry {
        changed.extend(lift_sites(core, order, mails));
    }
    for &queue_id in &changed {
        tell(core, change, order, queue_id);
    }
    Ok((counted(&changed, &busy), still_held))
}

/// The sites of these mails are tried at once; tells which mails waited for that alone.
fn lift_sites(core: &Core, order: &Order, mails: &[Found]) -> Vec<QueueId> {
    let now = clock::now();
    let jobs = mails.iter().flat_map(|mail| &mail.jobs);
    let jobs = jobs.filter(|job| job.fits(&order.filter, now) && job.state.is_pending());
    let phase = |job: &JobSummary| job.phase.map(|(phase, _)| phase);
    let jobs = jobs.filter(|job| matches!(phase(job), Some(Phase::Ready | Phase::Waiting)));
    let jobs: Vec<_> = jobs.collect();
    let destinations: BTreeSet<&str> = jobs.iter().map(|job| &*job.state.destination).collect();
    let closed = destinations
        .into_iter()
        .filter(|name| core.sites.is_closed(name));
    let closed: BTreeSet<&str> = closed.collect();
    for name in &closed {
        core.sites.lift(name);
    }
    let waited = jobs.iter().filter(|job| phase(job) == Some(Phase::Ready));
    let waited = waited.filter(|job| closed.contains(&*job.state.destination));
    waited.map(|job| job.state.key.queue_id).collect()
}

/// Says who did what to a mail, in the log and in its timeline.
fn tell(core: &Core, change: &Change, order: &Order, queue_id: QueueId) {
    let (verb, by, reason) = (change.as_str(), &order.by, &order.reason);
    match change {
        Change::Hold => info!(event = "held", %queue_id, by, reason),
        Change::Release => info!(event = "released", %queue_id, by, reason),
        Change::Drop => info!(event = "dropped", %queue_id, by, reason),
        Change::Reroute { class, .. } => {
            info!(event = "rerouted", %queue_id, route = %class, by, reason);
        }
        _ => info!(event = "admin", %queue_id, verb, by, reason),
    }
    let what = match change {
        Change::Reroute { class, next_hop } => match next_hop {
            Some(next_hop) => format!("{verb} as {class} to {next_hop}"),
            None => format!("{verb} as {class}"),
        },
        Change::Priority(priority) => format!("{verb} {priority}"),
        _ => verb.to_owned(),
    };
    let who = if by.is_empty() { "an operator" } else { by };
    let text = with_reason(&format!("{what}, by {who}"), order);
    let fields = [
        ("verb", verb),
        ("by", by.as_str()),
        ("reason", reason.as_str()),
    ];
    let fields = fields.into_iter().filter(|(_, value)| !value.is_empty());
    core.tell(queue_id, EventKind::Admin, &[], text, fields);
}

/// Some of the mails a verb is for, and where to go on.
fn select(
    core: &Core,
    filter: &Filter,
    from: Option<QueueId>,
) -> Result<(Vec<Found>, Option<QueueId>), QueueError> {
    let listing = Listing::oldest(filter, from, AT_ONCE);
    let page = core.queue.list(&listing, clock::now(), &|| true);
    let page = page.map_err(failed)?;
    Ok((page.mails, page.next))
}

/// The newest mail there is.
fn newest(core: &Core) -> Result<Option<QueueId>, QueueError> {
    let listing = Listing {
        filter: &Filter::all(),
        from: None,
        newest_first: true,
        limit: 1,
    };
    let page = core.queue.list(&listing, clock::now(), &|| true);
    let mails = page.map_err(failed)?.mails;
    Ok(mails.first().map(|mail| mail.mail.queue_id))
}
