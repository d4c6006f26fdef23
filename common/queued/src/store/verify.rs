//! Everything on the disk is read and compared: each record, each content file, the index against the journal both ways.
//!
//! What the journal says is gathered in a [`Ledger`], which is bounded; a queue with more mails than fit is walked in
//! several passes. Where the queue runs meanwhile, what does not fit is only a suspicion: the ledger catches up with the
//! journal and looks again, and only what stays wrong while nothing is told of the mail is a problem.

use std::{
    ops::ControlFlow,
    thread,
    time::{Duration, Instant},
};

use postroad_envelope::{QueueId, Timestamp};
use postroad_journal::{ContentStore, Damage, JournalError, Lsn, Reader, Replay, SegmentNumber};
use postroad_queue::{CheckCursor, CheckRules, Checked, Ledger, Part, QueueError, Suspect, unmet};
use postroad_queue_client::VerifyProgress;

/// Entries of the index looked at in one piece.
const PIECE: usize = 500;
/// A running queue keeps at least half of a processor for itself.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);
/// Between two looks at what does not fit.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// What does not fit so often in a row, while nothing is told of it, is a problem.
const LOOKS: u32 = 3;
/// Beyond so many looks a mail that changes all the time is let be.
const MOST_LOOKS: u32 = 50;
/// Problems that are told one by one.
const MOST_TOLD: u64 = 1_000;
const TELL_EVERY: Duration = Duration::from_millis(200);

/// Who hears of the progress; may break it off.
pub(super) type Sink<'a> = &'a mut dyn FnMut(VerifyProgress) -> ControlFlow<()>;

/// What is looked at.
pub(super) struct Sources<'a> {
    pub journal: Reader,
    pub contents: ContentStore,
    /// None: there is none, or it does not open.
    pub index: Option<&'a dyn Checked>,
    /// Octets of the index on the disk.
    pub index_octets: u64,
    /// Journals beside: by the name of the stage.
    pub others: Vec<(&'static str, Reader)>,
    /// From which record on the next start replays; none if the queue runs.
    pub replayed_from: Option<Lsn>,
    /// Since when finished ids are known, asked anew for each comparison: time goes on.
    pub window_from: Box<dyn Fn() -> Timestamp + 'a>,
    /// The queue runs: changes meanwhile are no problems.
    pub is_live: bool,
}

/// It was broken off.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error("nobody listens any more")]
    BrokenOff,
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Index(#[from] QueueError),
}

pub(super) struct Verify<'a> {
    from: Sources<'a>,
    sink: Sink<'a>,
    now: VerifyProgress,
    told_at: Instant,
    piece_at: Instant,
    problems: u64,
    /// Segments of the queue's journal that were read, whatever the pass.
    first_pass: bool,
}

impl<'a> Verify<'a> {
    pub fn new(from: Sources<'a>, sink: Sink<'a>) -> Self {
        let octets = |reader: &Reader| -> u64 {
            let segments = reader.segments();
            segments.iter().map(|one| u64::from(one.bytes_used)).sum()
        };
        let others: u64 = from.others.iter().map(|(_, reader)| octets(reader)).sum();
        let total = octets(&from.journal) + others + from.index_octets;
        Self {
            from,
            sink,
            now: VerifyProgress {
                total,
                ..VerifyProgress::default()
            },
            told_at: Instant::now(),
            piece_at: Instant::now(),
            problems: 0,
            first_pass: true,
        }
    }

    /// Adds what was found before.
    pub fn problem(&mut self, what: String) {
        self.problems += 1;
        match self.problems {
            ..=MOST_TOLD => self.now.problems.push(what),
            _ if self.problems == MOST_TOLD + 1 => self
                .now
                .problems
                .push("further problems are counted and not told".to_owned()),
            _ => {}
        }
    }

    /// Tells how many problems there are.
    pub fn run(mut self) -> Result<u64, Ended> {
        let mut parts = vec![Part::default()];
        while let Some(part) = parts.pop() {
            let mut ledger = Ledger::new(part);
            let mut last = SegmentNumber::default();
            self.walk_journal(&mut ledger, &mut last)?;
            if let (false, Some(counts)) = (self.from.is_live, ledger.miscounted()) {
                self.problem(miscount_text(counts));
            }
            let left_out = ledger.take_left_out();
            let again: u64 = self.octets() * left_out.len() as u64;
            self.now.total += again;
            parts.extend(left_out);
            let mut suspects = self.walk_contents(&ledger)?;
            suspects.extend(self.walk_index(&mut ledger)?);
            self.settle(&mut ledger, suspects)?;
            self.first_pass = false;
        }
        for (stage, reader) in std::mem::take(&mut self.from.others) {
            self.walk_other(stage, &reader)?;
        }
        if self.problems > MOST_TOLD {
            self.now
                .problems
                .push(format!("{} problems in all", self.problems));
        }
        self.now.finished = true;
        self.now.done = self.now.total;
        self.tell()?;
        Ok(self.problems)
    }

