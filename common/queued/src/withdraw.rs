//! Mail that its account takes back: one commit for all of it, or nothing.

use std::time::Duration;

use postroad_envelope::{EventKind, QueueId};
use postroad_queue::{Queue, Withdrawal};
use postroad_queue_client::{QueueError, Withdrawn};
use tokio::time::sleep;
use tracing::info;

use crate::core::{Core, to_client_error};

/// What changes in a mail at this moment is over in a moment: it waits for one commit.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(25);

/// What the committer found.
enum Found {
    Is(Withdrawn),
    Changing,
}

pub(crate) async fn carry_out(
    core: &Core,
    queue_id: QueueId,
    account: &str,
) -> Result<Withdrawn, QueueError> {
    for _ in 0..TRIES {
        match once(core, queue_id, account).await? {
            Found::Changing => sleep(PAUSE).await,
            Found::Is(withdrawn) => {
                if withdrawn == Withdrawn::Done {
                    tell(core, queue_id, account);
                }
                return Ok(withdrawn);
            }
        }
    }
    Err(QueueError::Unavailable(
        "the mail is being changed".to_owned(),
    ))
}

async fn once(core: &Core, queue_id: QueueId, account: &str) -> Result<Found, QueueError> {
    let (account, since) = (account.to_owned(), core.leases_since);
    let prepare = move |queue: &Queue, now| {
        let withdrawal = queue.prepare_withdrawal(queue_id, &account, since, now)?;
        Ok(match withdrawal {
            Withdrawal::Ready(prepared) => (Some(prepared), Found::Is(Withdrawn::Done)),
            Withdrawal::TooLate => (None, Found::Is(Withdrawn::TooLate)),
            Withdrawal::Unknown => (None, Found::Is(Withdrawn::Unknown)),
            Withdrawal::Changing => (None, Found::Changing),
        })
    };
    let committed = core.committer.commit(prepare).await;
    Ok(committed.map_err(to_client_error)?.value)
}

fn tell(core: &Core, queue_id: QueueId, account: &str) {
    core.counts.withdrawn.count();
    info!(event = "withdrawn", %queue_id, account);
    let text = format!("taken back by {account} before anything was tried");
    let fields = [("account", account)];
    core.tell(queue_id, EventKind::Withdrawn, &[], text, fields);
}
