//! What is under way, and to which sites.
//!
//! A mail begins at one site. Where its route has several places (smarthosts, one after the other) its worker goes on from site to
//! site, asking at each. It counts at all of them until it has ended, since the leave that was given at one may be used still; then
//! each site that was tried hears how it went there, and of the others nothing is held against anybody.

use std::{cmp::Reverse, sync::Arc};

use postroad_envelope::Timestamp;

use crate::{
    Ending, Line, Shaper, Signal, entry::Key, names::LONGEST, pace::Leave, shaper::NEXT_IN_LINE,
    site::Flown,
};

/// Sites that one mail may be under way to.
const MOST_SITES: usize = 64;
/// Octets that are kept of what a site said.
const LONGEST_REASON: usize = 300;

/// Names something under way; whoever grants it chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Flight(pub u64, pub u64);

/// One mail.
#[derive(Debug)]
pub(crate) struct UnderWay {
    destination: Arc<str>,
    /// Where it counts: first where it began, unless that was a domain of which the site was not known.
    legs: Vec<Leg>,
    /// The site that has room for it first, of those that had none.
    refused: Option<(Timestamp, Box<str>)>,
}

#[derive(Debug)]
struct Leg {
    key: Key,
    flown: Flown,
}

impl UnderWay {
    /// It goes with another one, and counts nowhere.
    pub(crate) fn along(destination: &Arc<str>) -> Self {
        Self {
            destination: Arc::clone(destination),
            legs: Vec::new(),
            refused: None,
        }
    }

    pub(crate) fn destination(&self) -> &Arc<str> {
        &self.destination
    }

    fn counts_at(&self, key: &Key) -> bool {
        self.legs.iter().any(|leg| leg.key == *key)
    }

    fn take(&mut self, key: &Key) -> Option<Flown> {
        let at = self.legs.iter().position(|leg| leg.key == *key)?;
        Some(self.legs.remove(at).flown)
    }

    /// The domain of which the site was not known.
    fn take_unknown(&mut self) -> Option<Leg> {
        let is_unknown = |leg: &Leg| matches!(leg.key, Key::Unknown(_));
        let at = self.legs.iter().position(is_unknown)?;
        Some(self.legs.remove(at))
    }
}

impl Shaper {
    /// One that may begin has begun; also one of which nobody asked, since it was under way before we were.
    pub fn began(&mut self, flight: Flight, line: &Line, now: Timestamp) {
        let key = self.key_of(&line.destination);
        let awake = self.entry(&key).awake.remove(line);
        let leg = self.begin_at(key, awake, now);
        let under_way = UnderWay {
            destination: Arc::clone(&line.destination),
            legs: vec![leg],
            refused: None,
        };
        if let Some(before) = self.under_way.insert(flight, under_way) {
            self.unused(before.legs);
        }
    }

    fn begin_at(&mut self, key: Key, awake: bool, now: Timestamp) -> Leg {
        let entry = self.entry(&key);
        let waited = awake || !entry.waiting.is_empty();
        let at_once = entry.site.begin(waited, now);
        let flown = Flown {
            began: now,
            at_once,
            waited,
        };
        Leg { key, flown }
    }

    /// A worker found a site behind what is under way, and asks to connect there. None: it may. Else when to ask again; if it finds
    /// no other site its lease is best handed back.
    ///
    /// That a site has no room says nothing of where the rest of the mail should wait: there may be another one that has.
    pub fn permit(&mut self, flight: Flight, site: &str, now: Timestamp) -> Option<Timestamp> {
        let under_way = self.under_way.get(&flight)?;
        let destination = Arc::clone(&under_way.destination);
        let key = self.key_at(&destination, site);
        let is_name = !site.is_empty() && site.len() <= LONGEST;
        if !is_name || under_way.counts_at(&key) || under_way.legs.len() >= MOST_SITES {
            return None;
        }
        let at = match self.leave(&key, now) {
            Leave::Now => {
                if self.names.of(&destination).is_none() {
                    self.learn(&destination, site, now);
                }
                let leg = self.begin_at(key, false, now);
                let under_way = self.under_way.get_mut(&flight)?;
                let unknown = under_way.take_unknown();
                under_way.legs.push(leg);
                self.unused(unknown);
                return None;
            }
            Leave::At(at) => at,
            Leave::Later => now.plus(NEXT_IN_LINE),
        };
        let under_way = self.under_way.get_mut(&flight)?;
        let is_first = |(known, _): &(Timestamp, Box<str>)| at < *known;
        if under_way.refused.as_ref().is_none_or(is_first) {
            under_way.refused = Some((at, site.into()));
        }
        Some(at)
    }

