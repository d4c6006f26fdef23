//! All sites, what is under way to them, and who waits.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use postroad_envelope::Timestamp;

use crate::{
    FORGET, FORGET_FRESH, Flight, Limits, Line, Manners, Patterns, Settings, State,
    chance::Chance,
    entry::{Entry, Key},
    flights::UnderWay,
    names::Names,
    pace::Leave,
    site::Site,
};

/// Most sites that are remembered.
const MOST_SITES: usize = 50_000;
/// How often idle sites are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// A domain that was given its turn and has no jobs any more does not keep the others waiting for longer.
pub(crate) const NEXT_IN_LINE: Duration = Duration::from_millis(50);

/// A change that a person may want to know of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// The site's name.
    pub site: Arc<str>,
    /// How it stands now.
    pub state: State,
    /// What it said last, if it refused.
    pub reason: Option<String>,
}

/// Decides who may begin.
#[derive(Debug)]
pub struct Shaper {
    pub(crate) settings: Settings,
    chance: Chance,
    pub(crate) names: Names,
    pub(crate) sites: HashMap<Key, Entry>,
    pub(crate) under_way: HashMap<Flight, UnderWay>,
    /// When sites with waiters have room again.
    timers: BTreeSet<(Timestamp, Key)>,
    /// Sites that may have room.
    look: HashSet<Key>,
    changes: Vec<Changed>,
    swept: Timestamp,
}

impl Shaper {
    /// Nothing is known. The seed is for the jitter of pauses.
    pub fn new(settings: Settings, seed: u64) -> Self {
        Self {
            settings,
            chance: Chance::new(seed),
            names: Names::default(),
            sites: HashMap::new(),
            under_way: HashMap::new(),
            timers: BTreeSet::new(),
            look: HashSet::new(),
            changes: Vec::new(),
            swept: Timestamp::default(),
        }
    }

    /// Other settings hold from now on; what was learned stays.
    pub fn renew(&mut self, settings: Settings) {
        self.settings = settings;
        for (key, entry) in &mut self.sites {
            entry.site.set_limits(self.settings.limits_of(key));
        }
        // Whoever waits may have room now.
        self.look.extend(self.sites.keys().cloned());
    }

    /// What replies mean.
    pub fn patterns(&self) -> Arc<Patterns> {
        Arc::clone(&self.settings.patterns)
    }

    /// Whether a mail may begin. If not the line waits, and [`Shaper::wake`] names it when its turn has come.
    pub fn ask(&mut self, line: &Line, now: Timestamp) -> bool {
        let key = self.key_of(&line.destination);
        let leave = self.leave(&key, now);
        if leave == Leave::Now {
            return true;
        }
        let entry = self.entry(&key);
        if entry.waits.insert(line.clone()) {
            entry.waiting.push_back(line.clone());
        }
        if let Leave::At(at) = leave {
            self.set_timer(&key, at);
        }
        false
    }

    /// Which site is behind a destination. Whoever waits for that destination waits for this site from now on.
    pub(crate) fn learn(&mut self, destination: &str, site: &str, now: Timestamp) {
        let before = self.key_of(destination);
        if !self.names.learn(destination, site) {
            return;
        }
        let key = self.key_of(destination);
        if before == key {
            return;
        }
        let Some(entry) = self.sites.get_mut(&before) else {
            return;
        };
        let moved = entry.take_waiting(destination);
        if moved.is_empty() {
            return;
        }
        self.entry(&key).wait_all(moved);
        self.set_timer(&key, now);
    }

    /// The lines whose turn has come; they no longer wait. Those that may not begin after all wait again when they ask.
    pub fn wake(&mut self, now: Timestamp) -> Vec<Line> {
        self.sweep(now);
        while let Some((at, key)) = self.timers.first().filter(|(at, _)| *at <= now).cloned() {
            self.timers.remove(&(at, key.clone()));
            if let Some(entry) = self.sites.get_mut(&key) {
                entry.timer = None;
            }
            self.look.insert(key);
        }
        let mut awake = Vec::new();
        for key in std::mem::take(&mut self.look) {
            self.wake_at(&key, now, &mut awake);
        }
        awake
    }

    fn wake_at(&mut self, key: &Key, now: Timestamp, awake: &mut Vec<Line>) {
        let manners = self.settings.manners.clone();
        let Some(entry) = self.sites.get_mut(key) else {
            return;
        };
        if entry.waiting.is_empty() {
            return;
        }
        let again = match entry.site.leave(&manners, now) {
            Leave::Now => {
                let room = entry.site.room(&manners).min(entry.waiting.len());
                entry.awake.clear();
                for line in entry.waiting.drain(..room) {
                    entry.waits.remove(&line);
                    entry.awake.insert(line.clone());
                    awake.push(line);
                }
                (!entry.waiting.is_empty()).then(|| now.plus(NEXT_IN_LINE))
            }
            Leave::At(at) => Some(at),
            Leave::Later => None,
        };
        if let Some(at) = again {
            self.set_timer(key, at);
        }
    }

    /// When [`Shaper::wake`] has something to do again, unless something ends before.
    pub fn next_wake(&self) -> Option<Timestamp> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Whether something has ended since [`Shaper::wake`] was called.
    pub fn has_news(&self) -> bool {
        !self.look.is_empty()
    }

    /// What changed since this was called last.
    pub fn changes(&mut self) -> Vec<Changed> {
        std::mem::take(&mut self.changes)
    }

