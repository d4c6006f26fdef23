use std::{collections::BTreeMap, time::Duration};

use postroad_envelope::Timestamp;

use crate::{Kept, Key, Kind, aged::Aged, tally::Tally};

/// What is counted, and what follows from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    /// Of whom.
    pub key: Key,
    /// So many more; 0 asks how it stands, and of limits whether there are more already.
    pub add: u64,
    /// What follows.
    pub rule: Rule,
}

/// What follows from a count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// It is added, and more than the limit is a ban.
    Ban {
        /// How many over which time are borne.
        limit: Limit,
        /// How long a ban lasts; zero: there is none.
        ban: Duration,
    },
    /// It is added only if every one of these has room for all of it.
    Within(Vec<Limit>),
}

/// So many over such a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// The time that is looked back.
    pub window: Duration,
    /// Most of them.
    pub most: u64,
}

/// How it stands after a count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counted {
    /// How many there are in the window; of several, in the first.
    pub value: u64,
    /// There is a ban, until then. Nothing is counted meanwhile.
    pub banned_until: Option<Timestamp>,
    /// Nothing was added, since this limit has no room.
    pub full: Option<Full>,
}

/// A limit without room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full {
    /// Which one; of several, the one that has room last.
    pub limit: Limit,
    /// How many there are already.
    pub value: u64,
    /// When there will be room for as much; none: never, since it is more than the limit.
    pub until: Option<Timestamp>,
}

/// A counter, for people to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counter {
    /// Of whom.
    pub key: Key,
    /// The time that is looked back.
    pub window: Duration,
    /// How many there are in it.
    pub value: u64,
}

/// A ban that lasts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ban {
    /// Of whom.
    pub key: Key,
    /// When it began.
    pub since: Timestamp,
    /// When it ends by itself.
    pub until: Timestamp,
    /// How many there were then.
    pub value: u64,
}

/// How many there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Counters of each kind.
    pub counters: usize,
    /// Bans of each kind.
    pub bans: usize,
}

/// All counters and bans. Each kind has its room, so that a flood of one takes nothing from another.
#[derive(Debug)]
pub struct Counters(BTreeMap<Kind, Shelf>);

/// Of one kind. Over different times one subject has different counters.
#[derive(Debug)]
struct Shelf {
    tallies: Aged<(Key, Duration), Tally>,
    bans: Aged<Key, Span>,
    dropped: u64,
    begun: u64,
}

#[derive(Debug, Clone, Copy)]
struct Span {
    since: Timestamp,
    until: Timestamp,
    value: u64,
}

impl Span {
    fn lasts(&self, now: Timestamp) -> bool {
        // One that begins in the future is of a clock that was set back since: it would last too long.
        self.until > now && self.since <= now.plus(Duration::from_secs(60))
    }
}

impl Counters {
    /// Without anything in them.
    pub fn new(room: Room) -> Self {
        let shelf = || Shelf {
            tallies: Aged::new(room.counters),
            bans: Aged::new(room.bans),
            dropped: 0,
            begun: 0,
        };
        Self(Kind::ALL.into_iter().map(|kind| (kind, shelf())).collect())
    }

    /// With another room from now on.
    pub fn set_room(&mut self, room: Room) {
        for shelf in self.0.values_mut() {
            shelf.tallies.set_room(room.counters);
            shelf.bans.set_room(room.bans);
        }
    }

    /// Counts, and says how it stands then.
    pub fn count(&mut self, count: &Count, now: Timestamp) -> Counted {
        let Count { key, add, rule } = count;
        let Some(shelf) = self.0.get_mut(&key.kind()) else {
            return Counted::default();
        };
        match rule {
            Rule::Ban { limit, ban } => shelf.or_ban(key, *add, *limit, *ban, now),
            Rule::Within(limits) => shelf.within(key, *add, limits, now),
        }
    }

    /// Forgets all of one, counters and ban; whether there was anything.
    pub fn clear(&mut self, key: &Key) -> bool {
        let Some(shelf) = self.0.get_mut(&key.kind()) else {
            return false;
        };
        let before = shelf.tallies.len();
        shelf.tallies.retain(|(of, _), _| of != key);
        shelf.bans.remove(key).is_some() | (shelf.tallies.len() < before)
    }

    /// Lets go what is over.
    pub fn tidy(&mut self, now: Timestamp) {
        for shelf in self.0.values_mut() {
            shelf.tallies.retain(|_, tally| !tally.is_over(now));
            shelf.bans.retain(|_, ban| ban.lasts(now));
        }
    }

    /// The counters of a kind that are not over, by key.
    pub fn counters(&self, kind: Kind, now: Timestamp) -> Vec<Counter> {
        let all = self.0.get(&kind).into_iter();
        let all = all.flat_map(|shelf| shelf.tallies.iter());
        let living = all.filter(|(_, tally)| !tally.is_over(now));
        let counters = living.map(|((key, window), tally)| Counter {
            key: key.clone(),
            window: *window,
            value: tally.value(now),
        });
        counters.collect()
    }

    /// The bans of a kind that last, by key.
    pub fn bans(&self, kind: Kind, now: Timestamp) -> Vec<Ban> {
        let all = self.0.get(&kind).into_iter();
        let all = all.flat_map(|shelf| shelf.bans.iter());
        let bans = all.filter(|(_, ban)| ban.lasts(now)).map(|(key, ban)| Ban {
            key: key.clone(),
            since: ban.since,
            until: ban.until,
            value: ban.value,
        });
        bans.collect()
    }

