//! Entries of a tree, in order: what sled has, and over it what is newest.

use std::cmp::Ordering;

use sled::{IVec, Iter, Result};

use super::recent::Newest;

/// By ascending key; may be asked from both ends.
pub struct Entries {
    /// None: that was all. Asked once more it would tell of what came since, which may lie behind.
    stored: Option<Iter>,
    /// Read ahead from either end of what sled has.
    first: Option<(IVec, IVec)>,
    last: Option<(IVec, IVec)>,
    newest: std::vec::IntoIter<Newest>,
}

#[derive(Clone, Copy)]
enum End {
    Front,
    Back,
}

impl Entries {
    pub fn new(stored: Iter, newest: Vec<Newest>) -> Self {
        Self {
            stored: Some(stored),
            first: None,
            last: None,
            newest: newest.into_iter(),
        }
    }

    fn step(&mut self, end: End) -> Option<Result<(IVec, IVec)>> {
        loop {
            let stored = match self.stored(end) {
                Some(Ok(stored)) => Some(stored),
                Some(Err(error)) => return Some(Err(error)),
                None => None,
            };
            let Some((key, _)) = self.next_of_newest(end) else {
                return stored.map(Ok);
            };
            let order = stored.as_ref().map(|(stored, _)| match end {
                End::Front => stored.cmp(key),
                End::Back => key.cmp(stored),
            });
            match order {
                Some(Ordering::Less) => return stored.map(Ok),
                Some(Ordering::Greater) => self.put_back(end, stored),
                // What sled has is older.
                Some(Ordering::Equal) | None => {}
            }
            let newest = match end {
                End::Front => self.newest.next(),
                End::Back => self.newest.next_back(),
            };
            if let Some((key, Some(value))) = newest {
                return Some(Ok((key, value)));
            }
        }
    }

    fn stored(&mut self, end: End) -> Option<Result<(IVec, IVec)>> {
        let (own, others) = match end {
            End::Front => (&mut self.first, &mut self.last),
            End::Back => (&mut self.last, &mut self.first),
        };
        if let Some(ahead) = own.take() {
            return Some(Ok(ahead));
        }
        let next = self.stored.as_mut().and_then(|stored| match end {
            End::Front => stored.next(),
            End::Back => stored.next_back(),
        });
        if next.is_none() {
            self.stored = None;
        }
        // The two ends meet at what the other has read ahead.
        next.or_else(|| others.take().map(Ok))
    }

    fn put_back(&mut self, end: End, stored: Option<(IVec, IVec)>) {
        match end {
            End::Front => self.first = stored,
            End::Back => self.last = stored,
        }
    }

    fn next_of_newest(&self, end: End) -> Option<&Newest> {
        match end {
            End::Front => self.newest.as_slice().first(),
            End::Back => self.newest.as_slice().last(),
        }
    }
}

impl Iterator for Entries {
    type Item = Result<(IVec, IVec)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step(End::Front)
    }
}

impl DoubleEndedIterator for Entries {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.step(End::Back)
    }
}
