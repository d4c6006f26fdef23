//! What is done to mails.

use postroad_queue_client::{Change, Changed, Order};
use serde_json::json;

use super::{Admin, parts};
use crate::cli::{ChangeArguments, DestroyArguments, RetryArguments};
use crate::fault::Fault;
use crate::terminal::Terminal;

/// Changes what was selected.
pub async fn carry(
    admin: &Admin,
    change: Change,
    arguments: ChangeArguments,
    terminal: &mut Terminal<'_>,
) -> Result<(), Fault> {
    let order = order(admin, arguments).await?;
    give(admin, change, order, terminal).await
}

/// Has mails tried now.
pub async fn retry(
    admin: &Admin,
    arguments: RetryArguments,
    terminal: &mut Terminal<'_>,
) -> Result<(), Fault> {
    let ChangeArguments {
        which,
        dry_run,
        reason,
    } = arguments.change;
    let filter = which.filter_at(arguments.site, admin).await?;
    let order = Order {
        dry_run,
        reason,
        ..filter.into()
    };
    give(admin, Change::Retry, order, terminal).await
}

/// The same, where it ends mails: asks first if it is more than one.
pub async fn destroy(
    admin: &Admin,
    change: Change,
    arguments: DestroyArguments,
    terminal: &mut Terminal<'_>,
) -> Result<(), Fault> {
    let order = order(admin, arguments.change).await?;
    if !arguments.yes && !order.dry_run {
        let trial = Order {
            dry_run: true,
            ..order.clone()
        };
        let Changed { mails, .. } = parts::carry_out(admin, &change, trial, terminal).await?;
        if mails > 1 {
            terminal.confirm(&question(&change, mails))?;
        }
    }
    give(admin, change, order, terminal).await
}

fn question(change: &Change, mails: u64) -> String {
    match change {
        Change::Drop => format!("Drop {mails} mails? Their senders are not told."),
        _ => format!("Give up {mails} mails? Their senders get reports."),
    }
}

async fn give(
    admin: &Admin,
    change: Change,
    order: Order,
    terminal: &mut Terminal<'_>,
) -> Result<(), Fault> {
    let dry_run = order.dry_run;
    let Changed { mails, busy } = parts::carry_out(admin, &change, order, terminal).await?;
    let passed = "with a worker now: try again when their attempts are over";
    if mails == 0 {
        return Err(Fault::NoMatch(match busy {
            0 => "no mail fits".to_owned(),
            _ => format!("{} {passed}", count(busy)),
        }));
    }
    if terminal.wants_json() {
        terminal.object(json!({ "mails": mails, "busy": busy, "dry_run": dry_run }));
        return Ok(());
    }
    let would = if dry_run { "would be " } else { "" };
    terminal.line(format_args!("{} {would}{}", count(mails), done(&change)));
    if busy > 0 {
        terminal.say(format_args!("{} {passed}", count(busy)));
    }
    Ok(())
}

pub(super) fn count(mails: u64) -> String {
    let s = if mails == 1 { "" } else { "s" };
    format!("{mails} mail{s}")
}

const fn done(change: &Change) -> &'static str {
    match change {
        Change::Retry => "due now",
        Change::Hold => "held",
        Change::Release => "released",
        Change::Fail | Change::Expire => "given up",
        Change::Drop => "dropped",
        Change::Reroute { .. } => "rerouted",
        Change::Priority(_) => "given another priority",
    }
}

pub(super) async fn order(admin: &Admin, arguments: ChangeArguments) -> Result<Order, Fault> {
    Ok(Order {
        dry_run: arguments.dry_run,
        reason: arguments.reason,
        ..arguments.which.filter(admin).await?.into()
    })
}
