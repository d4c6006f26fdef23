//! `[[queued.routes]]`: where mail goes, by what is known of it.

use std::collections::{BTreeMap, HashSet};

use postroad_envelope::{
    MAX_NEXT_HOPS, MAX_NEXT_HOPS_TEXT, NextHop, RouteClass, SourceName, WeightedHop,
};
use serde::{Deserialize, Serialize};

use super::{Several, optional_text};

/// Most octets of the name of a rule.
const MAX_NAME: usize = 64;

/// `[[queued.routes]]`. Of a rule all conditions must hold; of the texts of one condition one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteRule {
    /// What logs and timelines call the rule. Default: its conditions.
    #[serde(default)]
    pub name: Option<String>,
    /// Recipient domains: `example.com`, `.example.com` for all below it, `*` for every domain that is not ours, `**` for every
    /// domain. Default, where there is another condition: `*`. A rule of `*` alone is asked after all others.
    #[serde(default)]
    pub domain: Several,
    /// Who sends: `alice@example.com`, `example.com`, `.example.com`, or `<>` for reports.
    #[serde(default)]
    pub sender: Several,
    /// The account that submitted the mail; `*` stands for any text, here and in the conditions below.
    #[serde(default)]
    pub account: Several,
    /// The tenant.
    #[serde(default)]
    pub tenant: Several,
    /// A tag that the mail has.
    #[serde(default)]
    pub tag: Several,
    /// The listener that took the mail.
    #[serde(default)]
    pub listener: Several,
    /// What the edge found out about the mail, by the name of the fact; all of these must hold.
    #[serde(default)]
    pub facts: BTreeMap<String, Several>,
    /// `relay`, `lmtp`, `local`, `hold` or `discard`.
    #[serde(with = "postroad_daemon::text")]
    pub class: RouteClass,
    /// Where to hand the mail to instead of the domain's mail hosts: `host:port`; of class lmtp also `unix:/path`, a socket on the
    /// host of the mta.
    #[serde(default, with = "optional_text")]
    pub next_hop: Option<NextHop>,
    /// Several such places, instead of one.
    #[serde(default)]
    pub next_hops: Vec<NextHopRule>,
    /// The pool of addresses to send from, one of `mta.outbound.sources` of the mta.
    #[serde(default, with = "optional_text")]
    pub source: Option<SourceName>,
    /// Jobs that workers hold at one time for this domain, instead of `queued.destination.max_leases`; 0: any number.
    #[serde(default)]
    pub max_leases: Option<u32>,
}

/// One of `next_hops` of a route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NextHopRule {
    /// As `next_hop` of the route.
    #[serde(with = "postroad_daemon::text")]
    pub host: NextHop,
    /// Its share of the mail among those of its preference; with 0 it is tried after those that have a share.
    #[serde(default = "one")]
    pub weight: u16,
    /// Those with the lowest number are tried first, others when none of these could be used.
    #[serde(default)]
    pub preference: u16,
}

const fn one() -> u16 {
    1
}

/// What is wrong with a route, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteProblem {
    /// A text that is no domain.
    #[error(
        "{0:?} is not a domain; name a domain, \".\" and a domain for all below it, \"*\" or \"**\""
    )]
    NotADomain(String),
    /// A text that is no sender.
    #[error(
        "{0:?} is no sender; write an address, a domain, \".\" and a domain for all below it, or \"<>\""
    )]
    NotASender(String),
    /// It holds for everything.
    #[error("has no condition; write domain = \"*\" if all domains that are not ours are meant")]
    NoCondition,
    /// LMTP without a host.
    #[error("is of class lmtp, which needs next_hop = \"host:port\" or \"unix:/path\"")]
    NoNextHop,
    /// A socket of the host for another class than LMTP.
    #[error(
        "names a Unix socket, and by a socket mail goes by LMTP alone; write class = \"lmtp\", or a host with its port"
    )]
    SocketWithoutLmtp,
    /// One place and several.
    #[error("has next_hop and next_hops; write all places into next_hops")]
    TwoLists,
    /// Places that no mail of its class goes to.
    #[error(
        "is of class {0}, by which mail goes to no host; leave out {1}, or write class = \"relay\""
    )]
    GoesNowhere(RouteClass, &'static str),
    /// More places than a job can keep.
    #[error(
        "has too many next_hops; write at most {MAX_NEXT_HOPS}, of together at most {MAX_NEXT_HOPS_TEXT} octets"
    )]
    TooManyHops,
    /// A place twice.
    #[error("names {0} twice in next_hops; give it one weight")]
    HopTwice(NextHop),
    /// More than all leases would be promised.
    #[error(
        "max_leases is for a route of domains by name, without other conditions; for all others write queued.destination.max_leases"
    )]
    MaxLeases,
    /// A name that cannot be shown.
    #[error("the name {0:?} is not of 1 to 64 printable characters")]
    Name(String),
    /// A name of two rules.
    #[error("another route is called {0:?} too; give each its own name")]
    NameTwice(String),
}

