//! New mail while the index is behind the journal: what can be told of an id without it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::Duration,
};

use postroad_envelope::{Envelope, QueueId, Recipient, Route, Timestamp};
use postroad_journal::RecordRef;

use super::{
    Admission, Queue, Terms,
    change::{Change, Prepared},
    insert::{identity, new_mail, repeated},
    replay::change_of,
};
use crate::{
    Claim, Content, Digest, JobState, OverQuota, QueueError, Quotas, RetrySchedule, Usage,
};

/// How far the clock of an agent on another host may be ahead of ours.
const CLOCKS_DIFFER: Duration = Duration::from_secs(60);
/// More ids than these are not kept in memory; then submissions wait for the index.
const MOST: usize = 1_000_000;

/// Admits new mail before there is an index to ask whether its id is known.
///
/// An id tells when it was minted. It is new if it is not among those of the end of the journal, which are kept here, and
/// minted after all the others: either since this process started, or well after the first of those at the end of the
/// journal was accepted. An older one can be judged by the index alone.
/// What tenants, accounts and domains have is not known either: what is accepted meanwhile is compared with their quotas
/// as if the queue had been empty, so none of them can have more than twice its quota.
pub struct Newcomers {
    terms: RwLock<Arc<Terms>>,
    stage: Mutex<Stage>,
}

enum Stage {
    Behind(Box<Ids>),
    CaughtUp {
        queue: Arc<Queue>,
        accepted: Vec<QueueId>,
    },
}

struct Ids {
    /// From this time on ids that are not known here are new.
    decided_from: Timestamp,
    known: HashMap<QueueId, Digest>,
    in_flight: BTreeMap<QueueId, Digest>,
    /// What is in flight takes of each quota.
    claims: BTreeMap<QueueId, Claim>,
    accepted: Vec<QueueId>,
    /// What was accepted, and what is in flight.
    usage: Usage,
}

/// The answer to a submission while the index is behind.
#[derive(Debug)]
pub enum Reception {
    /// As the queue itself would answer.
    Answer(Admission),
    /// Only the index knows: ask the queue once it has caught up.
    Unsure(Box<Envelope>, Content),
    /// The queue has caught up meanwhile: ask [`Newcomers::queue`].
    CaughtUp(Box<Envelope>, Content),
}

impl Newcomers {
    /// For a process that started now, of whose journal nothing is known yet.
    pub fn new(retry: RetrySchedule, quotas: Arc<Quotas>, now: Timestamp) -> Self {
        let ids = Ids {
            decided_from: now,
            known: HashMap::new(),
            in_flight: BTreeMap::new(),
            claims: BTreeMap::new(),
            accepted: Vec::new(),
            usage: Usage::default(),
        };
        Self {
            terms: RwLock::new(Arc::new(Terms { retry, quotas })),
            stage: Mutex::new(Stage::Behind(Box::new(ids))),
        }
    }

    /// What those that come are compared with.
    pub fn quotas(&self) -> Arc<Quotas> {
        Arc::clone(&self.terms().quotas)
    }

    /// See [`Queue::renew_terms`].
    pub fn renew_terms(&self, retry: RetrySchedule, quotas: Arc<Quotas>) {
        let terms = Arc::new(Terms { retry, quotas });
        *self.terms.write().unwrap_or_else(PoisonError::into_inner) = terms;
    }

