//! `postroad explain`, as it is typed.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use serde_json::Value;
use tempfile::TempDir;

const DIRECTORY: &str = r#"[[domain]]
name = "ours.test"
postmaster = "alice@ours.test"

[[account]]
address = "alice@ours.test"

[[account]]
address = "gone@ours.test"
disabled = true

[[alias]]
address = "team@ours.test"
to = ["alice@ours.test", "carol@far.test"]
"#;

const CONFIG: &str = r#"[common]
hostname = "mx.ours.test"
directory = "FOLDER/directory.toml"
state_dir = "FOLDER/state"
run_dir = "FOLDER/run"
[common.dns]
zone = "FOLDER/zone"

[queued]
relay_networks = ["192.0.2.0/24"]
retry = { first = "5m", give_up_after = "1h", jitter_percent = 0 }

[[queued.routes]]
domain = "partner.test"
class = "relay"
next_hops = [{ host = "a.partner.test:587", weight = 3 }, { host = "b.partner.test:587" }]

[[queued.routes]]
name = "big ones"
tag = "bulk"
class = "hold"

[mta.inbound]
size_limit = "2KiB"
relay_networks = ["192.0.2.0/24", "198.51.100.0/24"]
[mta.inbound.listeners]
smtp = "127.0.0.1:25"
[mta.outbound]
helo_name = "out.ours.test"
allow_networks = ["192.0.2.0/24", "203.0.113.0/24"]
[mta.outbound.tls_policies]
"verified.test" = "verify"
"#;

const ZONE: &str = "\
far.test.        MX 10 mx1.far.test.
far.test.        MX 20 mx2.far.test.
mx1.far.test.    A 203.0.113.1
mx2.far.test.    A 203.0.113.2
verified.test.   MX 10 mx1.far.test.
a.partner.test.  A 203.0.113.3
b.partner.test.  A 203.0.113.4
null.test.       MX 0 .
sts.test.        MX 10 mx1.far.test.
sts.test.        MX 20 mx2.far.test.
_mta-sts.sts.test. TXT \"v=STSv1; id=one;\"
";

struct Site {
    folder: TempDir,
}

impl Site {
    fn new() -> Self {
        let site = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        site.write("directory.toml", DIRECTORY);
        let text = CONFIG.replace("FOLDER", site.folder.path().to_str().unwrap());
        site.write("postroad.toml", &text);
        site.write("zone", ZONE);
        site
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        path
    }

    /// Status, standard output, standard error, with the folder's name taken out.
    fn explain(&self, words: &str) -> (u8, String, String) {
        let (mut out, mut talk) = (Vec::new(), Vec::new());
        let config = self.folder.path().join("postroad.toml");
        let all = ["postroad", "--config", config.to_str().unwrap(), "explain"];
        let all = all.into_iter().chain(words.split_whitespace());
        let status = postroad::execute(all.map(OsString::from), &mut out, &mut talk);
        let folder = format!("{}/", self.folder.path().display());
        let text = |octets: Vec<u8>| String::from_utf8(octets).unwrap().replace(&folder, "");
        (status, text(out), text(talk))
    }

    fn json(&self, words: &str) -> (u8, Value) {
        let (status, out, talk) = self.explain(&format!("{words} --json --no-queue"));
        (status, serde_json::from_str(&out).expect(&talk))
    }
}

