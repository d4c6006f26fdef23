//! What the swaps with certificates share.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use postroad_tests::{Agent, Stack, wait_for};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// Whoever makes certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate.
    pub ca_file: PathBuf,
}

impl Authority {
    pub fn new(ca_file: PathBuf) -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let name = ca_file.display().to_string();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate()?;
        fs::write(&ca_file, params.self_signed(&key)?.pem())?;
        let issuer = Issuer::new(params, key);
        Ok(Self { issuer, ca_file })
    }

    /// Writes a key and its certificate for `hosts` into one file.
    pub fn issue(&self, file: &Path, hosts: &[&str]) -> Result<()> {
        self.issue_as(file, hosts, |_| ())
    }

    /// One whose time is over.
    pub fn issue_expired(&self, file: &Path, host: &str) -> Result<()> {
        self.issue_as(file, &[host], |params| {
            params.not_after = rcgen::date_time_ymd(2001, 2, 3);
        })
    }

    fn issue_as(
        &self,
        file: &Path,
        hosts: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Result<()> {
        let names: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut params = CertificateParams::new(names)?;
        params
            .distinguished_name
            .push(DnType::CommonName, "a neighbour");
        change(&mut params);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        write_private(file, &(key.serialize_pem() + &certificate.pem()))
    }
}

/// A file that its owner alone may read.
pub fn write_private(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text)?;
    Ok(fs::set_permissions(
        file,
        fs::Permissions::from_mode(0o600),
    )?)
}

/// How many lines of an agent have all of these.
pub fn lines_with(stack: &Stack, agent: Agent, words: &[&str]) -> usize {
    let log = stack.log(agent);
    let lines = log.lines();
    lines
        .filter(|line| words.iter().all(|word| line.contains(word)))
        .count()
}

/// Waits until there are more of them than there were.
pub async fn more_lines(stack: &Stack, agent: Agent, words: &[&str], before: usize) -> Result<()> {
    let what = format!("more lines of {agent} with {words:?} than {before}");
    let more = wait_for(&what, async || {
        (lines_with(stack, agent, words) > before).then_some(())
    });
    more.await.with_context(|| stack.log(agent))
}

/// A mail of about so many octets, with letters beyond ASCII in header and body.
pub fn content(subject: &str, size: usize) -> Vec<u8> {
    let mut content = format!(
        "From: <bob@demo.test>\r\nTo: <friend@far.test>\r\nSubject: {subject}\r\n\
         Date: Mon, 23 Nov 2026 00:00:00 +0000\r\nMessage-ID: <{subject}@client.test>\r\n\
         MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\
         Gr\u{fc}\u{df}e \u{20ac} \u{1f4ee}\r\n.\r\n..dots\r\n"
    )
    .into_bytes();
    let line = [&[b'x'; 76][..], b"\r\n"].concat();
    while content.len() < size {
        content.extend_from_slice(&line);
    }
    content
}
