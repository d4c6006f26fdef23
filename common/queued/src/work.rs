//! One worker's stream, from hello to its end.

use std::{
    iter,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::StreamExt;
use postroad_envelope::{
    Cause, Envelope, Event, EventKind, LeaseRef, Outcome, QueueId, RecipientIndex,
};
use postroad_proto::queue::v1;
use postroad_queue::{Holder, QueueError as Inner, Settled, TakenOver};
use postroad_queue_client::{
    HandBack, QueueError, SettleResult, Settlement, Touch, WorkChannel, WorkDown, WorkHello, WorkUp,
};
use tokio::{sync::mpsc, task::spawn_blocking};
use tokio_stream::wrappers::ReceiverStream;
use tracing::{debug, error, info, warn};

use crate::{
    LocalQueue,
    agents::Connected,
    clock,
    committer::CommitError,
    core::{Core, to_client_error},
    dispatch::{Down, ToDispatcher, Worker},
    suppression,
    upkeep::rerouting,
    words,
};

const UP: usize = 256;
const DOWN: usize = 256;
/// The format of a folder in which stage and cause of an outcome are kept.
pub(crate) const CAUSES: u32 = 2;
/// A lease handed back may not be delayed longer.
const LONGEST_DELAY: Duration = Duration::from_secs(24 * 3600);

static STREAMS: AtomicU64 = AtomicU64::new(1);

/// Opens a stream: resumes what the worker still holds, welcomes it, and lets it be dispatched to.
///
/// Workers of a queue that catches up wait here: only then it can tell what they may resume.
pub(crate) async fn open(queue: &LocalQueue, hello: WorkHello) -> Result<WorkChannel, QueueError> {
    let stopping = || QueueError::Unavailable("the queue is stopping".to_owned());
    tokio::select! {
        biased;
        () = queue.front.stopping.cancelled() => return Err(stopping()),
        () = queue.caught_up() => {}
    }
    let core = &queue.core().await?;
    let stream = STREAMS.fetch_add(1, Ordering::Relaxed);
    let holder = Holder {
        agent: hello.agent.as_str().into(),
        stream,
    };
    let (up, from_worker) = mpsc::channel(UP);
    let (down, to_worker) = mpsc::channel(DOWN);
    let resumed = resume(core, &hello, &holder)?;
    info!(
        event = "worker_connected",
        worker = hello.agent,
        version = hello.version,
        count = resumed.iter().filter(|(_, new)| new.is_some()).count()
    );
    let welcome = WorkDown::Welcome {
        epoch: core.epoch,
        stream,
        permits: true,
        resumed,
    };
    let gone = |_| QueueError::Unavailable("the queue has ended".to_owned());
    down.try_send(Ok(welcome)).map_err(|_| gone(()))?;
    warn_if_shared(core, &hello);
    if let Some(former) = hello.former.filter(|former| former.epoch == core.epoch) {
        let former = Holder {
            stream: former.stream,
            ..holder.clone()
        };
        let left = core.dispatcher.send(ToDispatcher::Left(former));
        left.await.map_err(|_| gone(()))?;
    }
    let connected = core.agents.connect(stream, &hello);
    let worker = Worker {
        holder: holder.clone(),
        carries: Worker::carries(&hello.classes, &hello.stores),
        joins: hello.joins,
        credits: 0,
        down: down.clone(),
        connected: Arc::clone(&connected),
    };
    if core
        .dispatcher
        .send(ToDispatcher::Connect(worker))
        .await
        .is_err()
    {
        core.agents.disconnect(stream);
        return Err(gone(()));
    }
    let worker_stream = WorkerStream {
        core: Arc::clone(core),
        holder,
        down,
        connected,
    };
    core.tasks.spawn(worker_stream.run(from_worker));
    Ok(WorkChannel {
        up,
        down: ReceiverStream::new(to_worker).boxed(),
    })
}

/// Each of two agents has mailboxes of its own: mail would go to either.
fn warn_if_shared(core: &Core, hello: &WorkHello) {
    let Some((other, store)) = core.agents.also_serving(hello) else {
        return;
    };
    warn!(
        event = "store_shared", store = %store, worker = hello.agent, host = hello.host, reason = other.host,
        "two hosts serve one store ({} and {}): mail for it goes to either; give one of them a store of its own (mda.store)",
        hello.host, other.host
    );
}

fn resume(
    core: &Core,
    hello: &WorkHello,
    holder: &Holder,
) -> Result<Vec<(LeaseRef, Option<LeaseRef>)>, QueueError> {
    let now = clock::now();
    let renewed = hello.held.iter().map(|held| {
        let old = held.lease;
        let (job, fence, revision) = (words::job(old), words::fence(old), words::revision(old));
        let renewed = core.queue.resume(job, fence, revision, holder, now);
        let renewed = renewed.map_err(|error| to_client_error(error.into()))?;
        if let Some(leased) = &renewed {
            let (class, destination) = (leased.state.class, &leased.state.destination);
            core.sites.resumed(&leased.lease, class, destination);
        }
        Ok((old, renewed.map(|leased| words::lease_ref(&leased.lease))))
    });
    renewed.collect()
}

struct WorkerStream {
    core: Arc<Core>,
    holder: Holder,
    down: Down,
    connected: Arc<Connected>,
}

impl WorkerStream {
    async fn run(self, mut up: mpsc::Receiver<WorkUp>) {
        loop {
            let message = tokio::select! {
                message = up.recv() => message,
                () = self.down.closed() => None,
                () = self.core.ended.cancelled() => None,
            };
            let Some(message) = message else { break };
            if message == WorkUp::Drained {
                let drained = ToDispatcher::Left(self.holder.clone());
                let _ = self.core.dispatcher.send(drained).await;
                break;
            }
            if self.receive(message).await.is_err() {
                break;
            }
        }
        self.core.agents.disconnect(self.holder.stream);
        let freed = self
            .core
            .queue
            .drop_stream(self.holder.stream, clock::now());
        info!(event = "worker_lost", worker = %self.holder.agent, count = freed);
        let _ = self
            .core
            .dispatcher
            .send(ToDispatcher::Disconnect(self.holder.stream))
            .await;
    }

    async fn receive(&self, message: WorkUp) -> Result<(), mpsc::error::SendError<ToDispatcher>> {
        let core = &self.core;
        match message {
            WorkUp::Credits(count) => {
                core.dispatcher
                    .send(ToDispatcher::Credits(self.holder.stream, count))
                    .await?;
            }
            WorkUp::Settle(settlement) => {
                let (core, agent) = (Arc::clone(core), Arc::clone(&self.connected));
                let down = self.down.clone();
                // Not waited for here: settlements of one worker share rounds.
                let settled = Box::pin(settle(core, agent, down, settlement));
                self.core.tasks.spawn(settled);
            }
            WorkUp::Extend(leases) => self.extend(leases),
            WorkUp::HandBack(back) => {
                self.hand_back(back).await;
                core.dispatcher.send(ToDispatcher::Look).await?;
            }
            WorkUp::Permit(permit) => {
                let permitted = core.sites.permit(&permit);
                // A worker without an answer goes on; waiting for it would hold up both.
                let _ = self.down.try_send(Ok(WorkDown::Permitted(permitted)));
                core.dispatcher.send(ToDispatcher::Look).await?;
            }
            WorkUp::Events(events) => core.timeline.record(events),
            // The stream has ended with it.
            WorkUp::Drained => {}
        }
        Ok(())
    }

    fn extend(&self, leases: Vec<LeaseRef>) {
        let now = clock::now();
        let over = |lease: &LeaseRef| {
            self.core
                .queue
                .extend(words::job(*lease), words::fence(*lease), now)
                .is_err()
        };
        let over: Vec<LeaseRef> = leases.into_iter().filter(over).collect();
        if !over.is_empty() {
            // Advice; waiting for a worker that waits for us would hold up both for ever.
            let _ = self.down.try_send(Ok(WorkDown::Revoked(over)));
        }
    }

    async fn hand_back(&self, back: HandBack) {
        let (job, fence) = (words::job(back.lease), words::fence(back.lease));
        // Before the lease ends, as with a settlement.
        let delay = match self.core.sites.handed_back(back.lease) {
            true => Duration::ZERO,
            false => back.delay.min(LONGEST_DELAY),
        };
        let result = self.core.queue.hand_back(job, fence, delay, clock::now());
        debug!(
            queue_id = %job.queue_id, worker = %self.holder.agent,
            reason = back.reason, stale = result.is_err(), "handed back"
        );
        if result.is_err() {
            return;
        }
        match back.touch {
            Touch::Untouched => {}
            Touch::Unclear => self.core.queue.set_clear(job, false),
            Touch::Elsewhere => rerouting::follow(&self.core, job).await,
        }
    }
}

/// Makes a result durable and tells the worker so; one that comes too late is kept as an event at most.
async fn settle(core: Arc<Core>, agent: Arc<Connected>, down: Down, settlement: Settlement) {
    let lease = settlement.lease;
    let (job, fence) = (words::job(lease), words::fence(lease));
    // Before the lease ends, with which its place would go.
    core.sites.settled(&settlement);
    let mut settlement = settlement;
    diagnose(&core, &mut settlement);
    let outcomes = settlement.outcomes.clone();
    let (reporting, timed) = (settlement.reporting.clone(), settlement.timed.clone());
    let envelope = envelope_of(&core, job.queue_id, &outcomes).await;
    let prepare = move |queue: &postroad_queue::Queue, now| {
        let failed = outcomes
            .iter()
            .any(|(_, outcome)| matches!(outcome, Outcome::Failed(_)));
        // Asked now, since the mail may be gone once this is applied.
        let null_sender = failed
            && queue
                .show(job.queue_id)?
                .is_some_and(|mail| mail.mail.sender.is_empty());
        let taken = TakenOver {
            reporting: &reporting,
            timed: &timed,
        };
        let (prepared, settled) = queue.prepare_settle(job, fence, outcomes, taken, now)?;
        Ok((Some(prepared), (settled, null_sender)))
    };
    let result = match core.committer.settle(prepare).await {
        Ok(committed) => {
            let (settled, null_sender) = committed.value;
            agent.count_settled();
            announce(&core, &agent.name, &settlement, &settled, null_sender);
            if let Some(envelope) = envelope {
                suppression::learn(&core, &envelope, &settlement.outcomes);
            }
            let mut left = settled.state.pending().peekable();
            if left.peek().is_some() {
                let elsewhere = left.all(|index| settlement.elsewhere.contains(&index));
                match elsewhere {
                    // Seldom: other settlements have no room for it.
                    true => Box::pin(rerouting::follow(&core, job)).await,
                    false => core.queue.set_clear(job, false),
                }
            }
            SettleResult::Durable
        }
        Err(CommitError::Queue(Inner::Stale(_) | Inner::NoSuchJob(_) | Inner::NoSuchMail(_))) => {
            late(&core, &agent.name, settlement);
            SettleResult::Stale
        }
        Err(failed) => {
            // The stream ends with the queue; the worker offers its result again.
            error!(event = "fault", queue_id = %job.queue_id, error = %failed, "a result could not be kept");
            return;
        }
    };
    let _ = down.send(Ok(WorkDown::Settled { lease, result })).await;
}

/// Whose recipients may have to be remembered; read before the mail may be gone.
async fn envelope_of(
    core: &Arc<Core>,
    id: QueueId,
    outcomes: &[(RecipientIndex, Outcome)],
) -> Option<Box<Envelope>> {
    if !suppression::is_due(core, outcomes) {
        return None;
    }
    let owner = Arc::clone(core);
    let reading = spawn_blocking(move || {
        let shown = owner.queue.show(id).ok()??;
        owner.record_of(&shown.mail).ok()
    });
    let record = reading.await.ok()??;
    Some(Box::new(record.envelope))
}

/// Why recipients did not get the mail: found once, where all of it passes, and kept with the outcome.
fn diagnose(core: &Core, settlement: &mut Settlement) {
    let rules = core.causes.load();
    // Until the folder is upgraded the release before reads it, which knows neither.
    let is_kept = core.format >= CAUSES;
    for (_, outcome) in &mut settlement.outcomes {
        let is_trouble = matches!(outcome, Outcome::Delayed(_) | Outcome::Failed(_));
        let report = outcome.report_mut();
        let cause = (is_trouble && is_kept).then(|| rules.diagnose(report).cause);
        report.cause = cause;
        if !is_kept {
            report.stage = None;
        }
    }
}

fn announce(core: &Core, agent: &str, settlement: &Settlement, settled: &Settled, double: bool) {
    let now = clock::now();
    let state = &settled.state;
    let queue_id = state.key.queue_id;
    let delayed = settlement
        .outcomes
        .iter()
        .filter(|(_, outcome)| !outcome.is_final());
    let delayed = delayed.filter(|(index, _)| settled.done.iter().all(|(done, _)| done != index));
    let outcomes: Vec<&(RecipientIndex, Outcome)> = settled.done.iter().chain(delayed).collect();
    let mut attempt = Some(|| v1::Attempt {
        number: state.attempts,
        started_at_ms: settlement.started_at.as_millis(),
        ended_at_ms: now.as_millis(),
        agent: agent.to_owned(),
        outcomes: outcomes.iter().map(|&outcome| outcome.into()).collect(),
    });
    for (action, of) in by_action(&outcomes) {
        let Some((_, outcome)) = of.first() else {
            continue;
        };
        core.counts.settled(outcome, of.len());
        let report = outcome.report();
        info!(
            event = "settled", %queue_id, destination = state.destination, attempt = state.attempts,
            outcome = action, recipients = of.len(), enhanced = %report.status,
            cause = report.cause.map(Cause::as_str), reply = report.text,
            relay = report.remote.as_ref().map(|remote| remote.name.as_str()),
            retry_at = settled.retry_at.map(tracing::field::display),
            delay_ms = u64::try_from(now.since(state.arrived_at).as_millis()).unwrap_or(0),
        );
        core.timeline.record(iter::once_with(|| {
            let indices: Vec<RecipientIndex> = of.iter().map(|(index, _)| *index).collect();
            let event = core.event(now, queue_id, EventKind::Settled, &indices);
            let event = event
                .text(format_args!("{action}: {} {}", report.status, report.text))
                .field("attempt", state.attempts)
                .field("outcome", action)
                .field("destination", &state.destination)
                .field("enhanced", report.status)
                .field_of("cause", report.cause)
                .field_of("relay", report.remote.as_ref().map(|remote| &remote.name))
                .field("worker", agent)
                .field_of("retry_at", settled.retry_at);
            match attempt.take() {
                Some(attempt) => event.after(&attempt()),
                None => event.into(),
            }
        }));
        if double && action == "failed" && settled.owed.is_empty() {
            warn!(
                event = "dropped", %queue_id, destination = state.destination, reply = report.text,
                reason = "double bounce", "a report could not be delivered; nobody is told"
            );
        }
    }
}

fn by_action<'a>(
    outcomes: &[&'a (RecipientIndex, Outcome)],
) -> Vec<(&'static str, Vec<&'a (RecipientIndex, Outcome)>)> {
    let mut groups: Vec<(&'static str, Vec<_>)> = Vec::new();
    for &outcome in outcomes {
        let action = outcome.1.action();
        match groups.iter_mut().find(|(known, _)| *known == action) {
            Some((_, of)) => of.push(outcome),
            None => groups.push((action, vec![outcome])),
        }
    }
    groups
}

fn late(core: &Core, agent: &str, settlement: Settlement) {
    let queue_id = settlement.lease.job.queue_id;
    info!(event = "lease_expired", %queue_id, worker = agent, "a result came after its lease had ended");
    let events = settlement
        .outcomes
        .into_iter()
        .map(|(index, outcome)| Event {
            queue_id,
            at: clock::now(),
            agent: agent.to_owned(),
            kind: EventKind::Late,
            recipients: vec![index],
            text: format!(
                "{}: {} {}",
                outcome.action(),
                outcome.report().status,
                outcome.report().text
            ),
            fields: Default::default(),
        });
    core.timeline.record(events);
}