#[test]
fn a_mail_to_the_world_is_told_from_its_sender_to_the_host() {
    let site = Site::new();
    let (status, out, talk) = site.explain("--from alice@ours.test --to bob@far.test --no-queue");
    let wanted = "\
mail from <alice@ours.test>
  comes      submitted by alice@ours.test, at listener submission
  tenant     default

bob@far.test
  taken      250 2.0.0
  directory  bob@far.test: not ours
  route      relay, mx   queued.foreign, default
  said       MAIL FROM:<alice@ours.test>
  limits     20 jobs of the destination at a time   queued.destination.max_leases, default
             20 of them at one mta   mta.outbound.per_destination, default
  to         the mail hosts of far.test
    dns      far.test MX: 10 mx1.far.test, 20 mx2.far.test
             mx1.far.test AAAA: ";
    assert!(out.starts_with(wanted), "{out}\n{talk}");
    for line in [
        "             mx1.far.test A: 203.0.113.1\n",
        "    site     mx1.far.test,mx2.far.test\n",
        "             20 connections at once, 3 while it is new   queued.sites, default\n",
        "    host     mx1.far.test [203.0.113.1]:25\n             TLS may (mta.outbound.tls), certificate: any   mta.outbound.tls, default\n",
        "             from any address, EHLO out.ours.test\n    host     mx2.far.test [203.0.113.2]:25\n",
        "  retry      after 5m, 10m, 20m, 25m   queued.retry, postroad.toml:11\n             given up after 1h\n",
    ] {
        assert!(out.contains(line), "{line}\n{out}");
    }
    assert_eq!(status, 0);
    assert!(talk.contains("no --eml was given"), "{talk}");
}

#[test]
fn a_rule_is_told_with_its_place_and_its_hosts_in_turn() {
    let site = Site::new();
    let (status, told) = site.json("--from alice@ours.test --to bob@partner.test");
    assert_eq!(status, 0, "{told}");
    let ending = &told["recipients"][0]["leads_to"][0];
    assert_eq!(ending["route"]["rule"], "route partner.test");
    let place = ending["route"]["place"].as_str().unwrap();
    let line = CONFIG
        .lines()
        .position(|line| line == "domain = \"partner.test\"");
    let wanted = format!("postroad.toml:{}", line.unwrap());
    assert!(
        place.starts_with("queued.routes[0], ") && place.ends_with(&wanted),
        "{place} {wanted}"
    );
    assert_eq!(
        ending["route"]["next_hops"],
        serde_json::json!(["a.partner.test:587 weight 3", "b.partner.test:587"])
    );
    let mut aims: Vec<&str> = ending["sending"]["places"]
        .as_array()
        .unwrap()
        .iter()
        .map(|place| place["aim"].as_str().unwrap())
        .collect();
    aims.sort_unstable();
    assert_eq!(aims, ["a.partner.test:587", "b.partner.test:587"]);
    let site_of = &ending["sending"]["places"][0]["site"]["name"];
    assert_eq!(*site_of, ending["sending"]["places"][0]["aim"]);

    let (status, told) = site.json("--from alice@ours.test --to bob@far.test --tag bulk");
    let route = &told["recipients"][0]["leads_to"][0]["route"];
    assert_eq!((status, route["class"].as_str()), (0, Some("hold")));
    assert_eq!(route["rule"], "route big ones");

    let (_, told) = site.json("--from alice@ours.test --to bob@verified.test");
    let host = &told["recipients"][0]["leads_to"][0]["sending"]["places"][0]["hosts"][0];
    assert_eq!(host["tls"]["level"], "verify");
    let place = host["tls"]["place"].as_str().unwrap();
    assert!(
        place.starts_with("mta.outbound.tls_policies.verified.test, "),
        "{place}"
    );
}

