//! `postroad queue …`: the mails in the queue, over its admin socket.

mod show;

use std::path::Path;

use comfy_table::Cell;
use postroad_envelope::{QueueId, QueueIdPrefix};
use postroad_queue_client::{
    ListPage, ListQuery, MailState, MailSummary, QueueAdmin, RemoteAdmin, Selection,
};
use serde_json::json;

use crate::cli::{ListArguments, QueueVerb, SelectionArguments};
use crate::fault::Fault;
use crate::home::Home;
use crate::runtime;
use crate::terminal::{Terminal, lines, local_time, number, one_line, table, utc_time};

/// Most mails on a page the queue gives.
const PAGE: u32 = 1000;

/// Carries out the verb.
pub fn carry_out(
    verb: QueueVerb,
    config: Option<&Path>,
    terminal: &mut Terminal<'_>,
) -> Result<(), Fault> {
    let home = Home::open(config, terminal)?;
    runtime()?.block_on(async {
        let admin = connect(&home)?;
        match verb {
            QueueVerb::List(arguments) => list(&admin, arguments, terminal).await,
            QueueVerb::Show { id, content } => {
                let id = find(&admin, &id).await?;
                show::show(&admin, &home, id, content, terminal).await
            }
            QueueVerb::Trace { id } => {
                let id = find(&admin, &id).await?;
                show::trace(&admin, id, terminal).await
            }
            QueueVerb::Retry(which) => change(&admin, Change::Retry, which, true, terminal).await,
            QueueVerb::Hold(which) => change(&admin, Change::Hold, which, true, terminal).await,
            QueueVerb::Release(which) => {
                change(&admin, Change::Release, which, true, terminal).await
            }
            QueueVerb::Drop { which, yes } => {
                change(&admin, Change::Drop, which, yes, terminal).await
            }
        }
    })
}

/// The operators' side of the queue of an installation. Must be called in a runtime.
fn connect(home: &Home) -> Result<RemoteAdmin, Fault> {
    let queued: postroad_queued::Config = home.file.section("queued")?;
    let endpoint = queued.admin_endpoint(&home.common);
    let by = format!("uid {}", rustix::process::getuid().as_raw());
    RemoteAdmin::connect(&endpoint, home.common.tls.as_ref(), by).map_err(Fault::not_done)
}

async fn find(admin: &dyn QueueAdmin, text: &str) -> Result<QueueId, Fault> {
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    let prefix: QueueIdPrefix = text.parse().map_err(|_| {
        Fault::Usage(format!(
            "{text} is no queue id, nor the first 8 or more characters of one"
        ))
    })?;
    admin
        .find(prefix)
        .await
        .map_err(|error| match Fault::from(error) {
            Fault::NoMatch(_) => Fault::NoMatch(format!("there is no mail {text} in the queue")),
            other => other,
        })
}

async fn list(
    admin: &dyn QueueAdmin,
    arguments: ListArguments,
    terminal: &mut Terminal<'_>,
) -> Result<(), Fault> {
    let after = match &arguments.after {
        Some(text) => Some(find(admin, text).await?),
        None => None,
    };
    let query = ListQuery {
        destination: arguments.destination,
        sender: arguments.sender.map(|sender| {
            sender
                .mailbox()
                .map_or_else(String::new, |mailbox| mailbox.folded())
        }),
        state: arguments.state.map(Into::into),
        after,
        limit: arguments.limit,
    };
    let page = admin.list(query).await?;
    if terminal.wants_json() {
        let mails: Vec<_> = page.mails.iter().map(summary_json).collect();
        terminal.object(json!({ "mails": mails, "next": page.next.map(|id| id.to_string()) }));
        return Ok(());
    }
    tell_page(&page, terminal);
    Ok(())
}

fn tell_page(page: &ListPage, terminal: &mut Terminal<'_>) {
    if page.mails.is_empty() {
        terminal.say("no such mail in the queue");
        return;
    }
    let mut rows = table([
        "ID",
        "STATE",
        "RECEIVED",
        "FROM",
        "TO",
        "SIZE",
        "NEXT ATTEMPT",
        "REASON",
    ]);
    for mail in &page.mails {
        rows.add_row([
            Cell::new(mail.queue_id),
            Cell::new(mail.state.as_str()),
            Cell::new(local_time(mail.received_at)),
            Cell::new(one_line(sender(mail), 40)),
            Cell::new(recipients(mail)),
            number(mail.size),
            Cell::new(mail.next_attempt.map_or_else(String::new, local_time)),
            Cell::new(one_line(&mail.reason, 60)),
        ]);
    }
    terminal.line(lines(&rows));
    if let Some(next) = page.next {
        terminal.say(format_args!("there are more; go on with --after {next}"));
    }
}

