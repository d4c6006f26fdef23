//! Gives due jobs to connected workers, by class and credits. One thread of its own: it reads records, and a worker that
//! does not listen never keeps it, since it leases no more than fits into the worker's channel.

mod together;

use std::{cmp::Reverse, fmt::Display, sync::Arc, time::Duration};

use postroad_envelope::{EventKind, LeaseRef, QueueId, RecipientIndex, RouteClass, StoreName};
use postroad_journal::JournalError;
use postroad_queue::{Content, Holder, Instruction, Lease as Grant, Leased};
use postroad_queue_client::{Lease, QueueError, WorkDown};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tracing::{debug, error, info};

use crate::{
    agents::Connected,
    clock,
    core::{Core, ReadError},
    store::damage,
    words,
};

/// Larger content is read by the worker, which holds so much for each of its leases.
const CONTENT_IN_LEASE: usize = 256 << 10;
/// Leases to one worker before the next one gets its turn.
const TURN: usize = 16;
/// Without anything to wait for, look again.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

pub(crate) type Down = mpsc::Sender<Result<WorkDown, QueueError>>;

/// What the dispatcher is told.
#[derive(Debug)]
pub(crate) enum ToDispatcher {
    /// A worker's stream began.
    Connect(Worker),
    /// It has room for so many more leases.
    Credits(u64, u32),
    /// It ended.
    Disconnect(u64),
    /// Its worker left in peace, or came back on another: what it was given there and does not hold is due at once.
    Left(Holder),
    /// Something may have become due.
    Look,
    /// Tell the workers of this name to finish what they hold; they are marked already.
    DrainAgent(String),
    /// Lease no more, and tell the workers.
    Drain,
}

/// A connected worker.
#[derive(Debug)]
pub(crate) struct Worker {
    pub holder: Holder,
    /// What it carries out; local mail of the stores it serves.
    pub carries: Vec<(RouteClass, StoreName)>,
    /// It sends several jobs of one mail together where it can.
    pub joins: bool,
    pub credits: u32,
    pub down: Down,
    pub connected: Arc<Connected>,
}

impl Worker {
    /// How many leases it can be given now.
    pub fn room(&self) -> usize {
        let room = self.down.capacity().saturating_sub(KEPT_FOR_ANSWERS);
        usize::try_from(self.credits)
            .unwrap_or(usize::MAX)
            .min(room)
    }

    /// What a worker carries out that says so of itself: one that names no store serves the default one.
    pub fn carries(classes: &[RouteClass], stores: &[StoreName]) -> Vec<(RouteClass, StoreName)> {
        let default = [StoreName::default()];
        let stores = if stores.is_empty() { &default } else { stores };
        let of = |&class: &RouteClass| {
            let stores = match class {
                RouteClass::Local => stores,
                _ => &default,
            };
            let pairs = stores.iter().map(|store| (class, store.clone()));
            pairs.collect::<Vec<_>>()
        };
        classes.iter().flat_map(of).collect()
    }
}

/// Runs until every sender is gone or the queue has ended.
pub(crate) async fn run(
    core: Arc<Core>,
    mut messages: mpsc::Receiver<ToDispatcher>,
    reports: mpsc::Sender<QueueId>,
) {
    let mut rounds = core.committer.rounds();
    let ended = core.ended.clone();
    let mut dispatcher = Dispatcher {
        core,
        workers: Vec::new(),
        first: 0,
        reports,
        draining: false,
    };
    loop {
        let sleep = sleep_until(dispatcher.next_wake());
        tokio::select! {
            () = ended.cancelled() => return,
            message = messages.recv() => match message {
                Some(message) => dispatcher.receive(message),
                None => return,
            },
            Ok(()) = rounds.changed() => {}
            () = sleep => {}
        }
        while let Ok(message) = messages.try_recv() {
            dispatcher.receive(message);
        }
        dispatcher.turn().await;
    }
}

struct Dispatcher {
    core: Arc<Core>,
    workers: Vec<Worker>,
    /// Whose turn it is first.
    first: usize,
    reports: mpsc::Sender<QueueId>,
    draining: bool,
}

impl Dispatcher {
    fn next_wake(&self) -> Instant {
        let wakes = [self.core.queue.next_wakeup(), self.core.sites.next_wake()];
        let wait = match wakes.into_iter().flatten().min() {
            Some(at) => at.since(clock::now()).min(LONGEST_SLEEP),
            None => LONGEST_SLEEP,
        };
        // Rounded up: a wake-up in the middle of a millisecond would find nothing to do.
        Instant::now() + wait + Duration::from_millis(1)
    }