#[test]
fn what_the_directory_says_of_an_own_recipient_is_told_step_by_step() {
    let site = Site::new();
    let (status, out, _) =
        site.explain("--from x@else.test --to team@ours.test --ip 203.0.113.9 --no-queue");
    assert_eq!(status, 0, "{out}");
    for line in [
        "  comes      from the world, from 203.0.113.9, at listener smtp\n",
        "  directory  team@ours.test: alias   directory.toml:13\n",
        "               alice@ours.test: account   directory.toml:6\n",
        "               carol@far.test: not ours\n",
        "  to alice@ours.test\n    route      local, local domain   directory.toml:2\n",
        "  to carol@far.test\n    route      relay, mx   queued.foreign, default\n",
    ] {
        assert!(out.contains(line), "{line}\n{out}");
    }
    let (_, out, _) =
        site.explain("--from x@else.test --to postmaster --to abuse@ours.test --no-queue");
    let (postmaster, abuse) = out.split_once("\nabuse@ours.test\n").expect(&out);
    assert!(postmaster.contains("  route      local"), "{out}");
    assert!(
        abuse.contains("  route      where another of these goes"),
        "{out}"
    );
    for (to, words) in [
        ("gone@ours.test", "550 5.2.1"),
        ("nobody@ours.test", "550 5.1.1"),
    ] {
        let (status, out, _) = site.explain(&format!(
            "--from x@else.test --to {to} --ip 203.0.113.9 --no-queue"
        ));
        assert_eq!(status, 1);
        assert!(out.contains(&format!("  REFUSED    {words}")), "{out}");
    }
}

#[test]
fn whether_a_client_may_relay_is_asked_of_mta_and_queue() {
    let site = Site::new();
    let ask = |ip: &str| {
        let words = format!("--from x@else.test --to bob@far.test --ip {ip}");
        let (status, told) = site.json(&words);
        let recipient = &told["recipients"][0];
        let text = |key: &str| recipient[key].as_str().unwrap_or_default().to_owned();
        (status, text("reply"), text("remedy"))
    };
    assert_eq!(ask("192.0.2.7").0, 0);
    let (status, reply, remedy) = ask("203.0.113.9");
    assert_eq!(status, 1);
    assert!(reply.starts_with("550 5.7.1 relaying denied"), "{reply}");
    assert!(remedy.contains("mta.inbound.relay_networks"), "{remedy}");
    // The mta would, the queue would not.
    let (status, reply, remedy) = ask("198.51.100.1");
    assert_eq!(status, 1);
    assert!(reply.starts_with("451"), "{reply}");
    assert!(remedy.contains("queued.relay_networks"), "{remedy}");
}

#[test]
fn facts_of_a_mail_are_found_as_it_comes() {
    let site = Site::new();
    let mail = "Received: x\nReceived: y\nFrom: alice@ours.test\nMessage-ID: <one@ours.test>\nTLS-Required: No\nSubject: x\n\ngrüße\n";
    let eml = site.write("mail.eml", mail);
    let words = format!(
        "--from alice@ours.test --to bob@far.test --eml {}",
        eml.display()
    );
    let (status, told) = site.json(&words);
    assert_eq!(status, 0, "{told}");
    assert_eq!(told["mail"]["facts"]["message_id"], "<one@ours.test>");
    assert_eq!(told["mail"]["hops"], 2);
    assert_eq!(told["mail"]["size"], mail.len() + mail.lines().count());
    let sending = &told["recipients"][0]["leads_to"][0]["sending"];
    assert_eq!(sending["needs"], serde_json::json!(["8BITMIME"]));
    let why = &sending["places"][0]["hosts"][0]["tls"]["why"];
    assert!(why.as_str().unwrap().contains("TLS-Required: No"), "{why}");

    let forged = site.write("forged.eml", "From: eve@ours.test\n\nx\n");
    let words = format!(
        "--from alice@ours.test --to bob@far.test --eml {}",
        forged.display()
    );
    let (status, told) = site.json(&words);
    let reply = told["recipients"][0]["reply"].as_str().unwrap();
    assert_eq!(status, 1);
    assert!(
        reply.starts_with("550 5.7.1 alice@ours.test may not send as eve@ours.test"),
        "{reply}"
    );

    let large = site.write(
        "large.eml",
        &format!("From: x@else.test\n\n{}\n", "x".repeat(3000)),
    );
    let words = format!(
        "--from x@else.test --to alice@ours.test --ip 203.0.113.9 --eml {}",
        large.display()
    );
    let (status, told) = site.json(&words);
    assert_eq!(status, 1);
    let reply = told["recipients"][0]["reply"].as_str().unwrap();
    assert!(reply.contains("5.3.4"), "{reply}");
}