    /// It has ended, and went so at the sites that were tried, in this order. What is not under way any more changes nothing.
    pub fn ended(&mut self, flight: Flight, tried: Vec<(String, Ending)>, now: Timestamp) {
        let Some(mut under_way) = self.under_way.remove(&flight) else {
            return;
        };
        let destination = Arc::clone(&under_way.destination);
        let began = under_way.legs.first().map_or(now, |leg| leg.flown.began);
        let named = tried
            .into_iter()
            .filter(|(site, _)| !site.is_empty() && site.len() <= LONGEST);
        let tried: Vec<(String, Ending)> = named.take(MOST_SITES).collect();
        if let (None, Some((site, _))) = (self.names.of(&destination), tried.last()) {
            // Of a worker that did not ask: it was there nevertheless, and others wait.
            self.learn(&destination, site, now);
        }
        if under_way.legs.is_empty() {
            // It went along with another one, which tells the same; this one had no place.
            return;
        }
        let mut sites = Vec::with_capacity(tried.len());
        for (site, ending) in tried {
            let key = self.key_at(&destination, &site);
            let flown = match under_way.take(&key) {
                Some(flown) => flown,
                None => Flown {
                    began,
                    ..self.begin_at(key.clone(), false, now).flown
                },
            };
            self.end_at(key, flown, ending, now);
            sites.push(site);
        }
        self.unused(under_way.legs);
        self.wait_for_best(&destination, &sites, now);
    }

    /// It has ended before any site was found for it.
    pub fn ended_nowhere(&mut self, flight: Flight, ending: Ending, now: Timestamp) {
        let Some(under_way) = self.under_way.remove(&flight) else {
            return;
        };
        let mut legs = under_way.legs.into_iter();
        if let Some(Leg { key, flown }) = legs.next() {
            // What has no hosts at this moment says nothing of those it had.
            let is_known = !matches!(key, Key::Unknown(_));
            let signal = match ending.signal {
                Signal::Unreachable if is_known => Signal::Fine,
                signal => signal,
            };
            self.end_at(key, flown, Ending { signal, ..ending }, now);
        }
        self.unused(legs);
    }

    fn end_at(&mut self, key: Key, flown: Flown, ending: Ending, now: Timestamp) {
        let ending = Ending {
            reason: ending.reason.map(shortened),
            ..ending
        };
        let manners = self.settings.manners.clone();
        self.entry(&key).site.end(flown, &ending, &manners, now);
        self.tell(&key, now);
        self.look_at(key);
    }

    /// The rest of the mail waits for the site that takes mail now, of several for the one that was tried last, since it is the one
    /// that the others led to; else for the one that is tried again first.
    fn wait_for_best(&mut self, destination: &str, sites: &[String], now: Timestamp) {
        let until = |site: &&String| {
            let entry = self.sites.get(&self.key_at(destination, site));
            entry.and_then(|entry| entry.site.state(now).until())
        };
        let sites = sites.iter().enumerate();
        let best = sites.min_by_key(|(at, site)| (until(site), Reverse(*at)));
        if let Some((_, site)) = best {
            self.learn(destination, site, now);
        }
    }

    /// Its worker hands it back. Where no site had room, all mail of the destination waits for the one that has some first: tells
    /// whether that is so.
    pub fn handed_back(&mut self, flight: Flight, now: Timestamp) -> bool {
        let Some(under_way) = self.under_way.remove(&flight) else {
            return false;
        };
        let refused = under_way.refused;
        if let Some((_, site)) = &refused {
            self.learn(&under_way.destination, site, now);
        }
        self.unused(under_way.legs);
        refused.is_some()
    }

    /// It has ended without a word.
    pub fn gave_back(&mut self, flight: Flight) {
        if let Some(under_way) = self.under_way.remove(&flight) {
            self.unused(under_way.legs);
        }
    }

    fn unused(&mut self, legs: impl IntoIterator<Item = Leg>) {
        for Leg { key, flown } in legs {
            if let Some(entry) = self.sites.get_mut(&key) {
                entry.site.leave_unused(flown.began);
            }
            self.look_at(key);
        }
    }
}

fn shortened(mut text: String) -> String {
    if text.len() > LONGEST_REASON {
        let end = text.floor_char_boundary(LONGEST_REASON);
        text.truncate(end);
    }
    text
}
