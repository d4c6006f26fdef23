//! The verbs of `postroad queue` and `postroad agent`, as they are typed, against a queue behind its sockets.

use std::ffi::OsString;
use std::fs;
use std::time::Duration;

use bytes::Bytes;
use postroad_address::ReversePath;
use postroad_counters::{Count, Limit, Rule};
use postroad_daemon::CommonConfig;
use postroad_directory::DirectoryHandle;
use postroad_envelope::{
    EditPlace, Envelope, HeaderEdit, QueueId, Recipient, RecipientIndex, RouteClass, Timestamp,
};
use postroad_metrics::Metrics;
use postroad_queue_client::{Completion, QueueService, WorkChannel, WorkDown, WorkHello};
use postroad_queued::LocalQueue;
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const DIRECTORY: &str = "[[domain]]\nname = \"a.example\"\npostmaster = \"bob@a.example\"\n\n\
                         [[account]]\naddress = \"bob@a.example\"\n";

/// A queue, its sockets and its configuration in a folder.
struct Site {
    folder: TempDir,
    runtime: Runtime,
    queue: LocalQueue,
    stop: CancellationToken,
    running: Vec<JoinHandle<()>>,
}

impl Site {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().display().to_string();
        fs::write(folder.path().join("directory.toml"), DIRECTORY).unwrap();
        let config = format!(
            "[common]\nhostname = \"mx.a.example\"\ndirectory = \"{path}/directory.toml\"\n\
             state_dir = \"{path}\"\nrun_dir = \"{path}\"\nqueue = \"unix:{path}/queue.sock\"\n\
             [queued.disk]\nreserve_percent = 0\nreserve = \"0B\"\n"
        );
        fs::write(folder.path().join("postroad.toml"), config).unwrap();
        let common = CommonConfig {
            hostname: "mx.a.example".parse().unwrap(),
            state_dir: folder.path().to_owned(),
            run_dir: folder.path().to_owned(),
            queue: format!("unix:{path}/queue.sock").into(),
            directory: folder.path().join("directory.toml"),
            ..CommonConfig::default()
        };
        let mut config = postroad_queued::Config::default();
        config.disk.reserve_percent = 0;
        config.disk.reserve = postroad_daemon::ByteSize::bytes(0);
        let runtime = Runtime::new().unwrap();
        let stop = CancellationToken::new();
        let (queue, running) = runtime.block_on(async {
            let directory = DirectoryHandle::open(&common.directory).unwrap();
            let (queue, running) =
                postroad_queued::start(config, &common, directory, &Metrics::new("queued"))
                    .await
                    .unwrap();
            let (serving, stopping, ending) = (queue.clone(), stop.clone(), stop.clone());
            let sockets = tokio::spawn(async move {
                postroad_queued::serve_rpc(&serving, &common, stopping)
                    .await
                    .unwrap();
            });
            let running = tokio::spawn(async move {
                running.run(ending, Duration::ZERO).await.unwrap();
            });
            (queue, vec![sockets, running])
        });
        let site = Self {
            folder,
            runtime,
            queue,
            stop,
            running,
        };
        while !site.folder.path().join("queue-admin.sock").exists() {
            std::thread::yield_now();
        }
        site
    }

    /// Status, standard output, standard error.
    fn run(&self, arguments: &[&str]) -> (u8, String, String) {
        let (mut out, mut talk) = (Vec::new(), Vec::new());
        let config = self.folder.path().join("postroad.toml");
        let all = ["postroad", "--config", config.to_str().unwrap()];
        let all = all.iter().chain(arguments).map(OsString::from);
        let status = postroad::execute(all, &mut out, &mut talk);
        let text = |octets: Vec<u8>| String::from_utf8(octets).unwrap();
        (status, text(out), text(talk))
    }

    fn done(&self, arguments: &[&str]) -> String {
        let (status, out, talk) = self.run(arguments);
        assert_eq!(status, 0, "{arguments:?}: {talk}");
        out
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let all: Vec<&str> = arguments.iter().chain(&["--json"]).copied().collect();
        serde_json::from_str(&self.done(&all)).unwrap()
    }

    /// So many mails at one time.
    fn send_many(&self, count: usize, to: &str) {
        let submit = async |number: usize| {
            let now = Timestamp::from(std::time::SystemTime::now());
            let mut envelope = Envelope::new(
                QueueId::mint(now, rand::random()),
                ReversePath::parse("bob@a.example").unwrap(),
                now,
            );
            envelope.recipients = vec![Recipient::new(RecipientIndex(0), to.parse().unwrap())];
            envelope.tags = vec![format!("t{}", number % 2)];
            let submission = self.queue.submit(envelope).await.unwrap();
            submission.finish(Completion::default()).await.unwrap();
        };
        self.runtime.block_on(async {
            for part in (0..count).collect::<Vec<_>>().chunks(200) {
                futures::future::join_all(part.iter().map(|&number| submit(number))).await;
            }
        });
    }

    fn send(&self, to: &[&str]) -> String {
        let now = Timestamp::from(std::time::SystemTime::now());
        let id = QueueId::mint(now, rand::random());
        let sender = ReversePath::parse("bob@a.example").unwrap();
        let mut envelope = Envelope::new(id, sender, now);
        envelope.recipients = (0..)
            .zip(to)
            .map(|(index, to)| Recipient::new(RecipientIndex(index), to.parse().unwrap()))
            .collect();
        envelope.header_edits = vec![HeaderEdit::Add {
            place: EditPlace::Top,
            field: b"Received: by here\r\n".to_vec(),
        }];
        let content = Bytes::from_static(b"Subject: hello\r\n\r\nhi\r\n");
        self.runtime.block_on(async {
            let mut submission = self.queue.submit(envelope).await.unwrap();
            let size = content.len().try_into().unwrap();
            submission.chunk(content).await.unwrap();
            let completion = Completion {
                size,
                ..Completion::default()
            };
            submission.finish(completion).await.unwrap();
        });
        id.to_string()
    }

    /// A worker that takes nothing.
    fn worker(&self) -> WorkChannel {
        let hello = WorkHello {
            stores: Vec::new(),
            agent: "mda@here".to_owned(),
            version: "0".to_owned(),
            host: "here".to_owned(),
            classes: vec![RouteClass::Local],
            held: Vec::new(),
            former: None,
        };
        self.runtime.block_on(self.queue.work(hello)).unwrap()
    }

    fn end(self) {
        self.stop.cancel();
        for task in self.running {
            self.runtime.block_on(task).unwrap();
        }
    }
}

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

    // An address in a banned network lifts it; what is no network is a matter of usage.
    assert_eq!(
        site.done(&["queue", "unban", "2001:db8::5"]),
        "bans cleared: auth_failed/2001:db8::/64\n"
    );
    assert_eq!(site.run(&["queue", "unban", "bob@a.example"]).0, 2);
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
