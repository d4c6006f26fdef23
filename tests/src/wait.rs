//! Waiting for what other processes do, where there is no event to await.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep};

/// Longer than any step takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);
const INTERVAL: Duration = Duration::from_millis(10);

/// Looks again and again until there is something to return; `what` completes "no … within 60 s".
pub async fn wait_for<T>(what: &str, look: impl AsyncFnMut() -> Option<T>) -> Result<T> {
    wait_for_within(PATIENCE, what, look).await
}

/// The same with another deadline.
pub async fn wait_for_within<T>(
    patience: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = look().await {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            bail!("no {what} within {} s", patience.as_secs());
        }
        sleep(INTERVAL).await;
    }
}
