//! What `postroad explain` tells is what the worker does, case by case.

use std::path::Path;
use std::sync::Arc;

use postroad_dns::FixedZone;
use postroad_envelope::{StatusReport, WeightedHop};
use postroad_mta::explain::{Explainer, HostTold, Sending};

use super::*;

const MORE: &str = "\
broken.test.         SERVFAIL
test-alone.example.  A  127.0.0.1
dane.example.        MX 10 mx.dane.example.
mx.dane.example.     A  127.0.0.1
dane.example.        SIGNED
_PORT._tcp.mx.dane.example. SERVFAIL
_mta-sts.sts.example. TXT \"v=STSv1; id=1;\"
sts.example.         MX 10 mx.test.
";

/// A case: what is special about configuration and lease.
type Change = fn(&mut Config, &mut Lease, &Host);

async fn explained(zone: &str, config: &Config, lease: &Lease) -> Sending {
    let zone = FixedZone::parse(Path::new("zone"), zone).unwrap();
    let explainer = Explainer::new(config, &common(), Arc::new(zone), false).unwrap();
    let content = lease.content.clone().unwrap();
    let attempt = lease.attempt;
    explainer
        .explain(&lease.route, &lease.envelope, &content, attempt)
        .await
}

/// The first host that would be tried, and its place's site; or why there is none.
fn first(sending: &Sending) -> Result<(&HostTold, &str), &StatusReport> {
    if let Some(report) = &sending.nowhere {
        return Err(report);
    }
    let place = &sending.places[0];
    let found = place.found.as_ref()?;
    let host = &found.hosts[0];
    match &host.tls {
        Ok(_) => Ok((host, &found.site)),
        Err(report) => Err(report),
    }
}

/// What the worker did is what was told.
async fn agree(name: &str, change: Change) {
    let host = Host::start(Script::default()).await;
    let port = host.address.port();
    let (mut config, mut lease) = (to_port(port), lease("example.test", &["bob"]));
    change(&mut config, &mut lease, &host);
    let zone = format!("{ZONE}{MORE}").replace("PORT", &port.to_string());
    let told = explained(&zone, &config, &lease).await;
    let queue = FakeQueue::default();
    let done = run_in(&zone, &common(), config, lease, &queue).await;
    match first(&told) {
        Ok((first, site)) => {
            assert_eq!(
                done.outcomes(),
                ["0 relayed 2.0.0"],
                "{name}: {}",
                done.text()
            );
            let settled = done.settled.as_ref().unwrap();
            let remote = settled.outcomes[0].1.report().remote.clone().unwrap();
            assert_eq!(remote.address, first.address, "{name}");
            assert_eq!(remote.name, first.host, "{name}");
            assert_eq!(settled.sites[0].site, site, "{name}");
            let tls = first.tls.as_ref().unwrap();
            // Why a policy is not here is another matter for who does not fetch it.
            let rule = |text: &str| text.split([';', ')']).next().map(str::to_owned);
            let policy = format!("{} ({})", tls.level, tls.why);
            assert_eq!(rule(&remote.tls_policy.unwrap()), rule(&policy), "{name}");
            let heard = host.heard();
            let said = &heard[0].commands;
            assert_eq!(said[0], format!("EHLO {}", first.helo), "{name}");
            let sender = told.mail_from.trim_matches(['<', '>']);
            assert!(
                said[1].starts_with(&format!("MAIL FROM:<{sender}>")),
                "{name}: {said:?}"
            );
            let source = done.events[0].fields.get("source");
            let from = first.from.map(|from| from.to_string());
            let did = source.map(|source| source.rsplit(' ').next().unwrap_or_default().to_owned());
            assert_eq!(did, from, "{name}");
        }
        Err(report) => {
            assert!(host.heard().is_empty(), "{name}: nobody was spoken to");
            let outcome = &done.settled.as_ref().unwrap().outcomes[0].1;
            assert_eq!(outcome.report().status, report.status, "{name}");
            assert!(
                done.text().contains(&report.text),
                "{name}: {} {}",
                done.text(),
                report.text
            );
        }
    }
}

fn to(lease: &mut Lease, destination: &str) {
    let address = format!("bob@{destination}").parse().unwrap();
    lease.envelope.recipients[0].address = address;
    lease.route.destination = destination.to_owned();
}

fn through(lease: &mut Lease, hops: &[(&str, u16)]) {
    let hops = hops.iter().map(|(hop, weight)| WeightedHop {
        weight: *weight,
        ..WeightedHop::new(hop.parse().unwrap())
    });
    lease.route = lease.route.clone().through(hops.collect());
}

