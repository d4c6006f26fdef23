//! Committing, and waiting for room to do so.

use std::{sync::atomic::Ordering, thread, time::Duration};

use postroad_journal::JournalError;
use tracing::error;

use super::{
    CommitError, WAITING,
    offer::{Offer, Offered, Ready},
    thread::{Run, disk},
};
use crate::{ServeError, clock};

/// How often a settlement that found no room for a segment is tried again.
const NO_ROOM_PAUSE: Duration = Duration::from_millis(200);

impl Run {
    pub(super) fn commit(&mut self, mut ready: Vec<Ready>) -> Result<(), ServeError> {
        let mut told = false;
        let locations = loop {
            match self.append(&ready) {
                Ok(locations) => break locations,
                Err(JournalError::NoSegment(source)) => {
                    if !std::mem::replace(&mut told, true) {
                        error!(event = "disk_full", error = %source, "no room for a new segment");
                    }
                    let asked = ready.len();
                    ready = self.refuse(ready, |offer| offer.gives_way());
                    if self.hurry.load(Ordering::Relaxed) {
                        ready = self.refuse(ready, |_| true);
                    }
                    if ready.is_empty() {
                        return Ok(());
                    }
                    // What is left ends work that was done. It must not be lost, and it was promised room: it is there
                    // already, unless something else has taken that, too.
                    if ready.len() == asked {
                        self.wait_for_room()?;
                    }
                }
                Err(failed) => {
                    let failed = disk(failed);
                    for (offer, _) in ready {
                        offer.answer(Err(CommitError::Ended));
                    }
                    return Err(failed);
                }
            }
        };
        self.apply(ready, &locations)
    }

    /// Pauses. Meanwhile new mail is refused at once.
    fn wait_for_room(&mut self) -> Result<(), ServeError> {
        thread::sleep(NO_ROOM_PAUSE);
        while self.held.len() < WAITING {
            match self.waiting.try_recv() {
                Ok(Offer::Fail(failed)) => {
                    self.stage.never_close_index();
                    return Err(*failed);
                }
                Ok(Offer::Change(mut offer)) if offer.is_new_mail() => {
                    if let Some(prepared) = offer.prepare(self.stage.queue(), clock::now())? {
                        self.stage.abandon(prepared);
                        offer.answer(Err(CommitError::Full));
                    }
                }
                Ok(later) => self.held.push_back(later),
                Err(_) => break,
            }
        }
        Ok(())
    }

    /// There is no room for these.
    fn refuse(&self, ready: Vec<Ready>, which: impl Fn(&dyn Offered) -> bool) -> Vec<Ready> {
        let (refused, kept): (Vec<_>, Vec<_>) = ready
            .into_iter()
            .partition(|(offer, _)| which(offer.as_ref()));
        for (offer, prepared) in refused {
            self.stage.abandon(prepared);
            offer.answer(Err(CommitError::Full));
        }
        kept
    }
}
