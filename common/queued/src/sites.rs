//! What the sites behind destinations take: [`postroad_shaping`] with a lock, a log and numbers.
//!
//! Asked with each lease of mail that leaves over the network, and told with each settlement. All of it is in memory: after a start
//! it is learned anew.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use postroad_envelope::{LeaseRef, RouteClass, Timestamp};
use postroad_queue::{Fence, Gate, Kinship, Lease, Waits};
use postroad_queue_client::{Permit, Permitted, Settlement, SiteResult, SiteTrouble, SiteTry};
use postroad_shaping::{
    Changed, Ending, Flight, Line, Patterns, Said, Settings, Shaper, Signal, SiteView, Stage, State,
};
use tracing::info;

use crate::{clock, waiting, words};

/// A worker that may not connect asks again after this at least.
const LEAST_DELAY: Duration = Duration::from_millis(20);

/// The sites of one queue.
#[derive(Debug)]
pub(crate) struct Sites {
    shaper: Mutex<Shaper>,
    /// Whether mail waits for what is learned; else it is only told.
    is_heeded: AtomicBool,
}

impl Sites {
    pub fn new(settings: Settings, seed: u64, is_heeded: bool) -> Self {
        Self {
            shaper: Mutex::new(Shaper::new(settings, seed)),
            is_heeded: AtomicBool::new(is_heeded),
        }
    }

    pub fn renew(&self, settings: Settings, is_heeded: bool) {
        self.lock().renew(settings);
        self.is_heeded.store(is_heeded, Ordering::Relaxed);
    }

    fn is_heeded(&self) -> bool {
        self.is_heeded.load(Ordering::Relaxed)
    }

    /// The gate that leases pass.
    pub fn gate(&self) -> impl Gate + '_ {
        Turnstile(self)
    }

    /// A lease goes on that was given before: by a stream that broke, or before a restart.
    pub fn resumed(&self, lease: &Lease, class: RouteClass, destination: &str) {
        if is_shaped(class) {
            let line = line(class, &Arc::from(destination));
            self.lock().began(flight(lease.fence), &line, clock::now());
        }
    }

    /// What a result shows.
    pub fn settled(&self, settlement: &Settlement) {
        let now = clock::now();
        let flight = flight(words::fence(settlement.lease));
        let mut shaper = self.lock();
        let patterns = shaper.patterns();
        match settlement.sites.as_slice() {
            [] => shaper.ended_nowhere(flight, of_outcomes(&patterns, settlement), now),
            [.., last] if went_along(last) => shaper.joined(flight, &last.site, now),
            _ => shaper.ended(flight, endings(&patterns, settlement), now),
        }
        let changes = shaper.changes();
        drop(shaper);
        changes.iter().for_each(tell);
    }

    /// The site of what is under way was found.
    pub fn permit(&self, permit: &Permit) -> Permitted {
        let now = clock::now();
        let flight = flight(words::fence(permit.lease));
        let wait = self.lock().permit(flight, &permit.site, now);
        let wait = wait.filter(|_| self.is_heeded());
        Permitted {
            request: permit.request,
            connections: u32::from(wait.is_none()) * permit.connections,
            retry_after: wait.map_or(Duration::ZERO, |at| at.since(now).max(LEAST_DELAY)),
        }
    }

    /// A worker hands it back. Whether it waits for its site from now on, and need not rest by itself.
    pub fn handed_back(&self, lease: LeaseRef) -> bool {
        let flight = flight(words::fence(lease));
        self.lock().handed_back(flight, clock::now()) && self.is_heeded()
    }

    /// These leases have ended, with a result or without.
    pub fn ended(&self, fences: Vec<Fence>) {
        if fences.is_empty() {
            return;
        }
        let mut shaper = self.lock();
        for fence in fences {
            shaper.gave_back(flight(fence));
        }
    }

    /// The destinations whose turn has come.
    pub fn wake(&self) -> Vec<Line> {
        self.lock().wake(clock::now())
    }

    /// When a destination's turn comes, unless something ends before.
    pub fn next_wake(&self) -> Option<Timestamp> {
        self.lock().next_wake()
    }

    /// The site of a destination, if it is known.
    pub fn of(&self, destination: &str) -> Option<Arc<str>> {
        self.lock().site_of(destination)
    }

    /// The destinations of a site, by its name or that of one of them.
    pub fn destinations_of(&self, name: &str) -> BTreeSet<String> {
        let all = self.lock().destinations_of(name);
        all.iter().map(ToString::to_string).collect()
    }

    /// Whether the site of a destination takes nothing now, but is tried again later.
    pub fn is_closed(&self, destination: &str) -> bool {
        let state = self.lock().state_of(destination, clock::now());
        let state = state.filter(|_| self.is_heeded());
        state.is_some_and(|state| state.until().is_some())
    }

    /// Why mail of a class to a destination waits, if it waits for its site.
    pub fn waits(&self, class: RouteClass, destination: &str) -> Option<Waits> {
        let shaped = is_shaped(class) && self.is_heeded();
        let line = shaped.then(|| line(class, &Arc::from(destination)))?;
        let standing = self.lock().waits(&line, clock::now())?;
        Some(waiting::waits(&standing))
    }

    /// For operators.
    pub fn view(&self, domains: usize) -> Vec<SiteView> {
        self.lock().view(domains, clock::now())
    }

    /// How many sites stand so.
    pub fn count(&self, state: &str) -> usize {
        self.lock().count(state, clock::now())
    }

    /// An operator lets a site go on at once; tells how many were meant.
    pub fn lift(&self, name: &str) -> usize {
        let mut shaper = self.lock();
        let lifted = shaper.lift(name, clock::now());
        let changes = shaper.changes();
        drop(shaper);
        changes.iter().for_each(tell);
        lifted.len()
    }

    fn lock(&self) -> MutexGuard<'_, Shaper> {
        self.shaper.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Turnstile<'a>(&'a Sites);

