//! A retired mail goes out again.

use postroad_queue_client::{QueueAdmin as _, Resend};
use serde_json::json;

use super::{Admin, find};
use crate::cli::ResendArguments;
use crate::fault::Fault;
use crate::terminal::{Terminal, one_line};

/// Recipients that are named in the line for people.
const NAMED: usize = 5;

/// `postroad queue resend ID`.
pub async fn resend(
    admin: &Admin,
    arguments: ResendArguments,
    terminal: &mut Terminal<'_>,
) -> Result<(), Fault> {
    let id = find(admin, &arguments.id).await?;
    let class = arguments.class.map(Into::into);
    let resent = admin
        .resend(Resend {
            recipients: arguments.to,
            route: class.map(|class| (class, arguments.next_hop)),
            reason: arguments.reason,
            dry_run: arguments.dry_run,
            ..id.into()
        })
        .await?;
    let new = resent.queue_id.map(|id| id.to_string());
    if terminal.wants_json() {
        terminal.object(json!({
            "queue_id": new,
            "resent_of": id.to_string(),
            "recipients": resent.recipients,
            "dry_run": arguments.dry_run,
        }));
        return Ok(());
    }
    let named = resent.recipients.iter().take(NAMED);
    let mut to = named
        .map(|to| one_line(to, 60))
        .collect::<Vec<_>>()
        .join(", ");
    if let Some(more) = resent.recipients.len().checked_sub(NAMED + 1) {
        to.push_str(&format!(" and {} more", more + 1));
    }
    terminal.line(match new {
        Some(new) => format!("{id} is sent again as {new} to {to}"),
        None => format!("{id} can be sent again; it would go to {to}"),
    });
    Ok(())
}
