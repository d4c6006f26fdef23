//! Foreign servers on loopback, each in a folder of its own and gone with its guard.

mod aiosmtpd;
mod dnsmasq;
mod dovecot;
mod dovecot_auth;
mod exim;
mod postfix;

use std::{
    fs::{self, File},
    io,
    net::SocketAddr,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use postroad_tests::wait_for;
use tokio::net::TcpStream;

pub use self::{
    aiosmtpd::Aiosmtpd,
    dnsmasq::Dnsmasq,
    dovecot::{Dovecot, OWNER, PASSWORD as IMAP_PASSWORD, SampleDovecot, sample_file},
    dovecot_auth::DovecotAuth,
    exim::{EXIM_USER, Exim, exim},
    postfix::{MASTER, Postfix, Setup},
};

/// Ends its program (with all it started) when its standard input ends: also if the test is killed.
const KEEPER: &str =
    r#"setsid "$@" </dev/null & program=$!; read -r _; kill -TERM "$program"; wait "$program""#;
const FAREWELL: Duration = Duration::from_secs(15);

/// A program in the foreground, and the shell that keeps it.
pub struct Kept {
    keeper: Child,
    name: &'static str,
    output: PathBuf,
}

impl Kept {
    /// Starts `command`; what it says goes to the file `output`.
    fn start(name: &'static str, command: &[&str], output: PathBuf) -> Result<Self> {
        let log = File::options().create(true).append(true).open(&output)?;
        let keeper = Command::new("sh")
            .args(["-c", KEEPER, "keeper"])
            .args(command)
            .env("PATH", super::needs::search_path())
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        Ok(Self {
            keeper,
            name,
            output,
        })
    }

    /// Waits until the program listens.
    async fn listens(&self, address: SocketAddr) -> Result<()> {
        let what = format!("{} at {address}", self.name);
        let listening = wait_for(&what, async || TcpStream::connect(address).await.ok());
        let output = || fs::read_to_string(&self.output).unwrap_or_default();
        listening.await.map(drop).with_context(output)
    }

    /// Asks the program to end and waits until it has.
    fn stop(&mut self) -> Result<()> {
        drop(self.keeper.stdin.take());
        let deadline = Instant::now() + FAREWELL;
        while self.keeper.try_wait()?.is_none() {
            ensure!(Instant::now() < deadline, "{} does not end", self.name);
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // Nothing more can be done; the keeper waits for the program.
        let _ = self.stop();
    }
}

/// User and group id of a system user.
pub fn user(name: &str) -> Result<(u32, u32)> {
    let users = fs::read_to_string("/etc/passwd")?;
    let line = users
        .lines()
        .find(|line| line.split(':').next() == Some(name));
    let fields: Vec<&str> = line
        .with_context(|| format!("no user {name}"))?
        .split(':')
        .collect();
    let [_, _, uid, gid, ..] = fields.as_slice() else {
        bail!("user {name} has no id")
    };
    Ok((uid.parse()?, gid.parse()?))
}

/// A new folder that others may look into.
pub fn folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// Gives a folder and all in it to a user.
pub fn hand_over(path: &Path, (uid, gid): (u32, u32)) -> io::Result<()> {
    chown(path, Some(uid), Some(gid))?;
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            hand_over(&entry?.path(), (uid, gid))?;
        }
    }
    Ok(())
}
