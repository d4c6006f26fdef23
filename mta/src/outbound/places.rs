//! How many jobs of one destination are under way, and when there will be room for more.
//!
//! A job that finds no place goes back to the queue. If all of them came again at one moment, the places would be idle
//! until then and overrun at it. So each is booked a time of its own, as far from the one before as places become free:
//! the time a job takes, divided by the number of places.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a job is taken to last before the first one of its destination has ended.
const FIRST_GUESS: Duration = Duration::from_secs(1);
/// Nobody is sent away for longer: the host may have become faster.
const LONGEST: Duration = Duration::from_secs(5);

/// Counts jobs by destination; clones share the counts.
#[derive(Clone, Debug)]
pub struct Places {
    lines: Arc<Mutex<HashMap<String, Line>>>,
    limit: u32,
}

/// What is known of a destination while a job for it is under way.
#[derive(Debug)]
struct Line {
    taken: u32,
    /// How long a job takes, the latest ones above all; unknown until one has ended.
    pace: Option<Duration>,
    /// The last time that was booked.
    booked: Instant,
}

/// One job under way.
#[derive(Debug)]
pub struct Place {
    places: Places,
    destination: String,
    since: Instant,
}

impl Places {
    /// At most `limit` for each destination.
    pub fn new(limit: u32) -> Self {
        Self {
            lines: Arc::default(),
            limit: limit.max(1),
        }
    }

    /// At most `limit` for each destination from now on; jobs under way count on.
    pub fn with_limit(&self, limit: u32) -> Self {
        Self {
            lines: Arc::clone(&self.lines),
            limit: limit.max(1),
        }
    }

    /// A place, free again when dropped; or, if all are taken, how long to stay away.
    pub fn take(&self, destination: &str, now: Instant) -> Result<Place, Duration> {
        let mut lines = self.lock();
        let line = lines.entry(destination.to_owned()).or_insert(Line {
            taken: 0,
            pace: None,
            booked: now,
        });
        if line.taken >= self.limit {
            return Err(line.book(self.limit, now));
        }
        line.taken += 1;
        Ok(Place {
            places: self.clone(),
            destination: destination.to_owned(),
            since: now,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    fn book(&mut self, limit: u32, now: Instant) -> Duration {
        // Early, since a place without a job is worse than a job without a place.
        let step = self.pace.unwrap_or(FIRST_GUESS) / limit / 2;
        self.booked = (self.booked.max(now) + step).min(now + LONGEST);
        self.booked - now
    }

    fn measure(&mut self, took: Duration) {
        self.pace = Some(self.pace.map_or(took, |pace| (pace * 7 + took) / 8));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut lines = self.places.lock();
        if let Some(line) = lines.get_mut(&self.destination) {
            line.taken -= 1;
            line.measure(self.since.elapsed());
            if line.taken == 0 {
                lines.remove(&self.destination);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_destination_has_its_own_places_and_gets_them_back() {
        let (places, now) = (Places::new(2), Instant::now());
        let held = [places.take("a.test", now), places.take("a.test", now)];
        assert!(held.iter().all(Result::is_ok));
        assert!(places.take("a.test", now).is_err());
        assert!(places.take("b.test", now).is_ok());
        drop(held);
        assert!(places.take("a.test", now).is_ok());
        assert!(
            places.lock().is_empty(),
            "nothing is kept of idle destinations"
        );
    }

    #[test]
    fn those_sent_away_come_again_one_after_the_other_as_places_become_free() {
        let now = Instant::now();
        let mut line = Line {
            taken: 10,
            pace: None,
            booked: now,
        };
        line.measure(Duration::from_millis(400));
        let times: Vec<u128> = (0..3).map(|_| line.book(10, now).as_millis()).collect();
        assert_eq!(times, [20, 40, 60]);
        for _ in 0..50 {
            line.measure(Duration::from_millis(4000));
        }
        let later = now + Duration::from_secs(1);
        let slow = line.book(10, later);
        assert!(
            slow > Duration::from_millis(190),
            "a slower host is given more time: {slow:?}"
        );
        let last = (0..1000).map(|_| line.book(10, later)).max();
        assert_eq!(last, Some(LONGEST));
    }
}
