//! How many mails in a time: learned from when a site refuses and when it takes mail again.
//!
//! ```text
//! free ──refused──► closed ──a probe is taken──► paced ──refused──► closed …
//!                   └─ probes at growing distance      └─ faster in small steps, while refusals stay rare
//! ```
//!
//! Whoever limits rates takes so many mails in a time, then refuses until that time is over, or until a bucket has filled up a
//! little. From one opening to the next a site took n mails in a time that began with the opening and ended between the last probe
//! that was refused and the first that was taken: that is the rate. Limits are set by people, so if a minute (or 10 s, or an hour)
//! lies between the two it is taken for the time.

use std::time::Duration;

use postroad_envelope::Timestamp;

use crate::{chance::Chance, recent::Recent};

/// Of what a site bears, as far as that is known, so much is used.
const SURE: f64 = 0.97;
const UNSURE: f64 = 0.95;
/// The first probe after a site was closed.
const FIRST_PROBE: Duration = Duration::from_secs(1);
/// The same where the rate is known well, so that the site was closed for being a little too fast.
const PROBE_WHEN_SURE: Duration = Duration::from_secs(3);
/// Closed for so many seconds, and for an eighth of the time, is closed for long.
const LONG_SHUT: f64 = 5.0;
const LONGEST_PROBE: Duration = Duration::from_secs(15 * 60);
/// Times that people set limits by, in seconds; shorter ones cannot be told from chance.
const NATURAL: [u32; 9] = [86_400, 3_600, 1_800, 900, 600, 300, 60, 30, 10];
/// Faster by so much as long as little is known.
const SEARCH: f64 = 1.3;
/// The same where the rate was learned from fewer mails than [`FEW`]: one that was refused by chance at once seems to be next to
/// nothing.
const SEARCH_FAR: f64 = 2.0;
const FEW: f64 = 10.0;
const SEARCH_EVERY: Duration = Duration::from_secs(4);
/// A rate that was kept up for so many seconds is known well, whatever was believed before.
const KEPT_UP: f64 = 100.0;
/// Then in steps like these, the first of which waits.
const STEP: f64 = 0.02;
const STEP_EVERY: Duration = Duration::from_secs(60);
const FIRST_HOLD: Duration = Duration::from_secs(2 * 60);
const LONGEST_HOLD: Duration = Duration::from_secs(40 * 60);
/// Faster than is known to go well is tried only while fewer than one of so many mails was refused, lately.
const REFUSED_OF: u32 = 250;
/// Mails a second that a site is believed to bear though nothing is known: nobody tried to send it more.
const LEAST_GUESS: f64 = 0.5;

#[derive(Debug, Clone)]
pub(crate) struct Pace {
    mode: Mode,
    /// Since it was open last.
    cycle: Cycle,
    /// Since it was open last after having been closed for long.
    window: Cycle,
    /// Too fast, in mails a second; none: not known.
    bad: Option<f64>,
    /// The rate is known well.
    sure: bool,
    /// It was learned from a few mails.
    guessed: bool,
    hold: Duration,
    steps: u32,
    grow_at: Timestamp,
    /// When it was made faster last, and what had begun by then since it was open.
    grown: (Timestamp, u32),
    recent: Recent,
    /// The same since the rate is known well.
    since_sure: Recent,
    chance: Chance,
}

#[derive(Debug, Clone)]
enum Mode {
    Free,
    Closed(Closed),
    /// Mails a second, and when the next may begin, in milliseconds.
    Paced {
        rate: f64,
        next: f64,
    },
}

#[derive(Debug, Clone)]
struct Closed {
    since: Timestamp,
    /// When a probe was refused last.
    refused: Timestamp,
    step: Duration,
    until: Timestamp,
    probing: bool,
    /// What it was.
    rate: Option<f64>,
}

/// From an opening to the next.
#[derive(Debug, Clone, Default)]
struct Cycle {
    began: Option<Timestamp>,
    /// The last time before that it was seen closed: it opened between the two.
    shut: Option<Timestamp>,
    taken: u32,
    begun: u32,
    /// Of those begun, those that had waited for leave.
    waited: u32,
}

impl Cycle {
    /// With the probe that was taken.
    fn opened(began: Timestamp, shut: Timestamp) -> Self {
        Self {
            began: Some(began),
            shut: Some(shut),
            taken: 1,
            begun: 1,
            waited: 1,
        }
    }

    /// Before the probe, which belongs to what comes next.
    fn taken_before(&self) -> f64 {
        f64::from(self.taken.saturating_sub(1)).max(1.0)
    }

    /// What was sent was as much as might be, so that it tells how much that is.
    fn is_saturated(&self) -> bool {
        self.waited * 2 >= self.begun
    }
}

/// Mails taken in a time.
#[derive(Debug, Clone, Copy)]
struct Measured {
    taken: f64,
    /// In seconds.
    time: f64,
    /// Mails a second, as far as that can be told from these.
    rate: f64,
    /// It is one that people set limits by.
    is_natural: bool,
    is_saturated: bool,
    /// It was closed for long.
    is_window: bool,
}

