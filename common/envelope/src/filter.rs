use std::{collections::BTreeSet, sync::Arc};

use postroad_address::{Domain, ReversePath};

use crate::{QueueId, Timestamp};

/// Where a mail, or one of its jobs, stands for operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MailState {
    /// Waiting for a worker.
    Due,
    /// A worker has it.
    Leased,
    /// Waiting for its next attempt.
    Delayed,
    /// Kept until released.
    Held,
    /// All done: a whole mail, never one of its jobs.
    Retired,
}

impl MailState {
    /// Every state.
    pub const ALL: [Self; 5] = [
        Self::Due,
        Self::Leased,
        Self::Delayed,
        Self::Held,
        Self::Retired,
    ];

    /// The word in tables and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Due => "due",
            Self::Leased => "leased",
            Self::Delayed => "delayed",
            Self::Held => "held",
            Self::Retired => "retired",
        }
    }
}

/// Which mails an operator or a rule means: those for which all given parts hold.
///
/// Some parts are of a mail, others of one of its jobs (one route and recipient domain). A mail is meant if its own parts
/// hold and **one open job** fits all parts of jobs; a change touches only the jobs that fit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// Of the mail: one of these; none named: any.
    pub ids: Vec<QueueId>,
    /// Of the mail: its reverse-path, folded; empty: null; `@domain`: every sender of that domain.
    pub sender: Option<String>,
    /// Of the mail: its id is not older. Ids are minted when a mail begins to arrive.
    pub received_after: Option<Timestamp>,
    /// Of the mail: its id is older.
    pub received_before: Option<Timestamp>,
    /// Of the mail: octets of content, no fewer.
    pub size_at_least: Option<u64>,
    /// Of the mail: octets of content, no more.
    pub size_at_most: Option<u64>,
    /// Of the mail: it has this tag.
    pub tag: Option<String>,
    /// Of the mail: submitted by this account.
    pub account: Option<String>,
    /// Of the mail: of this tenant.
    pub tenant: Option<String>,
    /// Of a job: where it goes, an A-label.
    pub destination: Option<String>,
    /// Of a job: the domain of its recipients, an A-label. Today every destination is one.
    pub recipient_domain: Option<String>,
    /// Of a job: where it stands.
    pub state: Option<MailState>,
    /// Of a job: its last reply, or why it is held, contains this; upper and lower case are the same.
    pub reason_contains: Option<String>,
    /// Of a job: held by the rule of this name.
    pub hold_rule: Option<String>,
    /// Of a job: the site behind its destination, as the queue knows it; or the site of this recipient domain.
    pub site: Option<String>,
    /// Of a job: it goes to one of these. What a queue makes of `site`; never sent.
    pub destinations: Option<Arc<BTreeSet<String>>>,
    /// Every mail, if no part is given; without it an empty filter means none.
    pub all: bool,
}

/// What of a mail is asked by a [`Filter`]; all of it stands in compact summaries.
#[derive(Debug, Clone, Copy)]
pub struct MailTraits<'a> {
    /// Its id.
    pub queue_id: QueueId,
    /// Its reverse-path; empty: null.
    pub sender: &'a str,
    /// Octets of content.
    pub size: u64,
    /// Its tenant.
    pub tenant: &'a str,
    /// The account that submitted it.
    pub account: Option<&'a str>,
    /// Its tags.
    pub tags: &'a [String],
}

/// What of a job is asked by a [`Filter`].
#[derive(Debug, Clone, Copy)]
pub struct JobTraits<'a> {
    /// Where it goes.
    pub destination: &'a str,
    /// Where it stands; none: it has ended.
    pub state: Option<MailState>,
    /// Why it is held, if it is.
    pub hold: Option<&'a str>,
}

/// What is written into a job that a rule holds.
pub fn held_by(rule: &str) -> String {
    format!("rule {rule}")
}

/// A reverse-path as filters and indices compare it.
pub fn fold_sender(text: &str) -> String {
    if let Some(domain) = text.strip_prefix('@') {
        return format!("@{}", fold_domain(domain));
    }
    let bare = text
        .strip_prefix('<')
        .and_then(|text| text.strip_suffix('>'))
        .unwrap_or(text);
    match ReversePath::parse(bare) {
        Ok(path) => path
            .mailbox()
            .map_or_else(String::new, |mailbox| mailbox.folded()),
        Err(_) => bare.to_lowercase(),
    }
}

fn fold_domain(text: &str) -> String {
    Domain::parse(text).map_or_else(
        |_| text.to_lowercase(),
        |domain| domain.a_label().to_owned(),
    )
}

