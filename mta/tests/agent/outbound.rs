//! Leases in, outcomes back, and what the hosts heard in between.

use std::time::Duration;

use bytes::Bytes;
use postroad_address::ReversePath;
use postroad_envelope::{
    BodyKind, EditPlace, Envelope, Event, Fence, HeaderEdit, JobKey, LeaseRef, Outcome, QueueId,
    Recipient, RecipientIndex, Route, RouteClass, Timestamp,
};
use postroad_mta::{Config, TlsPolicy};
use postroad_net::{CertFiles, ServerTls};
use postroad_queue_client::{HandBack, Lease, QueueError, Settlement};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::fake_queue::FakeQueue;
use crate::host::{Host, Script, StartTls};
use crate::setup::{common, config, deps};

const PATIENCE: Duration = Duration::from_secs(60);
const ZONE: &str = "\
example.test.  MX 10 mx.test.
mx.test.       A  127.0.0.1
two.test.      MX 10 mx.test.
two.test.      MX 20 backup.test.
backup.test.   A  127.0.0.2
null.test.     MX 0 .
";
const CONTENT: &[u8] = b"Subject: hi\r\n\r\nhello\r\n.dot\r\n";

fn lease(destination: &str, local_parts: &[&str]) -> Lease {
    let queue_id = QueueId::from_bytes([7; 16]);
    let now = Timestamp::from(std::time::SystemTime::now());
    let sender = ReversePath::parse("alice@ours.test").unwrap();
    let mut envelope = Envelope::new(queue_id, sender, now);
    envelope.recipients = (0..)
        .zip(local_parts)
        .map(|(index, local)| {
            let address = format!("{local}@{destination}").parse().unwrap();
            Recipient::new(RecipientIndex(index), address)
        })
        .collect();
    envelope.size = CONTENT.len() as u64;
    Lease {
        lease: LeaseRef {
            job: JobKey {
                queue_id,
                number: 0,
            },
            revision: 1,
            fence: Fence {
                epoch: 1,
                counter: 1,
            },
        },
        duration: Duration::from_secs(60),
        route: Route {
            class: RouteClass::Relay,
            destination: destination.to_owned(),
            next_hop: None,
            rule: "mx".to_owned(),
        },
        attempt: 1,
        envelope,
        content: Some(Bytes::from_static(CONTENT)),
    }
}

/// What came of a lease.
struct Done {
    settled: Option<Settlement>,
    handed_back: Option<HandBack>,
    events: Vec<Event>,
}

impl Done {
    /// `0 delayed 4.4.1` for each recipient.
    fn outcomes(&self) -> Vec<String> {
        let settled = self.settled.as_ref().expect("settled");
        let one = |(index, outcome): &(RecipientIndex, Outcome)| {
            format!("{index} {} {}", outcome.action(), outcome.report().status)
        };
        settled.outcomes.iter().map(one).collect()
    }

    fn text(&self) -> &str {
        &self.settled.as_ref().expect("settled").outcomes[0]
            .1
            .report()
            .text
    }
}

/// Gives the lease to an agent and waits for what comes of it.
async fn run(config: Config, lease: Lease) -> Done {
    run_with(config, lease, &FakeQueue::default()).await
}

async fn run_with(config: Config, lease: Lease, queue: &FakeQueue) -> Done {
    let (told, mut tells) = mpsc::unbounded_channel();
    queue.with(|data| {
        data.leases.push(lease);
        data.told = Some(told);
    });
    let shutdown = CancellationToken::new();
    let (deps, common) = (deps(queue, ZONE), common());
    let agent = postroad_mta::serve(config, &common, deps, shutdown.clone());
    let wait = async {
        timeout(PATIENCE, tells.recv())
            .await
            .expect("the lease ends in time");
        shutdown.cancel();
    };
    let (served, ()) = tokio::join!(agent, wait);
    served.unwrap();
    queue.with(|data| Done {
        settled: data.settled.pop(),
        handed_back: data.handed_back.pop(),
        events: std::mem::take(&mut data.events),
    })
}

