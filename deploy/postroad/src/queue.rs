//! `postroad queue …`: the mails in the queue, over its admin socket, or those of all its nodes.

mod backup;
mod change;
mod content;
pub mod counters;
mod export;
pub mod filter;
mod list;
mod nodes;
mod parts;
mod postfix;
mod purge;
mod resend;
mod retired;
mod rule;
mod show;
pub mod sites;
mod stats;
mod stopped;
mod suppression;
mod trace;
pub mod usage;
mod verify;

use std::path::Path;

use change::{carry, destroy, retry};
pub use nodes::Admin;
use postroad_envelope::{QueueId, QueueIdPrefix, RouteClass};
use postroad_queue_client::{Change, MailState, MailSummary, QueueAdmin as _};
use serde_json::json;

use crate::cli::QueueVerb;
use crate::fault::Fault;
use crate::home::Home;
use crate::runtime;
use crate::terminal::{Terminal, one_line, utc_time};

/// Carries out the verb.
pub fn carry_out(
    verb: QueueVerb,
    node: Option<&str>,
    config: Option<&Path>,
    terminal: &mut Terminal<'_>,
) -> Result<(), Fault> {
    // What works without a queue that runs.
    let verb = match verb {
        QueueVerb::Verify(arguments) => return verify::verify(&arguments, node, config, terminal),
        QueueVerb::Rebuild(arguments) => return stopped::rebuild(&arguments, config, terminal),
        QueueVerb::UpgradeFormat { folder, yes } => {
            return stopped::upgrade_format(&folder, yes, config, terminal);
        }
        QueueVerb::Restore(arguments) => return backup::restore(&arguments, terminal),
        QueueVerb::Export(arguments) => return export::export(arguments, config, terminal),
        other => other,
    };
    let home = Home::open(config, terminal)?;
    runtime()?.block_on(async {
        let admin = Admin::open(&home, node)?;
        let carried_out = match verb {
            QueueVerb::Backup { folder } => backup::backup(&admin, &folder, terminal).await,
            // Done above: no queue is asked.
            QueueVerb::Verify(_)
            | QueueVerb::Rebuild(_)
            | QueueVerb::UpgradeFormat { .. }
            | QueueVerb::Restore(_)
            | QueueVerb::Export(_) => Ok(()),
            QueueVerb::Import(arguments) => export::import(&admin, &arguments, terminal).await,
            QueueVerb::List(arguments) => list::list(&admin, arguments, terminal).await,
            QueueVerb::Show { id, content } => {
                let id = find(&admin, &id).await?;
                match content {
                    Some(file) => content::content(&admin, &home, id, &file, terminal).await,
                    None => show::show(&admin, id, terminal).await,
                }
            }
            QueueVerb::Trace(arguments) => trace::trace(&admin, arguments, terminal).await,
            QueueVerb::Stats { limit, by_site } => {
                stats::stats(&admin, limit, by_site, terminal).await
            }
            QueueVerb::Sites(arguments) => sites::sites(&admin, arguments, terminal).await,
            QueueVerb::Lift { name } => sites::lift(&admin, &name, terminal).await,
            QueueVerb::Usage(arguments) => usage::usage(&admin, &arguments, terminal).await,
            QueueVerb::Bans(arguments) => counters::bans(&admin, &arguments, terminal).await,
            QueueVerb::Unban(arguments) => counters::unban(&admin, &arguments, terminal).await,
            QueueVerb::Counters(arguments) => {
                counters::counters(&admin, &arguments, terminal).await
            }
            QueueVerb::ClearCounter { keys } => {
                counters::clear_counters(&admin, keys, terminal).await
            }
            QueueVerb::Rule(verb) => rule::carry_out(&admin, verb, terminal).await,
            QueueVerb::Suppression(verb) => suppression::carry_out(&admin, verb, terminal).await,
            QueueVerb::Retry(arguments) => retry(&admin, arguments, terminal).await,
            QueueVerb::Hold(change) => carry(&admin, Change::Hold, change, terminal).await,
            QueueVerb::Release(change) => carry(&admin, Change::Release, change, terminal).await,
            QueueVerb::Fail(change) => destroy(&admin, Change::Fail, change, terminal).await,
            QueueVerb::Expire(change) => destroy(&admin, Change::Expire, change, terminal).await,
            QueueVerb::Drop(change) => destroy(&admin, Change::Drop, change, terminal).await,
            QueueVerb::Reroute {
                class,
                next_hop,
                change,
            } => {
                let class = class.into();
                carry(
                    &admin,
                    Change::Reroute { class, next_hop },
                    change,
                    terminal,
                )
                .await
            }
            QueueVerb::Purge(arguments) => purge::purge(&admin, arguments, terminal).await,
            QueueVerb::Resend(arguments) => resend::resend(&admin, arguments, terminal).await,
            QueueVerb::Priority { priority, change } => {
                carry(&admin, Change::Priority(priority), change, terminal).await
            }
        };
        admin.end(carried_out, terminal)
    })
}

/// Who types this, as far as it is known: behind sudo the one who called it.
fn person() -> String {
    let named = ["SUDO_USER", "USER", "LOGNAME"].map(std::env::var);
    let named = named
        .into_iter()
        .flatten()
        .find(|name| !name.trim().is_empty());
    named.unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw()))
}

async fn find(admin: &Admin, text: &str) -> Result<QueueId, Fault> {
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

fn summary_json(admin: &Admin, mail: &MailSummary) -> serde_json::Value {
    let mut object = json!({
        "queue_id": mail.queue_id.to_string(),
        "state": mail.state.as_str(),
        "received_at": utc_time(mail.received_at),
        "size": mail.size,
        "mail_from": mail.sender,
        "open_recipients": mail.open_recipients,
        "next_attempt": mail.next_attempt.map(utc_time),
        "reason": mail.reason,
        "tenant": mail.tenant,
        "account": mail.account,
        "tags": mail.tags,
    });
    retired::add_facts(&mut object, mail);
    if let Some(node) = admin.node_of(mail.queue_id) {
        object["node"] = node.into();
    }
    object
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
    /// All done, in the order in which they ended
    Retired,
}

impl From<StateArgument> for MailState {
    fn from(state: StateArgument) -> Self {
        match state {
            StateArgument::Due => Self::Due,
            StateArgument::Leased => Self::Leased,
            StateArgument::Delayed => Self::Delayed,
            StateArgument::Held => Self::Held,
            StateArgument::Retired => Self::Retired,
        }
    }
}

/// The class of a route as it is typed.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum ClassArgument {
    /// To the domain's mail hosts, or to the next hop
    Relay,
    /// To the next hop by LMTP
    Lmtp,
    /// Into the mailboxes of this installation
    Local,
}

impl From<ClassArgument> for RouteClass {
    fn from(class: ClassArgument) -> Self {
        match class {
            ClassArgument::Relay => Self::Relay,
            ClassArgument::Lmtp => Self::Lmtp,
            ClassArgument::Local => Self::Local,
        }
    }
}
