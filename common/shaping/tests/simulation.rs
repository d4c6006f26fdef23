//! Peers with limits of many kinds, in virtual time: how much of their allowance we find, and how often we are refused.
#![allow(
    clippy::print_stdout,
    reason = "the seed and what was measured are told"
)]

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    sync::Arc,
};

use postroad_envelope::{RouteClass, Timestamp};
use postroad_shaping::{Ending, Flight, Line, Settings, Shaper, Signal};

const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;

/// How a peer limits mails in a time.
#[derive(Debug, Clone)]
enum Rule {
    /// Filled at a rate, up to a burst.
    Bucket {
        burst: f64,
        per_minute: f64,
        filled: f64,
        at: u64,
    },
    /// So many in each stretch that begins with the clock.
    Fixed {
        most: u32,
        window: u64,
        offset: u64,
        current: u64,
        count: u32,
    },
    /// So many in any stretch.
    Sliding {
        most: usize,
        window: u64,
        taken: VecDeque<u64>,
    },
    None,
}

impl Rule {
    fn takes(&mut self, now: u64) -> bool {
        match self {
            Self::None => true,
            Self::Bucket {
                burst,
                per_minute,
                filled,
                at,
            } => {
                let more = (now - *at) as f64 * *per_minute / MINUTE as f64;
                (*filled, *at) = ((*filled + more).min(*burst), now);
                let full = *filled >= 1.0;
                *filled -= f64::from(u8::from(full));
                full
            }
            Self::Fixed {
                most,
                window,
                offset,
                current,
                count,
            } => {
                let of_now = (now + *offset) / *window;
                if *current != of_now {
                    (*current, *count) = (of_now, 0);
                }
                let room = *count < *most;
                *count += u32::from(room);
                room
            }
            Self::Sliding {
                most,
                window,
                taken,
            } => {
                while taken.front().is_some_and(|at| at + *window <= now) {
                    taken.pop_front();
                }
                let room = taken.len() < *most;
                if room {
                    taken.push_back(now);
                }
                room
            }
        }
    }
}

#[derive(Debug, Clone)]
struct Peer {
    connections: u32,
    rule: Rule,
    /// Too much is refused when we connect, instead of at MAIL.
    at_connect: bool,
    /// Milliseconds of a mail.
    takes: u64,
    /// Milliseconds, at most, for which a connection counts after we ended it.
    lingers: u64,
    open: u32,
}

#[derive(Debug, Default)]
struct Minute {
    attempts: u32,
    taken: u32,
}

struct Run {
    minutes: Vec<Minute>,
    /// When a mail was taken.
    taken: Vec<u64>,
}

impl Run {
    /// Taken and attempts of ten minutes that begin two minutes after the first refusal.
    fn ten_minutes(&self) -> (u32, u32) {
        let first = self
            .minutes
            .iter()
            .position(|minute| minute.taken < minute.attempts);
        let from = first.unwrap_or(0) + 2;
        self.sum(from, from + 10)
    }

    fn sum(&self, from: usize, to: usize) -> (u32, u32) {
        let part = self.minutes.get(from..to).expect("the run is long enough");
        let sums = part.iter().map(|minute| (minute.taken, minute.attempts));
        sums.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }
}

/// How a flight ends of which only the peer's count of its connection is left.
const GONE: u8 = 3;

/// From nothing to `most`.
fn chance(noise: &mut u64, most: u64) -> u64 {
    *noise = noise
        .wrapping_mul(6364136223846793005)
        .wrapping_add(1442695040888963407);
    (*noise >> 33) % (most + 1)
}

/// There is always more mail.
fn run(mut peer: Peer, minutes: u64, seed: u64) -> Run {
    let mut shaper = Shaper::new(Settings::default(), seed);
    let mut noise = seed;
    let line = Line {
        class: RouteClass::Relay,
        destination: Arc::from("example.org"),
    };
    let begin = 1_700_000_000_000;
    let mut run = Run {
        minutes: (0..minutes).map(|_| Minute::default()).collect(),
        taken: Vec::new(),
    };
    // When, which flight, how it ends.
    let mut ends: BinaryHeap<Reverse<(u64, u64, u8)>> = BinaryHeap::new();
    let (mut now, mut number) = (0, 0);
    let mut waits = false;
    while now < minutes * MINUTE {
        let at = Timestamp::from_millis(begin + now);
        while let Some(&Reverse((_, flight, how))) = ends.peek().filter(|end| end.0.0 <= now) {
            ends.pop();
            if how == GONE {
                peer.open -= 1;
                continue;
            }
            let (taken, signal) = match how {
                0 => (1, Signal::Fine),
                1 => (0, Signal::Rate),
                _ => (0, Signal::Crowded),
            };
            if how != 2 {
                ends.push(Reverse((
                    now + chance(&mut noise, peer.lingers),
                    flight,
                    GONE,
                )));
            }
            let ending = Ending {
                opened: 1,
                taken,
                signal,
                ..Ending::unknown()
            };
            let tried = vec![("mx.example.org".to_owned(), ending)];
            shaper.ended(Flight(1, flight), tried, at);
        }
        waits &= shaper.wake(at).is_empty();
        while !waits {
            if !shaper.ask(&line, at) {
                waits = true;
                break;
            }
            number += 1;
            shaper.began(Flight(1, number), &line, at);
            let minute = &mut run.minutes[(now / MINUTE) as usize];
            minute.attempts += 1;
            let jitter = chance(&mut noise, peer.takes / 2);
            let full = peer.open >= peer.connections;
            if full || (peer.at_connect && !peer.rule.takes(now)) {
                ends.push(Reverse((now + 20, number, 2)));
                continue;
            }
            peer.open += 1;
            if peer.at_connect || peer.rule.takes(now) {
                minute.taken += 1;
                run.taken.push(now);
                ends.push(Reverse((now + peer.takes * 3 / 4 + jitter, number, 0)));
            } else {
                ends.push(Reverse((now + 40, number, 1)));
            }
        }
        let next_end = ends.peek().map(|end| end.0.0);
        let timer = shaper.next_wake().map(|at| at.as_millis() - begin);
        let next = [next_end, timer].into_iter().flatten().min();
        now = next.expect("something goes on").max(now + 1);
    }
    run
}

