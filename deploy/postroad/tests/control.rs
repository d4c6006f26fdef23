//! The verbs of `postroad queue` and `postroad agent`, as they are typed, against a queue behind its sockets.

#[path = "control/counted.rs"]
mod counted;
#[path = "control/site.rs"]
mod site;
#[path = "control/sites.rs"]
mod sites;

use std::fs;

use postroad_queue_client::WorkDown;
use serde_json::Value;

use site::Site;

#[test]
fn stats_tell_what_waits_where() {
    let site = Site::new();
    let (status, out, talk) = site.run(&["queue", "stats"]);
    assert_eq!(
        (status, out.as_str(), talk.as_str()),
        (0, "", "the queue is empty\n")
    );
    site.send(&["x@far.example", "y@other.example"]);
    let held = site.send(&["z@far.example"]);
    assert_eq!(site.done(&["queue", "hold", &held]), "1 mail held\n");
    let table = site.done(&["queue", "stats"]);
    let rows: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split_whitespace().take(5).collect())
        .collect();
    assert_eq!(rows[0], ["DESTINATION", "DUE", "DELAYED", "LEASED", "HELD"]);
    assert_eq!(rows[1], ["far.example", "1", "0", "0", "1"]);
    assert_eq!(rows[2], ["other.example", "1", "0", "0", "0"]);
    assert_eq!(rows[3], ["all", "2", "0", "0", "1"]);
    let few = site.done(&["queue", "stats", "--limit", "1"]);
    let names: Vec<&str> = few
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert_eq!(names, ["DESTINATION", "far.example", "others", "all"]);
    let (status, out, talk) = site.run(&["queue", "stats", "--by-site"]);
    assert_eq!((status, out.as_str()), (0, ""));
    assert!(talk.starts_with("no site is known"), "{talk}");
    let json = site.json(&["queue", "stats", "--limit", "1"]);
    assert_eq!(
        (json["sum"]["due"].as_u64(), json["sum"]["held"].as_u64()),
        (Some(2), Some(1))
    );
    assert_eq!(
        (json["total"].as_u64(), json["schema"].as_u64()),
        (Some(2), Some(1))
    );
    assert_eq!(json["destinations"][0]["held"], 1);
    site.end();
}

#[test]
fn what_ends_more_than_one_mail_is_asked_about() {
    let site = Site::new();
    let one = site.send(&["x@far.example"]);
    site.send(&["y@far.example"]);
    for verb in ["drop", "fail", "expire"] {
        let all = ["queue", verb, "--all"];
        let (status, out, talk) = site.run(&all);
        assert_eq!((status, out.as_str()), (1, ""), "{talk}");
        assert!(
            talk.contains("2 mails?") && talk.contains("--yes"),
            "{talk}"
        );
        let json = site.json(&["queue", verb, "--all", "--dry-run"]);
        assert_eq!(json["mails"], 2);
        assert_eq!(json["dry_run"], true);
    }
    let listed = |site: &Site| {
        site.json(&["queue", "list"])["mails"]
            .as_array()
            .unwrap()
            .len()
    };
    assert_eq!(listed(&site), 2, "nothing was done");
    assert_eq!(
        site.done(&["queue", "drop", "--all", "--dry-run"]),
        "2 mails would be dropped\n"
    );
    let why = ["queue", "fail", &one[..20], "--reason", "a mistake"];
    assert_eq!(site.done(&why), "1 mail given up\n");
    let trace = site.done(&["trace", &one]);
    assert!(trace.contains("a mistake"), "{trace}");
    let admin = site.json(&["trace", &one, "--kind", "admin"]);
    let events = admin["events"].as_array().unwrap();
    assert!(!events.is_empty() && events.iter().all(|event| event["event"] == "admin"));
    assert_eq!(site.run(&["trace", &one, "--kind", "verdict"]).0, 3);
    assert_eq!(site.run(&["trace", &one, "--kind", "gossip"]).0, 2);
    assert_eq!(site.run(&["trace"]).0, 2, "of which mail?");
    let rest = ["queue", "expire", "--destination", "far.example", "--yes"];
    assert_eq!(site.done(&rest), "1 mail given up\n");
    assert_eq!(site.run(&rest).0, 3, "nothing fits any more");
    site.end();
}

