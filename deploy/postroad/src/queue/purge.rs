//! Retired mails are forgotten for good.

use std::time::{Duration, Instant};

use postroad_queue_client::{Changed, MailState, Order, QueueAdmin as _};
use serde_json::json;
use tokio::time::interval;

use super::Admin;
use super::change::{count, order};
use crate::cli::DestroyArguments;
use crate::fault::Fault;
use crate::terminal::Terminal;

/// `postroad queue purge`.
pub async fn purge(
    admin: &Admin,
    arguments: DestroyArguments,
    terminal: &mut Terminal<'_>,
) -> Result<(), Fault> {
    let mut order = order(admin, arguments.change).await?;
    if order.filter.state.is_none() {
        order.filter.state = Some(MailState::Retired);
    }
    let trial = Order {
        dry_run: true,
        ..order.clone()
    };
    let found = admin.purge(trial).await?;
    if found.mails == 0 {
        return Err(Fault::NoMatch("no retired mail fits".to_owned()));
    }
    if order.dry_run {
        return tell(found, true, terminal);
    }
    if !arguments.yes && found.mails > 1 {
        let mails = count(found.mails);
        terminal.confirm(&format!(
            "Purge {mails}? Nothing of them can be had back, nor sent again."
        ))?;
    }
    let begun = Instant::now();
    let mut tick = interval(Duration::from_secs(1));
    tick.tick().await;
    let mut purging = admin.purge(order);
    let purged = loop {
        tokio::select! {
            purged = &mut purging => break purged,
            _ = tick.tick() => terminal.progress(format_args!(
                "purging {}, {} s", count(found.mails), begun.elapsed().as_secs()
            )),
        }
    };
    terminal.clear_progress();
    tell(purged?, false, terminal)
}

fn tell(purged: Changed, dry_run: bool, terminal: &mut Terminal<'_>) -> Result<(), Fault> {
    let Changed { mails, busy } = purged;
    if terminal.wants_json() {
        terminal.object(json!({ "mails": mails, "busy": busy, "dry_run": dry_run }));
        return Ok(());
    }
    let would = if dry_run { "would be " } else { "" };
    terminal.line(format_args!("{} {would}purged", count(mails)));
    if busy > 0 {
        let why = "still in the queue: drop it first, then purge it";
        terminal.say(format_args!("{} {why}", count(busy)));
    }
    Ok(())
}
