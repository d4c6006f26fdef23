use std::collections::HashMap;

use rand::{RngExt, SeedableRng, rngs::SmallRng};

use super::*;
use crate::{
    JobFacts, JobState, SenderPrint, Wait,
    queue::{Change, MailFacts},
    record::EncodedState,
    samples::{at, id, job_state, key},
};

fn index(folder: &Path) -> (Index, Former) {
    Index::new(open(folder, 1 << 20, at(0)).unwrap(), false)
}

fn place(lsn: u64) -> Location {
    Location {
        segment: SegmentNumber(1),
        offset: 0,
        len: 1,
        lsn: Lsn(lsn),
    }
}

fn mail(number: u8) -> Change {
    Change::Mail(MailFacts {
        queue_id: id(number),
        sender: "alice@demo.test".to_owned(),
        print: SenderPrint::of("alice@demo.test"),
        received_at: at(0),
        recipients: 1,
        digest: Digest::default(),
        file: None,
        tenant: "default".to_owned(),
        account: None,
        tags: Vec::new(),
        jobs: vec![job_state(number, 1).into()],
        is_counted: false,
    })
}

fn keys_of(index: &Index) -> usize {
    let t = &index.trees;
    [&t.mail, &t.job, &t.done, &t.ended]
        .iter()
        .map(|tree| tree.len())
        .sum()
}

#[test]
fn a_mail_costs_two_keys_and_one_when_it_has_finished() {
    let folder = tempfile::tempdir().unwrap();
    let (index, _) = index(folder.path());
    index.apply(place(1), &mail(1)).unwrap();
    assert_eq!(keys_of(&index), 2);
    let delayed =
        job_state(1, 1).settled(Vec::new(), crate::TakenOver::default(), Some(at(9)), at(1));
    index
        .apply(place(2), &Change::State(Arc::new(delayed.clone().into())))
        .unwrap();
    assert_eq!(keys_of(&index), 2);
    let done = index
        .apply(
            place(3),
            &Change::State(Arc::new(delayed.dropped(at(2)).into())),
        )
        .unwrap();
    assert_eq!(done.unwrap().finished.queue_id, id(1));
    assert_eq!((keys_of(&index), index.trees.done.len()), (1, 1));
}

#[test]
fn the_schedule_is_told_of_living_jobs_and_their_senders() {
    let folder = tempfile::tempdir().unwrap();
    let (index, _) = index(folder.path());
    let told =
        |index: &Index| -> Vec<JobFacts> { index.living_jobs().map(Result::unwrap).collect() };
    index.apply(place(1), &mail(1)).unwrap();
    index.apply(place(2), &mail(2)).unwrap();
    let states = [
        job_state(1, 1).settled(Vec::new(), crate::TakenOver::default(), Some(at(9)), at(1)),
        job_state(2, 1).held(Some("why".to_owned()), at(1)),
    ];
    for state in &states {
        let change = Change::State(Arc::new(state.clone().into()));
        index.apply(place(3), &change).unwrap();
    }
    let sender = SenderPrint::of("<Alice@DEMO.test>");
    let expected = states.map(|state| JobFacts {
        sender,
        ..JobFacts::of(&state).unwrap()
    });
    assert_eq!(told(&index), expected);
    assert_eq!(
        expected.map(|facts| facts.wait),
        [Wait::Due(at(9)), Wait::Hold]
    );
    let end = Change::State(Arc::new(job_state(1, 1).dropped(at(2)).into()));
    index.apply(place(4), &end).unwrap();
    assert_eq!(told(&index).len(), 1);
}

#[test]
fn a_mail_copied_forward_gives_its_jobs_its_sender_in_a_rebuild() {
    let folder = tempfile::tempdir().unwrap();
    let (index, _) = index(folder.path());
    let state = Change::State(Arc::new(job_state(1, 1).into()));
    // Of a record before, whose mail went with an earlier segment.
    index.apply(place(1), &state).unwrap();
    let Change::Mail(facts) = mail(1) else {
        unreachable!()
    };
    let moved = MailFacts {
        jobs: Vec::new(),
        ..facts
    };
    index.apply(place(2), &Change::Mail(moved)).unwrap();
    index.apply(place(3), &state).unwrap();
    let job = index.living_jobs().next().unwrap().unwrap();
    assert_eq!(job.sender, SenderPrint::of("alice@demo.test"));
}