fn to_port(port: u16) -> Config {
    let mut config = config();
    config.outbound.port = port;
    config
}

/// A mail to `local_parts` at a host with this script.
async fn sent(script: Script, local_parts: &[&str]) -> (Done, Host) {
    let host = Host::start(script).await;
    let done = run(
        to_port(host.address.port()),
        lease("example.test", local_parts),
    )
    .await;
    (done, host)
}

/// Two hosts at the same port of two addresses, as `two.test` has them.
async fn two_hosts(first: Script, second: Script) -> (Host, Host) {
    loop {
        let host = Host::start(first.clone()).await;
        let address = format!("127.0.0.2:{}", host.address.port());
        let free = std::net::TcpListener::bind(&address).is_ok();
        if free {
            return (host, Host::start_at(address.parse().unwrap(), second).await);
        }
    }
}

fn server_tls(folder: &tempfile::TempDir) -> ServerTls {
    ServerTls::load(&[certificate(folder)]).unwrap()
}

pub fn certificate(folder: &tempfile::TempDir) -> CertFiles {
    let made = rcgen::generate_simple_self_signed(["mx.test".to_owned()]).unwrap();
    let files = CertFiles {
        cert_file: folder.path().join("cert.pem"),
        key_file: folder.path().join("key.pem"),
    };
    std::fs::write(&files.cert_file, made.cert.pem()).unwrap();
    std::fs::write(&files.key_file, made.signing_key.serialize_pem()).unwrap();
    files
}

#[tokio::test]
async fn a_mail_is_relayed_and_everybody_is_told() {
    let (done, host) = sent(Script::default(), &["bob"]).await;
    assert_eq!(done.outcomes(), ["0 relayed 2.0.0"]);
    let port = host.address.port();
    let said = format!("mx.test [127.0.0.1]:{port} took the mail: 250 2.0.0 queued as 42");
    assert_eq!(done.text(), said);
    assert_eq!(
        done.settled.as_ref().unwrap().site.as_deref(),
        Some("mx.test")
    );
    let heard = &host.heard()[0];
    let size = CONTENT.len();
    let mail = format!("MAIL FROM:<alice@ours.test> SIZE={size}");
    let commands = [
        "EHLO mta.ours.test",
        &mail,
        "RCPT TO:<bob@example.test>",
        "DATA",
    ];
    assert_eq!(heard.commands[..4], commands);
    assert_eq!(heard.content, b"Subject: hi\r\n\r\nhello\r\n..dot\r\n");
    let event = &done.events[0];
    assert_eq!(event.recipients, [RecipientIndex(0)]);
    assert_eq!(event.fields["relay"], format!("mx.test[127.0.0.1]:{port}"));
    assert_eq!(
        (event.fields["code"].as_str(), event.text.as_str()),
        ("250", said.as_str())
    );
}

#[tokio::test]
async fn rfc_5321_5_1_the_next_host_is_asked_when_one_has_no_time() {
    let ok = Script::default;
    for refusing in [
        Script {
            greeting: "421 4.3.2 busy",
            ..ok()
        },
        Script {
            greeting: "554 5.7.1 we do not like you",
            ..ok()
        },
        Script {
            greeting: "this is not SMTP",
            ..ok()
        },
        Script {
            mail: "451 4.7.1 greylisted",
            ..ok()
        },
        Script {
            mail: "421 4.7.0 leaving",
            ..ok()
        },
        Script {
            rcpt: vec![("bob", "421 4.7.0 leaving")],
            ..ok()
        },
        Script {
            hang_up_at: Some("greeting"),
            ..ok()
        },
        Script {
            hang_up_at: Some("EHLO"),
            ..ok()
        },
        Script {
            hang_up_at: Some("RCPT"),
            ..ok()
        },
        Script {
            hang_up_at: Some("DATA"),
            ..ok()
        },
    ] {
        let told = format!(
            "{} {} {:?}",
            refusing.greeting, refusing.mail, refusing.hang_up_at
        );
        let (first, second) = two_hosts(refusing, ok()).await;
        let config = to_port(first.address.port());
        let done = run(config, lease("two.test", &["bob"])).await;
        assert_eq!(done.outcomes(), ["0 relayed 2.0.0"], "{told}");
        assert_eq!(first.heard().len(), 1, "{told}");
        assert_eq!(second.heard().len(), 1, "{told}");
        assert!(
            done.text().starts_with("backup.test [127.0.0.2]"),
            "{}",
            done.text()
        );
    }
}

