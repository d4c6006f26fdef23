//! Destinations with several sites: mail that goes on from one to the next.

use std::{sync::Arc, time::Duration};

use postroad_envelope::{RouteClass, Timestamp};
use postroad_shaping::{Ending, Flight, Line, Settings, Shaper, Signal, State};

const BEGIN: Timestamp = Timestamp::from_millis(1_800_000_000_000);

fn at(seconds: u64) -> Timestamp {
    BEGIN.plus(Duration::from_secs(seconds))
}

fn line(destination: &str) -> Line {
    Line {
        class: RouteClass::Relay,
        destination: Arc::from(destination),
    }
}

fn well() -> Ending {
    Ending {
        taken: 1,
        ..Ending::unknown()
    }
}

fn away() -> Ending {
    Ending {
        signal: Signal::Unreachable,
        reason: Some("nobody answers".to_owned()),
        ..Ending::unknown()
    }
}

fn tried(sites: &[(&str, Ending)]) -> Vec<(String, Ending)> {
    let sites = sites.iter().cloned();
    sites
        .map(|(site, ending)| (site.to_owned(), ending))
        .collect()
}

/// A destination behind which `a` was found to be away.
fn with_a_down(shaper: &mut Shaper, destination: &str) {
    let line = line(destination);
    assert!(shaper.ask(&line, at(0)));
    shaper.began(Flight(9, 9), &line, at(0));
    shaper.ended(Flight(9, 9), tried(&[("a", away())]), at(1));
    assert!(matches!(state(shaper, "a"), Some(State::Down { .. })));
}

fn state(shaper: &Shaper, site: &str) -> Option<State> {
    let sites = shaper.view(0, at(1));
    let found = sites.iter().find(|view| &*view.site == site);
    found.map(|view| view.state)
}

fn in_use(shaper: &Shaper, site: &str) -> u32 {
    let sites = shaper.view(0, at(1));
    let found = sites.iter().find(|view| &*view.site == site);
    found.map_or(0, |view| view.in_use)
}

#[test]
fn each_site_hears_how_it_went_there() {
    let mut shaper = Shaper::new(Settings::default(), 1);
    let line = line("far.test");
    assert!(shaper.ask(&line, at(0)));
    shaper.began(Flight(1, 1), &line, at(0));
    for site in ["a", "b"] {
        assert_eq!(shaper.permit(Flight(1, 1), site, at(1)), None);
        assert_eq!(in_use(&shaper, site), 1);
    }
    // Leave for one that was given before is still there.
    assert_eq!(shaper.permit(Flight(1, 1), "a", at(1)), None);
    assert_eq!(in_use(&shaper, "a"), 1);
    shaper.ended(Flight(1, 1), tried(&[("a", away()), ("b", well())]), at(2));
    assert!(matches!(state(&shaper, "a"), Some(State::Down { .. })));
    assert_eq!(state(&shaper, "b"), Some(State::Open));
    assert_eq!((in_use(&shaper, "a"), in_use(&shaper, "b")), (0, 0));
    assert_eq!(shaper.site_of("far.test").as_deref(), Some("b"));
}

#[test]
fn a_site_without_room_does_not_keep_mail_that_another_one_takes() {
    let mut shaper = Shaper::new(Settings::default(), 1);
    with_a_down(&mut shaper, "other.test");
    let line = line("far.test");
    assert!(shaper.ask(&line, at(2)));
    shaper.began(Flight(1, 1), &line, at(2));
    assert!(!shaper.ask(&line, at(2)), "one shows the way");
    assert!(shaper.permit(Flight(1, 1), "a", at(2)).is_some());
    assert_eq!(shaper.site_of("far.test"), None, "nothing was learned");
    assert_eq!(shaper.permit(Flight(1, 1), "b", at(2)), None);
    assert_eq!(shaper.wake(at(2)), std::slice::from_ref(&line));
    assert!(shaper.ask(&line, at(2)));
    shaper.ended(Flight(1, 1), tried(&[("b", well())]), at(3));
    assert_eq!(shaper.site_of("far.test").as_deref(), Some("b"));
}

#[test]
fn mail_waits_for_the_refusal_that_ends_first_once_its_lease_is_handed_back() {
    let mut shaper = Shaper::new(Settings::default(), 1);
    with_a_down(&mut shaper, "other.test");
    let pause = Ending {
        signal: Signal::Pause(Duration::from_secs(3600)),
        ..Ending::unknown()
    };
    let third = line("third.test");
    shaper.began(Flight(2, 2), &third, at(1));
    shaper.ended(Flight(2, 2), tried(&[("b", pause)]), at(1));
    let line = line("far.test");
    for (flight, handed_back) in [(1, false), (2, true)] {
        let flight = Flight(1, flight);
        assert!(shaper.ask(&line, at(2)));
        shaper.began(flight, &line, at(2));
        let (a, b) = (
            shaper.permit(flight, "a", at(2)),
            shaper.permit(flight, "b", at(2)),
        );
        assert!(a.is_some() && a < b, "{a:?} {b:?}");
        match handed_back {
            true => assert!(shaper.handed_back(flight, at(2))),
            false => shaper.gave_back(flight),
        }
        let learned = shaper.site_of("far.test");
        assert_eq!(learned.as_deref(), handed_back.then_some("a"));
    }
    assert!(!shaper.ask(&line, at(2)), "it waits there");
    assert_eq!(shaper.wake(at(30)), [line]);
}

#[test]
fn who_waits_goes_along_when_the_site_of_a_destination_changes() {
    let mut shaper = Shaper::new(Settings::default(), 1);
    with_a_down(&mut shaper, "far.test");
    let line = line("far.test");
    assert!(!shaper.ask(&line, at(2)));
    assert_eq!(shaper.wake(at(2)), [], "it waits for the probe");
    // One that was under way before found another way.
    shaper.began(Flight(1, 1), &line, at(2));
    shaper.ended(Flight(1, 1), tried(&[("a", away()), ("b", well())]), at(3));
    assert_eq!(shaper.wake(at(3)), std::slice::from_ref(&line));
    assert!(shaper.ask(&line, at(3)));
}

#[test]
fn a_probe_is_not_repeated_while_its_mail_is_at_another_site() {
    let mut shaper = Shaper::new(Settings::default(), 1);
    with_a_down(&mut shaper, "far.test");
    let line = line("far.test");
    assert!(shaper.ask(&line, at(20)), "its time has come");
    shaper.began(Flight(1, 1), &line, at(20));
    assert_eq!(shaper.permit(Flight(1, 1), "b", at(21)), None);
    assert!(!shaper.ask(&line, at(22)), "the probe is under way");
    shaper.ended(Flight(1, 1), tried(&[("a", away()), ("b", well())]), at(23));
    assert!(shaper.ask(&line, at(23)), "at the one that is well");
}