fn peers() -> Vec<(String, Peer, f64)> {
    let mut all = Vec::new();
    let mut add = |name: &str, rule: Rule, per_minute: f64| {
        for at_connect in [false, true] {
            // The longest leaves some connections idle; with longer ones the peer cannot be given more than it takes.
            for takes in [80, 400, 2000] {
                let peer = Peer {
                    connections: 5,
                    rule: rule.clone(),
                    at_connect,
                    takes,
                    lingers: 0,
                    open: 0,
                };
                let possible = per_minute.min(5.0 * MINUTE as f64 / takes as f64);
                let place = if at_connect { "at connect" } else { "at MAIL" };
                all.push((format!("{name}, {place}, {takes} ms"), peer, possible));
            }
        }
    };
    for burst in [5.0, 20.0, 100.0] {
        let rule = Rule::Bucket {
            burst,
            per_minute: 100.0,
            filled: burst,
            at: 0,
        };
        add(&format!("bucket of {burst}"), rule, 100.0);
    }
    for offset in [0, 7, 23, 41, 52] {
        let rule = Rule::Fixed {
            most: 100,
            window: MINUTE,
            offset: offset * SECOND,
            current: 0,
            count: 0,
        };
        add(&format!("fixed window at {offset} s"), rule, 100.0);
    }
    let rule = Rule::Sliding {
        most: 100,
        window: MINUTE,
        taken: VecDeque::new(),
    };
    add("sliding window", rule, 100.0);
    all
}

#[test]
fn the_allowance_of_a_peer_is_found_and_held() {
    let seed: u64 = match std::env::var("POSTROAD_SEED") {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => 20261127,
    };
    println!("POSTROAD_SEED={seed}");
    let mut wrong = Vec::new();
    for (name, peer, per_minute) in peers() {
        let run = run(peer.clone(), 18, seed);
        let (taken, attempts) = run.ten_minutes();
        let share = f64::from(taken) / (per_minute * 10.0);
        let refused = f64::from(attempts - taken) / f64::from(attempts);
        let minutes = run.minutes.iter();
        let minutes = minutes.map(|minute| format!("{}/{}", minute.taken, minute.attempts));
        let minutes: Vec<String> = minutes.collect();
        println!(
            "{:5.1} % of the allowance, {:4.2} % refused: {name}: {}",
            share * 100.0,
            refused * 100.0,
            minutes.join(" ")
        );
        if share < 0.9 || refused > 0.01 {
            wrong.push(format!("{name} {seed}: {share:.3} {refused:.4}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {}: {wrong:#?}",
        wrong.len(),
        peers().len()
    );
}

#[test]
fn a_peer_without_limits_is_not_slowed_down() {
    let peer = Peer {
        connections: 1000,
        rule: Rule::None,
        at_connect: false,
        takes: 100,
        lingers: 0,
        open: 0,
    };
    let run = run(peer, 2, 7);
    let (taken, attempts) = run.sum(1, 2);
    assert_eq!(taken, attempts);
    assert!(taken > 100_000, "{taken}");
}

/// A connection counts at the peer for a moment after we ended it, so that a refusal may come when no mail too many was sent: what is
/// learned from it does not hold for long. The window is as short as people set none, so that nothing but rates is learned.
#[test]
fn a_refusal_by_chance_is_soon_outlived() {
    let mut wrong = Vec::new();
    let rule = Rule::Sliding {
        most: 12,
        window: 3 * SECOND,
        taken: VecDeque::new(),
    };
    for (seed, takes) in (0..400).flat_map(|seed| [20, 60, 150].map(|takes| (seed, takes))) {
        let peer = Peer {
            connections: 3,
            rule: rule.clone(),
            at_connect: false,
            takes,
            lingers: 20,
            open: 0,
        };
        let run = run(peer, 1, seed);
        let windows = 12 * SECOND..30 * SECOND;
        let taken = run.taken.iter().filter(|at| windows.contains(at));
        let share = taken.count() as f64 / (12.0 * 6.0);
        if share < 0.5 {
            wrong.push(format!("seed {seed}, {takes} ms: {share:.2}"));
        }
    }
    assert!(wrong.is_empty(), "{}: {wrong:#?}", wrong.len());
}
