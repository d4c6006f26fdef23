use std::fmt::{self, Write};

use postroad_envelope::{
    Envelope, Outcome, QueueId, Recipient, RecipientIndex, Route, RouteClass, StatusReport,
    Timestamp,
};
use postroad_reply::SUCCESS_2_0_0;

use super::{
    Queue,
    change::{Change, MailFacts, Prepared},
    expansion, holds,
    standing::{self, Standing},
    suppressed,
};
use crate::{
    Claim, Content, Deadline, Digest, JobKey, JobState, MAX_JOB_RECIPIENTS, Progress, QueueError,
    Quotas, RecipientState, RetrySchedule, Revision,
    record::{COUNTS_JOBS, EncodedState, draft},
};

/// The fact of a mail that tells of one without a sender that it failed.
pub const DOUBLE_BOUNCE: &str = "double_bounce";

/// The answer to a submission.
#[derive(Debug)]
pub enum Admission {
    /// A new mail: commit and apply it.
    New(Prepared),
    /// The same mail waits for its commit: its answer is the answer to this one too, which comes back to be offered again if that
    /// one fails.
    InFlight(Box<Envelope>, Content),
    /// The same mail was accepted before: acknowledge it again; a content file written for it now may go.
    Known,
    /// The id is taken by another mail.
    Conflict,
}

impl Queue {
    /// Admits a mail: derives its jobs by `route`, or finds that its id is known. A new one is refused where a quota has no
    /// room for it; it counts from now on, until it is applied or abandoned.
    pub fn prepare_insert(
        &self,
        envelope: Envelope,
        content: Content,
        now: Timestamp,
        route: &dyn Fn(&Envelope, &Recipient) -> Route,
    ) -> Result<Admission, QueueError> {
        let quotas = &self.terms().quotas;
        self.prepare_mail(envelope, content, &[], now, route, Some(quotas))
    }

    /// As [`Queue::prepare_insert`], for mail that the queue itself must send whatever there is already: it counts, and no
    /// quota refuses it.
    pub fn prepare_own(
        &self,
        envelope: Envelope,
        content: Content,
        now: Timestamp,
        route: &dyn Fn(&Envelope, &Recipient) -> Route,
    ) -> Result<Admission, QueueError> {
        self.prepare_mail(envelope, content, &[], now, route, None)
    }

    /// The same for a mail of another queue, whose recipients stand somewhere already.
    pub fn prepare_import(
        &self,
        envelope: Envelope,
        content: Content,
        standing: &[Standing],
        now: Timestamp,
        route: &dyn Fn(&Envelope, &Recipient) -> Route,
    ) -> Result<Admission, QueueError> {
        self.prepare_mail(envelope, content, standing, now, route, None)
    }

    fn prepare_mail(
        &self,
        envelope: Envelope,
        content: Content,
        standing: &[Standing],
        now: Timestamp,
        route: &dyn Fn(&Envelope, &Recipient) -> Route,
        quotas: Option<&Quotas>,
    ) -> Result<Admission, QueueError> {
        let (id, digest) = identity(&envelope, &content)?;
        {
            let mut core = self.core();
            if let Some(&known) = core.in_flight.get(&id) {
                let answer = Admission::InFlight(Box::new(envelope), content);
                return Ok(repeated(known, digest, answer));
            }
            // Taken before the index is asked, so that of two at once only one gets through.
            core.in_flight.insert(id, digest);
        }
        let known = self.known(id);
        if !matches!(known, Ok(None)) {
            self.core().in_flight.remove(&id);
        }
        if let Some(known) = known? {
            return Ok(repeated(known, digest, Admission::Known));
        }
        let (terms, rules) = (self.terms(), self.hold_rules());
        let suppressions = self.suppressions();
        let mut prepare = |jobs: &mut Vec<JobState>, envelope: &Envelope, size| {
            // Before the rules: what is held already keeps its reason.
            jobs.iter_mut()
                .for_each(|job| standing::take_up(job, standing, now));
            holds::hold_new(&rules, envelope, size, jobs);
            // What was tried elsewhere goes on as it stands.
            // The release before knows of no such end.
            if standing.is_empty() && self.options.format >= COUNTS_JOBS {
                suppressed::fail_new(&suppressions, envelope, jobs, now);
            }
        };
        let (prepared, claim) = new_mail(
            envelope,
            content,
            digest,
            &terms.retry,
            &mut prepare,
            now,
            route,
        );
        match quotas {
            None => self.index.add(&claim),
            Some(quotas) => {
                if let Err(over) = self.index.take(quotas, &claim) {
                    self.core().in_flight.remove(&id);
                    return Err(over.into());
                }
            }
        }
        Ok(Admission::New(prepared))
    }

