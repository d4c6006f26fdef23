//! What the queue would do with a mail, without a queue: for `postroad explain`.
//!
//! Nothing is decided here. Each answer is that of the function that the running queue asks: its routing table, the rules of who
//! may submit what, its schedule, and the limits of destinations and sites.

use std::{path::PathBuf, time::Duration};

use postroad_address::Domain;
use postroad_directory::Directory;
use postroad_envelope::{
    Cause, Envelope, MailTraits, Recipient, Route, RouteClass, StatusReport, Suppression, Timestamp,
};
use postroad_net::PeerRole;
use postroad_queue::{HoldRule, RetrySchedule, Suppressions, Tried};
use postroad_queue_client::{HoldRuleDetails, QueueError};
use postroad_shaping::{Limits, Settings};

use crate::{Config, ConfigError, RouteRule, routing::Router, rpc, submission::too_large};

pub use crate::routing::Chosen;

/// Attempts whose times are told one by one.
const TOLD: u32 = 8;

/// A queue that only tells.
#[derive(Debug)]
pub struct Explainer {
    config: Config,
    router: Router,
    sites: Settings,
    schedule: RetrySchedule,
    directory: Directory,
}

/// When a mail is tried again, and until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// Where it stands: `queued.retry`, or one of its cases.
    pub key: String,
    /// The first intervals, without jitter; the last of them is the longest, or the last that fits into the life.
    pub intervals: Vec<Duration>,
    /// Hundredths by which an interval may be longer or shorter.
    pub jitter_percent: u32,
    /// The life of a mail.
    pub life: Duration,
    /// When its sender is told that it still waits.
    pub tell_after: Option<Duration>,
    /// Other terms after failures of some causes: cause, key, first interval.
    pub by_cause: Vec<(Cause, String, Duration)>,
}

/// What a site takes by the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteTerms {
    /// Whether mail waits for it; else it is only shown.
    pub heeded: bool,
    /// Where it stands: `queued.sites`, or one of its limits.
    pub key: String,
    /// How much.
    pub limits: Limits,
    /// Mails at once while nothing is known of the site; none: that is not learned.
    pub at_first: Option<u32>,
}

impl Explainer {
    /// Of this configuration and directory.
    pub fn new(config: Config, directory: Directory) -> Result<Self, ConfigError> {
        Ok(Self {
            router: Router::new(&config.routes, config.foreign)?,
            sites: config.shaping()?,
            schedule: RetrySchedule::from(&config),
            directory,
            config,
        })
    }

    /// Whether a mail of so many octets from an agent of this role is taken, as far as configuration and directory tell.
    pub fn takes(&self, role: PeerRole, mail: &Envelope, octets: u64) -> Result<(), QueueError> {
        if octets > self.config.size_limit.as_u64() {
            return Err(too_large());
        }
        rpc::may_submit(&self.config, role, mail, &self.directory)
            .map_err(|why| QueueError::NotAllowed(why.to_owned()))
    }

    /// Where a recipient's mail goes, and the number of the rule in `queued.routes` that says so.
    pub fn route(&self, mail: &Envelope, recipient: &Recipient) -> Chosen {
        self.router.choose(&self.directory, mail, recipient)
    }

    /// The key that a choice follows from: a rule, what is done with foreign mail, or none where the directory says it.
    pub fn key_of(&self, chosen: &Chosen) -> Option<String> {
        match (chosen.rule, chosen.route.class) {
            (Some(number), _) => Some(format!("queued.routes[{number}]")),
            (None, RouteClass::Local) => None,
            (None, _) => Some("queued.foreign".to_owned()),
        }
    }

    /// Why a recipient would not be tried, given this list.
    pub fn suppressed(
        &self,
        list: impl IntoIterator<Item = Suppression>,
        mail: &Envelope,
        recipient: &Recipient,
        now: Timestamp,
    ) -> Option<StatusReport> {
        Suppressions::new(list).verdict(mail, recipient, now)
    }

    /// The name and reason of the first of these rules that holds the mail back as it comes.
    pub fn held(
        &self,
        rules: impl IntoIterator<Item = HoldRuleDetails>,
        mail: &Envelope,
        route: &Route,
    ) -> Option<(String, String)> {
        let sender = mail.reverse_path.to_string();
        let traits = MailTraits {
            queue_id: mail.queue_id,
            sender: &sender,
            size: mail.size,
            tenant: &mail.tenant,
            account: mail.account.as_deref(),
            tags: &mail.tags,
        };
        let rules = rules.into_iter().map(|rule| HoldRule {
            name: rule.name,
            filter: rule.filter,
            by: rule.by,
            reason: rule.reason,
            created_at: rule.created_at,
        });
        let mut fitting = rules.filter(|rule| rule.holds_for(&traits, &route.destination));
        fitting.next().map(|rule| (rule.name, rule.reason))
    }