impl Gate for Turnstile<'_> {
    fn admits(&mut self, class: RouteClass, destination: &Arc<str>, now: Timestamp) -> bool {
        !is_shaped(class)
            || !self.0.is_heeded()
            || self.0.lock().ask(&line(class, destination), now)
    }

    fn granted(&mut self, lease: &Lease, class: RouteClass, destination: &Arc<str>) {
        if is_shaped(class) {
            let line = line(class, destination);
            let mut shaper = self.0.lock();
            shaper.began(flight(lease.fence), &line, lease.granted_at);
        }
    }

    fn kinship(&mut self, one: &Arc<str>, other: &Arc<str>) -> Kinship {
        // What only probes a site takes no others along, which would use up an attempt each.
        if self.0.is_closed(one) {
            return Kinship::Other;
        }
        match self.0.lock().are_kin(one, other) {
            Some(true) => Kinship::Same,
            Some(false) => Kinship::Other,
            None => Kinship::Unknown,
        }
    }

    fn went_along(&mut self, lease: &Lease, class: RouteClass, destination: &Arc<str>) {
        let mut shaper = self.0.lock();
        shaper.goes_along(flight(lease.fence), &line(class, destination));
    }
}

/// Whether it went with another job, which tells how the site took it.
fn went_along(tried: &SiteTry) -> bool {
    tried.result.as_ref().is_some_and(|result| result.joined)
}

/// Mail of these classes leaves by the network.
fn is_shaped(class: RouteClass) -> bool {
    matches!(class, RouteClass::Relay | RouteClass::Lmtp)
}

fn line(class: RouteClass, destination: &Arc<str>) -> Line {
    Line {
        class,
        destination: Arc::clone(destination),
    }
}

fn flight(fence: Fence) -> Flight {
    Flight(fence.epoch, fence.counter)
}

/// How it ended at each site that was tried.
fn endings(patterns: &Patterns, settlement: &Settlement) -> Vec<(String, Ending)> {
    let ending = |tried: &SiteTry| match &tried.result {
        Some(result) => of_result(patterns, result),
        None => of_outcomes(patterns, settlement),
    };
    let sites = settlement.sites.iter();
    sites
        .map(|tried| (tried.site.clone(), ending(tried)))
        .collect()
}

fn of_result(patterns: &Patterns, result: &SiteResult) -> Ending {
    let judged = |stage| match &result.reply {
        Some(reply) => patterns.judge(stage, said(reply)),
        // A connection that broke or fell silent.
        None => Signal::Busy,
    };
    let signal = match result.trouble {
        None => Signal::Fine,
        Some(SiteTrouble::Unreachable) => Signal::Unreachable,
        Some(SiteTrouble::AtConnect) => judged(Stage::Connect),
        Some(SiteTrouble::AtMail) => judged(Stage::Mail),
    };
    let against = signal != Signal::Fine;
    let status = result.reply.as_ref().and_then(|reply| said(reply).enhanced);
    Ending {
        status: status.filter(|_| against),
        opened: result.connections,
        // A refusal that is about the mail alone is work done.
        taken: result
            .mails
            .max(u32::from(!against && result.trouble.is_some())),
        signal,
        reason: against.then(|| result.text.clone()),
    }
}

/// Of a worker that does not tell how it went with the site.
fn of_outcomes(patterns: &Patterns, settlement: &Settlement) -> Ending {
    let mut ending = Ending::unknown();
    for (_, outcome) in &settlement.outcomes {
        let report = outcome.report();
        let signal = match &report.reply {
            Some(reply) => patterns.judge(Stage::Mail, said(reply)),
            None if is_away(report.status) => Signal::Unreachable,
            None => Signal::Fine,
        };
        if signal == Signal::Fine {
            ending.taken = 1;
        } else {
            (ending.signal, ending.reason) = (signal, Some(report.text.clone()));
            let status = report.status;
            ending.status = Some((status.class(), status.subject(), status.detail()));
        }
    }
    if ending.signal != Signal::Fine {
        ending.taken = 0;
    }
    ending
}

/// RFC 3463 §3.5: no answer from host; directory server failure, which is the DNS.
fn is_away(status: postroad_reply::EnhancedStatusCode) -> bool {
    let code = (status.class(), status.subject(), status.detail());
    matches!(code, (4, 4, 1 | 3))
}

fn said(reply: &postroad_reply::Reply) -> Said<'_> {
    let enhanced = reply.enhanced();
    Said {
        code: reply.code().value(),
        enhanced: enhanced.map(|code| (code.class(), code.subject(), code.detail())),
        text: reply.text(),
    }
}

fn tell(changed: &Changed) {
    let state = changed.state.word();
    let until = changed.state.until();
    let what = match changed.state {
        State::Down { .. } => "nobody answers; one mail after the other tries it, the rest waits",
        State::BackingOff { .. } => "it refused for a time; one mail tries it, the rest waits",
        State::Paused { .. } => "it is left alone for a time",
        State::Limited => "it takes mail at the rate that was learned",
        State::Open | State::New => "it takes mail",
    };
    info!(
        event = "site_state", site = %changed.site, state, reason = changed.reason,
        retry_at = until.map(tracing::field::display), "{what}"
    );
}
