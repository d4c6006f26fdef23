//! The same questions to every resolver: a fixed zone, and name servers asked over loopback.

mod remembering;
mod server;

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use postroad_address::Domain;
use postroad_dns::{
    AddressFamily, DnsError, FixedZone, HostName, Resolver, ResolverOptions, SystemNames,
};
use server::Server;

const ZONE: &str = "\
example.test.           MX     20 mx2.example.test.
example.test.           MX     10 mx1.example.test.
example.test.           MX     10 mx0.example.test.
example.test.           TXT    v=spf1
mx1.example.test.       A      192.0.2.1
mx1.example.test.       AAAA   2001:db8::1
mx2.example.test.       A      192.0.2.2
aaaa.example.test.      AAAA   2001:db8::2
alias.example.test.     CNAME  example.test.
aliashost.example.test. CNAME  mx1.example.test.
implicit.test.          A      192.0.2.3
aliasimplicit.test.     CNAME  implicit.test.
nomail.test.            MX     0 .
aliasnomail.test.       CNAME  nomail.test.
nullbeside.test.        MX     0 .
nullbeside.test.        MX     10 mx1.example.test.
dangling.test.          CNAME  missing.test.
circle.test.            CNAME  round.test.
round.test.             CNAME  circle.test.
aliasmx.test.           MX     10 aliashost.example.test.
numeric.test.           MX     10 192.0.2.1.
numeric.test.           MX     20 mx1.example.test.
unusable.test.          MX     10 192.0.2.1.
broken.test.            SERVFAIL
slow.test.              TIMEOUT
1.2.0.192.in-addr.arpa. PTR    mx1.example.test.
2.2.0.192.in-addr.arpa. PTR    mx1.example.test.
4.2.0.192.in-addr.arpa. PTR    broken.test.
1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa. PTR mx1.example.test.
";

#[tokio::test]
async fn the_fixed_zone_conforms() {
    conform(&zone()).await;
    let slow = zone().mail_hosts(&domain("slow.test")).await.unwrap_err();
    assert!(
        slow.is_temporary() && slow.to_string().contains("no answer in time"),
        "{slow}"
    );
}

#[tokio::test]
async fn hickory_conforms() {
    let server = Server::start(ZONE).await;
    conform(server.resolver(Duration::from_secs(10)).as_ref()).await;
}

#[tokio::test]
async fn a_zone_above_hickory_conforms_wherever_the_line_is() {
    let lines: Vec<&str> = ZONE.lines().collect();
    let (above, beneath): (Vec<_>, Vec<_>) = lines
        .into_iter()
        .partition(|line| line.starts_with("alias") || line.starts_with("mx1"));
    let server = Server::start(&beneath.join("\n")).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), above.join("\n")).unwrap();
    let options = ResolverOptions {
        zone: Some(file.path().into()),
        zone_falls_through: true,
        ..server.options(Duration::from_secs(10))
    };
    conform(options.open().unwrap().as_ref()).await;
}

#[tokio::test]
async fn the_system_knows_hosts_by_its_file_by_search_domains_and_anew_each_time() {
    let server = Server::start(ZONE).await;
    let folder = tempfile::tempdir().unwrap();
    let (hosts, conf) = (folder.path().join("hosts"), folder.path().join("conf"));
    let write_conf = |address| {
        let lines =
            format!("nameserver {address}\nsearch none.test example.test\noptions timeout:1\n");
        std::fs::write(&conf, lines).unwrap();
    };
    write_conf(server.address());
    let names = SystemNames::new(&hosts, &conf);
    let ips =
        |texts: &[&str]| -> Vec<IpAddr> { texts.iter().map(|ip| ip.parse().unwrap()).collect() };
    for (host, found) in [
        ("192.0.2.7", &["192.0.2.7"][..]),
        ("2001:db8::7", &["2001:db8::7"]),
        ("localhost", &["127.0.0.1", "::1"]),
        ("mx1", &["192.0.2.1", "2001:db8::1"]),
        ("MX2.example.test", &["192.0.2.2"]),
        ("aaaa", &["2001:db8::2"]),
        ("aliashost.example.test.", &["192.0.2.1", "2001:db8::1"]),
    ] {
        assert_eq!(names.addresses(host).await.unwrap(), ips(found), "{host}");
    }
    for absent in ["mx1.", "nobody", "a b"] {
        let error = names.addresses(absent).await.unwrap_err();
        assert!(!error.is_temporary(), "{error}");
    }
    std::fs::write(&hosts, "192.0.2.9 mx1\n").unwrap();
    assert_eq!(names.addresses("mx1").await.unwrap(), ips(&["192.0.2.9"]));

    // The host has another address, and then the name server too.
    std::fs::remove_file(&hosts).unwrap();
    let other = Server::start("mx1.example.test. A 192.0.2.8").await;
    write_conf(other.address());
    assert_eq!(names.addresses("mx1").await.unwrap(), ips(&["192.0.2.8"]));
    std::fs::remove_file(&conf).unwrap();
    let error = names.addresses("mx1").await.unwrap_err();
    assert!(
        error.to_string().contains("names no name server"),
        "{error}"
    );
}

