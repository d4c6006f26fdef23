//! How many jobs of one destination are under way.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts jobs by destination; clones share the counts.
#[derive(Clone, Debug)]
pub struct Places {
    taken: Arc<Mutex<HashMap<String, u32>>>,
    limit: u32,
}

/// One job under way.
#[derive(Debug)]
pub struct Place {
    places: Places,
    destination: String,
}

impl Places {
    /// At most `limit` for each destination.
    pub fn new(limit: u32) -> Self {
        Self {
            taken: Arc::default(),
            limit,
        }
    }

    /// A place, unless all are taken; it is free again when dropped.
    pub fn take(&self, destination: &str) -> Option<Place> {
        let mut taken = self.lock();
        let count = taken.entry(destination.to_owned()).or_default();
        if *count >= self.limit.max(1) {
            return None;
        }
        *count += 1;
        Some(Place {
            places: self.clone(),
            destination: destination.to_owned(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, u32>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        if let Some(count) = taken.get_mut(&self.destination) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.destination);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_destination_has_its_own_places_and_gets_them_back() {
        let places = Places::new(2);
        let held = [places.take("a.test"), places.take("a.test")];
        assert!(held.iter().all(Option::is_some));
        assert!(places.take("a.test").is_none());
        assert!(places.take("b.test").is_some());
        drop(held);
        assert!(places.take("a.test").is_some());
        assert!(
            places.lock().is_empty(),
            "nothing is kept of idle destinations"
        );
    }
}