#[tokio::test]
async fn a_dead_host_is_passed_over_and_both_dead_is_a_delay() {
    let (first, second) = two_hosts(Script::default(), Script::default()).await;
    let port = first.address.port();
    drop(first);
    tokio::task::yield_now().await;
    let done = run(to_port(port), lease("two.test", &["bob"])).await;
    assert_eq!(done.outcomes(), ["0 relayed 2.0.0"]);
    drop(second);
    tokio::task::yield_now().await;
    let done = run(to_port(port), lease("two.test", &["bob"])).await;
    assert_eq!(done.outcomes(), ["0 delayed 4.4.1"]);
    for told in ["mx.test [127.0.0.1]", "backup.test [127.0.0.2]", "refused"] {
        assert!(done.text().contains(told), "{}", done.text());
    }
}

#[tokio::test]
async fn only_if_every_host_greets_with_5xx_it_is_for_good() {
    let no = |greeting| Script {
        greeting,
        ..Script::default()
    };
    let (first, _second) = two_hosts(no("554 5.7.1 go away"), no("554 no service")).await;
    let done = run(to_port(first.address.port()), lease("two.test", &["bob"])).await;
    assert_eq!(done.outcomes(), ["0 failed 5.0.0"]);
    assert!(done.text().contains("go away") && done.text().contains("no service"));
    let (first, _second) = two_hosts(no("554 5.7.1 go away"), no("421 4.3.2 later")).await;
    let done = run(to_port(first.address.port()), lease("two.test", &["bob"])).await;
    assert_eq!(done.outcomes(), ["0 delayed 4.3.2"]);
}

#[tokio::test]
async fn each_recipient_has_an_outcome_of_its_own() {
    let script = Script {
        rcpt: vec![
            ("later", "450 4.2.1 busy"),
            ("never", "550 5.1.1 no such user"),
            ("old", "550 no"),
        ],
        ..Script::default()
    };
    let (done, host) = sent(script, &["bob", "later", "never", "old", "eve"]).await;
    let expected = [
        "0 relayed 2.0.0",
        "1 delayed 4.2.1",
        "2 failed 5.1.1",
        "3 failed 5.0.0",
        "4 relayed 2.0.0",
    ];
    assert_eq!(done.outcomes(), expected);
    let report = done.settled.as_ref().unwrap().outcomes[2].1.report();
    assert_eq!(
        report.reply.as_ref().unwrap().to_string(),
        "550 5.1.1 no such user"
    );
    assert!(
        report.text.contains("said to RCPT TO: 550 5.1.1"),
        "{}",
        report.text
    );
    assert_eq!(host.heard().len(), 1);
    // One event for each different outcome.
    let told: Vec<usize> = done
        .events
        .iter()
        .map(|event| event.recipients.len())
        .collect();
    assert_eq!(told, [2, 1, 1, 1]);
}

