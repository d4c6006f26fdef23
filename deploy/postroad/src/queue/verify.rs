//! Is all of the queue still what was written?

use std::ops::ControlFlow;
use std::path::PathBuf;

use futures::StreamExt as _;
use postroad_queue_client::{QueueAdmin as _, RemoteAdmin, VerifyProgress};
use postroad_queued::{Config, Offline, OfflineError};
use serde_json::json;

use super::{Admin, stopped};
use crate::cli::FolderArguments;
use crate::fault::Fault;
use crate::home::Home;
use crate::progress::Progress;
use crate::terminal::{Terminal, one_line};

/// `postroad queue verify`.
pub fn verify(
    arguments: &FolderArguments,
    node: Option<&str>,
    config: Option<&std::path::Path>,
    terminal: &mut Terminal<'_>,
) -> Result<(), Fault> {
    let mut told = Told::new(terminal);
    match stopped::folder(arguments, config, told.terminal)? {
        Some((folder, config)) => offline(folder, &config, &mut told)?,
        None => {
            let home = Home::open(config, told.terminal)?;
            return crate::runtime()?.block_on(online(&home, node, told));
        }
    }
    told.end()
}

fn offline(folder: PathBuf, config: &Config, told: &mut Told<'_, '_>) -> Result<(), Fault> {
    let offline = Offline::open(&folder).map_err(|error| match error {
        OfflineError::Runs { .. } => {
            Fault::NotDone(format!("{error}, or verify without --offline"))
        }
        other => Fault::not_done(other),
    })?;
    let mut each = |progress| {
        told.hear(progress);
        ControlFlow::Continue(())
    };
    offline
        .verify(config, &mut each)
        .map_err(stopped::not_done)?;
    Ok(())
}

/// Node after node, each with its own answer; those that follow one that is not well are looked at too.
async fn online(home: &Home, node: Option<&str>, mut told: Told<'_, '_>) -> Result<(), Fault> {
    let admin = Admin::open(home, node)?;
    let mut result = Ok(());
    for (name, node) in admin.each() {
        if admin.is_several() {
            told.terminal.say(format_args!("node {name}:"));
            told.node = Some(name.to_owned());
        }
        let heard = hear_all(node, &mut told).await;
        let verdict = heard.and_then(|()| told.end());
        match (&verdict, admin.is_several()) {
            (Err(fault), true) => told.terminal.fault(fault),
            (Err(_), false) => return admin.end(verdict, told.terminal),
            (Ok(()), _) => {}
        }
        result = result.and(verdict.map_err(|_| Fault::Told));
        told = Told::new(told.terminal);
    }
    result
}

async fn hear_all(node: &RemoteAdmin, told: &mut Told<'_, '_>) -> Result<(), Fault> {
    let mut progress = node.verify().await?;
    while let Some(heard) = progress.next().await {
        told.hear(heard?);
    }
    Ok(())
}

/// What was heard so far.
struct Told<'a, 'b> {
    terminal: &'a mut Terminal<'b>,
    bar: Progress,
    problems: Vec<String>,
    last: VerifyProgress,
    node: Option<String>,
}

impl<'a, 'b> Told<'a, 'b> {
    fn new(terminal: &'a mut Terminal<'b>) -> Self {
        Self {
            terminal,
            bar: Progress::new(),
            problems: Vec::new(),
            last: VerifyProgress::default(),
            node: None,
        }
    }

    fn hear(&mut self, mut progress: VerifyProgress) {
        for problem in std::mem::take(&mut progress.problems) {
            if !self.terminal.wants_json() {
                self.bar.clear();
                self.terminal.line(one_line(&problem, 1_000));
            }
            self.problems.push(problem);
        }
        let what = format!("{}, {} mails", progress.stage, progress.mails);
        self.bar.at(progress.done, progress.total, &what);
        self.last = progress;
    }

    fn end(&mut self) -> Result<(), Fault> {
        self.bar.clear();
        if !self.last.finished {
            return Err(Fault::NotDone(
                "the verification ended early: not all was looked at".to_owned(),
            ));
        }
        let (mails, octets) = (self.last.mails, self.last.total);
        if self.terminal.wants_json() {
            let mut object = json!({
                "mails": mails, "octets": octets, "problems": self.problems,
            });
            if let Some(node) = &self.node {
                object["node"] = node.as_str().into();
            }
            self.terminal.object(object);
        } else if self.problems.is_empty() {
            self.terminal.line(format_args!(
                "all is well: {mails} mails, {octets} octets looked at"
            ));
        } else {
            self.terminal.say(format_args!(
                "{} problems; {mails} mails, {octets} octets looked at",
                self.problems.len()
            ));
        }
        match self.problems.is_empty() {
            true => Ok(()),
            false => Err(Fault::Told),
        }
    }
}
