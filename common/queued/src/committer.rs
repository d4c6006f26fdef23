//! The one thread that commits.
//!
//! It takes what all others offer, without waiting for more: while one `fdatasync` runs the next round gathers by
//! itself. Only a round of nothing but settlements, while new mail keeps coming, waits a moment to share the sync of the
//! next mail: nobody stands and waits for a settlement. Per round: prepare in order, one group to the journal ◆, apply to the index un-flushed, answer. The return of
//! `append_group` is the one instant of commit; nobody is answered before it.
//!
//! After a failed write or sync nobody knows what the disk holds. Every waiter is failed, and the thread ends with an
//! error that ends the agent: only opening anew can tell.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use postroad_envelope::Timestamp;
use postroad_journal::{Journal, JournalError, Location, Lsn, RecordDraft, SegmentNumber};
use postroad_queue::{FinishedMail, Newcomers, Prepared, Queue, QueueError};
use tokio::{
    runtime::{self, Runtime},
    sync::{mpsc, oneshot, watch},
    time::timeout_at,
};
use tracing::{error, warn};

use crate::{
    ServeError,
    catch_up::{CatchUp, CaughtUp, Level, Outcome, PIECE, Standing},
    clock,
};

/// Offers waiting for a round; further ones wait with their submitters.
const WAITING: usize = 4096;
/// Most of one round.
const ROUND_OFFERS: usize = 1000;
const ROUND_OCTETS: usize = 8 << 20;
/// How long settlements wait for new mail, if some came not longer ago than `FLOW`.
const PATIENCE: Duration = Duration::from_millis(3);
const FLOW: Duration = Duration::from_millis(20);
/// How often a settlement that found no room for a segment is tried again.
const NO_ROOM_PAUSE: Duration = Duration::from_millis(200);

/// Why an offer was not committed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommitError {
    /// It could not be prepared.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// There is no room for new mail; nothing was written.
    #[error("no room for a new segment of the journal")]
    Full,
    /// The record is larger than a segment can hold.
    #[error("the mail does not fit into a segment of the journal")]
    TooLarge,
    /// The index is behind the journal: only new mail can be committed.
    #[error("{}", Standing::Loading)]
    Behind,
    /// The disk failed, or the queue has ended.
    #[error("the queue has ended")]
    Ended,
}

/// What was committed.
#[derive(Debug)]
pub(crate) struct Committed<T> {
    /// What its preparation told.
    pub value: T,
    /// The number of its first record; none if there was nothing to write.
    pub lsn: Option<Lsn>,
}

/// What the journal does for a purge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clean {
    /// No segment is recycled any more.
    Begin,
    /// What was committed lies in sealed segments then; false: no segment is prepared yet.
    Seal,
    /// Segments are recycled again.
    End,
}

/// How others reach the committer.
#[derive(Clone, Debug)]
pub(crate) struct Committer {
    offers: mpsc::Sender<Offer>,
    rounds: watch::Receiver<u64>,
    /// Nothing waits for room on the disk any more: the queue is about to end.
    hurry: Arc<AtomicBool>,
}

#[derive(Debug)]
enum Offer {
    Change(Box<dyn Offered>),
    /// In a group of its own: all before it is applied when it is prepared.
    Alone(Box<dyn Offered>),
    Reclaim(oneshot::Sender<Option<SegmentNumber>>),
    Clean(Clean, oneshot::Sender<Result<bool, CommitError>>),
    TakeOver(Box<TakeOver>),
    Fail(Box<ServeError>),
    Stop,
}

/// A queue that is nearly level with the journal, and who waits for it.
#[derive(Debug)]
struct TakeOver {
    catch_up: CatchUp,
    outcome: oneshot::Sender<Outcome>,
}

/// An offer on its way through a round.
trait Offered: Send + std::fmt::Debug {
    /// None: nothing to commit; it has been answered. An index that fails is an error that ends the agent. Without a queue
    /// only what was prepared already can be committed.
    fn prepare(
        &mut self,
        queue: Option<&Queue>,
        now: Timestamp,
    ) -> Result<Option<Prepared>, ServeError>;
    fn answer(self: Box<Self>, outcome: Result<Option<Lsn>, CommitError>);
    /// Whether it brings new mail, which is refused when there is no room.
    fn is_new_mail(&self) -> bool;
    /// Whether nobody minds if it is durable a moment later.
    fn is_patient(&self) -> bool;
}

/// What an offer brings.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    NewMail,
    Settlement,
    Other,
}