#[tokio::test]
async fn a_refusal_of_mail_or_content_is_everybodys() {
    let ok = Script::default;
    for (script, expected) in [
        (
            Script {
                mail: "550 5.7.1 not you",
                ..ok()
            },
            "failed 5.7.1",
        ),
        (
            Script {
                data: "451 4.3.0 not now",
                ..ok()
            },
            "delayed 4.3.0",
        ),
        (
            Script {
                data: "554 5.0.0 never",
                ..ok()
            },
            "failed 5.0.0",
        ),
        (
            Script {
                end: "452 4.3.1 full",
                ..ok()
            },
            "delayed 4.3.1",
        ),
        (
            Script {
                end: "554 5.6.0 spam",
                ..ok()
            },
            "failed 5.6.0",
        ),
        (
            Script {
                end: "421 4.3.2 stopping",
                ..ok()
            },
            "delayed 4.3.2",
        ),
        (
            Script {
                mail: "451 4.7.1 greylisted",
                ..ok()
            },
            "delayed 4.7.1",
        ),
    ] {
        let (done, _host) = sent(script, &["bob", "eve"]).await;
        assert_eq!(
            done.outcomes(),
            [format!("0 {expected}"), format!("1 {expected}")]
        );
    }
}

#[tokio::test]
async fn rfc_1047_after_the_final_dot_no_other_host_is_asked() {
    let hangs_up = Script {
        hang_up_at: Some("."),
        ..Script::default()
    };
    let silent = Script {
        silent_at: Some("."),
        ..Script::default()
    };
    for script in [hangs_up, silent] {
        let (first, second) = two_hosts(script, Script::default()).await;
        let mut config = to_port(first.address.port());
        config.outbound.timeouts.end = postroad_daemon::Interval::millis(300);
        let done = run(config, lease("two.test", &["bob"])).await;
        assert_eq!(done.outcomes(), ["0 delayed 4.4.2"]);
        assert!(
            done.text().contains("may have taken the mail"),
            "{}",
            done.text()
        );
        assert!(second.heard().is_empty());
    }
}

#[tokio::test]
async fn a_silent_host_is_left_after_its_time() {
    for step in ["greeting", "EHLO", "MAIL", "RCPT", "DATA"] {
        let host = Host::start(Script {
            silent_at: Some(step),
            ..Script::default()
        })
        .await;
        let mut config = to_port(host.address.port());
        let timeouts = &mut config.outbound.timeouts;
        let short = postroad_daemon::Interval::millis(300);
        (timeouts.greeting, timeouts.command, timeouts.data) = (short, short, short);
        let done = run(config, lease("example.test", &["bob"])).await;
        assert_eq!(done.outcomes(), ["0 delayed 4.4.2"], "{step}");
        assert!(
            done.text().contains("did not answer in time"),
            "{step}: {}",
            done.text()
        );
    }
}

#[tokio::test]
async fn rfc_5321_3_2_a_host_without_ehlo_is_spoken_to_with_helo() {
    let (done, host) = sent(
        Script {
            ehlo: None,
            ..Script::default()
        },
        &["bob"],
    )
    .await;
    assert_eq!(done.outcomes(), ["0 relayed 2.0.0"]);
    let commands = &host.heard()[0].commands;
    assert_eq!(
        commands[1..3],
        ["HELO mta.ours.test", "MAIL FROM:<alice@ours.test>"]
    );
}

fn offering(starttls: StartTls) -> Script {
    Script {
        ehlo: Some(vec!["STARTTLS", "PIPELINING"]),
        starttls,
        ..Script::default()
    }
}

#[tokio::test]
async fn tls_is_used_where_it_is_offered() {
    let folder = tempfile::tempdir().unwrap();
    let script = offering(StartTls::Works(server_tls(&folder)));
    let (done, host) = sent(script, &["bob"]).await;
    assert_eq!(done.outcomes(), ["0 relayed 2.0.0"]);
    let heard = &host.heard()[0];
    assert!(heard.tls);
    assert_eq!(
        heard.commands[2], "EHLO mta.ours.test",
        "RFC 3207 §4.2: greeted again"
    );
    let report = done.settled.as_ref().unwrap().outcomes[0].1.report();
    let tls = report.remote.as_ref().unwrap().tls.as_ref().unwrap();
    assert_eq!(tls.version, "TLS1.3");
    assert!(
        done.events[0].fields["tls"].starts_with("TLS1.3 TLS_"),
        "{:?}",
        done.events
    );
}