    /// What a mail would be known by.
    pub fn digest_of(envelope: &Envelope, len: u64, crc32c: u32) -> Digest {
        digest_of(envelope, len, crc32c)
    }

    /// What a mail is known by, if it lives or has finished within the window.
    pub fn known(&self, id: QueueId) -> Result<Option<Digest>, QueueError> {
        if let Some(mail) = self.index.mail(id)? {
            return Ok(Some(mail.digest));
        }
        Ok(self.index.finished(id)?.map(|finished| finished.digest))
    }
}

/// By what a mail is known: its id, and what it is.
pub(super) fn identity(
    envelope: &Envelope,
    content: &Content,
) -> Result<(QueueId, Digest), QueueError> {
    check(envelope)?;
    let digest = digest_of(envelope, content.len(), content.crc32c());
    Ok((envelope.queue_id, digest))
}

/// The answer to a mail whose id is known already.
pub(super) fn repeated(known: Digest, digest: Digest, answer: Admission) -> Admission {
    if known == digest {
        answer
    } else {
        Admission::Conflict
    }
}

/// The record of a mail whose id is new, with its jobs as `change` leaves them, and what it takes of each quota.
pub(super) fn new_mail(
    mut envelope: Envelope,
    content: Content,
    digest: Digest,
    retry: &RetrySchedule,
    change: &mut dyn FnMut(&mut Vec<JobState>, &Envelope, u64),
    now: Timestamp,
    route: &dyn Fn(&Envelope, &Recipient) -> Route,
) -> (Prepared, Claim) {
    // A mail that is held has its time from its release on (RFC 4865 §5).
    let begins = envelope
        .received_at
        .max(envelope.not_before.unwrap_or_default());
    let has_end = envelope.expires_at.is_some();
    envelope.expires_at.get_or_insert(retry.expires_at(begins));
    let expanded = expansion::take(&mut envelope);
    let mut jobs = jobs_of(&envelope, digest, now, route);
    for job in &mut jobs {
        owe_expansions(job, &expanded);
        if !has_end {
            job.expires_at = retry.expires_at_of(&job.destination, begins);
        }
        job.keep_time();
        if retry.double_bounces && is_reported_on(&envelope) {
            job.recipients.iter_mut().for_each(|r| r.on_failure = true);
        }
    }
    envelope.expires_at = jobs.iter().map(|job| job.expires_at).max();
    change(&mut jobs, &envelope, content.len());
    let jobs = jobs.into_iter().map(EncodedState::from).collect();
    let mut facts = MailFacts::of(&envelope, digest, content.file(), jobs);
    facts.is_counted = true;
    let claim = facts.claim();
    let record = draft(envelope, content, digest, &facts.jobs);
    (Prepared::one(record, Change::Mail(facts)), claim)
}

/// Whether somebody is told that a mail without a sender failed; never of a mail that tells just that.
fn is_reported_on(envelope: &Envelope) -> bool {
    envelope.reverse_path.is_null() && !envelope.facts.contains_key(DOUBLE_BOUNCE)
}

fn check(envelope: &Envelope) -> Result<(), QueueError> {
    if envelope.recipients.is_empty() {
        return Err(QueueError::Envelope("no recipients"));
    }
    let mut indices: Vec<_> = envelope.recipients.iter().map(|r| r.index).collect();
    indices.sort_unstable();
    indices.dedup();
    if indices.len() != envelope.recipients.len() {
        return Err(QueueError::Envelope("a recipient index twice"));
    }
    Ok(())
}

