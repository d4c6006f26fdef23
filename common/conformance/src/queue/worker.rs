//! A worker's stream.

use std::{collections::VecDeque, time::Duration};

use postroad_proto::queue::v1::{
    Action, Fence, HandBack, Lease, LeaseRef, LeaseRefs, Outcome as Result1, RecipientOutcome,
    RouteClass, Settlement, WorkDown, WorkUp, queue_client::QueueClient, work_down, work_up,
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{
    Outcome, Target,
    caller::{TAG, now_ms},
};
use crate::Problem;

/// Messages to the queue under way.
const UP: usize = 64;
pub const MAIL_OF_OTHERS: &str = "there is mail of others: try a queue of its own";
/// What is said of a message that was awaited in vain.
pub const NOTHING: &str = "nothing came";
/// Credits of a worker that takes what there is.
const ALL: u32 = 100;

/// What a worker says first.
#[allow(clippy::needless_update, reason = "fields are added")]
pub fn hello(held: Vec<LeaseRef>, classes: &[RouteClass]) -> WorkUp {
    up(work_up::Message::Hello(work_up::Hello {
        agent: "conformance@localhost".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        host: "localhost".to_owned(),
        classes: classes.iter().map(|&class| class.into()).collect(),
        held,
        ..work_up::Hello::default()
    }))
}

fn up(message: work_up::Message) -> WorkUp {
    WorkUp {
        message: Some(message),
    }
}

/// An open stream, welcomed.
pub struct Worker {
    up: mpsc::Sender<WorkUp>,
    /// None: it was broken off, or has ended.
    down: Option<Streaming<WorkDown>>,
    patience: Duration,
    quiet: Duration,
    /// Leases that came while something else was awaited.
    aside: VecDeque<Lease>,
    /// What the queue said first.
    pub welcome: work_down::Welcome,
}

impl Worker {
    pub async fn open(target: &Target) -> Result<Self, Problem> {
        Self::resume(target, Vec::new()).await
    }

    /// One that still holds leases.
    pub async fn resume(target: &Target, held: Vec<LeaseRef>) -> Result<Self, Problem> {
        let (up, messages) = mpsc::channel(UP);
        let first = hello(held, &[RouteClass::Local]);
        up.try_send(first)
            .map_err(|error| Problem::Broken(error.to_string()))?;
        let mut client = QueueClient::new(target.mda.clone());
        let opened = timeout(target.patience, client.work(ReceiverStream::new(messages))).await;
        let opened = opened.map_err(|_| Problem::Broken("no stream came".to_owned()))??;
        let mut worker = Self {
            up,
            down: Some(opened.into_inner()),
            patience: target.patience,
            quiet: target.quiet,
            aside: VecDeque::new(),
            welcome: work_down::Welcome::default(),
        };
        match worker.next().await? {
            work_down::Message::Welcome(welcome) => worker.welcome = welcome,
            other => return Problem::broken(format!("{} instead of Welcome", name(&other))),
        }
        Ok(worker)
    }

    pub async fn say(&self, message: work_up::Message) -> Outcome {
        let said = self.up.send(up(message)).await;
        said.map_err(|_| Problem::Broken("the queue ended the stream".to_owned()))
    }

    pub async fn credits(&self, count: u32) -> Outcome {
        self.say(work_up::Message::Credits(count)).await
    }

    /// The next message; the stream must not end.
    pub async fn next(&mut self) -> Result<work_down::Message, Problem> {
        let patience = self.patience;
        match self.within(patience).await? {
            Some(message) => Ok(message),
            None => Problem::broken(NOTHING),
        }
    }

    /// What comes within a time, if something does.
    async fn within(&mut self, time: Duration) -> Result<Option<work_down::Message>, Problem> {
        match self.aside.pop_front() {
            Some(lease) => Ok(Some(work_down::Message::Lease(lease))),
            None => self.arrives(time).await,
        }
    }

    async fn arrives(&mut self, time: Duration) -> Result<Option<work_down::Message>, Problem> {
        let Some(down) = &mut self.down else {
            return Problem::broken("the stream has ended");
        };
        loop {
            let Ok(message) = timeout(time, down.message()).await else {
                return Ok(None);
            };
            let message = message?;
            let message = message.ok_or_else(|| Problem::Broken("the stream ended".to_owned()))?;
            if let Some(message) = message.message {
                return Ok(Some(message));
            }
        }
    }

    pub async fn lease(&mut self) -> Result<Lease, Problem> {
        match self.next().await? {
            work_down::Message::Lease(lease) => Ok(lease),
            other => Problem::broken(format!("{} instead of a lease", name(&other))),
        }
    }

    /// Nothing must come for a while.
    pub async fn hears_nothing(&mut self) -> Outcome {
        let quiet = self.quiet;
        match self.within(quiet).await? {
            None => Ok(()),
            Some(other) => Problem::broken(format!("{} came", name(&other))),
        }
    }

    /// Says what became of all recipients of a lease, and waits until that is durable or refused: whether it was stale.
    pub async fn settle(&mut self, lease: &Lease, action: Action) -> Result<bool, Problem> {
        self.settle_as(reference(lease)?, lease, action).await
    }

    pub async fn settle_as(
        &mut self,
        reference: LeaseRef,
        lease: &Lease,
        action: Action,
    ) -> Result<bool, Problem> {
        let settlement = settlement(reference.clone(), lease, action);
        self.say(work_up::Message::Settle(settlement)).await?;
        loop {
            match self.arrives(self.patience).await? {
                Some(work_down::Message::Settled(settled))
                    if settled.lease.as_ref() == Some(&reference) =>
                {
                    return Ok(settled.stale);
                }
                Some(work_down::Message::Lease(lease)) => self.aside.push_back(lease),
                Some(work_down::Message::Settled(_)) => {}
                Some(other) => {
                    return Problem::broken(format!("{} instead of Settled", name(&other)));
                }
                None => return Problem::broken("no Settled came"),
            }
        }
    }

    pub async fn extend(&self, lease: LeaseRef) -> Outcome {
        let leases = vec![lease];
        self.say(work_up::Message::Extend(LeaseRefs { leases }))
            .await
    }

    pub async fn hand_back(&self, lease: &Lease) -> Outcome {
        self.say(work_up::Message::HandBack(HandBack {
            lease: lease.lease.clone(),
            delay_ms: 0,
            reason: "conformance".to_owned(),
            ..HandBack::default()
        }))
        .await
    }

    /// The end of a worker that works on nothing: what is on its way to it goes back, and the queue ends the stream.
    pub async fn drain(mut self) -> Outcome {
        let Some(down) = self.down.take() else {
            return Ok(());
        };
        let left = timeout(self.patience, leave(self.up.clone(), down)).await;
        left.map_err(|_| Problem::Broken("the stream does not end".to_owned()))?
    }

    /// The connection breaks: the queue hears nothing of why.
    pub fn break_off(mut self) {
        self.down = None;
    }

    /// Settles all that is there of ours.
    pub async fn clear(target: &Target) -> Outcome {
        Self::clear_counting(target).await.map(drop)
    }

    /// The same; tells how many leases it took.
    pub async fn clear_counting(target: &Target) -> Result<usize, Problem> {
        let mut worker = Self::open(target).await?;
        worker.credits(ALL).await?;
        let mut leases = 0;
        let quiet = worker.quiet;
        while let Some(message) = worker.within(quiet).await? {
            let work_down::Message::Lease(lease) = message else {
                return Problem::broken(format!("{} instead of a lease", name(&message)));
            };
            if !is_ours(target, &lease) {
                worker.hand_back(&lease).await?;
                return Err(Problem::NotTried(MAIL_OF_OTHERS.to_owned()));
            }
            if worker.settle(&lease, Action::Delivered).await? {
                return Problem::broken("the settlement of a lease that goes on is stale");
            }
            worker.credits(1).await?;
            leases += 1;
        }
        worker.drain().await?;
        Ok(leases)
    }
}

/// A rule that did not hold leaves nothing to the next.
impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(down) = self.down.take() {
            tokio::spawn(timeout(self.patience, leave(self.up.clone(), down)));
        }
    }
}

