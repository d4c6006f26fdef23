//! What is counted: usage, bans, counters.

use std::time::Duration;

use postroad_counters::{Count, Limit, Rule};
use postroad_queue_client::QueueService as _;
use serde_json::Value;

use super::site::Site;

#[test]
fn usage_tells_what_each_has() {
    let site = Site::new();
    let (status, out, talk) = site.run(&["queue", "usage"]);
    let nobody = "nobody has mail in the queue\n";
    assert_eq!((status, out.as_str(), talk.as_str()), (0, "", nobody));
    site.send(&["x@far.example", "y@other.example"]);
    site.send(&["z@far.example"]);
    let table = site.done(&["queue", "usage"]);
    let rows: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(rows[0], ["NAME", "MAILS", "OF", "SIZE", "OF", "FULL"]);
    assert_eq!(rows[1], ["tenant", "default", "2", "0.1", "KiB"]);
    assert_eq!(rows[2], ["domain", "far.example", "2", "0.1", "KiB"]);
    assert_eq!(rows[3], ["domain", "other.example", "1", "0.1", "KiB"]);
    let domains = site.json(&["queue", "usage", "--domain", "--limit", "1"]);
    assert_eq!(domains["schema"], 1);
    assert_eq!(domains["usages"].as_array().unwrap().len(), 1);
    let far = &domains["usages"][0];
    assert_eq!(far["name"], "far.example");
    assert_eq!((&far["mails"], &far["size"]), (&2.into(), &44.into()));
    assert_eq!(far["most_mails"], Value::Null);
    let both = site.run(&["queue", "usage", "--domain", "--tenant"]);
    assert_eq!(both.0, 2);
    site.end();
}

#[test]
fn bans_and_counters_are_shown_and_cleared() {
    let site = Site::new();
    let (status, out, talk) = site.run(&["queue", "bans"]);
    assert_eq!(
        (status, out.as_str(), talk.as_str()),
        (0, "", "nobody is banned\n")
    );
    assert_eq!(site.run(&["queue", "unban", "192.0.2.7"]).0, 3);
    let count = |key: &str, add| {
        let rule = Rule::Ban {
            limit: Limit {
                window: Duration::from_secs(600),
                most: 9,
            },
            ban: Duration::from_secs(600),
        };
        let key = key.parse().unwrap();
        let counted = site.queue.count(Count { key, add, rule });
        site.runtime.block_on(counted).unwrap();
    };
    count("auth_failed/192.0.2.7", 10);
    count("auth_failed/2001:db8::/64", 11);
    count("auth_failed/192.0.2.8", 3);
    count("sent/bob@a.example", 7);

    let rows = |verb: &[&str]| -> Vec<Vec<String>> {
        let table = site.done(verb);
        let row = |line: &str| line.split_whitespace().take(4).map(str::to_owned).collect();
        table.lines().map(row).collect()
    };
    let bans = rows(&["queue", "bans"]);
    assert_eq!(bans[0], ["KIND", "OF", "COUNT", "SINCE"]);
    assert_eq!(bans.len(), 3);
    assert!(
        bans.iter()
            .any(|ban| ban[..3] == ["auth_failed", "192.0.2.7/32", "10"])
    );
    let told = site.json(&["queue", "bans", "--limit", "1"]);
    assert_eq!((&told["schema"], &told["total"]), (&1.into(), &2.into()));
    assert_eq!(told["bans"].as_array().unwrap().len(), 1);
    let counters = rows(&["queue", "counters"]);
    assert_eq!(counters[0], ["KIND", "OF", "COUNT", "WITHIN"]);
    assert_eq!(counters[1], ["sent", "bob@a.example", "7", "10m"]);
    assert_eq!(counters[2], ["auth_failed", "192.0.2.8/32", "3", "10m"]);
    let sent = site.json(&["queue", "counters", "sent"]);
    assert_eq!(sent["counters"][0]["key"], "sent/bob@a.example");
    assert_eq!(sent["counters"][0]["window_s"], 600);

    // An address in a banned network lifts it; what is no network and no name is a matter of usage.
    assert_eq!(
        site.done(&["queue", "unban", "2001:db8::5"]),
        "bans cleared: auth_failed/2001:db8::/64\n"
    );
    assert_eq!(site.run(&["queue", "unban", "a.example"]).0, 2);
    assert_eq!(site.run(&["queue", "unban", "bob@a.example"]).0, 3);
    assert_eq!(rows(&["queue", "bans"]).len(), 2);
    site.done(&[
        "queue",
        "clear-counter",
        "sent/bob@a.example",
        "auth_failed/192.0.2.8",
    ]);
    assert_eq!(
        site.run(&["queue", "clear-counter", "sent/bob@a.example"])
            .0,
        3
    );
    assert_eq!(site.run(&["queue", "clear-counter", "bob@a.example"]).0, 2);
    site.done(&["queue", "unban", "0.0.0.0/0"]);
    let (.., talk) = site.run(&["queue", "counters"]);
    assert_eq!(talk, "nothing is counted at the moment\n");
    site.end();
}
