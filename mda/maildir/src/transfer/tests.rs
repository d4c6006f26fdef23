use std::collections::BTreeMap;
use std::fs::FileTimes;
use std::io::Cursor;
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::{Begin, DeliveryId, Store, Target, list};

const ALICE: &str = "alice@example.org";

/// Two stores, with a mailbox of Alice each.
struct Stores {
    _folder: TempDir,
    old: PathBuf,
    new: PathBuf,
}

impl Stores {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let old = folder.path().join("old/example.org/alice/Maildir");
        let new = folder.path().join("new/example.org/alice/Maildir");
        crate::disk::make_folders(&old).unwrap();
        Self {
            _folder: folder,
            old,
            new,
        }
    }

    fn export(&self) -> (Vec<u8>, Exported) {
        let mut stream = Vec::new();
        let exported = export(&self.old, ALICE, &mut stream, &mut 0, &mut |_| {}).unwrap();
        (stream, exported)
    }

    fn import(&self, stream: &[u8]) -> (Vec<u8>, Result<Imported, TransferError>) {
        let mut receipt = Vec::new();
        let imported = import(&self.new, ALICE, stream, &mut receipt, &mut |_| {});
        (receipt, imported)
    }

    fn remove(&self, receipt: &[u8]) -> Removed {
        remove(&self.old, ALICE, receipt, &mut |_| {}).unwrap()
    }

    /// All three; what was imported, and what was removed.
    fn move_all(&self) -> (Imported, Removed) {
        let (receipt, imported) = self.import(&self.export().0);
        (imported.unwrap(), self.remove(&receipt))
    }
}

/// A mail of a mailbox, as a reader or another agent put it there.
fn put(maildir: &Path, place: &str, content: &str) -> PathBuf {
    let path = maildir.join(place);
    let leaf = path.parent().unwrap();
    for folder in ["tmp", "new", "cur"] {
        fs::create_dir_all(leaf.parent().unwrap().join(folder)).unwrap();
    }
    fs::write(&path, content).unwrap();
    let modified = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let file = File::options().write(true).open(&path).unwrap();
    file.set_times(FileTimes::new().set_modified(modified))
        .unwrap();
    path
}

/// Contents by folder, leaf and name.
fn all(maildir: &Path) -> BTreeMap<String, String> {
    let mails = list(maildir).unwrap().into_iter().map(|mail| {
        let place = mail
            .path
            .strip_prefix(maildir)
            .unwrap()
            .display()
            .to_string();
        (place, fs::read_to_string(&mail.path).unwrap())
    });
    mails.collect()
}

fn filled() -> Stores {
    let stores = Stores::new();
    put(&stores.old, "new/1.Qaa1R0.old,S=3", "one");
    put(&stores.old, "cur/2.M1P2.old,S=3:2,FS", "two");
    put(
        &stores.old,
        ".Lists.B&APw-cher/cur/3.Qaa3R1.old,S=5:2,Sa",
        "three",
    );
    fs::create_dir_all(stores.old.join(".Empty/cur")).unwrap();
    fs::write(stores.old.join("subscriptions"), "Lists.B&APw-cher\n").unwrap();
    fs::write(stores.old.join("dovecot-keywords"), "0 Junk\n").unwrap();
    stores
}

#[test]
fn a_mailbox_moves_with_folders_flags_and_times() {
    let stores = filled();
    let before = all(&stores.old);
    let (stream, exported) = stores.export();
    assert_eq!((exported.mails, exported.octets), (3, 11));
    assert_eq!(all(&stores.old), before, "an export changes nothing");
    let (receipt, imported) = stores.import(&stream);
    let imported = imported.unwrap();
    assert_eq!((imported.mails, imported.known), (3, 0));
    assert_eq!(all(&stores.new), before);
    let modified = |maildir: &Path| {
        fs::metadata(maildir.join("new/1.Qaa1R0.old,S=3"))
            .unwrap()
            .modified()
            .unwrap()
    };
    assert_eq!(modified(&stores.new), modified(&stores.old));
    assert!(stores.new.join(".Empty/new").is_dir());
    assert!(stores.new.join(".Lists.B&APw-cher/maildirfolder").is_file());
    assert_eq!(
        fs::read_to_string(stores.new.join("subscriptions")).unwrap(),
        "Lists.B&APw-cher\n"
    );
    assert_eq!(
        fs::read_to_string(stores.new.join("dovecot-keywords")).unwrap(),
        "0 Junk\n"
    );
    assert_eq!(fs::read_dir(stores.new.join("tmp")).unwrap().count(), 0);

    let removed = stores.remove(&receipt);
    assert_eq!((removed.mails, removed.left), (3, 0));
    assert_eq!(all(&stores.old), BTreeMap::new());
    assert_eq!(stores.remove(&receipt), Removed::default(), "twice is once");
}