impl RouteRule {
    /// A rule of one domain that says nothing else.
    pub fn new(domain: &str, class: RouteClass) -> Self {
        Self {
            name: None,
            domain: domain.into(),
            sender: Several::default(),
            account: Several::default(),
            tenant: Several::default(),
            tag: Several::default(),
            listener: Several::default(),
            facts: BTreeMap::new(),
            class,
            next_hop: None,
            next_hops: Vec::new(),
            source: None,
            max_leases: None,
        }
    }

    /// The conditions on the mail, each with its key; those on the recipient domain are not among them.
    fn conditions(&self) -> impl Iterator<Item = (&str, &Several)> {
        let fixed = [
            ("from", &self.sender),
            ("account", &self.account),
            ("tenant", &self.tenant),
            ("tag", &self.tag),
            ("listener", &self.listener),
        ];
        let facts = self.facts.iter().map(|(name, values)| (&**name, values));
        fixed
            .into_iter()
            .filter(|(_, texts)| !texts.is_empty())
            .chain(facts)
    }

    /// Whether the rule asks for more than the recipient domain.
    pub fn asks_mail(&self) -> bool {
        self.conditions().next().is_some()
    }

    /// The domains it is for, with what leaving them out means.
    pub fn domains(&self) -> impl Iterator<Item = &str> {
        let any = self.domain.is_empty().then_some("*");
        self.domain.iter().chain(any)
    }

    /// Every place it leads to.
    pub fn hops(&self) -> Vec<WeightedHop> {
        let only = self.next_hop.clone().map(WeightedHop::new);
        let several = self.next_hops.iter().map(|rule| WeightedHop {
            hop: rule.host.clone(),
            weight: rule.weight,
            preference: rule.preference,
        });
        only.into_iter().chain(several).collect()
    }

    /// What logs and timelines call it.
    pub fn title(&self) -> String {
        if let Some(name) = &self.name {
            return format!("route {name}");
        }
        let mut title = match self.domain.is_empty() {
            true => "route".to_owned(),
            false => format!("route {}", self.domain),
        };
        for (key, texts) in self.conditions() {
            title += &format!(" {key} {texts}");
        }
        title
    }

    /// What of it cannot be followed, as far as it can be told without its neighbours.
    pub(crate) fn problem(&self) -> Option<RouteProblem> {
        let shown =
            |name: &str| (1..=MAX_NAME).contains(&name.len()) && !name.contains(char::is_control);
        if let Some(name) = self.name.as_deref().filter(|name| !shown(name)) {
            return Some(RouteProblem::Name(name.to_owned()));
        }
        if self.domain.is_empty() && !self.asks_mail() {
            return Some(RouteProblem::NoCondition);
        }
        let named = |domain: &str| !domain.starts_with(['*', '.']);
        if self.max_leases.is_some() && (self.asks_mail() || !self.domains().all(named)) {
            return Some(RouteProblem::MaxLeases);
        }
        self.problem_of_hops()
    }

