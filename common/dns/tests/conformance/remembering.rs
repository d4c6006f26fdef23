//! What is remembered of answers, for how long, and what is not.

use std::time::Instant;

use super::*;

const TTL: Duration = Duration::from_secs(2);
/// For the busiest of machines.
const PATIENCE: Duration = Duration::from_secs(30);

/// The first mail host, or what was said instead.
async fn first(resolver: &dyn Resolver) -> String {
    match resolver.mail_hosts(&domain("a.test")).await {
        Ok(hosts) => hosts.hosts[0].name.to_string(),
        Err(error) => error.to_string(),
    }
}

/// Asks until the answer begins so; how long that took.
async fn until(resolver: &dyn Resolver, expected: &str) -> Duration {
    let asked = Instant::now();
    loop {
        let said = first(resolver).await;
        if said.starts_with(expected) {
            return asked.elapsed();
        }
        assert!(asked.elapsed() < PATIENCE, "still {said}");
        // Time is what is waited for.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn an_answer_is_remembered_and_forgotten_when_told_to() {
    let server = Server::start("a.test. 300 MX 10 old.test.\n").await;
    let resolver = server.resolver(PATIENCE);
    assert_eq!(first(&*resolver).await, "old.test");
    let asked = server.over_udp();
    server.serve("a.test. 300 MX 10 new.test.\n");
    for name in ["a.test", "A.TEST"] {
        let found = resolver.mail_hosts(&domain(name)).await.unwrap();
        assert_eq!(found.hosts[0].name, host("old.test"));
    }
    assert_eq!(server.over_udp(), asked);
    resolver.forget();
    assert_eq!(first(&*resolver).await, "new.test");
}

#[tokio::test]
async fn a_changed_zone_counts_after_the_ttl_and_not_before() {
    let server = Server::start("a.test. 2 MX 10 old.test.\n").await;
    let resolver = server.resolver(PATIENCE);
    let asked = Instant::now();
    assert_eq!(first(&*resolver).await, "old.test");
    server.serve("a.test. 2 MX 10 new.test.\n");
    until(&*resolver, "new.test").await;
    assert!(asked.elapsed() >= TTL, "{:?}", asked.elapsed());
}

#[tokio::test]
async fn that_there_is_no_such_name_is_remembered_as_long_as_the_zone_says() {
    let server = Server::start("test. 2 SOA\n").await;
    let resolver = server.resolver(PATIENCE);
    let asked = Instant::now();
    assert!(first(&*resolver).await.contains("does not exist"));
    server.serve("a.test. 2 MX 10 new.test.\n");
    until(&*resolver, "new.test").await;
    assert!(asked.elapsed() >= TTL, "{:?}", asked.elapsed());
    // Without a word from the zone for how long it holds, it is asked again each time.
    let server = Server::start("").await;
    let resolver = server.resolver(PATIENCE);
    assert!(first(&*resolver).await.contains("does not exist"));
    server.serve("a.test. 2 MX 10 new.test.\n");
    assert_eq!(first(&*resolver).await, "new.test");
}

#[tokio::test]
async fn no_ttl_is_longer_than_the_configuration_allows() {
    let server = Server::start("a.test. 86400 MX 10 old.test.\n").await;
    let options = ResolverOptions {
        cache_max_ttl: TTL,
        cache_max_negative_ttl: TTL,
        ..server.options(PATIENCE)
    };
    let resolver = options.open().unwrap();
    let asked = Instant::now();
    assert_eq!(first(&*resolver).await, "old.test");
    server.serve("test. 86400 SOA\n");
    until(&*resolver, "a.test does not exist").await;
    assert!(asked.elapsed() >= TTL, "{:?}", asked.elapsed());
    let refused = Instant::now();
    server.serve("a.test. 86400 MX 10 new.test.\n");
    until(&*resolver, "new.test").await;
    assert!(refused.elapsed() < PATIENCE);
}

#[tokio::test]
async fn a_failure_is_not_remembered() {
    let server = Server::start("test. 300 SOA\na.test. SERVFAIL\n").await;
    let resolver = server.resolver(PATIENCE);
    assert!(first(&*resolver).await.contains("Server Failure"));
    server.serve("a.test. 300 MX 10 new.test.\n");
    assert_eq!(first(&*resolver).await, "new.test");
}
