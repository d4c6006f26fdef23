//! Where nothing is sent: loops, forbidden places, limits.

use super::*;

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
    assert_eq!(done.settled.unwrap().sites, []);
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
    let agent = postroad_mta::serve(config, &common, deps(&queue, ZONE).await, shutdown.clone());
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
async fn a_route_to_ourselves_is_ours_to_mend() {
    let host = Host::start(Script {
        greeting: "220 mta.ours.test ESMTP",
        ..Script::default()
    })
    .await;
    let mut mail = lease("example.test", &["bob"]);
    mail.route.next_hop = Some(host.address.to_string().parse().unwrap());
    let done = run(config(), mail).await;
    assert_eq!(done.outcomes(), ["0 delayed 4.3.5"], "{}", done.text());
}