    fn receive(&mut self, message: ToDispatcher) {
        match message {
            ToDispatcher::Connect(worker) => {
                if self.draining {
                    let _ = worker.down.try_send(Ok(WorkDown::Drain));
                }
                self.workers.push(worker);
            }
            ToDispatcher::Credits(stream, count) => {
                if let Some(worker) = self.worker(stream) {
                    worker.credits = worker.credits.saturating_add(count);
                }
            }
            ToDispatcher::Disconnect(stream) => {
                self.workers.retain(|worker| worker.holder.stream != stream);
            }
            ToDispatcher::Left(holder) => {
                // Here, since nobody else grants: after this the stream gets no more.
                self.workers.retain(|worker| worker.holder != holder);
                self.core.queue.free_stream(&holder, clock::now());
            }
            ToDispatcher::Look => {}
            ToDispatcher::DrainAgent(name) => {
                let named = |worker: &&Worker| worker.connected.name == name;
                for worker in self.workers.iter().filter(named) {
                    let _ = worker.down.try_send(Ok(WorkDown::Drain));
                }
            }
            ToDispatcher::Drain => {
                self.draining = true;
                for worker in &self.workers {
                    let _ = worker.down.try_send(Ok(WorkDown::Drain));
                }
            }
        }
    }

    fn worker(&mut self, stream: u64) -> Option<&mut Worker> {
        self.workers
            .iter_mut()
            .find(|worker| worker.holder.stream == stream)
    }

    /// Does what time demands, then leases while there are jobs and room.
    async fn turn(&mut self) {
        let ticked = self.core.queue.tick(clock::now());
        for lease in ticked.expired {
            self.expired(lease);
        }
        for id in ticked.reports {
            // If there is no room the schedule names it again.
            let _ = self.reports.try_send(id);
        }
        if self.draining {
            return;
        }
        loop {
            let mut leased = 0;
            self.open_sites();
            for at in self.order() {
                leased += self.serve(at);
            }
            if leased == 0 {
                return;
            }
            self.first = self.first.wrapping_add(1);
            // Messages wait: credits and disconnects are as urgent as leases.
            tokio::task::yield_now().await;
        }
    }

    /// Lets those destinations have turns again whose sites have room.
    fn open_sites(&self) {
        let (queue, sites) = (&self.core.queue, &self.core.sites);
        sites.ended(queue.take_ended());
        for line in sites.wake() {
            queue.reopen(line.class, &line.destination);
        }
    }

    /// Who has most room comes first: a worker that fell silent keeps what it has, and what comes goes to the others. Among equals it goes in turns.
    fn order(&self) -> Vec<usize> {
        let count = self.workers.len();
        let turns = (0..count).map(|at| (self.first + at) % count);
        let mut order: Vec<usize> = turns.collect();
        order.sort_by_key(|&at| Reverse(self.workers.get(at).map_or(0, |worker| worker.credits)));
        order
    }

    fn serve(&mut self, at: usize) -> usize {
        let Some(worker) = self.workers.get_mut(at) else {
            return 0;
        };
        if worker.connected.is_draining() {
            return 0;
        }
        let mut total = 0;
        for at_class in 0..worker.carries.len() {
            let max = worker.room().min(TURN);
            let Some(of) = worker.carries.get(at_class).filter(|_| max > 0) else {
                continue;
            };
            let granted = match worker.joins && of.0 == RouteClass::Relay {
                true => together::grant(&self.core, worker, of, max),
                false => alone(&self.core, worker, of, max),
            };
            let granted = match granted {
                Ok(granted) => granted,
                Err(error) => {
                    error!(event = "fault", error = %error, "jobs cannot be leased");
                    continue;
                }
            };
            for leases in granted {
                total += leases.len();
                give(&self.core, worker, leases);
            }
        }
        total
    }

    fn expired(&mut self, lease: Grant) {
        self.core.counts.leases_expired.count();
        info!(
            event = "lease_expired", queue_id = %lease.job.queue_id, worker = %lease.holder.agent,
            duration_ms = u64::try_from(clock::now().since(lease.granted_at).as_millis()).unwrap_or(0)
        );
        let reference = words::lease_ref(&lease);
        if let Some(worker) = self.worker(lease.holder.stream) {
            let _ = worker.down.try_send(Ok(WorkDown::Revoked(vec![reference])));
        }
    }
}

/// Room in a worker's channel that leases leave to other messages.
const KEPT_FOR_ANSWERS: usize = 16;
/// A job whose mail could not be read now, or whose worker has just gone, is offered again after this.
const RETRY_READ: Duration = Duration::from_millis(100);