/// What makes two submissions one mail. Facts that may differ between two tries (trace context, time) are not in it.
fn digest_of(envelope: &Envelope, len: u64, crc32c: u32) -> Digest {
    let mut hash = Fnv::default();
    hash.add_text(&envelope.reverse_path);
    for recipient in &envelope.recipients {
        hash.add(&recipient.index.0.to_be_bytes());
        hash.add_text(&recipient.address);
    }
    Digest {
        len,
        crc32c,
        envelope: hash.0,
    }
}

/// FNV-1a, 64 bit; each part ends with a NUL, which none of them holds at its end.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn add(&mut self, part: &[u8]) {
        self.take(part);
        self.take(&[0]);
    }

    fn add_text(&mut self, part: &impl fmt::Display) {
        // It takes all there is.
        let _ = write!(self, "{part}");
        self.take(&[0]);
    }

    fn take(&mut self, octets: &[u8]) {
        for octet in octets {
            self.0 = (self.0 ^ u64::from(*octet)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

impl fmt::Write for Fnv {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        self.take(part.as_bytes());
        Ok(())
    }
}

/// One job for each route and recipient domain, at most [`MAX_JOB_RECIPIENTS`] in each.
fn jobs_of(
    envelope: &Envelope,
    digest: Digest,
    now: Timestamp,
    route: &dyn Fn(&Envelope, &Recipient) -> Route,
) -> Vec<JobState> {
    let mut groups: Vec<(Route, &str, Vec<&Recipient>)> = Vec::new();
    for recipient in &envelope.recipients {
        let to = route(envelope, recipient);
        let domain = recipient.address.domain().a_label();
        let open = groups.iter_mut().find(|(route, known, recipients)| {
            *route == to && *known == domain && recipients.len() < MAX_JOB_RECIPIENTS
        });
        match open {
            Some((_, _, recipients)) => recipients.push(recipient),
            None => groups.push((to, domain, vec![recipient])),
        }
    }
    let of_jobs = u32::try_from(groups.len()).unwrap_or(u32::MAX);
    let numbered = (0_u32..).zip(groups);
    numbered
        .map(|(number, (route, _, recipients))| {
            let key = JobKey {
                queue_id: envelope.queue_id,
                number,
            };
            let state = first_state(key, envelope, route, &recipients, now);
            JobState {
                of_jobs,
                digest,
                ..state
            }
        })
        .collect()
}

fn first_state(
    key: JobKey,
    envelope: &Envelope,
    route: Route,
    recipients: &[&Recipient],
    now: Timestamp,
) -> JobState {
    let null_sender = envelope.reverse_path.is_null();
    let mut recipients: Vec<RecipientState> = recipients
        .iter()
        .map(|recipient| RecipientState::new(recipient.index, recipient.notify, null_sender))
        .collect();
    recipients.sort_by_key(|recipient| recipient.index);
    if route.class == RouteClass::Discard {
        for recipient in &mut recipients {
            recipient.progress = Progress::Done(Outcome::Delivered(discarded(&route)));
        }
    }
    JobState {
        key,
        revision: Revision(1),
        class: route.class,
        hold: (route.class == RouteClass::Hold).then(|| route.rule.clone()),
        destination: route.destination,
        store: route.store,
        next_hop: route.next_hop,
        next_hops: route.next_hops,
        source: route.source,
        rule: route.rule,
        priority: envelope.priority,
        arrived_at: envelope.received_at,
        expires_at: envelope.expires_at.unwrap_or(envelope.received_at),
        deadline: envelope
            .deliver_by
            .map(|by| Deadline::new(by, envelope.queue_id)),
        due: envelope.not_before.map_or(now, |at| at.max(now)),
        attempts: 0,
        changed_at: now,
        debt_since: None,
        recipients,
        of_jobs: 0,
        digest: Digest::default(),
        unknown: Default::default(),
    }
}

/// The report is due when the mail is: until then it may be taken back.
fn owe_expansions(job: &mut JobState, expanded: &[RecipientIndex]) {
    for recipient in &mut job.recipients {
        let owes = expanded.contains(&recipient.index);
        (recipient.owed, recipient.expanded) = (owes, owes);
    }
    job.debt_since = job.owes().then_some(job.due);
}

fn discarded(route: &Route) -> StatusReport {
    StatusReport::local(SUCCESS_2_0_0, format!("discarded by rule: {}", route.rule))
}
