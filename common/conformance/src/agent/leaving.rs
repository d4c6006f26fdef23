//! Rules of workers that leave.

use super::stage::{Stage, outcomes};
use crate::{
    Problem,
    played::End,
    rules::{Outcome, rules},
};

rules![Stage;
    "drain.no_credits": "On `Drain` a worker gives no more credits, and finishes or hands back what it holds." => no_credits,
    "drain.drained": "waits for each `Settled`, says `Drained` as its last word, and closes." => drained,
];

async fn no_credits(stage: &mut Stage) -> Outcome {
    let mail = stage.large_mail("held at Drain");
    let (reference, gate) = stage.stalled(&mail, None).await?;
    let quiet = stage.target.quiet;
    let session = stage.session().await?;
    session.drain().await?;
    session.listen(quiet).await?;
    let before = session.credits;
    gate.send_replace(true);
    let end = session.end_of(&reference).await?;
    if let End::Settled(_) = &end {
        session.settled(&reference, false).await?;
    }
    let is_open = session.listen(quiet).await.is_ok();
    let given = session.credits - before;
    // It may leave; if it stays, it is let go.
    match is_open {
        true => stage.break_off().await,
        false => drop(stage.take_session()),
    }
    stage.session().await?;
    match given {
        0 => Ok(()),
        given => Problem::broken(format!("it gave {given} credits after Drain")),
    }
}

async fn drained(stage: &mut Stage) -> Outcome {
    let Some(stop) = stage.target.stop.clone() else {
        return Err(Problem::NotTried("it takes --stop".to_owned()));
    };
    let mail = stage.large_mail("held at the end");
    let (reference, gate) = stage.stalled(&mail, None).await?;
    let quiet = stage.target.quiet;
    // Whoever tells it may wait for its end.
    let stopping = tokio::spawn(stop());
    let session = stage.session().await?;
    session.listen(quiet).await?;
    let before = session.credits;
    gate.send_replace(true);
    let mut settlement = None;
    if let End::Settled(settled) = session.end_of(&reference).await? {
        settlement = Some(settled);
        session.listen(quiet).await?;
        if session.has_drained {
            return Problem::broken("Drained came before Settled was said");
        }
        session.settled(&reference, false).await?;
    }
    session
        .hear_until("Drained", |session| session.has_drained)
        .await?;
    let given = session.credits - before;
    let is_closed = match stage.take_session() {
        Some(session) => session.ends().await,
        None => false,
    };
    let stopped = stopping.await.map_err(|error| error.to_string());
    stopped.flatten().map_err(Problem::NotTried)?;
    match (given, is_closed) {
        (0, true) => {}
        (0, false) => return Problem::broken("it does not close its stream"),
        (given, _) => return Problem::broken(format!("it gave {given} credits while it left")),
    }
    let lease = stage.lease(&mail);
    match settlement {
        Some(settlement) => stage.went_well(&lease, &outcomes(&lease, &settlement)?),
        None => Ok(()),
    }
}
