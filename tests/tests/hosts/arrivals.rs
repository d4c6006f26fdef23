//! When mails arrived, in the Maildirs and in the world.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::Result;
use postroad_envelope::QueueId;
use postroad_tests::{
    Mail, Peer,
    load::{Sent, token},
};

/// Between two looks.
pub const INTERVAL: Duration = Duration::from_millis(50);

#[derive(Default)]
pub struct Arrivals {
    filed: BTreeMap<(String, QueueId), Instant>,
    relayed: BTreeMap<String, Instant>,
    kept: usize,
}

impl Arrivals {
    /// Looks once. `maildirs` are all there may be, by account.
    pub fn look(&mut self, maildirs: &[(String, PathBuf)], world: &Peer) -> Result<()> {
        for (account, maildir) in maildirs {
            // Nothing may have come yet.
            for entry in fs::read_dir(maildir.join("new")).into_iter().flatten() {
                let name = entry?.file_name().to_string_lossy().into_owned();
                let content = Vec::new();
                let (id, _) = Mail { name, content }.delivery()?;
                let known = (account.clone(), id);
                self.filed.entry(known).or_insert_with(Instant::now);
            }
        }
        let new = world.kept_after(self.kept);
        self.kept += new.len();
        for token in new.iter().filter_map(|kept| token(&kept.content)) {
            self.relayed.entry(token).or_insert_with(Instant::now);
        }
        Ok(())
    }

    /// Whether it was seen.
    pub fn has(&self, sent: &Sent) -> bool {
        let filed = |id| self.filed.contains_key(&(sent.to.clone(), id));
        self.relayed.contains_key(&sent.token) || sent.queue_id().is_some_and(filed)
    }

    /// How many came between: here, and in the world.
    pub fn between(&self, from: Instant, until: Instant) -> (usize, usize) {
        let within = |at: &&Instant| (from..until).contains(*at);
        let filed = self.filed.values().filter(within).count();
        (filed, self.relayed.values().filter(within).count())
    }
}
