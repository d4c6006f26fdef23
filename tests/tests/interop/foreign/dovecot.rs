//! Debian's Dovecot with a configuration of its own: IMAP for mail that others filed, and LMTP.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use postroad_tests::free_port;

use super::{Kept, folder, hand_over, user};
use crate::needs::search_path;

/// What everybody logs in with.
pub const PASSWORD: &str = "imap secret";
/// Whose the mail is. Dovecot serves no mail of root.
pub const OWNER: &str = "nobody";

pub struct Dovecot {
    pub imap: SocketAddr,
    _kept: Kept,
}

impl Dovecot {
    /// Serves the Maildirs `<mail_root>/<domain>/<local part>/Maildir` of these accounts, and takes mail for them.
    pub async fn start(
        place: &Path,
        mail_root: &Path,
        accounts: &[&str],
        lmtp: SocketAddr,
    ) -> Result<Self> {
        for leaf in ["", "run", "state", "home"] {
            folder(&place.join(leaf))?;
        }
        let owner = user(OWNER)?;
        hand_over(&place.join("home"), owner)?;
        let users = accounts
            .iter()
            .map(|account| format!("{account}:{{PLAIN}}{PASSWORD}\n"));
        fs::write(place.join("users"), users.collect::<String>())?;
        let imap = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let config = place.join("dovecot.conf");
        fs::write(&config, dovecot_conf(place, mail_root, [imap, lmtp], owner))?;
        let config = config.to_str().context("a folder with a plain name")?;
        let kept = Kept::start(
            "Dovecot",
            &["dovecot", "-F", "-c", config],
            place.join("output"),
        )?;
        for address in [imap, lmtp] {
            kept.listens(address).await?;
        }
        Ok(Self { imap, _kept: kept })
    }
}

/// Dovecot as one of the samples has it, in the words of a test: the very files of `deploy/config/swap`.
pub struct SampleDovecot {
    place: PathBuf,
    pub ports: SamplePorts,
    kept: Option<Kept>,
}

/// Where it listens.
#[derive(Clone, Copy)]
pub struct SamplePorts {
    pub imaps: SocketAddr,
    pub pop3s: SocketAddr,
}

impl SampleDovecot {
    /// Writes the configuration of `sample` and starts nothing. `words` are what is called otherwise in the sample and in the test, `more` is
    /// added at the end.
    pub fn prepare(place: &Path, sample: &str, words: &[(&str, &str)], more: &str) -> Result<Self> {
        let owner = user(OWNER)?;
        for leaf in ["", "run", "state", "mail", "home"] {
            folder(&place.join(leaf))?;
        }
        for leaf in ["mail", "home"] {
            hand_over(&place.join(leaf), owner)?;
        }
        let local = || -> Result<SocketAddr> { Ok(([127, 0, 0, 1], free_port()?).into()) };
        let ports = SamplePorts {
            imaps: local()?,
            pop3s: local()?,
        };
        let text = sample_file(sample, "dovecot.conf", words)?;
        let text = text + &surroundings(place, ports) + more;
        fs::write(place.join("dovecot.conf"), text)?;
        Ok(Self {
            place: place.to_owned(),
            ports,
            kept: None,
        })
    }

    /// A file beside the configuration.
    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        Ok(fs::write(self.place.join(name), text)?)
    }

    /// The socket for LMTP.
    pub fn socket(place: &Path) -> PathBuf {
        place.join("run/lmtp")
    }

    pub async fn go(&mut self) -> Result<()> {
        let config = self.place.join("dovecot.conf");
        let config = config.to_str().context("a folder with a plain name")?;
        let output = self.place.join("output");
        let kept = Kept::start("Dovecot", &["dovecot", "-F", "-c", config], output)?;
        // All listeners are opened before anything is served.
        let listening = kept.listens(self.ports.imaps).await;
        self.kept = Some(kept);
        listening.with_context(|| self.log())
    }

    pub fn stop(&mut self) -> Result<()> {
        self.kept.take().map_or(Ok(()), |mut kept| kept.stop())
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.place.join("log")).unwrap_or_default()
    }

    /// Its accounts as its administrator lists them, one a line.
    pub fn accounts(&self) -> Result<String> {
        let config = self.place.join("dovecot.conf");
        let mut doveadm = Command::new("doveadm");
        doveadm.arg("-c").arg(config).args(["user", "*"]);
        let listed = doveadm.env("PATH", search_path()).output()?;
        ensure!(listed.status.success(), "{listed:?}\n{}", self.log());
        Ok(String::from_utf8(listed.stdout)?)
    }

    /// The mails of an account that Dovecot keeps.
    pub fn mails(&self, account: &str) -> Result<Vec<Vec<u8>>> {
        let (name, domain) = account.split_once('@').context("an address")?;
        let maildir = self
            .place
            .join("mail")
            .join(domain)
            .join(name)
            .join("Maildir");
        let mut mails = Vec::new();
        for leaf in ["new", "cur"] {
            for entry in fs::read_dir(maildir.join(leaf)).into_iter().flatten() {
                mails.push(fs::read(entry?.path())?);
            }
        }
        Ok(mails)
    }
}

/// A file of a sample with each word replaced. One that is not in it any more is a failure.
pub fn sample_file(sample: &str, file: &str, words: &[(&str, &str)]) -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/config/swap");
    let path = path.join(sample).join(file);
    let mut text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    for (word, here) in words {
        ensure!(text.contains(word), "no {word:?} in {}", path.display());
        text = text.replace(word, here);
    }
    Ok(text)
}

/// What no sample says, since a host has it once: folders, log, and here the ports.
fn surroundings(place: &Path, ports: SamplePorts) -> String {
    let place = place.display();
    let (imaps, pop3s) = (ports.imaps.port(), ports.pop3s.port());
    format!(
        "
base_dir = {place}/run
state_dir = {place}/state
instance_name = postroad-interop
log_path = {place}/log
service imap-login {{
  inet_listener imap {{
    port = 0
  }}
  inet_listener imaps {{
    port = {imaps}
  }}
}}
service pop3-login {{
  inet_listener pop3 {{
    port = 0
  }}
  inet_listener pop3s {{
    port = {pop3s}
  }}
}}
"
    )
}

fn dovecot_conf(
    place: &Path,
    mail_root: &Path,
    [imap, lmtp]: [SocketAddr; 2],
    owner: (u32, u32),
) -> String {
    let (place, mail_root, (uid, gid)) = (place.display(), mail_root.display(), owner);
    let (ip, imap, lmtp) = (imap.ip(), imap.port(), lmtp.port());
    format!(
        "base_dir = {place}/run
state_dir = {place}/state
instance_name = postroad-interop
log_path = {place}/log
protocols = imap lmtp
listen = {ip}
ssl = no
disable_plaintext_auth = no
first_valid_uid = 1
mail_location = maildir:{mail_root}/%d/%n/Maildir
service imap-login {{
  inet_listener imap {{
    port = {imap}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
service lmtp {{
  inet_listener lmtp {{
    address = {ip}
    port = {lmtp}
  }}
}}
postmaster_address = postmaster@lmtp.test
hostname = mx.lmtp.test
passdb {{
  driver = passwd-file
  args = username_format=%u {place}/users
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={place}/home/%u
}}
"
    )
}
