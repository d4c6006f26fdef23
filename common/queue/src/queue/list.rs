use std::collections::BTreeMap;

use postroad_envelope::{QueueId, QueueIdPrefix, RouteClass, Timestamp};

use super::Queue;
use crate::{JobKey, JobState, MailPlace, Phase, QueueError, record::Finished};

/// Which mails to list; all conditions must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// Ids that begin so.
    pub id: Option<QueueIdPrefix>,
    /// The reverse-path, as written; empty: null.
    pub sender: Option<String>,
    /// Mails with a job for this destination.
    pub destination: Option<String>,
    /// Mails with a job in this phase.
    pub phase: Option<Phase>,
}

/// A part of a list.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Page {
    /// By ascending id, so by age.
    pub mails: Vec<MailSummary>,
    /// Where the next page begins; none if this is the last.
    pub next: Option<QueueId>,
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
    pub holder: Option<std::sync::Arc<str>>,
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

impl Queue {
    /// Mails from `from` on, at most `limit`.
    pub fn list(
        &self,
        filter: &Filter,
        from: Option<QueueId>,
        limit: usize,
    ) -> Result<Page, QueueError> {
        let first = filter
            .id
            .as_ref()
            .map_or(QueueId::from_bytes([0; 16]), QueueIdPrefix::first);
        let first = from.map_or(first, |from| from.max(first));
        let last = filter.id.as_ref().map(QueueIdPrefix::last);
        let mut page = Page::default();
        for id in self.candidates(filter, first) {
            let id = id?;
            if last.is_some_and(|last| id > last) {
                break;
            }
            if page
                .mails
                .last()
                .is_some_and(|mail| mail.mail.queue_id == id)
            {
                continue;
            }
            let Some(summary) = self.summary(id)?.filter(|mail| matches(filter, mail)) else {
                continue;
            };
            if page.mails.len() == limit {
                page.next = Some(id);
                break;
            }
            page.mails.push(summary);
        }
        Ok(page)
    }

    /// Ids by the narrowest index there is for the filter.
    fn candidates<'a>(
        &'a self,
        filter: &Filter,
        first: QueueId,
    ) -> Box<dyn Iterator<Item = Result<QueueId, QueueError>> + 'a> {
        match (&filter.sender, &filter.destination) {
            (Some(sender), _) => Box::new(self.index.by_sender(sender, first)),
            (None, Some(destination)) => Box::new(self.index.by_destination(destination, first)),
            (None, None) => Box::new(
                self.index
                    .mails(first)
                    .map(|mail| mail.map(|mail| mail.queue_id)),
            ),
        }
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

    /// Every content file that a living mail needs, for the sweep at start.
    pub fn content_files(
        &self,
    ) -> impl Iterator<Item = Result<postroad_journal::ContentRef, QueueError>> + '_ {
        let mails = self.index.mails(QueueId::from_bytes([0; 16]));
        mails.filter_map(|mail| mail.map(|mail| mail.file).transpose())
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
        let Some(mail) = self.index.mail(id)? else {
            return Ok(None);
        };
        let states = self.index.jobs(id)?;
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
        Ok(Some(MailSummary {
            mail,
            jobs: jobs.collect(),
        }))
    }
}

fn matches(filter: &Filter, summary: &MailSummary) -> bool {
    let sender = filter
        .sender
        .as_ref()
        .is_none_or(|sender| summary.mail.sender == *sender);
    let has = |test: &dyn Fn(&JobSummary) -> bool| summary.jobs.iter().any(test);
    let destination = filter.destination.as_ref();
    sender
        && destination.is_none_or(|to| has(&|job| job.state.destination == *to))
        && filter
            .phase
            .is_none_or(|phase| has(&|job| job.phase.is_some_and(|(p, _)| p == phase)))
}
