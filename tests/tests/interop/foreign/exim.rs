//! Debian's Exim with a configuration, a spool and a log of its own.

use std::{
    env, fs,
    net::SocketAddr,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::{Kept, folder, hand_over, user};

/// Whom Debian's Exim runs as.
pub const EXIM_USER: &str = "Debian-exim";

/// The program. Debian's package cannot be installed beside Postfix, so it may lie elsewhere.
pub fn exim() -> PathBuf {
    let named = env::var_os("POSTROAD_TEST_EXIM").map(PathBuf::from);
    named.unwrap_or_else(|| "/usr/sbin/exim4".into())
}

/// A running Exim.
pub struct Exim {
    _kept: Kept,
}

impl Exim {
    /// Starts it at `address` with what a sample says, and with little patience.
    pub async fn start(place: &Path, address: SocketAddr, sample: &str) -> Result<Self> {
        for leaf in ["", "etc", "spool"] {
            folder(&place.join(leaf))?;
        }
        // A copy, since its user may not get to where the program lies; and without rights of root, which it does not need here.
        let program = place.join("exim4");
        fs::copy(exim(), &program)?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
        let here = place.display();
        let own = format!(
            "spool_directory = {here}/spool
log_file_path = {here}/%slog
pid_file_path = {here}/pid
exim_path = {}
local_interfaces = {}
queue_run_in_order = true
deliver_drop_privilege = true
host_lookup =
disable_ipv6 = true

",
            program.display(),
            address.ip(),
        );
        let config = place.join("etc/exim4.conf");
        fs::write(&config, own + sample)?;
        let owner = user(EXIM_USER)?;
        hand_over(&place.join("spool"), owner)?;
        chown(place, Some(owner.0), Some(owner.1))?;
        let text = |path: &Path| path.to_str().map(str::to_owned).context("a plain name");
        let (program, config) = (text(&program)?, text(&config)?);
        let port = address.port().to_string();
        let command = [&*program, "-C", &config, "-bdf", "-q1s", "-oX", &port];
        let kept = Kept::start("Exim", &command, place.join("output"))?;
        kept.listens(address).await?;
        Ok(Self { _kept: kept })
    }
}
