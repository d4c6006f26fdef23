use super::*;
use crate::ledger::tests::break_disk;
use crate::list::{list, read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime};
use tempfile::TempDir;

mod group;

const SECOND: u64 = 1_800_000_000;
const MAIL: &[u8] = b"Return-Path: <alice@demo.test>\r\nSubject: x\r\n\r\nbody\r\n";
const ON_DISK: &[u8] = b"Return-Path: <alice@demo.test>\nSubject: x\n\nbody\n";

fn id() -> DeliveryId {
    DeliveryId::new("01j0000000000000000000000a", 3).unwrap()
}

fn bob(folder: Option<&str>) -> Target {
    Target::new("demo.test", "bob", folder).unwrap()
}

fn open(root: &Path) -> Store {
    Store::open(root, "mx.demo.test").unwrap().0
}

fn begin(store: &Store) -> Delivery {
    match store.begin(&bob(None), id(), SECOND).unwrap() {
        Begin::Write(delivery) => delivery,
        Begin::Already(delivered) => panic!("{delivered:?}"),
    }
}

fn finish(delivery: Delivery) -> Written {
    let store = delivery.store.clone();
    store.finish(vec![delivery]).remove(0).unwrap()
}

fn record(written: Written) -> Result<Recorded, MaildirError> {
    let store = written.store.clone();
    store.record(vec![Ok(written)]).remove(0)
}

/// What an agent does with a lease; says whether it had to write.
fn deliver(store: &Store, target: &Target, id: DeliveryId) -> Result<bool, MaildirError> {
    match store.begin(target, id, SECOND)? {
        Begin::Already(_) => Ok(false),
        Begin::Write(mut delivery) => {
            delivery.write(MAIL)?;
            delivery.commit().map(|_| true)
        }
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(file.file_name());
        if file.file_type().unwrap().is_dir() {
            copy(&file.path(), &target);
        } else {
            fs::copy(file.path(), target).unwrap();
        }
    }
}

/// The disk as it is at this instant, as a killed process leaves it.
fn snapshot(root: &Path) -> TempDir {
    let copied = tempfile::tempdir().unwrap();
    copy(root, copied.path());
    copied
}

fn tmp_files(root: &Path) -> Vec<PathBuf> {
    let tmp = fs::read_dir(root.join("demo.test/bob/Maildir/tmp")).unwrap();
    tmp.map(|file| file.unwrap().path()).collect()
}

#[derive(Debug, Clone, Copy)]
enum Stop {
    Begun,
    HalfWritten,
    Written,
    Recorded,
    Published,
}

const STOPS: [Stop; 5] = [
    Stop::Begun,
    Stop::HalfWritten,
    Stop::Written,
    Stop::Recorded,
    Stop::Published,
];

/// Delivers up to `stop` and returns the disk as a kill would leave it there.
fn crash_at(root: &Path, stop: Stop) -> TempDir {
    let store = open(root);
    let Begin::Write(mut delivery) = store.begin(&bob(None), id(), SECOND).unwrap() else {
        return snapshot(root);
    };
    if matches!(stop, Stop::Begun) {
        return snapshot(root);
    }
    delivery.write(&MAIL[..20]).unwrap();
    if matches!(stop, Stop::HalfWritten) {
        delivery.flush().unwrap();
        return snapshot(root);
    }
    delivery.write(&MAIL[20..]).unwrap();
    let written = finish(delivery);
    if matches!(stop, Stop::Written) {
        return snapshot(root);
    }
    let recorded = record(written).unwrap();
    if matches!(stop, Stop::Recorded) {
        return snapshot(root);
    }
    recorded.publish().unwrap();
    snapshot(root)
}

/// Somebody who reads the mailbox between all our steps.
#[derive(Debug, Clone, Copy)]
enum Reader {
    Leaves,
    MovesToCur,
    MovesToFolder,
    Deletes,
}

