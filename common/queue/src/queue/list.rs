use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use postroad_envelope::{
    Filter, JobTraits, MailState, QueueId, QueueIdPrefix, RouteClass, Timestamp,
};

use super::Queue;
use crate::{
    JobKey, JobState, MailPlace, Phase, QueueError, Scan, SenderPrint, index::directed,
    record::Finished,
};

/// A page of a list that is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Listing<'a> {
    /// Which mails.
    pub filter: &'a Filter,
    /// Where to begin; none: at the beginning.
    pub from: Option<QueueId>,
    /// By descending id.
    pub newest_first: bool,
    /// Most mails.
    pub limit: usize,
}

impl<'a> Listing<'a> {
    /// By ascending id.
    pub const fn oldest(filter: &'a Filter, from: Option<QueueId>, limit: usize) -> Self {
        Self {
            filter,
            from,
            newest_first: false,
            limit,
        }
    }
}

/// A part of a list.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Page {
    /// In the order asked for.
    pub mails: Vec<MailSummary>,
    /// Where the next page begins; none if this is the last.
    pub next: Option<QueueId>,
    /// Mails, or jobs in memory, that were looked at.
    pub scanned: u64,
}

/// A living mail in a list.
#[derive(Debug, Clone, PartialEq)]
pub struct MailSummary {
    /// Place, sender, size, age.
    pub mail: MailPlace,
    /// Its jobs, ended ones too.
    pub jobs: Vec<JobSummary>,
}

/// A job in a list.
#[derive(Debug, Clone, PartialEq)]
pub struct JobSummary {
    /// What is durable of it.
    pub state: JobState,
    /// Where it stands and until when; none if it has ended.
    pub phase: Option<(Phase, Timestamp)>,
    /// The agent that holds it.
    pub holder: Option<Arc<str>>,
}

/// The queue in numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stats {
    /// Living jobs.
    pub jobs: usize,
    /// By phase.
    pub by_phase: BTreeMap<&'static str, usize>,
    /// By class and destination: living jobs, and the earliest time one of them is or was due.
    pub by_destination: BTreeMap<(RouteClass, String), (usize, Option<Timestamp>)>,
}

impl JobSummary {
    /// Where it stands for operators; none if it has ended.
    pub fn state(&self, now: Timestamp) -> Option<MailState> {
        self.phase.map(|(phase, at)| phase.state(at, now))
    }

    /// Whether it fits the parts of a folded filter that are about jobs.
    pub fn fits(&self, filter: &Filter, now: Timestamp) -> bool {
        let traits = JobTraits {
            destination: &self.state.destination,
            state: self.state(now),
            hold: self.state.hold.as_deref(),
        };
        filter.fits_job(&traits, || self.state.reason().unwrap_or_default())
    }
}

/// What a search comes upon.
enum Step {
    Mail(QueueId),
    Entry(Box<MailPlace>),
    /// So many jobs that do not fit, up to this mail; none: they were the last.
    Passed(Option<QueueId>, u64),
}

/// What the schedule in memory tells of.
struct Wanted {
    state: Option<MailState>,
    destination: Option<String>,
    destinations: Option<Arc<BTreeSet<String>>>,
    sender: Option<SenderPrint>,
}

impl Wanted {
    const fn is_something(&self) -> bool {
        self.state.is_some()
            || self.destination.is_some()
            || self.destinations.is_some()
            || self.sender.is_some()
    }

    fn scan(&self) -> Scan<'_> {
        Scan {
            state: self.state,
            destination: self.destination.as_deref(),
            destinations: self.destinations.as_deref(),
            sender: self.sender,
        }
    }
}

type Steps<'a> = Box<dyn Iterator<Item = Result<Step, QueueError>> + 'a>;

/// Jobs looked at while the schedule is locked.
const STRETCH: u64 = 4096;

