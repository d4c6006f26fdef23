//! TLS: files in, configurations out; the only place that builds them.

pub mod client;
pub mod dane;
pub mod files;
pub mod info;
pub mod neighbour;
pub mod revoked;
pub mod server;
pub mod signatures;
pub mod verify;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustls::SupportedProtocolVersion;
use rustls::crypto::{CryptoProvider, ring};
use rustls::version::{TLS12, TLS13};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::error;

use files::Facts;

/// RFC 8996 retired TLS 1.0 and 1.1.
const VERSIONS: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

/// How often files of certificates are looked at.
pub const CERTIFICATE_WATCH: Duration = Duration::from_secs(10);
/// How often a certificate that soon runs out is told of.
const WARN_EVERY: Duration = Duration::from_secs(24 * 3600);

/// Certificates that are read again when their files change.
trait Reloads: Clone + Send + 'static {
    /// Whether there was a change that was taken up. On an error the old ones stay in use. Blocks.
    fn reload_if_changed(&self) -> Result<bool, crate::Error>;

    /// What is told of those in use.
    fn facts(&self) -> Vec<Facts>;

    /// How long before the end of one it is told of.
    fn warn_before(&self) -> Duration;

    /// Warns of those that soon run out.
    fn warn(&self) {
        let before = self.warn_before();
        self.facts().iter().for_each(|facts| facts.warn(before));
    }

    /// Tells what was taken up.
    fn announce(&self) {
        self.facts().iter().for_each(Facts::announce);
    }

    /// Takes up a change, and tells of it.
    fn refresh(&self) {
        match self.reload_if_changed() {
            Ok(true) => {
                self.announce();
                self.warn();
            }
            Ok(false) => {}
            Err(error) => error!(event = "reload_failed", "the old ones stay in use: {error}"),
        }
    }
}

/// Looks at the files `every` so often until `shutdown`.
async fn watch(tls: impl Reloads, every: Duration, shutdown: CancellationToken) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut warned: Option<Instant> = None;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let this = tls.clone();
        // It panics only by a fault of ours, and then the next look is as good.
        let _ = spawn_blocking(move || this.refresh()).await;
        if warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
            tls.warn();
            warned = Some(Instant::now());
        }
    }
}

/// How long before the end of a certificate it is told of, unless told otherwise.
const WARN_BEFORE: Duration = Duration::from_secs(14 * 24 * 3600);

/// The same, as it is configured; shared by clones.
#[derive(Debug)]
struct WarnBefore(AtomicU64);

impl Default for WarnBefore {
    fn default() -> Self {
        Self(AtomicU64::new(WARN_BEFORE.as_secs()))
    }
}

impl WarnBefore {
    fn set(&self, before: Duration) {
        self.0.store(before.as_secs(), Ordering::Relaxed);
    }

    fn current(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::Relaxed))
    }
}

/// Of several the one that runs out first.
fn first_end(facts: &[Facts]) -> Option<i64> {
    facts.iter().map(Facts::seconds_left).min()
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn config_error(error: impl ToString) -> crate::Error {
    crate::Error::Tls(error.to_string())
}

#[cfg(test)]
mod tests;