#[tokio::test]
async fn rfc_7435_broken_tls_falls_back_to_plain_text_on_a_new_connection() {
    let (done, host) = sent(offering(StartTls::Breaks), &["bob"]).await;
    assert_eq!(done.outcomes(), ["0 relayed 2.0.0"]);
    assert_eq!(host.heard().len(), 2);
    let refused = StartTls::Refused("454 4.7.0 TLS not available");
    let (done, host) = sent(offering(refused), &["bob"]).await;
    assert_eq!(done.outcomes(), ["0 relayed 2.0.0"]);
    assert_eq!(
        host.heard().len(),
        1,
        "RFC 3207 §4: the same connection goes on"
    );
}

#[tokio::test]
async fn tls_can_be_required_or_switched_off() {
    let refused = StartTls::Refused("454 4.7.0 not now");
    for script in [
        Script::default(),
        offering(StartTls::Breaks),
        offering(refused),
    ] {
        let host = Host::start(script).await;
        let mut config = to_port(host.address.port());
        config.outbound.tls = TlsPolicy::Required;
        let done = run(config, lease("example.test", &["bob"])).await;
        assert_eq!(done.outcomes(), ["0 delayed 4.7.0"], "{}", done.text());
        let commands = host.heard()[0].commands.join(" ");
        assert!(!commands.contains("MAIL"), "{commands}");
    }
    let host = Host::start(offering(StartTls::Breaks)).await;
    let mut config = to_port(host.address.port());
    config.outbound.tls = TlsPolicy::None;
    let done = run(config, lease("example.test", &["bob"])).await;
    assert_eq!(
        (done.outcomes(), host.heard().len()),
        (vec!["0 relayed 2.0.0".to_owned()], 1)
    );
}

#[tokio::test]
async fn what_the_host_lacks_is_found_before_content_is_sent() {
    let small = Script {
        ehlo: Some(vec!["SIZE 10"]),
        ..Script::default()
    };
    let (done, host) = sent(small, &["bob"]).await;
    assert_eq!(done.outcomes(), ["0 failed 5.3.4"]);
    assert!(!host.heard()[0].commands.join(" ").contains("MAIL"));

    let bare = || Script {
        ehlo: Some(vec!["SIZE"]),
        ..Script::default()
    };
    let host = Host::start(bare()).await;
    let mut mail = lease("example.test", &["bob"]);
    mail.envelope.body = BodyKind::EightBitMime;
    let done = run(to_port(host.address.port()), mail).await;
    assert_eq!(done.outcomes(), ["0 failed 5.6.3"]);
    let mut mail = lease("example.test", &["bob"]);
    mail.envelope.smtputf8 = true;
    let done = run(to_port(host.address.port()), mail).await;
    assert_eq!(done.outcomes(), ["0 failed 5.6.7"]);
}

#[tokio::test]
async fn loops_are_found_by_name_and_by_count() {
    let ours = Script {
        greeting: "220 MTA.ours.test ESMTP",
        ..Script::default()
    };
    let (done, host) = sent(ours, &["bob"]).await;
    assert_eq!(done.outcomes(), ["0 failed 5.4.6"]);
    assert!(!host.heard()[0].commands.join(" ").contains("MAIL"));
    let mut mail = lease("example.test", &["bob"]);
    mail.envelope.hop_count = 101;
    assert_eq!(run(config(), mail).await.outcomes(), ["0 failed 5.4.6"]);
}