    fn terms(&self) -> Arc<Terms> {
        Arc::clone(&self.terms.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Learns the ids in a record of the end of the journal. Tells when the record was made, if it says so.
    pub fn learn(&self, record: RecordRef<'_>) -> Option<Timestamp> {
        // What cannot be read is told of by the replay.
        let change = change_of(record.kind, record.payload).ok()?;
        let mut stage = self.lock();
        let Stage::Behind(ids) = &mut *stage else {
            return None;
        };
        match change {
            Change::Mail(mail) => {
                ids.known.insert(mail.queue_id, mail.digest);
                mail.jobs.first().map(|state| state.changed_at)
            }
            Change::Block(block) => {
                let known = block.0.iter().map(|mail| (mail.queue_id, mail.digest));
                ids.known.extend(known);
                None
            }
            Change::State(state) => Some(state.changed_at),
            Change::Checkpoint(checkpoint) => Some(checkpoint.at),
            _ => None,
        }
    }

    /// Every mail accepted since then has been learnt; zero: every mail there is.
    pub fn learnt_since(&self, time: Timestamp) {
        if let Stage::Behind(ids) = &mut *self.lock() {
            let decided_from = if time == Timestamp::default() {
                time
            } else {
                time.plus(CLOCKS_DIFFER)
            };
            ids.decided_from = ids.decided_from.min(decided_from);
        }
    }

    /// The queue, once it has caught up: then it alone admits.
    pub fn queue(&self) -> Option<Arc<Queue>> {
        match &*self.lock() {
            Stage::Behind(_) => None,
            Stage::CaughtUp { queue, .. } => Some(Arc::clone(queue)),
        }
    }

    /// What was accepted, or on its way, before the queue had caught up: no rule was applied to it. Once.
    pub fn take_accepted(&self) -> Vec<QueueId> {
        match &mut *self.lock() {
            Stage::Behind(_) => Vec::new(),
            Stage::CaughtUp { accepted, .. } => std::mem::take(accepted),
        }
    }

    /// Whether every quota has room for a mail that is announced, as far as can be told.
    pub fn admit(&self, claim: &Claim) -> Result<(), OverQuota> {
        match &*self.lock() {
            Stage::Behind(ids) => ids.usage.check(&self.terms().quotas, claim),
            Stage::CaughtUp { queue, .. } => queue.admit(claim),
        }
    }

    /// Admits a mail, as [`Queue::prepare_insert`] does.
    pub fn prepare_insert(
        &self,
        envelope: Envelope,
        content: Content,
        now: Timestamp,
        route: &dyn Fn(&Envelope, &Recipient) -> Route,
    ) -> Result<Reception, QueueError> {
        let (id, digest) = identity(&envelope, &content)?;
        {
            let mut stage = self.lock();
            let Stage::Behind(ids) = &mut *stage else {
                return Ok(Reception::CaughtUp(Box::new(envelope), content));
            };
            let same = |known, answer| Reception::Answer(repeated(known, digest, answer));
            if let Some(&known) = ids.known.get(&id) {
                return Ok(same(known, Admission::Known));
            }
            if let Some(&known) = ids.in_flight.get(&id) {
                let answer = Admission::InFlight(Box::new(envelope), content);
                return Ok(same(known, answer));
            }
            if id.minted_at() < ids.decided_from || ids.known.len() >= MOST {
                return Ok(Reception::Unsure(Box::new(envelope), content));
            }
            ids.in_flight.insert(id, digest);
        }
        // The rules lie in the journal that is still to be read; whoever catches up applies them to what was accepted.
        let terms = self.terms();
        let no_rules = &mut |_: &mut Vec<JobState>, _: &Envelope, _| {};
        let (prepared, claim) = new_mail(
            envelope,
            content,
            digest,
            &terms.retry,
            no_rules,
            now,
            route,
        );
        match &mut *self.lock() {
            Stage::Behind(ids) => {
                if let Err(over) = ids.usage.take(&terms.quotas, &claim) {
                    ids.in_flight.remove(&id);
                    return Err(over.into());
                }
                ids.claims.insert(id, claim);
            }
            // Meanwhile: the queue has the id, and counts the mail as one of its own.
            Stage::CaughtUp { queue, .. } => {
                if let Err(over) = queue.index.take(&terms.quotas, &claim) {
                    queue.core().in_flight.remove(&id);
                    return Err(over.into());
                }
            }
        }
        Ok(Reception::Answer(Admission::New(prepared)))
    }

    /// What was committed. The index learns of it from the journal.
    pub fn committed(&self, prepared: Prepared) {
        self.end_flight(prepared, true);
    }

    /// Gives up what was prepared and will not be committed.
    pub fn abandon(&self, prepared: Prepared) {
        self.end_flight(prepared, false);
    }

    /// From now on the queue admits. It has replayed all that was committed; what still waits for its commit is applied
    /// there.
    pub fn caught_up(&self, queue: Arc<Queue>) {
        let mut stage = self.lock();
        if let Stage::Behind(ids) = &mut *stage {
            let in_flight = std::mem::take(&mut ids.in_flight);
            let mut accepted = std::mem::take(&mut ids.accepted);
            accepted.extend(in_flight.keys());
            queue.core().in_flight.extend(in_flight);
            for claim in std::mem::take(&mut ids.claims).into_values() {
                queue.index.add(&claim);
            }
            *stage = Stage::CaughtUp { queue, accepted };
        }
    }

    fn end_flight(&self, prepared: Prepared, committed: bool) {
        let mut stage = self.lock();
        let Stage::Behind(ids) = &mut *stage else {
            return;
        };
        for change in prepared.into_changes() {
            if let Change::Mail(mail) = change {
                ids.in_flight.remove(&mail.queue_id);
                let claim = ids.claims.remove(&mail.queue_id);
                if let (Some(claim), false) = (claim, committed) {
                    ids.usage.remove(&claim);
                }
                if committed {
                    ids.accepted.push(mail.queue_id);
                    ids.known.insert(mail.queue_id, mail.digest);
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
