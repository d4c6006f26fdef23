use super::*;

const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

fn after(seconds: u64) -> Timestamp {
    START.plus(Duration::from_secs(seconds))
}

fn counters(counters: usize) -> Counters {
    Counters::new(Room { counters, bans: 2 })
}

fn key(text: &str) -> Key {
    text.parse().unwrap()
}

/// A failed log-in: the fourth in ten minutes is a ban for one.
fn failed(client: &str, add: u64) -> Count {
    Count {
        key: Key::new(Kind::AuthFailed, client).unwrap(),
        add,
        rule: Rule::Ban {
            limit: Limit {
                window: 10 * MINUTE,
                most: 3,
            },
            ban: MINUTE,
        },
    }
}

/// Ten an hour, twelve a day.
fn sent(account: &str, add: u64) -> Count {
    let limit = |window, most| Limit { window, most };
    Count {
        key: Key::new(Kind::Sent, account).unwrap(),
        add,
        rule: Rule::Within(vec![limit(HOUR, 10), limit(DAY, 12)]),
    }
}

#[test]
fn one_too_many_is_a_ban_that_ends_and_begins_anew() {
    let mut all = counters(10);
    for value in 1..=3 {
        let counted = all.count(&failed("192.0.2.7", 1), after(value));
        assert_eq!((counted.value, counted.banned_until), (value, None));
    }
    let banned = all.count(&failed("192.0.2.7", 1), after(4));
    assert_eq!((banned.value, banned.banned_until), (4, Some(after(64))));
    assert_eq!(all.take_begun(Kind::AuthFailed), 1);
    // It is not made longer by what still comes, and others know nothing of it.
    assert_eq!(all.count(&failed("192.0.2.7", 5), after(30)), banned);
    assert_eq!(all.count(&failed("192.0.2.7", 0), after(63)), banned);
    assert_eq!(
        all.count(&failed("192.0.2.8", 0), after(63)),
        Counted::default()
    );
    assert_eq!(all.bans(Kind::AuthFailed, after(63)).len(), 1);
    assert_eq!(
        all.count(&failed("192.0.2.7", 0), after(64)),
        Counted::default()
    );
    let again = all.count(&failed("192.0.2.7", 1), after(65));
    assert_eq!((again.value, again.banned_until), (1, None));
    assert_eq!(all.take_begun(Kind::AuthFailed), 0);
}

#[test]
fn asking_makes_nothing_and_no_ban_without_a_time_for_it() {
    let mut all = counters(10);
    all.count(&failed("192.0.2.7", 0), START);
    assert_eq!(all.sizes(Kind::AuthFailed), (0, 0));
    let mut lasting = failed("192.0.2.7", 100);
    if let Rule::Ban { ban, .. } = &mut lasting.rule {
        *ban = Duration::ZERO;
    }
    assert_eq!(all.count(&lasting, START).banned_until, None);
    // Who is over it already is banned by the next failure, not by a question.
    assert_eq!(all.count(&failed("192.0.2.7", 0), START).banned_until, None);
    assert!(
        all.count(&failed("192.0.2.7", 1), START)
            .banned_until
            .is_some()
    );
}

#[test]
fn nothing_is_added_unless_every_limit_has_room() {
    let mut all = counters(10);
    let alice = "alice@demo.test";
    assert_eq!(all.count(&sent(alice, 10), after(0)).full, None);
    let hour = all.count(&sent(alice, 1), after(10)).full.unwrap();
    assert_eq!((hour.limit.window, hour.value), (HOUR, 10));
    let until = hour.until.unwrap();
    assert!(
        until >= after(3600) && until <= after(3600 + 300),
        "{until}"
    );
    // By then the hour has room; the day counts what was sent, not what was refused.
    let counted = all.count(&sent("Alice@demo.test", 2), until);
    assert_eq!((counted.value, counted.full), (2, None));
    let day = all.count(&sent(alice, 1), until).full.unwrap();
    assert_eq!((day.limit.window, day.value), (DAY, 12));
    assert!(day.until.unwrap() > after(80_000));
    assert_eq!(all.count(&sent(alice, 0), until).value, 2);
    let never = all.count(&sent("bob@demo.test", 11), until).full.unwrap();
    assert_eq!((never.until, never.value, never.limit.most), (None, 0, 10));
    assert_eq!(all.sizes(Kind::Sent), (2, 0));
}

