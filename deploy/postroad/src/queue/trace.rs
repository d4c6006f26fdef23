//! What happened to a mail, and what happens to it now.

use std::time::Duration;

use futures::stream::{self, Stream, StreamExt as _, select_all};
use postroad_envelope::{Event, EventKind, QueueId};
use postroad_queue_client::{
    QueueAdmin as _, QueueError, RemoteAdmin, WatchQuery, WatchStream, Watched,
};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{Admin, find};
use crate::cli::TraceArguments;
use crate::fault::Fault;
use crate::terminal::{Terminal, local_clock, one_line};
use crate::timeline;

/// How long a queue that is away is left alone.
const AGAIN: Duration = Duration::from_secs(1);

/// `postroad trace`.
pub async fn trace(
    admin: &Admin,
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
    async fn of(admin: &Admin, what: Option<&str>) -> Result<Self, Fault> {
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
    admin: &Admin,
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
    let query = WatchQuery {
        ids,
        text,
        kinds,
        after: None,
    };
    let each = admin.each().map(|(name, node)| {
        let name = admin.is_several().then_some(name);
        heard(node, query.clone())
            .map(move |heard| (name, heard))
            .boxed()
    });
    let mut heard = select_all(each);
    let mut told_away = Vec::new();
    while let Some((node, heard)) = heard.next().await {
        match heard {
            Ok(Some(watched)) => tell(node, &watched, several, terminal),
            Ok(None) if told_away.contains(&node) => {}
            Ok(None) => {
                let who =
                    node.map_or_else(|| "the queue".to_owned(), |name| format!("node {name}"));
                terminal.say(format_args!("{who} is away; waiting for it"));
                told_away.push(node);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// What one node tells, over any number of streams: events, and nothing where a stream ended or none can be had. It goes on where
/// the last one ended, and ends only by an error.
fn heard(
    node: &RemoteAdmin,
    query: WatchQuery,
) -> impl Stream<Item = Result<Option<Watched>, QueueError>> {
    stream::unfold(
        (query, None::<WatchStream>),
        move |(mut query, events)| async move {
            let mut events = match events {
                Some(events) => events,
                None => match node.watch(query.clone()).await {
                    Ok(events) => events,
                    Err(QueueError::Unavailable(_)) => return away(query).await,
                    Err(error) => return Some((Err(error), (query, None))),
                },
            };
            match events.next().await {
                Some(Ok(watched)) => {
                    query.after = query.after.max(Some(watched.cursor));
                    Some((Ok(Some(watched)), (query, Some(events))))
                }
                None | Some(Err(QueueError::Unavailable(_))) => away(query).await,
                Some(Err(error)) => Some((Err(error), (query, None))),
            }
        },
    )
}

type Heard = (
    Result<Option<Watched>, QueueError>,
    (WatchQuery, Option<WatchStream>),
);

async fn away(query: WatchQuery) -> Option<Heard> {
    sleep(AGAIN).await;
    Some((Ok(None), (query, None)))
}

fn tell(node: Option<&str>, watched: &Watched, several: bool, terminal: &mut Terminal<'_>) {
    let event = &watched.event;
    if terminal.wants_json() {
        let mut object = timeline::event_json(event);
        object["lsn"] = watched.cursor.lsn.into();
        if let Some(node) = node {
            object["node"] = node.into();
        }
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
