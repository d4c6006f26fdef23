//! Verification of a queue that runs.

use std::{ops::ControlFlow, sync::Arc};

use futures::StreamExt as _;
use postroad_queue_client::{QueueError, VerifyStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tracing::{error, info};

use super::verify::{Ended, Sources, Verify};
use crate::{LocalQueue, clock, core::Core};

/// Messages on their way to whoever asked.
const TOLD: usize = 16;

/// Begins to read all there is. One at a time: the disk is for mail.
pub(crate) async fn verify(queue: &LocalQueue) -> Result<VerifyStream, QueueError> {
    let core = queue.core().await?;
    let tasks = core.tasks.clone();
    let turn = Arc::clone(&core.store.verifying).try_acquire_owned();
    let turn = turn.map_err(|_| QueueError::Conflict("a verification runs already".to_owned()))?;
    let (sender, receiver) = mpsc::channel(TOLD);
    let work = move || {
        let failed = run(&core, &sender);
        if let Some(failed) = failed {
            let _ = sender.blocking_send(Err(failed));
        }
        drop(turn);
    };
    tasks.spawn_blocking(work);
    Ok(ReceiverStream::new(receiver).boxed())
}

type Told = mpsc::Sender<Result<postroad_queue_client::VerifyProgress, QueueError>>;

fn run(core: &Core, sender: &Told) -> Option<QueueError> {
    let mut others = Vec::new();
    others.extend(core.timeline.reader().map(|reader| ("timeline", reader)));
    let index = core.folder.join("index/db");
    let sources = Sources {
        journal: core.reader.clone(),
        contents: core.contents.clone(),
        index: Some(&*core.queue),
        index_octets: std::fs::metadata(index).map_or(0, |found| found.len()),
        others,
        replayed_from: None,
        window_from: Box::new(|| core.queue.window_from(clock::now())),
        is_live: true,
    };
    let mut sink = |progress| {
        let ends = core.stopping.is_cancelled() || sender.blocking_send(Ok(progress)).is_err();
        match ends {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    };
    match Verify::new(sources, &mut sink).run() {
        Ok(0) => {
            info!(event = "admin", verb = "verify", count = 0);
            None
        }
        Ok(problems) => {
            error!(
                event = "corruption",
                count = problems,
                "the queue's files are not as they should be: `postroad queue verify` lists the problems"
            );
            None
        }
        Err(Ended::BrokenOff) if core.stopping.is_cancelled() => {
            Some(QueueError::Unavailable("the queue is stopping".to_owned()))
        }
        Err(Ended::BrokenOff) => None,
        Err(failed) => {
            error!(event = "fault", error = %failed, "the verification ended");
            Some(QueueError::Unavailable(
                "the verification ended; the log says why".to_owned(),
            ))
        }
    }
}