impl Measured {
    /// So few mails may have been refused by chance.
    fn is_guess(&self) -> bool {
        self.taken < FEW
    }
}

/// Whether a mail may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leave {
    Now,
    /// Not before.
    At(Timestamp),
    /// Not before something that is under way has ended.
    Later,
}

impl Pace {
    pub fn new(seed: u64) -> Self {
        Self {
            mode: Mode::Free,
            cycle: Cycle::default(),
            window: Cycle::default(),
            bad: None,
            sure: false,
            guessed: false,
            hold: FIRST_HOLD,
            steps: 0,
            grow_at: Timestamp::default(),
            grown: (Timestamp::default(), 0),
            recent: Recent::default(),
            since_sure: Recent::default(),
            chance: Chance::new(seed),
        }
    }

    pub fn leave(&self, now: Timestamp) -> Leave {
        match &self.mode {
            Mode::Free => Leave::Now,
            Mode::Closed(closed) if closed.probing => Leave::Later,
            Mode::Closed(closed) if now < closed.until => Leave::At(closed.until),
            Mode::Closed(_) => Leave::Now,
            Mode::Paced { next, .. } if *next > millis(now) => {
                Leave::At(Timestamp::from_millis(next.ceil().max(0.0) as u64))
            }
            Mode::Paced { .. } => Leave::Now,
        }
    }

    /// Mails a second, if they are limited.
    pub fn rate(&self) -> Option<f64> {
        match &self.mode {
            Mode::Paced { rate, .. } => Some(*rate),
            Mode::Closed(closed) => closed.rate,
            Mode::Free => None,
        }
    }

    /// Until when it is closed, if it is.
    pub fn closed_until(&self) -> Option<Timestamp> {
        match &self.mode {
            Mode::Closed(closed) => Some(closed.until),
            _ => None,
        }
    }

    /// Mails taken and refused in the last ten minutes.
    pub fn lately(&self) -> (u32, u32) {
        self.recent.sums()
    }

    /// A person says that it may go on at once.
    pub fn open(&mut self, now: Timestamp) {
        if let Mode::Closed(closed) = &mut self.mode {
            closed.until = now;
        }
    }

    /// A mail begins; `waited`: it, or others, had waited for leave.
    pub fn begin(&mut self, waited: bool, now: Timestamp) {
        for cycle in [&mut self.cycle, &mut self.window] {
            cycle.began.get_or_insert(now);
            cycle.begun = cycle.begun.saturating_add(1);
            cycle.waited = cycle.waited.saturating_add(u32::from(waited));
        }
        match &mut self.mode {
            Mode::Free => {}
            Mode::Closed(closed) => closed.probing = true,
            Mode::Paced { rate, next } => *next = next.max(millis(now)) + 1000.0 / *rate,
        }
    }

    /// So many mails were taken by what began then.
    pub fn taken(&mut self, mails: u32, began: Timestamp, now: Timestamp) {
        self.recent.add(mails, 0, now);
        self.since_sure.add(mails, 0, now);
        for cycle in [&mut self.cycle, &mut self.window] {
            cycle.taken = cycle.taken.saturating_add(mails);
        }
        match &self.mode {
            Mode::Closed(closed) if began > closed.since && mails > 0 => self.reopen(began, now),
            Mode::Closed(_) => self.no_probe(began),
            Mode::Paced { .. } => self.grow(now),
            Mode::Free => {}
        }
    }

    /// What began then was refused because it was too much.
    pub fn refused(&mut self, began: Timestamp, now: Timestamp) {
        self.recent.add(0, 1, now);
        self.since_sure.add(0, 1, now);
        match &mut self.mode {
            Mode::Closed(closed) if began > closed.since => {
                closed.refused = now;
                closed.step = (closed.step * 2).min(LONGEST_PROBE);
                closed.until = now.plus(self.chance.about(closed.step));
                closed.probing = false;
            }
            Mode::Closed(_) => {}
            // It was under way before the site was open again.
            _ if self.cycle.began.is_some_and(|opened| began < opened) => {}
            _ => self.close(now),
        }
    }

    /// What began then came to another end: it shows nothing.
    pub fn no_probe(&mut self, began: Timestamp) {
        if let Mode::Closed(closed) = &mut self.mode
            && began > closed.since
        {
            closed.probing = false;
        }
    }

    fn close(&mut self, now: Timestamp) {
        let rate = self.rate();
        if self.cycle.is_saturated() {
            self.bad = rate.or(self.bad);
        }
        let step = match self.sure {
            true => PROBE_WHEN_SURE,
            false => FIRST_PROBE,
        };
        self.mode = Mode::Closed(Closed {
            since: now,
            refused: now,
            step,
            until: now.plus(self.chance.about(step)),
            probing: false,
            rate,
        });
    }