enum Wanted<F> {
    Prepared(Prepared),
    ToPrepare(F),
}

struct Change<T, F> {
    wanted: Option<Wanted<F>>,
    value: Option<T>,
    answer: Option<oneshot::Sender<Result<Committed<T>, CommitError>>>,
    kind: Kind,
}

impl<T, F> std::fmt::Debug for Change<T, F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Change")
            .field("new_mail", &(self.kind == Kind::NewMail))
            .finish_non_exhaustive()
    }
}

impl<T, F> Change<T, F> {
    fn reply(&mut self, outcome: Result<Committed<T>, CommitError>) {
        if let Some(answer) = self.answer.take() {
            // Whoever does not wait any more will learn it another way.
            let _ = answer.send(outcome);
        }
    }
}

impl<T, F> Offered for Change<T, F>
where
    T: Send,
    F: FnOnce(&Queue, Timestamp) -> Result<(Option<Prepared>, T), QueueError> + Send,
{
    fn prepare(
        &mut self,
        queue: Option<&Queue>,
        now: Timestamp,
    ) -> Result<Option<Prepared>, ServeError> {
        let (queue, prepare) = match (queue, self.wanted.take()) {
            (_, None) => return Ok(None),
            (_, Some(Wanted::Prepared(prepared))) => return Ok(Some(prepared)),
            (Some(queue), Some(Wanted::ToPrepare(prepare))) => (queue, prepare),
            (None, Some(Wanted::ToPrepare(_))) => {
                self.reply(Err(CommitError::Behind));
                return Ok(None);
            }
        };
        match prepare(queue, now) {
            Ok((Some(prepared), value)) => {
                self.value = Some(value);
                Ok(Some(prepared))
            }
            Ok((None, value)) => {
                self.reply(Ok(Committed { value, lsn: None }));
                Ok(None)
            }
            Err(failed @ (QueueError::Index(_) | QueueError::Io { .. })) => {
                self.reply(Err(CommitError::Ended));
                Err(failed.into())
            }
            Err(failed) => {
                self.reply(Err(failed.into()));
                Ok(None)
            }
        }
    }

    fn answer(mut self: Box<Self>, outcome: Result<Option<Lsn>, CommitError>) {
        let value = self.value.take();
        let outcome = outcome.and_then(|lsn| {
            value
                .map(|value| Committed { value, lsn })
                .ok_or(CommitError::Ended)
        });
        self.reply(outcome);
    }

    fn is_new_mail(&self) -> bool {
        self.kind == Kind::NewMail
    }

    fn is_patient(&self) -> bool {
        self.kind == Kind::Settlement
    }
}

impl Committer {
    /// Commits what was prepared already: only a new mail may be, since until it is applied nobody knows of it.
    pub async fn insert(&self, prepared: Prepared) -> Result<(), CommitError> {
        type Nothing = fn(&Queue, Timestamp) -> Result<(Option<Prepared>, ()), QueueError>;
        let (answer, answered) = oneshot::channel();
        let mail: Change<(), Nothing> = Change {
            wanted: Some(Wanted::Prepared(prepared)),
            value: Some(()),
            answer: Some(answer),
            kind: Kind::NewMail,
        };
        self.send(Offer::Change(Box::new(mail))).await?;
        answered
            .await
            .map_err(|_| CommitError::Ended)?
            .map(|committed| committed.value)
    }

    /// Gives the committer the queue, with little left to replay. Blocks. If the committer has ended, it says why.
    pub fn take_over(&self, catch_up: CatchUp, outcome: oneshot::Sender<Outcome>) {
        let offer = Offer::TakeOver(Box::new(TakeOver { catch_up, outcome }));
        let _ = self.offers.blocking_send(offer);
    }

    /// Prepares on the committing thread and commits. The change happens even if the caller stops waiting.
    pub async fn commit<T, F>(&self, prepare: F) -> Result<Committed<T>, CommitError>
    where
        T: Send + 'static,
        F: FnOnce(&Queue, Timestamp) -> Result<(Option<Prepared>, T), QueueError> + Send + 'static,
    {
        self.offer(prepare, Kind::Other, Offer::Change).await
    }

    /// As [`Committer::commit`], for the result of an attempt: may wait a moment to share the sync of new mail.
    pub async fn settle<T, F>(&self, prepare: F) -> Result<Committed<T>, CommitError>
    where
        T: Send + 'static,
        F: FnOnce(&Queue, Timestamp) -> Result<(Option<Prepared>, T), QueueError> + Send + 'static,
    {
        self.offer(prepare, Kind::Settlement, Offer::Change).await
    }

