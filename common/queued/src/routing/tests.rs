use postroad_address::ReversePath;
use postroad_envelope::{QueueId, RecipientIndex, Timestamp};

use super::*;

fn rule(domain: &str, class: RouteClass, next_hop: Option<&str>) -> RouteRule {
    RouteRule {
        next_hop: next_hop.map(|text| text.parse().unwrap()),
        ..RouteRule::new(domain, class)
    }
}

fn mail(sender: &str) -> Envelope {
    let at = Timestamp::from_millis(0);
    let path = match sender {
        "<>" => ReversePath::Null,
        sender => ReversePath::parse(sender).unwrap(),
    };
    Envelope::new(QueueId::mint(at, [1; 10]), path, at)
}

fn choose(router: &Router, sender: &str, address: &str) -> Chosen {
    let recipient = Recipient::new(RecipientIndex(0), address.parse().unwrap());
    router.route(&mail(sender), &recipient, |domain| {
        domain.a_label() == "ours.test"
    })
}

fn route(router: &Router, address: &str) -> (RouteClass, String) {
    let route = choose(router, "a@ours.test", address).route;
    (route.class, route.rule)
}

#[test]
fn the_rule_for_all_others_is_asked_last_wherever_it_is_written() {
    let rules = [
        rule("*", RouteClass::Relay, Some("smart.test:25")),
        rule("Lists.test", RouteClass::Lmtp, Some("[::1]:24")),
    ];
    let router = Router::new(&rules, Foreign::Hold).unwrap();
    assert_eq!(route(&router, "a@ours.test").0, RouteClass::Local);
    assert_eq!(route(&router, "a@LISTS.test").0, RouteClass::Lmtp);
    assert_eq!(
        route(&router, "a@far.test"),
        (RouteClass::Relay, "route *".to_owned())
    );
    let router = Router::new(&[], Foreign::Hold).unwrap();
    assert_eq!(route(&router, "a@far.test").0, RouteClass::Hold);
    let router = Router::new(&[], Foreign::Relay).unwrap();
    assert_eq!(
        route(&router, "a@far.test"),
        (RouteClass::Relay, "mx".to_owned())
    );
}

/// The configuration of a routing table.
fn table(text: &str) -> Router {
    let config: crate::Config = toml::from_str(text).unwrap();
    Router::new(&config.routes, config.foreign).unwrap()
}

#[test]
fn the_first_rule_whose_conditions_all_hold_is_taken() {
    let router = table(
        r#"
        routes = [
            { domain = "a.far.test", class = "hold" },
            { domain = [".far.test", "near.test"], sender = "news.test", class = "relay", next_hop = "news.test:25" },
            { sender = "news.test", class = "relay", next_hop = "other.test:25" },
            { domain = ".test", class = "relay", next_hop = "test.test:25" },
            { domain = "**", sender = "<>", class = "discard" },
            { domain = "*", class = "relay", next_hop = "rest.test:25" },
        ]
        "#,
    );
    for (sender, recipient, number) in [
        ("x@news.test", "b@a.far.test", Some(0)),
        ("x@news.test", "b@b.a.far.test", Some(1)),
        ("x@news.test", "b@near.test", Some(1)),
        ("x@news.test", "b@far.test", Some(2)),
        // Ours is not meant by leaving the domain out, but by what it is below.
        ("x@news.test", "b@ours.test", Some(3)),
        ("x@old.test", "b@far.test", Some(3)),
        ("x@old.test", "b@test", Some(5)),
        ("<>", "b@near.test", Some(3)),
        ("<>", "b@far.example", Some(4)),
        ("x@old.test", "b@[192.0.2.1]", Some(5)),
    ] {
        let chosen = choose(&router, sender, recipient);
        assert_eq!(chosen.rule, number, "{sender} {recipient}: {chosen:?}");
    }
    let ours = table(r#"routes = [{ sender = "<>", class = "hold" }]"#);
    assert_eq!(
        choose(&ours, "<>", "b@ours.test").route.class,
        RouteClass::Local
    );
    assert_eq!(choose(&ours, "<>", "b@far.test").rule, Some(0));
    let all = table(r#"routes = [{ domain = "**", sender = "<>", class = "hold" }]"#);
    assert_eq!(choose(&all, "<>", "b@ours.test").rule, Some(0));
}

#[test]
fn a_route_has_its_places_its_pool_and_its_name() {
    let router = table(
        r#"
        [[routes]]
        name = "big"
        domain = "far.test"
        class = "relay"
        source = "bulk"
        next_hops = [
            { host = "backup.test:587", preference = 10 },
            { host = "a.test:587", weight = 3 },
            { host = "b.test:587" },
        ]
        "#,
    );
    let route = choose(&router, "<>", "x@far.test").route;
    assert_eq!(route.rule, "route big");
    assert_eq!(route.next_hop, Some("a.test:587".parse().unwrap()));
    assert_eq!(
        route.aim(),
        "a.test:587 weight 3 or b.test:587 or backup.test:587 preference 10"
    );
    assert_eq!(route.source.unwrap().as_str(), "bulk");
}

#[test]
fn without_its_mail_a_rule_that_asks_for_it_fits_nothing() {
    let router = table(
        r#"routes = [{ domain = "far.test", tag = "*", class = "hold" }, { domain = "far.test", class = "discard" }]"#,
    );
    assert!(router.asks_mail());
    let far = Domain::parse("far.test").unwrap();
    let chosen = router.route_domain(None, &far, |_| false);
    assert_eq!(chosen.rule, Some(1));
    assert!(!table("routes = [{ domain = \"far.test\", class = \"hold\" }]").asks_mail());
}

#[test]
fn rules_that_lead_nowhere_are_refused_with_their_number() {
    let refused = |rules: &[RouteRule]| Router::new(rules, Foreign::Relay).unwrap_err();
    let good = rule("far.test", RouteClass::Relay, None);
    let error = refused(&[good.clone(), rule("lists.test", RouteClass::Lmtp, None)]);
    assert_eq!(error.key(), "queued.routes[1]");
    for odd in ["no domain", ".", "*.far.test", ".*"] {
        let error = refused(&[rule(odd, RouteClass::Relay, None)]);
        let problem = RouteProblem::NotADomain(odd.to_owned());
        assert_eq!(error, ConfigError::Route { at: 0, problem });
    }
    let named = RouteRule {
        name: Some("x".to_owned()),
        ..good
    };
    let error = refused(&[named.clone(), named]);
    assert!(matches!(
        error,
        ConfigError::Route {
            at: 1,
            problem: RouteProblem::NameTwice(_)
        }
    ));
}
