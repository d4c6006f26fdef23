//! Where the mail of one address goes, and how: the answers of queue and MTA with the places they follow from.

use bytes::Bytes;
use postroad_envelope::{Envelope, Recipient, Route, RouteClass, Timestamp};
use postroad_mta::explain as mta;
use postroad_queued::explain as queued;

use super::ask::Question;
use super::live::Live;
use super::{Case, now, told};
use crate::terminal::utc_time;

impl Case {
    /// What becomes of one address.
    pub async fn ending(
        &self,
        mail: &Envelope,
        recipient: &Recipient,
        question: &Question,
        live: &Live,
    ) -> told::Final {
        let chosen = self.queue.route(mail, recipient);
        let route = &chosen.route;
        let leaves = matches!(route.class, RouteClass::Relay | RouteClass::Lmtp);
        let list = live.suppressions().iter().cloned();
        let suppressed = self.queue.suppressed(list, mail, recipient, now());
        let rules = live.hold_rules().iter().cloned();
        let held = self.queue.held(rules, mail, route);
        // Who is not tried has nothing to hold.
        let held = held.filter(|_| suppressed.is_none());
        let tried = suppressed.is_none() && !matches!(route.class, RouteClass::Discard);
        let sending = match leaves && tried {
            true => Some(self.sending(route, mail, &question.content, live).await),
            false => None,
        };
        let fails = sending.as_ref().is_some_and(told::Sending::fails);
        told::Final {
            address: recipient.address.to_string(),
            route: self.route(&chosen, recipient),
            suppressed: suppressed.map(Into::into),
            held: held.map(|(name, reason)| format!("rule {name}: {reason}")),
            leases: (leaves && tried).then(|| self.leases(route)),
            retry: (tried && !fails).then(|| self.retry(route)),
            sending,
        }
    }

    fn route(&self, chosen: &queued::Chosen, recipient: &Recipient) -> told::Route {
        let route = &chosen.route;
        let place = match self.queue.key_of(chosen) {
            Some(key) => Some(self.place(&key)),
            None => {
                let directory = self.queue.directory();
                let place = directory.place_of(recipient.address.domain());
                place.map(|(file, line)| format!("{}:{line}", file.display()))
            }
        };
        let hops = route.next_hops.iter().map(ToString::to_string);
        let only = route.next_hop.as_ref().map(ToString::to_string);
        let only = only.filter(|_| route.next_hops.is_empty());
        told::Route {
            class: route.class.to_string(),
            destination: route.destination.clone(),
            rule: route.rule.clone(),
            place,
            store: (route.class == RouteClass::Local).then(|| route.store.to_string()),
            next_hops: hops.chain(only).collect(),
            source: route.source.as_ref().map(|name| told::Written {
                text: name.to_string(),
                place: self.place(&format!("mta.outbound.sources.{name}")),
            }),
        }
    }

    fn leases(&self, route: &Route) -> told::Limit {
        let (most, key) = self.queue.leases(route);
        let place = self.place(&key);
        told::Limit { most, place }
    }

    fn retry(&self, route: &Route) -> told::Retry {
        let schedule = self.queue.schedule(&route.destination, now());
        let by_cause = schedule.by_cause.iter();
        told::Retry {
            intervals: schedule.intervals.iter().map(|one| one.as_secs()).collect(),
            jitter_percent: schedule.jitter_percent,
            life: schedule.life.as_secs(),
            tell_after: schedule.tell_after.map(|after| after.as_secs()),
            place: self.place(&schedule.key),
            by_cause: by_cause
                .map(|(cause, key, first)| told::ByCause {
                    cause: cause.to_string(),
                    first: first.as_secs(),
                    place: self.place(key),
                })
                .collect(),
        }
    }

    async fn sending(
        &self,
        route: &Route,
        mail: &Envelope,
        content: &Bytes,
        live: &Live,
    ) -> told::Sending {
        let found = self.outbound.explain(route, mail, content, 1).await;
        let mut places = Vec::new();
        for place in found.places {
            places.push(self.place_told(place, &route.destination, live).await);
        }
        told::Sending {
            mail_from: found.mail_from,
            needs: found.needs,
            per_destination: told::Limit {
                most: Some(found.per_destination),
                place: self.place("mta.outbound.per_destination"),
            },
            nowhere: found.nowhere.map(Into::into),
            places,
        }
    }

    async fn place_told(&self, place: mta::Place, destination: &str, live: &Live) -> told::Place {
        let mut told = told::Place {
            aim: match &place.route.next_hop {
                Some(hop) => hop.to_string(),
                None => format!("the mail hosts of {destination}"),
            },
            dns: place.asked.into_iter().map(asked).collect(),
            problem: None,
            site: None,
            notes: Vec::new(),
            mta_sts: None,
            hosts: Vec::new(),
        };
        match place.found {
            Err(report) => told.problem = Some(report.into()),
            Ok(found) => {
                told.site = Some(self.site(destination, &found.site, live).await);
                told.mta_sts = mta_sts(&found);
                let key = self.place(&found.tls_key);
                told.hosts = found.hosts.into_iter().map(|one| host(one, &key)).collect();
                told.notes = found.notes;
            }
        }
        told
    }

    async fn site(&self, destination: &str, site: &str, live: &Live) -> told::Site {
        let terms = self.queue.site(destination, site);
        told::Site {
            name: site.to_owned(),
            heeded: terms.heeded,
            connections: terms.limits.connections,
            messages_per: terms.limits.messages.map(|rate| rate.to_string()),
            connections_per: terms.limits.connects.map(|rate| rate.to_string()),
            first_connections: terms.at_first,
            place: match terms.heeded {
                true => self.place(&terms.key),
                false => self.place("queued.sites.enabled"),
            },
            state: live.state_of(destination, site).await,
        }
    }
}

fn mta_sts(found: &mta::Found) -> Option<told::MtaSts> {
    let told = told::MtaSts {
        policy: found.policy.clone(),
        fetched_at: found
            .kept
            .as_ref()
            .map(|kept| utc_time(Timestamp::from_millis(kept.fetched_at.saturating_mul(1000)))),
        problem: found.fault.clone(),
    };
    (told.policy.is_some() || told.problem.is_some()).then_some(told)
}

fn asked(asked: mta::Asked) -> told::Asked {
    let (records, problem) = match asked.answer {
        Ok(records) => (records, None),
        Err(problem) => (Vec::new(), Some(problem)),
    };
    told::Asked {
        name: asked.name,
        kind: asked.kind,
        records,
        problem,
        secure: asked.secure,
        ttl: asked.ttl.map(|ttl| ttl.as_secs()),
    }
}

fn host(host: mta::HostTold, key: &str) -> told::Host {
    let (tls, problem) = match host.tls {
        Ok(tls) => (Some(tls), None),
        Err(report) => (None, Some(report.into())),
    };
    told::Host {
        name: host.name,
        host: host.host,
        address: host.address.map(|address| address.to_string()),
        secure: host.secure,
        tls: tls.map(|tls| told::Tls {
            level: tls.level,
            why: tls.why,
            place: key.to_owned(),
            certificate: tls.certificate,
            implicit: tls.implicit,
            problem: tls.trouble,
        }),
        problem,
        from: host.from.map(|from| from.to_string()),
        ehlo: host.helo,
        login: host.login,
    }
}
