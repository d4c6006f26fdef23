//! Where setup puts what it makes, and for whom.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use postroad_net::{group_id, user_id};
use postroad_pki::Owner;

use super::SetupArguments;
use crate::fault::Fault;

/// The group of all agents on one host, and the one of them that reads the directory.
const GROUP: &str = "postroad";
const QUEUE: &str = "postroad-queued";
const ROOT: u32 = 0;

/// Folders and owner.
#[derive(Debug)]
pub struct Place {
    /// Of `postroad.toml`.
    pub config: PathBuf,
    /// Of `directory.toml` and the password of the first account.
    pub accounts: PathBuf,
    /// Of the authority and what it issues.
    pub pki: PathBuf,
    /// Whose files that agents read are.
    pub owner: Option<Owner>,
    /// Whose `directory.toml` is, and its mode.
    pub directory: (Option<Owner>, u32),
    /// By Unix sockets, each agent with a user of its own.
    pub is_one_host: bool,
}

impl Place {
    /// As the arguments have it.
    pub fn of(arguments: &SetupArguments) -> Result<Self, Fault> {
        let config = arguments.config_dir.clone();
        if !arguments.one_host {
            let accounts = arguments.accounts_dir.as_ref().unwrap_or(&config);
            return Ok(Self {
                accounts: accounts.clone(),
                config,
                pki: arguments.pki.pki_dir.clone(),
                owner: arguments.owner,
                directory: (arguments.owner, 0o640),
                is_one_host: false,
            });
        }
        let missing = |missing| {
            Fault::NotDone(format!(
                "{missing}; the Debian package makes the group {GROUP} and a user for each agent"
            ))
        };
        let gid = group_id(GROUP).map_err(missing)?;
        let queue = Owner {
            uid: user_id(QUEUE).map_err(missing)?,
            gid,
        };
        Ok(Self {
            pki: config.join("pki"),
            accounts: config.clone(),
            config,
            owner: Some(Owner { uid: ROOT, gid }),
            directory: (Some(queue), 0o600),
            is_one_host: true,
        })
    }

    /// Lets all of the owner's group read a key: two agents show the certificate of this host.
    pub fn share_key(&self, key: &Path) -> Result<(), Fault> {
        if self.is_one_host {
            let shared = std::fs::set_permissions(key, Permissions::from_mode(0o640));
            shared.map_err(|error| Fault::NotDone(format!("{}: {error}", key.display())))?;
        }
        Ok(())
    }
}