#[test]
fn half_a_finish_is_completed_by_its_replay() {
    let folder = tempfile::tempdir().unwrap();
    let (index, _) = index(folder.path());
    let job = |number| {
        let state = job_state(1, 1);
        crate::JobState {
            key: key(1, number),
            of_jobs: 2,
            ..state
        }
    };
    let Change::Mail(facts) = mail(1) else {
        unreachable!()
    };
    index
        .apply(
            place(1),
            &Change::Mail(MailFacts {
                jobs: vec![job(0).into(), job(1).into()],
                ..facts
            }),
        )
        .unwrap();
    let end = |number| Change::State(Arc::new(job(number).dropped(at(2)).into()));
    assert_eq!(index.apply(place(2), &end(0)).unwrap(), None);
    // Of the finish that the other end brought about, a crash kept only the beginning.
    let finished = Finished {
        queue_id: id(1),
        at: at(2),
        digest: Digest::default(),
    };
    index
        .trees
        .done
        .insert(id(1).to_bytes(), finished_value(&finished))
        .unwrap();
    index.trees.job.remove(keys::job(key(1, 0))).unwrap();
    assert!(index.apply(place(3), &end(1)).unwrap().is_some());
    assert_eq!((keys_of(&index), index.trees.done.len()), (1, 1));
}

#[test]
fn a_mail_has_no_jobs_of_a_former_life_of_its_id() {
    let folder = tempfile::tempdir().unwrap();
    let (index, _) = index(folder.path());
    let former = |number| JobState {
        key: key(1, number),
        of_jobs: 3,
        ..job_state(1, 1)
    };
    let state = |state: JobState| Change::State(Arc::new(state.into()));
    let known = || {
        let jobs = index.jobs(id(1)).unwrap();
        jobs.iter().map(|job| job.key.number).collect::<Vec<_>>()
    };
    // What a rebuild meets once its record has gone with an earlier segment.
    let delayed = former(2).rescheduled(at(9), at(1));
    index.apply(place(1), &state(delayed.clone())).unwrap();
    assert_eq!(known(), [2]);
    index
        .apply(place(2), &state(delayed.dropped(at(2))))
        .unwrap();
    assert!(known().is_empty(), "of no mail");
    // The id again, long after it was forgotten; and a replay of both over what is known of it.
    let Change::Mail(facts) = mail(1) else {
        unreachable!()
    };
    let again = JobState {
        arrived_at: at(90_000),
        ..job_state(1, 1)
    };
    let facts = MailFacts {
        received_at: at(90_000),
        jobs: vec![again.into()],
        ..facts
    };
    index.apply(place(3), &Change::Mail(facts)).unwrap();
    let end = former(2).dropped(at(2));
    assert_eq!(index.apply(place(2), &state(end)).unwrap(), None);
    assert_eq!(known(), [0]);
}

#[test]
fn a_checkpoint_is_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let (first, _) = index(folder.path());
    first.apply(place(1), &mail(1)).unwrap();
    first.apply(place(2), &Change::Epoch(7)).unwrap();
    assert_eq!(first.checkpoint_lsn().unwrap(), Lsn(0));
    first.checkpoint(Lsn(2)).unwrap();
    drop(first);
    let (second, former) = index(folder.path());
    assert_eq!(former, Former::Kept);
    assert_eq!(
        (second.checkpoint_lsn().unwrap(), second.epoch().unwrap()),
        (Lsn(2), 7)
    );
    assert_eq!(second.job(key(1, 0)).unwrap(), Some(job_state(1, 1)));
    assert_eq!(second.mail(id(1)).unwrap().unwrap().location, place(1));
}