impl Filter {
    /// Every mail.
    pub fn all() -> Self {
        Self {
            all: true,
            ..Self::default()
        }
    }

    /// These mails.
    pub fn of_ids(ids: Vec<QueueId>) -> Self {
        Self {
            ids,
            ..Self::default()
        }
    }

    /// Mails that go there.
    pub fn to(destination: impl Into<String>) -> Self {
        Self {
            destination: Some(destination.into()),
            ..Self::default()
        }
    }

    /// Whether it means no mail, whatever mails there are.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The same with addresses and domains in the form they are compared in.
    #[must_use]
    pub fn folded(mut self) -> Self {
        self.sender = self.sender.as_deref().map(fold_sender);
        self.destination = self.destination.as_deref().map(fold_domain);
        self.recipient_domain = self.recipient_domain.as_deref().map(fold_domain);
        self.reason_contains = self.reason_contains.map(|text| text.to_lowercase());
        self
    }

    /// The ids its times and ids allow: from the first to the last; none: no id can fit.
    pub fn range(&self) -> Option<(QueueId, QueueId)> {
        let edge = |at: Timestamp| u128::from(at.as_millis()) << 80;
        let mut first = self.received_after.map_or(0, edge);
        let mut last = match self.received_before.map(edge) {
            Some(edge) => edge.checked_sub(1)?,
            None => u128::MAX,
        };
        let ids = self.ids.iter().map(|id| u128::from_be_bytes(id.to_bytes()));
        if let (Some(least), Some(most)) = (ids.clone().min(), ids.max()) {
            (first, last) = (first.max(least), last.min(most));
        }
        let id = |number: u128| QueueId::from_bytes(number.to_be_bytes());
        (first <= last).then(|| (id(first), id(last)))
    }

    /// Whether it asks for anything but the id and what is found by an index of its own.
    pub const fn asks_summary(&self) -> bool {
        self.sender.is_some()
            || self.size_at_least.is_some()
            || self.size_at_most.is_some()
            || self.tag.is_some()
            || self.account.is_some()
            || self.tenant.is_some()
    }

    /// Whether any part is about jobs.
    pub const fn asks_jobs(&self) -> bool {
        self.destination.is_some()
            || self.recipient_domain.is_some()
            || self.state.is_some()
            || self.reason_contains.is_some()
            || self.hold_rule.is_some()
            || self.site.is_some()
    }

    /// Whether the parts of the mail hold. Of a folded filter.
    pub fn fits_mail(&self, mail: &MailTraits<'_>) -> bool {
        !self.is_empty()
            && self.fits_id(mail.queue_id)
            && self.size_at_least.is_none_or(|least| mail.size >= least)
            && self.size_at_most.is_none_or(|most| mail.size <= most)
            && self.tenant.as_deref().is_none_or(|it| it == mail.tenant)
            && self
                .account
                .as_deref()
                .is_none_or(|it| Some(it) == mail.account)
            && self.tag.as_ref().is_none_or(|it| mail.tags.contains(it))
            && self.fits_sender(mail.sender)
    }

    fn fits_id(&self, id: QueueId) -> bool {
        let at = id.minted_at();
        self.received_after.is_none_or(|after| at >= after)
            && self.received_before.is_none_or(|before| at < before)
            && (self.ids.is_empty() || self.ids.contains(&id))
    }

    fn fits_sender(&self, sender: &str) -> bool {
        match self.sender.as_deref() {
            None => true,
            Some(domain) if domain.starts_with('@') => fold_sender(sender).ends_with(domain),
            Some(wanted) => wanted == sender || wanted == fold_sender(sender),
        }
    }

    /// A site of which nobody has said what is behind it has no jobs.
    fn goes_to_site(&self, destination: &str) -> bool {
        let known = self.destinations.as_ref();
        self.site.is_none() || known.is_some_and(|known| known.contains(destination))
    }