#[tokio::test]
async fn without_a_place_to_go_nothing_is_connected_to() {
    let host = Host::start(Script::default()).await;
    let mut closed = to_port(host.address.port());
    closed.outbound.allow_networks = Default::default();
    let done = run(closed, lease("example.test", &["bob"])).await;
    assert_eq!(done.outcomes(), ["0 failed 5.4.4"]);
    assert!(
        done.text().contains("mta.outbound.allow_networks"),
        "{}",
        done.text()
    );
    assert!(host.heard().is_empty());
    let done = run(config(), lease("null.test", &["bob"])).await;
    assert_eq!(done.outcomes(), ["0 failed 5.1.10"]);
    assert_eq!(done.settled.unwrap().site, None);
}

fn lmtp_to(host: &Host, local_parts: &[&str]) -> Lease {
    let mut lease = lease("example.test", local_parts);
    lease.route.class = RouteClass::Lmtp;
    lease.route.next_hop = Some(host.address.to_string().parse().unwrap());
    lease
}

#[tokio::test]
async fn rfc_2033_lmtp_answers_for_each_recipient() {
    let host = Host::start(Script {
        // The same name as ours is no loop here.
        greeting: "220 mta.ours.test LMTP",
        lmtp: true,
        rcpt: vec![("never", "550 5.1.1 unknown")],
        rcpt_end: vec![("full", "452 4.2.2 over quota"), ("spam", "554 5.7.1 no")],
        ..Script::default()
    })
    .await;
    let mail = lmtp_to(&host, &["bob", "never", "full", "spam"]);
    let done = run(config(), mail).await;
    let expected = [
        "0 relayed 2.0.0",
        "1 failed 5.1.1",
        "2 delayed 4.2.2",
        "3 failed 5.7.1",
    ];
    assert_eq!(done.outcomes(), expected);
    assert_eq!(host.heard()[0].commands[0], "LHLO mta.ours.test");
    let mut mail = lmtp_to(&host, &["bob"]);
    mail.route.next_hop = None;
    assert_eq!(run(config(), mail).await.outcomes(), ["0 delayed 4.3.5"]);
}

/// Lines of every kind: leading dots, 8-bit, empty, long.
fn large_body() -> Vec<u8> {
    let mut body = Vec::new();
    for number in 0..40_000_u32 {
        let line = match number % 5 {
            0 => format!(".{number} leads with a dot\r\n").into_bytes(),
            1 => b"..\r\n".to_vec(),
            // No bare line ends, as in everything that was accepted.
            2 => {
                let eight_bit = number.to_be_bytes().map(|octet| octet | 0x80);
                [b"8-bit \xe4 ".as_slice(), &eight_bit, b"\r\n"].concat()
            }
            3 => b"\r\n".to_vec(),
            _ => [vec![b'x'; 600], b"\r\n".to_vec()].concat(),
        };
        body.extend_from_slice(&line);
    }
    body
}

fn unstuffed(content: &[u8]) -> Vec<u8> {
    let mut lines = Vec::new();
    for line in content.split_inclusive(|&octet| octet == b'\n') {
        lines.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
    }
    lines
}

#[tokio::test]
async fn large_content_is_streamed_octet_for_octet_with_its_edits() {
    let header = b"Subject: large\r\nX-Gone: yes\r\n\r\n";
    let body = large_body();
    let content = [header.as_slice(), &body].concat();
    assert!(content.len() > 4 << 20, "{}", content.len());
    let mut mail = lease("example.test", &["bob"]);
    mail.content = None;
    mail.envelope.size = content.len() as u64;
    mail.envelope.header_edits = vec![
        HeaderEdit::Add {
            place: EditPlace::Top,
            field: b"Received: by us\r\n".to_vec(),
        },
        HeaderEdit::Remove {
            name: "x-gone".to_owned(),
            occurrence: None,
        },
    ];
    let queue = FakeQueue::default();
    queue.with(|data| data.content.insert(mail.envelope.queue_id, content.into()));
    let host = Host::start(Script::default()).await;
    let done = run_with(to_port(host.address.port()), mail, &queue).await;
    assert_eq!(done.outcomes(), ["0 relayed 2.0.0"]);
    let expected = [
        b"Received: by us\r\nSubject: large\r\n\r\n".as_slice(),
        &body,
    ]
    .concat();
    let heard = &host.heard()[0];
    assert!(
        unstuffed(&heard.content) == expected,
        "the content arrives as it was"
    );
    assert!(
        heard.commands[1].ends_with(&format!("SIZE={}", expected.len())),
        "{}",
        heard.commands[1]
    );
}

