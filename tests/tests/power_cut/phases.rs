//! What the upkeep of the queue is at, told as it begins and ends, so that cuts into the middle of it can be counted.

use std::{
    collections::HashMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tracing::{
    Event, Metadata, Subscriber,
    span::{Attributes, Id, Record},
};

use crate::told::say;

/// The names of the spans, and under which name cuts are counted.
const PHASES: [(&str, &str); 2] = [
    ("checkpoint", "cuts during a checkpoint"),
    ("reclaim", "cuts while giving up segments"),
];

/// From now on this process tells.
pub fn tell() {
    let _ = tracing::subscriber::set_global_default(Phases::default());
}

/// What is counted, and whether it begins or ends.
pub fn hear(line: &str) -> Option<(&'static str, bool)> {
    let (word, name) = line.split_once(' ')?;
    let begins = match word {
        "begins" => true,
        "ends" => false,
        _ => return None,
    };
    let (_, counted) = PHASES.into_iter().find(|(known, _)| *known == name)?;
    Some((counted, begins))
}

#[derive(Default)]
struct Phases {
    last: AtomicU64,
    open: Mutex<HashMap<u64, &'static str>>,
}

impl Subscriber for Phases {
    fn enabled(&self, about: &Metadata<'_>) -> bool {
        about.is_span() && PHASES.iter().any(|(name, _)| *name == about.name())
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let name = span.metadata().name();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.insert(number, name);
        say(&format!("begins {name}\n"));
        Id::from_u64(number)
    }

    fn try_close(&self, id: Id) -> bool {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = open.remove(&id.into_u64()) {
            say(&format!("ends {name}\n"));
        }
        true
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}
