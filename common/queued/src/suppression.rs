//! Recipients that are not tried: kept in the journal, in force from the start on.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use postroad_envelope::{Cause, Envelope, Outcome, RecipientIndex, Suppression};
use postroad_proto::{convert, queue::v1};
use postroad_queue::{Queue, Suppressions, said};
use postroad_queue_client::QueueError;
use postroad_reply::{Reply, Severity};
use prost::Message;
use tokio::time::sleep;
use tracing::{error, info};

use crate::{config::SuppressionScope, core::Core, sections};

/// The section of the snapshot.
const SECTION: &str = "suppressions";
/// Entries there may be: all of them are written with each change.
const MOST: usize = 3000;
/// Characters of an address and of a reason.
const LONGEST_ADDRESS: usize = 320;
const LONGEST_REASON: usize = 160;
/// What failed is gathered for so long before it is written.
const GATHER: Duration = Duration::from_secs(1);

/// As kept: the contract's messages, which only grow.
#[derive(Clone, PartialEq, Message)]
struct Kept {
    #[prost(message, repeated, tag = "1")]
    entries: Vec<v1::Suppression>,
}

/// What failed and is not entered yet.
#[derive(Debug, Default)]
pub(crate) struct Failed(Mutex<Vec<Suppression>>);

/// Puts the list in force that was kept, before the queue admits anything.
pub(crate) fn enforce(queue: &Queue, sections: &BTreeMap<String, Vec<u8>>) {
    if let Some(section) = sections.get(SECTION) {
        queue.set_suppressions(Suppressions::new(entries(section)));
    }
}

/// The list, by address.
pub(crate) async fn list(core: &Arc<Core>) -> Vec<Suppression> {
    let section = core.sections.get(SECTION).await;
    section.as_deref().map(entries).unwrap_or_default()
}

/// Enters one, or changes the one that is about the same mail.
pub(crate) async fn put(core: &Arc<Core>, one: Suppression) -> Result<(), QueueError> {
    if one.address.chars().count() > LONGEST_ADDRESS || !one.address.contains('@') {
        let why = "a suppression is of one address, such as bob@example.net";
        return Err(QueueError::Invalid(why.to_owned()));
    }
    enter(core, vec![one]).await
}

/// Removes what is about an address: of one tenant or account, or of all. Tells how many there were.
pub(crate) async fn release(
    core: &Arc<Core>,
    address: String,
    tenant: String,
    account: Option<String>,
) -> Result<u64, QueueError> {
    let without = move |section: Option<&[u8]>| {
        let mut all = section.map(entries).unwrap_or_default();
        let before = all.len();
        all.retain(|one| {
            let is_meant = one.address == address
                && (tenant.is_empty() || one.tenant == tenant)
                && (account.is_none() || one.account == account);
            !is_meant
        });
        match before - all.len() {
            0 => Err(QueueError::NotFound),
            gone => Ok((encode(&all), (all, gone))),
        }
    };
    let then = |core: &Core, told: &(Vec<Suppression>, usize)| in_force(core, &told.0);
    let (_, gone) = sections::change(core, SECTION, without, then).await?;
    Ok(u64::try_from(gone).unwrap_or(u64::MAX))
}

/// Enters recipients of whom a host said that there is no such mailbox, if that is wished: soon, and several at once.
pub(crate) fn learn(core: &Arc<Core>, envelope: &Envelope, outcomes: &[(RecipientIndex, Outcome)]) {
    let found = found(core, envelope, outcomes);
    if found.is_empty() {
        return;
    }
    let is_first = {
        let mut waiting = core.failed.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = waiting.is_empty();
        waiting.extend(found);
        waiting.truncate(MOST);
        is_first
    };
    if is_first {
        let owner = Arc::clone(core);
        core.tasks.spawn(async move {
            tokio::select! {
                () = sleep(GATHER) => {}
                // What waits is written before the end.
                () = owner.stopping.cancelled() => {}
            }
            let waiting = {
                let mut waiting = owner.failed.0.lock().unwrap_or_else(PoisonError::into_inner);
                std::mem::take(&mut *waiting)
            };
            for one in &waiting {
                info!(event = "suppressed", rcpt_to = one.address, reason = one.reason);
            }
            if let Err(failed) = enter(&owner, waiting).await {
                error!(event = "fault", error = %failed, "the suppression list could not be written");
            }
        });
    }
}