#[tokio::test]
async fn content_that_breaks_off_is_never_ended_with_a_dot() {
    let mut mail = lease("example.test", &["bob"]);
    let content = [b"Subject: x\r\n\r\n".to_vec(), large_body()].concat();
    mail.content = None;
    mail.envelope.size = content.len() as u64;
    let queue = FakeQueue::default();
    queue.with(|data| {
        data.content.insert(mail.envelope.queue_id, content.into());
        data.read_breaks_after = Some(300_000);
    });
    let host = Host::start(Script::default()).await;
    let done = run_with(to_port(host.address.port()), mail, &queue).await;
    assert_eq!(done.outcomes(), ["0 delayed 4.3.0"]);
    assert!(
        host.heard()[0].content.is_empty(),
        "no whole content arrived"
    );
}

#[tokio::test]
async fn two_hundred_recipients_go_in_one_transaction() {
    let names: Vec<String> = (0..200).map(|number| format!("user{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for extensions in [vec!["PIPELINING"], vec![]] {
        let script = Script {
            ehlo: Some(extensions),
            ..Script::default()
        };
        let (done, host) = sent(script, &names).await;
        assert_eq!(done.settled.unwrap().outcomes.len(), 200);
        assert_eq!(done.events.len(), 1);
        let heard = host.heard();
        let rcpts = heard[0]
            .commands
            .iter()
            .filter(|line| line.starts_with("RCPT"));
        assert_eq!((heard.len(), rcpts.count()), (1, 200));
    }
}

#[tokio::test]
async fn a_full_destination_hands_the_lease_back() {
    let host = Host::start(Script {
        silent_at: Some("greeting"),
        ..Script::default()
    })
    .await;
    let mut config = to_port(host.address.port());
    config.outbound.per_destination = 1;
    config.outbound.timeouts.greeting = postroad_daemon::Interval::seconds(30);
    let queue = FakeQueue::default();
    let mut other = lease("example.test", &["eve"]);
    other.lease.job.number = 1;
    queue.with(|data| data.leases.push(other));
    let mut common = common();
    common.shutdown_grace = postroad_daemon::Interval::millis(10);
    let (told, mut tells) = mpsc::unbounded_channel();
    queue.with(|data| {
        data.leases.push(lease("example.test", &["bob"]));
        data.told = Some(told);
    });
    let shutdown = CancellationToken::new();
    let agent = postroad_mta::serve(config, &common, deps(&queue, ZONE), shutdown.clone());
    let wait = async {
        timeout(PATIENCE, tells.recv()).await.unwrap();
        shutdown.cancel();
    };
    let (served, ()) = tokio::join!(agent, wait);
    served.unwrap();
    let done = queue.with(|data| Done {
        settled: data.settled.pop(),
        handed_back: data.handed_back.pop(),
        events: Vec::new(),
    });
    assert_eq!(done.handed_back.unwrap().reason, "limited");
    assert!(done.settled.is_none());
}

#[tokio::test]
async fn a_queue_that_cannot_be_read_delays() {
    let mut mail = lease("example.test", &["bob"]);
    mail.content = None;
    let done = run(to_port(2525), mail).await;
    assert_eq!(done.outcomes(), ["0 delayed 4.3.0"]);
    assert!(
        done.text().contains(&QueueError::NotFound.to_string()),
        "{}",
        done.text()
    );
}
