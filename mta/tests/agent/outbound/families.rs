//! Hosts with an address of each family: which one is spoken to (RFC 8305).

use postroad_daemon::Interval;
use postroad_mta::AddressPreference;
use postroad_net::Networks;
use postroad_rehearsal::{Place, Script as Text, Watched};

use super::*;

const BOTH: &str = "\
example.test.  MX 10 mx.test.
mx.test.       A    127.0.0.1
mx.test.       AAAA ::1
other.test.    MX 10 mx.other.test.
mx.other.test. A    127.0.0.1
mx.other.test. AAAA ::1
";

/// A host at 127.0.0.1, and behind the same port of ::1 a door of this kind.
async fn beside(script: Script, door: &str) -> (Host, Watched) {
    let door = format!("door: {door}\n");
    loop {
        let host = Host::start(script.clone()).await;
        let place = format!("[::1]:{}", host.address.port()).parse().unwrap();
        let text = Text::parse(&door).unwrap();
        // Another process may have it.
        if let Ok(other) = Watched::start(text, Place::Tcp(place)).await {
            return (host, other);
        }
    }
}

/// No connection to an address that does not answer ends within the patience of a test.
fn both(host: &Host) -> Config {
    let mut config = to_port(host.address.port());
    config.outbound.allow_networks = Networks::parse(["127.0.0.0/8", "::1/128"]).unwrap();
    config.outbound.timeouts.connect = Interval::hours(1);
    config
}

async fn through(config: Config, lease: Lease) -> Done {
    run_in(BOTH, &common(), config, lease, &FakeQueue::default()).await
}

fn mail() -> Lease {
    lease("example.test", &["bob"])
}

/// Which address it was sent to, by the timeline, and how many connections the site is said to have had.
fn way(done: &Done) -> (&str, u32) {
    let settled = done.settled.as_ref().unwrap();
    let connections = settled.sites[0].result.as_ref().unwrap().connections;
    let relay = done.events[0].fields["relay"].as_str();
    (relay.rsplit_once(':').unwrap().0, connections)
}

#[tokio::test]
async fn an_address_that_does_not_answer_costs_no_time_out() {
    let (host, _deaf) = beside(Script::default(), "deaf").await;
    let done = through(both(&host), mail()).await;
    assert_eq!(done.outcomes(), ["0 relayed 2.0.0"]);
    // Both were begun, and the host may have counted both.
    assert_eq!(way(&done), ("mx.test[127.0.0.1]", 2));
    assert_eq!(host.heard().len(), 1);
}

#[tokio::test]
async fn the_address_that_is_preferred_and_answers_is_the_only_one() {
    let (host, other) = beside(Script::default(), "open").await;
    let done = through(both(&host), mail()).await;
    assert_eq!(way(&done), ("mx.test[::1]", 1));
    assert_eq!((host.heard().len(), other.totals().connections), (0, 1));
    let mut config = both(&host);
    config.outbound.address_preference = Some(AddressPreference::Ipv4);
    let done = through(config, mail()).await;
    assert_eq!(way(&done), ("mx.test[127.0.0.1]", 1));
    assert_eq!((host.heard().len(), other.totals().connections), (1, 1));
}

#[tokio::test]
async fn a_host_that_is_slow_to_speak_is_not_overtaken() {
    let (host, other) = beside(Script::default(), "open").await;
    let slow = "on connect:\n    wait 1s\n";
    other.follow(Text::parse(slow).unwrap());
    let done = through(both(&host), mail()).await;
    assert_eq!(way(&done), ("mx.test[::1]", 1), "{}", done.text());
    assert!(host.heard().is_empty());
}

#[tokio::test]
async fn an_address_that_refuses_is_told_of_and_the_other_is_next_at_once() {
    let (host, _shut) = beside(Script::default(), "shut").await;
    let mut config = both(&host);
    // Nothing here waits for it.
    config.outbound.fallback_delay = Interval::hours(1);
    let done = through(config, mail()).await;
    assert_eq!(done.outcomes(), ["0 relayed 2.0.0"]);
    assert_eq!(way(&done), ("mx.test[127.0.0.1]", 2));
}

#[tokio::test]
async fn who_was_overtaken_is_tried_when_the_other_has_no_time() {
    let busy = Script {
        greeting: "421 4.3.2 busy",
        ..Script::default()
    };
    let (host, _deaf) = beside(busy, "deaf").await;
    let mut config = both(&host);
    config.outbound.timeouts.connect = Interval::seconds(2);
    let done = through(config, mail()).await;
    assert_eq!(done.outcomes(), ["0 delayed 4.4.1"], "{}", done.text());
    for told in ["[127.0.0.1]", "4.3.2 busy", "[::1]", "cannot connect: "] {
        assert!(done.text().contains(told), "{}", done.text());
    }
    assert_eq!(host.heard().len(), 1, "each address is spoken to once");
}

#[tokio::test]
async fn without_a_fallback_one_address_waits_for_the_other() {
    let (host, _deaf) = beside(Script::default(), "deaf").await;
    let mut config = both(&host);
    config.outbound.fallback_delay = Interval::seconds(0);
    config.outbound.timeouts.connect = Interval::millis(400);
    let done = through(config, mail()).await;
    assert_eq!(way(&done), ("mx.test[127.0.0.1]", 2));
    let took: u64 = done.events[0].fields["duration_ms"].parse().unwrap();
    assert!(took >= 400, "{took} ms");
}

#[tokio::test]
async fn a_connection_that_won_is_kept_for_the_next_mail() {
    let (host, _deaf) = beside(Script::default(), "deaf").await;
    let mut config = both(&host);
    config.outbound.concurrency = 1;
    config.outbound.reuse.idle = Interval::minutes(1);
    let queue = FakeQueue::default();
    let mut second = mail();
    second.lease.job.number = 1;
    let (told, mut tells) = mpsc::unbounded_channel();
    queue.with(|data| {
        data.leases = vec![second, mail()];
        data.told = Some(told);
    });
    let shutdown = CancellationToken::new();
    let (deps, common) = (deps(&queue, BOTH).await, common());
    let agent = postroad_mta::serve(config, &common, deps, shutdown.clone());
    let wait = async {
        for _ in 0..2 {
            timeout(PATIENCE, tells.recv()).await.expect("in time");
        }
        shutdown.cancel();
    };
    let (served, ()) = tokio::join!(agent, wait);
    served.unwrap();
    let connections = queue.with(|data| {
        let settled = data.settled.iter();
        let results = settled.map(|settled| settled.sites[0].result.clone().unwrap().connections);
        results.collect::<Vec<_>>()
    });
    assert_eq!((connections, host.heard().len()), (vec![2, 0], 1));
}
