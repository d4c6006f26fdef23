//! Where each recipient's mail goes: from the envelope, our domains and the routing table alone, no network.

use std::{collections::HashMap, sync::Arc};

use postroad_address::Domain;
use postroad_envelope::{NextHop, Recipient, Route, RouteClass, StoreName};

use crate::{ConfigError, Foreign, RouteRule};

/// The routing table.
#[derive(Debug)]
pub(crate) struct Router {
    by_domain: HashMap<String, Way>,
    any: Option<Way>,
    foreign: Foreign,
}

#[derive(Debug, Clone)]
struct Way {
    class: RouteClass,
    next_hop: Option<NextHop>,
    rule: Arc<str>,
}

impl Router {
    pub fn new(rules: &[RouteRule], foreign: Foreign) -> Result<Self, ConfigError> {
        let mut router = Self {
            by_domain: HashMap::new(),
            any: None,
            foreign,
        };
        for rule in rules {
            if rule.class == RouteClass::Lmtp && rule.next_hop.is_none() {
                return Err(ConfigError::NoNextHop(rule.domain.clone()));
            }
            let fits = |hop: &NextHop| hop.fits(rule.class);
            if !rule.next_hop.as_ref().is_none_or(fits) {
                return Err(ConfigError::SocketWithoutLmtp(rule.domain.clone()));
            }
            let way = Way {
                class: rule.class,
                next_hop: rule.next_hop.clone(),
                rule: format!("route {}", rule.domain).into(),
            };
            if rule.domain == "*" {
                router.any.get_or_insert(way);
                continue;
            }
            let domain = Domain::parse(&rule.domain)
                .map_err(|_| ConfigError::NotADomain(rule.domain.clone()))?;
            router
                .by_domain
                .entry(domain.a_label().to_owned())
                .or_insert(way);
        }
        Ok(router)
    }

    /// The route of a recipient: its own override, the rule of its domain, our domains, the rule for all others.
    pub fn route(&self, recipient: &Recipient, is_local: impl Fn(&Domain) -> bool) -> Route {
        let domain = recipient.address.domain();
        match &recipient.route_override {
            Some((class, next_hop)) => Route {
                next_hop: next_hop.clone(),
                ..plain(domain, *class, OVERRIDE)
            },
            None => self.route_domain(domain, is_local),
        }
    }

    /// The route of a recipient without an override.
    pub fn route_domain(&self, domain: &Domain, is_local: impl Fn(&Domain) -> bool) -> Route {
        let way = self.by_domain.get(domain.a_label());
        if way.is_none() && is_local(domain) {
            return plain(domain, RouteClass::Local, LOCAL);
        }
        match (way.or(self.any.as_ref()), self.foreign) {
            (Some(way), _) => Route {
                next_hop: way.next_hop.clone(),
                ..plain(domain, way.class, &way.rule)
            },
            (None, Foreign::Relay) => plain(domain, RouteClass::Relay, "mx"),
            (None, Foreign::Hold) => plain(domain, RouteClass::Hold, "foreign domains are held"),
        }
    }
}

/// A route as the table has it; if it is local, to this store. Stores belong to accounts, so neither table nor person chooses
/// them.
pub(crate) fn in_store(mut route: Route, store: impl FnOnce() -> StoreName) -> Route {
    if route.class != RouteClass::Local {
        return route;
    }
    route.store = store();
    // The words of a person's choice are told from others when routes change.
    if let Some(name) = route.store.named()
        && follows_table(&route.rule)
    {
        route.rule = format!("{}, store {name}", route.rule);
    }
    route
}

/// Where a held mail goes once someone has released it: to the domain's mail hosts.
pub(crate) fn released(destination: &str) -> Route {
    Route {
        class: RouteClass::Relay,
        destination: destination.to_owned(),
        store: StoreName::default(),
        next_hop: None,
        rule: RELEASED.to_owned(),
    }
}

/// Where mail goes that an operator sends another way; the next hop is to be added.
pub(crate) fn rerouted(destination: &str, class: RouteClass) -> Route {
    Route {
        class,
        destination: destination.to_owned(),
        store: StoreName::default(),
        next_hop: None,
        rule: REROUTED.to_owned(),
    }
}

/// Whether a route with this rule changes with table and directory; others were chosen by a person.
pub(crate) fn follows_table(rule: &str) -> bool {
    ![OVERRIDE, RELEASED, REROUTED].contains(&rule)
}

const LOCAL: &str = "local domain";
const OVERRIDE: &str = "override";
const RELEASED: &str = "released";
const REROUTED: &str = "rerouted";

fn plain(domain: &Domain, class: RouteClass, rule: &str) -> Route {
    let (destination, rule) = (domain.a_label().to_owned(), rule.to_owned());
    Route {
        class,
        destination,
        store: StoreName::default(),
        next_hop: None,
        rule,
    }
}

#[cfg(test)]
mod tests {
    use postroad_envelope::RecipientIndex;

    use super::*;

    fn rule(domain: &str, class: RouteClass, next_hop: Option<&str>) -> RouteRule {
        let next_hop = next_hop.map(|text| text.parse().unwrap());
        RouteRule {
            domain: domain.to_owned(),
            class,
            next_hop,
            max_leases: None,
        }
    }

    fn route(router: &Router, address: &str) -> (RouteClass, String) {
        let recipient = Recipient::new(RecipientIndex(0), address.parse().unwrap());
        let route = router.route(&recipient, |domain| domain.a_label() == "ours.test");
        (route.class, route.rule)
    }

    #[test]
    fn the_most_particular_rule_wins() {
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

    #[test]
    fn rules_that_lead_nowhere_are_refused() {
        let lmtp = [rule("lists.test", RouteClass::Lmtp, None)];
        assert!(matches!(
            Router::new(&lmtp, Foreign::Relay),
            Err(ConfigError::NoNextHop(_))
        ));
        let socket = [rule(
            "lists.test",
            RouteClass::Relay,
            Some("unix:/run/dovecot/lmtp"),
        )];
        assert!(matches!(
            Router::new(&socket, Foreign::Relay),
            Err(ConfigError::SocketWithoutLmtp(_))
        ));
        let odd = [rule("no domain", RouteClass::Relay, None)];
        assert!(matches!(
            Router::new(&odd, Foreign::Relay),
            Err(ConfigError::NotADomain(_))
        ));
    }
}
