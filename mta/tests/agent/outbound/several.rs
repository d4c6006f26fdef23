//! Routes with several hosts, and with a pool of addresses to send from.

use postroad_envelope::{NextHop, WeightedHop};
use postroad_queue_client::SiteTrouble;

use super::*;

fn hop(address: &str, preference: u16) -> WeightedHop {
    let hop: NextHop = address.parse().unwrap();
    WeightedHop {
        preference,
        ..WeightedHop::new(hop)
    }
}

fn lease_through(hops: Vec<WeightedHop>) -> Lease {
    let mut lease = lease("elsewhere.test", &["bob"]);
    lease.route = lease.route.through(hops);
    lease
}

/// A port of this host at which nobody listens.
async fn nobody() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().to_string()
}

#[tokio::test]
async fn another_host_of_the_route_takes_what_one_cannot() {
    let host = Host::start(Script::default()).await;
    let hops = vec![hop(&nobody().await, 0), hop(&host.address.to_string(), 10)];
    let done = run(config(), lease_through(hops)).await;
    assert_eq!(done.outcomes(), ["0 relayed 2.0.0"], "{}", done.text());
    assert_eq!(host.heard().len(), 1);
    let tried = done.settled.as_ref().unwrap().sites.iter();
    let went = tried.map(|tried| tried.result.as_ref().unwrap());
    let went: Vec<_> = went.map(|result| (result.trouble, result.mails)).collect();
    let expected = [(Some(SiteTrouble::Unreachable), 0), (None, 1)];
    assert_eq!(went, expected, "each site hears how it went there");
}

#[tokio::test]
async fn what_none_of_them_takes_waits_and_tells_of_all() {
    let (first, second) = (nobody().await, nobody().await);
    let hops = vec![hop(&first, 0), hop(&second, 10)];
    let done = run(config(), lease_through(hops)).await;
    assert_eq!(done.outcomes(), ["0 delayed 4.4.1"], "{}", done.text());
    for address in [first, second] {
        let port = address.rsplit(':').next().unwrap();
        assert!(done.text().contains(port), "{}", done.text());
    }
}

fn with_pool(address: &str) -> Config {
    let mut config = config();
    let pool = postroad_mta::SourceConfig {
        addresses: vec![postroad_mta::SourceAddress {
            ip: address.parse().unwrap(),
            weight: 1,
            helo_name: None,
        }],
        helo_name: Some(postroad_mta::HostText("bulk.ours.test".parse().unwrap())),
    };
    config.outbound.sources.insert("bulk".to_owned(), pool);
    config
}

#[tokio::test]
async fn a_pool_has_its_address_and_its_name() {
    let host = Host::start(Script::default()).await;
    let mut lease = lease_through(vec![hop(&host.address.to_string(), 0)]);
    lease.route.source = Some("bulk".parse().unwrap());
    let done = run(with_pool("127.0.0.3"), lease).await;
    assert_eq!(done.outcomes(), ["0 relayed 2.0.0"], "{}", done.text());
    assert_eq!(done.events[0].fields["source"], "bulk 127.0.0.3");
    assert_eq!(host.heard()[0].commands[0], "EHLO bulk.ours.test");
}

#[tokio::test]
async fn a_pool_that_cannot_be_used_lets_the_mail_wait() {
    let host = Host::start(Script::default()).await;
    for (pool, told) in [
        ("bulk", "no address of the family"),
        (
            "other",
            "is not in mta.outbound.sources of this host (there: bulk)",
        ),
    ] {
        let mut lease = lease_through(vec![hop(&host.address.to_string(), 0)]);
        lease.route.source = Some(pool.parse().unwrap());
        let done = run(with_pool("::1"), lease).await;
        assert_eq!(done.outcomes(), ["0 delayed 4.3.5"], "{}", done.text());
        assert!(done.text().contains(told), "{}", done.text());
    }
    assert_eq!(host.heard().len(), 0);
}
