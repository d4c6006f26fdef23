//! The demo's folder: certificate, directory, configuration, `demo.json`.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::certificate::Files;
use super::listeners;
use crate::account::{hash, random_password};
use crate::fault::Fault;
use crate::home::{DemoAccount, DemoCard, DemoPorts, private_folder};

/// RFC 2606 §2: a domain that can be nobody's.
pub const DOMAIN: &str = "demo.test";
const PEOPLE: [&str; 2] = ["alice", "bob"];
/// The longest path of a Unix socket, without the octet that ends it.
const LONGEST_SOCKET: usize = 107;

/// What the demo shall be like.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where everything lies.
    pub folder: PathBuf,
    /// Where it listens.
    pub ports: DemoPorts,
    /// Whether this host has `::1`.
    pub ipv6: bool,
    /// Whether mail for other domains leaves.
    pub relay: bool,
}

/// Writes the folder. What a second start finds is kept: accounts with their passwords, certificate, mail.
pub fn write(plan: &Plan) -> Result<DemoCard, Fault> {
    let folder = &plan.folder;
    let failed = |error: io::Error| Fault::NotDone(format!("{}: {error}", folder.display()));
    if folder.to_str().is_none() {
        return Err(Fault::NotDone(format!(
            "{} is not UTF-8; choose another folder with --data",
            folder.display()
        )));
    }
    private_folder(folder).map_err(failed)?;
    let run_dir = run_dir(folder).map_err(failed)?;
    let files = Files::in_folder(folder);
    files.ensure()?;
    let directory = folder.join("directory.toml");
    let known = DemoCard::read(folder).ok().filter(|_| directory.is_file());
    let accounts = match known {
        Some(card) => card.accounts,
        None => write_directory(&directory)?,
    };
    write_private(
        &folder.join("zone"),
        "; The demo asks no name server: here nothing exists.\n",
    )?;
    let card = DemoCard {
        domain: DOMAIN.to_owned(),
        ca_file: files.ca.clone(),
        accounts,
        ports: plan.ports,
        queue: format!("unix:{}", run_dir.join("queue.sock").display()),
        maildir_root: folder.join("mail"),
        config: folder.join("postroad.toml"),
    };
    write_private(&card.config, &configuration(plan, &card, &files, &run_dir))?;
    let json = serde_json::to_string_pretty(&card).map_err(Fault::not_done)?;
    write_private(&folder.join(DemoCard::FILE), &format!("{json}\n"))?;
    Ok(card)
}

/// Replaces a file by one that only this user may read.
pub fn write_private(path: &Path, text: &str) -> Result<(), Fault> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let written = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        file.write_all(text.as_bytes())?;
        fs::rename(&new, path)
    })();
    written.map_err(|error| Fault::NotDone(format!("{}: {error}", path.display())))
}

/// In the folder, unless that makes names no socket can have.
fn run_dir(folder: &Path) -> io::Result<PathBuf> {
    let inside = folder.join("run");
    let longest = inside.join("queue-admin.sock");
    let run_dir = match longest.as_os_str().len() <= LONGEST_SOCKET {
        true => inside,
        false => {
            let user = rustix::process::getuid().as_raw();
            std::env::temp_dir().join(format!("postroad-{user}-{:08x}", fingerprint(folder)))
        }
    };
    private_folder(&run_dir)?;
    Ok(run_dir)
}

/// FNV-1a: the same folder has the same sockets at each start.
fn fingerprint(folder: &Path) -> u32 {
    folder
        .as_os_str()
        .as_bytes()
        .iter()
        .fold(0x811c_9dc5, |hash, &octet| {
            (hash ^ u32::from(octet)).wrapping_mul(0x0100_0193)
        })
}

fn write_directory(path: &Path) -> Result<Vec<DemoAccount>, Fault> {
    let mut text = format!(
        "# Made by `postroad run --demo`, once; `postroad account add` adds to it.\n\n\
         [[domain]]\nname = \"{DOMAIN}\"\npostmaster = \"{}@{DOMAIN}\"\n",
        PEOPLE[0]
    );
    let mut accounts = Vec::new();
    for person in PEOPLE {
        let account = DemoAccount {
            address: format!("{person}@{DOMAIN}"),
            password: random_password(),
        };
        let hash = hash(&account.password)?;
        text.push_str(&format!(
            "\n[[account]]\naddress = \"{}\"\npassword_hash = \"{hash}\"\n",
            account.address
        ));
        accounts.push(account);
    }
    write_private(path, &text)?;
    Ok(accounts)
}