#[test]
fn what_comes_in_between_stays_until_it_was_moved_too() {
    let stores = filled();
    let (receipt, imported) = stores.import(&stores.export().0);
    imported.unwrap();
    put(&stores.old, "new/9.Qaa9R0.old,S=4", "late");
    // A name that the receipt has, with another content.
    put(&stores.old, "new/1.Qaa1R0.old,S=3", "eno");
    put(&stores.old, "tmp/9.Qaa9R1P77N0.old", "half");
    let removed = stores.remove(&receipt);
    assert_eq!((removed.mails, removed.left, removed.under_way), (2, 2, 1));
    let (imported, removed) = stores.move_all();
    assert_eq!((imported.mails, imported.known), (2, 0));
    assert_eq!((removed.mails, removed.left), (2, 0));
    let new = all(&stores.new);
    assert_eq!(new["new/9.Qaa9R0.old,S=4"], "late");
    assert_eq!(new["new/1.Qaa1R0.old,S=3"], "one");
    let other = format!("new/1.Qaa1R0.old_{:08x},S=3", crc32c::crc32c(b"eno"));
    assert_eq!(new[&other], "eno", "no mail takes the place of another");
}

#[test]
fn what_readers_did_in_the_new_store_stays_done() {
    let stores = filled();
    let (stream, _) = stores.export();
    stores.import(&stream).1.unwrap();
    // Read, moved, removed.
    let there = |name: &str| stores.new.join(name);
    fs::rename(
        there("new/1.Qaa1R0.old,S=3"),
        there("cur/1.Qaa1R0.old,S=3:2,S"),
    )
    .unwrap();
    fs::rename(
        there("cur/2.M1P2.old,S=3:2,FS"),
        there(".Empty/cur/2.M1P2.old,S=3:2,FS"),
    )
    .unwrap();
    fs::remove_file(there(".Lists.B&APw-cher/cur/3.Qaa3R1.old,S=5:2,Sa")).unwrap();
    let after = all(&stores.new);
    // And a folder in the old one.
    let moved = (
        ".Lists.B&APw-cher/cur/3.Qaa3R1.old,S=5:2,Sa",
        "cur/3.Qaa3R1.old,S=5:2,Sa",
    );
    fs::rename(stores.old.join(moved.0), stores.old.join(moved.1)).unwrap();
    let (imported, removed) = stores.move_all();
    assert_eq!((imported.mails, imported.known), (0, 3));
    assert_eq!(all(&stores.new), after);
    assert_eq!((removed.mails, removed.left), (3, 0));
}

#[test]
fn a_mail_that_both_stores_filed_is_one() {
    let stores = Stores::new();
    let root = stores.new.ancestors().nth(3).unwrap();
    let (store, _) = Store::open(root, "new").unwrap();
    let target = Target::new("example.org", "alice", Some("Lists")).unwrap();
    let id = DeliveryId::new("aa7", 0).unwrap();
    match store.begin(&target, id, 7).unwrap() {
        Begin::Write(mut delivery) => {
            delivery.write(b"seven").unwrap();
            delivery.commit().unwrap();
        }
        other @ Begin::Already(_) => panic!("{other:?}"),
    }
    put(&stores.old, "new/7.Qaa7R0.old,S=5", "seven");
    put(&stores.old, "new/7.Qaa7R1.old,S=5", "other");
    let (imported, removed) = stores.move_all();
    assert_eq!((imported.mails, imported.known, removed.mails), (1, 1, 2));
    let new: Vec<String> = all(&stores.new).into_values().collect();
    assert_eq!(new, ["seven", "other"]);
}

#[test]
fn copies_under_one_name_are_mails_of_their_own() {
    let stores = Stores::new();
    put(&stores.old, "cur/1.M1.h:2,S", "same");
    put(&stores.old, ".Copy/cur/1.M1.h:2,", "same");
    let (imported, removed) = stores.move_all();
    assert_eq!((imported.mails, removed.mails), (2, 2));
    assert_eq!(all(&stores.new).len(), 2);
}

#[test]
fn a_mail_may_come_back_one_day() {
    let mut stores = filled();
    let before = all(&stores.old);
    stores.move_all();
    std::mem::swap(&mut stores.old, &mut stores.new);
    stores.move_all();
    std::mem::swap(&mut stores.old, &mut stores.new);
    assert_eq!(all(&stores.old), before);
    let (imported, removed) = stores.move_all();
    assert_eq!((imported.mails, imported.known, removed.mails), (3, 0, 3));
    assert_eq!(
        (all(&stores.new), all(&stores.old)),
        (before, BTreeMap::new())
    );
}

