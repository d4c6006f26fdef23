//! All living mail of a queue that does not run, as an mbox and a line of JSON for each mail; and from there back into a
//! queue that runs.
//!
//! | file | what |
//! |---|---|
//! | `queue.mbox` | the contents as received, see [`Lines`]; no header edit is applied |
//! | `envelopes.jsonl` | one [`Mail`] per line, in the order of the mbox |
//! | `export.json` | how many there are; written last: without it the export is not whole |
//!
//! Only segments and content files are read: no index is needed, nothing is changed. What cannot be read is told and left
//! out.

mod form;
mod mbox;
mod output;
mod read;

use std::ops::ControlFlow;
use std::path::Path;

use bytes::Bytes;
use form::{MailContent, MailRoute, outcome_of};
use mbox::Endings;
use output::Output;
use postroad_envelope::{
    Envelope, Filter, JobTraits, MailState, MailTraits, QueueId, QueueIdPrefix, RecipientIndex,
    Timestamp,
};
use postroad_journal::{ContentReader, ContentStore, JournalError, Reader};
use postroad_queue::{
    Content, JobState, Known, Ledger, MailRecord, Part, Progress, RecipientState, record,
};

use form::MailRecipient;
pub use form::{Mail, Unfit};
pub use read::{Export, ExportError};

use crate::{
    clock,
    store::{Offline, OfflineError, chain, damage_text, miscount_text, recovery_problems},
};

/// Octets of content in memory at one time; smaller contents lie in a record and are there once.
const PIECE: usize = 64 << 10;
/// Problems that are told one by one.
const MOST_TOLD: usize = 1_000;
/// Why recipients are held of whom the journal says nothing any more.
const STATE_DAMAGED: &str = "its state in the journal is damaged; it may have been delivered";

/// Which mails.
#[derive(Debug, Clone)]
pub struct Which {
    /// Mails for which this holds.
    pub filter: Filter,
    /// With ids that begin so; none: any.
    pub prefixes: Vec<QueueIdPrefix>,
}

/// How far an export is.
#[derive(Debug, Clone, Copy)]
pub struct ExportProgress {
    /// Octets of the journal and of contents that were read.
    pub done: u64,
    /// Octets there are.
    pub total: u64,
    /// Mails written.
    pub mails: u64,
}

/// What was exported.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exported {
    /// Mails written.
    pub mails: u64,
    /// Octets of their contents as received.
    pub octets: u64,
    /// What could not be read, and is not in the export: the first 1,000.
    pub problems: Vec<String>,
    /// How many there are.
    pub problem_count: u64,
}

impl Offline {
    /// Writes all mail that lives in the journal and is meant into a new folder, or one that is empty.
    pub fn export(
        &self,
        to: &Path,
        which: &Which,
        each: &mut dyn FnMut(ExportProgress) -> ControlFlow<()>,
    ) -> Result<Exported, OfflineError> {
        let output = Output::create(to)?;
        let reader = self.journal.reader();
        let segments = reader.segments();
        let total = segments.iter().map(|one| u64::from(one.bytes_used)).sum();
        let mut run = Run {
            contents: ContentStore::look(&self.folder),
            reader,
            which,
            each,
            output,
            exported: Exported::default(),
            now: clock::now(),
            done: 0,
            total,
        };
        recovery_problems(&self.journal, "the journal")
            .into_iter()
            .for_each(|what| run.problem(what));
        match run.all() {
            Ok(()) => {
                let Run {
                    output, exported, ..
                } = run;
                output.finish(&exported)?;
                Ok(exported)
            }
            Err(error) => {
                run.output.discard();
                Err(error)
            }
        }
    }
}

struct Run<'a> {
    reader: Reader,
    contents: ContentStore,
    which: &'a Which,
    each: &'a mut dyn FnMut(ExportProgress) -> ControlFlow<()>,
    output: Output,
    exported: Exported,
    now: Timestamp,
    done: u64,
    total: u64,
}

/// A content that is whole.
enum Source {
    Inline(Bytes),
    File(ContentReader),
}

impl Source {
    fn len(&self) -> u64 {
        match self {
            Self::Inline(octets) => u64::try_from(octets.len()).unwrap_or(u64::MAX),
            Self::File(reader) => reader.content().len,
        }
    }

    fn piece(&self, at: u64) -> Result<Bytes, JournalError> {
        match self {
            Self::Inline(octets) => {
                let at = usize::try_from(at).unwrap_or(usize::MAX).min(octets.len());
                let end = at.saturating_add(PIECE).min(octets.len());
                Ok(octets.slice(at..end))
            }
            Self::File(reader) => {
                let piece = u64::try_from(PIECE).unwrap_or(u64::MAX);
                reader.read_range(at..at.saturating_add(piece))
            }
        }
    }
}