    /// As [`Committer::commit`], in a group of its own.
    pub async fn commit_alone<T, F>(&self, prepare: F) -> Result<Committed<T>, CommitError>
    where
        T: Send + 'static,
        F: FnOnce(&Queue, Timestamp) -> Result<(Option<Prepared>, T), QueueError> + Send + 'static,
    {
        self.offer(prepare, Kind::Other, Offer::Alone).await
    }

    async fn offer<T, F>(
        &self,
        prepare: F,
        kind: Kind,
        as_offer: fn(Box<dyn Offered>) -> Offer,
    ) -> Result<Committed<T>, CommitError>
    where
        T: Send + 'static,
        F: FnOnce(&Queue, Timestamp) -> Result<(Option<Prepared>, T), QueueError> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let change = Change {
            wanted: Some(Wanted::ToPrepare(prepare)),
            value: None,
            answer: Some(answer),
            kind,
        };
        self.send(as_offer(Box::new(change))).await?;
        answered.await.map_err(|_| CommitError::Ended)?
    }

    /// Gives up the oldest segment, whose living records were committed anew.
    pub async fn reclaim_oldest(&self) -> Result<Option<SegmentNumber>, CommitError> {
        let (answer, answered) = oneshot::channel();
        self.send(Offer::Reclaim(answer)).await?;
        answered.await.map_err(|_| CommitError::Ended)
    }

    /// A step of a purge; false: it cannot be done yet.
    pub async fn clean(&self, step: Clean) -> Result<bool, CommitError> {
        let (answer, answered) = oneshot::channel();
        self.send(Offer::Clean(step, answer)).await?;
        answered.await.map_err(|_| CommitError::Ended)?
    }

    /// From now on what finds no room on the disk is given up, as if it had not been offered: whoever offered it was told
    /// nothing, and offers it again to the next start.
    pub fn hurry(&self) {
        self.hurry.store(true, Ordering::Relaxed);
    }

    /// Ends the thread once all that was offered before is committed, or found no room.
    pub async fn stop(&self) {
        self.hurry();
        // It may have ended already.
        let _ = self.send(Offer::Stop).await;
    }

    /// A sync of the index that failed ends the agent, as one of the journal does: tried again on the same file it may
    /// succeed, and mean nothing.
    pub async fn unless_unsynced<T>(&self, done: Result<T, QueueError>) -> Result<T, CommitError> {
        let failed = match done {
            Err(failed @ QueueError::Unsynced { .. }) => failed,
            other => return Ok(other?),
        };
        error!(
            event = "disk_failed",
            error = &failed as &dyn std::error::Error,
            "the index cannot be made durable"
        );
        let failed = Box::new(ServeError::IndexUnsynced(failed));
        // It may have ended already.
        let _ = self.send(Offer::Fail(failed)).await;
        Err(CommitError::Ended)
    }

    /// Changes with each round that was committed.
    pub fn rounds(&self) -> watch::Receiver<u64> {
        self.rounds.clone()
    }

    async fn send(&self, offer: Offer) -> Result<(), CommitError> {
        self.offers
            .send(offer)
            .await
            .map_err(|_| CommitError::Ended)
    }
}

/// Starts the thread; newcomers are committed until a queue is handed over. It ends when it is told to stop, or with the
/// error that must end the agent.
pub(crate) fn start(
    journal: Journal,
    newcomers: Arc<Newcomers>,
    on_finished: impl Fn(Vec<FinishedMail>) + Send + 'static,
) -> Result<(Committer, oneshot::Receiver<Result<Journal, ServeError>>), ServeError> {
    let (offers, waiting) = mpsc::channel(WAITING);
    let (rounds, seen) = watch::channel(0);
    let (ended, end) = oneshot::channel();
    let on_finished = Box::new(on_finished);
    let timer = runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(ServeError::Thread)?;
    let hurry = Arc::new(AtomicBool::new(false));
    let mut run = Run {
        hurry: Arc::clone(&hurry),
        timer,
        last_mail: None,
        journal,
        stage: Stage::Behind(newcomers),
        coming: None,
        waiting,
        held: VecDeque::new(),
        rounds,
        on_finished,
    };
    let thread = move || {
        let outcome = run.run();
        if outcome.is_err() {
            run.fail_waiting();
        }
        let _ = ended.send(outcome.map(|()| run.journal));
    };
    thread::Builder::new()
        .name("committer".to_owned())
        .spawn(thread)
        .map_err(ServeError::Thread)?;
    Ok((
        Committer {
            offers,
            rounds: seen,
            hurry,
        },
        end,
    ))
}

