//! The thread: round after round.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::AtomicBool},
    thread,
    time::{Duration, Instant},
};

use postroad_envelope::Timestamp;
use postroad_journal::{Journal, JournalError, Location, RecordDraft};
use postroad_queue::{FinishedMail, Newcomers, Prepared, Queue, QueueError};
use tokio::{
    runtime::{self, Runtime},
    sync::{mpsc, oneshot, watch},
    time::timeout_at,
};
use tracing::{error, warn};

use super::{
    Clean, CommitError, Committer, WAITING,
    offer::{Offer, Offered, Ready, TakeOver, Unasked},
};
use crate::{
    ServeError,
    catch_up::{CaughtUp, Level, PIECE},
    clock,
    counts::CommitCounts,
};

/// Most of one round.
const ROUND_OFFERS: usize = 1000;
const ROUND_OCTETS: usize = 8 << 20;
/// How long settlements wait for new mail, if some came not longer ago than `FLOW`.
const PATIENCE: Duration = Duration::from_millis(3);
const FLOW: Duration = Duration::from_millis(20);

/// Starts the thread; newcomers are committed until a queue is handed over. It ends when it is told to stop, or with the
/// error that must end the agent.
pub(crate) fn start(
    journal: Journal,
    newcomers: Arc<Newcomers>,
    counts: CommitCounts,
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
        counts,
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
pub(super) enum Stage {
    /// Its ids are kept; the index learns of it from the journal.
    Behind(Arc<Newcomers>),
    /// It is applied.
    Live(Arc<Queue>),
}

impl Stage {
    pub(super) fn queue(&self) -> Option<&Queue> {
        match self {
            Self::Behind(_) => None,
            Self::Live(queue) => Some(queue),
        }
    }

    /// sled syncs once more when it is closed, and panics where that fails. The process ends anyway, or puts this index aside.
    pub(super) fn never_close_index(&self) {
        if let Self::Live(queue) = self {
            std::mem::forget(Arc::clone(queue));
        }
    }

    pub(super) fn abandon(&self, prepared: Prepared) {
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

pub(super) struct Run {
    /// See [`Committer::hurry`].
    pub(super) hurry: Arc<AtomicBool>,
    /// For waits that end.
    timer: Runtime,
    /// When new mail was last prepared.
    last_mail: Option<Instant>,
    journal: Journal,
    pub(super) stage: Stage,
    /// A queue that still has something to replay.
    coming: Option<Box<TakeOver>>,
    pub(super) waiting: mpsc::Receiver<Offer>,
    /// Taken from the channel, and left to a later round.
    pub(super) held: VecDeque<Offer>,
    rounds: watch::Sender<u64>,
    counts: CommitCounts,
    on_finished: Box<dyn Fn(Vec<FinishedMail>) + Send>,
}

#[derive(Default)]
struct Round {
    ready: Vec<Ready>,
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
            && round.cleans.is_empty()
            && !round.ready.is_empty()
            && ready.all(|(offer, _)| offer.is_patient())
    }

    /// The next offer, if one comes before then.
    fn offer_until(&mut self, end: Instant) -> Option<Offer> {
        let next = async { timeout_at(end.into(), self.waiting.recv()).await };
        self.timer.block_on(next).ok().flatten()
    }

    pub(super) fn append(&mut self, ready: &[Ready]) -> Result<Vec<Location>, JournalError> {
        let hints = self.stage.queue().and_then(Queue::lease_hints);
        let records = ready.iter().flat_map(|(_, prepared)| prepared.records());
        let drafts: Vec<&RecordDraft> = records.chain(&hints).collect();
        let began = Instant::now();
        let appended = match ready.iter().any(|(offer, _)| offer.is_new_mail()) {
            true => self.journal.append_sparing(&drafts)?,
            false => self.journal.append_group(&drafts)?,
        };
        self.counts.time.took(began.elapsed());
        self.counts
            .size
            .observe(u64::try_from(ready.len()).unwrap_or(u64::MAX));
        for (offer, _) in ready {
            self.counts.kinds.count(offer.kind().label());
        }
        Ok(appended)
    }

    /// What is committed becomes visible, then its waiters are answered.
    pub(super) fn apply(
        &mut self,
        ready: Vec<Ready>,
        locations: &[Location],
    ) -> Result<(), ServeError> {
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
                Offer::Fail(_) | Offer::Clean(..) | Offer::TakeOver(_) | Offer::Stop => {}
            }
        }
        warn!("every waiting submission and settlement was told that the queue has ended");
    }
}

pub(super) fn disk(failed: JournalError) -> ServeError {
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
