use std::collections::HashSet;
use std::path::Path;

use postroad_dns::FixedZone;
use postroad_envelope::RouteClass;

use super::*;
use crate::outbound::resolve;

const ZONE: &str = "\
one.test.       MX 20 backup.test.
one.test.       MX 10 mx.test.
mx.test.        A    1.1.1.1
mx.test.        AAAA 2606:4700::1
backup.test.    A    1.1.1.2
many.test.      MX 10 a.test.
many.test.      MX 10 b.test.
many.test.      MX 10 c.test.
many.test.      MX 20 backup.test.
a.test.         A 1.1.2.1
b.test.         A 1.1.2.2
c.test.         A 1.1.2.3
implicit.test.  A 1.1.3.1
nothing.test.   TXT x
null.test.      MX 0 .
numeric.test.   MX 10 10.0.0.1.
broken.test.    SERVFAIL
second.test.    MX 10 mx.test.
second.test.    MX 20 us.test.
second.test.    MX 20 a.test.
second.test.    MX 30 b.test.
us.test.        A 1.2.3.4
first.test.     MX 10 us.test.
first.test.     MX 20 mx.test.
hidden.test.    MX 10 alias-of-us.test.
hidden.test.    MX 20 mx.test.
alias-of-us.test. A 1.2.3.4
local.test.     MX 10 loop.test.
loop.test.      A 127.0.0.1
inside.test.    MX 10 private.test.
private.test.   A 10.0.0.1
private.test.   AAAA fe80::1
mixed.test.     MX 10 private.test.
mixed.test.     MX 20 mx.test.
half.test.      MX 10 broken.test.
half.test.      MX 20 mx.test.
later.test.     MX 10 broken.test.
later.test.     MX 20 nothing.test.
dead.test.      MX 10 nothing.test.
gone.test.      MX 10 missing.test.
gone.test.      MX 20 mx.test.
allgone.test.   MX 10 missing.test.
allgone.test.   MX 20 nothing.test.
alias.test.     CNAME one.test.
aliasmx.test.   MX 10 alias-of-mx.test.
alias-of-mx.test. CNAME mx.test.
ouralias.test.  MX 10 alias-to-us.test.
ouralias.test.  MX 20 mx.test.
alias-to-us.test. CNAME us.test.
circle.test.    CNAME round.test.
round.test.     CNAME circle.test.
same.test.      MX 10 a.test.
same.test.      MX 20 a-again.test.
a-again.test.   A 1.1.2.1
";

fn around() -> Surroundings {
    Surroundings {
        own_names: vec![HostName::parse("us.test").unwrap()],
        own_addresses: vec!["1.2.3.4".parse().unwrap()],
        own_ports: vec![25],
        allow_networks: Networks::default(),
        prefer: None,
        port: 25,
    }
}

fn allowing(networks: &str) -> Surroundings {
    Surroundings {
        allow_networks: Networks::parse([networks]).unwrap(),
        ..around()
    }
}

fn zone() -> FixedZone {
    FixedZone::parse(Path::new("next_hop.zone"), ZONE).unwrap()
}

fn route(destination: &str, next_hop: Option<&str>) -> Route {
    Route {
        next_hop: next_hop.map(|hop| hop.parse().unwrap()),
        ..Route::new(RouteClass::Relay, destination, "route test")
    }
}

async fn find(route: Route, around: &Surroundings, seed: u64) -> Result<NextHop, Verdict> {
    resolve::next_hop(&zone(), &Target::of(&route)?, around, seed).await
}

async fn to(destination: &str, around: &Surroundings) -> Result<NextHop, Verdict> {
    find(route(destination, None), around, 0).await
}

async fn via(hop: &str, around: &Surroundings) -> Result<NextHop, Verdict> {
    find(route("one.test", Some(hop)), around, 0).await
}

fn listed(hop: &NextHop) -> Vec<String> {
    hop.candidates
        .iter()
        .map(|c| match &c.door {
            Door::Tcp(address) => format!("{} {address}", c.host),
            Door::Unix(path) => format!("{} {path}", c.host),
        })
        .collect()
}

