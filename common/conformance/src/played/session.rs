//! The queue's end of a worker's stream.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use postroad_proto::queue::v1::{
    HandBack, Lease, LeaseRef, LeaseRefs, Settlement, WorkDown, WorkUp, work_down, work_up,
};
use prost::Message as _;
use tokio::{sync::mpsc, time::timeout};
use tonic::{Status, Streaming};

use crate::{Problem, rules::Outcome};

/// A worker that has called.
pub struct Arrival {
    pub up: Streaming<WorkUp>,
    pub down: mpsc::Sender<Result<Bytes, Status>>,
}

/// How a worker ends a lease.
#[derive(Debug, Clone)]
pub enum End {
    Settled(Settlement),
    Back(HandBack),
}

impl End {
    fn lease(&self) -> Option<&LeaseRef> {
        match self {
            Self::Settled(settlement) => settlement.lease.as_ref(),
            Self::Back(back) => back.lease.as_ref(),
        }
    }
}

/// A worker that has said who it is.
pub struct Session {
    pub hello: work_up::Hello,
    up: Streaming<WorkUp>,
    down: mpsc::Sender<Result<Bytes, Status>>,
    patience: Duration,
    /// Leases there is room for.
    pub credits: u64,
    /// Of which leases it has said that it is at them.
    pub extended: Vec<LeaseRef>,
    /// Ends of leases that came while others were awaited.
    aside: VecDeque<End>,
    /// It has said so, and must say no more.
    pub has_drained: bool,
}

impl Session {
    /// Hears the first message.
    pub async fn meet(arrival: Arrival, patience: Duration) -> Result<Self, Problem> {
        let Arrival { mut up, down } = arrival;
        let first = timeout(patience, up.message()).await;
        let first =
            first.map_err(|_| Problem::Broken("the stream begins with nothing".into()))??;
        let hello = match first.and_then(|first| first.message) {
            Some(work_up::Message::Hello(hello)) => hello,
            Some(other) => return Problem::broken(format!("{} came before Hello", name(&other))),
            None => return Problem::broken("the stream ended before Hello"),
        };
        Ok(Self {
            hello,
            up,
            down,
            patience,
            credits: 0,
            extended: Vec::new(),
            aside: VecDeque::new(),
            has_drained: false,
        })
    }

    /// Sends octets as a message.
    pub async fn say_octets(&self, octets: Bytes) -> Outcome {
        let said = self.down.send(Ok(octets)).await;
        said.map_err(|_| Problem::Broken("the worker ended its stream".to_owned()))
    }

    pub async fn say(&self, message: work_down::Message) -> Outcome {
        let message = WorkDown {
            message: Some(message),
        };
        self.say_octets(message.encode_to_vec().into()).await
    }

    /// Says which leases go on.
    pub async fn welcome(&self, epoch: u64, resumed: Vec<work_down::Resumed>) -> Outcome {
        // Which stream it is, is not told: nothing waits for a grace here.
        let welcome = work_down::Welcome {
            epoch,
            resumed,
            ..work_down::Welcome::default()
        };
        self.say(work_down::Message::Welcome(welcome)).await
    }

    /// The next message, if one comes in time. Credits and extensions are noted.
    pub async fn hear(&mut self, within: Duration) -> Result<Option<work_up::Message>, Problem> {
        loop {
            let Ok(message) = timeout(within, self.up.message()).await else {
                return Ok(None);
            };
            let message =
                message?.ok_or_else(|| Problem::Broken("the worker ended its stream".into()))?;
            if self.has_drained {
                return Problem::broken("it says more after Drained");
            }
            match &message.message {
                Some(work_up::Message::Credits(more)) => self.credits += u64::from(*more),
                Some(work_up::Message::Extend(leases)) => {
                    self.extended.extend(leases.leases.iter().cloned());
                }
                Some(work_up::Message::Drained(_)) => self.has_drained = true,
                _ => {}
            }
            if message.message.is_some() {
                return Ok(message.message);
            }
        }
    }

