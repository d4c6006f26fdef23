//! Standing hold rules: kept in the journal, in force from the start on.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use postroad_envelope::{Filter, MailState, QueueId, Timestamp, held_by};
use postroad_proto::queue::v1;
use postroad_queue::{HoldRule, Instruction, JobKey, Queue, Revision};
use postroad_queue_client::{HoldRuleDetails, QueueError, wire::filter};
use prost::Message;
use tokio::{task::spawn_blocking, time::timeout};
use tracing::{error, info};

use crate::{committer::CommitError, core::Core, sections, upkeep::instruct};

/// The section of the snapshot.
const SECTION: &str = "hold_rules";
/// Rules there may be: each new mail is held against all of them.
const MOST: usize = 1000;
/// Characters of a name, and of a reason.
const LONGEST_NAME: usize = 64;
const LONGEST_REASON: usize = 500;

/// Jobs held in one commit.
const AT_ONCE: usize = 500;
/// How long a round is waited for, until what was on its way at the switch is there.
const ROUND: Duration = Duration::from_millis(100);

/// As kept: the contract's messages, which only grow.
#[derive(Clone, PartialEq, Message)]
struct Kept {
    #[prost(message, repeated, tag = "1")]
    rules: Vec<v1::HoldRule>,
}

/// Puts the rules in force that were kept, before the queue admits anything.
pub(crate) fn enforce(queue: &Queue, sections: &BTreeMap<String, Vec<u8>>) {
    if let Some(section) = sections.get(SECTION) {
        queue.set_hold_rules(rules(section).into());
    }
}

/// Applies the rules to mail that was accepted before they could be read: by this start, or by one that ended before it
/// came to this. Nobody may be given any mail until this has returned.
pub(crate) async fn hold_accepted(core: &Arc<Core>) -> Result<(), CommitError> {
    let rules = core.queue.hold_rules();
    let mut rounds = core.committer.rounds();
    let unchecked = core.queue.take_unchecked().into_iter();
    let mut mails: Mails = unchecked.map(|id| (id, Since::Before)).collect();
    let accepted = core.newcomers.take_accepted().into_iter();
    mails.extend(accepted.map(|id| (id, Since::ThisStart)));
    while !rules.is_empty() && !mails.is_empty() {
        rounds.mark_unchanged();
        let (owner, known) = (Arc::clone(core), Arc::clone(&rules));
        let looked = spawn_blocking(move || meant(&owner.queue, &known, mails)).await;
        let (to_hold, mut later) = looked.map_err(|_| CommitError::Ended)??;
        for some in to_hold.chunks(AT_ONCE) {
            let told = instruct(core, some.to_vec()).await?;
            for job in told.changed {
                info!(event = "held", queue_id = %job.queue_id, reason = "by a rule");
            }
            let busy = told.busy.into_iter();
            later.extend(busy.map(|job| (job.queue_id, Since::ThisStart)));
        }
        mails = later;
        if !mails.is_empty() {
            // Those wait for their commit.
            if let Ok(Err(_)) = timeout(ROUND, rounds.changed()).await {
                return Err(CommitError::Ended);
            }
        }
    }
    Ok(())
}

/// Mails to be held against the rules.
type Mails = BTreeMap<QueueId, Since>;

/// When a mail was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Since {
    /// When all the rules there are were in force.
    ThisStart,
    /// By a start before, perhaps before there was a rule.
    Before,
}

/// The jobs that a rule is for, and mails that are not there yet. Blocks.
fn meant(
    queue: &Queue,
    rules: &[HoldRule],
    mails: Mails,
) -> Result<(Vec<(JobKey, Instruction)>, Mails), postroad_queue::QueueError> {
    let (mut to_hold, mut later) = (Vec::new(), Mails::new());
    for (id, since) in mails {
        // Asked before the index is: it may be half there until its commit is over.
        if queue.is_in_flight(id) {
            later.insert(id, since);
            continue;
        }
        let Some(mail) = queue.show(id)? else {
            continue;
        };
        let free = mail.jobs.iter().map(|job| &job.state);
        for state in free.filter(|state| state.hold.is_none() && state.is_pending()) {
            let untouched = state.revision == Revision(1);
            let rule = rules.iter().find(|rule| {
                let was_there = untouched && rule.created_at <= state.changed_at;
                (since == Since::ThisStart || was_there) && rule.holds(&mail.mail.traits(), state)
            });
            if let Some(rule) = rule {
                to_hold.push((state.key, Instruction::Hold(why(rule))));
            }
        }
    }
    Ok((to_hold, later))
}

