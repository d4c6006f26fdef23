//! What tenants, accounts and domains have, counted wherever entries come and go, and from the entries at a start.

use std::{
    panic::resume_unwind,
    sync::{MutexGuard, PoisonError},
    thread,
};

use prost::Message;

use super::{Index, jobs};
use crate::{
    Claim, JobState, OverQuota, QueueError, Quotas, Usage,
    error::unreadable,
    record::{digest_from_wire, is_open, wire},
};

impl Index {
    /// Counts all there is. From then on what is applied is counted as it comes; nothing may be applied meanwhile.
    pub fn begin_counting(&self) -> Result<(), QueueError> {
        let counted = self.count()?;
        *self.usage() = Some(Box::new(counted));
        Ok(())
    }

    /// Counts all there is, entry by entry, mails and jobs side by side. One that cannot be read is passed over here: it is
    /// told of when it is needed.
    pub fn count(&self) -> Result<Usage, QueueError> {
        let (mails, jobs) = side_by_side(|| self.count_mails(), || self.count_jobs());
        Ok(mails?.with_domains_of(jobs?))
    }

    /// Tenants and accounts.
    fn count_mails(&self) -> Result<Usage, QueueError> {
        let mut usage = Usage::default();
        for item in self.trees.mail.iter() {
            let (_, value) = item?;
            match wire::CountedMail::decode(&*value) {
                Ok(mail) => {
                    let size = digest_from_wire(mail.digest).len;
                    usage.add_mail(&mail.tenant, mail.account.as_deref(), size);
                }
                Err(error) => tell(&unreadable("mail entry", error)),
            }
        }
        Ok(usage)
    }

    /// Domains.
    fn count_jobs(&self) -> Result<Usage, QueueError> {
        let mut usage = Usage::default();
        for item in self.trees.job.iter() {
            let (_, value) = item?;
            let (_, state) = jobs::split(&value)?;
            match wire::CountedJob::decode(state) {
                Ok(job) if job.recipients.iter().any(is_open) => {
                    usage.add_job(&job.destination, digest_from_wire(job.digest).len);
                }
                Ok(_) => {}
                Err(error) => tell(&unreadable("job state", error)),
            }
        }
        Ok(usage)
    }

    /// The counters; none before [`Index::begin_counting`]. The lock is held for moments.
    pub fn usage(&self) -> MutexGuard<'_, Option<Box<Usage>>> {
        self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a mail that is to be applied, or refuses it where one of these quotas has no room.
    pub fn take(&self, quotas: &Quotas, claim: &Claim) -> Result<(), OverQuota> {
        match &mut *self.usage() {
            Some(usage) => usage.take(quotas, claim),
            None => Ok(()),
        }
    }

    /// Counts a mail that is to be applied, room or not.
    pub fn add(&self, claim: &Claim) {
        self.counting(|usage| usage.add(claim));
    }

    /// Counts a mail no more that will not be applied.
    pub fn give_back(&self, claim: &Claim) {
        self.counting(|usage| usage.remove(claim));
    }

    pub(super) fn counting(&self, change: impl FnOnce(&mut Usage)) {
        if let Some(usage) = &mut *self.usage() {
            change(usage);
        }
    }

    /// A job's state becomes another. `is_counted`: the new one was counted when it was prepared.
    pub(super) fn count_job(
        &self,
        before: Option<&JobState>,
        after: Option<&JobState>,
        is_counted: bool,
    ) {
        let before = before.and_then(place);
        let after = after.filter(|_| !is_counted).and_then(place);
        if before == after {
            return;
        }
        self.counting(|usage| {
            if let Some((domain, size)) = before {
                usage.remove_job(domain, size);
            }
            if let Some((domain, size)) = after {
                usage.add_job(domain, size);
            }
        });
    }
}

/// Both at once, the first on a thread of its own. What panics there panics here.
pub fn side_by_side<A: Send, B>(
    first: impl FnOnce() -> A + Send,
    second: impl FnOnce() -> B,
) -> (A, B) {
    thread::scope(|scope| {
        let first = scope.spawn(first);
        let second = second();
        let first = first.join().unwrap_or_else(|panic| resume_unwind(panic));
        (first, second)
    })
}

/// Where a job counts, and how much; nowhere once it has ended.
fn place(state: &JobState) -> Option<(&str, u64)> {
    (!state.has_ended()).then_some((&state.destination, state.digest.len))
}

fn tell(error: &QueueError) {
    tracing::error!(event = "corruption", %error, "an entry of the index is not counted");
}