#[tokio::test]
async fn a_silent_name_server_is_temporary() {
    let server = Server::start(ZONE).await;
    let resolver = server.resolver(Duration::from_millis(200));
    let error = resolver.mail_hosts(&domain("slow.test")).await.unwrap_err();
    assert!(error.is_temporary(), "{error}");
    assert!(
        error
            .to_string()
            .starts_with("cannot tell the MX records of slow.test now"),
        "{error}"
    );
}

#[tokio::test]
async fn an_unreachable_name_server_is_temporary() {
    let options = {
        let server = Server::start(ZONE).await;
        server.options(Duration::from_millis(500))
    };
    let error = options
        .open()
        .unwrap()
        .mail_hosts(&domain("example.test"))
        .await
        .unwrap_err();
    assert!(error.is_temporary(), "{error}");
}

#[tokio::test]
async fn a_truncated_answer_is_asked_again_over_tcp() {
    let lines: String = (0..30)
        .map(|n| format!("big.test. MX {n} a-rather-long-host-name-{n}.big.test.\n"))
        .collect();
    let server = Server::start(&lines).await;
    let hosts = server
        .resolver(Duration::from_secs(10))
        .mail_hosts(&domain("big.test"))
        .await;
    let hosts = hosts.unwrap();
    assert_eq!(hosts.hosts.len(), postroad_dns::MAX_MAIL_HOSTS);
    assert_eq!(
        hosts.hosts[0].name,
        host("a-rather-long-host-name-0.big.test")
    );
    assert_eq!(server.over_tcp(), 1);
}

#[tokio::test]
async fn one_family_that_fails_does_not_keep_the_other() {
    let server = Server::start(
        "half.test. A 192.0.2.9\nhalf.test. SERVFAIL AAAA\nnone.test. SERVFAIL AAAA\nnone.test. TXT x\n",
    )
    .await;
    let resolver = server.resolver(Duration::from_secs(10));
    let found = resolver.addresses(&host("half.test")).await.unwrap();
    assert_eq!(found.records, [ip("192.0.2.9")]);
    // That it has no A does not make up for what could not be told.
    let error = resolver.addresses(&host("none.test")).await.unwrap_err();
    assert!(error.is_temporary(), "{error}");
}

#[tokio::test]
async fn a_referral_is_temporary() {
    let server = Server::start("lame.test. NS ns.lame.test.\n").await;
    let resolver = server.resolver(Duration::from_secs(10));
    let error = resolver.mail_hosts(&domain("lame.test")).await.unwrap_err();
    assert!(
        error.is_temporary() && error.to_string().contains("referred"),
        "{error}"
    );
}

#[tokio::test]
async fn the_ad_bit_of_a_server_on_loopback_is_carried() {
    let server = Server::start("signed.test. MX 10 mx.test.\nplain.test. MX 10 mx.test.\n").await;
    let resolver = server.resolver(Duration::from_secs(10));
    assert!(
        resolver
            .mail_hosts(&domain("signed.test"))
            .await
            .unwrap()
            .authenticated
    );
    assert!(
        !resolver
            .mail_hosts(&domain("plain.test"))
            .await
            .unwrap()
            .authenticated
    );
}

/// Every case both implementations must answer alike.
async fn conform(resolver: &dyn Resolver) {
    mail_hosts(resolver).await;
    mail_hosts_that_are_none(resolver).await;
    addresses(resolver).await;
    reverse(resolver).await;

    let texts = resolver.txt(&host("example.test")).await.unwrap();
    assert_eq!(texts.records, ["v=spf1"]);
}

async fn mail_hosts(resolver: &dyn Resolver) {
    for asked in ["example.test", "Example.TEST", "alias.example.test"] {
        let found = resolver.mail_hosts(&domain(asked)).await.unwrap();
        let list: Vec<_> = found
            .hosts
            .iter()
            .map(|h| (h.preference, h.name.as_str()))
            .collect();
        let expected = [
            (10, "mx0.example.test"),
            (10, "mx1.example.test"),
            (20, "mx2.example.test"),
        ];
        assert_eq!(list, expected, "{asked}");
        assert!(!found.implicit && !found.authenticated && found.dropped.is_empty());
    }
    // RFC 5321 §5.1: no MX record means the domain itself.
    let found = resolver.mail_hosts(&domain("implicit.test")).await.unwrap();
    assert!(found.implicit);
    assert_eq!(
        (found.hosts.len(), &found.hosts[0].name),
        (1, &host("implicit.test"))
    );

    // Null MX beside an MX that names a host means nothing.
    for asked in ["numeric.test", "nullbeside.test"] {
        let found = resolver.mail_hosts(&domain(asked)).await.unwrap();
        assert_eq!((found.hosts.len(), found.dropped.len()), (1, 1), "{asked}");
    }

    // An alias of a domain without MX records is a host under its own name.
    let found = resolver.mail_hosts(&domain("aliasimplicit.test")).await;
    let found = found.unwrap();
    assert_eq!(
        (found.implicit, &found.hosts[0].name),
        (true, &host("aliasimplicit.test"))
    );
    // RFC 2181 §10.3 has no alias in an MX record; it keeps its name, and its addresses are those of the target.
    let found = resolver.mail_hosts(&domain("aliasmx.test")).await.unwrap();
    assert_eq!(found.hosts[0].name, host("aliashost.example.test"));
}

