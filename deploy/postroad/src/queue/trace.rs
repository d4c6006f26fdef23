//! What happened to a mail, and what happens to it now.

use std::time::Duration;

use futures::StreamExt as _;
use postroad_envelope::{Event, EventKind, QueueId};
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

/// `postroad trace`.
pub async fn trace(
    admin: &dyn QueueAdmin,
    arguments: TraceArguments,
    terminal: &mut Terminal<'_>,
) -> Result<(), Fault> {
    let what = Subject::of(admin, arguments.what.as_deref()).await?;
    if arguments.follow {
        return follow(admin, what, arguments.kind, terminal).await;
    }
    let events = match &what {
        Subject::Mail(id) => admin.trace(*id).await,
        Subject::Named(text) => admin.trace_by(text, arguments.limit).await,
        // The command line asks for a mail, unless it is to follow all.
        Subject::All => Ok(Vec::new()),
    };
    let mut events = match events {
        Err(QueueError::NotFound) => Vec::new(),
        told => told?,
    };
    let kinds = &arguments.kind;
    events.retain(|event| kinds.is_empty() || kinds.contains(&event.kind));
    if events.is_empty() {
        let what = arguments.what.unwrap_or_default();
        return Err(Fault::NoMatch(format!("nothing is known of a mail {what}")));
    }
    if terminal.wants_json() {
        let told: Value = events.iter().map(timeline::event_json).collect();
        let mut object = json!({ "events": told });
        if let Subject::Mail(id) = what {
            object["queue_id"] = id.to_string().into();
        }
        terminal.object(object);
        return Ok(());
    }
    tell_mails(&events, matches!(what, Subject::Named(_)), terminal);
    Ok(())
}

/// What is traced.
enum Subject {
    Mail(QueueId),
    /// A Message-ID or a recipient.
    Named(String),
    All,
}

impl Subject {
    async fn of(admin: &dyn QueueAdmin, what: Option<&str>) -> Result<Self, Fault> {
        Ok(match what {
            None => Self::All,
            Some(text) if text.contains('@') => Self::Named(text.to_owned()),
            Some(id) => Self::Mail(find(admin, id).await?),
        })
    }
}

fn tell_mails(events: &[Event], with_ids: bool, terminal: &mut Terminal<'_>) {
    let mails = events.chunk_by(|one, next| one.queue_id == next.queue_id);
    for (at, mail) in mails.enumerate() {
        if let (true, Some(first)) = (with_ids, mail.first()) {
            let gap = if at > 0 { "\n" } else { "" };
            terminal.line(format_args!("{gap}MAIL {}", first.queue_id));
        }
        terminal.line(timeline::of_events(mail));
    }
}

/// Tells what is known of these mails, then what happens to them, until someone interrupts it. Of all mails it tells what
/// happens from now on.
async fn follow(
    admin: &dyn QueueAdmin,
    what: Subject,
    kinds: Vec<EventKind>,
    terminal: &mut Terminal<'_>,
) -> Result<(), Fault> {
    let several = !matches!(what, Subject::Mail(_));
    let (ids, text) = match what {
        Subject::Mail(id) => (vec![id], None),
        Subject::Named(text) => (Vec::new(), Some(text)),
        Subject::All => (Vec::new(), None),
    };
    let mut query = WatchQuery {
        ids,
        text,
        kinds,
        after: None,
    };
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
