//! `postroad queue export` and `import`: mail out of a queue that does not run, and into one that does.

use std::ops::ControlFlow;
use std::path::Path;

use futures::{StreamExt as _, stream};
use postroad_envelope::{Filter, QueueIdPrefix};
use postroad_queue_client::{ImportedMail, QueueAdmin as _, QueueError};
use postroad_queued::Offline;
use postroad_queued::export::{Export, ExportError, Mail, Which};
use serde_json::json;

use super::{Admin, stopped};
use crate::cli::{ExportArguments, FolderArguments, ImportArguments};
use crate::fault::Fault;
use crate::progress::Progress;
use crate::terminal::{Terminal, one_line};

/// Mails on their way into the queue at one time.
const AT_ONCE: usize = 32;
/// Mails whose fault is told one by one.
const MOST_TOLD: usize = 1_000;

impl From<ExportError> for Fault {
    fn from(error: ExportError) -> Self {
        Self::not_done(error)
    }
}

/// `postroad queue export --to DIR`. Needs no running queue.
pub fn export(
    arguments: ExportArguments,
    config: Option<&Path>,
    terminal: &mut Terminal<'_>,
) -> Result<(), Fault> {
    let ExportArguments {
        ids,
        parts,
        data,
        to,
    } = arguments;
    let which = which(&ids, parts.filter())?;
    let place = FolderArguments {
        offline: true,
        data,
    };
    let folder = stopped::meant(&place, config, terminal)?;
    let offline = Offline::open(&folder).map_err(stopped::not_done)?;
    let mut bar = Progress::new();
    let exported = offline.export(&to, &which, &mut |at| {
        bar.at(at.done, at.total, &format!("{} mails", at.mails));
        ControlFlow::Continue(())
    });
    bar.clear();
    let exported = exported.map_err(stopped::not_done)?;
    if terminal.wants_json() {
        terminal.object(json!({
            "folder": to.display().to_string(),
            "mails": exported.mails,
            "octets": exported.octets,
            "problems": exported.problems,
            "problem_count": exported.problem_count,
        }));
    } else {
        for problem in &exported.problems {
            terminal.say(one_line(problem, 1_000));
        }
        terminal.line(format_args!(
            "{} with {} octets are in {}",
            count(exported.mails),
            exported.octets,
            to.display()
        ));
    }
    match exported.problem_count {
        0 => Ok(()),
        problems => {
            terminal.say(format_args!(
                "not all could be read: {problems} problems; what is not named is whole"
            ));
            Err(Fault::Told)
        }
    }
}

/// Ids cannot be looked up here, so their beginnings are compared.
fn which(ids: &[String], filter: Filter) -> Result<Which, Fault> {
    let prefix = |text: &String| {
        let parsed: Result<QueueIdPrefix, _> = text.parse();
        parsed.map_err(|_| {
            Fault::Usage(format!(
                "{text} is no queue id, nor the first 8 or more characters of one"
            ))
        })
    };
    // A queue that is to be saved is saved whole unless something is said.
    let all = filter.is_empty();
    Ok(Which {
        filter: Filter { all, ..filter }.folded(),
        prefixes: ids.iter().map(prefix).collect::<Result<_, _>>()?,
    })
}

/// What became of the mails of an import.
#[derive(Default)]
struct Counts {
    imported: u64,
    known: u64,
    refused: Vec<(String, String)>,
    refused_count: u64,
}

impl Counts {
    fn refuse(&mut self, id: String, why: String) {
        self.refused_count += 1;
        if self.refused.len() < MOST_TOLD {
            self.refused.push((id, why));
        }
    }

    fn done(&self) -> u64 {
        self.imported + self.known + self.refused_count
    }
}

/// `postroad queue import DIR`.
pub async fn import(
    admin: &Admin,
    arguments: &ImportArguments,
    terminal: &mut Terminal<'_>,
) -> Result<(), Fault> {
    admin.only()?;
    let mut export = Export::open(&arguments.from)?;
    let (mut counts, mut bar) = (Counts::default(), Progress::new());
    let ended = import_all(admin, arguments, &mut export, &mut counts, &mut bar).await;
    bar.clear();
    tell(arguments, &counts, terminal);
    if let Err(fault) = ended {
        return Err(Fault::NotDone(format!(
            "{fault}; {} of {} mails were done. Import again: what is in the queue already is known",
            counts.done(),
            export.mails
        )));
    }
    match counts.refused_count {
        0 => Ok(()),
        _ => Err(Fault::Told),
    }
}

async fn import_all(
    admin: &Admin,
    arguments: &ImportArguments,
    export: &mut Export,
    counts: &mut Counts,
    bar: &mut Progress,
) -> Result<(), Fault> {
    let total = export.mails;
    let mut under_way = stream::FuturesUnordered::new();
    let mut is_end = false;
    loop {
        while !is_end && under_way.len() < AT_ONCE {
            let Some(mail) = export.next_mail()? else {
                is_end = true;
                break;
            };
            match mail.and_then(|mail| Ok((ready(&mail, arguments)?, mail))) {
                Ok((ready, mail)) => {
                    let content = export.content(&mail);
                    let importing = admin.import(ready, content);
                    under_way.push(async move { (mail.queue_id().to_owned(), importing.await) });
                }
                Err(why) => counts.refuse(String::new(), why),
            }
        }
        let Some((id, outcome)) = under_way.next().await else {
            return Ok(());
        };
        match outcome {
            Ok(false) => counts.imported += 1,
            Ok(true) => counts.known += 1,
            // All that follow would meet the same.
            Err(
                error @ (QueueError::Unavailable(_)
                | QueueError::Full(_)
                | QueueError::NotAllowed(_)
                | QueueError::Unsupported(_)),
            ) => return Err(error.into()),
            Err(error) => counts.refuse(id, error.to_string()),
        }
        bar.at(counts.done(), total, &format!("{} mails", counts.done()));
    }
}

fn ready(mail: &Mail, arguments: &ImportArguments) -> Result<ImportedMail, String> {
    let imported = mail.imported();
    let mut imported = imported.map_err(|unfit| format!("mail {}: {unfit}", mail.queue_id()))?;
    imported.dry_run = arguments.dry_run;
    if arguments.hold {
        for recipient in &mut imported.recipients {
            recipient.hold.get_or_insert_with(|| "imported".to_owned());
        }
    }
    Ok(imported)
}

fn tell(arguments: &ImportArguments, counts: &Counts, terminal: &mut Terminal<'_>) {
    if terminal.wants_json() {
        let refused = counts.refused.iter();
        let refused = refused.map(|(id, why)| json!({ "queue_id": id, "why": why }));
        terminal.object(json!({
            "imported": counts.imported,
            "known": counts.known,
            "refused": refused.collect::<Vec<_>>(),
            "refused_count": counts.refused_count,
            "dry_run": arguments.dry_run,
        }));
        return;
    }
    for (id, why) in &counts.refused {
        terminal.say(one_line(&format!("{id} {why}"), 1_000));
    }
    let would = if arguments.dry_run { "would be " } else { "" };
    terminal.line(format_args!(
        "{} {would}imported, {} known already, {} refused",
        count(counts.imported),
        counts.known,
        counts.refused_count
    ));
}

fn count(mails: u64) -> String {
    let s = if mails == 1 { "" } else { "s" };
    format!("{mails} mail{s}")
}