    /// A person lets a site, or that of a domain, go on at once; tells its names.
    pub fn lift(&mut self, name: &str, now: Timestamp) -> Vec<Arc<str>> {
        let of_domain = self.names.of(name).cloned();
        let meant = |key: &Key| {
            let is_of_domain = matches!(key, Key::Site(site) if Some(site) == of_domain.as_ref());
            is_of_domain || key.name().eq_ignore_ascii_case(name)
        };
        let keys: Vec<Key> = self
            .sites
            .keys()
            .filter(|key| meant(key))
            .cloned()
            .collect();
        for key in &keys {
            self.entry(key).site.lift(now);
            self.tell(key, now);
            self.look_at(key.clone());
        }
        keys.iter().map(|key| Arc::clone(key.name())).collect()
    }

    /// The site of a destination, if it is known.
    pub fn site_of(&self, destination: &str) -> Option<Arc<str>> {
        self.names.of(destination).cloned()
    }

    /// The destinations of a site, by its name or that of one of them, as far as they are known.
    pub fn destinations_of(&self, name: &str) -> Vec<Arc<str>> {
        let site = self.names.of(name).map_or(name, |site| site);
        let of_site = self.names.all();
        let of_site = of_site.filter(|(_, of)| of.eq_ignore_ascii_case(site));
        let of_site = of_site.map(|(domain, _)| domain);
        // Those that are counted by themselves, or of which no site is known.
        let alone = self.sites.keys().filter(|key| !matches!(key, Key::Site(_)));
        let alone = alone.map(Key::name);
        let alone = alone.filter(|domain| domain.eq_ignore_ascii_case(name));
        of_site.chain(alone).cloned().collect()
    }

    /// How the site of a destination stands.
    pub fn state_of(&self, destination: &str, now: Timestamp) -> Option<State> {
        let entry = self.sites.get(&self.key_of(destination))?;
        Some(entry.site.state(now))
    }

    pub(crate) fn leave(&mut self, key: &Key, now: Timestamp) -> Leave {
        let manners = self.settings.manners.clone();
        self.entry(key).site.leave(&manners, now)
    }

    /// Where mail to a destination is counted.
    pub(crate) fn key_of(&self, destination: &str) -> Key {
        if self.settings.counts_alone(destination) {
            return Key::Domain(destination.into());
        }
        match self.names.of(destination) {
            Some(site) => Key::Site(Arc::clone(site)),
            None => Key::Unknown(destination.into()),
        }
    }

    /// The same, at one of the sites behind it.
    pub(crate) fn key_at(&self, destination: &str, site: &str) -> Key {
        match self.settings.counts_alone(destination) {
            true => Key::Domain(destination.into()),
            false => Key::Site(site.into()),
        }
    }

    pub(crate) fn entry(&mut self, key: &Key) -> &mut Entry {
        if !self.sites.contains_key(key) {
            self.make_room();
            let limits = self.settings.limits_of(key);
            let site = Site::new(limits, &self.settings.manners, self.chance.next());
            self.sites.insert(key.clone(), Entry::new(site));
        }
        let fresh = || Site::new(Limits::default(), &Manners::default(), 0);
        let entry = self.sites.entry(key.clone());
        entry.or_insert_with(|| Entry::new(fresh()))
    }

    fn set_timer(&mut self, key: &Key, at: Timestamp) {
        let entry = self.entry(key);
        if entry.timer.is_some_and(|timer| timer <= at) {
            return;
        }
        if let Some(before) = entry.timer.replace(at) {
            self.timers.remove(&(before, key.clone()));
        }
        self.timers.insert((at, key.clone()));
    }

    pub(crate) fn look_at(&mut self, key: Key) {
        let idle = |entry: &Entry| entry.is_idle();
        if matches!(key, Key::Unknown(_))
            && self
                .sites
                .get(&key)
                .is_some_and(|entry| idle(entry) && entry.site.is_fresh())
        {
            self.sites.remove(&key);
            return;
        }
        self.look.insert(key);
    }

    pub(crate) fn tell(&mut self, key: &Key, now: Timestamp) {
        let entry = self.entry(key);
        let state = entry.site.state(now);
        let (before, word) = (entry.told, state.word());
        if before == word {
            return;
        }
        entry.told = word;
        // That a site is well from the beginning is no news.
        if before == State::New.word() && state == State::Open {
            return;
        }
        let reason = entry.site.reason().map(|(_, text)| text.to_owned());
        let site = Arc::clone(key.name());
        self.changes.push(Changed {
            site,
            state,
            reason,
        });
    }

    fn sweep(&mut self, now: Timestamp) {
        if now.since(self.swept) < SWEEP_EVERY {
            return;
        }
        self.swept = now;
        self.sites.retain(|_, entry| {
            let idle = now.since(entry.site.last_used());
            let keep = if entry.site.is_fresh() {
                FORGET_FRESH
            } else {
                FORGET
            };
            idle < keep || !entry.is_idle()
        });
    }

    /// Too many sites: a part of those that were used least recently goes.
    fn make_room(&mut self) {
        if self.sites.len() < MOST_SITES {
            return;
        }
        let idle = self.sites.iter().filter(|(_, entry)| entry.is_idle());
        let mut idle: Vec<_> = idle
            .map(|(key, entry)| (entry.site.last_used(), key.clone()))
            .collect();
        idle.sort_unstable();
        for (_, key) in idle.into_iter().take(MOST_SITES / 10) {
            self.sites.remove(&key);
        }
    }
}
