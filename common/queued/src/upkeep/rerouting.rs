//! Routes that follow the directory and the routing table, while mail waits.
//!
//! The store of local mail is that of its recipients' accounts. A job whose worker may have filed some of it goes to another
//! store only once that worker has said that it did not: otherwise the mail would be filed in both. Its worker is given
//! the job again, looks into its ledger, and settles it or gives it back ([`follow`]).

use std::{borrow::Borrow, cell::OnceCell};

use postroad_address::Domain;
use postroad_directory::Directory;
use postroad_envelope::{Envelope, Filter, QueueId, Route, RouteClass, StoreName};
use postroad_queue::{Instruction, JobKey, JobState, Listing, MailPlace, MailSummary, QueueError};
use tokio::task::spawn_blocking;
use tracing::{error, info, warn};

use super::{PAGE, instruct};
use crate::{
    clock,
    committer::CommitError,
    core::Core,
    routing::{self, Router, follows_table},
};

/// A record may be moved while it is looked for; so often in a row it cannot be.
const TRIES: usize = 5;

/// What is to be done about a job whose route is not the one it should have.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// It takes another route.
    Other(Route),
    /// Its account is of another store, and the worker of the one it was of must say first whether it filed the mail.
    AskFirst,
}

type Misrouted = (Vec<(JobKey, Way)>, Option<QueueId>);

/// Jobs of a page of mails whose routes are not what they should be; `stores`: also as to stores. Blocks.
pub(super) fn wrongly_routed(
    core: &Core,
    from: Option<QueueId>,
    stores: bool,
) -> Result<Misrouted, QueueError> {
    let (directory, router) = (core.directory.current(), core.router());
    let all = Filter::all();
    let listing = Listing::oldest(&all, from, PAGE);
    let page = core.queue.list(&listing, clock::now(), &|| true)?;
    let mut wrong = Vec::new();
    for mail in &page.mails {
        let pending = mail.jobs.iter().map(|job| &job.state);
        for state in pending.filter(|state| state.is_pending()) {
            let Some(route) = route_of(core, (&directory, &router), mail, state, stores) else {
                continue;
            };
            let way = match route.store != state.store && route.class == state.class {
                true if state.attempts > 0 || core.queue.is_unclear(state.key) => Way::AskFirst,
                _ => Way::Other(route),
            };
            wrong.push((state.key, way));
        }
    }
    Ok((wrong, page.next))
}

/// Lets a job take the way it should.
pub(super) async fn take(core: &Core, job: JobKey, way: Way) -> Result<(), CommitError> {
    let Way::Other(route) = way else {
        // At once, and not when the next attempt would be due.
        instruct(core, vec![(job, Instruction::Retry)]).await?;
        return Ok(());
    };
    let (class, rule) = (route.class, route.rule.clone());
    // Holds and releases what the table holds; what a person holds stays held.
    let moved = instruct(core, vec![(job, Instruction::Reroute(route))]).await?;
    if !moved.changed.is_empty() {
        info!(event = "rerouted", queue_id = %job.queue_id, route = %class, rule);
    }
    Ok(())
}

/// The worker of a job's store says that all who are still to get the mail are of another one, and that it filed nothing for
/// them: the job goes where the directory says. Where that says what it said before, it stays due here: it was not read anew yet,
/// or the worker goes by another one.
pub(crate) async fn follow(core: &std::sync::Arc<Core>, job: JobKey) {
    core.queue.set_clear(job, true);
    let found = {
        let core = std::sync::Arc::clone(core);
        spawn_blocking(move || {
            let mail = core.queue.show(job.queue_id)?;
            let Some(mail) = mail else { return Ok(None) };
            let (directory, router) = (core.directory.current(), core.router());
            let states = mail.jobs.iter().map(|one| &one.state);
            let state = states.into_iter().find(|state| state.key == job);
            let state = state.filter(|state| state.is_pending());
            Ok(state.and_then(|state| route_of(&core, (&directory, &router), &mail, state, true)))
        })
        .await
    };
    let route = match found {
        Ok(Ok(Some(route))) => route,
        Ok(Ok(None)) => return,
        Ok(Err::<_, QueueError>(failed)) => {
            return error!(event = "fault", error = %failed, "a mail could not be routed anew");
        }
        Err(_) => return,
    };
    if let Err(failed) = take(core, job, Way::Other(route)).await {
        error!(event = "fault", queue_id = %job.queue_id, error = %failed, "a mail could not be routed anew");
    }
}

/// The route a job should have; none if it has it.
fn route_of(
    core: &Core,
    (directory, router): (&Directory, &Router),
    mail: &MailSummary,
    state: &JobState,
    stores: bool,
) -> Option<Route> {
    let read = OnceCell::new();
    let envelope = || read.get_or_init(|| envelope_of(core, &mail.mail)).as_ref();
    let route = match follows_table(&state.rule) {
        true => {
            let domain = Domain::parse(&state.destination).ok()?;
            let is_local = |domain: &_| directory.is_local_domain(domain);
            // All of a job are of one domain, and of one mail, so one rule fits them all. Where the mail cannot be read, the job
            // stays as it is.
            let known = match router.asks_mail() {
                true => Some(envelope()?),
                false => None,
            };
            router.route_domain(known, &domain, is_local).route
        }
        false => state.route(),
    };
    // A mail that was accepted is not thrown away since a rule changed.
    if route.class == RouteClass::Discard {
        return None;
    }
    let route = routing::in_store(route, || match stores {
        true => store_of(directory, state, envelope),
        false => state.store.clone(),
    });
    (!route.leads_like(&state.route())).then_some(route)
}

/// The store of those of a job who are still to get the mail: the one it is of, as long as it is any of theirs, else that of the
/// first of them. A job is never divided, so where its recipients are of several stores it goes to one after the other. Blocks.
pub(crate) fn store_of<E: Borrow<Envelope>>(
    directory: &Directory,
    state: &JobState,
    envelope: impl FnOnce() -> Option<E>,
) -> StoreName {
    if !directory.has_stores() {
        return StoreName::default();
    }
    let Some(envelope) = envelope() else {
        return state.store.clone();
    };
    let recipients = state
        .pending()
        .filter_map(|index| envelope.borrow().recipient(index));
    let mut first = None;
    for recipient in recipients {
        let store = directory.store_of(&recipient.address);
        if store == state.store {
            return store;
        }
        first.get_or_insert(store);
    }
    first.unwrap_or_else(|| state.store.clone())
}

/// The envelope of a mail, if it can be read. Blocks.
pub(crate) fn envelope_of(core: &Core, mail: &MailPlace) -> Option<Envelope> {
    let mut read = core.record_of(mail);
    for _ in 0..TRIES {
        match read {
            Ok(record) => return Some(record.envelope),
            Err(error) if error.is_gone() => {
                let now = core.queue.show(mail.queue_id).ok()??;
                read = core.record_of(&now.mail);
            }
            Err(error) => {
                warn!(event = "corruption", queue_id = %mail.queue_id, error = %error, "its store cannot be told");
                return None;
            }
        }
    }
    None
}