fn configuration(plan: &Plan, card: &DemoCard, files: &Files, run_dir: &Path) -> String {
    let folder = &plan.folder;
    let addresses = |port| {
        let all: Vec<String> = listeners(port, plan.ipv6)
            .iter()
            .map(|address| format!("\"{address}\""))
            .collect();
        format!("[{}]", all.join(", "))
    };
    let named = |port, name: &str| {
        let all = listeners(port, plan.ipv6).into_iter().enumerate();
        let all: Vec<String> = all
            .map(|(index, address)| {
                format!(
                    "{name}{} = \"{address}\"",
                    if index == 0 { "" } else { "_ipv6" }
                )
            })
            .collect();
        format!("{{ {} }}", all.join(", "))
    };
    let certificates = format!(
        "[{{ cert_file = {}, key_file = {} }}]",
        quoted(&files.cert),
        quoted(&files.key)
    );
    let dns = match plan.relay {
        true => String::new(),
        false => format!("dns.zone = {}\n", quoted(&folder.join("zone"))),
    };
    format!(
        r#"# Written by `postroad run --demo` at each start; what is changed here is lost.

[common]
hostname = "mail.{DOMAIN}"
domain = "{DOMAIN}"
state_dir = {state_dir}
run_dir = {run_dir}
directory = {directory}
queue = "{queue}"
shutdown_grace = "5s"
allow_root = true
log.level = "warn"
{dns}
[queued]
foreign = "{foreign}"
disk = {{ segment = "8MiB", reserve = "64MiB", reserve_percent = 0 }}

[msa]
submission = {submission}
submissions = {submissions}
certificates = {certificates}

[mta.inbound]
listeners = {smtp}
certificates = {certificates}

[mta.outbound]
enabled = {relay}

[mda]
mail_root = {mail_root}
lmtp.listeners = {lmtp}
"#,
        state_dir = quoted(&folder.join("state")),
        run_dir = quoted(run_dir),
        directory = quoted(&folder.join("directory.toml")),
        queue = card.queue.replace('\\', "\\\\").replace('"', "\\\""),
        foreign = if plan.relay { "relay" } else { "hold" },
        submission = addresses(plan.ports.submission),
        submissions = addresses(plan.ports.submissions),
        smtp = named(plan.ports.smtp, "smtp"),
        relay = plan.relay,
        mail_root = quoted(&card.maildir_root),
        lmtp = named(plan.ports.lmtp, "lmtp"),
    )
}

/// A path as a TOML string, whose escapes are those of JSON.
fn quoted(path: &Path) -> String {
    serde_json::Value::from(path.display().to_string()).to_string()
}

/// A word for the shell.
pub fn shell(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "@%+=:,./_-".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use postroad_directory::Directory;

    use super::*;
    use crate::check::inspect;

    fn plan(folder: &Path) -> Plan {
        let ports = DemoPorts {
            smtp: 2025,
            submission: 2587,
            submissions: 2465,
            lmtp: 2024,
        };
        Plan {
            folder: folder.to_owned(),
            ports,
            ipv6: true,
            relay: false,
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn the_folder_is_private_and_passes_the_check() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("it's \"here\"");
        let card = write(&plan(&folder)).unwrap();
        assert_eq!(mode(&folder), 0o700);
        for file in ["demo.json", "directory.toml", "postroad.toml", "key.pem"] {
            assert_eq!(mode(&folder.join(file)), 0o600, "{file}");
        }
        assert_eq!(inspect(&card.config).problems, Vec::<String>::new());
        let relay = write(&Plan {
            relay: true,
            ..plan(&folder)
        })
        .unwrap();
        assert_eq!(inspect(&relay.config).problems, Vec::<String>::new());
    }

    #[test]
    fn a_second_start_keeps_accounts_and_passwords() {
        let folder = tempfile::tempdir().unwrap();
        let first = write(&plan(folder.path())).unwrap();
        let added = postroad_address::Mailbox::parse("carol@demo.test").unwrap();
        let directory = folder.path().join("directory.toml");
        postroad_directory::add_account(&directory, &added, &hash("x").unwrap().into(), None)
            .unwrap();
        let mut other = plan(folder.path());
        other.ports.smtp = 3025;
        let second = write(&other).unwrap();
        assert_eq!(first.accounts, second.accounts);
        assert_eq!(second.ports.smtp, 3025);
        assert_eq!(DemoCard::read(folder.path()).unwrap(), second);
        let directory = Directory::load(&directory).unwrap();
        assert_eq!(directory.accounts().len(), 3);
        for account in &second.accounts {
            assert!(
                directory
                    .verify(&account.address, account.password.as_bytes())
                    .is_some()
            );
        }
    }

    #[test]
    fn a_long_folder_has_its_sockets_elsewhere() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("x".repeat(90));
        let card = write(&plan(&folder)).unwrap();
        let socket = card.queue.strip_prefix("unix:").unwrap();
        assert!(socket.len() <= LONGEST_SOCKET, "{socket}");
        fs::remove_dir_all(Path::new(socket).parent().unwrap()).unwrap();
    }

    #[test]
    fn words_for_the_shell_are_quoted_when_they_must_be() {
        assert_eq!(shell("/a/b-c.pem"), "/a/b-c.pem");
        assert_eq!(shell("it's here"), r"'it'\''s here'");
    }
}
