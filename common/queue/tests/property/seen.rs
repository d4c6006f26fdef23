//! What can be seen of the queue against the book, and its index against its journal.

use std::collections::{BTreeMap, BTreeSet};

use postroad_envelope::{Outcome, QueueId};
use postroad_journal::{RecordRef, SegmentNumber};
use postroad_queue::{
    CheckCursor, CheckRules, Checked as _, JobState, Ledger, Part, Phase, Progress, Stats, unmet,
};

use crate::{
    house::House,
    model::{Durable, Mail, Place, Stands},
    shapes::{SHAPES, file_of},
};

impl House {
    /// Every mail and job, the numbers, the finished ids, the content files.
    pub fn compare(&self) {
        let (queue, book) = (self.queue(), &self.book);
        let places = queue.places().map(|place| place.unwrap().queue_id);
        assert!(
            places.eq(book.living.keys().copied()),
            "a mail was lost or made up"
        );
        let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
        for (id, mail) in &book.living {
            let shown = queue.show(*id).unwrap().expect("it lives");
            let states = shown
                .jobs
                .iter()
                .map(|job| (job.state.key.number, &job.state));
            same_states(*id, mail, states);
            for (seen, job) in shown.jobs.iter().zip(mail.jobs.values()) {
                let phase = seen.phase.map(|(phase, _)| phase);
                assert_eq!(phase, phase_of(&job.place), "{} {job:?}", seen.state.key);
                if let Some(phase) = phase {
                    *numbers.entry(phase.as_str()).or_default() += 1;
                }
            }
            assert_eq!(queue.finished(*id).unwrap(), None, "{id} lives");
        }
        let Stats { jobs, by_phase, .. } = queue.stats();
        assert_eq!(jobs, book.jobs().count());
        assert_eq!(by_phase, numbers);
        for (id, ended) in &book.ended {
            let known = queue.finished(*id).unwrap();
            let window_from = queue.window_from(book.now);
            assert!(
                known.is_some() || ended.at < window_from,
                "{id} is forgotten"
            );
            assert!(
                known.is_none_or(|known| known.at == ended.at),
                "{id} {known:?} {ended:?}"
            );
        }
        self.compare_files();
    }

    /// A content file that somebody still needs is among those that are kept.
    fn compare_files(&self) {
        let in_file = |mail: &Mail| SHAPES.get(mail.shape).is_some_and(|shape| shape.in_file);
        let living = self.book.living.iter().filter(|(_, mail)| in_file(mail));
        let ended = self.book.ended.iter();
        let leaving = ended.filter(|(_, ended)| ended.leaving && in_file(&ended.mail));
        let needed = living.map(|(id, _)| id).chain(leaving.map(|(id, _)| id));
        let needed: BTreeSet<_> = needed.map(|id| file_of(*id).nonce.0).collect();
        let kept = self
            .queue()
            .content_files()
            .map(|file| file.unwrap().nonce.0);
        let kept: BTreeSet<_> = kept.collect();
        assert!(kept.is_superset(&needed));
        assert!(self.book.retire || kept == needed);
    }

    /// The index against the journal, both ways, as `postroad queue verify` does.
    pub fn verify(&self) {
        let mut ledger = Ledger::new(Part::default());
        for (location, kind, payload) in &self.log {
            let record = RecordRef {
                lsn: location.lsn,
                location: *location,
                kind: *kind,
                payload,
            };
            ledger.see(record).unwrap();
        }
        let oldest = self.log.first().map(|(location, ..)| location.segment);
        ledger.forget_before(oldest.unwrap_or(SegmentNumber(0)));
        let queue = self.queue();
        let rules = CheckRules {
            replayed_from: None,
            window_from: queue.window_from(self.book.now),
        };
        let (mut found, mut cursor) = (Vec::new(), Some(CheckCursor::start()));
        while let Some(from) = cursor {
            cursor = queue
                .check_piece(&mut ledger, &rules, from, 1000, &mut found)
                .unwrap();
        }
        found.extend(unmet(&ledger, &rules));
        for suspect in found {
            let problem = queue.problem(&suspect, &ledger, &rules).unwrap();
            assert_eq!(problem, None, "{suspect:?}");
        }
    }
}

fn phase_of(place: &Place) -> Option<Phase> {
    Some(match place {
        Place::Waiting(_) => Phase::Waiting,
        Place::Ready => Phase::Ready,
        Place::Leased { .. } => Phase::Leased,
        Place::Resuming { .. } => Phase::Resuming,
        Place::Held => Phase::Held,
        Place::Owing(_) => Phase::Owing,
        Place::HeldOwing(_) => Phase::HeldOwing,
        Place::Ended => return None,
    })
}

pub fn same_states<'a>(
    id: QueueId,
    mail: &Mail,
    states: impl Iterator<Item = (u32, &'a JobState)>,
) {
    let states: BTreeMap<u32, &JobState> = states.collect();
    assert!(
        states.keys().eq(mail.jobs.keys()),
        "the jobs of {id}: {:?}, not {:?}",
        states.keys(),
        mail.jobs.keys()
    );
    for (job, state) in mail.jobs.values().zip(states.values()) {
        job.durable.check(state);
    }
}

impl Durable {
    pub fn check(&self, state: &JobState) {
        let recipients = state.recipients.iter().zip(&self.recipients);
        let same = self.revision == state.revision.0
            && (self.class, &self.destination) == (state.class, &state.destination)
            && (&self.hold, self.priority) == (&state.hold, state.priority)
            && (!self.is_pending() || self.due == state.due)
            && (self.attempts, self.debt_since) == (state.attempts, state.debt_since)
            && (self.expires_at, self.changed_at) == (state.expires_at, state.changed_at)
            && self.recipients.len() == state.recipients.len()
            && recipients.into_iter().all(|(seen, expected)| {
                seen.index.0 == expected.index
                    && seen.owed == expected.owed
                    && stands(&seen.progress) == expected.stands
            });
        assert!(same, "expected {self:#?}\nfound {state:#?}");
    }
}

fn stands(progress: &Progress) -> Stands {
    match progress {
        Progress::Pending(_) | Progress::Done(Outcome::Delayed(_)) => Stands::Pending,
        Progress::Done(Outcome::Delivered(_) | Outcome::Expanded(_)) => Stands::Delivered,
        Progress::Done(Outcome::Relayed(_)) => Stands::Relayed,
        Progress::Done(Outcome::Failed(_)) => Stands::Failed,
        Progress::Dropped => Stands::Dropped,
    }
}
