//! Rules of what is lost: a worker, or the queue itself.

use std::time::Duration;

use postroad_proto::queue::v1::{Action, Lease, work_down};
use tokio::time::{sleep, timeout};

use super::{
    Outcome, Target,
    caller::{content, envelope, submit},
    worker::{Worker, reference},
    working::{leased_simply, must_be_stale, must_go_on},
};
use crate::Problem;

/// Before a queue that starts is asked again.
const PAUSE: Duration = Duration::from_millis(50);

/// A worker that is gone has its leases for a grace, and then another has them; what the first says is of no use then.
pub async fn late_result(target: &Target) -> Outcome {
    let (worker, lease) = leased_simply(target, "told late").await?;
    let held = reference(&lease)?;
    worker.break_off();
    let mut other = Worker::open(target).await?;
    other.credits(1).await?;
    // The grace is the queue's own.
    let Ok(again) = timeout(target.patience * 3, next_lease(&mut other)).await else {
        return Problem::broken(format!(
            "the lease of a worker that is gone did not come to another within {} s",
            (target.patience * 3).as_secs()
        ));
    };
    let again = again?;
    if reference(&again)? == held {
        return Problem::broken("it came under the same reference");
    }
    must_be_stale(other.settle_as(held, &lease, Action::Failed).await?)?;
    must_go_on(other.settle(&again, Action::Delivered).await?)?;
    other.credits(1).await?;
    other.hears_nothing().await?;
    other.drain().await
}

/// However long it takes.
async fn next_lease(worker: &mut Worker) -> Result<Lease, Problem> {
    loop {
        match worker.next().await {
            Ok(work_down::Message::Lease(lease)) => return Ok(lease),
            Ok(_) => {}
            Err(Problem::Broken(what)) if what == super::worker::NOTHING => {}
            Err(problem) => return Err(problem),
        }
    }
}

/// Kills the queue, and waits until it is there again.
async fn restart(target: &Target) -> Outcome {
    let Some(restart) = &target.restart else {
        return Err(Problem::NotTried("it takes --restart".to_owned()));
    };
    restart().await.map_err(Problem::NotTried)?;
    let is_up = async {
        for channel in [&target.msa, &target.mda] {
            while postroad_rpc::serves(channel.clone()).await.is_err() {
                sleep(PAUSE).await;
            }
        }
    };
    let up = timeout(target.patience, is_up).await;
    up.map_err(|_| Problem::Broken("it does not answer after its restart".to_owned()))
}

fn must_be_restarted(target: &Target) -> Outcome {
    match &target.restart {
        Some(_) => Ok(()),
        None => Err(Problem::NotTried("it takes --restart".to_owned())),
    }
}

/// What was accepted is there, and what was done is not done again.
pub async fn kept_over_a_restart(target: &Target) -> Outcome {
    must_be_restarted(target)?;
    let (done, text) = (envelope(target), content("done before"));
    submit(target, &done, &text).await?;
    Worker::clear(target).await?;
    let waiting = envelope(target);
    submit(target, &waiting, &content("waits over a restart")).await?;
    restart(target).await?;
    if !submit(target, &done, &text).await?.duplicate {
        return Problem::broken("a mail that had ended is taken as a new one");
    }
    match Worker::clear_counting(target).await? {
        1 => Ok(()),
        count => Problem::broken(format!("{count} leases came instead of one")),
    }
}

pub async fn resumed_after_a_restart(target: &Target) -> Outcome {
    must_be_restarted(target)?;
    let (worker, lease) = leased_simply(target, "held over a restart").await?;
    let (epoch, held) = (worker.welcome.epoch, reference(&lease)?);
    worker.break_off();
    restart(target).await?;
    let mut worker = Worker::resume(target, vec![held.clone()]).await?;
    if worker.welcome.epoch == epoch {
        return Problem::broken("the epoch is the same");
    }
    let resumed = worker.welcome.resumed.iter();
    let mut resumed = resumed.filter(|one| one.old.as_ref() == Some(&held));
    let Some(new) = resumed.next().and_then(|one| one.new.clone()) else {
        return Problem::broken("a lease that was held a moment ago does not go on");
    };
    must_be_stale(worker.settle_as(held, &lease, Action::Delivered).await?)?;
    must_go_on(worker.settle_as(new, &lease, Action::Delivered).await?)?;
    worker.drain().await
}
