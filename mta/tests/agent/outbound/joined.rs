//! A mail to several domains behind the same mail hosts: one transaction, and what each of its jobs is told.

use postroad_envelope::{NextHop, WeightedHop};

use super::*;

const ZONE: &str = "\
one.test.      MX 10 mx.test.
two.test.      MX 10 mx.test.
three.test.    MX 10 mx.test.
far.test.      MX 10 far.mx.test.
mx.test.       A  127.0.0.1
far.mx.test.   A  127.0.0.2
";

/// The jobs of one mail in a row, one for each domain, with a recipient each.
fn row(domains: &[&str]) -> Vec<Lease> {
    let numbered = (0_u32..).zip(domains);
    let row = numbered.map(|(number, domain)| {
        let mut job = lease(domain, &["bob"]);
        job.lease.job.number = number;
        job.lease.fence.counter = u64::from(number) + 1;
        job.envelope.recipients[0].index = RecipientIndex(number);
        job.content = job.content.filter(|_| number == 0);
        job.followed_by = u32::try_from(domains.len()).unwrap() - number - 1;
        // All jobs of a mail came at one time.
        job.envelope.received_at = Timestamp::from_millis(1_800_000_000_000);
        job
    });
    row.collect()
}

struct Sent {
    settled: Vec<Settlement>,
    events: Vec<Event>,
    joins: bool,
}

impl Sent {
    /// `0 delayed 4.4.1` for each recipient, by job.
    fn outcomes(&self) -> Vec<String> {
        let mut jobs: Vec<&Settlement> = self.settled.iter().collect();
        jobs.sort_by_key(|job| job.lease.job.number);
        let each = jobs.into_iter().map(|job| {
            let [(index, outcome)] = &job.outcomes[..] else {
                panic!("one recipient each: {:?}", job.outcomes)
            };
            assert_eq!(index.0, job.lease.job.number, "its own recipient");
            format!("{index} {} {}", outcome.action(), outcome.report().status)
        });
        each.collect()
    }

    /// Of each job, whether it says that it went with another.
    fn joined(&self) -> Vec<bool> {
        let results = self.settled.iter().map(|job| job.sites[0].result.as_ref());
        let mut joined: Vec<bool> = results.map(|result| result.unwrap().joined).collect();
        joined.sort_unstable();
        joined
    }
}

/// Works these rows off, one mail after the other.
async fn send_all(config: Config, rows: Vec<Vec<Lease>>) -> Sent {
    work_off(&FakeQueue::default(), config, rows).await
}

async fn work_off(queue: &FakeQueue, config: Config, rows: Vec<Vec<Lease>>) -> Sent {
    let (told, mut tells) = mpsc::unbounded_channel();
    let jobs = rows.iter().map(Vec::len).sum::<usize>();
    queue.with(|data| {
        // The last one is given first.
        data.leases = rows.into_iter().flatten().rev().collect();
        data.told = Some(told);
    });
    let shutdown = CancellationToken::new();
    let (deps, common) = (deps(queue, ZONE).await, common());
    let agent = postroad_mta::serve(config, &common, deps, shutdown.clone());
    let wait = async {
        for _ in 0..jobs {
            let told = timeout(PATIENCE, tells.recv()).await;
            told.expect("each job ends in time");
        }
        shutdown.cancel();
    };
    let (served, ()) = tokio::join!(agent, wait);
    served.unwrap();
    queue.with(|data| Sent {
        settled: std::mem::take(&mut data.settled),
        events: std::mem::take(&mut data.events),
        joins: data.joins,
    })
}

async fn send_to(script: Script, domains: &[&str]) -> (Sent, Host) {
    let host = Host::start(script).await;
    let sent = send_all(to_port(host.address.port()), vec![row(domains)]).await;
    (sent, host)
}

const THREE: &[&str] = &["one.test", "two.test", "three.test"];
const TAKEN: &[&str] = &["0 relayed 2.0.0", "1 relayed 2.0.0", "2 relayed 2.0.0"];

/// The recipients' domains of each transaction that was begun.
fn transactions(host: &Host) -> Vec<Vec<String>> {
    let mut all: Vec<Vec<String>> = Vec::new();
    for command in host.heard().iter().flat_map(|heard| &heard.commands) {
        if command.starts_with("MAIL") {
            all.push(Vec::new());
        }
        if let (Some((_, domain)), Some(last)) = (command.split_once('@'), all.last_mut())
            && command.starts_with("RCPT")
        {
            last.push(domain.trim_end_matches('>').to_owned());
        }
    }
    all
}