    fn octets(&self) -> u64 {
        let segments = self.from.journal.segments();
        segments.iter().map(|one| u64::from(one.bytes_used)).sum()
    }

    /// All segments, also those begun meanwhile.
    fn walk_journal(&mut self, ledger: &mut Ledger, last: &mut SegmentNumber) -> Result<(), Ended> {
        self.now.stage = "journal".to_owned();
        loop {
            let segments = self.from.journal.segments();
            let oldest = segments.first().map(|segment| segment.number);
            let Some(next) = segments.into_iter().find(|one| one.number > *last) else {
                // Those given up while they were read or before: what lived in them was met further on.
                oldest
                    .into_iter()
                    .for_each(|oldest| ledger.forget_before(oldest));
                return Ok(());
            };
            let mut unreadable = Vec::new();
            let walked = self.from.journal.replay_segment(next.number, |record| {
                if let Err(error) = ledger.see(record) {
                    unreadable.push(format!(
                        "record {} in segment {}: {error}",
                        record.lsn, record.location.segment
                    ));
                }
                ControlFlow::Continue(())
            });
            match walked {
                Ok(walked) if self.first_pass => {
                    self.damaged("the journal", &walked);
                    unreadable.into_iter().for_each(|what| self.problem(what));
                }
                Ok(_) => {}
                Err(JournalError::NoSuchSegment(_)) if self.from.is_live => {}
                Err(error) => self.problem(format!("segment {}: {}", next.number, chain(&error))),
            }
            *last = next.number;
            self.now.done += u64::from(next.bytes_used);
            self.now.mails = self.now.mails.max(ledger.len() as u64);
            self.piece()?;
            if !next.sealed {
                // More may be appended to it once it was read: what follows is met by number when the ledger catches up.
                return Ok(());
            }
        }
    }

    fn damaged(&mut self, of: &str, walked: &Replay) {
        for damage in &walked.damage {
            if damage.fresh && damage.copy.is_some() {
                super::damage::tell_range(of, damage);
            }
            self.problem(damage_text(of, damage));
        }
    }

    fn walk_contents(&mut self, ledger: &Ledger) -> Result<Vec<Suspect>, Ended> {
        self.now.stage = "content".to_owned();
        let with_file: Vec<QueueId> = ledger
            .ids()
            .into_iter()
            .filter(|id| ledger.mail(*id).is_some_and(|known| known.file.is_some()))
            .collect();
        let octets = |id: &QueueId| {
            let file = ledger.mail(*id).and_then(|known| known.file.as_deref());
            file.map_or(0, |file| file.len)
        };
        self.now.total += with_file.iter().map(octets).sum::<u64>();
        let mut suspects = Vec::new();
        for id in with_file {
            if self.content_problem(id, ledger).is_some() {
                suspects.push(Suspect::Content(id));
            }
            self.now.done += octets(&id);
            self.piece()?;
        }
        Ok(suspects)
    }

    fn content_problem(&self, id: QueueId, ledger: &Ledger) -> Option<String> {
        let file = ledger.mail(id)?.file.as_deref()?;
        let read = self.from.contents.reader(file);
        match read.and_then(|reader| reader.verify()) {
            Ok(()) => None,
            Err(JournalError::Gone) => Some(format!(
                "mail {id}: its content file {} is not there",
                file.nonce
            )),
            Err(error) => Some(format!("mail {id}: {}", chain(&error))),
        }
    }

    fn walk_index(&mut self, ledger: &mut Ledger) -> Result<Vec<Suspect>, Ended> {
        let Some(index) = self.from.index else {
            return Ok(Vec::new());
        };
        self.now.stage = "index".to_owned();
        let rules = self.rules();
        let mut suspects = Vec::new();
        let mut cursor = Some(CheckCursor::start());
        // Its length in entries is not known; its octets are spread over twice the mails.
        let (share, mut left) = (self.share(ledger), self.from.index_octets);
        while let Some(at) = cursor {
            cursor = index.check_piece(ledger, &rules, at, PIECE, &mut suspects)?;
            let step = if self.first_pass {
                share.min(left / 2)
            } else {
                0
            };
            left -= step;
            self.now.done += step;
            self.piece()?;
        }
        if self.first_pass {
            self.now.done += left;
        }
        let unmet = unmet(ledger, &rules);
        for some in unmet.chunks(PIECE) {
            for suspect in some {
                if index.problem(suspect, ledger, &rules)?.is_some() {
                    suspects.push(suspect.clone());
                }
            }
            self.piece()?;
        }
        Ok(suspects)
    }

    fn share(&self, ledger: &Ledger) -> u64 {
        let pieces = (ledger.len() * 5 / PIECE) as u64 + 1;
        self.from.index_octets / pieces
    }

