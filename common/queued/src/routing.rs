//! Where each recipient's mail goes: from the envelope, our domains and the routing table alone, no network.

mod conditions;

use std::{collections::HashMap, sync::Arc};

use postroad_address::Domain;
use postroad_directory::Directory;
use postroad_envelope::{
    Envelope, Recipient, Route, RouteClass, SourceName, StoreName, WeightedHop,
};

use self::conditions::Conditions;
use crate::{ConfigError, Foreign, RouteProblem, RouteRule};

/// The routing table.
///
/// The first rule that fits is taken, in the order they are written, before local domains are looked at. A rule for `*` alone is
/// asked after them, wherever it is written.
#[derive(Debug)]
pub(crate) struct Router {
    rules: Vec<Rule>,
    /// By the A-label of a domain: the numbers of the rules for it, ascending.
    of_domain: HashMap<String, Vec<usize>>,
    /// By the A-label of a domain: those of the rules for what is below it.
    below: HashMap<String, Vec<usize>>,
    /// Those for every domain that is not ours.
    of_others: Vec<usize>,
    /// Those for every domain.
    of_all: Vec<usize>,
    /// The rule for all others.
    rest: Option<usize>,
    asks_mail: bool,
    foreign: Foreign,
}

#[derive(Debug)]
struct Rule {
    conditions: Conditions,
    asks_mail: bool,
    class: RouteClass,
    hops: Vec<WeightedHop>,
    source: Option<SourceName>,
    title: Arc<str>,
}

/// A route and what chose it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// The route.
    pub route: Route,
    /// The number of the rule in `queued.routes`, if one of these chose it.
    pub rule: Option<usize>,
}

impl Router {
    pub fn new(rules: &[RouteRule], foreign: Foreign) -> Result<Self, ConfigError> {
        let mut router = Self {
            rules: Vec::with_capacity(rules.len()),
            of_domain: HashMap::new(),
            below: HashMap::new(),
            of_others: Vec::new(),
            of_all: Vec::new(),
            rest: None,
            asks_mail: rules.iter().any(RouteRule::asks_mail),
            foreign,
        };
        let mut names = HashMap::new();
        for (at, rule) in rules.iter().enumerate() {
            let wrong = |problem| ConfigError::Route { at, problem };
            if let Some(name) = &rule.name
                && names.insert(name, at).is_some()
            {
                return Err(wrong(RouteProblem::NameTwice(name.clone())));
            }
            router.add(at, rule).map_err(wrong)?;
        }
        Ok(router)
    }

    fn add(&mut self, at: usize, rule: &RouteRule) -> Result<(), RouteProblem> {
        if let Some(problem) = rule.problem() {
            return Err(problem);
        }
        for domain in rule.domains() {
            let known = |name: &str| {
                let parsed = Domain::parse(name);
                let wrong = |_| RouteProblem::NotADomain(domain.to_owned());
                parsed.map(|name| name.a_label().to_owned()).map_err(wrong)
            };
            match domain.strip_prefix('.') {
                _ if domain == "**" => self.of_all.push(at),
                _ if domain == "*" && rule.asks_mail() => self.of_others.push(at),
                _ if domain == "*" => drop(self.rest.get_or_insert(at)),
                Some(name) => self.below.entry(known(name)?).or_default().push(at),
                None => self.of_domain.entry(known(domain)?).or_default().push(at),
            }
        }
        self.rules.push(Rule {
            conditions: Conditions::new(rule)?,
            asks_mail: rule.asks_mail(),
            class: rule.class,
            hops: rule.hops(),
            source: rule.source.clone(),
            title: rule.title().into(),
        });
        Ok(())
    }

    /// Whether any rule asks for more than the recipient domain.
    pub fn asks_mail(&self) -> bool {
        self.asks_mail
    }

    /// The route of a recipient under this directory, and of local mail its store.
    pub fn choose(&self, directory: &Directory, mail: &Envelope, recipient: &Recipient) -> Chosen {
        let is_local = |domain: &_| directory.is_local_domain(domain);
        let chosen = self.route(mail, recipient, is_local);
        let route = in_store(chosen.route, || directory.store_of(&recipient.address));
        Chosen { route, ..chosen }
    }

    /// The route of a recipient: its own override, the first rule that fits, our domains, the rule for all others.
    pub fn route(
        &self,
        mail: &Envelope,
        recipient: &Recipient,
        is_local: impl Fn(&Domain) -> bool,
    ) -> Chosen {
        let domain = recipient.address.domain();
        match &recipient.route_override {
            Some((class, next_hop)) => Chosen {
                route: Route {
                    next_hop: next_hop.clone(),
                    ..Route::new(*class, domain.a_label(), OVERRIDE)
                },
                rule: None,
            },
            None => self.route_domain(Some(mail), domain, is_local),
        }
    }

    /// The route of a recipient without an override. Without its mail, no rule fits that asks for more than the domain.
    pub fn route_domain(
        &self,
        mail: Option<&Envelope>,
        domain: &Domain,
        is_local: impl Fn(&Domain) -> bool,
    ) -> Chosen {
        let local = is_local(domain);
        let name = domain.a_label();
        let fits =
            |rule: &Rule| !rule.asks_mail || mail.is_some_and(|mail| rule.conditions.hold(mail));
        let mut fitting = self.candidates(name, local).into_iter();
        let chosen = fitting.find(|at| self.rules.get(*at).is_some_and(fits));
        let rest = self.rest.filter(|_| !local);
        if let Some(at) = chosen.or(rest)
            && let Some(rule) = self.rules.get(at)
        {
            let route = Route::new(rule.class, name, &*rule.title).through(rule.hops.clone());
            let source = rule.source.clone();
            return Chosen {
                route: Route { source, ..route },
                rule: Some(at),
            };
        }
        let route = match (local, self.foreign) {
            (true, _) => Route::new(RouteClass::Local, name, LOCAL),
            (false, Foreign::Relay) => Route::new(RouteClass::Relay, name, "mx"),
            (false, Foreign::Hold) => {
                Route::new(RouteClass::Hold, name, "foreign domains are held")
            }
        };
        Chosen { route, rule: None }
    }

    /// The numbers of the rules for a domain, in the order in which they are asked.
    fn candidates(&self, domain: &str, local: bool) -> Vec<usize> {
        let mut found = self.of_all.clone();
        if !local {
            found.extend(&self.of_others);
        }
        found.extend(self.of_domain.get(domain).into_iter().flatten());
        let mut rest = domain;
        while let Some((_, parent)) = rest.split_once('.') {
            found.extend(self.below.get(parent).into_iter().flatten());
            rest = parent;
        }
        found.sort_unstable();
        found
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
    Route::new(RouteClass::Relay, destination, RELEASED)
}

/// Where mail goes that an operator sends another way; the next hop is to be added.
pub(crate) fn rerouted(destination: &str, class: RouteClass) -> Route {
    Route::new(class, destination, REROUTED)
}

/// Whether a route with this rule changes with table and directory; others were chosen by a person.
pub(crate) fn follows_table(rule: &str) -> bool {
    ![OVERRIDE, RELEASED, REROUTED].contains(&rule)
}

const LOCAL: &str = "local domain";
const OVERRIDE: &str = "override";
const RELEASED: &str = "released";
const REROUTED: &str = "rerouted";

#[cfg(test)]
mod tests;
