//! Answers remembered: bounded, each with the time it was given.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// Answers by what was asked; beyond the bound the half that was not used for longest goes.
pub struct Cache<V> {
    entries: HashMap<String, Entry<V>>,
    most: usize,
    /// Of all entries.
    weight: usize,
    uses: u64,
}

struct Entry<V> {
    value: V,
    weight: usize,
    given: Given,
    used: u64,
}

/// When an answer was given.
#[derive(Debug, Clone, Copy)]
pub struct Given {
    /// The moment it was asked for.
    pub at: Instant,
    /// How long it holds by itself.
    pub max_age: Duration,
    /// In which time of listening to changes.
    pub watch: u64,
}

impl<V: Clone> Cache<V> {
    pub fn new(most: usize) -> Self {
        Self {
            entries: HashMap::new(),
            most: most.max(1),
            weight: 0,
            uses: 0,
        }
    }

    /// What is remembered, however old.
    pub fn find(&mut self, key: &str) -> Option<(V, Given)> {
        self.uses += 1;
        let entry = self.entries.get_mut(key)?;
        entry.used = self.uses;
        Some((entry.value.clone(), entry.given))
    }

    /// Remembers an answer that takes as much room as `weight` small ones.
    pub fn put(&mut self, key: String, value: V, weight: usize, given: Given) {
        self.remove(&key);
        if weight > self.most {
            return;
        }
        while self.weight + weight > self.most {
            self.make_room();
        }
        self.uses += 1;
        self.weight += weight;
        let used = self.uses;
        let entry = Entry {
            value,
            weight,
            given,
            used,
        };
        self.entries.insert(key, entry);
    }

    pub fn remove(&mut self, key: &str) {
        if let Some(entry) = self.entries.remove(key) {
            self.weight -= entry.weight;
        }
    }

    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.entries.retain(|key, _| keep(key));
        self.weigh();
    }

    pub fn clear(&mut self) {
        self.entries.clear();
        self.weight = 0;
    }

    fn make_room(&mut self) {
        let mut uses: Vec<u64> = self.entries.values().map(|entry| entry.used).collect();
        uses.sort_unstable();
        let last_to_go = uses.get(uses.len() / 2).copied().unwrap_or(u64::MAX);
        self.entries.retain(|_, entry| entry.used > last_to_go);
        self.weigh();
    }

    fn weigh(&mut self) {
        self.weight = self.entries.values().map(|entry| entry.weight).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given() -> Given {
        Given {
            at: Instant::now(),
            max_age: Duration::ZERO,
            watch: 0,
        }
    }

    #[test]
    fn it_is_bounded_and_keeps_what_is_used() {
        let mut cache = Cache::new(100);
        for number in 0..1000 {
            cache.put(number.to_string(), number, 1, given());
            assert!(cache.entries.len() <= 100 && cache.weight == cache.entries.len());
            assert!(cache.find("0").is_some(), "{number}");
        }
        assert!(cache.find("999").is_some() && cache.find("1").is_none());
    }

    #[test]
    fn a_large_answer_counts_for_as_many_as_it_is() {
        let mut cache = Cache::new(100);
        for number in 0..50 {
            cache.put(number.to_string(), number, 1, given());
        }
        cache.put("large".to_owned(), 0, 90, given());
        assert!(cache.weight <= 100 && cache.find("large").is_some());
        cache.put("larger".to_owned(), 0, 101, given());
        assert!(cache.find("larger").is_none() && cache.find("large").is_some());
        cache.put("large".to_owned(), 1, 1, given());
        cache.retain(|key| key == "large");
        assert_eq!(cache.weight, 1);
        cache.remove("large");
        assert_eq!(cache.weight, 0);
        cache.put("x".to_owned(), 0, 0, given());
        cache.clear();
        assert!(cache.find("x").is_none());
    }
}
