//! Rules of workers that lose their queue.

use std::time::Duration;

use postroad_proto::queue::v1::{Lease, LeaseRef};
use tokio::time::Instant;
use tonic::Code;

use super::stage::{Stage, outcomes, reference};
use crate::{
    Problem,
    played::Session,
    rules::{Outcome, rules},
};

/// The shortest and the longest pause, each with some tolerance.
const SHORTEST_PAUSE: Duration = Duration::from_millis(40);
const LONGEST_PAUSE: Duration = Duration::from_secs(7);
/// A pause that need not grow any more.
const LONG_PAUSE: Duration = Duration::from_secs(2);
/// Calls that are refused before one is answered.
const REFUSALS: [Code; 4] = [
    Code::Unavailable,
    Code::Unavailable,
    Code::Unavailable,
    Code::PermissionDenied,
];

rules![Stage;
    "reconnect.pauses": "Connect again with pauses that grow (50 ms to 5 s)" => pauses,
    "resume.held": "list in `Hello.held` what you still hold" => held,
    "resume.result": "until then keep the result, and offer it again after a reconnect if the lease was resumed." => result,
    "resume.ended": "One without a new reference has ended: drop it, its recipients are tried again by somebody." => ended,
    "resume.epoch": "The same holds after a restart of the queue, which begins a new `epoch`." => epoch,
];

async fn pauses(stage: &mut Stage) -> Outcome {
    stage.session().await?;
    stage.queue.desk.change(|state| {
        state.calls.clear();
        state.refusals = REFUSALS.into();
    });
    let broken = Instant::now();
    stage.break_off().await;
    let patience = LONGEST_PAUSE * 2 + stage.target.patience;
    let called = stage
        .queue
        .desk
        .wait(patience, |state| {
            let all = state.calls.len() > REFUSALS.len();
            all.then(|| state.calls.clone())
        })
        .await;
    let Some(called) = called else {
        let count = stage.queue.desk.state().calls.len();
        return Problem::broken(format!("only {count} calls came after the stream broke"));
    };
    stage.session().await?;
    let before = [broken].into_iter().chain(called.clone());
    let pauses: Vec<Duration> = before.zip(called).map(|(from, to)| to - from).collect();
    let told = format!("pauses of {pauses:?}");
    let (Some(first), Some(last)) = (pauses.first(), pauses.last()) else {
        return Problem::broken(told);
    };
    let all_fit = pauses
        .iter()
        .all(|pause| (SHORTEST_PAUSE..=LONGEST_PAUSE).contains(pause));
    match all_fit && (last > first || *last >= LONG_PAUSE) {
        true => Ok(()),
        false => Problem::broken(told),
    }
}

/// The same lease under a new name.
fn renamed(old: &LeaseRef) -> LeaseRef {
    let mut new = old.clone();
    new.revision = new.revision.wrapping_add(1);
    if let Some(fence) = &mut new.fence {
        fence.counter += 1 << 20;
    }
    new
}

/// It must be among those that are held.
fn must_hold(session: &Session, lease: &LeaseRef) -> Outcome {
    match session.hello.held.contains(lease) {
        true => Ok(()),
        false => Problem::broken(format!(
            "Hello.held has {} leases, and not this one",
            session.hello.held.len()
        )),
    }
}

/// The next stream, on which one lease goes on under a new name, if it is held.
async fn resumed(stage: &mut Stage, lease: &LeaseRef) -> Result<LeaseRef, Problem> {
    let session = stage.arrival().await?;
    let is_held = must_hold(&session, lease);
    let goes_on = |old: &LeaseRef| (old == lease).then(|| renamed(old));
    stage.welcome(session, goes_on).await?;
    is_held.map(|()| renamed(lease))
}

/// Work goes on while the stream is away, and its result is told under the new name.
async fn held(stage: &mut Stage) -> Outcome {
    let mail = stage.large_mail("held over a break");
    let (old, gate) = stage.stalled(&mail, None).await?;
    stage.break_off().await;
    let new = resumed(stage, &old).await?;
    gate.send_replace(true);
    let lease = stage.lease(&mail);
    let session = stage.session().await?;
    let settlement = session.settlement_of(&new).await?;
    session.settled(&new, false).await?;
    stage.went_well(&lease, &outcomes(&lease, &settlement)?)
}

/// Leases a mail and hears what became of it, which the queue has not said to have.
async fn unsettled(stage: &mut Stage, subject: &str) -> Result<(Lease, LeaseRef), Problem> {
    let mail = stage.mail(subject);
    let lease = stage.lease(&mail);
    let reference = reference(&lease)?;
    let session = stage.session().await?;
    session.lease(&lease).await?;
    let settlement = session.settlement_of(&reference).await?;
    stage.went_well(&lease, &outcomes(&lease, &settlement)?)?;
    Ok((lease, reference))
}

/// The result comes again under the new name.
async fn told_again(stage: &mut Stage, lease: &Lease, old: &LeaseRef) -> Outcome {
    let new = resumed(stage, old).await?;
    let session = stage.session().await?;
    let settlement = session.settlement_of(&new).await?;
    session.settled(&new, false).await?;
    stage.went_well(lease, &outcomes(lease, &settlement)?)
}

async fn result(stage: &mut Stage) -> Outcome {
    let (lease, old) = unsettled(stage, "settled, and nobody heard").await?;
    stage.break_off().await;
    told_again(stage, &lease, &old).await
}

/// What it says of the old lease is stale; the job comes again, and is done again or found done.
async fn ended(stage: &mut Stage) -> Outcome {
    let (lease, old) = unsettled(stage, "ended while the stream was away").await?;
    stage.break_off().await;
    let session = stage.arrival().await?;
    stage.welcome(session, |_| None).await?;
    let mut again = lease.clone();
    again.lease = Some(renamed(&old));
    again.attempt = 2;
    stage.carry_well(&again).await?;
    let quiet = stage.target.quiet;
    stage.session().await?.listen(quiet).await?;
    stage.refuse_strays().await
}

async fn epoch(stage: &mut Stage) -> Outcome {
    let (lease, old) = unsettled(stage, "settled, and the queue died").await?;
    stage.restart_queue().await?;
    told_again(stage, &lease, &old).await
}