    /// Jobs that all workers together hold at one time for the destination of a route (none: any number), and the key that says so.
    pub fn leases(&self, route: &Route) -> (Option<u32>, String) {
        let is_it = |name: &str| {
            Domain::parse(name).is_ok_and(|domain| domain.a_label() == route.destination)
        };
        let limits = |rule: &RouteRule| rule.max_leases.is_some() && rule.domain.iter().any(is_it);
        let key = match self.config.routes.iter().position(limits) {
            Some(number) => format!("queued.routes[{number}].max_leases"),
            None => "queued.destination.max_leases".to_owned(),
        };
        let fairness = self.config.fairness();
        (fairness.limit(route.class, &route.destination), key)
    }

    /// What the mail hosts of a destination take.
    pub fn site(&self, destination: &str, site: &str) -> SiteTerms {
        let (rule, limits) = self.sites.terms(destination, site);
        let manners = &self.sites.manners;
        SiteTerms {
            heeded: self.config.sites.enabled,
            key: match rule {
                Some(number) => format!("queued.sites.limits[{number}]"),
                None => "queued.sites".to_owned(),
            },
            limits,
            at_first: manners.adaptive.then_some(manners.first_connections),
        }
    }

    /// When mail to a destination that came now is tried again.
    pub fn schedule(&self, destination: &str, now: Timestamp) -> Schedule {
        let plain = RetrySchedule {
            jitter_percent: 0,
            ..self.schedule.clone()
        };
        let expires_at = plain.expires_at_of(destination, now);
        let after = |attempts, cause, at| {
            let tried = Tried {
                destination,
                cause,
                attempts,
                begun_at: now,
                expires_at,
            };
            plain.next_for(&tried, at, 0)
        };
        let (mut at, mut intervals) = (now, Vec::new());
        for attempts in 1..=TOLD {
            let Some(next) = after(attempts, None, at) else {
                break;
            };
            intervals.push(next.since(at));
            at = next;
        }
        let key = |number: Option<usize>| match number {
            Some(number) => format!("queued.retry.cases[{number}]"),
            None => "queued.retry".to_owned(),
        };
        let usual = plain.special_for(destination, None);
        let causes = Cause::ALL.iter().copied().filter_map(|cause| {
            let own = plain.special_for(destination, Some(cause));
            let first = after(1, Some(cause), now)?.since(now);
            (own != usual).then(|| (cause, key(own), first))
        });
        let mut by_cause: Vec<_> = causes.collect();
        by_cause.sort_by(|(_, one, _), (_, next, _)| one.cmp(next));
        Schedule {
            key: key(usual),
            intervals,
            jitter_percent: self.schedule.jitter_percent,
            life: expires_at.since(now),
            tell_after: plain.tell_after,
            by_cause,
        }
    }

