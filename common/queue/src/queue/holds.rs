//! Standing rules that hold mail as it comes.

use std::sync::{Arc, PoisonError};

use postroad_envelope::{
    Envelope, Filter, JobTraits, MailState, MailTraits, QueueId, RecipientIndex, Timestamp, held_by,
};

use super::{Prepared, Queue, change::Change};
use crate::{JobState, QueueError};

/// Mail that comes and fits the filter is held until someone releases it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldRule {
    /// What it is called; no two have one name.
    pub name: String,
    /// Which mail. Folded; without parts that only mail in the queue has.
    pub filter: Filter,
    /// Who made it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When it was made, or changed.
    pub created_at: Timestamp,
}

impl HoldRule {
    /// Whether it holds a job of this mail, as the job comes.
    pub fn holds(&self, mail: &MailTraits<'_>, job: &JobState) -> bool {
        self.holds_for(mail, &job.destination)
    }

    /// The same, told by the destination.
    pub fn holds_for(&self, mail: &MailTraits<'_>, destination: &str) -> bool {
        let traits = JobTraits {
            destination,
            state: Some(MailState::Due),
            hold: None,
        };
        self.filter.fits_mail(mail) && self.filter.fits_job(&traits, String::new)
    }
}

impl Queue {
    /// From now on these rules hold what comes, and no others. Of several that fit the first counts.
    pub fn set_hold_rules(&self, rules: Arc<[HoldRule]>) {
        *self
            .hold_rules
            .write()
            .unwrap_or_else(PoisonError::into_inner) = rules;
    }

    /// New mail that a replay found after the last checkpoint. A start that had not caught up accepted it without looking
    /// at the rules, if it ended before it could do so; a checkpoint is made after that only. Once.
    pub fn take_unchecked(&self) -> Vec<QueueId> {
        std::mem::take(&mut self.core().unchecked)
    }

    /// Whether a mail of this id waits for its commit.
    pub fn is_in_flight(&self, id: QueueId) -> bool {
        self.core().in_flight.contains_key(&id)
    }

    /// The hold of a job whose route holds it no more: a rule may be for it, and only the route was told before.
    pub(super) fn hold_beyond_route(&self, state: &JobState) -> Result<Option<String>, QueueError> {
        let rules = self.hold_rules();
        if rules.is_empty() || !state.is_pending() {
            return Ok(None);
        }
        let Some(mail) = self.index.mail(state.key.queue_id)? else {
            return Ok(None);
        };
        // Rules are for what comes after them.
        let mut there = rules
            .iter()
            .filter(|rule| rule.created_at <= state.arrived_at);
        let rule = there.find(|rule| rule.holds(&mail.traits(), state));
        Ok(rule.map(|rule| held_by(&rule.name)))
    }

    /// The rules in force.
    pub fn hold_rules(&self) -> Arc<[HoldRule]> {
        let rules = self.hold_rules.read();
        rules.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Holds the jobs of a new mail that a rule is for.
pub(super) fn hold_new(rules: &[HoldRule], envelope: &Envelope, size: u64, jobs: &mut [JobState]) {
    if rules.is_empty() {
        return;
    }
    let sender = envelope.reverse_path.to_string();
    let mail = MailTraits {
        queue_id: envelope.queue_id,
        sender: &sender,
        size,
        tenant: &envelope.tenant,
        account: envelope.account.as_deref(),
        tags: &envelope.tags,
    };
    for job in jobs.iter_mut().filter(|job| job.is_pending()) {
        let rule = rules.iter().find(|rule| rule.holds(&mail, job));
        if let (Some(rule), None) = (rule, &job.hold) {
            job.hold = Some(held_by(&rule.name));
        }
    }
}

impl Prepared {
    /// Of a change to one job: why it is held after it.
    pub fn hold(&self) -> Option<&str> {
        let [Change::State(state)] = self.changes() else {
            return None;
        };
        state.hold.as_deref().filter(|_| state.is_pending())
    }

    /// Of a new mail: which recipients are held from the beginning, and why.
    pub fn holds(&self) -> Vec<(Vec<RecipientIndex>, String)> {
        let mails = self.changes().iter().filter_map(|change| match change {
            Change::Mail(mail) => Some(&mail.jobs),
            _ => None,
        });
        let held = mails.flatten().filter_map(|job| {
            let why = job.hold.clone()?;
            Some((job.pending().collect(), why))
        });
        held.collect()
    }
}
