//! Which idle connection is kept, for how long, and which one is taken. Pure: `now` in, values out.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use crate::config::ReuseConfig;

/// Names an idle connection as long as it is on the shelf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShelfId(u64);

/// Idle connections by the door they lead to. `K`: what makes two uses of a connection equal; `H`: how it is had back.
#[derive(Debug)]
pub struct Shelf<D, K, H> {
    limits: Limits,
    doors: HashMap<D, Vec<Idle<K, H>>>,
    len: usize,
    /// Ids rise, so the lowest one is the oldest.
    next: u64,
}

/// How much one connection may be used, and how many may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    idle: Duration,
    lifetime: Duration,
    mails: usize,
    most: usize,
}

/// What a connection has behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// When it was opened.
    pub opened: Instant,
    /// Transactions it had.
    pub mails: usize,
    /// Transactions the host allows; none: any number.
    pub allowed: Option<usize>,
}

/// What there is at a door.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken<H> {
    /// A connection that fits; it is off the shelf.
    Fitting(H),
    /// None that fits. This one does not, and makes room at the host for the one that is opened now.
    Stranger(H),
    /// None at all.
    Nothing,
}

#[derive(Debug)]
struct Idle<K, H> {
    id: ShelfId,
    key: K,
    handle: H,
}

impl Limits {
    /// As configured.
    pub fn of(config: &ReuseConfig) -> Self {
        Self {
            idle: config.idle.as_duration(),
            lifetime: config.lifetime.as_duration(),
            mails: config.mails,
            most: config.most_idle,
        }
    }

    /// Whether a connection may have another transaction.
    pub fn bear(&self, used: &Used) -> bool {
        let allowed = used.allowed.unwrap_or(usize::MAX);
        used.mails < self.mails.max(1).min(allowed)
    }

    /// How long a connection may wait for its next mail; none: it is to be closed now.
    pub fn patience(&self, used: &Used, now: Instant) -> Option<Duration> {
        let age = now.saturating_duration_since(used.opened);
        let patience = self.idle.min(self.lifetime.saturating_sub(age));
        (self.bear(used) && self.most > 0 && !patience.is_zero()).then_some(patience)
    }
}

impl<D: Clone + Eq + Hash, K: PartialEq, H> Shelf<D, K, H> {
    /// Nothing is on it yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            doors: HashMap::new(),
            len: 0,
            next: 0,
        }
    }

    /// Lays a connection down. The one that has been there longest is given back if there is no room for both.
    pub fn put(&mut self, door: &D, key: K, handle: H) -> (ShelfId, Option<H>) {
        let id = ShelfId(self.next);
        self.next += 1;
        let evicted = match self.len >= self.limits.most {
            true => self.oldest().and_then(|(door, id)| self.remove(&door, id)),
            false => None,
        };
        let idle = self.doors.entry(door.clone()).or_default();
        idle.push(Idle { id, key, handle });
        self.len += 1;
        (id, evicted)
    }

    /// Whether there is any at this door.
    pub fn leads_to(&self, door: &D) -> bool {
        self.doors.contains_key(door)
    }

    /// Takes the connection that was used last, so that those which are not needed come to their end.
    pub fn take(&mut self, door: &D, key: &K) -> Taken<H> {
        let Some(idle) = self.doors.get(door) else {
            return Taken::Nothing;
        };
        let fitting = idle.iter().rfind(|idle| idle.key == *key);
        let found = fitting.or(idle.first()).map(|idle| idle.id);
        let fits = fitting.is_some();
        match found.and_then(|id| self.remove(door, id)) {
            Some(handle) if fits => Taken::Fitting(handle),
            Some(handle) => Taken::Stranger(handle),
            None => Taken::Nothing,
        }
    }

    /// Takes this one away, if it is still there.
    pub fn remove(&mut self, door: &D, id: ShelfId) -> Option<H> {
        let idle = self.doors.get_mut(door)?;
        let at = idle.iter().position(|idle| idle.id == id)?;
        let gone = idle.remove(at);
        self.len -= 1;
        if idle.is_empty() {
            self.doors.remove(door);
        }
        Some(gone.handle)
    }

    /// Takes all of them away.
    pub fn clear(&mut self) -> Vec<H> {
        self.len = 0;
        let idle = self.doors.drain().flat_map(|(_, idle)| idle);
        idle.map(|idle| idle.handle).collect()
    }

    fn oldest(&self) -> Option<(D, ShelfId)> {
        let first = |(door, idle): (&D, &Vec<Idle<K, H>>)| Some((door.clone(), idle.first()?.id));
        let firsts = self.doors.iter().filter_map(first);
        firsts.min_by_key(|(_, id)| id.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn limits(most: usize) -> Limits {
        Limits {
            idle: SECOND * 5,
            lifetime: SECOND * 60,
            mails: 3,
            most,
        }
    }

    #[test]
    fn a_connection_waits_until_it_was_idle_used_or_open_for_too_long() {
        let opened = Instant::now();
        let patience = |mails, allowed, age: u32| {
            let used = Used {
                opened,
                mails,
                allowed,
            };
            limits(1).patience(&used, opened + SECOND * age)
        };
        assert_eq!(patience(1, None, 0), Some(SECOND * 5));
        assert_eq!(patience(2, None, 57), Some(SECOND * 3), "its life ends");
        assert_eq!(patience(1, None, 60), None, "its life is over");
        assert_eq!(patience(3, None, 0), None, "it had all of its mails");
        assert_eq!(patience(2, Some(2), 0), None, "the host wants no more");
        assert_eq!(patience(2, Some(9), 0), Some(SECOND * 5));
        let used = Used {
            opened,
            mails: 1,
            allowed: None,
        };
        assert_eq!(limits(0).patience(&used, opened), None, "none may wait");
        let none = Limits {
            mails: 0,
            ..limits(1)
        };
        let unused = Used { mails: 0, ..used };
        assert!(none.bear(&unused) && !none.bear(&used), "one at least");
    }

    #[test]
    fn the_one_used_last_that_fits_is_taken() {
        let mut shelf = Shelf::new(limits(10));
        for (key, handle) in [('a', 1), ('b', 2), ('a', 3)] {
            assert_eq!(shelf.put(&"mx", key, handle).1, None);
        }
        shelf.put(&"other", 'a', 4);
        assert!(shelf.leads_to(&"mx") && !shelf.leads_to(&"none"));
        assert_eq!(shelf.take(&"mx", &'a'), Taken::Fitting(3));
        assert_eq!(shelf.take(&"mx", &'a'), Taken::Fitting(1));
        assert_eq!(shelf.take(&"mx", &'a'), Taken::Stranger(2), "makes room");
        assert_eq!(shelf.take(&"mx", &'a'), Taken::Nothing);
        assert_eq!(shelf.take(&"none", &'a'), Taken::Nothing);
        assert_eq!(shelf.clear(), [4]);
        assert_eq!((shelf.len, shelf.doors.len()), (0, 0));
    }

    #[test]
    fn the_oldest_makes_room_and_what_went_by_itself_takes_none() {
        let mut shelf = Shelf::new(limits(2));
        let (first, _) = shelf.put(&"a", (), 1);
        assert_eq!(shelf.put(&"b", (), 2).1, None);
        assert_eq!(shelf.put(&"c", (), 3).1, Some(1));
        assert_eq!(shelf.remove(&"a", first), None, "it is gone");
        let (fourth, evicted) = shelf.put(&"d", (), 4);
        assert_eq!(evicted, Some(2));
        assert_eq!(shelf.remove(&"d", fourth), Some(4));
        assert_eq!(shelf.put(&"e", (), 5).1, None);
    }
}
