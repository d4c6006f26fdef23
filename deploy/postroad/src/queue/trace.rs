//! What happened to a mail, and what happens to it now.

use std::time::Duration;

use futures::StreamExt as _;
use postroad_envelope::{Event, QueueId};
use postroad_queue_client::{Cursor, QueueAdmin, QueueError, WatchQuery};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::find;
use crate::cli::TraceArguments;
use crate::fault::Fault;
use crate::terminal::{Terminal, local_clock, one_line};
use crate::timeline;

/// How long a queue that is away is left alone.
const AGAIN: Duration = Duration::from_secs(1);

/// `postroad queue trace`.
pub async fn trace(
    admin: &dyn QueueAdmin,
    arguments: TraceArguments,
    terminal: &mut Terminal<'_>,
) -> Result<(), Fault> {
    let what = &arguments.what;
    let is_text = what.contains('@') && what.parse::<QueueId>().is_err();
    let events = match is_text {
        true => admin.trace_by(what, arguments.limit).await,
        false => admin.trace(find(admin, what).await?).await,
    };
    let events = match events {
        Err(QueueError::NotFound) => Vec::new(),
        told => told?,
    };
    if arguments.follow {
        let mut ids: Vec<QueueId> = events.iter().map(|event| event.queue_id).collect();
        ids.dedup();
        if ids.is_empty() && !is_text {
            ids.push(find(admin, what).await?);
        }
        if !ids.is_empty() {
            return follow(admin, ids, terminal).await;
        }
    }
    if events.is_empty() {
        return Err(Fault::NoMatch(format!("nothing is known of a mail {what}")));
    }
    if terminal.wants_json() {
        let told: Value = events.iter().map(timeline::event_json).collect();
        let mut object = json!({ "events": told });
        if let (false, Some(event)) = (is_text, events.first()) {
            object["queue_id"] = event.queue_id.to_string().into();
        }
        terminal.object(object);
        return Ok(());
    }
    for (at, mail) in events
        .chunk_by(|one, next| one.queue_id == next.queue_id)
        .enumerate()
    {
        if let (true, Some(first)) = (is_text, mail.first()) {
            let gap = if at > 0 { "\n" } else { "" };
            terminal.line(format_args!("{gap}MAIL {}", first.queue_id));
        }
        terminal.line(timeline::of_events(mail));
    }
    Ok(())
}

/// Tells what is known of these mails, then what happens to them, until someone interrupts it.
async fn follow(
    admin: &dyn QueueAdmin,
    ids: Vec<QueueId>,
    terminal: &mut Terminal<'_>,
) -> Result<(), Fault> {
    let several = ids.len() > 1;
    let mut query = WatchQuery { ids, after: None };
    let mut is_away = false;
    loop {
        match heard(admin, &mut query, several, terminal).await {
            Ok(()) | Err(QueueError::Unavailable(_)) => {}
            Err(error) => return Err(error.into()),
        }
        if !std::mem::replace(&mut is_away, true) {
            terminal.say("the queue is away; waiting for it");
        }
        sleep(AGAIN).await;
    }
}

/// Until the stream ends; the query goes on where it ended.
async fn heard(
    admin: &dyn QueueAdmin,
    query: &mut WatchQuery,
    several: bool,
    terminal: &mut Terminal<'_>,
) -> Result<(), QueueError> {
    let mut events = admin.watch(query.clone()).await?;
    while let Some(watched) = events.next().await {
        let watched = watched?;
        query.after = query.after.max(Some(watched.cursor));
        tell(&watched.event, watched.cursor, several, terminal);
    }
    Ok(())
}

fn tell(event: &Event, cursor: Cursor, several: bool, terminal: &mut Terminal<'_>) {
    if terminal.wants_json() {
        let mut object = timeline::event_json(event);
        object["lsn"] = cursor.lsn.into();
        terminal.object(object);
        return;
    }
    let mail = match several {
        true => format!("{}  ", event.queue_id),
        false => String::new(),
    };
    terminal.line(format_args!(
        "{}  {mail}{:<20}  {:<10}  {}",
        local_clock(event.at),
        one_line(&event.agent, 30),
        event.kind.as_str(),
        one_line(&event.text, 120),
    ));
}