impl Queue {
    /// Mails that fit. `go_on` is asked between mails: if it says no, the page ends there, with the next one to begin
    /// where it ended; so a page takes a bounded time however few mails fit.
    pub fn list(
        &self,
        listing: &Listing<'_>,
        now: Timestamp,
        go_on: &dyn Fn() -> bool,
    ) -> Result<Page, QueueError> {
        let filter = listing.filter.clone().folded();
        let mut page = Page::default();
        let Some(range) = range(&filter, listing) else {
            return Ok(page);
        };
        let mut last = None;
        for step in self.search(&filter, range, listing.newest_first, now) {
            let (id, entry) = match step? {
                Step::Mail(id) => (id, None),
                Step::Entry(mail) => (mail.queue_id, Some(*mail)),
                Step::Passed(next, looked) => {
                    page.scanned += looked;
                    if next.is_some() && !go_on() {
                        page.next = next;
                        break;
                    }
                    continue;
                }
            };
            if last == Some(id) {
                continue;
            }
            if page.mails.len() >= listing.limit || (last.is_some() && !go_on()) {
                page.next = Some(id);
                break;
            }
            last = Some(id);
            page.scanned += 1;
            page.mails.extend(self.fitting(&filter, id, entry, now)?);
        }
        Ok(page)
    }