#[tokio::test]
async fn mail_hosts_come_by_preference_with_all_their_addresses() {
    let hop = to("One.TEST", &around()).await.unwrap();
    let expected = [
        "mx.test [2606:4700::1]:25",
        "mx.test 1.1.1.1:25",
        "backup.test 1.1.1.2:25",
    ];
    assert_eq!(listed(&hop), expected);
    assert_eq!(hop.site, "backup.test,mx.test");
    let elsewhere = Surroundings {
        port: 2525,
        ..around()
    };
    let hop = to("implicit.test", &elsewhere).await.unwrap();
    assert_eq!(listed(&hop), ["implicit.test 1.1.3.1:2525"]);
}

#[tokio::test]
async fn the_preferred_family_comes_first_and_either_by_the_seed() {
    let (six, four) = ("mx.test [2606:4700::1]:25", "mx.test 1.1.1.1:25");
    let order = async |prefer, seed| {
        let around = Surroundings { prefer, ..around() };
        let hop = find(route("one.test", None), &around, seed).await.unwrap();
        let by_name = via("mx.test:25", &around).await.unwrap();
        if prefer != Some(AddressPreference::Any) {
            assert_eq!(listed(&by_name), listed(&hop)[..2]);
        }
        listed(&hop)
    };
    let expected = |first, second| [first, second, "backup.test 1.1.1.2:25"];
    for (prefer, first, second) in [
        (None, six, four),
        (Some(AddressPreference::Ipv6), six, four),
        (Some(AddressPreference::Ipv4), four, six),
    ] {
        assert_eq!(
            order(prefer, 1).await,
            expected(first, second),
            "{prefer:?}"
        );
    }
    let mut four_first = 0;
    for seed in 0..1000 {
        let order = order(Some(AddressPreference::Any), seed).await;
        four_first += usize::from(order[0] == four);
    }
    assert!((400..600).contains(&four_first), "{four_first}");
}

#[tokio::test]
async fn rfc_5321_5_1_equal_preferences_are_shuffled_by_the_seed() {
    let mut orders = HashSet::new();
    for seed in 0..64 {
        let hop = find(route("many.test", None), &around(), seed)
            .await
            .unwrap();
        let again = find(route("many.test", None), &around(), seed)
            .await
            .unwrap();
        assert_eq!(hop, again, "seed {seed}");
        let hosts: Vec<String> = hop.candidates.into_iter().map(|c| c.host).collect();
        assert_eq!(hosts.last().unwrap(), "backup.test", "seed {seed}");
        orders.insert(hosts);
    }
    assert_eq!(orders.len(), 6, "all orders of three come up");
}

#[tokio::test]
async fn rfc_5321_5_1_the_list_is_cut_at_our_own_name() {
    // By name alone, and by address alone.
    let by_name = Surroundings {
        own_addresses: Vec::new(),
        ..around()
    };
    let by_address = Surroundings {
        own_names: Vec::new(),
        ..around()
    };
    for around in [by_name, by_address] {
        let hop = to("second.test", &around).await.unwrap();
        assert_eq!(
            listed(&hop),
            ["mx.test [2606:4700::1]:25", "mx.test 1.1.1.1:25"]
        );
    }
}

#[tokio::test]
async fn rfc_5321_5_1_mail_for_ourselves_loops() {
    for destination in [
        "first.test",
        "hidden.test",
        "local.test",
        "us.test",
        "[1.2.3.4]",
    ] {
        // No list of networks allows a loop.
        for around in [around(), allowing("0.0.0.0/0")] {
            let verdict = to(destination, &around).await.unwrap_err();
            assert_eq!(
                verdict.status, LOOP_5_4_6,
                "{destination}: {}",
                verdict.text
            );
        }
    }
}

#[tokio::test]
async fn another_server_on_this_host_is_no_loop() {
    let elsewhere = Surroundings {
        own_ports: vec![2025],
        ..allowing("127.0.0.0/8")
    };
    assert_eq!(
        listed(&to("local.test", &elsewhere).await.unwrap()),
        ["loop.test 127.0.0.1:25"]
    );
    let elsewhere = Surroundings {
        own_ports: vec![2025],
        ..around()
    };
    let verdict = to("us.test", &elsewhere).await.unwrap_err();
    assert_eq!(verdict.status, UNROUTABLE_5_4_4);
    assert!(
        verdict.text.contains("1.2.3.4: our own address"),
        "{}",
        verdict.text
    );
}

