//! The one thread that commits.
//!
//! It takes what all others offer, without waiting for more: while one `fdatasync` runs the next round gathers by
//! itself. Only a round of nothing but settlements, while new mail keeps coming, waits a moment to share the sync of the
//! next mail: nobody stands and waits for a settlement. Per round: prepare in order, one group to the journal ◆, apply to
//! the index un-flushed, answer. The return of `append_group` is the one instant of commit; nobody is answered before it.
//!
//! After a failed write or sync nobody knows what the disk holds. Every waiter is failed, and the thread ends with an
//! error that ends the agent: only opening anew can tell.

mod offer;
mod room;
mod thread;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use postroad_envelope::Timestamp;
use postroad_journal::{JournalError, Lsn};
use postroad_queue::{Prepared, Queue, QueueError};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::error;

use crate::{
    ServeError,
    catch_up::{CatchUp, Outcome, Standing},
};
use offer::{Change, Kind, Offer, Offered, TakeOver, Wanted};
pub(crate) use thread::start;

/// Offers waiting for a round; further ones wait with their submitters.
const WAITING: usize = 4096;

/// Why an offer was not committed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommitError {
    /// It could not be prepared.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// There is no room for new mail, or for a copy; nothing was written.
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

    /// As [`Committer::commit`], for what lies in the journal already: where there is no room it fails with
    /// [`CommitError::Full`] instead of waiting, and nothing has changed.
    pub async fn copy<T, F>(&self, prepare: F) -> Result<Committed<T>, CommitError>
    where
        T: Send + 'static,
        F: FnOnce(&Queue, Timestamp) -> Result<(Option<Prepared>, T), QueueError> + Send + 'static,
    {
        self.offer(prepare, Kind::Copy, Offer::Change).await
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
        Err(self.end(ServeError::IndexUnsynced(failed)).await)
    }

    /// The same where a segment cannot be given up.
    pub async fn unless_failed<T>(&self, done: Result<T, JournalError>) -> Result<T, CommitError> {
        match done {
            Ok(done) => Ok(done),
            Err(failed) => Err(self.end(thread::disk(failed)).await),
        }
    }

    async fn end(&self, failed: ServeError) -> CommitError {
        // It may have ended already.
        let _ = self.send(Offer::Fail(Box::new(failed))).await;
        CommitError::Ended
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
