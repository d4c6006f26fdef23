use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use postroad_envelope::StoreName;

/// Stands for a destination, and of local mail for one store, while it has jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct DestinationNumber(u32);

/// The destinations of all jobs: each is written once, and its jobs have its number.
#[derive(Debug, Default)]
pub(super) struct Destinations {
    numbers: HashMap<Arc<str>, DestinationNumber>,
    /// Those of named stores; the numbers above are of the default one.
    of_stores: BTreeMap<(StoreName, Arc<str>), DestinationNumber>,
    known: Vec<Known>,
    /// To be given again.
    free: Vec<DestinationNumber>,
}

#[derive(Debug)]
struct Known {
    name: Arc<str>,
    store: StoreName,
    jobs: usize,
}

impl Destinations {
    /// One more job goes there.
    pub fn join(&mut self, name: Arc<str>, store: StoreName) -> DestinationNumber {
        if let Some(number) = self.number(&name, &store) {
            self.known[number.at()].jobs += 1;
            return number;
        }
        let known = Known {
            name: Arc::clone(&name),
            store: store.clone(),
            jobs: 1,
        };
        let number = match self.free.pop() {
            Some(number) => {
                self.known[number.at()] = known;
                number
            }
            None => {
                self.known.push(known);
                let last = u32::try_from(self.known.len() - 1);
                DestinationNumber(last.expect("a job needs more memory than a number lasts for"))
            }
        };
        match store.is_default() {
            true => self.numbers.insert(name, number),
            false => self.of_stores.insert((store, name), number),
        };
        number
    }

    /// One job less goes there.
    pub fn leave(&mut self, number: DestinationNumber) {
        let known = &mut self.known[number.at()];
        known.jobs -= 1;
        if known.jobs == 0 {
            let (name, store) = (
                std::mem::take(&mut known.name),
                std::mem::take(&mut known.store),
            );
            match store.is_default() {
                true => self.numbers.remove(&name),
                false => self.of_stores.remove(&(store, name)),
            };
            self.free.push(number);
        }
    }

    /// What it is called; its number must be in use.
    pub fn name(&self, number: DestinationNumber) -> &Arc<str> {
        &self.known[number.at()].name
    }

    /// The store that serves it; its number must be in use.
    pub fn store(&self, number: DestinationNumber) -> &StoreName {
        &self.known[number.at()].store
    }

    /// The numbers of one that has jobs, in every store.
    pub fn numbers(&self, name: &str) -> Vec<DestinationNumber> {
        let named = self
            .of_stores
            .iter()
            .filter(|((_, known), _)| **known == *name);
        let named = named.map(|(_, &number)| number);
        self.numbers
            .get(name)
            .copied()
            .into_iter()
            .chain(named)
            .collect()
    }

    fn number(&self, name: &Arc<str>, store: &StoreName) -> Option<DestinationNumber> {
        match store.is_default() {
            true => self.numbers.get(name).copied(),
            // A name of its own: what is looked for in a tree of pairs is a pair.
            false => self
                .of_stores
                .get(&(store.clone(), Arc::clone(name)))
                .copied(),
        }
    }
}

impl DestinationNumber {
    const fn at(self) -> usize {
        self.0 as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_given_again_only_when_the_last_job_has_left() {
        let mut all = Destinations::default();
        let join = |all: &mut Destinations, name: &str| all.join(name.into(), StoreName::default());
        let first = join(&mut all, "a.example");
        let second = join(&mut all, "b.example");
        assert_ne!(first, second);
        assert_eq!(join(&mut all, "a.example"), first);
        all.leave(first);
        assert_eq!(all.numbers("a.example"), [first]);
        all.leave(first);
        assert_eq!(all.numbers("a.example"), []);
        assert_eq!(join(&mut all, "c.example"), first);
        assert_eq!(all.name(first).as_ref(), "c.example");
        assert_eq!(all.name(second).as_ref(), "b.example");
        assert_eq!(all.known.len(), 2);
    }

    #[test]
    fn one_domain_in_two_stores_is_two_destinations_of_one_name() {
        let mut all = Destinations::default();
        let here = all.join("a.example".into(), StoreName::default());
        let there = all.join("a.example".into(), "b".parse().unwrap());
        assert_ne!(here, there);
        assert_eq!(all.join("a.example".into(), "b".parse().unwrap()), there);
        assert_eq!(all.numbers("a.example"), [here, there]);
        assert_eq!(all.store(there).as_str(), "b");
        assert!(all.store(here).is_default());
        all.leave(here);
        all.leave(there);
        assert_eq!(all.numbers("a.example"), [there]);
        all.leave(there);
        assert_eq!(all.numbers("a.example"), []);
        assert!(all.of_stores.is_empty());
    }
}
