//! One connection for many mails (RFC 5321 §3.3), and what becomes of it when the host ends it.

use postroad_mta::{HostConfig, PasswordNeeds, ReuseConfig};

use super::*;
use crate::host::Farewell;

/// Patient enough for any machine.
fn reuse(port: u16) -> Config {
    let mut config = to_port(port);
    config.outbound.concurrency = 1;
    config.outbound.reuse.idle = "1m".parse().unwrap();
    config
}

fn numbered(number: u8, lease: Lease) -> Lease {
    let queue_id = QueueId::from_bytes([number; 16]);
    let mut lease = lease;
    lease.lease.job.queue_id = queue_id;
    lease.envelope.queue_id = queue_id;
    lease
}

/// What came of a run with several mails, in their order.
struct Run {
    outcomes: Vec<String>,
    /// What the timeline says of each: whether its connection was used before.
    reused: Vec<String>,
}

/// Works off mails for these domains, one after the other, in one agent.
async fn run_all(config: Config, destinations: &[&str]) -> Run {
    let before_end = async || {};
    run_until(config, destinations, before_end).await
}

async fn run_until(config: Config, destinations: &[&str], before_end: impl AsyncFnOnce()) -> Run {
    let queue = FakeQueue::default();
    let (told, mut tells) = mpsc::unbounded_channel();
    let leases = (1..).zip(destinations);
    let leases = leases.map(|(number, destination)| numbered(number, lease(destination, &["bob"])));
    let mut leases: Vec<Lease> = leases.collect();
    // The last one is given first.
    leases.reverse();
    queue.with(|data| {
        data.leases = leases;
        data.told = Some(told);
    });
    let shutdown = CancellationToken::new();
    let (deps, common) = (deps(&queue, ZONE).await, common());
    let agent = postroad_mta::serve(config, &common, deps, shutdown.clone());
    let wait = async {
        for _ in destinations {
            let told = timeout(PATIENCE, tells.recv()).await;
            told.expect("each lease ends in time");
        }
        before_end().await;
        shutdown.cancel();
    };
    let (served, ()) = tokio::join!(agent, wait);
    served.unwrap();
    queue.with(|data| Run {
        outcomes: data
            .settled
            .iter()
            .flat_map(|settled| &settled.outcomes)
            .map(|(_, outcome)| outcome.action().to_owned())
            .collect(),
        reused: data
            .events
            .iter()
            .map(|event| event.fields.get("reused").cloned().unwrap_or_default())
            .collect(),
    })
}

/// For each connection of the host how many mails were begun, and whether it ended with QUIT.
fn connections(host: &Host) -> Vec<(usize, bool)> {
    let one = |heard: &crate::host::Heard| {
        let begun = heard
            .commands
            .iter()
            .filter(|line| line.starts_with("MAIL"));
        let quit = heard.commands.last().is_some_and(|line| line == "QUIT");
        (begun.count(), quit)
    };
    host.heard().iter().map(one).collect()
}

#[tokio::test]
async fn mails_to_the_hosts_of_any_domain_follow_each_other_over_one_connection() {
    let host = Host::start(Script::default()).await;
    let run = run_all(
        reuse(host.address.port()),
        &["example.test", "two.test", "example.test"],
    )
    .await;
    assert_eq!(run.outcomes, ["relayed"; 3]);
    assert_eq!(run.reused, ["false", "true", "true"]);
    assert_eq!(connections(&host), [(3, true)], "QUIT at the shutdown");
    let hellos = host.heard()[0].commands.clone();
    let hellos = hellos.iter().filter(|line| line.starts_with("EHLO"));
    assert_eq!(hellos.count(), 1);
}