#[test]
fn what_cannot_be_sent_ends_with_1_and_what_cannot_be_asked_says_what_to_do() {
    let site = Site::new();
    let (status, told) = site.json("--from alice@ours.test --to bob@null.test --to a@far.test");
    assert_eq!(status, 1);
    let problem = |number: usize| {
        let sending = &told["recipients"][number]["leads_to"][0]["sending"];
        sending["places"][0]["problem"].clone()
    };
    assert_eq!(problem(0)["status"], "5.1.10");
    let retry = |number: usize| told["recipients"][number]["leads_to"][0]["retry"].clone();
    assert!(retry(0).is_null() && !retry(1).is_null(), "{told}");
    assert!(problem(1).is_null());
    for (words, status, said) in [
        (
            "--from alice --to b@far.test",
            2,
            "write an address such as",
        ),
        ("--from a@far.test --to b", 2, "write an address such as"),
        (
            "--from a@far.test --to b@far.test --listener none",
            3,
            "there are: smtp",
        ),
        (
            "--from a@far.test --to b@far.test --eml /none",
            1,
            "name a file that this user can read",
        ),
    ] {
        let (ended, _, talk) = site.explain(&format!("{words} --no-queue"));
        assert_eq!(ended, status, "{words}: {talk}");
        assert!(talk.contains(said), "{words}: {talk}");
    }
    assert!(
        !site.folder.path().join("state").exists(),
        "nothing is kept"
    );
    let (_, _, talk) = site.explain("--from alice@ours.test --to bob@far.test");
    assert!(
        talk.contains("note: the running queue was not asked"),
        "{talk}"
    );
}

#[test]
fn a_policy_that_is_kept_counts_and_one_that_is_not_is_left_alone() {
    let site = Site::new();
    let ask = || {
        let (status, told) = site.json("--from alice@ours.test --to bob@sts.test");
        let sending = &told["recipients"][0]["leads_to"][0]["sending"];
        (status, sending["places"][0].clone())
    };
    let (status, place) = ask();
    assert_eq!(status, 0, "{place}");
    assert_eq!(place["hosts"][0]["tls"]["level"], "may");
    let problem = place["mta_sts"]["problem"].as_str().unwrap();
    assert!(
        problem.contains("`postroad explain --fetch` does"),
        "{problem}"
    );

    let folder = site.folder.path().join("state/mta/mta-sts");
    fs::create_dir_all(&folder).unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let policy = "version: STSv1\nmode: enforce\nmx: mx1.far.test\nmax_age: 86400\n";
    let kept = format!("one {}\n{policy}", now.unwrap().as_secs());
    fs::write(folder.join("sts.test"), &kept).unwrap();
    fs::write(folder.join("damaged.test"), "x").unwrap();
    let (status, place) = ask();
    assert_eq!(status, 0, "{place}");
    let policy = place["mta_sts"]["policy"].as_str().unwrap();
    assert!(policy.starts_with("enforce for mx1.far.test"), "{policy}");
    assert!(place["mta_sts"]["fetched_at"].is_string(), "{place}");
    let hosts = &place["hosts"];
    assert_eq!(hosts[0]["tls"]["level"], "verify", "{place}");
    assert_eq!(hosts[1]["problem"]["status"], "4.7.0", "{place}");
    assert_eq!(fs::read_to_string(folder.join("sts.test")).unwrap(), kept);
    assert!(folder.join("damaged.test").exists(), "nothing is tidied up");
}

#[test]
fn a_report_of_the_queue_comes_by_no_listener() {
    let site = Site::new();
    let (status, told) = site.json("--from <> --to bob@far.test");
    assert_eq!(status, 0, "{told}");
    assert_eq!(told["mail"]["way"], "a report of the queue");
    assert!(told["recipients"][0]["reply"].is_null());
    assert_eq!(told["recipients"][0]["leads_to"][0]["route"]["rule"], "mx");
}
