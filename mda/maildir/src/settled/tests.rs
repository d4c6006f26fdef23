use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::*;
use crate::{Begin, FileSystem, SyncOptions, Target, list};

/// Synced together from two folders on, wherever that can be.
fn open(root: &Path) -> Store {
    let options = SyncOptions {
        from: 2,
        on: FileSystem::ALL.to_vec(),
        ..SyncOptions::default()
    };
    Store::open_with(root, "h", options).unwrap().0
}

fn id(number: usize) -> DeliveryId {
    DeliveryId::new("01j", u32::try_from(number).unwrap()).unwrap()
}

fn deliver(store: &Store, account: &str, number: usize) -> PathBuf {
    let target = Target::new("demo.test", account, None).unwrap();
    let Begin::Write(mut delivery) = store.begin(&target, id(number), 1_700_000_000).unwrap()
    else {
        panic!("{number} was decided before");
    };
    delivery.write(b"Subject: a\r\n\r\n").unwrap();
    let delivered = delivery.commit().unwrap();
    delivered.mailbox.join("new").join(delivered.file_name)
}

/// Many mails of one account, settled.
fn many(store: &Store, account: &str, from: usize) {
    for number in from..from + MANY {
        deliver(store, account, number);
        store.forget(&id(number));
    }
}

#[test]
fn names_of_many_mails_are_synced_at_once_before_the_ledger_forgets_them() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let syncs = store.syncs();
    let of_names = || syncs.folders() + syncs.file_systems();
    for number in 0..MANY {
        deliver(&store, ["bob", "eve"][number % 2], number);
    }
    let before = of_names();
    for number in 0..MANY {
        assert!(!store.calls_for_tidying(), "{number}");
        store.forget(&id(number));
    }
    assert_eq!((of_names(), store.unsettled().len()), (before, MANY));
    assert!(store.calls_for_tidying());
    assert!(!store.calls_for_tidying(), "one is enough");
    store.tidy();
    let for_both = if store.inner.syncs.device().is_some() {
        1
    } else {
        2
    };
    assert_eq!(
        (of_names(), store.unsettled().len()),
        (before + for_both, 0)
    );
    many(&store, "bob", MANY);
    assert!(store.calls_for_tidying(), "again");
}

#[test]
fn a_power_cut_after_the_settlement_takes_nothing() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let mail = deliver(&store, "bob", 1);
    let entry = store.inner.ledger.find(&id(1)).unwrap();
    let tmp = root
        .path()
        .join(entry.mailbox)
        .join("tmp")
        .join(entry.tmp_name);
    store.forget(&id(1));
    // As it goes: nothing is tidied, and the rename was not synced.
    std::mem::take(&mut *store.inner.settled());
    drop(store);
    fs::rename(&mail, &tmp).unwrap();
    let store = open(root.path());
    assert!(mail.is_file() && !tmp.exists());
    assert_eq!(store.unsettled(), [id(1)]);
    // The queue does not know it any more.
    store.forget(&id(1));
    drop(store);
    assert_eq!(open(root.path()).unsettled(), []);
}

#[test]
fn a_folder_that_cannot_be_synced_keeps_its_mails_in_the_ledger() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    many(&store, "bob", 0);
    let eve = deliver(&store, "eve", 2 * MANY);
    store.forget(&id(2 * MANY));
    let ann = deliver(&store, "ann", 2 * MANY + 1);
    store.forget(&id(2 * MANY + 1));
    let maildir = root.path().join("demo.test/bob/Maildir");
    let (new, aside) = (maildir.join("new"), maildir.join("aside"));
    fs::rename(&new, &aside).unwrap();
    symlink(&new, &new).unwrap();
    fs::remove_dir_all(ann.parent().unwrap()).unwrap();
    assert!(store.calls_for_tidying());
    let synced = store.syncs().folders() + store.syncs().file_systems();
    store.tidy();
    assert_eq!(
        store.unsettled().len(),
        MANY,
        "bob's, whose folder is a loop"
    );
    assert!(eve.is_file());
    assert_eq!(
        store.syncs().folders() + store.syncs().file_systems(),
        synced + 4,
        "eve's and bob's folder, and ann's Maildir after new/, which is gone"
    );
    assert!(
        !store.calls_for_tidying(),
        "they are not tried all the time"
    );
    many(&store, "eve", MANY);
    assert!(store.calls_for_tidying());
    fs::remove_file(&new).unwrap();
    fs::rename(&aside, &new).unwrap();
    store.tidy();
    assert_eq!(store.unsettled(), []);
    assert_eq!(list(&maildir).unwrap().len(), MANY);
}
