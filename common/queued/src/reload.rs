//! How a changed configuration reaches a queue that runs.

use std::sync::{Arc, PoisonError};

use postroad_daemon::{Apply, ReloadPart};
use postroad_queue::{LeaseTimes, RetrySchedule};

use crate::{
    Config, LocalQueue,
    core::{Core, Front},
    dispatch::ToDispatcher,
    routing::Router,
};

/// Keys that can change while the agent runs; others need a restart.
pub const LIVE: &[&str] = &[
    "queued.size_limit",
    "queued.foreign",
    "queued.relay_networks",
    "queued.relay_certificates",
    "queued.routes",
    "queued.cause_rules",
    "queued.accounts",
    "queued.retry",
    "queued.lease",
    "queued.priority.minimum_share",
    "queued.destination",
    "queued.sites",
    "queued.quota",
    "queued.counters",
    "queued.dsn",
    "queued.suppression",
    "queued.timeline",
    "queued.retired",
    "queued.disk.reserve_percent",
    "queued.disk.reserve",
    "queued.disk.journal_target",
    "queued.disk.index_spare",
    "queued.backup",
];

/// The queue's share in a reload. `current` is the queue that runs, if one does; `remember` is told of each new
/// configuration, for the next start of a queue in this process.
pub fn reload_part(
    current: impl Fn() -> Option<LocalQueue> + Clone + Send + Sync + 'static,
    remember: impl Fn(&Config) + Clone + Send + Sync + 'static,
) -> ReloadPart {
    ReloadPart::new("queued", LIVE, move |file, common, config: Config| {
        if let Err(error) = config.check(common) {
            let key = error.key();
            return Err(file.error(&key, error.to_string(), "mend it, or leave the key out"));
        }
        let (current, remember) = (current.clone(), remember.clone());
        let but = current().map(|queue| queue.not_now(&config));
        let apply = Apply::new(move || {
            // In this order: a queue that starts meanwhile has read the new one, or is there to be told.
            remember(&config);
            if let Some(queue) = current() {
                queue.renew(config);
            }
        });
        Ok(apply.but(but.unwrap_or_default()))
    })
}

impl LocalQueue {
    /// Live keys that need a restart this time: what was switched off at the start cannot be switched on, nor the other
    /// way round.
    fn not_now(&self, config: &Config) -> Vec<&'static str> {
        let front = &self.front;
        let wants_quotas = config.quotas().is_ok_and(|quotas| !quotas.are_none());
        let mut keys = Vec::new();
        if wants_quotas && !front.counts_quotas {
            keys.push("queued.quota");
        }
        if !front.timeline.can_become(&config.timeline) {
            keys.push("queued.timeline");
        }
        if !front.retired.can_become(&config.retired) {
            keys.push("queued.retired");
        }
        keys
    }

    /// Lets a configuration hold that was checked, for what begins from now on.
    pub fn renew(&self, config: Config) {
        let front = &self.front;
        let table = Router::new(&config.routes, config.foreign);
        let (Ok(router), Ok(quotas), Ok(causes), Ok(shaping)) =
            (table, config.quotas(), config.causes(), config.shaping())
        else {
            return;
        };
        let retry = RetrySchedule::from(&config);
        let quotas = match front.counts_quotas {
            true => Arc::new(quotas),
            false => Arc::default(),
        };
        front
            .unasked
            .send_replace(Front::unasked_of(&config, &quotas));
        front.newcomers.renew_terms(retry, quotas);
        front.counting.set_room(config.counters.room());
        front.timeline.renew(&config.timeline);
        front.retired.renew(&config.retired);
        // The file may have changed behind its name.
        front.causes.store(Arc::new(causes));
        let old = front.config();
        if old.sites != config.sites {
            front.sites.renew(shaping, config.sites.enabled);
        }
        // A new table is walked after by all of the queue.
        if (&old.routes, old.foreign) != (&config.routes, config.foreign) {
            front.router.store(Arc::new(router));
        }
        front.config.store(Arc::new(config));
        if let Some(core) = &*self.live.borrow() {
            core.renew_terms();
        }
    }
}

impl Core {
    /// Lets the index and the schedule follow the configuration of now.
    pub fn renew_terms(&self) {
        // One after the other, each with the configuration of its turn: a queue that comes to life must not bring back what
        // it read before a change.
        let _turn = self
            .renewing_terms
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let config = self.config();
        self.queue.renew_terms(
            RetrySchedule::from(&*config),
            self.newcomers.quotas(),
            lease_times(&config),
            config.fairness(),
        );
        // More leases may be had now. A full channel is looked at anyway.
        let _ = self.dispatcher.try_send(ToDispatcher::Look);
    }
}

/// How long leases and graces are.
pub(crate) fn lease_times(config: &Config) -> LeaseTimes {
    LeaseTimes {
        duration: config.lease.duration.into(),
        drop_grace: config.lease.stream_grace.into(),
        resume_grace: config.lease.resume_grace.into(),
        report_gather: config.dsn.gather.into(),
    }
}
