//! Python's aiosmtpd, which speaks SMTPUTF8.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use postroad_tests::wait_for;
use serde_json::{Value, json};

use super::{Kept, folder};
use crate::{clients::script, needs::python};

pub struct Aiosmtpd {
    folder: PathBuf,
    _kept: Kept,
}

impl Aiosmtpd {
    pub async fn start(place: &Path, address: SocketAddr) -> Result<Self> {
        folder(place)?;
        let orders = json!({ "port": address.port(), "folder": place }).to_string();
        let (python, script) = (python(), script("peer.py"));
        let plain = "a path with a plain name";
        let command = [
            python.to_str().context(plain)?,
            script.to_str().context(plain)?,
            &orders,
        ];
        let kept = Kept::start("aiosmtpd", &command, place.join("output"))?;
        kept.listens(address).await?;
        Ok(Self {
            folder: place.to_owned(),
            _kept: kept,
        })
    }

    /// Waits for its first mail: `from`, `to`, `smtputf8`, `options`, `content` in base64.
    pub async fn first(&self) -> Result<Value> {
        let file = self.folder.join("1.json");
        let text = wait_for("mail at aiosmtpd", async || fs::read_to_string(&file).ok()).await?;
        Ok(serde_json::from_str(&text)?)
    }
}