#[test]
fn mail_is_rerouted_and_given_priority() {
    let site = Site::new();
    let id = site.send(&["x@far.example"]);
    assert_eq!(site.run(&["queue", "reroute", &id]).0, 2, "where to?");
    let lmtp = ["queue", "reroute", &id, "--class", "lmtp"];
    assert_eq!(site.run(&lmtp).0, 2, "to which host?");
    let there = [&lmtp[..], &["--next-hop", "store.example:24"]].concat();
    assert_eq!(site.done(&there), "1 mail rerouted\n");
    let shown = site.json(&["queue", "show", &id]);
    assert_eq!(shown["recipients"][0]["route"], "lmtp");
    assert_eq!(shown["recipients"][0]["rule"], "rerouted");
    assert_eq!(site.run(&["queue", "priority", "10", &id]).0, 2);
    assert_eq!(
        site.done(&["queue", "priority", "-3", &id]),
        "1 mail given another priority\n"
    );
    site.end();
}

#[test]
fn a_recipient_that_was_dropped_is_told_from_those_that_wait() {
    let site = Site::new();
    let id = site.send(&["x@far.example", "y@other.example"]);
    let dropped = site.done(&["queue", "drop", "--destination", "far.example"]);
    assert_eq!(dropped, "1 mail dropped\n");
    let shown = site.json(&["queue", "show", &id]);
    let recipients = shown["recipients"].as_array().unwrap();
    let states: Vec<&Value> = recipients.iter().map(|one| &one["state"]).collect();
    assert_eq!(states, ["dropped", "due"], "{shown}");
    let table = site.done(&["queue", "show", &id]);
    let row = table.lines().find(|line| line.contains("x@far.example"));
    assert!(row.unwrap().contains("dropped"), "{table}");
    site.end();
}

#[test]
fn agents_are_listed_and_drained() {
    let site = Site::new();
    let (status, _, talk) = site.run(&["agent", "list"]);
    assert_eq!(
        (status, talk.as_str()),
        (0, "no agent takes mail from the queue\n")
    );
    assert_eq!(site.run(&["agent", "drain", "mda@here"]).0, 3);
    let mut worker = site.worker();
    let json = site.json(&["agent", "list"]);
    assert_eq!(json["agents"][0]["name"], "mda@here");
    assert_eq!(json["agents"][0]["state"], "working");
    assert_eq!(
        site.done(&["agent", "drain", "mda@here"]),
        "mda@here gets no more mail until it connects again\n"
    );
    let heard = site.runtime.block_on(async {
        let welcome = futures::StreamExt::next(&mut worker.down).await;
        assert!(matches!(welcome, Some(Ok(WorkDown::Welcome { .. }))));
        futures::StreamExt::next(&mut worker.down).await
    });
    assert_eq!(heard, Some(Ok(WorkDown::Drain)));
    let table = site.done(&["agent", "list"]);
    let row = table.lines().nth(1).unwrap_or_default();
    assert!(
        row.starts_with("mda@here") && row.ends_with("drained"),
        "{table}"
    );
    drop(worker);
    site.end();
}