#[tokio::test]
async fn addresses_outside_the_public_internet_are_refused() {
    let verdict = to("inside.test", &around()).await.unwrap_err();
    assert_eq!(verdict.status, UNROUTABLE_5_4_4);
    for told in [
        "10.0.0.1: private",
        "fe80::1: link-local",
        "mta.outbound.allow_networks",
    ] {
        assert!(verdict.text.contains(told), "{}", verdict.text);
    }
    let hop = to("mixed.test", &around()).await.unwrap();
    assert_eq!(
        listed(&hop),
        ["mx.test [2606:4700::1]:25", "mx.test 1.1.1.1:25"]
    );
    assert_eq!(hop.notes.len(), 2);
    let hop = to("inside.test", &allowing("10.0.0.0/8")).await.unwrap();
    assert_eq!(listed(&hop), ["private.test 10.0.0.1:25"]);
}

#[tokio::test]
async fn aliases_are_followed_of_domains_and_of_mail_hosts() {
    let hop = to("alias.test", &around()).await.unwrap();
    assert_eq!(
        listed(&hop),
        listed(&to("one.test", &around()).await.unwrap())
    );
    let hop = to("aliasmx.test", &around()).await.unwrap();
    let under_its_name = [
        "alias-of-mx.test [2606:4700::1]:25",
        "alias-of-mx.test 1.1.1.1:25",
    ];
    assert_eq!(listed(&hop), under_its_name);
    // An alias of ourselves loops, whatever it is called.
    let verdict = to("ouralias.test", &around()).await.unwrap_err();
    assert_eq!(verdict.status, LOOP_5_4_6, "{}", verdict.text);
}

#[tokio::test]
async fn a_mail_host_that_does_not_exist_leaves_the_others() {
    let hop = to("gone.test", &around()).await.unwrap();
    assert_eq!(
        listed(&hop),
        ["mx.test [2606:4700::1]:25", "mx.test 1.1.1.1:25"]
    );
    assert_eq!(hop.notes.len(), 1, "{:?}", hop.notes);
}

#[tokio::test]
async fn what_the_dns_refuses_is_for_good_or_for_now() {
    for (destination, status) in [
        ("null.test", NULL_MX_5_1_10),
        ("missing.test", BAD_DOMAIN_5_1_2),
        ("numeric.test", UNROUTABLE_5_4_4),
        ("nothing.test", UNROUTABLE_5_4_4),
        ("dead.test", UNROUTABLE_5_4_4),
        ("allgone.test", UNROUTABLE_5_4_4),
        ("circle.test", DIRECTORY_FAILURE_4_4_3),
        ("not a domain", BAD_DOMAIN_5_1_2),
        ("broken.test", DIRECTORY_FAILURE_4_4_3),
        // One host cannot be looked up, the other has no address: the first may come back.
        ("later.test", DIRECTORY_FAILURE_4_4_3),
    ] {
        let verdict = to(destination, &around()).await.unwrap_err();
        assert_eq!(verdict.status, status, "{destination}: {}", verdict.text);
        assert_eq!(verdict.into_report().status, status, "{destination}");
    }
    assert_eq!(
        to("half.test", &around()).await.unwrap().candidates.len(),
        2
    );
}

