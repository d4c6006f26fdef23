//! What waits for each destination.

use comfy_table::Cell;
use postroad_queue_client::{DestinationStats, QueueAdmin};
use serde_json::{Value, json};

use crate::fault::Fault;
use crate::terminal::{Terminal, lines, local_time, number, one_line, table, utc_time};

/// `postroad queue stats`.
pub async fn stats(
    admin: &dyn QueueAdmin,
    limit: u32,
    terminal: &mut Terminal<'_>,
) -> Result<(), Fault> {
    let stats = admin.stats(limit).await?;
    let shown = &stats.destinations;
    if terminal.wants_json() {
        let destinations: Vec<Value> = shown.iter().map(destination_json).collect();
        terminal.object(json!({ "destinations": destinations, "total": stats.total }));
        return Ok(());
    }
    if shown.is_empty() {
        terminal.say("the queue is empty");
        return Ok(());
    }
    let mut rows = table([
        "DESTINATION",
        "DUE",
        "DELAYED",
        "LEASED",
        "HELD",
        "OLDEST",
        "LAST REPLY",
    ]);
    for one in shown {
        rows.add_row([
            Cell::new(one_line(&one.destination, 50)),
            number(one.due),
            number(one.delayed),
            number(one.leased),
            number(one.held),
            Cell::new(one.oldest.map_or_else(String::new, local_time)),
            Cell::new(one_line(&one.last_reply, 60)),
        ]);
    }
    terminal.line(lines(&rows));
    let more = stats
        .total
        .saturating_sub(u64::try_from(shown.len()).unwrap_or(u64::MAX));
    if more > 0 {
        terminal.say(format_args!("and {more} more destinations with less mail"));
    }
    Ok(())
}

fn destination_json(one: &DestinationStats) -> Value {
    json!({
        "destination": one.destination,
        "due": one.due,
        "delayed": one.delayed,
        "leased": one.leased,
        "held": one.held,
        "oldest": one.oldest.map(utc_time),
        "last_reply": one.last_reply,
    })
}