/// What is done with what was committed.
enum Stage {
    /// Its ids are kept; the index learns of it from the journal.
    Behind(Arc<Newcomers>),
    /// It is applied.
    Live(Arc<Queue>),
}

impl Stage {
    fn queue(&self) -> Option<&Queue> {
        match self {
            Self::Behind(_) => None,
            Self::Live(queue) => Some(queue),
        }
    }

    /// sled syncs once more when it is closed, and panics where that fails. The process ends anyway, or puts this index aside.
    fn never_close_index(&self) {
        if let Self::Live(queue) = self {
            std::mem::forget(Arc::clone(queue));
        }
    }

    fn abandon(&self, prepared: Prepared) {
        match self {
            Self::Behind(newcomers) => newcomers.abandon(prepared),
            Self::Live(queue) => queue.abandon(prepared),
        }
    }

    fn apply(
        &self,
        prepared: Prepared,
        locations: &[Location],
    ) -> Result<Vec<FinishedMail>, QueueError> {
        match self {
            Self::Behind(newcomers) => {
                newcomers.committed(prepared);
                Ok(Vec::new())
            }
            Self::Live(queue) => Ok(queue.apply(prepared, locations)?.finished),
        }
    }
}

struct Run {
    /// See [`Committer::hurry`].
    hurry: Arc<AtomicBool>,
    /// For waits that end.
    timer: Runtime,
    /// When new mail was last prepared.
    last_mail: Option<Instant>,
    journal: Journal,
    stage: Stage,
    /// A queue that still has something to replay.
    coming: Option<Box<TakeOver>>,
    waiting: mpsc::Receiver<Offer>,
    /// Taken from the channel, and left to a later round.
    held: VecDeque<Offer>,
    rounds: watch::Sender<u64>,
    on_finished: Box<dyn Fn(Vec<FinishedMail>) + Send>,
}

/// A change nobody waits for.
#[derive(Debug)]
struct Unasked;

impl Offered for Unasked {
    fn prepare(&mut self, _: Option<&Queue>, _: Timestamp) -> Result<Option<Prepared>, ServeError> {
        Ok(None)
    }

    fn answer(self: Box<Self>, _: Result<Option<Lsn>, CommitError>) {}

    fn is_new_mail(&self) -> bool {
        false
    }

    fn is_patient(&self) -> bool {
        false
    }
}

/// An offer with what it wants written.
type Ready = (Box<dyn Offered>, Prepared);

#[derive(Default)]
struct Round {
    ready: Vec<Ready>,
    reclaims: Vec<oneshot::Sender<Option<SegmentNumber>>>,
    cleans: Vec<(Clean, oneshot::Sender<Result<bool, CommitError>>)>,
    stop: bool,
}

impl Run {
    fn run(&mut self) -> Result<(), ServeError> {
        while let Some(first) = self.first_offer()? {
            let round = self.gather(first)?;
            if !round.ready.is_empty() {
                self.commit(round.ready)?;
            }
            for answer in round.reclaims {
                self.reclaim(answer)?;
            }
            for (step, answer) in round.cleans {
                self.clean(step, answer)?;
            }
            self.rounds.send_modify(|rounds| *rounds += 1);
            if round.stop {
                break;
            }
        }
        Ok(())
    }

    /// Waits for an offer, unless a queue is coming: that gets a piece of the journal between two rounds.
    fn first_offer(&mut self) -> Result<Option<Offer>, ServeError> {
        while let Some(coming) = self.coming.take() {
            self.bring_nearer(coming)?;
            if let Some(offer) = self.next_offer() {
                return Ok(Some(offer));
            }
        }
        let held = self.held.pop_front();
        Ok(held.or_else(|| self.waiting.blocking_recv()))
    }

