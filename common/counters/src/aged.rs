use std::collections::BTreeMap;

/// A map of bounded size, from which the entry goes that was touched longest ago.
#[derive(Debug)]
pub(crate) struct Aged<K, V> {
    room: usize,
    entries: BTreeMap<K, (u64, V)>,
    order: BTreeMap<u64, K>,
    next: u64,
}

impl<K: Ord + Clone, V> Aged<K, V> {
    /// For so many entries, at least one.
    pub fn new(room: usize) -> Self {
        Self {
            room: room.max(1),
            entries: BTreeMap::new(),
            order: BTreeMap::new(),
            next: 0,
        }
    }

    /// For another number of entries; what is too much goes with the next ones that come.
    pub fn set_room(&mut self, room: usize) {
        self.room = room.max(1);
    }

    pub fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|(_, value)| value)
    }

    /// The entry, made if there is none, as the one touched last; and how many others went for it.
    pub fn touch(&mut self, key: &K, make: impl FnOnce() -> V) -> (&mut V, usize) {
        let mut gone = 0;
        if !self.entries.contains_key(key) {
            while self.entries.len() >= self.room {
                let Some((_, oldest)) = self.order.pop_first() else {
                    break;
                };
                self.entries.remove(&oldest);
                gone += 1;
            }
        }
        let at = self.next;
        self.next += 1;
        let entry = self
            .entries
            .entry(key.clone())
            .or_insert_with(|| (at, make()));
        self.order.remove(&entry.0);
        self.order.insert(at, key.clone());
        entry.0 = at;
        (&mut entry.1, gone)
    }

    pub fn remove(&mut self, key: &K) -> Option<V> {
        let (at, value) = self.entries.remove(key)?;
        self.order.remove(&at);
        Some(value)
    }

    pub fn retain(&mut self, keep: impl Fn(&K, &V) -> bool) {
        let order = &mut self.order;
        self.entries.retain(|key, (at, value)| {
            let stays = keep(key, value);
            if !stays {
                order.remove(at);
            }
            stays
        });
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// By key.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter().map(|(key, (_, value))| (key, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_touched_longest_ago_goes() {
        let mut aged = Aged::new(3);
        for key in ["a", "b", "c"] {
            assert_eq!(aged.touch(&key, || 0).1, 0);
        }
        *aged.touch(&"a", || 9).0 += 1;
        assert_eq!(aged.touch(&"d", || 0).1, 1);
        let keys = |aged: &Aged<_, _>| aged.iter().map(|(key, _)| *key).collect::<Vec<_>>();
        assert_eq!(keys(&aged), ["a", "c", "d"]);
        assert_eq!(aged.get(&"a"), Some(&1));
        assert_eq!(aged.remove(&"a"), Some(1));
        assert_eq!(aged.touch(&"e", || 0).1, 0);
        aged.set_room(1);
        assert_eq!(aged.touch(&"f", || 0).1, 3);
        assert_eq!(keys(&aged), ["f"]);
        aged.retain(|_, value| *value > 0);
        assert_eq!((aged.len(), aged.order.len()), (0, 0));
    }
}
