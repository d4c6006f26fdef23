//! `postroad send`: a mail from an account of the demo.

use std::io::Read;
use std::path::Path;

use postroad_address::Mailbox;
use postroad_smtp_session::RecipientResult;
use serde_json::json;

use crate::cli::SendArguments;
use crate::compose::{compose, with_crlf};
use crate::fault::Fault;
use crate::home::{DemoAccount, DemoCard, choose, last_demo};
use crate::runtime;
use crate::submit::{Submitted, submit};
use crate::terminal::{Terminal, one_line};

/// Carries out the verb.
pub fn carry_out(
    arguments: &SendArguments,
    config: Option<&Path>,
    terminal: &mut Terminal<'_>,
) -> Result<(), Fault> {
    let last = last_demo();
    let demo = match config {
        Some(_) => choose(config, None).1,
        None => last,
    };
    let demo = demo.ok_or_else(|| {
        Fault::NotDone("there is no demo to send with; start one with `postroad run --demo`, or use a mail program".to_owned())
    })?;
    let account = account(&demo, arguments.from.as_deref())?;
    let to: Vec<Mailbox> = match arguments.to.as_slice() {
        [] => vec![address(&demo, "bob")?],
        to => to
            .iter()
            .map(|to| address(&demo, to))
            .collect::<Result<_, _>>()?,
    };
    let sender = Mailbox::parse(&account.address).map_err(Fault::not_done)?;
    let content = content(arguments, &sender, &to)?;
    let submitted = runtime()?.block_on(submit(&demo, account, &to, &content))?;
    tell(&submitted, terminal)
}

fn account<'a>(demo: &'a DemoCard, from: Option<&str>) -> Result<&'a DemoAccount, Fault> {
    let wanted = address(demo, from.unwrap_or("alice"))?.folded();
    demo.accounts
        .iter()
        .find(|account| account.address == wanted)
        .ok_or_else(|| {
            let all: Vec<&str> = demo
                .accounts
                .iter()
                .map(|account| account.address.as_str())
                .collect();
            Fault::NoMatch(format!(
                "{wanted} is no account of the demo; there are {}",
                all.join(", ")
            ))
        })
}

/// An address, or the local part of one in the demo's domain.
fn address(demo: &DemoCard, text: &str) -> Result<Mailbox, Fault> {
    let whole = if text.contains('@') {
        text.to_owned()
    } else {
        format!("{text}@{}", demo.domain)
    };
    Mailbox::parse(&whole).map_err(|error| Fault::Usage(format!("{text} is no address: {error}")))
}

fn content(arguments: &SendArguments, sender: &Mailbox, to: &[Mailbox]) -> Result<Vec<u8>, Fault> {
    if let Some(file) = &arguments.file {
        let mail = std::fs::read(file)
            .map_err(|error| Fault::NotDone(format!("{}: {error}", file.display())))?;
        return Ok(with_crlf(&mail));
    }
    let text = match arguments.text.as_deref() {
        Some("-") => {
            let mut text = String::new();
            std::io::stdin()
                .read_to_string(&mut text)
                .map_err(Fault::not_done)?;
            text
        }
        Some(text) => text.to_owned(),
        None => "Sent with `postroad send`.".to_owned(),
    };
    Ok(compose(sender, to, &arguments.subject, &text))
}

fn tell(submitted: &Submitted, terminal: &mut Terminal<'_>) -> Result<(), Fault> {
    let told: Vec<(String, bool, String)> = submitted
        .results
        .iter()
        .map(|(mailbox, result)| match result {
            RecipientResult::Accepted(reply) => (mailbox.to_string(), true, reply.to_string()),
            RecipientResult::Refused { reply, .. } => {
                (mailbox.to_string(), false, reply.to_string())
            }
            RecipientResult::Unfit { text, .. } => (mailbox.to_string(), false, (*text).to_owned()),
        })
        .collect();
    if terminal.wants_json() {
        let recipients: Vec<_> = told
            .iter()
            .map(|(rcpt_to, accepted, reply)| json!({ "rcpt_to": rcpt_to, "accepted": accepted, "reply": reply }))
            .collect();
        terminal.object(json!({
            "queue_id": submitted.queue_id.map(|id| id.to_string()),
            "recipients": recipients,
        }));
    } else {
        for (mailbox, _, reply) in &told {
            terminal.line(format_args!("{mailbox}  {}", one_line(reply, 120)));
        }
    }
    match told.iter().all(|(_, accepted, _)| *accepted) {
        true => Ok(()),
        false => Err(Fault::Told),
    }
}
