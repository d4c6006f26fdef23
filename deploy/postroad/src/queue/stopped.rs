//! Work on the folder of a queue that does not run.

use std::path::{Path, PathBuf};

use postroad_daemon::{CommonConfig, ConfigFile};
use postroad_queued::{Config, Offline, OfflineError};
use serde_json::json;

use crate::cli::FolderArguments;
use crate::fault::Fault;
use crate::home::Home;
use crate::terminal::Terminal;

/// The folder that is meant and the settings for it; none if the queue that runs is meant.
pub fn folder(
    arguments: &FolderArguments,
    config: Option<&Path>,
    terminal: &mut Terminal<'_>,
) -> Result<Option<(PathBuf, Config)>, Fault> {
    match (&arguments.data, arguments.offline) {
        (None, false) => Ok(None),
        (None, true) => {
            let home = Home::open(config, terminal)?;
            let (folder, queued) = of_home(&home.file, &home.common)?;
            Ok(Some((folder, queued)))
        }
        (Some(folder), _) => {
            // Only for how long finished ids are remembered; without a configuration the defaults will do.
            let queued = match config {
                Some(path) => ConfigFile::load(path)?.section("queued")?,
                None => Config::default(),
            };
            Ok(Some((folder.clone(), queued)))
        }
    }
}

/// The folder that is meant; that of the configuration if none is named.
pub fn meant(
    arguments: &FolderArguments,
    config: Option<&Path>,
    terminal: &mut Terminal<'_>,
) -> Result<PathBuf, Fault> {
    let offline = FolderArguments {
        offline: true,
        data: arguments.data.clone(),
    };
    match folder(&offline, config, terminal)? {
        Some((folder, _)) => Ok(folder),
        None => Err(Fault::Usage("name a folder with --data".to_owned())),
    }
}

fn of_home(file: &ConfigFile, common: &CommonConfig) -> Result<(PathBuf, Config), Fault> {
    let queued: Config = file.section("queued")?;
    Ok((queued.folder(common), queued))
}

/// `postroad queue rebuild`.
pub fn rebuild(
    arguments: &FolderArguments,
    config: Option<&Path>,
    terminal: &mut Terminal<'_>,
) -> Result<(), Fault> {
    let folder = meant(arguments, config, terminal)?;
    let offline = Offline::open(&folder).map_err(Fault::not_done)?;
    let aside = offline.rebuild().map_err(not_done)?.aside;
    if terminal.wants_json() {
        let aside = aside.map(|aside| aside.display().to_string());
        terminal.object(json!({ "folder": folder.display().to_string(), "put_aside": aside }));
        return Ok(());
    }
    match aside {
        Some(aside) => terminal.line(format_args!(
            "the index is in {} now; start the queue: it builds another from the journal",
            aside.display()
        )),
        None => terminal.line("there is no index; start the queue: it builds one from the journal"),
    }
    Ok(())
}

/// `postroad queue upgrade-format`.
pub fn upgrade_format(
    arguments: &FolderArguments,
    yes: bool,
    config: Option<&Path>,
    terminal: &mut Terminal<'_>,
) -> Result<(), Fault> {
    let folder = meant(arguments, config, terminal)?;
    let mut offline = Offline::open(&folder).map_err(not_done)?;
    let change = offline.to_upgrade().map_err(not_done)?;
    if let Some((from, to)) = change {
        if !yes {
            terminal.confirm(&format!(
                "Put {} from format {from} into {to}? Releases that do not know format {to} cannot go on with it.",
                folder.display()
            ))?;
        }
        offline.upgrade_format().map_err(not_done)?;
    }
    if terminal.wants_json() {
        let (from, to) = change.unzip();
        terminal.object(json!({ "folder": folder.display().to_string(), "from": from, "to": to }));
        return Ok(());
    }
    match change {
        Some((_, to)) => terminal.line(format_args!("{} is in format {to} now", folder.display())),
        None => terminal.line("it is in the newest format that this release knows"),
    }
    Ok(())
}

/// With its causes.
pub fn not_done(error: OfflineError) -> Fault {
    let cause = std::error::Error::source(&error).map(ToString::to_string);
    Fault::NotDone(match cause {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    })
}