fn sender(mail: &MailSummary) -> &str {
    match mail.sender.as_str() {
        "" => "<>",
        sender => sender,
    }
}

fn recipients(mail: &MailSummary) -> String {
    match mail.open_recipients.as_slice() {
        [] => String::new(),
        [only] => one_line(only, 40),
        [first, rest @ ..] => format!("{} and {} more", one_line(first, 40), rest.len()),
    }
}

fn summary_json(mail: &MailSummary) -> serde_json::Value {
    json!({
        "queue_id": mail.queue_id.to_string(),
        "state": mail.state.as_str(),
        "received_at": utc_time(mail.received_at),
        "size": mail.size,
        "mail_from": mail.sender,
        "open_recipients": mail.open_recipients,
        "next_attempt": mail.next_attempt.map(utc_time),
        "reason": mail.reason,
    })
}

#[derive(Debug, Clone, Copy)]
enum Change {
    Retry,
    Hold,
    Release,
    Drop,
}

impl Change {
    const fn done(self) -> &'static str {
        match self {
            Self::Retry => "due now",
            Self::Hold => "held",
            Self::Release => "released",
            Self::Drop => "dropped",
        }
    }
}

/// Changes what was selected; `sure`: without asking.
async fn change(
    admin: &dyn QueueAdmin,
    change: Change,
    which: SelectionArguments,
    sure: bool,
    terminal: &mut Terminal<'_>,
) -> Result<(), Fault> {
    let selection = select(admin, which).await?;
    if !sure {
        let (count, more) = count(admin, &selection).await?;
        if count > 1 {
            let many = if more { "more than " } else { "" };
            terminal.confirm(&format!(
                "Drop {many}{count} mails? Their senders are not told."
            ))?;
        }
    }
    let mails = match change {
        Change::Retry => admin.retry(selection).await?,
        Change::Hold => admin.hold(selection).await?,
        Change::Release => admin.release(selection).await?,
        Change::Drop => admin.drop_mails(selection).await?,
    };
    if mails == 0 {
        return Err(Fault::NoMatch("no mail fits".to_owned()));
    }
    if terminal.wants_json() {
        terminal.object(json!({ "mails": mails }));
    } else {
        let s = if mails == 1 { "" } else { "s" };
        terminal.line(format_args!("{mails} mail{s} {}", change.done()));
    }
    Ok(())
}

async fn select(admin: &dyn QueueAdmin, which: SelectionArguments) -> Result<Selection, Fault> {
    if which.all {
        return Ok(Selection::All);
    }
    if let Some(destination) = which.destination {
        return Ok(Selection::Destination(destination));
    }
    let mut ids = Vec::with_capacity(which.ids.len());
    for text in &which.ids {
        ids.push(find(admin, text).await?);
    }
    Ok(Selection::Ids(ids))
}

/// How many mails these are, and whether there are more than one page tells.
async fn count(admin: &dyn QueueAdmin, selection: &Selection) -> Result<(usize, bool), Fault> {
    let destination = match selection {
        Selection::Ids(ids) => return Ok((ids.len(), false)),
        Selection::Destination(destination) => Some(destination.clone()),
        Selection::All => None,
    };
    let page = admin
        .list(ListQuery {
            destination,
            limit: PAGE,
            ..ListQuery::default()
        })
        .await?;
    Ok((page.mails.len(), page.next.is_some()))
}

/// The state as it is typed.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum StateArgument {
    /// Waiting for a worker
    Due,
    /// A worker has it
    Leased,
    /// Waiting for its next attempt
    Delayed,
    /// Kept until released
    Held,
}

impl From<StateArgument> for MailState {
    fn from(state: StateArgument) -> Self {
        match state {
            StateArgument::Due => Self::Due,
            StateArgument::Leased => Self::Leased,
            StateArgument::Delayed => Self::Delayed,
            StateArgument::Held => Self::Held,
        }
    }
}