async fn mail_hosts_that_are_none(resolver: &dyn Resolver) {
    let ask = async |name| resolver.mail_hosts(&domain(name)).await.unwrap_err();
    assert_eq!(
        ask("nomail.test").await,
        DnsError::NullMx {
            name: host("nomail.test")
        }
    );
    assert!(matches!(
        ask("aliasnomail.test").await,
        DnsError::NullMx { .. }
    ));
    // The name exists, and what it is an alias of does not (RFC 6604 §3).
    assert!(matches!(
        ask("dangling.test").await,
        DnsError::NoSuchDomain { .. }
    ));
    // No answer that ends is no answer for good.
    assert!(ask("circle.test").await.is_temporary());
    let missing = ask("missing.test").await;
    assert_eq!(
        missing.to_string(),
        "missing.test does not exist (asked for MX)"
    );
    assert!(matches!(missing, DnsError::NoSuchDomain { .. }));
    assert!(matches!(
        ask("unusable.test").await,
        DnsError::Malformed { .. }
    ));
    assert!(matches!(
        ask("[192.0.2.1]").await,
        DnsError::NotAName { .. }
    ));
    let broken = ask("broken.test").await;
    assert!(broken.is_temporary());
    assert!(
        broken
            .to_string()
            .ends_with("the name server said Server Failure"),
        "{broken}"
    );
}

async fn addresses(resolver: &dyn Resolver) {
    let ask = async |name| {
        resolver
            .addresses(&host(name))
            .await
            .map(|answer| answer.records)
    };
    assert_eq!(ask("aliasimplicit.test").await.unwrap(), [ip("192.0.2.3")]);
    assert!(ask("circle.test").await.unwrap_err().is_temporary());
    for name in ["mx1.example.test", "aliashost.example.test"] {
        assert_eq!(
            ask(name).await.unwrap(),
            [ip("2001:db8::1"), ip("192.0.2.1")],
            "{name}"
        );
    }
    assert_eq!(ask("mx2.example.test").await.unwrap(), [ip("192.0.2.2")]);
    assert_eq!(ask("aaaa.example.test").await.unwrap(), [ip("2001:db8::2")]);
    assert!(matches!(
        ask("nomail.test").await,
        Err(DnsError::NoRecords { .. })
    ));
    assert!(matches!(
        ask("missing.test").await,
        Err(DnsError::NoSuchDomain { .. })
    ));
    assert!(ask("broken.test").await.unwrap_err().is_temporary());
}

async fn reverse(resolver: &dyn Resolver) {
    for address in ["192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1"] {
        let name = resolver.reverse(ip(address)).await.unwrap();
        assert_eq!(name, Some(host("mx1.example.test")), "{address}");
    }
    assert_eq!(
        resolver.reverse(ip("192.0.2.2")).await,
        Ok(None),
        "not confirmed"
    );
    assert_eq!(
        resolver.reverse(ip("192.0.2.3")).await,
        Ok(None),
        "no pointer"
    );
    assert!(
        resolver
            .reverse(ip("192.0.2.4"))
            .await
            .unwrap_err()
            .is_temporary()
    );
}

#[tokio::test]
async fn the_preferred_family_comes_first() {
    let answer = zone()
        .preferring(AddressFamily::Ipv4)
        .addresses(&host("mx1.example.test"))
        .await;
    assert_eq!(
        answer.unwrap().records,
        [ip("192.0.2.1"), ip("2001:db8::1")]
    );
}

fn zone() -> FixedZone {
    FixedZone::parse(Path::new("conformance.zone"), ZONE).unwrap()
}

fn domain(text: &str) -> Domain {
    Domain::parse(text).unwrap()
}

fn host(text: &str) -> HostName {
    HostName::parse(text).unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

impl Server {
    fn options(&self, timeout: Duration) -> ResolverOptions {
        ResolverOptions {
            servers: vec![self.address()],
            timeout,
            attempts: 1,
            ..Default::default()
        }
    }

    fn resolver(&self, timeout: Duration) -> Arc<dyn Resolver> {
        self.options(timeout).open().unwrap()
    }
}