async fn leave(up: mpsc::Sender<WorkUp>, mut down: Streaming<WorkDown>) -> Outcome {
    let drained = WorkUp {
        message: Some(work_up::Message::Drained(work_up::Drained {})),
    };
    let said = up.send(drained).await;
    said.map_err(|_| Problem::Broken("the queue ended the stream".to_owned()))?;
    while let Ok(Some(_)) = down.message().await {}
    Ok(())
}

/// A mail that was made here, or a report on one.
pub fn is_ours(target: &Target, lease: &Lease) -> bool {
    let Some(envelope) = &lease.envelope else {
        return false;
    };
    let is_report = envelope.reverse_path.is_empty();
    let to_us = |address: &str| address.eq_ignore_ascii_case(&target.account);
    envelope.tags.iter().any(|tag| tag == TAG)
        || is_report && envelope.recipients.iter().all(|to| to_us(&to.address))
}

pub fn reference(lease: &Lease) -> Result<LeaseRef, Problem> {
    let reference = lease.lease.clone();
    reference.ok_or_else(|| Problem::Broken("a lease without a reference".to_owned()))
}

/// The same lease under a fence that nobody was given.
pub fn with_other_fence(lease: &LeaseRef) -> LeaseRef {
    let fence = lease.fence.unwrap_or_default();
    LeaseRef {
        fence: Some(Fence {
            counter: fence.counter.wrapping_add(1_000_000),
            ..fence
        }),
        ..lease.clone()
    }
}

fn settlement(reference: LeaseRef, lease: &Lease, action: Action) -> Settlement {
    let (status, text) = match action {
        Action::Failed => ("5.1.1", "no such mailbox"),
        Action::Delayed => ("4.2.0", "not now"),
        _ => ("2.1.5", "tried"),
    };
    let envelope = lease.envelope.as_ref();
    let recipients = envelope.map(|envelope| envelope.recipients.as_slice());
    let outcomes = recipients.unwrap_or_default().iter();
    let outcomes = outcomes.map(|recipient| RecipientOutcome {
        index: recipient.index,
        outcome: Some(Result1 {
            action: action.into(),
            status: status.to_owned(),
            text: text.to_owned(),
            ..Result1::default()
        }),
    });
    Settlement {
        lease: Some(reference),
        outcomes: outcomes.collect(),
        started_at_ms: now_ms(),
        ..Settlement::default()
    }
}

pub fn name(message: &work_down::Message) -> &'static str {
    match message {
        work_down::Message::Welcome(_) => "Welcome",
        work_down::Message::Lease(_) => "a lease",
        work_down::Message::Settled(_) => "Settled",
        work_down::Message::Revoked(_) => "Revoked",
        work_down::Message::Drain(_) => "Drain",
        work_down::Message::Permitted(_) => "Permitted",
    }
}

/// Whether a stream that began wrongly was refused.
pub async fn refused(
    opened: Result<tonic::Response<Streaming<WorkDown>>, Status>,
    codes: &[tonic::Code],
) -> Outcome {
    let first = match opened {
        Ok(stream) => stream.into_inner().message().await.map(drop),
        Err(status) => Err(status),
    };
    super::caller::refused(first, codes)
}