impl Reader {
    /// Counts and treats the mails that are new.
    fn visit(self, root: &Path) -> usize {
        let maildir = root.join("demo.test/bob/Maildir");
        let new: Vec<_> = list(&maildir)
            .unwrap()
            .into_iter()
            .filter(|mail| mail.recent)
            .collect();
        for mail in &new {
            assert_eq!(fs::read(&mail.path).unwrap(), ON_DISK);
            let trash = maildir.join(".Trash/cur");
            match self {
                Self::Leaves => return 0,
                Self::MovesToCur => {
                    let seen = maildir.join("cur").join(format!("{}:2,S", mail.file_name));
                    fs::rename(&mail.path, seen).unwrap();
                }
                Self::MovesToFolder => {
                    fs::create_dir_all(&trash).unwrap();
                    fs::rename(&mail.path, trash.join("1.another.name:2,ST")).unwrap();
                }
                Self::Deletes => fs::remove_file(&mail.path).unwrap(),
            }
        }
        new.len()
    }
}

#[test]
fn one_mail_whatever_step_a_crash_follows_and_whatever_a_reader_does() {
    for first in STOPS {
        for second in STOPS {
            for reader in [
                Reader::Leaves,
                Reader::MovesToCur,
                Reader::MovesToFolder,
                Reader::Deletes,
            ] {
                let start = tempfile::tempdir().unwrap();
                let mut seen = 0;
                let once = crash_at(start.path(), first);
                seen += reader.visit(once.path());
                let twice = crash_at(once.path(), second);
                seen += reader.visit(twice.path());
                let store = open(twice.path());
                seen += reader.visit(twice.path());
                deliver(&store, &bob(None), id()).unwrap();
                seen += reader.visit(twice.path());
                assert!(!deliver(&store, &bob(None), id()).unwrap());
                if matches!(reader, Reader::Leaves) {
                    seen += list(&twice.path().join("demo.test/bob/Maildir"))
                        .unwrap()
                        .len();
                } else {
                    seen += reader.visit(twice.path());
                }
                assert_eq!(
                    seen, 1,
                    "stopped at {first:?}, then {second:?}; reader {reader:?}"
                );
            }
        }
    }
}

#[test]
fn a_decided_mail_becomes_visible_at_the_start_and_may_be_forgotten() {
    let start = tempfile::tempdir().unwrap();
    let crashed = crash_at(start.path(), Stop::Recorded);
    let (store, recovery) = Store::open(crashed.path(), "h").unwrap();
    assert_eq!((recovery.finished, recovery.unsettled), (1, 1));
    assert_eq!(list(&store.maildir(&bob(None))).unwrap().len(), 1);
    assert_eq!(store.unsettled(), [id()]);
    store.forget(&id());
    drop(store);
    let (store, recovery) = Store::open(crashed.path(), "h").unwrap();
    assert_eq!((recovery.finished, store.unsettled()), (0, vec![]));
}

// A file system that does not keep both names of a rename in one transaction may show both after a power cut.
#[test]
fn a_torn_rename_with_both_names_leaves_one() {
    for moved in [false, true] {
        let start = tempfile::tempdir().unwrap();
        let crashed = crash_at(start.path(), Stop::Recorded);
        let maildir = crashed.path().join("demo.test/bob/Maildir");
        let [tmp] = tmp_files(crashed.path()).try_into().unwrap();
        let entry = open_ledger_entry(start.path());
        let place = if moved {
            "cur/other:2,S"
        } else {
            &format!("new/{}", entry.final_name)
        };
        fs::hard_link(&tmp, maildir.join(place)).unwrap();
        let store = open(crashed.path());
        assert!(!deliver(&store, &bob(None), id()).unwrap());
        let [mail] = list(&maildir).unwrap().try_into().unwrap();
        assert_eq!(mail.recent, !moved);
        assert_eq!(tmp_files(crashed.path()), [] as [PathBuf; 0]);
    }
}

#[test]
fn a_hard_link_of_a_backup_is_not_the_mail() {
    let start = tempfile::tempdir().unwrap();
    let crashed = crash_at(start.path(), Stop::Recorded);
    let [tmp] = tmp_files(crashed.path()).try_into().unwrap();
    fs::hard_link(&tmp, crashed.path().join("backup")).unwrap();
    let store = open(crashed.path());
    assert_eq!(list(&store.maildir(&bob(None))).unwrap().len(), 1);
}

