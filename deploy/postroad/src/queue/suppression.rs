//! Recipients to whom mail is not tried.

use std::time::SystemTime;

use comfy_table::Cell;
use postroad_envelope::{Suppression, Timestamp};
use postroad_queue_client::{QueueAdmin as _, QueueError};
use serde_json::{Value, json};

use super::Admin;
use crate::cli::SuppressionVerb;
use crate::fault::Fault;
use crate::terminal::{Terminal, lines, local_time, one_line, table, utc_time};

/// `postroad queue suppression …`.
pub async fn carry_out(
    admin: &Admin,
    verb: SuppressionVerb,
    terminal: &mut Terminal<'_>,
) -> Result<(), Fault> {
    match verb {
        SuppressionVerb::List => list(admin, terminal).await,
        SuppressionVerb::Add {
            address,
            tenant,
            account,
            reason,
            time,
        } => {
            let now = Timestamp::from(SystemTime::now());
            let one = Suppression {
                address: address.folded(),
                tenant,
                account,
                since: now,
                until: time.map(|time| now.plus(time.as_duration())),
                reason,
                by: String::new(),
            };
            add(admin, one, terminal).await
        }
        SuppressionVerb::Release {
            address,
            tenant,
            account,
        } => {
            let (address, tenant) = (address.folded(), tenant.unwrap_or_default());
            release(admin, &address, &tenant, account.as_deref(), terminal).await
        }
    }
}

async fn add(admin: &Admin, one: Suppression, terminal: &mut Terminal<'_>) -> Result<(), Fault> {
    let (address, until) = (one.address.clone(), one.until);
    admin.put_suppression(one).await?;
    if terminal.wants_json() {
        terminal.object(json!({ "address": address, "until": until.map(utc_time) }));
    } else {
        terminal.line(format_args!("mail to {address} is not tried from now on"));
    }
    Ok(())
}

async fn release(
    admin: &Admin,
    address: &str,
    tenant: &str,
    account: Option<&str>,
    terminal: &mut Terminal<'_>,
) -> Result<(), Fault> {
    let released = admin.release_suppression(address, tenant, account, "");
    let entries = match released.await {
        Err(QueueError::NotFound) => {
            let why = format!("{address} is not on the suppression list");
            return Err(Fault::NoMatch(why));
        }
        released => released?,
    };
    if terminal.wants_json() {
        terminal.object(json!({ "address": address, "entries": entries }));
    } else {
        terminal.line(format_args!("mail to {address} is tried again"));
    }
    Ok(())
}

async fn list(admin: &Admin, terminal: &mut Terminal<'_>) -> Result<(), Fault> {
    let entries = admin.suppressions().await?;
    if terminal.wants_json() {
        let entries: Vec<Value> = entries.iter().map(entry_json).collect();
        terminal.object(json!({ "suppressions": entries }));
        return Ok(());
    }
    if entries.is_empty() {
        terminal.say("the suppression list is empty");
        return Ok(());
    }
    let mut rows = table(["TO", "MAIL OF", "SINCE", "UNTIL", "BY", "REASON"]);
    for one in &entries {
        let whose = match &one.account {
            Some(account) => format!("{account} ({})", one.tenant),
            None => one.tenant.clone(),
        };
        rows.add_row([
            Cell::new(one_line(&one.address, 50)),
            Cell::new(one_line(&whose, 40)),
            Cell::new(local_time(one.since)),
            Cell::new(one.until.map_or_else(String::new, local_time)),
            Cell::new(one_line(&one.by, 30)),
            Cell::new(one_line(&one.reason, 60)),
        ]);
    }
    terminal.line(lines(&rows));
    Ok(())
}

fn entry_json(one: &Suppression) -> Value {
    json!({
        "address": one.address,
        "tenant": one.tenant,
        "account": one.account,
        "since": utc_time(one.since),
        "until": one.until.map(utc_time),
        "reason": one.reason,
        "by": one.by,
    })
}
