//! The packages, and the host they are installed on.

use std::{collections::BTreeMap, fs, net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, ensure};
use postroad_tests::{Mail, mails_below};
use tempfile::TempDir;
use tokio::process::Command;

use crate::{
    docker::{cache, docker, docker_octets, looking, output_of, remove, source},
    elsewhere, image,
    load::{Submitter, Way},
};

const NAME: &str = "postroad-journey-host";
const LABEL: &str = "postroad.test=host";
const PATIENCE: Duration = Duration::from_secs(600);
pub const HOSTNAME: &str = "mail.example.test";
pub const ALICE: &str = "alice@example.test";
pub const BOB: &str = "bob@example.test";
pub const AGENTS: [&str; 4] = ["queued", "msa", "mta", "mda"];
/// Of the package, and of the one that takes its place.
pub const VERSIONS: [&str; 2] = ["0.1.0-1", "0.1.0-2"];

/// Both packages, of the program that is in the image.
pub async fn build_packages() -> Result<Vec<PathBuf>> {
    let folder = cache()?.join("packages");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    for version in VERSIONS {
        let mut build = Command::new(source().join("deploy/debian/build"));
        build.arg("--binary").arg(image::binary()?);
        build.args(["--version", version, "--fast"]).arg(&folder);
        output_of(&mut build, b"", PATIENCE).await?;
    }
    let mut packages = Vec::new();
    for file in fs::read_dir(&folder)? {
        packages.push(file?.path());
    }
    packages.sort();
    ensure!(packages.len() == VERSIONS.len(), "{packages:?}");
    Ok(packages)
}

/// A Debian whose first process is systemd.
pub struct Host {
    packages: Vec<PathBuf>,
    folder: TempDir,
}

impl Host {
    pub async fn start(packages: Vec<PathBuf>) -> Result<Self> {
        Self::remove().await?;
        let run = ["run", "--detach", "--label", LABEL, "--name", NAME];
        // What systemd needs to confine services, and no more.
        let powers = [
            "--cap-add=SYS_ADMIN",
            "--security-opt=seccomp=unconfined",
            "--security-opt=apparmor=unconfined",
            "--cgroupns=host",
            "--volume=/sys/fs/cgroup:/sys/fs/cgroup:rw",
        ];
        let folders = ["--tmpfs=/run", "--tmpfs=/run/lock", "--tmpfs=/tmp"];
        let image = ["--dns=192.0.2.53", "--hostname", HOSTNAME, elsewhere::TAG];
        let all = [&run[..], &powers, &folders, &image, &["/sbin/init"]];
        docker(&all.concat()).await?;
        let host = Self {
            packages,
            folder: tempfile::tempdir()?,
        };
        looking("systemd", async || {
            let state = docker(&["exec", NAME, "systemctl", "is-system-running", "--wait"]).await;
            // Degraded: a service of the container that has nothing to do with us.
            let state = state.unwrap_or_else(|failed| failed.to_string());
            ["running", "degraded"]
                .iter()
                .any(|word| state.contains(word))
                .then_some(())
        })
        .await?;
        Ok(host)
    }

    pub async fn remove() -> Result<()> {
        remove(&format!("label={LABEL}")).await
    }

    /// Runs a program there as root.
    pub async fn run(&self, words: &[&str]) -> Result<String> {
        docker(&[&["exec", NAME], words].concat()).await
    }

    /// Installs one of the packages as an administrator does; what that told.
    pub async fn install(&self, number: usize) -> Result<String> {
        let package = self.packages.get(number).context("no such package")?;
        self.write("/var/tmp/postroad.deb", &fs::read(package)?)
            .await?;
        let words = ["sh", "-c", "dpkg --install /var/tmp/postroad.deb 2>&1"];
        self.run(&words).await
    }

    /// Writes a file there.
    pub async fn write(&self, path: &str, octets: &[u8]) -> Result<()> {
        let words = ["exec", "--interactive", NAME, "dd", "status=none"];
        let of = format!("of={path}");
        docker_octets(&[&words[..], &[&of]].concat(), octets).await?;
        Ok(())
    }

    /// A property of a unit.
    pub async fn property(&self, agent: &str, name: &str) -> Result<String> {
        let unit = format!("postroad-{agent}.service");
        self.run(&["systemctl", "show", "--value", "--property", name, &unit])
            .await
    }

    /// Waits until all agents say that they are ready.
    pub async fn ready(&self) -> Result<()> {
        looking("agents that are ready", async || {
            self.run(&["postroad", "health"]).await.ok()
        })
        .await
        .map(drop)
    }

    /// The first account as its mail program knows it.
    pub async fn submitter(&self) -> Result<Submitter> {
        let template = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        let address = docker(&["inspect", "--format", template, NAME]).await?;
        let read = ["cat", "/etc/postroad/first-account.password"];
        let password = self.run(&read).await?;
        let ca_file = self.folder.path().join("ca.pem");
        let read = ["cat", "/etc/postroad/pki/server/ca.pem"];
        fs::write(&ca_file, self.run(&read).await?)?;
        Ok(Submitter {
            way: Way::Submission,
            server: SocketAddr::new(address.parse()?, 587),
            host: HOSTNAME.to_owned(),
            ca_file,
            account: ALICE.to_owned(),
            password,
        })
    }

    /// What is filed for accounts now.
    pub async fn filed(&self, accounts: &[&str]) -> Result<BTreeMap<String, Vec<Mail>>> {
        let folder = tempfile::tempdir()?;
        let from = format!("{NAME}:/var/lib/postroad/mail");
        let to = folder.path().join("mail");
        docker(&["cp", &from, &to.to_string_lossy()]).await?;
        let mut filed = BTreeMap::new();
        for account in accounts {
            filed.insert((*account).to_owned(), mails_below(&to, account)?);
        }
        Ok(filed)
    }

    /// The last lines of all logs.
    pub async fn last_words(&self) -> String {
        let words = ["journalctl", "--no-pager", "--lines=60", "--output=short"];
        self.run(&words)
            .await
            .unwrap_or_else(|error| format!("no logs: {error:#}"))
    }
}