#[test]
fn an_index_of_another_format_goes_and_is_no_corruption() {
    let folder = tempfile::tempdir().unwrap();
    let (first, _) = index(folder.path());
    first.apply(place(1), &mail(1)).unwrap();
    let other = FORMAT.wrapping_sub(1).to_be_bytes();
    first.trees.meta.insert("format", &other).unwrap();
    drop(first);
    let (second, former) = index(folder.path());
    assert_eq!(former, Former::Outdated);
    assert_eq!(keys_of(&second), 0);
    drop(second);
    // The new one has its format at once.
    assert_eq!(index(folder.path()).1, Former::Kept);
    for name in ["quarantine", "index.old"] {
        assert!(!folder.path().join(name).exists(), "{name}");
    }
}

#[test]
fn an_index_with_other_segments_is_of_another_format() {
    let folder = tempfile::tempdir().unwrap();
    let segments = 4 * open::SEGMENT_SIZE;
    let before = Raw::open(&folder.path().join("index"), 1 << 20, segments).unwrap();
    before.db.flush().unwrap();
    drop(before);
    assert_eq!(index(folder.path()).1, Former::Outdated);
    assert!(!folder.path().join("quarantine").exists());
    assert_eq!(index(folder.path()).1, Former::Kept);
}

#[test]
fn an_index_whose_format_makes_no_sense_goes_to_quarantine() {
    let folder = tempfile::tempdir().unwrap();
    let (first, _) = index(folder.path());
    first.trees.meta.insert("format", b"?").unwrap();
    drop(first);
    let (second, former) = index(folder.path());
    let aside = std::fs::read_dir(folder.path().join("quarantine"));
    let aside = aside.unwrap().next().unwrap().unwrap().path();
    assert!(aside.join("db").exists());
    assert_eq!(former, Former::Quarantined(aside));
    assert_eq!(keys_of(&second), 0);
}

#[test]
fn an_index_in_use_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (_first, _) = index(folder.path());
    let closing = std::time::Duration::ZERO;
    assert!(matches!(
        super::open::open_within(folder.path(), 1 << 20, at(0), closing),
        Err(QueueError::Io { .. })
    ));
    assert!(!folder.path().join("quarantine").exists());
}

/// Records and what they make of an index, some of which sled has when the power goes.
struct Life {
    index: Index,
    records: Vec<(Location, Change)>,
    /// How many of them the last checkpoint covers.
    covered: usize,
    /// The jobs of living mails, and of those that have finished and may be retired again after a crash.
    living: HashMap<u8, Vec<JobState>>,
    finished: HashMap<u8, Vec<JobState>>,
    /// The number of the last one.
    accepted: u8,
    random: SmallRng,
}

impl Life {
    fn begin(folder: &Path, seed: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let opened = open(folder, 1 << 20, at(0)).unwrap();
        opened.trees.recent.narrow(random.random_range(0..12), 3000);
        Self {
            index: Index::new(opened, true).0,
            records: Vec::new(),
            covered: 0,
            living: HashMap::new(),
            finished: HashMap::new(),
            accepted: 0,
            random,
        }
    }

    fn apply(&mut self, change: Change) {
        let location = place(u64::try_from(self.records.len()).unwrap() + 1);
        self.index.apply(location, &change).unwrap();
        self.records.push((location, change));
    }

    fn accept(&mut self, number: u8) {
        let of_jobs = self.random.random_range(1..=2);
        let job = |n| JobState {
            key: key(number, n),
            of_jobs,
            ..job_state(number, 1)
        };
        let jobs: Vec<JobState> = (0..of_jobs).map(job).collect();
        self.apply(with_jobs(number, jobs.clone()));
        self.living.insert(number, jobs);
    }

    /// As if its segment were given up.
    fn move_forward(&mut self, number: u8) {
        let Some(jobs) = self.living.get(&number).cloned() else {
            return;
        };
        self.apply(with_jobs(number, Vec::new()));
        jobs.into_iter()
            .for_each(|state| self.apply(Change::Copied(Arc::new(state.into()))));
    }