    /// Whether a job is open and the parts of jobs hold. Of a folded filter; `reason` is asked for only if needed.
    pub fn fits_job(&self, job: &JobTraits<'_>, reason: impl FnOnce() -> String) -> bool {
        let goes = |to: &Option<String>| to.as_deref().is_none_or(|to| to == job.destination);
        let by_rule = |rule: &str| job.hold == Some(held_by(rule).as_str());
        job.state.is_some()
            && goes(&self.destination)
            && goes(&self.recipient_domain)
            && self.goes_to_site(job.destination)
            && (self.state.is_none() || self.state == job.state)
            && self.hold_rule.as_deref().is_none_or(by_rule)
            && self
                .reason_contains
                .as_deref()
                .is_none_or(|text| reason().to_lowercase().contains(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(at: u64, number: u8) -> QueueId {
        QueueId::mint(Timestamp::from_millis(at), [number; 10])
    }

    const fn mail(tags: &[String]) -> MailTraits<'_> {
        MailTraits {
            queue_id: QueueId::from_bytes([0; 16]),
            sender: "Alice@Demo.test",
            size: 1000,
            tenant: "acme",
            account: Some("alice"),
            tags,
        }
    }

    fn job() -> JobTraits<'static> {
        JobTraits {
            destination: "far.test",
            state: Some(MailState::Held),
            hold: Some("rule spam"),
        }
    }

    fn set(change: impl FnOnce(&mut Filter)) -> Filter {
        let mut filter = Filter::default();
        change(&mut filter);
        filter.folded()
    }

    fn of_site(destination: &str) -> Filter {
        set(|filter| {
            filter.site = Some("mx.far.test".to_owned());
            filter.destinations = Some(Arc::new([destination.to_owned()].into()));
        })
    }

    #[test]
    fn each_part_of_a_mail_can_fit_or_not() {
        let tags = ["bulk".to_owned()];
        let text = |text: &str| Some(text.to_owned());
        for (fits, filter) in [
            (false, Filter::default()),
            (true, Filter::all()),
            (true, set(|f| f.sender = text("alice@DEMO.test"))),
            (true, set(|f| f.sender = text("@Demo.TEST"))),
            (false, set(|f| f.sender = text("@emo.test"))),
            (false, set(|f| f.sender = text(""))),
            (true, set(|f| f.size_at_least = Some(1000))),
            (false, set(|f| f.size_at_least = Some(1001))),
            (true, set(|f| f.size_at_most = Some(1000))),
            (false, set(|f| f.size_at_most = Some(999))),
            (true, set(|f| f.tag = text("bulk"))),
            (false, set(|f| f.tag = text("bul"))),
            (true, set(|f| f.account = text("alice"))),
            (false, set(|f| f.account = text("bob"))),
            (true, set(|f| f.tenant = text("acme"))),
            (false, set(|f| f.tenant = text("default"))),
        ] {
            assert_eq!(filter.fits_mail(&mail(&tags)), fits, "{filter:?}");
        }
        let null = MailTraits {
            sender: "",
            account: None,
            ..mail(&tags)
        };
        assert!(set(|f| f.sender = text("<>")).fits_mail(&null));
        assert!(set(|f| f.sender = text("")).fits_mail(&null));
        assert!(!set(|f| f.account = text("alice")).fits_mail(&null));
    }

    #[test]
    fn each_part_of_a_job_can_fit_or_not() {
        let text = |text: &str| Some(text.to_owned());
        let reason = || "451 Try Later".to_owned();
        for (fits, filter) in [
            (true, Filter::all()),
            (true, set(|f| f.destination = text("FAR.test"))),
            (false, set(|f| f.destination = text("ar.test"))),
            (true, set(|f| f.recipient_domain = text("far.test"))),
            (true, set(|f| f.state = Some(MailState::Held))),
            (false, set(|f| f.state = Some(MailState::Due))),
            (true, set(|f| f.hold_rule = text("spam"))),
            (false, set(|f| f.hold_rule = text("spa"))),
            (true, set(|f| f.reason_contains = text("tRY later"))),
            (false, set(|f| f.reason_contains = text("never"))),
            (false, set(|f| f.site = text("mx.far.test"))),
            (true, of_site("far.test")),
            (false, of_site("near.test")),
        ] {
            assert_eq!(filter.fits_job(&job(), reason), fits, "{filter:?}");
        }
        let ended = JobTraits {
            state: None,
            ..job()
        };
        assert!(!Filter::all().fits_job(&ended, reason));
    }

    #[test]
    fn times_and_ids_are_a_range_of_ids() {
        let at = |at| Some(Timestamp::from_millis(at));
        let between = set(|f| (f.received_after, f.received_before) = (at(5), at(7)));
        let (first, last) = between.range().unwrap();
        for (fits, it) in [(false, 4), (true, 5), (true, 6), (false, 7)] {
            let id = id(it, 9);
            assert_eq!((first..=last).contains(&id), fits, "{it}");
            let mail = MailTraits {
                queue_id: id,
                ..mail(&[])
            };
            assert_eq!(between.fits_mail(&mail), fits, "{it}");
        }
        assert_eq!(set(|f| f.received_before = at(0)).range(), None);
        let crossed = set(|f| (f.received_after, f.received_before) = (at(7), at(5)));
        assert_eq!(crossed.range(), None);
        let named = Filter::of_ids(vec![id(9, 1), id(3, 1)]);
        assert_eq!(named.range(), Some((id(3, 1), id(9, 1))));
    }
}
