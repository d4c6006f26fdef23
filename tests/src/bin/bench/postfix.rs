//! Debian's Postfix with a configuration, a queue and a log of its own, as Debian ships it where speed is concerned.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::{PermissionsExt as _, chown},
    path::Path,
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    dovecot,
    product::{Kind, Task},
};

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

/// Those of the products that can be measured here; says which cannot.
pub fn measurable(kinds: &[Kind]) -> Vec<Kind> {
    let mut kinds = kinds.to_vec();
    if let Some(why) = missing().filter(|_| kinds.iter().any(|kind| kind.is_foreign())) {
        eprintln!("bench: Postfix is not measured: {why}");
        kinds.retain(|kind| !kind.is_foreign());
    }
    kinds
}

/// Writes all files.
pub fn write(folder: &Path, listen: SocketAddr, task: Task<'_>, tuned: bool) -> Result<()> {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    for leaf in ["etc", "queue", "data"] {
        fs::create_dir(folder.join(leaf))?;
    }
    let owner = user("postfix")?;
    chown(folder.join("data"), Some(owner.0), Some(owner.1))?;
    let write = |name: &str, text: &str| fs::write(folder.join("etc").join(name), text);
    let mut main_cf = main_cf(folder);
    if tuned {
        main_cf += TUNED;
    }
    match task {
        Task::Relay(hosts) => {
            let lines = hosts.iter().enumerate().map(|(number, host)| {
                format!("world{number}.test smtp:[{}]:{}\n", host.ip(), host.port())
            });
            write("transport", &lines.collect::<String>())?;
            main_cf += &format!(
                "transport_maps = texthash:{}/etc/transport\n",
                folder.display()
            );
        }
        Task::Deliver { users } | Task::Submit { users, .. } => {
            let lines = (0..users).map(|user| format!("user{user}@demo.test user{user}/\n"));
            write("mailboxes", &lines.collect::<String>())?;
            let mail = folder.join("mail");
            fs::create_dir(&mail)?;
            let (uid, gid) = user("nobody")?;
            chown(&mail, Some(uid), Some(gid))?;
            main_cf += &mailboxes(folder, uid, gid);
        }
    }
    let mut listener = format!("{listen} inet n - n - - smtpd\n");
    if let Task::Submit { .. } = task {
        write("senders", "/^(.*)$/ $1\n")?;
        write("server.pem", &certificate()?)?;
        main_cf += &submission(folder);
        listener += SUBMISSIONS;
    }
    write("main.cf", &main_cf)?;
    write("master.cf", &(listener + DAEMONS))?;
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
"
    )
}

/// What people set who want more of it, and that loses nothing: more processes, no waiting, connections kept for all hosts.
const TUNED: &str = "default_process_limit = 200
smtpd_client_connection_count_limit = 0
smtpd_peername_lookup = no
smtpd_error_sleep_time = 0
in_flow_delay = 0
qmgr_message_active_limit = 40000
initial_destination_concurrency = 20
default_destination_concurrency_limit = 100
smtp_connection_cache_destinations = static:all
smtp_connection_reuse_count_limit = 1000
local_header_rewrite_clients =
";

/// Mailboxes that virtual(8) files mail in.
fn mailboxes(folder: &Path, uid: u32, gid: u32) -> String {
    let folder = folder.display();
    format!(
        "virtual_mailbox_domains = demo.test
virtual_mailbox_base = {folder}/mail
virtual_mailbox_maps = texthash:{folder}/etc/mailboxes
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
"
    )
}

/// Mail from whoever has logged in with Dovecot's word for it, and is from who they are.
fn submission(folder: &Path) -> String {
    let shown = folder.display();
    format!(
        "smtpd_tls_chain_files = {shown}/etc/server.pem
smtpd_sasl_type = dovecot
smtpd_sasl_path = {}
smtpd_relay_restrictions = permit_sasl_authenticated, reject
smtpd_sender_login_maps = regexp:{shown}/etc/senders
smtpd_sender_restrictions = reject_authenticated_sender_login_mismatch
",
        dovecot::socket(folder).display()
    )
}

/// Of the listener, which begins with TLS.
const SUBMISSIONS: &str = "  -o smtpd_tls_wrappermode=yes\n  -o smtpd_sasl_auth_enable=yes\n";

/// Key and certificate of the same kind as those of our agents here.
fn certificate() -> Result<String> {
    let made = rcgen::generate_simple_self_signed(["mx.demo.test".to_owned()])?;
    Ok(made.signing_key.serialize_pem() + &made.cert.pem())
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
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
";
