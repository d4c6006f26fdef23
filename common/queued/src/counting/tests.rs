use std::{fs, os::unix::fs::PermissionsExt as _};

use postroad_counters::{Limit, Rule};
use postroad_metrics::Metrics;

use super::*;

const ROOM: Room = Room {
    counters: 1_000,
    bans: 1_000,
};

fn sent(account: &str, add: u64) -> Count {
    let limit = Limit {
        window: Duration::from_secs(86_400),
        most: 10,
    };
    Count {
        key: Key::new(Kind::Sent, account).unwrap(),
        add,
        rule: Rule::Within(vec![limit]),
    }
}

fn failed(client: &str, add: u64) -> Count {
    Count {
        key: Key::new(Kind::AuthFailed, client).unwrap(),
        add,
        rule: Rule::Ban {
            limit: Limit {
                window: Duration::from_secs(600),
                most: 2,
            },
            ban: Duration::from_secs(600),
        },
    }
}

fn counts() -> Counts {
    Counts::new(&Metrics::new("queued"))
}

#[test]
fn what_was_sent_and_who_is_banned_outlives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let before = Counting::open(folder.path(), ROOM);
    for account in 0..100 {
        before.count(&sent(&format!("a{account}@demo.test"), 7));
    }
    before.count(&failed("192.0.2.7", 3));
    before.count(&failed("192.0.2.8", 2));
    before.tend(&counts());
    let mode = fs::metadata(&before.path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let after = Counting::open(folder.path(), ROOM);
    for account in 0..100 {
        assert_eq!(
            after
                .count(&sent(&format!("a{account}@demo.test"), 0))
                .0
                .value,
            7
        );
    }
    assert!(after.count(&sent("a1@demo.test", 4)).0.full.is_some());
    assert!(
        after
            .count(&failed("192.0.2.7", 0))
            .0
            .banned_until
            .is_some()
    );
    assert_eq!(after.count(&failed("192.0.2.8", 0)).0.value, 0);
    // A ban that was lifted does not come back either.
    assert_eq!(after.clear(&["auth_failed/192.0.2.7".parse().unwrap()]), 1);
    let again = Counting::open(folder.path(), ROOM);
    assert_eq!(again.count(&failed("192.0.2.7", 0)).0.banned_until, None);
}

#[test]
fn it_is_written_only_when_something_that_is_kept_changed() {
    let folder = tempfile::tempdir().unwrap();
    let counting = Counting::open(folder.path(), ROOM);
    counting.count(&failed("192.0.2.7", 1));
    counting.count(&failed("192.0.2.8", 0));
    counting.count(&sent("alice@demo.test", 0));
    counting.count(&sent("alice@demo.test", 11));
    counting.save();
    assert!(!counting.path.exists());
    counting.count(&failed("192.0.2.7", 2));
    counting.save();
    assert!(counting.path.exists());
    fs::remove_file(&counting.path).unwrap();
    counting.save();
    assert!(!counting.path.exists());
}

#[test]
fn a_file_that_cannot_be_written_is_written_later_and_a_damaged_one_begins_anew() {
    let folder = tempfile::tempdir().unwrap();
    let counting = Counting::open(folder.path(), ROOM);
    // A folder in the place of the new file: that fails for root too.
    let in_the_way = folder.path().join("COUNTERS.new");
    fs::create_dir(&in_the_way).unwrap();
    counting.count(&sent("alice@demo.test", 7));
    counting.save();
    assert!(!counting.path.exists());
    fs::remove_dir(&in_the_way).unwrap();
    counting.save();
    let text = fs::read_to_string(&counting.path).unwrap();
    fs::write(&counting.path, text.replace(":7", ":1")).unwrap();
    let after = Counting::open(folder.path(), ROOM);
    assert_eq!(after.count(&sent("alice@demo.test", 0)).0.value, 0);
}

#[test]
fn the_number_is_bounded_and_lists_begin_with_the_most() {
    let folder = tempfile::tempdir().unwrap();
    let small = Room {
        counters: 80,
        bans: 80,
    };
    let counting = Counting::open(folder.path(), small);
    counting.count(&sent("alice@demo.test", 3));
    for client in 0..2_000_u32 {
        let address = std::net::Ipv4Addr::from_bits(client);
        counting.count(&failed(
            &address.to_string(),
            1 + u64::from(client == 1_999),
        ));
    }
    let (counters, _) = counting.sizes(Kind::AuthFailed);
    assert!((40..=80).contains(&counters), "{counters}");
    assert_eq!(counting.sizes(Kind::Sent), (1, 0));
    let list = |kind, bans, limit| counting.list(CountersQuery { kind, bans, limit });
    let most = list(Some(Kind::AuthFailed), false, 5);
    assert_eq!((most.counters.len(), most.counters[0].value), (5, 2));
    assert_eq!(most.total, counters as u64);
    assert_eq!(list(None, false, 0).total, counters as u64 + 1);
    assert_eq!(list(None, true, 0), CounterList::default());
    counting.tend(&counts());
    assert!(counting.crowded[0].load(Ordering::Relaxed));
    counting.tend(&counts());
    assert!(!counting.crowded[0].load(Ordering::Relaxed));
}
