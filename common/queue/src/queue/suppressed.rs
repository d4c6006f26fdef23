//! Recipients that are not tried, since mail to them has failed for good.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError},
};

use postroad_envelope::{
    Cause, Envelope, Outcome, Recipient, RecipientIndex, StatusReport, Suppression, Timestamp,
};
use postroad_reply::BAD_MAILBOX_5_1_1;

use super::{Prepared, Queue, change::Change};
use crate::{JobState, Progress};

/// The list, as new mail is held against it.
#[derive(Debug, Default)]
pub struct Suppressions(HashMap<String, Vec<Suppression>>);

impl Suppressions {
    /// By address.
    pub fn new(all: impl IntoIterator<Item = Suppression>) -> Self {
        let mut by_address: HashMap<String, Vec<Suppression>> = HashMap::new();
        for one in all {
            by_address.entry(one.address.clone()).or_default().push(one);
        }
        Self(by_address)
    }

    /// What stands for mail of this tenant and account to this address.
    pub fn find(
        &self,
        address: &str,
        tenant: &str,
        account: Option<&str>,
        now: Timestamp,
    ) -> Option<&Suppression> {
        let mut of_address = self.0.get(address)?.iter();
        of_address.find(|one| {
            let is_theirs = one.account.is_none() || one.account.as_deref() == account;
            one.tenant == tenant && is_theirs && one.holds(now)
        })
    }
}

impl Queue {
    /// From now on these recipients are not tried, and no others.
    pub fn set_suppressions(&self, suppressions: Suppressions) {
        *self
            .suppressions
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Arc::new(suppressions);
    }

    pub(super) fn suppressions(&self) -> Arc<Suppressions> {
        let suppressions = self.suppressions.read();
        suppressions.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Suppressions {
    /// What becomes of a recipient of a new mail, if it is on the list; its sender is told as of any failure. Mail without a
    /// sender goes to everybody: it tells of a mail that they sent.
    pub fn verdict(
        &self,
        envelope: &Envelope,
        to: &Recipient,
        now: Timestamp,
    ) -> Option<StatusReport> {
        if self.0.is_empty() || envelope.reverse_path.is_null() {
            return None;
        }
        let (tenant, account) = (&envelope.tenant, envelope.account.as_deref());
        let found = self.find(&to.address.folded(), tenant, account, now);
        found.map(report)
    }
}

/// Fails the recipients of a new mail that are on the list.
pub(super) fn fail_new(
    list: &Suppressions,
    envelope: &Envelope,
    jobs: &mut [JobState],
    now: Timestamp,
) {
    if list.0.is_empty() || envelope.reverse_path.is_null() {
        return;
    }
    for job in jobs {
        let mut failed = Vec::new();
        for index in job.pending() {
            let to = envelope.recipient(index);
            let report = to.and_then(|to| list.verdict(envelope, to, now));
            failed.extend(report.map(|report| (index, Outcome::Failed(report))));
        }
        if !failed.is_empty() {
            job.refuse(failed);
            job.debt_since = job.owes().then_some(job.due);
        }
    }
}

fn report(found: &Suppression) -> StatusReport {
    let until = match found.until {
        Some(until) => format!("until {until}"),
        None => "until it is released".to_owned(),
    };
    let text = format!(
        "not tried: mail to {} failed for good on {} ({}); it is on the suppression list {until}",
        found.address, found.since, found.reason
    );
    StatusReport {
        cause: Some(Cause::Suppressed),
        ..StatusReport::local(BAD_MAILBOX_5_1_1, text)
    }
}

impl Prepared {
    /// Of a new mail: the recipients that are not tried, and why.
    pub fn suppressed(&self) -> Vec<(RecipientIndex, String)> {
        let jobs = self.changes().iter().flat_map(|change| match change {
            Change::Mail(mail) => mail.jobs.as_slice(),
            _ => &[],
        });
        let recipients = jobs.flat_map(|job| &job.recipients);
        let failed = recipients.filter_map(|recipient| match &recipient.progress {
            Progress::Done(Outcome::Failed(report)) if report.cause == Some(Cause::Suppressed) => {
                Some((recipient.index, report.text.clone()))
            }
            _ => None,
        });
        failed.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn entry(
        address: &str,
        tenant: &str,
        account: Option<&str>,
        until: Option<u64>,
    ) -> Suppression {
        Suppression {
            address: address.to_owned(),
            tenant: tenant.to_owned(),
            account: account.map(str::to_owned),
            since: Timestamp::from_millis(0),
            until: until.map(Timestamp::from_millis),
            reason: "550 no such user".to_owned(),
            by: "test".to_owned(),
        }
    }

    #[test]
    fn a_list_is_of_its_tenant_or_account_and_has_an_end() {
        let over = NOW.as_millis();
        let list = Suppressions::new([
            entry("gone@far.test", "acme", None, None),
            entry("gone@far.test", "other", Some("a@our.test"), None),
            entry("back@far.test", "acme", None, Some(over)),
            entry("soon@far.test", "acme", None, Some(over + 1)),
        ]);
        let is = |address, tenant, account| list.find(address, tenant, account, NOW).is_some();
        assert!(is("gone@far.test", "acme", None));
        assert!(is("gone@far.test", "acme", Some("b@our.test")));
        assert!(!is("gone@far.test", "third", None));
        assert!(is("gone@far.test", "other", Some("a@our.test")));
        assert!(!is("gone@far.test", "other", Some("b@our.test")));
        assert!(!is("back@far.test", "acme", None));
        assert!(is("soon@far.test", "acme", None));
        assert!(!is("there@far.test", "acme", None));
    }
}