#[tokio::test]
async fn a_connection_that_the_host_ended_costs_no_attempt() {
    for farewell in [
        Farewell::HangsUp,
        Farewell::Says("421 4.3.2 going down"),
        Farewell::SaysToMail("421 4.7.0 enough for one connection"),
    ] {
        let script = Script {
            last_mail: Some((2, farewell)),
            ..Script::default()
        };
        let host = Host::start(script).await;
        let run = run_all(reuse(host.address.port()), &["example.test"; 5]).await;
        assert_eq!(run.outcomes, ["relayed"; 5]);
        assert_eq!(run.reused, ["false", "true", "false", "true", "false"]);
        let ends = connections(&host);
        assert_eq!(ends.len(), 3, "{ends:?}");
        assert_eq!(ends[2], (1, true));
    }
}

/// A host that ends a new connection has something to say about it.
#[tokio::test]
async fn a_new_connection_that_the_host_ends_at_mail_is_an_attempt() {
    let script = Script {
        last_mail: Some((0, Farewell::SaysToMail("421 4.7.0 not now"))),
        ..Script::default()
    };
    let host = Host::start(script).await;
    let run = run_all(reuse(host.address.port()), &["example.test"; 2]).await;
    assert_eq!(run.outcomes, ["delayed"; 2]);
    assert_eq!(connections(&host), [(1, false); 2]);
}

/// Behind the final dot the host may have the mail: it is not sent to it again at once.
#[tokio::test]
async fn a_reused_connection_that_breaks_after_the_content_leaves_the_mail_for_later() {
    let script = Script {
        last_mail: Some((1, Farewell::SaysToMail("250 2.1.0 ok"))),
        hang_up_at: Some("."),
        ..Script::default()
    };
    let host = Host::start(script).await;
    let run = run_all(reuse(host.address.port()), &["example.test"]).await;
    assert_eq!(run.outcomes, ["delayed"]);
    assert_eq!(connections(&host).len(), 1);
}

#[tokio::test]
async fn a_connection_carries_as_many_mails_as_we_and_the_host_allow() {
    let cases = [
        (2, "PIPELINING", vec![(2, true), (2, true), (1, true)]),
        (1, "PIPELINING", vec![(1, true); 5]),
        (100, "LIMITS MAILMAX=3", vec![(3, true), (2, true)]),
        (2, "LIMITS MAILMAX=3", vec![(2, true), (2, true), (1, true)]),
    ];
    for (mails, offer, expected) in cases {
        let script = Script {
            ehlo: Some(vec![offer]),
            ..Script::default()
        };
        let host = Host::start(script).await;
        let mut config = reuse(host.address.port());
        config.outbound.reuse.mails = mails;
        let run = run_all(config, &["example.test"; 5]).await;
        assert_eq!(run.outcomes, ["relayed"; 5]);
        assert_eq!(connections(&host), expected, "{mails} and {offer}");
    }
}

#[tokio::test]
async fn nothing_stays_open_where_that_is_not_wanted() {
    let never: [fn(&mut ReuseConfig); 3] = [
        |reuse| reuse.idle = "0s".parse().unwrap(),
        |reuse| reuse.most_idle = 0,
        |reuse| reuse.lifetime = "0s".parse().unwrap(),
    ];
    for change in never {
        let host = Host::start(Script::default()).await;
        let mut config = reuse(host.address.port());
        change(&mut config.outbound.reuse);
        let run = run_all(config, &["example.test"; 2]).await;
        assert_eq!(run.reused, ["false"; 2]);
        assert_eq!(connections(&host), [(1, true); 2]);
    }
}

#[tokio::test]
async fn an_idle_connection_ends_by_itself() {
    let host = Host::start(Script::default()).await;
    let mut config = reuse(host.address.port());
    config.outbound.reuse.idle = "10ms".parse().unwrap();
    let run = run_until(config, &["example.test"], async || {
        let ended = timeout(PATIENCE, host.one_ended()).await;
        ended.expect("it is closed while the agent runs on");
    })
    .await;
    assert_eq!(run.outcomes, ["relayed"]);
    assert_eq!(connections(&host), [(1, true)]);
}

