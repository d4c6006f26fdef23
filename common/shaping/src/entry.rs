//! What is counted together, and who waits for it.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
};

use postroad_envelope::{RouteClass, Timestamp};

use crate::{Line, State, site::Site};

/// Mail of these classes has sites.
const WAIT: [RouteClass; 2] = [RouteClass::Relay, RouteClass::Lmtp];

/// What is counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Key {
    /// A domain whose site is not known.
    Unknown(Arc<str>),
    /// A domain with limits of its own.
    Domain(Arc<str>),
    Site(Arc<str>),
}

impl Key {
    pub(crate) fn name(&self) -> &Arc<str> {
        match self {
            Self::Unknown(name) | Self::Domain(name) | Self::Site(name) => name,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) site: Site,
    pub(crate) waiting: VecDeque<Line>,
    /// The same, to be looked up.
    pub(crate) waits: HashSet<Line>,
    /// Those whose turn has come, and that have not begun since.
    pub(crate) awake: HashSet<Line>,
    pub(crate) timer: Option<Timestamp>,
    /// The word that was told last.
    pub(crate) told: &'static str,
}

impl Entry {
    pub(crate) fn new(site: Site) -> Self {
        Self {
            site,
            waiting: VecDeque::new(),
            waits: HashSet::new(),
            awake: HashSet::new(),
            timer: None,
            told: State::New.word(),
        }
    }

    pub(crate) fn wait_all(&mut self, lines: VecDeque<Line>) {
        for line in lines {
            if self.waits.insert(line.clone()) {
                self.waiting.push_back(line);
            }
        }
    }

    /// The lines of a destination, which wait here no more.
    pub(crate) fn take_waiting(&mut self, destination: &str) -> VecDeque<Line> {
        let destination: Arc<str> = destination.into();
        let mut found = false;
        for class in WAIT {
            let destination = Arc::clone(&destination);
            found |= self.waits.remove(&Line { class, destination });
        }
        // Mostly there is none, and nobody need look through all that wait.
        if !found {
            return VecDeque::new();
        }
        let waiting = std::mem::take(&mut self.waiting);
        let (moved, left) = waiting
            .into_iter()
            .partition(|line| line.destination == destination);
        self.waiting = left;
        moved
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.site.in_use() == 0 && self.waiting.is_empty()
    }
}
