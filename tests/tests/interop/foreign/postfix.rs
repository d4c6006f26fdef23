//! Debian's Postfix with a configuration, a queue and a log of its own.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use postroad_tests::wait_for;

use super::{Kept, folder, hand_over, user};
use crate::needs::search_path;

/// Where Debian puts the daemons.
pub const MASTER: &str = "/usr/lib/postfix/sbin/master";

/// What one instance is told.
pub struct Setup<'a> {
    /// Where it takes mail.
    pub addresses: &'a [SocketAddr],
    /// Its name as a mail host.
    pub host: &'a str,
    /// The mailboxes it has, e.g. `friend@world.test`. Their domains are its own.
    pub mailboxes: &'a [&'a str],
    /// Lines of transport(5).
    pub transport: &'a str,
    /// A certificate and its key in one file, for STARTTLS.
    pub certificate: &'a Path,
    /// Who vouches for the servers it sends to.
    pub ca_file: &'a Path,
}

/// A running or stopped Postfix. `stop` and `go` as often as you like.
pub struct Postfix {
    folder: PathBuf,
    pub addresses: Vec<SocketAddr>,
    kept: Option<Kept>,
}

impl Postfix {
    /// Writes all files and starts nothing.
    pub fn prepare(place: &Path, setup: &Setup<'_>) -> Result<Self> {
        for leaf in ["", "etc", "queue", "data", "mail"] {
            folder(&place.join(leaf))?;
        }
        hand_over(&place.join("data"), user("postfix")?)?;
        let nobody = user("nobody")?;
        hand_over(&place.join("mail"), nobody)?;
        let write = |name: &str, text: &str| fs::write(place.join("etc").join(name), text);
        write("main.cf", &main_cf(place, setup, nobody))?;
        write("master.cf", &master_cf(setup.addresses))?;
        let mailboxes = setup
            .mailboxes
            .iter()
            .map(|name| format!("{name} {name}/\n"));
        write("mailboxes", &mailboxes.collect::<String>())?;
        write("transport", setup.transport)?;
        let postfix = Self {
            folder: place.to_owned(),
            addresses: setup.addresses.to_vec(),
            kept: None,
        };
        postfix.check()?;
        Ok(postfix)
    }

    /// Writes files of a sample, which say what it is to do; what differs here is added to main.cf. Starts nothing.
    pub fn with_files(place: &Path, address: SocketAddr, files: &[(&str, &str)]) -> Result<Self> {
        for leaf in ["", "etc", "queue", "data"] {
            folder(&place.join(leaf))?;
        }
        hand_over(&place.join("data"), user("postfix")?)?;
        for (name, text) in files {
            let here = if *name == "main.cf" {
                &*here(place)
            } else {
                ""
            };
            fs::write(place.join("etc").join(name), format!("{text}{here}"))?;
        }
        fs::write(place.join("etc/master.cf"), master_cf(&[address]))?;
        let postfix = Self {
            folder: place.to_owned(),
            addresses: vec![address],
            kept: None,
        };
        postfix.check()?;
        Ok(postfix)
    }

    /// The same with listeners of the sample's own: `master_cf` has their lines.
    pub fn with_listeners(
        place: &Path,
        addresses: &[SocketAddr],
        main_cf: &str,
        master_cf: &str,
    ) -> Result<Self> {
        for leaf in ["", "etc", "queue", "data"] {
            folder(&place.join(leaf))?;
        }
        hand_over(&place.join("data"), user("postfix")?)?;
        let write = |name: &str, text: &str| fs::write(place.join("etc").join(name), text);
        write("main.cf", &format!("{main_cf}\n{}{QUICK}", here(place)))?;
        write("master.cf", &(master_cf.to_owned() + DAEMONS))?;
        let postfix = Self {
            folder: place.to_owned(),
            addresses: addresses.to_vec(),
            kept: None,
        };
        postfix.check()?;
        Ok(postfix)
    }

    /// Makes the queue and has Postfix look at its own configuration.
    fn check(&self) -> Result<()> {
        let mut command = Command::new("postfix");
        let command = command.arg("-c").arg(self.folder.join("etc")).arg("check");
        let checked = command.env("PATH", search_path()).output()?;
        ensure!(
            checked.status.success(),
            "postfix check: {checked:?}\n{}",
            self.log()
        );
        Ok(())
    }

    pub async fn go(&mut self) -> Result<()> {
        let config = self.folder.join("etc");
        let config = config.to_str().context("a folder with a plain name")?;
        let command = [MASTER, "-c", config, "-d"];
        let kept = self.kept.insert(Kept::start(
            "Postfix",
            &command,
            self.folder.join("output"),
        )?);
        for address in &self.addresses {
            let log = || fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            kept.listens(*address).await.with_context(log)?;
        }
        Ok(())
    }