/// Adds a rule, or changes the one of its name.
pub(crate) async fn put(core: &Arc<Core>, rule: HoldRule) -> Result<(), QueueError> {
    check(&rule, rule.created_at)?;
    let with = move |section: Option<&[u8]>| {
        let mut all = section.map(rules).unwrap_or_default();
        all.retain(|known| known.name != rule.name);
        if all.len() >= MOST {
            let why = format!("there are {MOST} hold rules already; remove some first");
            return Err(QueueError::Invalid(why));
        }
        all.push(rule);
        all.sort_by(|one, next| one.name.cmp(&next.name));
        Ok((encode(&all), all))
    };
    let changed = sections::change(core, SECTION, with, |core, rules| in_force(core, rules));
    changed.await.map(drop)
}

/// Removes the rule of this name; what it holds stays held.
pub(crate) async fn remove(core: &Arc<Core>, name: &str) -> Result<(), QueueError> {
    let name = name.to_owned();
    let without = move |section: Option<&[u8]>| {
        let mut all = section.map(rules).unwrap_or_default();
        let before = all.len();
        all.retain(|known| known.name != name);
        match all.len() == before {
            true => Err(QueueError::NotFound),
            false => Ok((encode(&all), all)),
        }
    };
    let changed = sections::change(core, SECTION, without, |core, rules| in_force(core, rules));
    changed.await.map(drop)
}

fn in_force(core: &Core, rules: &[HoldRule]) {
    core.queue.set_hold_rules(rules.into());
}

/// Whether a rule can be: its name can be typed, its filter can be asked of mail that comes.
pub(crate) fn check(rule: &HoldRule, now: Timestamp) -> Result<(), QueueError> {
    let refused = |why: &str| Err(QueueError::Invalid(why.to_owned()));
    let filter = &rule.filter;
    let can_be_typed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if rule.name.is_empty()
        || rule.name.len() > LONGEST_NAME
        || !rule.name.chars().all(can_be_typed)
    {
        return refused("a rule's name has 1 to 64 letters, digits, dots, hyphens or underscores");
    }
    if rule.reason.len() > LONGEST_REASON {
        return refused("the reason is too long");
    }
    if filter.is_empty() {
        return refused("the filter means no mail; give a part of it, or say that all are meant");
    }
    let only_in_queue = !filter.ids.is_empty()
        || filter.state.is_some()
        || filter.reason_contains.is_some()
        || filter.hold_rule.is_some()
        || filter.site.is_some();
    if only_in_queue {
        return refused(
            "a rule looks at mail as it comes: ids, state, reason, hold rule and site cannot be part of its filter",
        );
    }
    if filter.received_before.is_some_and(|before| before <= now) {
        return refused("no mail that comes can be older than that");
    }
    Ok(())
}

/// Mails that a rule holds.
pub(crate) fn held_filter(name: &str) -> Filter {
    Filter {
        state: Some(MailState::Held),
        hold_rule: Some(name.to_owned()),
        ..Filter::default()
    }
}

/// What is written into a job that it holds.
pub(crate) fn why(rule: &HoldRule) -> String {
    held_by(&rule.name)
}

/// For operators; `held` is counted by the caller.
pub(crate) fn details(rule: &HoldRule, held: u64) -> HoldRuleDetails {
    HoldRuleDetails {
        name: rule.name.clone(),
        filter: rule.filter.clone(),
        by: rule.by.clone(),
        reason: rule.reason.clone(),
        created_at: rule.created_at,
        held,
    }
}

fn encode(rules: &[HoldRule]) -> Vec<u8> {
    let rules = rules.iter().map(|rule| v1::HoldRule {
        name: rule.name.clone(),
        filter: Some(filter::to_wire(&rule.filter)),
        by: rule.by.clone(),
        reason: rule.reason.clone(),
        created_at_ms: rule.created_at.as_millis(),
        ..v1::HoldRule::default()
    });
    let rules = rules.collect();
    Kept { rules }.encode_to_vec()
}

/// A rule that cannot be understood holds nothing, and a person is told.
fn rules(section: &[u8]) -> Vec<HoldRule> {
    let kept = Kept::decode(section).unwrap_or_else(|error| {
        error!(event = "corruption", error = %error, "the hold rules cannot be read; put them anew");
        Kept::default()
    });
    let rules = kept.rules.into_iter().filter_map(|kept| {
        match filter::from_wire(kept.filter.unwrap_or_default()) {
            Ok(filter) => Some(HoldRule {
                name: kept.name,
                filter: filter.folded(),
                by: kept.by,
                reason: kept.reason,
                created_at: Timestamp::from_millis(kept.created_at_ms),
            }),
            Err(error) => {
                error!(event = "corruption", rule = kept.name, error = %error, "a hold rule cannot be read; put it anew");
                None
            }
        }
    });
    rules.collect()
}