impl Run<'_> {
    fn all(&mut self) -> Result<(), OfflineError> {
        let mut parts = vec![Part::default()];
        let mut is_first = true;
        while let Some(part) = parts.pop() {
            let mut ledger = Ledger::new(part);
            self.walk(&mut ledger, is_first)?;
            if let Some(counts) = ledger.miscounted() {
                self.problem(miscount_text(counts));
            }
            let left_out = ledger.take_left_out();
            let again = u64::try_from(left_out.len()).unwrap_or(u64::MAX);
            if is_first {
                self.total = self.total.saturating_mul(again.saturating_add(1));
            }
            parts.extend(left_out);
            is_first = false;
            for id in ledger.ids() {
                if let Some(known) = ledger.mail(id) {
                    self.mail(id, known)?;
                }
            }
        }
        Ok(())
    }

    fn walk(&mut self, ledger: &mut Ledger, is_first: bool) -> Result<(), OfflineError> {
        for segment in self.reader.segments() {
            let mut unreadable = Vec::new();
            let walked = self.reader.replay_segment(segment.number, |record| {
                if let Err(error) = ledger.see(record) {
                    unreadable.push(format!("record {}: {error}", record.lsn));
                }
                ControlFlow::Continue(())
            });
            let damage = match walked {
                Ok(walked) => walked.damage,
                Err(error) => {
                    unreadable.push(format!("segment {}: {}", segment.number, chain(&error)));
                    Vec::new()
                }
            };
            if is_first {
                let damage = damage.iter().map(|one| damage_text("the journal", one));
                damage.chain(unreadable).for_each(|what| self.problem(what));
            }
            self.done += u64::from(segment.bytes_used);
            self.tell()?;
        }
        Ok(())
    }

    fn mail(&mut self, id: QueueId, known: &Known) -> Result<(), OfflineError> {
        let read = self.reader.read(&known.location);
        let record = match read.map(MailRecord::decode) {
            Ok(Ok(record)) => record,
            Ok(Err(error)) => return self.left_out(id, &error),
            Err(error) => return self.left_out(id, &error),
        };
        let states = self.states(id, known, &record);
        if !self.which.means(&record, &states, self.now) {
            return Ok(());
        }
        let source = match record.content {
            Content::Inline(octets) => Source::Inline(octets),
            Content::File(file) => match self.contents.reader(&file) {
                Ok(reader) => Source::File(reader),
                Err(error) => return self.left_out(id, &error),
            },
        };
        self.total = self.total.saturating_add(source.len());
        let endings = self.look(&source, record.digest.crc32c);
        let lines = match endings {
            Ok(endings) => endings.finish(),
            Err(error) => return self.left_out(id, &error),
        };
        let mut content = MailContent {
            offset: 0,
            length: 0,
            lines,
            size: source.len(),
            crc32c: record.digest.crc32c,
        };
        let envelope = record.envelope;
        self.output.begin(&envelope, lines)?;
        let mut at = 0;
        while at < source.len() {
            let piece = match source.piece(at) {
                Ok(piece) => piece,
                Err(error) => {
                    self.output.take_back()?;
                    return self.left_out(id, &error);
                }
            };
            self.output.content(&piece)?;
            at += u64::try_from(piece.len()).unwrap_or(u64::MAX);
            self.done += u64::try_from(piece.len()).unwrap_or(u64::MAX);
            self.tell()?;
        }
        (content.offset, content.length) = self.output.end()?;
        let recipients = self.recipients(id, &envelope, &states);
        self.output
            .line(&Mail::new(&envelope, content, recipients))?;
        self.exported.mails += 1;
        self.exported.octets += source.len();
        self.tell()
    }

    /// Reads all of a content: it is whole, or an error.
    fn look(&self, source: &Source, crc32c: u32) -> Result<Endings, JournalError> {
        let (mut endings, mut crc, mut at) = (Endings::default(), 0, 0);
        while at < source.len() {
            let piece = source.piece(at)?;
            endings.push(&piece);
            crc = crc32c::crc32c_append(crc, &piece);
            at += u64::try_from(piece.len()).unwrap_or(u64::MAX);
        }
        // That of a content in its record was compared as that was read.
        if let (Source::File(reader), true) = (source, crc != crc32c) {
            reader.verify()?;
        }
        Ok(endings)
    }

    /// The newest states of its jobs, as far as they can be read.
    fn states(&mut self, id: QueueId, known: &Known, record: &MailRecord) -> Vec<JobState> {
        let mut states = Vec::new();
        for job in known.jobs.iter() {
            if job.location == known.location {
                let first = record.jobs.iter().find(|one| one.key.number == job.number);
                states.extend(first.cloned());
                continue;
            }
            let read = self.reader.read(&job.location);
            match read.map(|payload| record::decode_state(&payload)) {
                Ok(Ok(state)) => states.push(state),
                Ok(Err(error)) => self.problem(format!("mail {id}: {error}")),
                Err(error) => self.problem(format!("mail {id}: {}", chain(&error))),
            }
        }
        states
    }

    fn recipients(
        &mut self,
        id: QueueId,
        envelope: &Envelope,
        states: &[JobState],
    ) -> Vec<MailRecipient> {
        let mut lost = 0_u32;
        let recipients = envelope.recipients.iter().map(|recipient| {
            let line = MailRecipient::new(recipient);
            match state_of(states, recipient.index) {
                Some((job, state)) => line.standing_at(job, state, self.now),
                None => {
                    lost += 1;
                    MailRecipient {
                        state: "held".to_owned(),
                        hold: Some(STATE_DAMAGED.to_owned()),
                        priority: envelope.priority,
                        ..line
                    }
                }
            }
        });
        let recipients = recipients.collect();
        if lost > 0 {
            self.problem(format!(
                "mail {id}: where {lost} of its recipients stand cannot be read; they are exported as held"
            ));
        }
        recipients
    }

    fn left_out(&mut self, id: QueueId, error: &dyn std::error::Error) -> Result<(), OfflineError> {
        self.problem(format!("mail {id} is left out: {}", chain(error)));
        Ok(())
    }

    fn problem(&mut self, what: String) {
        self.exported.problem_count += 1;
        if self.exported.problems.len() < MOST_TOLD {
            self.exported.problems.push(what);
        }
    }

    fn tell(&mut self) -> Result<(), OfflineError> {
        let told = (self.each)(ExportProgress {
            done: self.done,
            total: self.total.max(self.done),
            mails: self.exported.mails,
        });
        match told {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(OfflineError::BrokenOff),
        }
    }
}