#[tokio::test]
async fn a_mail_goes_once_to_domains_behind_the_same_hosts() {
    let (sent, host) = send_to(Script::default(), THREE).await;
    assert_eq!(sent.outcomes(), TAKEN);
    assert_eq!(transactions(&host), [THREE]);
    assert!(sent.joins, "the queue is told that this worker joins");
    assert_eq!(
        sent.joined(),
        [false, true, true],
        "one of them tells of the site"
    );
    let mut sites = sent.settled.iter().map(|job| &job.sites);
    assert!(sites.all(|sites| sites.len() == 1 && sites[0].site == "mx.test"));
    assert_eq!(sent.events.len(), 3);
    for event in &sent.events {
        assert_eq!(event.fields["joined"], "3");
        assert_eq!(event.recipients.len(), 1);
    }
    let content = &host.heard()[0].content;
    assert!(content.starts_with(b"Subject: hi"), "{content:?}");
}

#[tokio::test]
async fn each_job_hears_what_was_said_of_its_recipients() {
    let mut jobs = row(THREE);
    let names = ["nobody", "bob", "full"];
    for (job, name) in jobs.iter_mut().zip(names) {
        let address = format!("{name}@{}", job.route.destination);
        job.envelope.recipients[0].address = address.parse().unwrap();
    }
    let script = Script {
        rcpt: vec![
            ("nobody", "550 5.1.1 no such user"),
            ("full", "452 4.2.2 full"),
        ],
        ..Script::default()
    };
    let host = Host::start(script).await;
    let sent = send_all(to_port(host.address.port()), vec![jobs]).await;
    let expected = ["0 failed 5.1.1", "1 relayed 2.0.0", "2 delayed 4.2.2"];
    assert_eq!(sent.outcomes(), expected);
    assert_eq!(transactions(&host).len(), 1);
}

/// What was to follow is given anew, by a queue that still knows of it.
#[tokio::test]
async fn a_row_that_breaks_off_with_its_stream_is_sent_as_far_as_it_came() {
    for came in [1, 2] {
        let queue = FakeQueue::default();
        queue.with(|data| data.stream_breaks_after = Some(came));
        let host = Host::start(Script::default()).await;
        let config = to_port(host.address.port());
        let mut jobs = row(THREE);
        // The first of those that are given anew.
        jobs[came].content = Some(Bytes::from_static(CONTENT));
        let sent = work_off(&queue, config, vec![jobs]).await;
        assert_eq!(sent.outcomes(), TAKEN);
        assert_eq!(transactions(&host), [&THREE[..came], &THREE[came..]]);
    }
}

/// As some large providers do: 451 to the RCPT of another domain.
#[tokio::test]
async fn a_host_that_wants_each_domain_by_itself_gets_that_and_is_remembered() {
    let script = Script {
        one_domain: true,
        ..Script::default()
    };
    let host = Host::start(script).await;
    let mut config = to_port(host.address.port());
    config.outbound.concurrency = 3;
    let mut second = row(THREE);
    for job in &mut second {
        job.lease.job.queue_id = QueueId::from_bytes([8; 16]);
        job.envelope.queue_id = job.lease.job.queue_id;
    }
    let sent = send_all(config, vec![row(THREE), second]).await;
    assert_eq!(sent.settled.len(), 6);
    let relayed = |job: &Settlement| job.outcomes[0].1.action() == "relayed";
    assert!(sent.settled.iter().all(relayed));
    let sizes: Vec<usize> = transactions(&host).iter().map(Vec::len).collect();
    assert_eq!(
        sizes,
        [3, 1, 1, 1, 1, 1],
        "the second mail is sent so at once"
    );
    assert_eq!(host.heard().len(), 1, "all of it on one connection");
}

#[tokio::test]
async fn a_mail_that_is_refused_for_several_domains_is_sent_to_each() {
    let script = Script {
        end: "554 5.7.1 not wanted",
        ..Script::default()
    };
    let (sent, host) = send_to(script, THREE).await;
    assert_eq!(
        sent.outcomes(),
        ["0 failed 5.7.1", "1 failed 5.7.1", "2 failed 5.7.1"]
    );
    let sizes: Vec<usize> = transactions(&host).iter().map(Vec::len).collect();
    assert_eq!(sizes, [3, 1, 1, 1]);
}

