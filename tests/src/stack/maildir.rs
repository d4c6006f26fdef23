//! The reader's side of a Maildir.

use std::{
    fs, io,
    path::{Path, PathBuf},
    str::FromStr as _,
};

use anyhow::{Context as _, Result};
use postroad_envelope::QueueId;

/// A mail in a Maildir.
#[derive(Clone, Debug)]
pub struct Mail {
    /// Without folder; a reader may have added flags.
    pub name: String,
    /// As it lies on the disk.
    pub content: Vec<u8>,
}

impl Mail {
    /// The mail and the recipient its name is made of.
    pub fn delivery(&self) -> Result<(QueueId, u32)> {
        delivery(&self.name)
    }

    /// Whether `text` is somewhere in it.
    pub fn contains(&self, text: &str) -> bool {
        self.content
            .windows(text.len())
            .any(|window| window == text.as_bytes())
    }

    /// The content as text, for messages and searches.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.content).into_owned()
    }

    /// What follows the header block.
    pub fn body(&self) -> &[u8] {
        crate::body(&self.content)
    }
}

/// `<sec>.Q<queue id>R<recipient index>.<host>,S=<size>`
pub fn delivery(name: &str) -> Result<(QueueId, u32)> {
    let parse = || {
        let unique = name.split('.').nth(1)?.strip_prefix('Q')?;
        let (id, index) = unique.split_once('R')?;
        Some((QueueId::from_str(id).ok()?, index.parse().ok()?))
    };
    parse().with_context(|| format!("{name:?} is not the name of one of our deliveries"))
}

pub fn path(root: &Path, account: &str) -> Result<PathBuf> {
    let (local_part, domain) = account
        .split_once('@')
        .context("an account is an address")?;
    Ok(postroad_maildir::maildir_path(root, domain, local_part)?)
}

/// What lies in the Maildir of an account below `root`, new and seen.
pub fn mails_below(root: &Path, account: &str) -> Result<Vec<Mail>> {
    delivered(&path(root, account)?)
}

/// How many mails there are, without reading them.
pub fn count(maildir: &Path) -> usize {
    let leaves = ["new", "cur"].map(|leaf| fs::read_dir(maildir.join(leaf)));
    leaves.into_iter().flatten().flatten().count()
}

pub fn delivered(maildir: &Path) -> Result<Vec<Mail>> {
    let mut mails = Vec::new();
    for leaf in ["new", "cur"] {
        let entries = match fs::read_dir(maildir.join(leaf)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            match fs::read(entry.path()) {
                // A reader was faster.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                content => mails.push(Mail {
                    name: entry.file_name().to_string_lossy().into_owned(),
                    content: content?,
                }),
            }
        }
    }
    mails.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(mails)
}