    /// Hears on for so long, whatever comes; ends of leases are put aside.
    pub async fn listen(&mut self, time: Duration) -> Outcome {
        let end = tokio::time::Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(tokio::time::Instant::now());
            match self.hear(left).await? {
                Some(message) => self.put_aside(message),
                None => return Ok(()),
            }
        }
    }

    /// Hears until that is so; `what` completes "… did not come".
    pub async fn hear_until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) -> Outcome {
        while !is_so(self) {
            match self.hear(self.patience).await? {
                Some(message) => self.put_aside(message),
                None => return Problem::broken(format!("{what} did not come")),
            }
        }
        Ok(())
    }

    fn put_aside(&mut self, message: work_up::Message) {
        match message {
            work_up::Message::Settle(settlement) => self.aside.push_back(End::Settled(settlement)),
            work_up::Message::HandBack(back) => self.aside.push_back(End::Back(back)),
            _ => {}
        }
    }

    /// Ends of leases that came and were not asked for.
    pub fn untold(&self) -> impl Iterator<Item = &LeaseRef> {
        self.aside.iter().filter_map(End::lease)
    }

    /// The same, and they are forgotten. Who hands back awaits no answer.
    pub fn take_untold(&mut self) -> Vec<LeaseRef> {
        let aside = std::mem::take(&mut self.aside).into_iter();
        let settled = aside.filter_map(|end| match end {
            End::Settled(settlement) => settlement.lease,
            End::Back(_) => None,
        });
        settled.collect()
    }

    /// Gives a lease, once there is room for it.
    pub async fn lease(&mut self, lease: &Lease) -> Outcome {
        self.hear_until("a credit", |session| session.credits > 0)
            .await?;
        self.credits -= 1;
        self.say(work_down::Message::Lease(lease.clone())).await
    }

    /// What the worker makes of a lease.
    pub async fn end_of(&mut self, lease: &LeaseRef) -> Result<End, Problem> {
        let of = |end: &End| end.lease() == Some(lease);
        self.hear_until("the end of a lease", |session| session.aside.iter().any(of))
            .await
            .map_err(|problem| self.told_of_another(problem, lease))?;
        let at = self.aside.iter().position(of);
        let end = at.and_then(|at| self.aside.remove(at));
        end.ok_or_else(|| Problem::Broken("the end of a lease did not come".to_owned()))
    }

    /// A reference that was nearly repeated is the likeliest reason.
    fn told_of_another(&self, problem: Problem, lease: &LeaseRef) -> Problem {
        let same_job = |other: &&LeaseRef| {
            let id = |of: &LeaseRef| of.job.as_ref().map(|job| job.queue_id.clone());
            id(other) == id(lease)
        };
        match self.untold().find(same_job) {
            Some(other) => Problem::Broken(format!(
                "{} is told of instead of {}",
                reference(other),
                reference(lease)
            )),
            None => problem,
        }
    }

    /// What the worker says became of a lease; it must not hand it back.
    pub async fn settlement_of(&mut self, lease: &LeaseRef) -> Result<Settlement, Problem> {
        match self.end_of(lease).await? {
            End::Settled(settlement) => Ok(settlement),
            End::Back(back) => {
                Problem::broken(format!("the lease is handed back: {:?}", back.reason))
            }
        }
    }

    pub async fn settled(&self, lease: &LeaseRef, stale: bool) -> Outcome {
        let lease = Some(lease.clone());
        let settled = work_down::Settled { lease, stale };
        self.say(work_down::Message::Settled(settled)).await
    }

    pub async fn revoke(&self, lease: &LeaseRef) -> Outcome {
        let leases = vec![lease.clone()];
        self.say(work_down::Message::Revoked(LeaseRefs { leases }))
            .await
    }

    pub async fn drain(&self) -> Outcome {
        self.say(work_down::Message::Drain(work_down::Drain {}))
            .await
    }

    /// Ends the stream after Drained, as a queue does; whether the worker closes its end too, without another word.
    pub async fn ends(self) -> bool {
        let Self {
            mut up,
            down,
            patience,
            ..
        } = self;
        drop(down);
        let closed = timeout(patience, up.message()).await;
        matches!(closed, Ok(Ok(None) | Err(_)))
    }

    /// The queue is away of a sudden.
    pub async fn break_off(self) {
        let status = Status::unavailable("the queue is stopping");
        let _ = self.down.send(Err(status)).await;
    }
}

/// A reference for a person.
pub fn reference(lease: &LeaseRef) -> String {
    let number = lease.job.as_ref().map(|job| job.number);
    let fence = lease.fence.unwrap_or_default();
    format!(
        "job {} revision {} fence {}.{}",
        number.unwrap_or_default(),
        lease.revision,
        fence.epoch,
        fence.counter
    )
}

fn name(message: &work_up::Message) -> &'static str {
    match message {
        work_up::Message::Hello(_) => "Hello",
        work_up::Message::Credits(_) => "credits",
        work_up::Message::Settle(_) => "a settlement",
        work_up::Message::Extend(_) => "an extension",
        work_up::Message::HandBack(_) => "a lease handed back",
        work_up::Message::Events(_) => "events",
        work_up::Message::Permit(_) => "Permit",
        work_up::Message::Drained(_) => "Drained",
    }
}