    fn settle(&mut self, number: u8) {
        let now = at(u64::try_from(self.records.len()).unwrap());
        let Some(jobs) = self.living.get_mut(&number) else {
            return;
        };
        let open: Vec<usize> = (0..jobs.len()).filter(|n| !jobs[*n].has_ended()).collect();
        let n = open[self.random.random_range(0..open.len())];
        let before = jobs[n].clone();
        jobs[n] = match self.random.random_ratio(1, 3) {
            true => {
                let taken_over = crate::TakenOver::default();
                before.settled(Vec::new(), taken_over, Some(now), now)
            }
            false => before.dropped(now),
        };
        let state = jobs[n].clone();
        if jobs.iter().all(JobState::has_ended) {
            let jobs = self.living.remove(&number).unwrap();
            self.finished.insert(number, jobs);
        }
        self.apply(Change::State(Arc::new(state.into())));
    }

    fn step(&mut self) {
        // Some of those that came last.
        let number = self.accepted - self.random.random_range(0..=self.accepted.min(4));
        match self.random.random_range(0..12) {
            0..3 => {
                self.accepted += 1;
                self.accept(self.accepted);
            }
            3..8 => self.settle(number),
            8 => self.move_forward(number),
            9 => {
                for leaving in self.index.leaving(None, 2).unwrap() {
                    self.index.forget_leaving(leaving.mail.queue_id).unwrap();
                }
            }
            10 if self.random.random_ratio(1, 4) => {
                let lsn = Lsn(u64::try_from(self.records.len()).unwrap());
                self.index.checkpoint(lsn).unwrap();
                self.covered = self.records.len();
            }
            _ => {}
        }
    }

    /// What a start makes of what sled has by now and of the records behind the checkpoint.
    fn after_a_crash(&self, folder: &Path) -> Index {
        self.index.trees.db().flush().unwrap();
        let to = folder.join("index");
        std::fs::create_dir(&to).unwrap();
        for file in std::fs::read_dir(self.index.folder.join("index")).unwrap() {
            let file = file.unwrap();
            if file.file_type().unwrap().is_file() {
                std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
            }
        }
        let index = Index::new(open(folder, 1 << 20, at(0)).unwrap(), true).0;
        assert_eq!(
            index.checkpoint_lsn().unwrap().0,
            u64::try_from(self.covered).unwrap()
        );
        for (location, change) in &self.records[self.covered..] {
            let change = match change {
                // As it is read from the journal.
                Change::Copied(state) => &Change::State(state.clone()),
                other => other,
            };
            let finished = index.apply(*location, change).unwrap();
            if let (Change::Mail(mail), None) = (change, finished) {
                index.lives_again(mail.queue_id).unwrap();
            }
        }
        index
    }
}

fn with_jobs(number: u8, jobs: Vec<JobState>) -> Change {
    let jobs = jobs.into_iter().map(EncodedState::from).collect();
    match mail(number) {
        Change::Mail(facts) => Change::Mail(MailFacts { jobs, ..facts }),
        _ => unreachable!(),
    }
}

#[test]
fn a_replay_completes_whatever_of_the_newest_a_crash_left_in_sled() {
    let seed: u64 = rand::random();
    for case in 0..60 {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let mut life = Life::begin(folders[0].path(), seed.wrapping_add(case));
        for _ in 0..life.random.random_range(10..150) {
            life.step();
        }
        let again = life.after_a_crash(folders[1].path());
        for number in 1..=life.accepted {
            let (id, context) = (
                id(number),
                format!("case {case} of seed {seed}, mail {number}"),
            );
            assert_eq!(
                again.mail(id).unwrap(),
                life.index.mail(id).unwrap(),
                "{context}"
            );
            assert_eq!(
                again.finished(id).unwrap(),
                life.index.finished(id).unwrap(),
                "{context}"
            );
            let jobs = again.jobs(id).unwrap();
            let is_leaving = again.is_leaving(id).unwrap();
            match (life.living.get(&number), life.finished.get(&number)) {
                (Some(known), _) => assert_eq!((&jobs, is_leaving), (known, false), "{context}"),
                // Retired, perhaps once more; whole if so.
                (None, Some(known)) if is_leaving => assert_eq!(&jobs, known, "{context}"),
                (None, Some(_)) => {
                    assert!(
                        !life.index.is_leaving(id).unwrap(),
                        "{context}: not retired"
                    );
                    assert!(jobs.is_empty(), "{context}");
                }
                (None, None) => assert!(jobs.is_empty() && !is_leaving, "{context}"),
            }
        }
    }
}