/// Wherever a stream ends, or whatever octet of it is another: no half mail, and a repetition makes it whole.
#[test]
fn a_stream_that_is_cut_or_damaged_leaves_whole_mails_alone() {
    let stores = filled();
    let before = all(&stores.old);
    let (stream, _) = stores.export();
    for end in 0..stream.len() {
        let (receipt, imported) = stores.import(&stream[..end]);
        assert!(
            matches!(imported, Err(TransferError::Damaged(_))),
            "{end}: {imported:?}"
        );
        assert!(
            remove(&stores.old, ALICE, &*receipt, &mut |_| {}).is_err(),
            "{end}"
        );
        let there = if exists(&stores.new) {
            all(&stores.new)
        } else {
            BTreeMap::new()
        };
        assert!(
            there.iter().all(|(name, content)| before[name] == *content),
            "{end}"
        );
    }
    assert_eq!(all(&stores.old), before);
    stores.move_all();
    assert_eq!(
        (all(&stores.new), all(&stores.old)),
        (before.clone(), BTreeMap::new())
    );

    let stores = filled();
    for at in 0..stream.len() {
        let mut damaged = stream.clone();
        damaged[at] ^= 1;
        let (_, imported) = stores.import(&damaged);
        assert!(imported.is_err(), "octet {at}");
    }
}

#[test]
fn a_receipt_that_is_cut_damaged_or_of_somebody_else_removes_nothing() {
    let stores = filled();
    let (receipt, _) = stores.import(&stores.export().0);
    let remove = |account, receipt: &[u8]| remove(&stores.old, account, receipt, &mut |_| {});
    for end in 0..receipt.len() {
        assert!(remove(ALICE, &receipt[..end]).is_err(), "{end}");
    }
    for at in 0..receipt.len() {
        let mut damaged = receipt.clone();
        damaged[at] ^= 1;
        assert!(remove(ALICE, &damaged).is_err(), "octet {at}");
    }
    assert!(matches!(
        remove("bob@example.org", &receipt),
        Err(TransferError::OtherAccount { .. })
    ));
    assert_eq!(all(&stores.old).len(), 3);
}

#[test]
fn a_hostile_stream_leads_nowhere() {
    let stores = Stores::new();
    let sum = format!("{:08x}", crc32c::crc32c(b"evil"));
    for line in [
        format!("mail\t\tnew\t../../../evil\t4\t{sum}\t0\t1"),
        format!("mail\t..\tnew\tevil\t4\t{sum}\t0\t1"),
        format!("mail\t.a/../..\tnew\tevil\t4\t{sum}\t0\t1"),
        format!("mail\t\ttmp\tevil\t4\t{sum}\t0\t1"),
        format!("mail\t\t../new\tevil\t4\t{sum}\t0\t1"),
        format!("mail\t\tnew\t.evil\t4\t{sum}\t0\t1"),
        format!("file\t\t.bashrc\t4\t{sum}"),
        format!("file\t\tsubscriptions\t{}\t{sum}", 1_u64 << 40),
        format!("file\t..\tsubscriptions\t4\t{sum}"),
        format!("mail\t\tnew\tevil\t{}\t{sum}\t0\t1", u64::MAX),
        "folder\t..".to_owned(),
        "folder\t.a..b".to_owned(),
        format!("folder\t.{}", "x".repeat(5000)),
        "other".to_owned(),
    ] {
        let stream = format!("postroad-mailbox 1\naccount\t{ALICE}\n{line}\nevil");
        let (_, imported) = stores.import(stream.as_bytes());
        assert!(
            matches!(imported, Err(TransferError::Damaged(_))),
            "{line}: {imported:?}"
        );
        assert_eq!(all(&stores.new), BTreeMap::new(), "{line}");
    }
    assert!(
        !stores
            .new
            .ancestors()
            .any(|folder| folder.join("evil").exists())
    );
    let other = b"postroad-mailbox 1\naccount\tbob@example.org\nend\t0\t00000000\n";
    assert!(matches!(
        stores.import(other).1,
        Err(TransferError::OtherAccount { .. })
    ));
    assert!(matches!(
        stores.import(b"From x\n").1,
        Err(TransferError::Damaged(_))
    ));
}

#[test]
fn one_step_at_a_time() {
    let stores = filled();
    let (stream, _) = stores.export();
    let _turn = lock(&stores.old).unwrap();
    let mut out = Vec::new();
    let busy = export(&stores.old, ALICE, &mut out, &mut 0, &mut |_| {});
    assert!(matches!(busy, Err(TransferError::Busy)));
    stores.import(&stream).1.unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_octets_are_refused_or_end(octets in proptest::collection::vec(any::<u8>(), 0..400)) {
        let stores = Stores::new();
        let mut stream = format!("postroad-mailbox 1\naccount\t{ALICE}\n").into_bytes();
        stream.extend(&octets);
        prop_assert!(stores.import(&stream).1.is_err());
        prop_assert!(receipt::read(Cursor::new(octets), ALICE).is_err());
    }
}
