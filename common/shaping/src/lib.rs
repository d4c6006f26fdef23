//! How much mail a site takes. A site is the set of mail hosts behind one or many domains.
//!
//! ```text
//! may a mail for this domain begin? ─► site known ─► paused, down, connections, rates ─► yes │ no: its domain waits here
//!                                      └ not known: one mail at a time, until a worker tells the site
//! it has ended so ─► what that says of the site ─► limits that are learned ─► whose turn it is among those that wait
//! ```
//!
//! Times and seeds are arguments, nothing is on a disk, and all of it is bounded: sites that were idle for long are forgotten, and
//! those used least recently where there are too many. What is learned: connections at once by slow start and its end
//! ([`width`](crate)), mails in a time by when a site refuses and takes mail again. A site that does not answer is probed by one mail
//! at growing distance, while the others wait and cost nothing.

#![forbid(unsafe_code)]

mod along;
mod chance;
mod entry;
mod flights;
mod limit;
mod names;
mod pace;
mod recent;
mod settings;
mod shaper;
mod signal;
mod site;
mod view;
mod width;

use std::{sync::Arc, time::Duration};

pub use flights::Flight;
pub use limit::{Limits, Rate, RateError};
use postroad_envelope::{RouteClass, Timestamp};
pub use settings::{Fits, Rule, Settings};
pub use shaper::{Changed, Shaper};
pub use signal::{Pattern, Patterns, Said, Signal, Stage, Treatment};
pub use site::Manners;
pub use view::{SiteView, Standing};

/// The jobs of one class and destination: they wait for leave together.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Line {
    /// Of the jobs.
    pub class: RouteClass,
    /// A recipient domain, or the name of a route.
    pub destination: Arc<str>,
}

/// What an attempt came to, as far as the site goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// Connections that were opened for it; none if one was used again.
    pub opened: u32,
    /// Mails that the site took, or refused for reasons of the mail.
    pub taken: u32,
    /// What it showed of the site.
    pub signal: Signal,
    /// What the site said, if that was something against us.
    pub reason: Option<String>,
    /// RFC 3463, if it said so too: class, subject, detail.
    pub status: Option<(u8, u16, u16)>,
}

impl Ending {
    /// Nothing is known of it.
    pub fn unknown() -> Self {
        Self {
            opened: 1,
            taken: 0,
            signal: Signal::Fine,
            reason: None,
            status: None,
        }
    }
}

/// How a site stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nothing was sent yet.
    New,
    /// It takes what comes.
    Open,
    /// It takes what comes at the rate that was learned.
    Limited,
    /// It refused, and is asked again then.
    BackingOff {
        /// When.
        until: Timestamp,
    },
    /// It is left alone.
    Paused {
        /// Until then.
        until: Timestamp,
    },
    /// It cannot be reached.
    Down {
        /// Since when.
        since: Timestamp,
        /// When it is tried again, by one mail.
        probe_at: Timestamp,
    },
}

impl State {
    /// As logs and tables have it.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Open => "open",
            Self::Limited => "limited",
            Self::BackingOff { .. } => "backing-off",
            Self::Paused { .. } => "paused",
            Self::Down { .. } => "down",
        }
    }

    /// When something is tried again.
    pub const fn until(&self) -> Option<Timestamp> {
        match self {
            Self::New | Self::Open | Self::Limited => None,
            Self::BackingOff { until } | Self::Paused { until } => Some(*until),
            Self::Down { probe_at, .. } => Some(*probe_at),
        }
    }
}

/// Idle for so long, a site of which nothing was learned is forgotten.
const FORGET_FRESH: Duration = Duration::from_secs(600);
/// Idle for so long, any is.
const FORGET: Duration = Duration::from_secs(24 * 3600);
