//! What the store syncs, for the metrics.

use std::sync::Arc;

use postroad_maildir::{Store, SyncCounts};
use postroad_metrics::labels::Synced;
use postroad_metrics::{Metrics, list};

/// Shows what is counted by `store`, and does not keep it open.
pub fn count(store: &Store, metrics: &Metrics) {
    type Number = fn(&SyncCounts) -> u64;
    let counts = store.syncs();
    let numbers: [(Synced, Number); 4] = [
        (Synced::File, SyncCounts::files),
        (Synced::Folder, SyncCounts::folders),
        (Synced::FileSystem, SyncCounts::file_systems),
        (Synced::Ledger, SyncCounts::ledger),
    ];
    for (what, number) in numbers {
        let counts = Arc::clone(&counts);
        let read = move || Some(number(&counts) as f64);
        metrics.read(&list::MAILDIR_SYNCS, &[what.text()], read);
    }
    let shared = move || Some(counts.shared() as f64);
    metrics.read(&list::MAILDIR_SYNCS_SHARED, &[], shared);
}