/// RFC 1047: it may have been taken, so nobody is asked again at once.
#[tokio::test]
async fn a_host_that_is_lost_behind_the_final_dot_is_asked_once() {
    let script = Script {
        hang_up_at: Some("."),
        ..Script::default()
    };
    let (sent, host) = send_to(script, THREE).await;
    assert_eq!(
        sent.outcomes(),
        ["0 delayed 4.4.2", "1 delayed 4.4.2", "2 delayed 4.4.2"]
    );
    assert_eq!(transactions(&host).len(), 1);
}

#[tokio::test]
async fn what_is_announced_of_domains_is_heeded() {
    let script = Script {
        ehlo: Some(vec!["LIMITS RCPTDOMAINMAX=2"]),
        ..Script::default()
    };
    let (sent, host) = send_to(script, THREE).await;
    assert_eq!(sent.outcomes(), TAKEN);
    assert_eq!(transactions(&host), [&THREE[..2], &THREE[2..]]);
}

#[tokio::test]
async fn what_goes_elsewhere_or_otherwise_goes_by_itself() {
    let (host, far) = two_hosts(Script::default(), Script::default()).await;
    let mut config = to_port(host.address.port());
    // By TLS or not at all: this host has none.
    let demanded = "two.test".parse().unwrap();
    config
        .outbound
        .tls_policies
        .insert(demanded, TlsPolicy::Encrypt);
    let domains = [
        "one.test",
        "two.test",
        "far.test",
        "nowhere.test",
        "three.test",
    ];
    let sent = send_all(config, vec![row(&domains)]).await;
    let outcomes = sent.outcomes();
    assert_eq!(outcomes[0], "0 relayed 2.0.0");
    assert!(outcomes[1].starts_with("1 delayed"), "{outcomes:?}");
    assert_eq!(outcomes[2], "2 relayed 2.0.0");
    assert!(outcomes[3].starts_with("3 failed"), "{outcomes:?}");
    assert_eq!(outcomes[4], "4 relayed 2.0.0");
    assert_eq!(transactions(&host), [["one.test", "three.test"]]);
    assert_eq!(transactions(&far), [["far.test"]]);
}

#[tokio::test]
async fn a_host_that_routes_name_gets_a_mail_once_whatever_its_domains() {
    let host = Host::start(Script::default()).await;
    let hop: NextHop = host.address.to_string().parse().unwrap();
    let mut jobs = row(&["a.example", "b.example", "c.example"]);
    for job in &mut jobs {
        job.route = job
            .route
            .clone()
            .through(vec![WeightedHop::new(hop.clone())]);
    }
    let sent = send_all(config(), vec![jobs]).await;
    assert_eq!(sent.outcomes(), TAKEN);
    assert_eq!(transactions(&host).len(), 1);
}

#[tokio::test]
async fn jobs_go_apart_if_that_is_wished_or_must_be() {
    let verp: fn(&mut Config) = |config| {
        let sender = postroad_mta::SenderText("ours.test".parse().unwrap());
        config.outbound.verp_senders = vec![sender];
    };
    let off: fn(&mut Config) = |config| config.outbound.join_domains = false;
    let two: fn(&mut Config) = |config| config.outbound.join_recipients = 2;
    for (change, expected) in [
        (verp, [1, 1, 1].as_slice()),
        (off, &[1, 1, 1]),
        (two, &[1, 2]),
    ] {
        let host = Host::start(Script::default()).await;
        let mut config = to_port(host.address.port());
        change(&mut config);
        let joins = config.outbound.join_domains;
        let mut jobs = row(THREE);
        for job in jobs.iter_mut().filter(|_| !joins) {
            // As the queue gives them to a worker that does not join.
            (job.followed_by, job.content) = (0, Some(Bytes::from_static(CONTENT)));
        }
        let sent = send_all(config, vec![jobs]).await;
        assert_eq!(sent.outcomes(), TAKEN);
        assert_eq!(sent.joins, joins);
        let mut sizes: Vec<usize> = transactions(&host).iter().map(Vec::len).collect();
        sizes.sort_unstable();
        assert_eq!(sizes, expected);
    }
}