#[test]
fn two_limits_over_one_time_count_once() {
    let mut all = counters(10);
    let mut count = sent("alice@demo.test", 6);
    let limit = |most| Limit { window: HOUR, most };
    count.rule = Rule::Within(vec![limit(10), limit(20)]);
    assert_eq!(all.count(&count, START).value, 6);
    let full = all.count(&count, START).full.unwrap();
    assert_eq!((full.value, full.limit.most), (6, 10));
}

#[test]
fn the_oldest_make_room_and_only_for_their_own_kind() {
    let mut all = counters(5);
    all.count(&sent("alice@demo.test", 2), START);
    for host in 0..20 {
        all.count(&failed(&format!("192.0.2.{host}"), 1), after(host));
    }
    assert_eq!(all.sizes(Kind::AuthFailed), (5, 0));
    assert_eq!(all.take_dropped(Kind::AuthFailed), 15);
    assert_eq!(all.take_dropped(Kind::AuthFailed), 0);
    assert_eq!(all.count(&failed("192.0.2.19", 0), after(20)).value, 1);
    assert_eq!(all.count(&failed("192.0.2.1", 0), after(20)).value, 0);
    assert_eq!(all.count(&sent("alice@demo.test", 0), after(20)).value, 2);
    for host in 0..5 {
        all.count(&failed(&format!("198.51.100.{host}"), 9), after(30 + host));
    }
    let bans = all.bans(Kind::AuthFailed, after(40));
    let banned: Vec<_> = bans.iter().map(|ban| ban.key.subject()).collect();
    assert_eq!(banned, ["198.51.100.3/32", "198.51.100.4/32"]);
}

#[test]
fn a_person_can_look_and_clear_and_what_is_over_goes() {
    let mut all = counters(10);
    all.count(&failed("192.0.2.7", 2), START);
    all.count(&failed("192.0.2.8", 9), START);
    let listed = all.counters(Kind::AuthFailed, after(1));
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].value, listed[0].window), (2, 10 * MINUTE));
    assert!(all.clear(&key("auth_failed/192.0.2.8")));
    assert!(!all.clear(&key("auth_failed/192.0.2.8")));
    assert!(all.clear(&key("auth_failed/192.0.2.7/32")));
    assert_eq!(all.sizes(Kind::AuthFailed), (0, 0));
    all.count(&failed("192.0.2.7", 1), START);
    all.count(&failed("192.0.2.8", 9), START);
    all.tidy(after(61));
    assert_eq!(all.sizes(Kind::AuthFailed), (1, 0));
    all.tidy(after(660));
    assert_eq!(all.sizes(Kind::AuthFailed), (0, 0));
}

#[test]
fn a_restart_keeps_what_was_sent_and_who_is_banned() {
    let mut before = counters(10);
    before.count(&sent("alice@demo.test", 9), START);
    before.count(&failed("192.0.2.7", 2), START);
    before.count(&failed("192.0.2.8", 9), START);
    let mut after_it = counters(10);
    for kept in before.kept(after(1)) {
        after_it.restore(kept);
    }
    assert_eq!(
        after_it.count(&sent("alice@demo.test", 0), after(1)).value,
        9
    );
    assert!(
        after_it
            .count(&sent("alice@demo.test", 4), after(1))
            .full
            .is_some()
    );
    assert_eq!(after_it.count(&failed("192.0.2.7", 0), after(1)).value, 0);
    let banned = after_it.count(&failed("192.0.2.8", 0), after(1));
    assert_eq!((banned.value, banned.banned_until), (9, Some(after(60))));
}

#[test]
fn a_ban_of_a_clock_that_was_set_back_does_not_last() {
    let mut all = counters(10);
    all.count(&failed("192.0.2.7", 9), after(100_000));
    assert_eq!(all.count(&failed("192.0.2.7", 0), START).banned_until, None);
}