/// Whether outcomes may lead to entries, so that the envelope is worth reading.
pub(crate) fn is_due(core: &Core, outcomes: &[(RecipientIndex, Outcome)]) -> bool {
    core.config().suppression.enabled && outcomes.iter().any(|(_, outcome)| is_hard(outcome))
}

/// Only a host's own word, for good, that there is no such mailbox: not one for now that lasted until the mail's time was over.
fn is_hard(outcome: &Outcome) -> bool {
    let Outcome::Failed(report) = outcome else {
        return false;
    };
    let for_good = |reply: &Reply| reply.severity() == Severity::Permanent;
    report.cause == Some(Cause::MailboxUnknown) && report.reply.as_ref().is_some_and(for_good)
}

fn found(
    core: &Core,
    envelope: &Envelope,
    outcomes: &[(RecipientIndex, Outcome)],
) -> Vec<Suppression> {
    if envelope.reverse_path.is_null() {
        return Vec::new();
    }
    let (config, now) = (core.config(), crate::clock::now());
    let keep = config.suppression.keep.as_duration();
    let hard = outcomes.iter().filter(|(_, outcome)| is_hard(outcome));
    let found = hard.filter_map(|(index, outcome)| {
        Some(Suppression {
            address: envelope.recipient(*index)?.address.folded(),
            tenant: envelope.tenant.clone(),
            account: match config.suppression.scope {
                SuppressionScope::Tenant => None,
                SuppressionScope::Account => envelope.account.clone(),
            },
            since: now,
            until: (!keep.is_zero()).then(|| now.plus(keep)),
            reason: said(outcome.report()),
            by: envelope.queue_id.to_string(),
        })
    });
    found.collect()
}

/// All in one commit; the oldest make room, and what is over is left out.
async fn enter(core: &Arc<Core>, new: Vec<Suppression>) -> Result<(), QueueError> {
    let most = core.config().suppression.max_entries.clamp(1, MOST);
    let now = crate::clock::now();
    let with = move |section: Option<&[u8]>| {
        let mut all = section.map(entries).unwrap_or_default();
        for one in new {
            all.retain(|known| !known.is_of(&one));
            all.push(Suppression {
                reason: one.reason.chars().take(LONGEST_REASON).collect(),
                ..one
            });
        }
        all.retain(|one| one.holds(now));
        all.sort_by_key(|one| one.since);
        let over = all.len().saturating_sub(most);
        all.drain(..over);
        all.sort_by(|one, next| one.address.cmp(&next.address));
        Ok((encode(&all), all))
    };
    let changed = sections::change(core, SECTION, with, |core, all| in_force(core, all));
    changed.await.map(drop)
}

fn in_force(core: &Core, all: &[Suppression]) {
    core.queue
        .set_suppressions(Suppressions::new(all.iter().cloned()));
}

fn encode(all: &[Suppression]) -> Vec<u8> {
    let entries = all.iter().map(convert::suppression_to_wire).collect();
    Kept { entries }.encode_to_vec()
}

fn entries(section: &[u8]) -> Vec<Suppression> {
    let kept = Kept::decode(section).unwrap_or_else(|error| {
        error!(event = "corruption", error = %error, "the suppression list cannot be read; it begins anew");
        Kept::default()
    });
    let entries = kept.entries.into_iter();
    entries.map(convert::suppression_from_wire).collect()
}

/// Whether a time is one from which on nothing is suppressed any more.
#[cfg(test)]
mod tests {
    use postroad_envelope::Timestamp;

    use super::*;

    #[test]
    fn what_is_kept_is_read_again() {
        let one = Suppression {
            address: "gone@far.test".to_owned(),
            tenant: "acme".to_owned(),
            account: None,
            since: Timestamp::from_millis(5),
            until: Some(Timestamp::from_millis(9)),
            reason: "550 5.1.1 no such user".to_owned(),
            by: "operator".to_owned(),
        };
        let all = vec![
            one.clone(),
            Suppression {
                account: Some("a@our.test".to_owned()),
                until: None,
                ..one
            },
        ];
        assert_eq!(entries(&encode(&all)), all);
        assert_eq!(entries(b"\xff\xff"), []);
    }
}