    /// Mails that may fit, by the narrowest way there is to find them; an id may come several times in a row.
    fn search<'a>(
        &'a self,
        filter: &Filter,
        range: (QueueId, QueueId),
        newest_first: bool,
        now: Timestamp,
    ) -> Steps<'a> {
        if !filter.ids.is_empty() {
            let mut ids = filter.ids.clone();
            ids.sort_unstable();
            ids.retain(|id| (range.0..=range.1).contains(id));
            return directed(ids.into_iter().map(|id| Ok(Step::Mail(id))), newest_first);
        }
        let to = filter
            .destination
            .as_ref()
            .or(filter.recipient_domain.as_ref());
        let sender = filter
            .sender
            .as_ref()
            .filter(|sender| !sender.starts_with('@'));
        let held = filter.hold_rule.as_ref().map(|_| MailState::Held);
        let wanted = Wanted {
            state: filter.state.or(held),
            destination: to.cloned(),
            destinations: filter.destinations.clone(),
            sender: sender.map(|sender| SenderPrint::of(sender)),
        };
        if wanted.is_something() {
            return Box::new(self.in_schedule(wanted, range, newest_first, now));
        }
        if let Some(text) = &filter.reason_contains {
            return Box::new(self.by_reason(text.clone(), range, newest_first));
        }
        let mails = self.index.mails_between(range);
        let entry = |mail: Result<MailPlace, _>| Ok(Step::Entry(Box::new(mail?)));
        directed(mails.map(entry), newest_first)
    }

    /// By the schedule in memory, which is locked for a stretch at a time.
    fn in_schedule(
        &self,
        wanted: Wanted,
        range: (QueueId, QueueId),
        newest_first: bool,
        now: Timestamp,
    ) -> impl Iterator<Item = Result<Step, QueueError>> + '_ {
        let mut rest = Some(range);
        let stretches = std::iter::from_fn(move || {
            let range = rest.take()?;
            let core = self.core();
            let found = core
                .schedule
                .scan(&wanted.scan(), range, newest_first, STRETCH, now);
            drop(core);
            rest = found.next.map(|next| match newest_first {
                true => (range.0, next),
                false => (next, range.1),
            });
            let fitting = u64::try_from(found.mails.len()).unwrap_or(u64::MAX);
            let passed = Step::Passed(found.next, found.looked.saturating_sub(fitting));
            Some(found.mails.into_iter().map(Step::Mail).chain([passed]))
        });
        stretches.flatten().map(Ok)
    }

    /// By the index of jobs; of each only the reason is read.
    fn by_reason(
        &self,
        text: String,
        range: (QueueId, QueueId),
        newest_first: bool,
    ) -> impl Iterator<Item = Result<Step, QueueError>> + use<> {
        let mut jobs = self.index.reasons(range, newest_first).peekable();
        let (mut looked, mut last) = (0, None);
        std::iter::from_fn(move || {
            loop {
                let next = match jobs.peek() {
                    Some(Ok((id, _))) => Some(*id),
                    Some(Err(_)) => last,
                    None => None,
                };
                // Never inside a mail: a page that began with it again would end there again.
                if (looked >= STRETCH && next != last) || (looked > 0 && next.is_none()) {
                    return Some(Ok(Step::Passed(next, std::mem::take(&mut looked))));
                }
                last = next;
                match jobs.next()? {
                    Ok((id, Some(reason))) if reason.to_lowercase().contains(&text) => {
                        return Some(Ok(Step::Mail(id)));
                    }
                    Ok(_) => looked += 1,
                    Err(error) => return Some(Err(error)),
                }
            }
        })
    }

    fn fitting(
        &self,
        filter: &Filter,
        id: QueueId,
        entry: Option<MailPlace>,
        now: Timestamp,
    ) -> Result<Option<MailSummary>, QueueError> {
        let entry = match entry {
            Some(entry) => Some(entry),
            None => self.index.mail(id)?,
        };
        let Some(mail) = entry.filter(|mail| filter.fits_mail(&mail.traits())) else {
            return Ok(None);
        };
        let summary = self.with_jobs(mail, self.index.jobs(id)?);
        let fits = !filter.asks_jobs() || summary.jobs.iter().any(|job| job.fits(filter, now));
        Ok(fits.then_some(summary))
    }

    /// The living mails whose ids begin so, at most `limit`.
    pub fn find(&self, prefix: &QueueIdPrefix, limit: usize) -> Result<Vec<QueueId>, QueueError> {
        let last = prefix.last();
        let mut found = Vec::new();
        for mail in self.index.mails(prefix.first()).take(limit) {
            let id = mail?.queue_id;
            if id > last {
                break;
            }
            found.push(id);
        }
        Ok(found)
    }

    /// A living mail; none if there is none of that id.
    pub fn show(&self, id: QueueId) -> Result<Option<MailSummary>, QueueError> {
        self.summary(id)
    }

    /// When a mail finished, while that is remembered.
    pub fn finished(&self, id: QueueId) -> Result<Option<Finished>, QueueError> {
        self.index.finished(id)
    }

    /// The living jobs of a mail.
    pub fn jobs_of(&self, id: QueueId) -> Result<Vec<JobKey>, QueueError> {
        let states = self.index.jobs(id)?;
        Ok(states
            .iter()
            .filter(|state| !state.has_ended())
            .map(|state| state.key)
            .collect())
    }

    /// Every content file that a living mail needs, or one that is not retired yet, for the sweep at start.
    pub fn content_files(
        &self,
    ) -> impl Iterator<Item = Result<postroad_journal::ContentRef, QueueError>> + '_ {
        let mails = self.index.mails(QueueId::from_bytes([0; 16]));
        let living = mails.filter_map(|mail| mail.map(|mail| mail.file).transpose());
        living.chain(self.index.leaving_files())
    }

    /// All living mails, by ascending id.
    pub fn places(&self) -> impl Iterator<Item = Result<MailPlace, QueueError>> + '_ {
        self.index.mails(QueueId::from_bytes([0; 16]))
    }

    /// How many jobs live; as cheap as a glance.
    pub fn living_jobs(&self) -> usize {
        self.core().schedule.len()
    }

    /// Counts over all living jobs.
    pub fn stats(&self) -> Stats {
        let core = self.core();
        let mut stats = Stats {
            jobs: core.schedule.len(),
            ..Stats::default()
        };
        for (_, phase, class, destination, at) in core.schedule.jobs() {
            *stats.by_phase.entry(phase.as_str()).or_default() += 1;
            let key = (class, destination.to_owned());
            let (count, earliest) = stats.by_destination.entry(key).or_default();
            *count += 1;
            if matches!(phase, Phase::Waiting | Phase::Ready) {
                *earliest = Some(earliest.map_or(at, |earliest| earliest.min(at)));
            }
        }
        stats
    }

    fn summary(&self, id: QueueId) -> Result<Option<MailSummary>, QueueError> {
        let mail = self.index.mail(id)?;
        let Some(mail) = mail else {
            return Ok(None);
        };
        let jobs = self.index.jobs(id)?;
        Ok(Some(self.with_jobs(mail, jobs)))
    }

    fn with_jobs(&self, mail: MailPlace, states: Vec<JobState>) -> MailSummary {
        let core = self.core();
        let jobs = states.into_iter().map(|state| {
            let (key, schedule) = (state.key, &core.schedule);
            let holder = schedule
                .lease_of(key)
                .map(|lease| lease.holder.agent.clone());
            JobSummary {
                state,
                phase: schedule.phase(key),
                holder,
            }
        });
        let jobs = jobs.collect();
        MailSummary { mail, jobs }
    }
}

/// What the filter allows, from where the page begins.
fn range(filter: &Filter, listing: &Listing<'_>) -> Option<(QueueId, QueueId)> {
    if filter.is_empty() {
        return None;
    }
    let (mut first, mut last) = filter.range()?;
    match listing.from {
        Some(from) if listing.newest_first => last = last.min(from),
        Some(from) => first = first.max(from),
        None => {}
    }
    (first <= last).then_some((first, last))
}