    fn bring_nearer(&mut self, mut coming: Box<TakeOver>) -> Result<(), ServeError> {
        // Nobody but this thread appends, so fewer than asked for are all there are.
        if coming.catch_up.replay(PIECE, &|| false)? == PIECE {
            self.coming = Some(coming);
            return Ok(());
        }
        let Level {
            queue,
            jobs,
            finished,
        } = coming.catch_up.finish()?;
        let queue = Arc::new(queue);
        if let Stage::Behind(newcomers) = &self.stage {
            newcomers.caught_up(Arc::clone(&queue));
        }
        let epoch = queue.prepare_epoch()?;
        self.stage = Stage::Live(Arc::clone(&queue));
        self.commit(vec![(Box::new(Unasked), epoch)])?;
        if queue.epoch() == 0 {
            // No room, and no time to wait for it: the queue is stopping.
            return Ok(());
        }
        if !finished.is_empty() {
            (self.on_finished)(finished);
        }
        let _ = coming.outcome.send(Ok(CaughtUp { queue, jobs }));
        Ok(())
    }

    /// What is there now, prepared in the order in which it came.
    fn gather(&mut self, first: Offer) -> Result<Round, ServeError> {
        let mut round = Round::default();
        let (mut octets, now) = (0, clock::now());
        let patience = Instant::now() + PATIENCE;
        let mut next = Some(first);
        while let Some(offer) = next.take() {
            match offer {
                Offer::Reclaim(answer) => round.reclaims.push(answer),
                Offer::Clean(step, answer) => round.cleans.push((step, answer)),
                Offer::TakeOver(coming) => self.coming = Some(coming),
                Offer::Fail(failed) => {
                    self.stage.never_close_index();
                    return Err(*failed);
                }
                Offer::Stop => round.stop = true,
                Offer::Change(offer) => octets += self.prepare(offer, now, &mut round)?,
                Offer::Alone(offer) if round.ready.is_empty() => {
                    self.prepare(offer, now, &mut round)?;
                    break;
                }
                alone @ Offer::Alone(_) => {
                    self.held.push_front(alone);
                    break;
                }
            }
            if round.ready.len() < ROUND_OFFERS && octets < ROUND_OCTETS && !round.stop {
                next = self.next_offer();
                if next.is_none() && self.is_patient(&round) {
                    next = self.offer_until(patience);
                }
            }
        }
        Ok(round)
    }

    fn prepare(
        &mut self,
        mut offer: Box<dyn Offered>,
        now: Timestamp,
        round: &mut Round,
    ) -> Result<usize, ServeError> {
        let Some(prepared) = offer.prepare(self.stage.queue(), now)? else {
            return Ok(0);
        };
        let longest = self.journal.longest_payload();
        if prepared
            .records()
            .iter()
            .any(|record| record.payload_len() > longest)
        {
            self.stage.abandon(prepared);
            offer.answer(Err(CommitError::TooLarge));
            return Ok(0);
        }
        if offer.is_new_mail() {
            self.last_mail = Some(Instant::now());
        }
        let octets = prepared.len();
        round.ready.push((offer, prepared));
        Ok(octets)
    }

    fn commit(&mut self, mut ready: Vec<Ready>) -> Result<(), ServeError> {
        let mut told = false;
        let locations = loop {
            match self.append(&ready) {
                Ok(locations) => break locations,
                Err(JournalError::NoSegment(source)) => {
                    if !std::mem::replace(&mut told, true) {
                        error!(event = "disk_full", error = %source, "no room for a new segment");
                    }
                    ready = self.refuse(ready, |offer| offer.is_new_mail());
                    if self.hurry.load(Ordering::Relaxed) {
                        ready = self.refuse(ready, |_| true);
                    }
                    if ready.is_empty() {
                        return Ok(());
                    }
                    // What is left ends work that was done. It must not be lost, and it was promised room.
                    self.wait_for_room()?;
                }
                Err(failed) => {
                    let failed = disk(failed);
                    for (offer, _) in ready {
                        offer.answer(Err(CommitError::Ended));
                    }
                    return Err(failed);
                }
            }
        };
        self.apply(ready, &locations)
    }

    /// Pauses. Meanwhile new mail is refused at once, and segments are given up: that may make the room.
    fn wait_for_room(&mut self) -> Result<(), ServeError> {
        thread::sleep(NO_ROOM_PAUSE);
        while self.held.len() < WAITING {
            match self.waiting.try_recv() {
                Ok(Offer::Reclaim(answer)) => self.reclaim(answer)?,
                Ok(Offer::Change(mut offer)) if offer.is_new_mail() => {
                    if let Some(prepared) = offer.prepare(self.stage.queue(), clock::now())? {
                        self.stage.abandon(prepared);
                        offer.answer(Err(CommitError::Full));
                    }
                }
                Ok(later) => self.held.push_back(later),
                Err(_) => break,
            }
        }
        Ok(())
    }