/// Each job by itself.
fn alone(
    core: &Core,
    worker: &Worker,
    of: &(RouteClass, StoreName),
    max: usize,
) -> Result<Vec<Vec<Leased>>, postroad_queue::QueueError> {
    let (mut gate, now) = (core.sites.gate(), clock::now());
    let of = (of.0, &of.1);
    let granted = core
        .queue
        .lease_through(&mut gate, of, &worker.holder, max, now)?;
    Ok(granted.into_iter().map(|leased| vec![leased]).collect())
}

/// Sends the jobs, which go together if there are several, with all they take; those go back that cannot be sent.
fn give(core: &Arc<Core>, worker: &mut Worker, leases: Vec<Leased>) {
    let row = together::Row::of(core, &leases);
    let mut built = Vec::with_capacity(leases.len());
    for leased in leases {
        match build(core, &leased) {
            Ok(lease) => built.push((leased, lease)),
            Err(error) => {
                if !error.is_gone() || damage::is_lost(core, &leased.mail) {
                    unreadable(core, &leased, &error);
                }
                give_back(core, &leased.lease);
            }
        }
    }
    let Ok(places) = worker.down.try_reserve_many(built.len()) else {
        built
            .iter()
            .for_each(|(leased, _)| give_back(core, &leased.lease));
        return;
    };
    for (place, (leased, lease)) in places.zip(row.of_those(built)) {
        worker.credits = worker.credits.saturating_sub(1);
        // Told first: whatever the worker tells comes after it.
        tell(core, &leased, lease.lease, lease.attempt);
        core.counts.leased(leased.state.class);
        place.send(Ok(WorkDown::Lease(Box::new(lease))));
    }
}

fn give_back(core: &Core, lease: &Grant) {
    let now = clock::now();
    // Stale means that the stream's end freed it already.
    let _ = core
        .queue
        .hand_back(lease.job, lease.fence, RETRY_READ, now);
}

pub(crate) fn build(core: &Core, leased: &Leased) -> Result<Lease, ReadError> {
    let record = core.record_of(&leased.mail)?;
    let mut envelope = record.envelope;
    let pending: Vec<_> = leased.state.pending().collect();
    envelope
        .recipients
        .retain(|recipient| pending.contains(&recipient.index));
    let content = match record.content {
        Content::Inline(bytes) if bytes.len() <= CONTENT_IN_LEASE => Some(bytes),
        Content::Inline(_) => None,
        Content::File(file) => {
            // A worker could only fail to read it, for ever.
            core.store.damaged.check(&file)?;
            core.contents.reader(&file).map_err(|error| match error {
                JournalError::Gone => ReadError::NoContent(file.nonce),
                other => other.into(),
            })?;
            None
        }
    };
    let state = &leased.state;
    Ok(Lease {
        lease: words::lease_ref(&leased.lease),
        duration: core.config().lease.duration.into(),
        route: state.route(),
        attempt: state.attempts.saturating_add(1),
        envelope,
        content,
        site: core
            .sites
            .of(&state.destination)
            .map(|site| site.to_string()),
        followed_by: 0,
    })
}

fn tell(core: &Core, leased: &Leased, lease: LeaseRef, attempt: u32) {
    let agent = &leased.lease.holder.agent;
    debug!(
        event = "leased", queue_id = %lease.job.queue_id, destination = leased.state.destination,
        attempt, worker = %agent
    );
    let rule = &leased.state.rule;
    let text = format_args!("given to {agent}, attempt {attempt}, by {rule}");
    let fields = [("attempt", &attempt as &dyn Display), ("rule", rule)];
    let recipients: Vec<RecipientIndex> = leased.state.pending().collect();
    let job = lease.job;
    core.tell(job.queue_id, EventKind::Leased, &recipients, text, fields);
}

/// Its record is damaged: trying again does not help, a person may.
fn unreadable(core: &Arc<Core>, leased: &Leased, error: &ReadError) {
    let job = leased.lease.job;
    error!(event = "corruption", queue_id = %job.queue_id, error = %error, "the mail cannot be read; it is held");
    let committer = core.committer.clone();
    let why = Instruction::Hold(format!("cannot be read: {error}"));
    let holding = async move {
        let hold =
            move |queue: &postroad_queue::Queue, now| Ok((Some(queue.prepare(job, why, now)?), ()));
        // If it is not held it is tried again, and fails again.
        let _ = committer.commit(hold).await;
    };
    core.tasks.spawn_on(holding, &core.runtime);
}