fn open_ledger_entry(root: &Path) -> Entry {
    let store = open(root);
    store.inner.ledger.find(&id()).unwrap()
}

#[test]
fn the_file_is_as_promised() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(&root.path().join("deep/mail"), "a:b")
        .unwrap()
        .0;
    assert!(deliver(&store, &bob(None), id()).unwrap());
    let maildir = store.maildir(&bob(None));
    let [mail] = list(&maildir).unwrap().try_into().unwrap();
    let name = format!(
        r"{SECOND}.Q01j0000000000000000000000aR3.a\072b,S={}",
        ON_DISK.len()
    );
    assert_eq!(
        (&mail.file_name, mail.received_sec, mail.recent),
        (&name, SECOND, true)
    );
    assert_eq!(mail.size, ON_DISK.len() as u64);
    assert_eq!(read(&mail).unwrap().unwrap(), ON_DISK);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&mail.path), 0o600);
    for folder in ["", "tmp", "new", "cur", "..", "../..", "../../.."] {
        assert_eq!(mode(&maildir.join(folder)), 0o700, "{folder}");
    }
    fs::rename(&mail.path, maildir.join("cur").join(format!("{name}:2,RS"))).unwrap();
    assert_eq!(
        read(&mail).unwrap().unwrap(),
        ON_DISK,
        "found after a reader moved it"
    );
    let [moved] = list(&maildir).unwrap().try_into().unwrap();
    assert_eq!((moved.flags.as_str(), moved.recent), ("RS", false));
    fs::remove_file(&moved.path).unwrap();
    assert_eq!(read(&mail).unwrap(), None);
}

#[test]
fn a_folder_of_new_mail_that_somebody_removed_is_made_again() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let mut delivery = begin(&store);
    let maildir = store.maildir(&bob(None));
    fs::remove_dir(maildir.join("new")).unwrap();
    delivery.write(MAIL).unwrap();
    let delivered = delivery.commit().unwrap();
    let file = maildir.join("new").join(&delivered.file_name);
    assert_eq!(fs::read(file).unwrap(), ON_DISK);
}

#[test]
fn a_folder_is_made_marked_and_subscribed_once() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let target = bob(Some("Listen/Bücher"));
    for index in 0..2 {
        let id = DeliveryId::new("01j", index).unwrap();
        assert!(deliver(&store, &target, id).unwrap());
    }
    let maildir = store.maildir(&target);
    assert!(maildir.join(".Listen.B&APw-cher/maildirfolder").is_file());
    let subscribed = fs::read_to_string(maildir.join("subscriptions")).unwrap();
    assert_eq!(subscribed, "Listen.B&APw-cher\n");
    let mails = list(&maildir).unwrap();
    assert_eq!(mails.len(), 2);
    assert!(
        mails
            .iter()
            .all(|mail| mail.folder.as_deref() == Some("Listen/Bücher"))
    );

    fs::write(maildir.join("subscriptions"), "V\t2\n\nSent").unwrap();
    let other = bob(Some("A.B"));
    assert!(deliver(&store, &other, DeliveryId::new("02j", 0).unwrap()).unwrap());
    let subscribed = fs::read_to_string(maildir.join("subscriptions")).unwrap();
    assert_eq!(subscribed, "V\t2\n\nSent\nA\tB\n");
}

#[test]
fn a_dropped_delivery_leaves_no_trace_and_frees_the_id() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let mut delivery = begin(&store);
    delivery.write(MAIL).unwrap();
    assert_eq!(tmp_files(root.path()).len(), 1);
    // Pieces may be written, and the end may come, on any blocking thread.
    thread::spawn(move || drop(delivery)).join().unwrap();
    assert_eq!(tmp_files(root.path()).len(), 0);
    assert!(deliver(&store, &bob(None), id()).unwrap());
}