    fn reclaim(
        &mut self,
        answer: oneshot::Sender<Option<SegmentNumber>>,
    ) -> Result<(), ServeError> {
        let reclaimed = self.journal.reclaim_oldest().map_err(disk)?;
        // Upkeep looks again anyway.
        let _ = answer.send(reclaimed);
        Ok(())
    }

    fn clean(
        &mut self,
        step: Clean,
        answer: oneshot::Sender<Result<bool, CommitError>>,
    ) -> Result<(), ServeError> {
        let journal = &mut self.journal;
        let done = match step {
            Clean::Begin => journal.stop_recycling().map(|()| true),
            Clean::Seal if !journal.is_prepared() => Ok(false),
            Clean::Seal => journal.seal().map(|()| true),
            Clean::End => {
                journal.recycle_again();
                Ok(true)
            }
        };
        // Whoever asked may have gone; the next purge begins anew.
        match done {
            Ok(done) => drop(answer.send(Ok(done))),
            Err(JournalError::NoSegment(_)) => drop(answer.send(Err(CommitError::Full))),
            Err(failed) => {
                let _ = answer.send(Err(CommitError::Ended));
                return Err(disk(failed));
            }
        }
        Ok(())
    }

    fn next_offer(&mut self) -> Option<Offer> {
        self.held
            .pop_front()
            .or_else(|| self.waiting.try_recv().ok())
    }

    /// Whether the round may wait for new mail, which is likely to come.
    fn is_patient(&self, round: &Round) -> bool {
        let flows = self.last_mail.is_some_and(|last| last.elapsed() < FLOW);
        let mut ready = round.ready.iter();
        flows
            && round.reclaims.is_empty()
            && round.cleans.is_empty()
            && !round.ready.is_empty()
            && ready.all(|(offer, _)| offer.is_patient())
    }

    /// The next offer, if one comes before then.
    fn offer_until(&mut self, end: Instant) -> Option<Offer> {
        let next = async { timeout_at(end.into(), self.waiting.recv()).await };
        self.timer.block_on(next).ok().flatten()
    }

    fn append(&mut self, ready: &[Ready]) -> Result<Vec<Location>, JournalError> {
        let records = ready.iter().flat_map(|(_, prepared)| prepared.records());
        let mut drafts: Vec<RecordDraft> = records.cloned().collect();
        drafts.extend(self.stage.queue().and_then(Queue::lease_hints));
        self.journal.append_group(&drafts)
    }

    /// There is no room for these.
    fn refuse(&self, ready: Vec<Ready>, which: impl Fn(&dyn Offered) -> bool) -> Vec<Ready> {
        let (refused, kept): (Vec<_>, Vec<_>) = ready
            .into_iter()
            .partition(|(offer, _)| which(offer.as_ref()));
        for (offer, prepared) in refused {
            self.stage.abandon(prepared);
            offer.answer(Err(CommitError::Full));
        }
        kept
    }

    /// What is committed becomes visible, then its waiters are answered.
    fn apply(&mut self, ready: Vec<Ready>, locations: &[Location]) -> Result<(), ServeError> {
        let mut rest = locations;
        let mut answers = Vec::with_capacity(ready.len());
        let mut finished = Vec::new();
        for (offer, prepared) in ready {
            let (own, others) = rest.split_at(prepared.records().len().min(rest.len()));
            rest = others;
            let lsn = own.first().map(|location| location.lsn);
            // It is durable; but an index that fails may tell others nonsense, so the process ends.
            finished.extend(self.stage.apply(prepared, own)?);
            answers.push((offer, lsn));
        }
        for (offer, lsn) in answers {
            offer.answer(Ok(lsn));
        }
        if !finished.is_empty() {
            (self.on_finished)(finished);
        }
        Ok(())
    }

    fn fail_waiting(&mut self) {
        self.waiting.close();
        while let Some(offer) = self.next_offer() {
            match offer {
                Offer::Change(offer) | Offer::Alone(offer) => offer.answer(Err(CommitError::Ended)),
                Offer::Reclaim(_)
                | Offer::Clean(..)
                | Offer::TakeOver(_)
                | Offer::Fail(_)
                | Offer::Stop => {}
            }
        }
        warn!("every waiting submission and settlement was told that the queue has ended");
    }
}

fn disk(failed: JournalError) -> ServeError {
    let mut text = failed.to_string();
    let mut source = std::error::Error::source(&failed);
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    error!(
        event = "disk_failed",
        error = text,
        "the journal cannot be written"
    );
    ServeError::Disk(text)
}