    fn problem_of_hops(&self) -> Option<RouteProblem> {
        let sends = matches!(self.class, RouteClass::Relay | RouteClass::Lmtp);
        if self.next_hop.is_some() && !self.next_hops.is_empty() {
            return Some(RouteProblem::TwoLists);
        }
        let idle = [
            ("next_hops", !self.next_hops.is_empty()),
            ("source", self.source.is_some()),
        ];
        if let Some((key, _)) = idle.iter().find(|(_, written)| *written && !sends) {
            return Some(RouteProblem::GoesNowhere(self.class, key));
        }
        let hops = self.hops();
        if self.class == RouteClass::Lmtp && hops.is_empty() {
            return Some(RouteProblem::NoNextHop);
        }
        if !hops.iter().all(|hop| hop.hop.fits(self.class)) {
            return Some(RouteProblem::SocketWithoutLmtp);
        }
        let text: usize = hops.iter().map(|hop| hop.hop.to_string().len()).sum();
        if hops.len() > MAX_NEXT_HOPS || text > MAX_NEXT_HOPS_TEXT {
            return Some(RouteProblem::TooManyHops);
        }
        let mut known = HashSet::new();
        let twice = hops.into_iter().find(|hop| !known.insert(hop.hop.clone()));
        twice.map(|hop| RouteProblem::HopTwice(hop.hop))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> RouteRule {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn a_rule_is_called_by_its_name_or_by_its_conditions() {
        for (text, title) in [
            (r#"domain = "a.test""#, "route a.test"),
            (r#"domain = ["a.test", ".b.test"]"#, "route a.test, .b.test"),
            (r#"sender = "<>""#, "route from <>"),
            (
                "domain = \"**\"\ntag = [\"x\", \"y\"]\nfacts = { list_id = \"news*\" }",
                "route ** tag x, y list_id news*",
            ),
            ("domain = \"*\"\nname = \"bulk\"", "route bulk"),
        ] {
            let rule = read(&format!("{text}\nclass = \"relay\""));
            assert_eq!(rule.title(), title);
            assert_eq!(rule.problem(), None, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_followed_is_told() {
        let many: Vec<_> = (0..17)
            .map(|at| format!("{{ host = \"h{at}:25\" }}"))
            .collect();
        let long = "x".repeat(60);
        let wide: Vec<_> = (0..9)
            .map(|at| format!("{{ host = \"{at}{long}:25\" }}"))
            .collect();
        for (text, problem) in [
            ("class = \"hold\"".to_owned(), RouteProblem::NoCondition),
            (
                "domain = \"a.test\"\nclass = \"lmtp\"".to_owned(),
                RouteProblem::NoNextHop,
            ),
            (
                "domain = \"a.test\"\nclass = \"relay\"\nnext_hop = \"unix:/x\"".to_owned(),
                RouteProblem::SocketWithoutLmtp,
            ),
            (
                "domain = \"a.test\"\nclass = \"relay\"\nnext_hop = \"a:1\"\nnext_hops = [{ host = \"b:1\" }]"
                    .to_owned(),
                RouteProblem::TwoLists,
            ),
            (
                "domain = \"a.test\"\nclass = \"relay\"\nnext_hops = [{ host = \"b:1\" }, { host = \"b:1\", weight = 2 }]"
                    .to_owned(),
                RouteProblem::HopTwice("b:1".parse().unwrap()),
            ),
            (
                "domain = \"a.test\"\nclass = \"hold\"\nsource = \"bulk\"".to_owned(),
                RouteProblem::GoesNowhere(RouteClass::Hold, "source"),
            ),
            (
                format!("domain = \"a.test\"\nclass = \"relay\"\nnext_hops = [{}]", many.join(",")),
                RouteProblem::TooManyHops,
            ),
            (
                format!("domain = \"a.test\"\nclass = \"relay\"\nnext_hops = [{}]", wide.join(",")),
                RouteProblem::TooManyHops,
            ),
            (
                "domain = \".a.test\"\nclass = \"relay\"\nmax_leases = 1".to_owned(),
                RouteProblem::MaxLeases,
            ),
            (
                "domain = \"a.test\"\nsender = \"<>\"\nclass = \"relay\"\nmax_leases = 1".to_owned(),
                RouteProblem::MaxLeases,
            ),
            (
                "domain = \"a.test\"\nname = \"\"\nclass = \"relay\"".to_owned(),
                RouteProblem::Name(String::new()),
            ),
        ] {
            assert_eq!(read(&text).problem(), Some(problem), "{text}");
        }
        for text in [
            "domain = []\nclass = \"relay\"",
            "domain = \"a.test\"\nclass = \"relay\"\nnext_hops = [{ host = \"b:1\", weigth = 1 }]",
        ] {
            assert!(toml::from_str::<RouteRule>(text).is_err(), "{text}");
        }
    }
}
