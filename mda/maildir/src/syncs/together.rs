//! Those who wait for the same thing at the same time, and the one of them who does it for all.
//!
//! Who comes when nobody is at it leads at once and waits for no company. Who comes meanwhile may have come too late for
//! what is being done, so they form the next group, and one of them leads it. No thread of its own is needed.

use std::collections::HashMap;
use std::hash::Hash;
use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Groups by what they wait for.
#[derive(Debug)]
pub(super) struct Together<K: Eq + Hash>(Mutex<HashMap<K, Vec<Waiting>>>);

/// What one who joined has to do.
#[derive(Debug)]
pub(super) enum Part<'a, K: Eq + Hash + Clone> {
    /// To do it now, for all of the group.
    Lead(Lead<'a, K>),
    /// Nothing: another began it after we came, and it came out so.
    Done(Fate),
    /// To see to it alone.
    Alone,
}

/// Held by the one who is at it; when it is dropped, one of those who came meanwhile leads.
#[derive(Debug)]
pub(super) struct Lead<'a, K: Eq + Hash + Clone> {
    of: &'a Together<K>,
    key: K,
    count: usize,
    others: Vec<Waiting>,
}

/// One who waits, for so many.
#[derive(Debug)]
struct Waiting {
    count: usize,
    told: SyncSender<Word>,
}

#[derive(Debug)]
enum Word {
    Done(Fate),
    Alone,
    Lead(Vec<Waiting>),
}

/// How it came out, in a form that all can share.
pub(super) type Fate = Result<(), Fault>;

/// What an [`io::Error`] says, to be said to several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fault {
    code: Option<i32>,
    kind: io::ErrorKind,
}

impl<K: Eq + Hash> Default for Together<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash + Clone> Together<K> {
    /// For so many who wait. Blocks while another one is at it.
    pub(super) fn join(&self, key: &K, count: usize) -> Part<'_, K> {
        let lead = |others| {
            Part::Lead(Lead {
                of: self,
                key: key.clone(),
                count,
                others,
            })
        };
        let word = {
            let mut under_way = self.lock();
            let Some(waiting) = under_way.get_mut(key) else {
                under_way.insert(key.clone(), Vec::new());
                return lead(Vec::new());
            };
            let (told, word) = sync_channel(1);
            waiting.push(Waiting { count, told });
            word
        };
        match word.recv() {
            Ok(Word::Done(fate)) => Part::Done(fate),
            Ok(Word::Lead(others)) => lead(others),
            // No word at all: the leader ended by a fault of ours, and nobody knows what it did.
            Ok(Word::Alone) | Err(_) => Part::Alone,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, Vec<Waiting>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash + Clone> Lead<'_, K> {
    /// How many wait, those of the leader among them.
    pub(super) fn size(&self) -> usize {
        self.count + sum(&self.others)
    }

    /// It is done, for the whole group; says for how many others.
    pub(super) fn tell(&mut self, fate: Fate) -> usize {
        self.send(|| Word::Done(fate))
    }

    /// The others see to it themselves, each at once.
    pub(super) fn release(&mut self) {
        self.send(|| Word::Alone);
    }

    fn send(&mut self, word: impl Fn() -> Word) -> usize {
        let mut others = std::mem::take(&mut self.others);
        others.retain(|other| other.told.send(word()).is_ok());
        sum(&others)
    }
}

fn sum(waiting: &[Waiting]) -> usize {
    waiting.iter().map(|one| one.count).sum()
}

impl<K: Eq + Hash + Clone> Drop for Lead<'_, K> {
    fn drop(&mut self) {
        let mut under_way = self.of.lock();
        let Some(waiting) = under_way.get_mut(&self.key) else {
            return;
        };
        let mut others = std::mem::take(waiting).into_iter();
        let next = others.next();
        let handed_over = next.map(|next| next.told.send(Word::Lead(others.collect())));
        if !matches!(handed_over, Some(Ok(()))) {
            under_way.remove(&self.key);
        }
    }
}

impl From<&io::Error> for Fault {
    fn from(error: &io::Error) -> Self {
        Self {
            code: error.raw_os_error(),
            kind: error.kind(),
        }
    }
}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> Self {
        match fault.code {
            Some(code) => Self::from_raw_os_error(code),
            None => fault.kind.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread::{self, ScopedJoinHandle};

    const THING: &str = "a folder";

    /// Waits until so many wait behind the leader.
    fn until_they_wait(together: &Together<&str>, count: usize) {
        while together.lock().get(THING).map(Vec::len) != Some(count) {
            thread::yield_now();
        }
    }

    fn lead<'a>(together: &'a Together<&'static str>) -> Lead<'a, &'static str> {
        match together.join(&THING, 1) {
            Part::Lead(lead) => lead,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn who_is_alone_leads_at_once_and_other_things_are_no_company() {
        let together = Together::default();
        let first = lead(&together);
        assert_eq!(first.size(), 1);
        assert!(matches!(together.join(&"another", 1), Part::Lead(_)));
        drop(first);
        assert_eq!(lead(&together).size(), 1);
        assert!(together.lock().is_empty(), "nothing is left behind");
    }

    #[test]
    fn what_began_before_somebody_came_is_not_for_them() {
        let together = Together::default();
        let (began, led) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|all| {
            let mut first = lead(&together);
            let others: Vec<ScopedJoinHandle<'_, Fate>> = (0..5)
                .map(|_| {
                    all.spawn(|| match together.join(&THING, 1) {
                        Part::Lead(mut lead) => {
                            assert_eq!(began.load(Ordering::SeqCst), 1, "the first is over");
                            led.fetch_add(1, Ordering::SeqCst);
                            assert_eq!(lead.size(), 5);
                            assert_eq!(lead.tell(Err(Fault::from(&eio()))), 4);
                            Err(Fault::from(&eio()))
                        }
                        Part::Done(fate) => fate,
                        Part::Alone => panic!("alone"),
                    })
                })
                .collect();
            until_they_wait(&together, 5);
            began.store(1, Ordering::SeqCst);
            assert_eq!(first.tell(Ok(())), 0, "told to none of them");
            drop(first);
            for other in others {
                let fault = io::Error::from(other.join().unwrap().unwrap_err());
                assert_eq!(fault.raw_os_error(), Some(5), "a failure is everybody's");
            }
        });
        assert_eq!(led.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn released_or_left_in_the_lurch_each_sees_to_it_alone() {
        for is_released in [true, false] {
            let together = Together::default();
            let alone = AtomicUsize::new(0);
            thread::scope(|all| {
                let first = lead(&together);
                for _ in 0..3 {
                    all.spawn(|| match together.join(&THING, 1) {
                        Part::Lead(mut lead) => {
                            if is_released {
                                lead.release();
                            }
                        }
                        Part::Alone => drop(alone.fetch_add(1, Ordering::SeqCst)),
                        Part::Done(fate) => panic!("{fate:?}"),
                    });
                }
                until_they_wait(&together, 3);
                drop(first);
            });
            assert_eq!(alone.load(Ordering::SeqCst), 2);
            assert!(together.lock().is_empty());
        }
    }

    fn eio() -> io::Error {
        io::Error::from_raw_os_error(5)
    }
}
