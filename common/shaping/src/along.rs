//! Mail that goes with other mail to the same site, in one transaction: it takes no place there.

use std::sync::Arc;

use postroad_envelope::Timestamp;

use crate::{Flight, Line, Shaper, entry::Key, flights::UnderWay};

impl Shaper {
    /// Whether two destinations are behind one site; none: it is not known.
    pub fn are_kin(&self, one: &str, other: &str) -> Option<bool> {
        match (self.key_of(one), self.key_of(other)) {
            (Key::Site(one), Key::Site(other)) => Some(one == other),
            // One that is counted alone is sent alone.
            (Key::Domain(_), _) | (_, Key::Domain(_)) => Some(false),
            _ => None,
        }
    }

    /// It was given out to go with another one, and has no place of its own. If it is sent alone after all, its worker asks as for a
    /// site that was just found.
    pub fn goes_along(&mut self, flight: Flight, line: &Line) {
        let under_way = UnderWay::along(&line.destination);
        self.under_way.insert(flight, under_way);
    }

    /// It went with another one, which tells what the site answered.
    pub fn joined(&mut self, flight: Flight, site: &str, now: Timestamp) {
        if let Some(under_way) = self.under_way.get(&flight) {
            let destination = Arc::clone(under_way.destination());
            self.learn(&destination, site, now);
        }
        self.gave_back(flight);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use postroad_envelope::RouteClass;

    use super::*;
    use crate::{Ending, Limits, Settings, Signal};

    fn line(destination: &str) -> Line {
        Line {
            class: RouteClass::Relay,
            destination: destination.into(),
        }
    }

    /// A site with room for one, which is behind both domains.
    fn narrow() -> Shaper {
        let limits = Limits {
            connections: Some(1),
            ..Limits::default()
        };
        let settings = Settings {
            limits,
            ..Settings::default()
        };
        let mut shaper = Shaper::new(settings, 1);
        for domain in ["a.test", "b.test"] {
            shaper.learn(domain, "mx.test", Timestamp::default());
        }
        shaper
    }

    #[test]
    fn what_goes_along_takes_no_place_and_does_when_it_is_sent_alone() {
        let (mut shaper, now) = (narrow(), Timestamp::default());
        assert_eq!(shaper.are_kin("a.test", "b.test"), Some(true));
        assert_eq!(shaper.are_kin("a.test", "c.test"), None);
        let (first, second) = (Flight(1, 1), Flight(1, 2));
        assert!(shaper.ask(&line("a.test"), now));
        shaper.began(first, &line("a.test"), now);
        shaper.goes_along(second, &line("b.test"));
        assert!(shaper.permit(second, "mx.test", now).is_some(), "no room");
        let fine = Ending {
            opened: 1,
            taken: 1,
            signal: Signal::Fine,
            reason: None,
            status: None,
        };
        shaper.ended(first, vec![("mx.test".to_owned(), fine)], now);
        assert_eq!(shaper.permit(second, "mx.test", now), None);
        assert!(!shaper.ask(&line("a.test"), now), "now it has the place");
        shaper.gave_back(second);
        assert!(shaper.ask(&line("a.test"), now.plus(Duration::from_secs(1))));
    }

    #[test]
    fn what_went_along_tells_its_site_and_nothing_of_how_it_stands() {
        let (mut shaper, now) = (narrow(), Timestamp::default());
        let (found, away) = (Flight(1, 1), Flight(1, 2));
        assert!(shaper.ask(&line("new.test"), now));
        shaper.began(found, &line("new.test"), now);
        shaper.joined(found, "mx.test", now);
        assert_eq!(shaper.are_kin("new.test", "a.test"), Some(true));
        shaper.goes_along(away, &line("b.test"));
        let unreachable = Ending {
            opened: 0,
            taken: 0,
            signal: Signal::Unreachable,
            reason: None,
            status: None,
        };
        shaper.ended(away, vec![("mx.test".to_owned(), unreachable)], now);
        assert!(shaper.ask(&line("a.test"), now));
        assert!(shaper.under_way.is_empty());
    }
}
