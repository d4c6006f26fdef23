use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The section `[mda]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Where the mailboxes are: `<mail_root>/<domain>/<local part>/Maildir`.
    pub mail_root: PathBuf,
    /// Deliveries at one time. Each waits for the disk, and those of one moment share its syncs.
    pub concurrency: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mail_root: "/var/lib/postroad/mail".into(),
            concurrency: 64,
        }
    }
}
