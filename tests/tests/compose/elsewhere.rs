//! The world: a Postfix and a name server, in containers on a network of their own. Their image has all that Debian gives the journey.

use std::{fs, os::unix::fs::symlink, path::Path, time::Duration};

use anyhow::{Context as _, Result};
use tokio::process::Command;

use crate::docker::{cache, docker, docker_octets, looking, output_of, remove, said};

/// The image of both, of the balancer, of Prometheus, and of the host that installs the package, made of Debian packages.
pub const TAG: &str = "postroad-elsewhere:journey";
/// The same with Exim instead of Postfix.
pub const EXIM_TAG: &str = "postroad-elsewhere:exim";
/// The network, as Docker calls it. Of several networks the engine publishes ports in the one whose name comes first: not in this.
pub const NETWORK: &str = "postroad-journeys-elsewhere";
/// Who lives there.
pub const FRIEND: &str = "friend@elsewhere.test";

const POSTFIX: &str = "postroad-journey-postfix";
const DNS: &str = "postroad-journey-dns";
const LABEL: &str = "postroad.test=elsewhere";
const PACKAGES: &str = "postfix,dovecot-core,dovecot-lmtpd,dovecot-imapd,dovecot-pop3d,dnsmasq-base,haproxy,prometheus,systemd-sysv,\
                        procps,ca-certificates,libgnutls-dane0,libidn12";
/// Exim and Postfix exclude each other, so Exim's packages lie here until [`make_exim_image`] installs them. What they need is in the image.
const EXIM: [&str; 3] = ["exim4-config", "exim4-base", "exim4-daemon-light"];
/// What a host with systemd would start by itself, and does not need.
const MASKED: [&str; 7] = [
    "dovecot.service",
    "dovecot.socket",
    "haproxy.service",
    "prometheus.service",
    "postfix.service",
    "postfix@.service",
    "postfix@-.service",
];
const PATIENCE: Duration = Duration::from_secs(900);

/// Mail hosts by the name server, their addresses by the engine.
const MAIL_HOSTS: [&str; 2] = [
    "--mx-host=elsewhere.test,mx.elsewhere.test,10",
    "--mx-host=example.test,mail.example.test,10",
];

/// Postfix with one mailbox for all addresses, in the foreground.
const START: &str = "\
set -e
install -d -o nobody -g nogroup /mail
postconf -e maillog_file=/dev/stdout inet_interfaces=all inet_protocols=ipv4 myhostname=mx.elsewhere.test \\
  mydestination= alias_maps= alias_database= virtual_mailbox_domains=elsewhere.test virtual_mailbox_base=/mail \\
  virtual_mailbox_maps=static:box/ virtual_uid_maps=static:65534 virtual_gid_maps=static:65534 \\
  virtual_minimum_uid=1 virtual_mailbox_limit=0 message_size_limit=0 mailbox_size_limit=0 \\
  minimal_backoff_time=1s queue_run_delay=1s smtp_tls_security_level=may smtp_tls_loglevel=1 \\
  smtpd_client_connection_count_limit=0 smtpd_peername_lookup=no
postconf -F '*/*/chroot=n'
exec postfix start-fg
";

/// Bootstraps a Debian once and imports it.
pub async fn make_image() -> Result<()> {
    let archive = cache()?.join("elsewhere-6.tar");
    if !archive.exists() {
        bootstrap(&archive).await?;
    }
    let archive = archive.to_string_lossy();
    docker(&["import", &archive, TAG]).await?;
    Ok(())
}

/// Of that image, where one is needed.
pub async fn make_exim_image() -> Result<()> {
    let install = format!(
        "FROM {TAG}\nRUN dpkg --remove postfix && DEBIAN_FRONTEND=noninteractive dpkg --install /packages/*.deb\n"
    );
    let build = ["build", "--quiet", "--tag", EXIM_TAG, "-"];
    docker_octets(&build, install.as_bytes()).await.map(drop)
}