#[test]
fn a_removed_mailbox_is_made_anew() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    assert!(deliver(&store, &bob(None), id()).unwrap());
    fs::remove_dir_all(root.path().join("demo.test")).unwrap();
    assert!(
        !deliver(&store, &bob(None), id()).unwrap(),
        "it was delivered, and then removed"
    );
    assert!(deliver(&store, &bob(None), DeliveryId::new("other", 0).unwrap()).unwrap());
}

#[test]
fn one_id_from_many_threads_is_one_mail() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let writers = thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| deliver(&store, &bob(None), id()).unwrap()))
            .collect();
        threads
            .into_iter()
            .map(|t| usize::from(t.join().unwrap()))
            .sum::<usize>()
    });
    assert_eq!(writers, 1);
    assert_eq!(list(&store.maildir(&bob(None))).unwrap().len(), 1);
}

#[test]
fn many_threads_many_mails() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    thread::scope(|scope| {
        for index in 0..64 {
            let (store, id) = (store.clone(), DeliveryId::new("many", index).unwrap());
            scope.spawn(move || {
                assert!(deliver(&store, &bob(None), id.clone()).unwrap());
                store.forget(&id);
            });
        }
    });
    assert_eq!(list(&store.maildir(&bob(None))).unwrap().len(), 64);
    store.tidy();
    assert_eq!(store.unsettled(), []);
}

#[test]
fn a_second_process_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let second = Store::open(root.path(), "h");
    assert!(matches!(second, Err(MaildirError::Locked { .. })));
    drop(store);
    open(root.path());
}

#[test]
fn a_ledger_that_fails_keeps_what_it_may_name_and_takes_nothing_more() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let mut delivery = begin(&store);
    delivery.write(MAIL).unwrap();
    break_disk(&store.inner.ledger);
    let error = delivery.commit().unwrap_err();
    assert!(matches!(error, MaildirError::LedgerClosed { .. }) && error.is_transient());
    assert_eq!(tmp_files(root.path()).len(), 1, "perhaps named: must stay");
    assert!(deliver(&store, &bob(None), id()).is_err());
    assert_eq!(tmp_files(root.path()).len(), 1, "surely not named: gone");
    drop(store);
    assert!(deliver(&open(root.path()), &bob(None), id()).unwrap());
    assert_eq!(
        list(&root.path().join("demo.test/bob/Maildir"))
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn only_old_files_of_ours_that_nobody_names_are_swept() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let named = record(finish(begin(&store))).unwrap();
    let tmp = root.path().join("demo.test/bob/Maildir/tmp");
    let mut kept = vec![tmp.join(&named.entry.tmp_name), tmp.join("1.M1P2.theirs")];
    fs::write(&kept[1], "").unwrap();
    fs::write(tmp.join("1.Q1R1P1N1.h"), "").unwrap();
    let now = SystemTime::now();
    assert_eq!(store.sweep(now).unwrap(), 0);
    assert_eq!(store.sweep(now + Duration::from_hours(37)).unwrap(), 1);
    let mut left = tmp_files(root.path());
    left.sort();
    kept.sort();
    assert_eq!(left, kept);
}

#[test]
fn faults_are_sorted() {
    let sorted = |code| at("write", Path::new("/m"))(io::Error::from_raw_os_error(code));
    for code in [28, 122] {
        assert!(
            matches!(sorted(code), MaildirError::NoSpace { .. }),
            "{code}"
        );
    }
    for code in [1, 13, 30] {
        assert!(
            matches!(sorted(code), MaildirError::Permission { .. }),
            "{code}"
        );
    }
    assert!(matches!(sorted(5), MaildirError::Io { .. }));
}

#[test]
fn content_that_is_not_made_of_lines_is_kept_octet_for_octet() {
    let root = TempDir::new().unwrap();
    let store = open(root.path());
    let mut delivery = begin(&store);
    delivery.keep_octets();
    let content = b"Subject: x\r\n\r\n\0\r\n\n\r.\r\n\xff";
    for piece in content.chunks(3) {
        delivery.write(piece).unwrap();
    }
    let delivered = delivery.commit().unwrap();
    let file = delivered.mailbox.join("new").join(&delivered.file_name);
    assert_eq!(fs::read(file).unwrap(), content);
}
