use std::{collections::HashMap, sync::Arc};

/// Stands for a destination while it has jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct DestinationNumber(u32);

/// The destinations of all jobs: each is written once, and its jobs have its number.
#[derive(Debug, Default)]
pub(super) struct Destinations {
    numbers: HashMap<Arc<str>, DestinationNumber>,
    known: Vec<Known>,
    /// To be given again.
    free: Vec<DestinationNumber>,
}

#[derive(Debug)]
struct Known {
    name: Arc<str>,
    jobs: usize,
}

impl Destinations {
    /// One more job goes there.
    pub fn join(&mut self, name: Arc<str>) -> DestinationNumber {
        if let Some(&number) = self.numbers.get(&name) {
            self.known[number.at()].jobs += 1;
            return number;
        }
        let known = Known {
            name: Arc::clone(&name),
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
        self.numbers.insert(name, number);
        number
    }

    /// One job less goes there.
    pub fn leave(&mut self, number: DestinationNumber) {
        let known = &mut self.known[number.at()];
        known.jobs -= 1;
        if known.jobs == 0 {
            self.numbers.remove(&std::mem::take(&mut known.name));
            self.free.push(number);
        }
    }

    /// What it is called; its number must be in use.
    pub fn name(&self, number: DestinationNumber) -> &Arc<str> {
        &self.known[number.at()].name
    }

    /// The number of one that has jobs.
    pub fn number(&self, name: &str) -> Option<DestinationNumber> {
        self.numbers.get(name).copied()
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
        let first = all.join("a.example".into());
        let second = all.join("b.example".into());
        assert_ne!(first, second);
        assert_eq!(all.join("a.example".into()), first);
        all.leave(first);
        assert_eq!(all.number("a.example"), Some(first));
        all.leave(first);
        assert_eq!(all.number("a.example"), None);
        assert_eq!(all.join("c.example".into()), first);
        assert_eq!(all.name(first).as_ref(), "c.example");
        assert_eq!(all.name(second).as_ref(), "b.example");
        assert_eq!(all.known.len(), 2);
    }
}