    fn rules(&self) -> CheckRules {
        CheckRules {
            replayed_from: self.from.replayed_from,
            window_from: (self.from.window_from)(),
        }
    }

    fn still_wrong(&self, suspect: &Suspect, ledger: &Ledger) -> Result<Option<String>, Ended> {
        match (suspect, self.from.index) {
            (Suspect::Content(id), _) => Ok(self.content_problem(*id, ledger)),
            (suspect, Some(index)) => Ok(index.problem(suspect, ledger, &self.rules())?),
            (_, None) => Ok(None),
        }
    }

    /// Which suspects are problems.
    fn settle(&mut self, ledger: &mut Ledger, suspects: Vec<Suspect>) -> Result<(), Ended> {
        if !self.from.is_live {
            for suspect in suspects {
                if let Some(problem) = self.still_wrong(&suspect, ledger)? {
                    self.problem(problem);
                }
            }
            return self.tell();
        }
        let mut left: Vec<(Suspect, u32)> = suspects.into_iter().map(|one| (one, 0)).collect();
        for _ in 0..MOST_LOOKS {
            if left.is_empty() {
                break;
            }
            self.catch_up(ledger)?;
            let mut wrong = Vec::new();
            for (suspect, looks) in left {
                if let Some(problem) = self.still_wrong(&suspect, ledger)? {
                    let newest = newest(&suspect, ledger);
                    wrong.push((suspect, looks + 1, newest, problem));
                }
            }
            // What was told of a mail while it was looked at makes that look worthless.
            self.catch_up(ledger)?;
            left = Vec::new();
            for (suspect, looks, before, problem) in wrong {
                match newest(&suspect, ledger) {
                    after if after != before => left.push((suspect, 0)),
                    _ if looks >= LOOKS => self.problem(problem),
                    _ => left.push((suspect, looks)),
                }
            }
            self.tell()?;
            thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }

    /// Reads the end of the journal again; records met before change nothing.
    fn catch_up(&self, ledger: &mut Ledger) -> Result<(), Ended> {
        let segments = self.from.journal.segments();
        let oldest = segments.first().map(|segment| segment.number);
        let from = ledger.last_seen().next();
        self.from.journal.replay(from, |record| {
            // What cannot be read was told already, or the next verification tells it.
            let _ = ledger.see(record);
            ControlFlow::Continue(())
        })?;
        oldest
            .into_iter()
            .for_each(|oldest| ledger.forget_before(oldest));
        Ok(())
    }

    fn walk_other(&mut self, stage: &'static str, reader: &Reader) -> Result<(), Ended> {
        self.now.stage = stage.to_owned();
        for segment in reader.segments() {
            let walked = reader.replay_segment(segment.number, |_| ControlFlow::Continue(()));
            match walked {
                Ok(walked) => self.damaged(&format!("the {stage}"), &walked),
                Err(JournalError::NoSuchSegment(_)) if self.from.is_live => {}
                Err(error) => self.problem(format!(
                    "segment {} of the {stage}: {}",
                    segment.number,
                    chain(&error)
                )),
            }
            self.now.done += u64::from(segment.bytes_used);
            self.piece()?;
        }
        Ok(())
    }

    /// After each piece of work: tells now and then, and leaves a running queue its share of the processor.
    fn piece(&mut self) -> Result<(), Ended> {
        if self.from.is_live {
            thread::sleep(self.piece_at.elapsed().min(LONGEST_PAUSE));
        }
        self.piece_at = Instant::now();
        if self.told_at.elapsed() >= TELL_EVERY || !self.now.problems.is_empty() {
            self.tell()?;
        }
        Ok(())
    }

    fn tell(&mut self) -> Result<(), Ended> {
        self.told_at = Instant::now();
        self.now.total = self.now.total.max(self.now.done);
        let now = self.now.clone();
        self.now.problems.clear();
        match (self.sink)(now) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Ended::BrokenOff),
        }
    }
}

/// What the count of a checkpoint tells, for a person.
pub(crate) fn miscount_text((expected, found): (u64, u64)) -> String {
    format!(
        "by the count of the last checkpoint {expected} jobs should live, and the journal tells of {found}: records are missing"
    )
}

/// Where damage is, for a person.
pub(crate) fn damage_text(of: &str, damage: &Damage) -> String {
    let Damage {
        segment,
        start,
        end,
        lsn_before,
        lsn_after,
        ..
    } = damage;
    let after = lsn_after.map_or_else(
        || "the end of the segment".to_owned(),
        |lsn| format!("record {lsn}"),
    );
    format!(
        "segment {segment} of {of}: octets {start} to {end} are damaged, between record {lsn_before} and {after}"
    )
}

fn newest(suspect: &Suspect, ledger: &Ledger) -> Option<Lsn> {
    ledger.newest(suspect.queue_id()?)
}

/// An error with its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}