fn pool(config: &mut Config, address: &str) {
    let pool = postroad_mta::SourceConfig {
        addresses: vec![postroad_mta::SourceAddress {
            ip: address.parse().unwrap(),
            weight: 1,
            helo_name: None,
        }],
        helo_name: Some(postroad_mta::HostText("bulk.ours.test".parse().unwrap())),
    };
    config.outbound.sources.insert("bulk".to_owned(), pool);
}

#[tokio::test]
async fn where_it_goes_and_how() {
    let cases: [(&str, Change); 8] = [
        ("by MX", |_, _, _| {}),
        ("without MX", |_, lease, _| to(lease, "test-alone.example")),
        ("a literal", |_, lease, _| to(lease, "[127.0.0.1]")),
        ("a host of the route", |_, lease, host| {
            through(lease, &[(&host.address.to_string(), 1)]);
        }),
        ("one of several", |_, lease, host| {
            let port = host.address.port();
            through(
                lease,
                &[
                    (&format!("mx.test:{port}"), 1),
                    (&format!("127.0.0.1:{port}"), 1),
                ],
            );
        }),
        ("a pool", |config, lease, _| {
            pool(config, "127.0.0.3");
            lease.route.source = Some("bulk".parse().unwrap());
        }),
        ("in plain text", |config, _, _| {
            config.outbound.tls = TlsPolicy::None
        }),
        ("a policy that is not here", |_, lease, _| {
            to(lease, "sts.example")
        }),
    ];
    for (name, change) in cases {
        agree(name, change).await;
    }
}

#[tokio::test]
async fn where_it_does_not_go_and_why() {
    let cases: [(&str, Change); 10] = [
        ("null MX", |_, lease, _| to(lease, "null.test")),
        ("no such domain", |_, lease, _| to(lease, "nowhere.test")),
        ("the DNS fails", |_, lease, _| to(lease, "broken.test")),
        ("a forbidden place", |config, _, _| {
            config.outbound.allow_networks = Default::default();
        }),
        ("a loop", |_, lease, _| lease.envelope.hop_count = 101),
        ("no such pool", |_, lease, _| {
            lease.route.source = Some("other".parse().unwrap());
        }),
        ("a pool of the other family", |config, lease, _| {
            pool(config, "::1");
            lease.route.source = Some("bulk".parse().unwrap());
        }),
        ("no LMTP host", |_, lease, _| {
            lease.route.class = RouteClass::Lmtp
        }),
        ("TLSA that cannot be had", |_, lease, _| {
            to(lease, "dane.example")
        }),
        ("REQUIRETLS without any", |config, lease, _| {
            config.outbound.tls = TlsPolicy::None;
            lease.envelope.requiretls = true;
        }),
    ];
    for (name, change) in cases {
        agree(name, change).await;
    }
}

#[tokio::test]
async fn what_the_dns_said_is_told_and_nothing_is_kept() {
    let state = tempfile::tempdir().unwrap();
    let folder = state.path().join("mta/mta-sts");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("dead.test"), "no policy").unwrap();
    let common = CommonConfig {
        state_dir: state.path().to_owned(),
        ..common()
    };
    let zone = FixedZone::parse(
        Path::new("zone"),
        &format!("{ZONE}{MORE}").replace("PORT", "25"),
    );
    let explainer =
        Explainer::new(&to_port(2525), &common, Arc::new(zone.unwrap()), false).unwrap();
    let mut lease = lease("sts.example", &["bob"]);
    let content = lease.content.take().unwrap();
    let told = explainer
        .explain(&lease.route, &lease.envelope, &content, 1)
        .await;
    let place = &told.places[0];
    let mut asked: Vec<String> = place
        .asked
        .iter()
        .map(|asked| format!("{} {}", asked.kind, asked.name))
        .collect();
    asked.sort();
    assert_eq!(
        asked,
        [
            "A mx.test",
            "AAAA mx.test",
            "MX sts.example",
            "TXT _mta-sts.sts.example"
        ]
    );
    let found = place.found.as_ref().unwrap();
    assert!(
        found.fault.as_ref().unwrap().contains("--fetch"),
        "{found:?}"
    );
    assert_eq!(found.tls_key, "mta.outbound.tls");
    let kept: Vec<_> = std::fs::read_dir(&folder).unwrap().collect();
    assert_eq!(kept.len(), 1, "what is dead stays, and nothing comes");
}