fn state_of(states: &[JobState], index: RecipientIndex) -> Option<(&JobState, &RecipientState)> {
    states.iter().find_map(|job| {
        let mut recipients = job.recipients.iter();
        let state = recipients.find(|one| one.index == index)?;
        Some((job, state))
    })
}

impl MailRecipient {
    fn standing_at(self, job: &JobState, state: &RecipientState, now: Timestamp) -> Self {
        let waits = state.is_pending() && job.hold.is_none();
        Self {
            state: match (&state.progress, stands(job, now)) {
                (Progress::Pending(_), stands) => stands.map_or("due", MailState::as_str),
                (Progress::Dropped, _) => "dropped",
                (Progress::Done(outcome), _) => outcome.action(),
            }
            .to_owned(),
            attempts: job.attempts,
            next_attempt: waits.then(|| job.due.to_string()),
            hold: job.hold.clone().filter(|_| state.is_pending()),
            priority: job.priority,
            route: MailRoute {
                class: job.class.to_string(),
                destination: job.destination.clone(),
                next_hop: job.next_hop.as_ref().map(ToString::to_string),
                rule: job.rule.clone(),
            },
            outcome: match &state.progress {
                Progress::Pending(report) => {
                    report.as_ref().map(|report| outcome_of("delayed", report))
                }
                Progress::Done(outcome) => Some(outcome_of(outcome.action(), outcome.report())),
                Progress::Dropped => None,
            },
            dropped: matches!(state.progress, Progress::Dropped),
            owed: state.owed,
            ..self
        }
    }
}

/// None: it has ended.
fn stands(job: &JobState, now: Timestamp) -> Option<MailState> {
    match job {
        job if job.has_ended() => None,
        job if job.hold.is_some() && job.is_pending() => Some(MailState::Held),
        job if job.is_pending() && job.due > now => Some(MailState::Delayed),
        _ => Some(MailState::Due),
    }
}

impl Which {
    /// As the running queue would choose it.
    fn means(&self, record: &MailRecord, states: &[JobState], now: Timestamp) -> bool {
        let envelope = &record.envelope;
        let id = envelope.queue_id;
        let begins = |prefix: &QueueIdPrefix| (prefix.first()..=prefix.last()).contains(&id);
        if !self.prefixes.is_empty() && !self.prefixes.iter().any(begins) {
            return false;
        }
        let sender = envelope.reverse_path.to_string();
        let mail = MailTraits {
            queue_id: id,
            sender: &sender,
            size: record.content.len(),
            tenant: &envelope.tenant,
            account: envelope.account.as_deref(),
            tags: &envelope.tags,
        };
        let fits = |job: &JobState| {
            let traits = JobTraits {
                destination: &job.destination,
                state: stands(job, now),
                hold: job.hold.as_deref(),
            };
            let reason = || job.reason().unwrap_or_default();
            self.filter.fits_job(&traits, reason)
        };
        self.filter.fits_mail(&mail) && (!self.filter.asks_jobs() || states.iter().any(fits))
    }
}
