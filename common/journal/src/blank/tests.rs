use super::*;
use crate::{Entropy, JournalError, Location, Lsn, Options, RecordDraft, RecordKind};
use std::{io::ErrorKind, ops::ControlFlow, sync::Arc};

fn open(folder: &Path) -> Journal {
    let options = Options {
        segment_bytes: 4096,
        prepare_ahead: 1,
        open_files: 2,
        ..Options::default()
    };
    let entropy: Entropy = Arc::new(|bytes| rand::fill(bytes));
    Journal::open(folder, options, entropy).unwrap().0
}

fn append(journal: &mut Journal, text: &str) -> Location {
    let draft = RecordDraft::new(RecordKind(1), text.to_owned());
    journal.append_group(&[draft]).unwrap()[0]
}

fn texts(journal: &Journal) -> Vec<String> {
    let mut seen = Vec::new();
    let replayed = journal.replay(Lsn(0), |record| {
        seen.push(String::from_utf8(record.payload.to_vec()).unwrap());
        ControlFlow::Continue(())
    });
    assert_eq!(replayed.unwrap().damage, []);
    seen
}

/// Whether any file below the folder holds this.
fn holds(folder: &Path, text: &str) -> bool {
    loop {
        match look_for(folder, text) {
            // What is prepared ahead gets its name while we look: whoever went between listing and reading is read
            // under its new name.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            looked => return looked.unwrap(),
        }
    }
}

fn look_for(folder: &Path, text: &str) -> std::io::Result<bool> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let found = match path.is_dir() {
            true => look_for(&path, text)?,
            false => fs::read(path)?
                .windows(text.len())
                .any(|part| part == text.as_bytes()),
        };
        if found {
            return Ok(true);
        }
    }
    Ok(false)
}

fn blank_all(journal: &Journal, unwanted: &str) -> u64 {
    let reader = journal.reader();
    let segments = journal.segments();
    let blank = |record: &RecordRef<'_>| record.payload.starts_with(unwanted.as_bytes());
    let blanked = segments
        .iter()
        .map(|one| reader.blank_segment(one.number, blank).unwrap());
    blanked.sum()
}

#[test]
fn what_is_blanked_is_gone_and_all_else_lies_where_it_lay() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = open(folder.path());
    let kept = append(&mut journal, "kept one");
    let gone = append(&mut journal, "secret one");
    append(&mut journal, "kept two");
    let reader = journal.reader();
    let held = reader.shared.file(kept.segment).unwrap();
    // The newest segment is not touched.
    assert_eq!(blank_all(&journal, "secret"), 0);
    journal.stop_recycling().unwrap();
    journal.seal().unwrap();
    assert_eq!(blank_all(&journal, "secret"), 1);
    assert_eq!(blank_all(&journal, "secret"), 0);
    journal.recycle_again();
    assert!(!holds(folder.path(), "secret"));
    assert_eq!(journal.read(&kept).unwrap(), "kept one");
    assert!(matches!(reader.read(&gone), Err(JournalError::Gone)));
    // Whoever had the file open goes on.
    let mut octets = [0; 8];
    held.read_exact_at(&mut octets, u64::from(kept.offset) + 40)
        .unwrap();
    assert_eq!(&octets, b"kept one");
    append(&mut journal, "kept three");
    let all = ["kept one", "kept two", "kept three"];
    assert_eq!(texts(&journal), all);
    drop(journal);
    let journal = open(folder.path());
    assert_eq!(texts(&journal), all);
    assert_eq!(journal.read(&kept).unwrap(), "kept one");
}

#[test]
fn nothing_of_a_files_former_life_stays() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = open(folder.path());
    for _ in 0..4 {
        append(&mut journal, &format!("secret {}", "x".repeat(1500)));
        append(&mut journal, &format!("secret {}", "y".repeat(1500)));
        journal.reclaim_oldest().unwrap();
    }
    // In a recycled file, behind its end, and one that has no record yet.
    append(&mut journal, "kept");
    journal.begin_segment().unwrap();
    assert!(holds(folder.path(), "secret"));
    journal.stop_recycling().unwrap();
    journal.seal().unwrap();
    blank_all(&journal, "secret");
    assert!(!holds(folder.path(), "secret"));
    assert_eq!(texts(&journal), ["kept"]);
    drop(journal);
    assert_eq!(texts(&open(folder.path())), ["kept"]);
}

#[test]
fn a_file_that_was_begun_and_came_to_nothing_is_cleared_at_opening() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = open(folder.path());
    append(&mut journal, "kept");
    journal.begin_segment().unwrap();
    let path = journal.active.as_ref().unwrap().path.clone();
    drop(journal);
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(b"secret", 2000).unwrap();
    let mut journal = open(folder.path());
    assert!(!holds(folder.path(), "secret"));
    append(&mut journal, "more");
    drop(journal);
    assert_eq!(texts(&open(folder.path())), ["kept", "more"]);
}

#[test]
fn what_a_crash_leaves_is_removed_and_a_segment_that_went_does_not_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = open(folder.path());
    let gone = append(&mut journal, "secret");
    journal.seal().unwrap();
    append(&mut journal, "kept");
    let draft = folder.path().join("segments").join(DRAFT);
    fs::write(&draft, "secret, half").unwrap();
    drop(journal);
    let mut journal = open(folder.path());
    assert!(!draft.exists());
    let reader = journal.reader();
    journal.stop_recycling().unwrap();
    let blanked = reader.blank_segment(gone.segment, |_| {
        journal.reclaim_oldest().unwrap();
        true
    });
    blanked.unwrap();
    assert!(!holds(folder.path(), "secret"));
    assert_eq!(texts(&journal), ["kept"]);
}
