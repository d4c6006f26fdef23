//! Sites as people see them.

use std::{collections::HashMap, sync::Arc};

use postroad_envelope::Timestamp;

use crate::{Limits, Line, Shaper, State, entry::Key};

/// A site for people.
#[derive(Debug, Clone, PartialEq)]
pub struct SiteView {
    /// The site's name; of a domain whose site is not known yet, or that is counted by itself, the domain.
    pub site: Arc<str>,
    /// Some of its domains.
    pub domains: Vec<Arc<str>>,
    /// Its domains in all.
    pub domain_count: usize,
    /// How it stands.
    pub state: State,
    /// Mails under way.
    pub in_use: u32,
    /// Most at once, now.
    pub connections: u32,
    /// Mails a minute that were learned.
    pub per_minute: Option<f64>,
    /// What is configured.
    pub limits: Limits,
    /// Destinations that wait for leave.
    pub waiting: usize,
    /// Mails taken and refused in the last ten minutes.
    pub lately: (u32, u32),
    /// What it said when it refused last.
    pub reason: Option<(Timestamp, String)>,
}

/// Why mail waits for its site.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// The site's name; of a domain whose site is not known, or that is counted by itself, the domain.
    pub site: Arc<str>,
    /// How it stands.
    pub state: State,
    /// What it said when it refused last.
    pub reason: Option<String>,
    /// What it said with that: class, subject, detail (RFC 3463).
    pub status: Option<(u8, u16, u16)>,
}

impl Shaper {
    /// How the site stands for which this mail waits; none: it does not wait.
    pub fn waits(&self, line: &Line, now: Timestamp) -> Option<Standing> {
        let key = self.key_of(&line.destination);
        let entry = self.sites.get(&key)?;
        let state = entry.site.state(now);
        // Where nothing is known yet, one shows the way in a moment.
        let in_line = entry.waits.contains(line) && state != State::New;
        let waits = state.until().is_some() || in_line;
        let reason = entry.site.reason();
        waits.then(|| Standing {
            site: Arc::clone(key.name()),
            state,
            reason: reason.map(|(_, text)| text.to_owned()),
            status: entry.site.status(),
        })
    }

    /// All sites in use or with something learned, with at most so many of their domains, by name.
    pub fn view(&self, domains: usize, now: Timestamp) -> Vec<SiteView> {
        let mut of_site: HashMap<&Arc<str>, Vec<&Arc<str>>> = HashMap::new();
        for (domain, site) in self.names.all() {
            of_site.entry(site).or_default().push(domain);
        }
        let mut views: Vec<SiteView> = Vec::with_capacity(self.sites.len());
        for (key, entry) in &self.sites {
            let mut all = match key {
                Key::Site(site) => of_site.remove(site).unwrap_or_default(),
                Key::Unknown(domain) | Key::Domain(domain) => vec![domain],
            };
            all.sort_unstable();
            let (connections, rate) = entry.site.allowance(&self.settings.manners);
            let reason = entry.site.reason();
            views.push(SiteView {
                site: Arc::clone(key.name()),
                domain_count: all.len(),
                domains: all.into_iter().take(domains).cloned().collect(),
                state: entry.site.state(now),
                in_use: entry.site.in_use(),
                connections,
                per_minute: rate.map(|rate| rate * 60.0),
                limits: entry.site.limits(),
                waiting: entry.waiting.len(),
                lately: entry.site.lately(),
                reason: reason.map(|(at, text)| (at, text.to_owned())),
            });
        }
        views.sort_by(|one, other| one.site.cmp(&other.site));
        views
    }

    /// How many sites stand so.
    pub fn count(&self, word: &str, now: Timestamp) -> usize {
        let entries = self.sites.values();
        entries
            .filter(|entry| entry.site.state(now).word() == word)
            .count()
    }
}
