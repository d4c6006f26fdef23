//! Postfix's `smtp-source` as the clients: mail that others can send too.

use std::{path::Path, process::Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::NamedTempFile;
use tokio::process::Command;

use crate::load::{Mails, Way};

const PROGRAM: &str = "/usr/sbin/smtp-source";

/// Brings all mails by `way` over `sessions` connections at a time: a connection for each, or as many on one as it takes.
///
/// It numbers the recipients, from 1, which is where [`Mails::numbered_by_recipient`] finds the number.
pub async fn bring(mails: &Mails, way: &Way, sessions: usize, per_connection: usize) -> Result<()> {
    ensure!(
        Path::new(PROGRAM).exists(),
        "{PROGRAM} is missing (Debian: postfix)"
    );
    ensure!(way.submission.is_none(), "smtp-source knows no TLS");
    // It appends CRLF to each line itself, and an empty line to the last.
    let content = NamedTempFile::new()?;
    let lines = mails.plain().replace("\r\n", "\n");
    std::fs::write(content.path(), lines.trim_end_matches('\n'))?;
    let mut source = Command::new(PROGRAM);
    source
        .args(["-s", &sessions.to_string(), "-m", &mails.count.to_string()])
        .args([
            "-f",
            &mails.sender(0),
            "-t",
            &mails.recipient(0),
            "-N",
            "-F",
        ])
        .arg(content.path());
    if per_connection > 1 {
        source.arg("-d");
    }
    let ended = source
        .arg(format!("inet:{}", way.server))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context(PROGRAM)?;
    if !ended.status.success() {
        bail!(
            "{PROGRAM} {}: {}",
            ended.status,
            String::from_utf8_lossy(&ended.stderr).trim()
        );
    }
    Ok(())
}
