//! `postroad queue export` and `import`: mail out of a queue that does not run, and into one that does.

use std::ops::ControlFlow;
use std::path::Path;

use futures::{StreamExt as _, stream};
use postroad_envelope::{Filter, QueueIdPrefix};
use postroad_queue_client::{ContentStream, ImportedMail, QueueAdmin as _, QueueError};
use postroad_queued::Offline;
use postroad_queued::export::{Export, ExportError, Mail, Which};
use serde_json::json;

use super::postfix::PostfixQueue;
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
    /// What of mails could not be taken along.
    remarks: Vec<(String, &'static str)>,
}

/// Where mails come from.
enum Source {
    Export(Export),
    Postfix(PostfixQueue),
}

/// The name of a mail there, and the mail with its content, or why there is none.
type Next = (String, Result<(ImportedMail, ContentStream), String>);

impl Source {
    fn open(arguments: &ImportArguments) -> Result<Self, Fault> {
        let (from, zone) = (&arguments.from, arguments.zone.as_deref());
        match arguments.postfix {
            true => PostfixQueue::open(from, zone).map(Self::Postfix),
            false => Ok(Self::Export(Export::open(from)?)),
        }
    }

    fn mails(&self) -> u64 {
        match self {
            Self::Export(export) => export.mails,
            Self::Postfix(queue) => queue.mails,
        }
    }

    fn next(&mut self, counts: &mut Counts) -> Result<Option<Next>, ExportError> {
        match self {
            Self::Export(export) => Ok(export.next_mail()?.map(|mail| match mail {
                Err(why) => (String::new(), Err(why)),
                Ok(mail) => match imported(&mail) {
                    Ok(ready) => (
                        mail.queue_id().to_owned(),
                        Ok((ready, export.content(&mail))),
                    ),
                    Err(why) => (String::new(), Err(why)),
                },
            })),
            Self::Postfix(queue) => Ok(queue.next_mail().map(|(name, read)| {
                let read = read.map(|(mail, content, remarks)| {
                    let remarks = remarks.into_iter().map(|remark| (name.clone(), remark));
                    counts.remarks.extend(remarks);
                    (mail, content)
                });
                (name, read)
            })),
        }
    }
}

fn imported(mail: &Mail) -> Result<ImportedMail, String> {
    let imported = mail.imported();
    imported.map_err(|unfit| format!("mail {}: {unfit}", mail.queue_id()))
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
    let mut source = Source::open(arguments)?;
    let (mut counts, mut bar) = (Counts::default(), Progress::new());
    let ended = import_all(admin, arguments, &mut source, &mut counts, &mut bar).await;
    bar.clear();
    tell(arguments, &counts, terminal);
    if let Err(fault) = ended {
        return Err(Fault::NotDone(format!(
            "{fault}; {} of {} mails were done. Import again: what is in the queue already is known",
            counts.done(),
            source.mails()
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
    source: &mut Source,
    counts: &mut Counts,
    bar: &mut Progress,
) -> Result<(), Fault> {
    let total = source.mails();
    let mut under_way = stream::FuturesUnordered::new();
    let mut is_end = false;
    loop {
        while !is_end && under_way.len() < AT_ONCE {
            let Some((name, mail)) = source.next(counts)? else {
                is_end = true;
                break;
            };
            match mail {
                Ok((mail, content)) => {
                    let importing = admin.import(ready(mail, arguments), content);
                    under_way.push(async move { (name, importing.await) });
                }
                Err(why) => counts.refuse(name, why),
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

fn ready(mut imported: ImportedMail, arguments: &ImportArguments) -> ImportedMail {
    imported.dry_run = arguments.dry_run;
    if arguments.hold {
        for recipient in &mut imported.recipients {
            recipient.hold.get_or_insert_with(|| "imported".to_owned());
        }
    }
    imported
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
            "remarks": counts.remarks.iter().map(|(id, what)| json!({ "queue_id": id, "what": what })).collect::<Vec<_>>(),
            "dry_run": arguments.dry_run,
        }));
        return;
    }
    for (id, why) in &counts.refused {
        terminal.say(one_line(&format!("{id} {why}"), 1_000));
    }
    for (id, what) in &counts.remarks {
        terminal.say(one_line(&format!("{id} {what}"), 1_000));
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