    /// How many counters and bans of a kind there are, those that are over and not tidied away among them.
    pub fn sizes(&self, kind: Kind) -> (usize, usize) {
        let shelf = self.0.get(&kind);
        shelf.map_or((0, 0), |shelf| (shelf.tallies.len(), shelf.bans.len()))
    }

    /// How many counters and bans of a kind had to make room since this was asked last.
    pub fn take_dropped(&mut self, kind: Kind) -> u64 {
        let shelf = self.0.get_mut(&kind);
        shelf.map_or(0, |shelf| std::mem::take(&mut shelf.dropped))
    }

    /// How many bans of a kind began since this was asked last.
    pub fn take_begun(&mut self, kind: Kind) -> u64 {
        let shelf = self.0.get_mut(&kind);
        shelf.map_or(0, |shelf| std::mem::take(&mut shelf.begun))
    }

    /// What a restart is not to forget: counters of the kinds that are kept, and all bans.
    pub fn kept(&self, now: Timestamp) -> Vec<Kept> {
        let mut kept = Vec::new();
        for (kind, shelf) in &self.0 {
            let tallies = shelf.tallies.iter().filter(|_| kind.is_kept());
            let living = tallies.filter(|(_, tally)| !tally.is_over(now));
            kept.extend(living.map(|((key, window), tally)| Kept::Counter {
                key: key.clone(),
                window: *window,
                parts: tally.parts().to_vec(),
            }));
            kept.extend(self.bans(*kind, now).into_iter().map(Kept::Ban));
        }
        kept
    }

    /// Takes up what was kept. What there is already stays.
    pub fn restore(&mut self, kept: Kept) {
        match kept {
            Kept::Counter { key, window, parts } => {
                let Some(shelf) = self.0.get_mut(&key.kind()) else {
                    return;
                };
                let restored = || Tally::restored(window, parts);
                shelf.tallies.touch(&(key, window), restored);
            }
            Kept::Ban(ban) => {
                let Some(shelf) = self.0.get_mut(&ban.key.kind()) else {
                    return;
                };
                let Ban {
                    key,
                    since,
                    until,
                    value,
                } = ban;
                shelf.bans.touch(&key, || Span {
                    since,
                    until,
                    value,
                });
            }
        }
    }
}

impl Shelf {
    fn or_ban(
        &mut self,
        key: &Key,
        add: u64,
        limit: Limit,
        ban: Duration,
        now: Timestamp,
    ) -> Counted {
        if let Some(span) = self.bans.get(key) {
            if span.lasts(now) {
                return Counted {
                    value: span.value,
                    banned_until: Some(span.until),
                    full: None,
                };
            }
            self.bans.remove(key);
        }
        let value = match add {
            0 => self.value(key, limit.window, now),
            add => self.add(key, add, limit.window, now),
        };
        let is_too_much = add > 0 && value > limit.most && !ban.is_zero();
        Counted {
            value,
            banned_until: is_too_much.then(|| self.ban(key, limit.window, value, ban, now)),
            full: None,
        }
    }

    /// The counter begins anew after it.
    fn ban(
        &mut self,
        key: &Key,
        window: Duration,
        value: u64,
        ban: Duration,
        now: Timestamp,
    ) -> Timestamp {
        let span = Span {
            since: now,
            until: now.plus(ban),
            value,
        };
        let (_, gone) = self.bans.touch(key, || span);
        self.tallies.remove(&(key.clone(), window));
        self.dropped += gone as u64;
        self.begun += 1;
        span.until
    }

    fn within(&mut self, key: &Key, add: u64, limits: &[Limit], now: Timestamp) -> Counted {
        let value = |limit: &Limit| self.value(key, limit.window, now);
        let full = limits
            .iter()
            .filter(|limit| value(limit).saturating_add(add) > limit.most)
            .map(|limit| Full {
                limit: *limit,
                value: value(limit),
                until: self.room_at(key, add, *limit, now),
            });
        // No time at all is later than any.
        let full = full.max_by_key(|full| (full.until.is_none(), full.until));
        let first = limits.first().map_or(0, value);
        if full.is_some() || add == 0 {
            return Counted {
                value: first,
                banned_until: None,
                full,
            };
        }
        for (place, limit) in limits.iter().enumerate() {
            // Two limits over one time have one counter.
            let before = limits.iter().take(place);
            if !before
                .map(|limit| limit.window)
                .any(|window| window == limit.window)
            {
                self.add(key, add, limit.window, now);
            }
        }
        Counted {
            value: first.saturating_add(add),
            ..Counted::default()
        }
    }

    fn add(&mut self, key: &Key, add: u64, window: Duration, now: Timestamp) -> u64 {
        let place = (key.clone(), window);
        let (tally, gone) = self.tallies.touch(&place, || Tally::new(window));
        tally.add(add, now);
        let value = tally.value(now);
        self.dropped += gone as u64;
        value
    }

    fn value(&self, key: &Key, window: Duration, now: Timestamp) -> u64 {
        let tally = self.tallies.get(&(key.clone(), window));
        tally.map_or(0, |tally| tally.value(now))
    }

    fn room_at(&self, key: &Key, add: u64, limit: Limit, now: Timestamp) -> Option<Timestamp> {
        match self.tallies.get(&(key.clone(), limit.window)) {
            Some(tally) => tally.room_at(add, limit.most, now),
            None => (add <= limit.most).then_some(now),
        }
    }
}

#[cfg(test)]
mod tests;