/// Mail that must be encrypted never leaves over a connection that was set up without that.
#[tokio::test]
async fn mail_of_another_level_of_tls_has_a_connection_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let script = Script {
        ehlo: Some(vec!["STARTTLS"]),
        starttls: StartTls::Works(server_tls(&folder)),
        ..Script::default()
    };
    let host = Host::start(script).await;
    let mut config = reuse(host.address.port());
    config.outbound.tls = TlsPolicy::None;
    config.outbound.hosts = vec![HostConfig {
        host: "two.test".parse().unwrap(),
        tls: TlsPolicy::Encrypt,
        implicit_tls: None,
        tls_names: Vec::new(),
        ca_file: None,
        cert_file: None,
        key_file: None,
        user: None,
        password_file: None,
        token_file: None,
        oauth: None,
        password_needs: PasswordNeeds::default(),
        mechanisms: Vec::new(),
    }];
    let run = run_all(config, &["example.test", "two.test", "two.test"]).await;
    assert_eq!(run.outcomes, ["relayed"; 3]);
    assert_eq!(run.reused, ["false", "false", "true"]);
    let levels: Vec<bool> = host.heard().iter().map(|heard| heard.tls).collect();
    assert_eq!(levels, [false, true]);
    assert_eq!(
        connections(&host),
        [(1, true), (2, true)],
        "the host is not kept waiting with one that does not fit"
    );
}

/// What fell back to plain text is no reason to send the next mail in plain text.
#[tokio::test]
async fn a_connection_that_fell_back_to_plain_text_is_not_used_again() {
    let script = Script {
        ehlo: Some(vec!["STARTTLS"]),
        starttls: StartTls::Breaks,
        ..Script::default()
    };
    let host = Host::start(script).await;
    let run = run_all(reuse(host.address.port()), &["example.test"; 2]).await;
    assert_eq!(run.reused, ["false"; 2]);
    let mails: Vec<usize> = connections(&host).iter().map(|(mails, _)| *mails).collect();
    assert_eq!(mails, [0, 1, 0, 1]);
}

fn chunking(last_mail: Option<(usize, Farewell)>) -> Script {
    Script {
        ehlo: Some(vec!["PIPELINING", "CHUNKING"]),
        last_mail,
        ..Script::default()
    }
}

/// RFC 3030 §4.2: content without dots, and over an open connection together with its envelope.
#[tokio::test]
async fn content_goes_by_bdat_where_that_is_offered() {
    let host = Host::start(chunking(None)).await;
    let run = run_all(reuse(host.address.port()), &["example.test"; 3]).await;
    assert_eq!(run.outcomes, ["relayed"; 3]);
    let heard = &host.heard()[0];
    assert!(heard.content.ends_with(b"\r\n.dot\r\n"));
    let bdats = heard.commands.iter().filter(|line| line.ends_with(" LAST"));
    assert_eq!(bdats.count(), 3);
    assert_eq!(connections(&host), [(3, true)]);

    let host = Host::start(chunking(None)).await;
    let mut config = reuse(host.address.port());
    config.outbound.chunking = false;
    run_all(config, &["example.test"]).await;
    assert!(host.heard()[0].commands.contains(&"DATA".to_owned()));
}

/// A host that says that it leaves has not taken what came with the envelope.
#[tokio::test]
async fn what_was_said_at_once_to_a_host_that_leaves_is_said_again() {
    let farewell = Farewell::SaysToMail("421 4.7.0 enough");
    let host = Host::start(chunking(Some((1, farewell)))).await;
    let run = run_all(reuse(host.address.port()), &["example.test"; 3]).await;
    assert_eq!(run.outcomes, ["relayed"; 3]);
    assert_eq!(run.reused, ["false"; 3]);
}

/// Of several addresses of a host the one is taken to which a connection is open.
#[tokio::test]
async fn an_open_connection_to_any_address_of_a_host_is_used() {
    let busy = Script {
        greeting: "421 4.3.2 busy",
        ..Script::default()
    };
    let (first, second) = two_hosts(busy, Script::default()).await;
    let run = run_all(reuse(first.address.port()), &["both.test"; 3]).await;
    assert_eq!(run.outcomes, ["relayed"; 3]);
    assert!(first.heard().len() <= 1, "it is not asked for each mail");
    assert_eq!(connections(&second), [(3, true)]);
}