    /// A probe was taken: it was let in when it began, however long it took from there.
    fn reopen(&mut self, open: Timestamp, now: Timestamp) {
        let Mode::Closed(closed) = &self.mode else {
            return;
        };
        let (closed, was_sure) = (closed.clone(), self.sure);
        let before = closed.rate;
        let measured = self.measure(&closed, open);
        let estimate = measured.rate;
        let well_known = measured.taken >= 30.0 && measured.time >= 20.0;
        let steady = before.is_some_and(|rate| estimate >= 0.8 * rate);
        let certain = steady || measured.is_natural || measured.time >= KEPT_UP;
        self.sure = measured.is_saturated && well_known && certain;
        self.guessed = measured.is_guess();
        let share = if self.sure { SURE } else { UNSURE };
        let rate = match (measured.is_saturated, before) {
            (true, Some(before)) => (share * estimate).min(share * before),
            (true, None) => share * estimate,
            // Nobody knows how much it would have been.
            (false, Some(before)) => 0.7 * before,
            (false, None) => estimate.max(LEAST_GUESS),
        };
        self.bad = self.bad.map(|bad| bad.max(rate * 1.03));
        if self.sure && !was_sure {
            self.since_sure = Recent::default();
        }
        self.hold = match was_sure && self.sure {
            true => (self.hold * 2).min(LONGEST_HOLD),
            false => FIRST_HOLD,
        };
        self.steps = 0;
        let wait = if self.sure { self.hold } else { SEARCH_EVERY };
        self.grow_at = now.plus(wait);
        self.mode = Mode::Paced {
            rate,
            next: millis(open) + 1000.0 / rate,
        };
        self.cycle = Cycle::opened(open, closed.refused);
        self.grown = (now, self.cycle.begun);
        if measured.is_window {
            self.window = self.cycle.clone();
        }
    }

    /// What was taken until it is open again.
    fn measure(&mut self, closed: &Closed, open: Timestamp) -> Measured {
        // What is closed for long is a window; a bucket lets the next one through soon.
        let shut = seconds(closed.since, open);
        let opened = self.window.began.unwrap_or(closed.since);
        let is_window = shut >= LONG_SHUT.max(seconds(opened, open) / 8.0);
        let cycle = match is_window {
            true => std::mem::take(&mut self.window),
            false => self.cycle.clone(),
        };
        let opened = cycle.began.unwrap_or(closed.since);
        let (low, high) = (seconds(opened, closed.refused), seconds(opened, open));
        let mut natural = NATURAL.into_iter().map(f64::from);
        let widest = cycle.shut.map_or(high, |shut| seconds(shut, open));
        let natural = natural.find(|time| is_window && low < *time && *time <= widest);
        let (taken, time) = (cycle.taken_before(), natural.unwrap_or(high).max(0.1));
        let mut measured = Measured {
            taken,
            time,
            rate: taken / time,
            is_natural: natural.is_some(),
            is_saturated: cycle.is_saturated(),
            is_window,
        };
        if let Some(began) = self.window.began.filter(|_| measured.is_guess()) {
            // What went before the last refusal tells of the site as well.
            let longer = self.window.taken_before() / seconds(began, open).max(0.1);
            measured.rate = measured.rate.max((measured.rate * longer).sqrt());
        }
        measured
    }

    fn grow(&mut self, now: Timestamp) {
        if now < self.grow_at || !self.cycle.is_saturated() {
            return;
        }
        let (taken, refused) = self.since_sure.sums();
        let is_rare = refused * REFUSED_OF <= taken;
        let Mode::Paced { rate, .. } = &mut self.mode else {
            return;
        };
        if self.sure {
            if is_rare {
                self.steps += 1;
                *rate *= 1.0 + STEP * f64::from(self.steps);
            }
            self.grow_at = now.plus(STEP_EVERY);
            return;
        }
        let (since, begun) = std::mem::replace(&mut self.grown, (now, self.cycle.begun));
        let begun = f64::from(self.cycle.begun.saturating_sub(begun));
        let sent = begun / seconds(since, now).max(0.1);
        // Where connections are few it may be less than the rate allows: nobody knows how much more than that goes well.
        let search = if self.guessed { SEARCH_FAR } else { SEARCH };
        let faster = (*rate * search).min(sent * search).max(*rate);
        *rate = match self.bad {
            Some(bad) => faster.min((*rate * bad).sqrt()),
            None => faster,
        };
        self.sure = self.bad.is_some_and(|bad| bad <= *rate * 1.08);
        if self.sure {
            self.since_sure = Recent::default();
        }
        let wait = if self.sure { self.hold } else { SEARCH_EVERY };
        self.grow_at = now.plus(wait.max(Duration::from_secs_f64(3.0 / *rate)));
    }
}

fn millis(at: Timestamp) -> f64 {
    at.as_millis() as f64
}

fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    to.since(from).as_secs_f64()
}
