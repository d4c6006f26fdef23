//! One site: what it takes, and what it answered.

use std::time::Duration;

use postroad_envelope::Timestamp;

use crate::{
    Ending, Limits, Signal, State,
    chance::Chance,
    limit::Window,
    pace::{Leave, Pace},
    width::Width,
};

/// Failures one after the other by which a site that worked is taken for down.
const DOWN_AFTER: u32 = 3;

/// What the operator chose of how sites are treated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manners {
    /// Whether limits are learned.
    pub adaptive: bool,
    /// Connections that a site is begun with.
    pub first_connections: u32,
    /// Before a site that is down is probed first; later probes are twice as far each time.
    pub probe_first: Duration,
    /// No probes are farther apart.
    pub probe_longest: Duration,
}

impl Default for Manners {
    fn default() -> Self {
        Self {
            adaptive: true,
            first_connections: 3,
            probe_first: Duration::from_secs(15),
            probe_longest: Duration::from_secs(15 * 60),
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Site {
    limits: Limits,
    width: Width,
    pace: Pace,
    messages: Option<Window>,
    connects: Option<Window>,
    in_use: u32,
    pause: Option<Timestamp>,
    down: Option<Down>,
    /// Attempts to connect that failed since the last that did not.
    failures: u32,
    /// A connection was had once.
    worked: bool,
    chance: Chance,
    last_used: Timestamp,
    /// What it said when it refused last.
    reason: Option<Reason>,
}

#[derive(Debug, Clone)]
struct Reason {
    at: Timestamp,
    text: String,
    status: Option<(u8, u16, u16)>,
}

#[derive(Debug, Clone)]
struct Down {
    since: Timestamp,
    step: Duration,
    probe_at: Timestamp,
    probing: bool,
}

impl Site {
    pub fn new(limits: Limits, manners: &Manners, seed: u64) -> Self {
        let mut site = Self {
            limits: Limits::default(),
            width: Width::new(manners.first_connections),
            pace: Pace::new(seed),
            messages: None,
            connects: None,
            in_use: 0,
            pause: None,
            down: None,
            failures: 0,
            worked: false,
            chance: Chance::new(seed ^ 0x5eed),
            last_used: Timestamp::default(),
            reason: None,
        };
        site.set_limits(limits);
        site
    }

    /// Other limits hold; what is counted counts on where they stayed.
    pub fn set_limits(&mut self, limits: Limits) {
        let renew = |window: &mut Option<Window>, rate| {
            if window.as_ref().map(Window::rate) != rate {
                *window = rate.map(Window::new);
            }
        };
        renew(&mut self.messages, limits.messages);
        renew(&mut self.connects, limits.connects);
        self.limits = limits;
    }

    /// Whether a mail may begin.
    pub fn leave(&mut self, manners: &Manners, now: Timestamp) -> Leave {
        if let Some(until) = self.pause {
            if now < until {
                return Leave::At(until);
            }
            self.pause = None;
        }
        match &self.down {
            Some(down) if down.probing => return Leave::Later,
            Some(down) if now < down.probe_at => return Leave::At(down.probe_at),
            Some(_) => return Leave::Now,
            None => {}
        }
        if self.in_use >= self.width(manners) {
            return Leave::Later;
        }
        let windows = [&mut self.messages, &mut self.connects]
            .into_iter()
            .flatten();
        let full = windows.filter_map(|window| window.full_until(now)).max();
        if let Some(until) = full {
            return Leave::At(until);
        }
        match manners.adaptive {
            true => self.pace.leave(now),
            false => Leave::Now,
        }
    }

    /// How many may begin now, given that one may.
    pub fn room(&self, manners: &Manners) -> usize {
        let one_by_one = self.down.is_some() || (manners.adaptive && self.pace.rate().is_some());
        let places = self.width(manners).saturating_sub(self.in_use);
        match one_by_one || self.pace.closed_until().is_some() {
            true => 1,
            false => usize::try_from(places).unwrap_or(usize::MAX).max(1),
        }
    }

    fn width(&self, manners: &Manners) -> u32 {
        let most = self.limits.connections.unwrap_or(u32::MAX);
        match manners.adaptive {
            true => self.width.allowed().min(most),
            false => most,
        }
    }

    /// A mail begins; tells how many are under way with it.
    pub fn begin(&mut self, waited: bool, now: Timestamp) -> u32 {
        self.last_used = now;
        self.in_use = self.in_use.saturating_add(1);
        if let Some(down) = &mut self.down {
            down.probing = true;
        }
        for window in [&mut self.messages, &mut self.connects]
            .into_iter()
            .flatten()
        {
            window.count(now);
        }
        self.pace.begin(waited, now);
        self.in_use
    }

    /// It did not begin after all.
    pub fn leave_unused(&mut self, began: Timestamp) {
        self.in_use = self.in_use.saturating_sub(1);
        for window in [&mut self.messages, &mut self.connects]
            .into_iter()
            .flatten()
        {
            window.take_back();
        }
        self.pace.no_probe(began);
        if let Some(down) = &mut self.down
            && began >= down.since
        {
            down.probing = false;
        }
    }

    /// It has ended.
    pub fn end(&mut self, flight: Flown, ending: &Ending, manners: &Manners, now: Timestamp) {
        self.in_use = self.in_use.saturating_sub(1);
        self.last_used = now;
        if ending.opened == 0
            && let Some(window) = &mut self.connects
        {
            window.take_back();
        }
        if let Some(text) = ending.reason.clone() {
            let status = ending.status;
            self.reason = Some(Reason {
                at: now,
                text,
                status,
            });
        }
        if ending.taken > 0 || !matches!(ending.signal, Signal::Unreachable) {
            self.answers();
        }
        if ending.taken > 0 {
            let Flown {
                at_once,
                waited,
                began,
            } = flight;
            self.width.fine(at_once, waited, began, now);
        }
        let refused = matches!(ending.signal, Signal::Rate | Signal::Crowded);
        if ending.taken > 0 || !refused {
            self.pace.taken(ending.taken, flight.began, now);
        }
        match ending.signal {
            Signal::Fine => {}
            Signal::Crowded if flight.at_once > 1 && !self.width.has_borne(flight.at_once) => {
                self.width.crowded(flight.at_once, now);
                self.pace.no_probe(flight.began);
            }
            Signal::Rate | Signal::Crowded => self.pace.refused(flight.began, now),
            Signal::Busy => {
                self.width.halve(now);
                self.pace.no_probe(flight.began);
                self.rest(manners.probe_first / 3, now);
            }
            Signal::Pause(time) => self.rest(time, now),
            Signal::Unreachable => self.unreachable(flight.began, manners, now),
        }
    }

    /// It is there.
    fn answers(&mut self) {
        (self.failures, self.worked, self.down) = (0, true, None);
    }

    fn unreachable(&mut self, began: Timestamp, manners: &Manners, now: Timestamp) {
        self.pace.no_probe(began);
        self.failures = self.failures.saturating_add(1);
        if let Some(down) = &mut self.down {
            // What was under way before says nothing new.
            if began >= down.since {
                down.step = (down.step * 2).min(manners.probe_longest);
                down.probe_at = now.plus(self.chance.about(down.step));
                down.probing = false;
            }
            return;
        }
        self.width.halve(now);
        if self.failures >= DOWN_AFTER || !self.worked {
            self.down = Some(Down {
                since: now,
                step: manners.probe_first,
                probe_at: now.plus(self.chance.about(manners.probe_first)),
                probing: false,
            });
        }
    }

    fn rest(&mut self, time: Duration, now: Timestamp) {
        let until = now.plus(time);
        self.pause = Some(self.pause.map_or(until, |pause| pause.max(until)));
    }

    /// A person says that it may go on at once.
    pub fn lift(&mut self, now: Timestamp) {
        self.pause = None;
        self.pace.open(now);
        if let Some(down) = &mut self.down {
            down.probe_at = now;
        }
    }

    pub fn in_use(&self) -> u32 {
        self.in_use
    }

    /// When it was last used.
    pub fn last_used(&self) -> Timestamp {
        self.last_used
    }

    /// Whether nothing is known of it that a new one would not know.
    pub fn is_fresh(&self) -> bool {
        let nothing = self.pause.is_none() && self.down.is_none();
        nothing && self.pace.rate().is_none() && !self.width.is_bounded()
    }

    pub fn state(&self, now: Timestamp) -> State {
        let pause = self.pause.filter(|until| *until > now);
        match (&self.down, pause, self.pace.closed_until()) {
            (Some(down), ..) => State::Down {
                since: down.since,
                probe_at: down.probe_at,
            },
            (None, Some(until), _) => State::Paused { until },
            (None, None, Some(until)) => State::BackingOff { until },
            (None, None, None) if self.pace.rate().is_some() => State::Limited,
            (None, None, None) if self.worked => State::Open,
            (None, None, None) => State::New,
        }
    }

    /// What it may have at once, and mails a second if that is learned.
    pub fn allowance(&self, manners: &Manners) -> (u32, Option<f64>) {
        (self.width(manners), self.pace.rate())
    }

    pub fn lately(&self) -> (u32, u32) {
        self.pace.lately()
    }

    pub fn limits(&self) -> Limits {
        self.limits
    }

    pub fn reason(&self) -> Option<(Timestamp, &str)> {
        let reason = self.reason.as_ref();
        reason.map(|reason| (reason.at, reason.text.as_str()))
    }

    /// What it said with that, by RFC 3463.
    pub fn status(&self) -> Option<(u8, u16, u16)> {
        self.reason.as_ref()?.status
    }
}

/// How a mail stood when it began.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flown {
    pub began: Timestamp,
    /// Under way then, with itself.
    pub at_once: u32,
    /// Others waited.
    pub waited: bool,
}