#[test]
fn content_is_shown_as_it_would_leave() {
    let site = Site::new();
    let id = site.send(&["x@far.example"]);
    let shown = site.json(&["queue", "show", &id]);
    assert_eq!(
        shown["header"],
        "Received: by here\r\nSubject: hello\r\n\r\n"
    );
    assert_eq!(shown["header_cut"], false);
    assert!(
        site.done(&["queue", "show", &id])
            .contains("\n\nReceived: by here\nSubject: hello\n")
    );
    assert_eq!(
        site.done(&["queue", "show", &id, "--content"]),
        "Received: by here\nSubject: hello\n\nhi\n"
    );
    let file = site.folder.path().join("mail");
    let to_file = ["queue", "show", &id, "--content", file.to_str().unwrap()];
    let (status, out, talk) = site.run(&to_file);
    assert_eq!((status, out.as_str()), (0, ""), "{talk}");
    let whole: &[u8] = b"Received: by here\r\nSubject: hello\r\n\r\nhi\r\n";
    assert_eq!(fs::read(&file).unwrap(), whole);
    assert_eq!(site.run(&to_file).0, 1, "no file is written over");
    site.end();
}

#[test]
fn rules_hold_mail_as_it_comes() {
    let site = Site::new();
    let put = [
        "queue",
        "rule",
        "put",
        "far",
        "--destination",
        "far.example",
    ];
    assert_eq!(
        site.run(&["queue", "rule", "put", "far"]).0,
        1,
        "which mail?"
    );
    assert_eq!(site.done(&put), "rule far holds mail from now on\n");
    let id = site.send(&["x@far.example"]);
    assert_eq!(site.json(&["queue", "show", &id])["state"], "held");
    let rules = site.json(&["queue", "rule", "list"]);
    assert_eq!(rules["rules"][0]["name"], "far");
    assert_eq!(rules["rules"][0]["held"], 1);
    assert_eq!(rules["rules"][0]["filter"]["destination"], "far.example");
    let table = site.done(&["queue", "rule", "list"]);
    assert!(table.contains("to far.example"), "{table}");
    let listed = site.json(&["queue", "list", "--hold-rule", "far"]);
    assert_eq!(listed["mails"][0]["queue_id"], id.as_str());
    assert_eq!(
        site.done(&["queue", "rule", "remove", "far", "--release"]),
        "rule far is gone\n1 mail released\n"
    );
    assert_eq!(site.run(&["queue", "rule", "remove", "far"]).0, 3);
    site.end();
}

#[test]
fn many_mails_are_listed_and_changed_in_parts() {
    let site = Site::new();
    site.send_many(1100, "x@far.example");
    let one = site.send(&["y@far.example"]);
    let listed = site.json(&["queue", "list", "--limit", "5000"]);
    assert_eq!(listed["mails"].as_array().unwrap().len(), 1101);
    assert_eq!(listed["next"], Value::Null);
    let newest = site.json(&["queue", "list", "--newest-first", "--limit", "1"]);
    assert_eq!(newest["mails"][0]["queue_id"], one.as_str());
    let table = site.done(&["queue", "list", "--tag", "t1", "--limit", "5000"]);
    assert_eq!(table.lines().count(), 551, "one line of headings");

    let json = site.json(&["queue", "hold", "--all", "--dry-run"]);
    assert_eq!(
        (json["mails"].as_u64(), json["dry_run"].as_bool()),
        (Some(1101), Some(true))
    );
    assert_eq!(
        site.done(&["queue", "hold", "--destination", "far.example"]),
        "1101 mails held\n"
    );
    let held = ["--state", "held", "--min-size", "1B"];
    let listed = site.json(&[&["queue", "list"][..], &held].concat());
    assert_eq!(listed["mails"].as_array().unwrap().len(), 1);
    assert_eq!(
        site.done(&["queue", "release", "--tag", "t0"]),
        "550 mails released\n"
    );
    let (status, _, talk) = site.run(&["queue", "drop"]);
    assert_eq!(status, 2, "{talk}");
    let (status, _, talk) = site.run(&["queue", "drop", "--all"]);
    assert!(status == 1 && talk.contains("Drop 1101 mails?"), "{talk}");
    assert_eq!(
        site.done(&["queue", "drop", "--all", "--yes"]),
        "1101 mails dropped\n"
    );
    assert_eq!(site.run(&["queue", "list"]).2, "no mail fits\n");
    site.end();
}
