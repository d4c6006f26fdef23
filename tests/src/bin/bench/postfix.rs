//! Debian's Postfix with a configuration, a queue and a log of its own, as Debian ships it where speed is concerned.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::{PermissionsExt as _, chown},
    path::Path,
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

/// Where Debian puts the daemons.
pub const MASTER: &str = "/usr/lib/postfix/sbin/master";
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// What lies here is not on its way out yet.
const QUEUES: [&str; 4] = ["maildrop", "incoming", "active", "deferred"];

/// Why Postfix cannot be measured here, if it cannot.
pub fn missing() -> Option<&'static str> {
    if !Path::new(MASTER).exists() {
        return Some("the Debian package postfix is missing");
    }
    (!rustix::process::geteuid().is_root())
        .then_some("it gives its parts users of their own, and only root can")
}

/// Writes all files; `transport` holds lines of transport(5).
pub fn write(folder: &Path, listen: SocketAddr, transport: &str) -> Result<()> {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    for leaf in ["etc", "queue", "data"] {
        fs::create_dir(folder.join(leaf))?;
    }
    let owner = user("postfix")?;
    chown(folder.join("data"), Some(owner.0), Some(owner.1))?;
    let write = |name: &str, text: &str| fs::write(folder.join("etc").join(name), text);
    write("main.cf", &main_cf(folder))?;
    write(
        "master.cf",
        &format!("{listen} inet n - n - - smtpd\n{DAEMONS}"),
    )?;
    write("transport", transport)?;
    let mut check = Command::new("postfix");
    let check = check.arg("-c").arg(folder.join("etc")).arg("check");
    let checked = check.env("PATH", PATH).output().context("postfix")?;
    ensure!(checked.status.success(), "postfix check: {checked:?}");
    Ok(())
}

/// Whether nothing is left to do.
pub fn is_idle(folder: &Path) -> bool {
    QUEUES
        .iter()
        .all(|queue| is_empty(&folder.join("queue").join(queue)))
}

fn is_empty(folder: &Path) -> bool {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .all(|path| path.is_dir() && is_empty(&path))
}

fn user(name: &str) -> Result<(u32, u32)> {
    let users = fs::read_to_string("/etc/passwd")?;
    let line = users
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let mut fields = line
        .with_context(|| format!("no user {name}"))?
        .split(':')
        .skip(1);
    let mut id = || fields.next().context("a user without an id");
    Ok((id()?.parse()?, id()?.parse()?))
}

/// No look-ups in the DNS and no TLS, as for Postroad. Everything else has its default, syncs included.
fn main_cf(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
maillog_file = {folder}/postfix.log
maillog_file_prefixes = {folder}
syslog_name = postfix
inet_protocols = ipv4
inet_interfaces = 127.0.0.1
myhostname = postfix.test
mydestination =
mynetworks = 127.0.0.0/8
alias_maps =
alias_database =
disable_dns_lookups = yes
smtp_dns_support_level = disabled
smtpd_peername_lookup = no
transport_maps = texthash:{folder}/etc/transport
"
    )
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
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
";