async fn bootstrap(archive: &Path) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let release = release().unwrap_or_else(|| "stable".to_owned());
    let mut debootstrap = Command::new("debootstrap");
    debootstrap
        .args(["--variant=minbase", &format!("--include={PACKAGES}")])
        .arg(&release)
        .arg(folder.path())
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("LC_ALL", "C");
    output_of(&mut debootstrap, b"", PATIENCE).await?;
    let packages = folder.path().join("packages");
    fs::create_dir(&packages)?;
    let mut download = Command::new("apt-get");
    download.args(["download", "--quiet"]).args(EXIM);
    output_of(download.current_dir(&packages), b"", PATIENCE).await?;
    for unit in MASKED {
        symlink(
            "/dev/null",
            folder.path().join("etc/systemd/system").join(unit),
        )?;
    }
    // Half an archive must not be taken for a whole one.
    let unfinished = archive.with_extension("unfinished");
    let mut tar = Command::new("tar");
    tar.arg("--create")
        .args([
            "--exclude=./var/cache/apt/*",
            "--exclude=./var/lib/apt/lists/*",
            "--exclude=./usr/share/doc/*",
            "--exclude=./usr/share/javascript/*",
            "--exclude=./usr/share/locale/*",
            "--exclude=./usr/share/man/*",
        ])
        .arg("--file")
        .arg(&unfinished)
        .arg("--directory")
        .arg(folder.path())
        .arg(".");
    output_of(&mut tar, b"", PATIENCE).await?;
    Ok(fs::rename(unfinished, archive)?)
}

/// The Debian this machine has.
fn release() -> Option<String> {
    let text = fs::read_to_string("/etc/os-release").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))?;
    Some(line.trim_matches('"').to_owned())
}

/// The foreign mail server and the name server that both sides ask for mail hosts.
pub struct Elsewhere {
    /// The name server's address.
    pub dns: String,
}

impl Elsewhere {
    pub async fn start() -> Result<Self> {
        Self::remove().await?;
        docker(&["network", "create", "--label", LABEL, NETWORK]).await?;
        let on_network = format!("--network={NETWORK}");
        let common = ["run", "--detach", "--label", LABEL, &on_network];
        let name_server = [
            "--name",
            DNS,
            TAG,
            "dnsmasq",
            "--keep-in-foreground",
            "--user=root",
            "--log-facility=-",
            "--log-queries",
            "--no-resolv",
            "--no-hosts",
            "--local=/test/",
        ];
        docker(&[&common[..], &name_server, &MAIL_HOSTS].concat()).await?;
        let template = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        let dns = docker(&["inspect", "--format", template, DNS]).await?;
        let asking = format!("--dns={dns}");
        let postfix = [
            "--name",
            POSTFIX,
            "--hostname=mx.elsewhere.test",
            "--network-alias=mx.elsewhere.test",
            &asking,
            TAG,
            "sh",
            "-c",
            START,
        ];
        docker(&[&common[..], &postfix].concat()).await?;
        let elsewhere = Self { dns };
        elsewhere.logged(&["daemon started"]).await?;
        Ok(elsewhere)
    }

    pub async fn remove() -> Result<()> {
        remove(&format!("label={LABEL}")).await
    }

    /// Hands a mail to Postfix, on its way to someone.
    pub async fn send(&self, to: &str, content: &[u8]) -> Result<()> {
        let arguments = ["exec", "-i", POSTFIX, "sendmail", "-i", "-f", FRIEND, to];
        docker_octets(&arguments, &postroad_tests::unwired(content)).await?;
        Ok(())
    }

    /// All the mail that came there.
    pub async fn mails(&self) -> Result<Vec<Vec<u8>>> {
        let folder = tempfile::tempdir()?;
        let to = folder.path().join("box");
        let found = docker(&["cp", &format!("{POSTFIX}:/mail"), &to.to_string_lossy()]).await;
        found.context("the mail of Postfix")?;
        read_all(&to.join("box/new"))
    }

    /// What the name server was asked.
    pub async fn questions(&self) -> Result<String> {
        said(DNS).await
    }

    /// Waits for a line of Postfix's log with all of these.
    pub async fn logged(&self, words: &[&str]) -> Result<String> {
        let what = format!("{words:?} in the log of Postfix");
        let found = looking(&what, async || {
            let log = said(POSTFIX).await.ok()?;
            let fits = |line: &&str| words.iter().all(|word| line.contains(word));
            log.lines().find(fits).map(ToOwned::to_owned)
        });
        match found.await {
            Ok(line) => Ok(line),
            Err(error) => Err(error).with_context(|| POSTFIX.to_owned()),
        }
    }
}

fn read_all(folder: &Path) -> Result<Vec<Vec<u8>>> {
    let mut mails = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else {
        return Ok(mails);
    };
    for entry in entries {
        mails.push(fs::read(entry?.path())?);
    }
    Ok(mails)
}
