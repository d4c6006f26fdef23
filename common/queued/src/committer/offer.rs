//! What is offered to the committing thread, and what becomes of it there.

use postroad_envelope::Timestamp;
use postroad_journal::Lsn;
use postroad_metrics::labels;
use postroad_queue::{Prepared, Queue, QueueError};
use tokio::sync::oneshot;

use super::{Clean, CommitError, Committed};
use crate::{
    ServeError,
    catch_up::{CatchUp, Outcome},
};

#[derive(Debug)]
pub(super) enum Offer {
    Change(Box<dyn Offered>),
    /// In a group of its own: all before it is applied when it is prepared.
    Alone(Box<dyn Offered>),
    Clean(Clean, oneshot::Sender<Result<bool, CommitError>>),
    TakeOver(Box<TakeOver>),
    Fail(Box<ServeError>),
    Stop,
}

/// A queue that is nearly level with the journal, and who waits for it.
#[derive(Debug)]
pub(super) struct TakeOver {
    pub(super) catch_up: CatchUp,
    pub(super) outcome: oneshot::Sender<Outcome>,
}

/// An offer on its way through a round.
pub(super) trait Offered: Send + std::fmt::Debug {
    /// None: nothing to commit; it has been answered. An index that fails is an error that ends the agent. Without a queue
    /// only what was prepared already can be committed.
    fn prepare(
        &mut self,
        queue: Option<&Queue>,
        now: Timestamp,
    ) -> Result<Option<Prepared>, ServeError>;
    fn answer(self: Box<Self>, outcome: Result<Option<Lsn>, CommitError>);
    fn kind(&self) -> Kind;
    /// Whether it brings new mail, which is refused when there is no room.
    fn is_new_mail(&self) -> bool {
        self.kind() == Kind::NewMail
    }
    /// Whether it may be refused where there is no room, and leaves the last of it to what may not.
    fn gives_way(&self) -> bool {
        matches!(self.kind(), Kind::NewMail | Kind::Copy)
    }
    /// Whether nobody minds if it is durable a moment later.
    fn is_patient(&self) -> bool {
        self.kind() == Kind::Settlement
    }
}

/// What an offer brings.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    NewMail,
    Settlement,
    /// Of what is in the journal already.
    Copy,
    Other,
}

impl Kind {
    pub(super) const fn label(self) -> labels::Offer {
        match self {
            Self::NewMail => labels::Offer::Mail,
            Self::Settlement => labels::Offer::Settlement,
            Self::Copy | Self::Other => labels::Offer::Other,
        }
    }
}

pub(super) enum Wanted<F> {
    Prepared(Prepared),
    ToPrepare(F),
}

pub(super) struct Change<T, F> {
    pub(super) wanted: Option<Wanted<F>>,
    pub(super) value: Option<T>,
    pub(super) answer: Option<oneshot::Sender<Result<Committed<T>, CommitError>>>,
    pub(super) kind: Kind,
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

    fn kind(&self) -> Kind {
        self.kind
    }
}

/// A change nobody waits for.
#[derive(Debug)]
pub(super) struct Unasked;

impl Offered for Unasked {
    fn prepare(&mut self, _: Option<&Queue>, _: Timestamp) -> Result<Option<Prepared>, ServeError> {
        Ok(None)
    }

    fn answer(self: Box<Self>, _: Result<Option<Lsn>, CommitError>) {}

    fn kind(&self) -> Kind {
        Kind::Other
    }
}

/// An offer with what it wants written.
pub(super) type Ready = (Box<dyn Offered>, Prepared);