    /// Accounts and domains.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// The file of the directory.
    pub fn directory_file(&self) -> PathBuf {
        self.directory.file().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use postroad_address::ReversePath;
    use postroad_envelope::{QueueId, RecipientIndex};

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn explainer(text: &str) -> Explainer {
        let directory = "[[domain]]\nname = \"ours.test\"\npostmaster = \"a@ours.test\"\n[[account]]\naddress = \"a@ours.test\"\n";
        let directory = Directory::parse(Path::new("directory.toml"), directory).unwrap();
        Explainer::new(toml::from_str(text).unwrap(), directory).unwrap()
    }

    fn mail(to: &str) -> Envelope {
        let sender = ReversePath::parse("a@ours.test").unwrap();
        Envelope {
            recipients: vec![Recipient::new(RecipientIndex(0), to.parse().unwrap())],
            ..Envelope::new(QueueId::mint(NOW, [1; 10]), sender, NOW)
        }
    }

    #[test]
    fn a_choice_is_told_with_the_key_it_follows_from() {
        let explainer = explainer(
            "foreign = \"hold\"\nroutes = [{ domain = \"far.test\", class = \"relay\" }]\n",
        );
        for (to, class, key) in [
            ("x@far.test", RouteClass::Relay, Some("queued.routes[0]")),
            ("x@other.test", RouteClass::Hold, Some("queued.foreign")),
            ("a@ours.test", RouteClass::Local, None),
        ] {
            let mail = mail(to);
            let chosen = explainer.route(&mail, &mail.recipients[0]);
            assert_eq!(chosen.route.class, class, "{to}");
            assert_eq!(explainer.key_of(&chosen).as_deref(), key, "{to}");
        }
    }

    #[test]
    fn the_times_are_those_of_the_schedule_with_its_cases() {
        let minutes = |schedule: &Schedule| -> Vec<u64> {
            let all = schedule.intervals.iter();
            all.map(|interval| interval.as_secs() / 60).collect()
        };
        let explainer = explainer(
            "[retry]\nfirst = \"5m\"\nmax = \"20m\"\ngive_up_after = \"1h\"\n\
             cases = [{ domains = [\"slow.test\"], first = \"30m\", max = \"30m\" }, { causes = [\"greylisted\"], first = \"1m\" }]\n",
        );
        let usual = explainer.schedule("far.test", NOW);
        assert_eq!(minutes(&usual), [5, 10, 20, 20, 5]);
        assert_eq!(
            (usual.key.as_str(), usual.life.as_secs()),
            ("queued.retry", 3600)
        );
        let greylisted = (
            Cause::Greylisted,
            "queued.retry.cases[1]".to_owned(),
            Duration::from_secs(60),
        );
        assert_eq!(usual.by_cause, [greylisted]);
        let slow = explainer.schedule("slow.test", NOW);
        assert_eq!(minutes(&slow), [30, 30]);
        assert_eq!(slow.key, "queued.retry.cases[0]");
        assert!(slow.by_cause.is_empty(), "the first that fits is taken");
    }

    #[test]
    fn limits_come_with_the_rule_they_stand_in() {
        let explainer = explainer(
            "destination.max_leases = 7\nroutes = [{ domain = \"own.test\", class = \"relay\", max_leases = 3 }]\n[sites]\nenabled = true\nconnections = 9\n\
             limits = [{ mx = \"big.test\", connections = 2 }, { domain = \"alone.test\", messages_per = \"5/1m\" }]\n",
        );
        let route = Route::new(RouteClass::Relay, "far.test", "mx");
        let usual = "queued.destination.max_leases".to_owned();
        assert_eq!(explainer.leases(&route), (Some(7), usual));
        let own = Route::new(RouteClass::Relay, "own.test", "route own.test");
        let key = "queued.routes[0].max_leases".to_owned();
        assert_eq!(explainer.leases(&own), (Some(3), key));
        let big = explainer.site("far.test", "mx1.big.test,mx2.big.test");
        assert_eq!(
            (big.key.as_str(), big.limits.connections),
            ("queued.sites.limits[0]", Some(2))
        );
        let alone = explainer.site("alone.test", "mx1.big.test");
        assert_eq!(alone.key, "queued.sites.limits[1]");
        assert_eq!(alone.limits.connections, Some(9));
        assert!(explainer.site("far.test", "mx.small.test").heeded);
    }

    #[test]
    fn who_may_submit_what_is_asked_of_the_queue() {
        let explainer = explainer("size_limit = \"1KiB\"\nrelay_networks = [\"192.0.2.0/24\"]\n");
        let mut foreign = mail("x@far.test");
        let refused = explainer.takes(PeerRole::Mta, &foreign, 100);
        assert!(
            matches!(refused, Err(QueueError::NotAllowed(_))),
            "{refused:?}"
        );
        foreign.origin.client = Some("192.0.2.7:25".parse().unwrap());
        assert_eq!(explainer.takes(PeerRole::Mta, &foreign, 100), Ok(()));
        let large = explainer.takes(PeerRole::Mta, &foreign, 2000);
        assert!(matches!(large, Err(QueueError::Refused(_))), "{large:?}");
    }

    #[test]
    fn a_standing_rule_holds_what_it_is_for() {
        let explainer = explainer("");
        let rule = |destination: &str| HoldRuleDetails {
            name: "far".to_owned(),
            filter: postroad_envelope::Filter {
                destination: Some(destination.to_owned()),
                ..postroad_envelope::Filter::default()
            },
            by: String::new(),
            reason: "under repair".to_owned(),
            created_at: NOW,
            held: 0,
        };
        let mail = mail("x@far.test");
        let route = Route::new(RouteClass::Relay, "far.test", "mx");
        let held = |rule| explainer.held([rule], &mail, &route);
        let told = ("far".to_owned(), "under repair".to_owned());
        assert_eq!(held(rule("far.test")), Some(told));
        assert_eq!(held(rule("near.test")), None);
    }

    #[test]
    fn whoever_is_on_the_list_is_not_tried() {
        let explainer = explainer("");
        let entry = Suppression {
            address: "x@far.test".to_owned(),
            tenant: "default".to_owned(),
            account: None,
            since: NOW,
            until: None,
            reason: "no such mailbox".to_owned(),
            by: String::new(),
        };
        let mail = mail("x@far.test");
        let told = |list| explainer.suppressed(list, &mail, &mail.recipients[0], NOW);
        assert!(told(vec![entry]).unwrap().text.contains("suppression list"));
        assert_eq!(told(Vec::new()), None);
    }
}
