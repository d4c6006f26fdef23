//! Debian's Dovecot as what checks passwords for Postfix, and does nothing else.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use postroad_directory::hash_password;
use postroad_tests::{PASSWORD, wait_for};
use tokio::net::UnixStream;

use crate::{
    kept::{Kept, Syncs},
    load::To,
    submission::Passwords,
};

const PROGRAM: &str = "/usr/sbin/dovecot";

/// Where Postfix asks.
pub fn socket(folder: &Path) -> PathBuf {
    folder.join("dovecot/auth")
}

/// Starts it in a part of `folder`, with accounts whose passwords are hashed as ours are.
pub async fn start(
    folder: &Path,
    users: usize,
    passwords: Passwords,
    syncs: Syncs,
) -> Result<Kept> {
    let place = folder.join("dovecot");
    for leaf in ["", "run", "state"] {
        let leaf = place.join(leaf);
        fs::create_dir(&leaf)?;
        fs::set_permissions(&leaf, fs::Permissions::from_mode(0o755))?;
    }
    let hash = hash_password(PASSWORD.as_bytes(), *b"salt for testing")?;
    let accounts = (0..users).map(|user| {
        let address = To::Users(users).address(user);
        format!("{address}:{{ARGON2ID}}{hash}\n")
    });
    fs::write(place.join("users"), accounts.collect::<String>())?;
    let config = place.join("dovecot.conf");
    fs::write(&config, text(&place, passwords))?;
    let config = config.to_str().context("a folder with a plain name")?;
    let kept = Kept::start(folder, "dovecot", &[PROGRAM, "-F", "-c", config], syncs)?;
    let asked = wait_for("Dovecot", async || {
        UnixStream::connect(socket(folder)).await.ok()
    });
    asked.await?;
    Ok(kept)
}

/// The cache is off unless it is set.
fn text(place: &Path, passwords: Passwords) -> String {
    let cache = match passwords {
        Passwords::Hashed => "",
        Passwords::Remembered => "auth_cache_size = 10M\n",
    };
    let place = place.display();
    format!(
        "base_dir = {place}/run
state_dir = {place}/state
instance_name = bench-{}
log_path = {place}/log
protocols = none
ssl = no
{cache}passdb {{
  driver = passwd-file
  args = username_format=%u {place}/users
}}
userdb {{
  driver = static
  args = uid=nobody gid=nogroup home=/nonexistent
}}
auth_mechanisms = plain login
service auth {{
  unix_listener {place}/auth {{
    mode = 0666
  }}
}}
",
        std::process::id()
    )
}