#[tokio::test]
async fn address_literals_ask_no_dns() {
    let hop = to("[IPv6:2606:4700::9]", &around()).await.unwrap();
    assert_eq!(listed(&hop), ["[IPv6:2606:4700::9] [2606:4700::9]:25"]);
    let hop = to("[1.1.1.9]", &around()).await.unwrap();
    assert_eq!(listed(&hop), ["[1.1.1.9] 1.1.1.9:25"]);
    for ours in [
        "[127.0.0.1]",
        "[IPv6:::1]",
        "[IPv6:::ffff:127.0.0.1]",
        "[0.0.0.0]",
    ] {
        for around in [around(), allowing("::/0"), allowing("0.0.0.0/0")] {
            let verdict = to(ours, &around).await.unwrap_err();
            assert_eq!(verdict.status, LOOP_5_4_6, "{ours}: {}", verdict.text);
        }
        // On a port where we take no mail it is another server's, and still not the world's.
        let elsewhere = Surroundings {
            own_ports: vec![2025],
            ..around()
        };
        let verdict = to(ours, &elsewhere).await.unwrap_err();
        assert_eq!(verdict.status, NOT_AUTHORIZED_5_7_1, "{ours}");
    }
    for refused in ["[10.0.0.1]", "[IPv6:::ffff:10.0.0.1]", "[169.254.169.254]"] {
        let verdict = to(refused, &around()).await.unwrap_err();
        assert_eq!(
            verdict.status, NOT_AUTHORIZED_5_7_1,
            "{refused}: {}",
            verdict.text
        );
    }
}

#[tokio::test]
async fn a_route_names_host_and_port_and_ignores_mx() {
    assert_eq!(
        listed(&via("mx.test:2525", &around()).await.unwrap()),
        ["mx.test [2606:4700::1]:2525", "mx.test 1.1.1.1:2525"]
    );
    let hop = via("1.1.1.1:24", &around()).await.unwrap();
    assert_eq!(
        (listed(&hop), hop.site.as_str()),
        (vec!["1.1.1.1 1.1.1.1:24".into()], "1.1.1.1:24")
    );
    let hop = via("[::1]:2525", &allowing("::1")).await.unwrap();
    assert_eq!(listed(&hop), ["::1 [::1]:2525"]);
}

#[tokio::test]
async fn a_wrong_route_is_ours_to_mend_and_bounces_nothing() {
    for (hop, status, told) in [
        (
            "one.test:25",
            MISCONFIGURED_4_3_5,
            "one.test has no AAAA record",
        ),
        (
            "missing.test:25",
            MISCONFIGURED_4_3_5,
            "missing.test does not exist",
        ),
        (
            "private.test:25",
            MISCONFIGURED_4_3_5,
            "not listed in mta.outbound.allow_networks",
        ),
        (
            "us.test:25",
            MISCONFIGURED_4_3_5,
            "that is this server itself",
        ),
        (
            "a b:25",
            MISCONFIGURED_4_3_5,
            "route test names a b:25, but",
        ),
        ("broken.test:25", DIRECTORY_FAILURE_4_4_3, "broken.test"),
    ] {
        let verdict = via(hop, &around()).await.unwrap_err();
        assert_eq!(verdict.status, status, "{hop}: {}", verdict.text);
        assert!(verdict.text.contains(told), "{hop}: {}", verdict.text);
        assert_eq!(verdict.into_report().status.class(), 4);
    }
}

#[tokio::test]
async fn no_address_is_tried_twice() {
    assert_eq!(
        listed(&to("same.test", &around()).await.unwrap()),
        ["a.test 1.1.2.1:25"]
    );
}

#[test]
fn candidates_are_bounded_and_families_take_turns() {
    let ips = |prefix: &str| {
        (1..=8)
            .map(|n| format!("{prefix}{n}").parse().unwrap())
            .collect()
    };
    let (v6, v4): (Vec<IpAddr>, Vec<IpAddr>) = (ips("2606:4700::"), ips("1.1.1."));
    assert_eq!(
        alternating([v6.clone(), v4.clone()].concat())[..MAX_PER_HOST],
        [v6[0], v4[0], v6[1], v4[1]]
    );
    let hosts = (0..20u8).map(|n| ResolvedHost {
        host: MxHost {
            preference: n.into(),
            name: HostName::parse(&format!("h{n}.test")).unwrap(),
        },
        addresses: Ok((1..=8).map(|m| IpAddr::from([1, 1, n, m])).collect()),
    });
    let domain = Domain::parse("big.test").unwrap();
    let hop = candidates(&domain, hosts.collect(), &around()).unwrap();
    assert_eq!(hop.candidates.len(), MAX_CANDIDATES);
    assert_eq!(hop.candidates[MAX_PER_HOST].host, "h1.test");
    assert!(hop.site.len() <= MAX_SITE);
}
