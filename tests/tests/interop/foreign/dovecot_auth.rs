//! Debian's Dovecot as what checks passwords for Postfix.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use postroad_tests::wait_for;
use tokio::net::UnixStream;

use super::{Kept, folder};

/// Dovecot that checks passwords for others and does nothing else.
pub struct DovecotAuth {
    _kept: Kept,
}

impl DovecotAuth {
    /// By a sample's `config`, with `files` beside it; waits until others can ask at `socket`.
    pub async fn start(
        place: &Path,
        config: &str,
        files: &[(&Path, &str)],
        socket: &Path,
    ) -> Result<Self> {
        for leaf in ["", "run", "state"] {
            folder(&place.join(leaf))?;
        }
        for (file, text) in files {
            fs::write(file, text)?;
        }
        let shown = place.display();
        let here = format!(
            "base_dir = {shown}/run\nstate_dir = {shown}/state\ninstance_name = postroad-interop-auth\nlog_path = {shown}/log\n"
        );
        let path = place.join("dovecot.conf");
        fs::write(&path, here + config)?;
        let config = path.to_str().context("a folder with a plain name")?;
        let output = place.join("output");
        let kept = Kept::start("Dovecot", &["dovecot", "-F", "-c", config], output.clone())?;
        let asked = wait_for("Dovecot's socket for SASL", async || {
            UnixStream::connect(socket).await.ok()
        });
        let output = || fs::read_to_string(&output).unwrap_or_default();
        asked.await.map(drop).with_context(output)?;
        Ok(Self { _kept: kept })
    }
}