    pub fn stop(&mut self) -> Result<()> {
        self.kept.take().map_or(Ok(()), |mut kept| kept.stop())
    }

    /// Where its configuration and queue are.
    pub fn place(&self) -> &Path {
        &self.folder
    }

    /// What one of its programs prints, by universal time.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<Vec<u8>> {
        let mut command = Command::new(program);
        let command = command.arg("-c").arg(self.folder.join("etc"));
        let command = command
            .args(arguments)
            .env("PATH", search_path())
            .env("TZ", "UTC");
        let done = command.output()?;
        ensure!(done.status.success(), "{program} {arguments:?}: {done:?}");
        Ok(done.stdout)
    }

    /// Its mail log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// Waits for a line of the log with all of these.
    pub async fn logged(&self, words: &[&str]) -> Result<String> {
        let what = format!("{words:?} in the log of Postfix");
        let found = wait_for(&what, async || {
            let log = self.log();
            let line = log
                .lines()
                .find(|line| words.iter().all(|word| line.contains(word)))?;
            Some(line.to_owned())
        });
        found.await.with_context(|| self.log())
    }

    /// The mails in one of its mailboxes.
    pub fn mails(&self, mailbox: &str) -> Vec<Vec<u8>> {
        let new = self.folder.join("mail").join(mailbox).join("new");
        let entries = fs::read_dir(new).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| fs::read(entry.path()).ok())
            .collect()
    }

    /// Waits for the mail that has `text` in it.
    pub async fn mail_with(&self, mailbox: &str, text: &str) -> Result<Vec<u8>> {
        let what = format!("mail of {mailbox} with {text:?}");
        let found = wait_for(&what, async || {
            let mails = self.mails(mailbox);
            mails
                .into_iter()
                .find(|mail| mail.windows(text.len()).any(|part| part == text.as_bytes()))
        });
        found.await.with_context(|| self.log())
    }
}

/// For mail that waits at a neighbour until we are back, and for a log that tells of TLS.
const QUICK: &str =
    "maximal_backoff_time = 3s\nsmtp_tls_loglevel = 1\nalias_maps =\nalias_database =\n";

/// Folders of its own, no names from outside, and little patience: but the queue manager leaves a mail alone for good if it looks for it
/// before the one who tried last has let go of it, which may take a second on a busy machine.
fn here(place: &Path) -> String {
    let place = place.display();
    format!(
        "queue_directory = {place}/queue
data_directory = {place}/data
maillog_file = {place}/log
maillog_file_prefixes = {place}
syslog_name = postfix
inet_protocols = ipv4
disable_dns_lookups = yes
smtp_dns_support_level = disabled
smtpd_peername_lookup = no
minimal_backoff_time = 3s
queue_run_delay = 1s
"
    )
}

fn main_cf(place: &Path, setup: &Setup<'_>, (uid, gid): (u32, u32)) -> String {
    let mut domains: Vec<&str> = setup
        .mailboxes
        .iter()
        .filter_map(|name| Some(name.split_once('@')?.1))
        .collect();
    domains.sort_unstable();
    domains.dedup();
    let (domains, place, host) = (domains.join(" "), place.display(), setup.host);
    let (certificate, ca_file) = (setup.certificate.display(), setup.ca_file.display());
    format!(
        "compatibility_level = 3.6
queue_directory = {place}/queue
data_directory = {place}/data
maillog_file = {place}/log
maillog_file_prefixes = {place}
syslog_name = postfix
inet_protocols = ipv4
inet_interfaces = 127.0.0.1
myhostname = {host}
mydestination =
mynetworks = 127.0.0.0/8
alias_maps =
alias_database =
disable_dns_lookups = yes
smtp_dns_support_level = disabled
smtpd_peername_lookup = no
virtual_mailbox_domains = {domains}
virtual_mailbox_base = {place}/mail
virtual_mailbox_maps = texthash:{place}/etc/mailboxes
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
virtual_minimum_uid = 1
virtual_mailbox_limit = 0
message_size_limit = 0
transport_maps = texthash:{place}/etc/transport
minimal_backoff_time = 1s
queue_run_delay = 1s
smtpd_tls_security_level = may
smtpd_tls_chain_files = {certificate}
smtpd_tls_received_header = yes
smtp_tls_security_level = may
smtp_tls_CAfile = {ca_file}
smtp_tls_loglevel = 1
"
    )
}

fn master_cf(addresses: &[SocketAddr]) -> String {
    let listeners = addresses
        .iter()
        .map(|address| format!("{address} inet n - n - - smtpd\n"));
    listeners.collect::<String>() + DAEMONS
}

/// The daemons a mail passes, none of them in a chroot.
const DAEMONS: &str = "\
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
virtual unix - n n - - virtual
lmtp unix - - n - - lmtp
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
";
