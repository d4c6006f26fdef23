//! Which installation a verb is about: a configuration that was named, a demo, or the one of this host.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use postroad_daemon::{CommonConfig, ConfigFile, DEFAULT_CONFIG_FILE};
use postroad_directory::Directory;
use serde::{Deserialize, Serialize};

use crate::fault::Fault;
use crate::terminal::Terminal;

/// What the demo writes into its folder as `demo.json`, for scripts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DemoCard {
    /// The domain of the accounts.
    pub domain: String,
    /// The authority of the demo's certificate (PEM).
    pub ca_file: PathBuf,
    /// Who can log in.
    pub accounts: Vec<DemoAccount>,
    /// Where it listens, on 127.0.0.1 and ::1.
    pub ports: DemoPorts,
    /// The address of the queue's gRPC socket.
    pub queue: String,
    /// Where the Maildirs are.
    pub maildir_root: PathBuf,
    /// The configuration it runs with.
    pub config: PathBuf,
}

/// An account of the demo.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DemoAccount {
    /// Its address, also the name to log in with.
    pub address: String,
    /// Its password.
    pub password: String,
}

/// Ports of the demo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DemoPorts {
    /// From the world.
    pub smtp: u16,
    /// Submission with STARTTLS.
    pub submission: u16,
    /// Submission with implicit TLS.
    pub submissions: u16,
    /// LMTP into the mailboxes.
    pub lmtp: u16,
}

impl DemoCard {
    /// The name of the file.
    pub const FILE: &str = "demo.json";

    /// Reads it from a demo's folder.
    pub fn read(folder: &Path) -> io::Result<Self> {
        let text = fs::read(folder.join(Self::FILE))?;
        serde_json::from_slice(&text).map_err(io::Error::other)
    }
}

/// An installation: its configuration, and the demo it belongs to if it is one.
#[derive(Debug)]
pub struct Home {
    /// The configuration.
    pub file: ConfigFile,
    /// `[common]`.
    pub common: CommonConfig,
    /// Set for a demo.
    pub demo: Option<DemoCard>,
}

impl Home {
    /// The installation a verb is about, with the rule of the crate's manual page.
    pub fn open(config: Option<&Path>, terminal: &mut Terminal<'_>) -> Result<Self, Fault> {
        let (path, demo) = choose(config, last_demo());
        if let Some(demo) = demo.as_ref().filter(|_| config.is_none()) {
            let folder = demo.config.parent().unwrap_or(&demo.config);
            terminal.say(format_args!("(the demo in {})", folder.display()));
        }
        let file = ConfigFile::load(&path)?;
        let common = file.common()?;
        Ok(Self { file, common, demo })
    }

    /// The directory of accounts.
    pub fn directory(&self) -> Result<Directory, Fault> {
        Ok(Directory::load(&self.common.directory)?)
    }
}

/// The configuration, and the demo if it belongs to one.
pub fn choose(named: Option<&Path>, last: Option<DemoCard>) -> (PathBuf, Option<DemoCard>) {
    if let Some(path) = named {
        let card = path.parent().and_then(|folder| DemoCard::read(folder).ok());
        return (path.to_owned(), card.filter(|card| card.config == path));
    }
    match last {
        Some(card) if runs(&card) || !Path::new(DEFAULT_CONFIG_FILE).exists() => {
            (card.config.clone(), Some(card))
        }
        _ => (DEFAULT_CONFIG_FILE.into(), None),
    }
}

/// Whether someone answers on the demo's socket.
fn runs(card: &DemoCard) -> bool {
    card.queue
        .strip_prefix("unix:")
        .is_some_and(|path| UnixStream::connect(path).is_ok())
}

/// The demo that was started last, if its folder is still there.
pub fn last_demo() -> Option<DemoCard> {
    let folder = fs::read_to_string(state_folder().ok()?.join(LAST_DEMO)).ok()?;
    DemoCard::read(Path::new(folder.trim_end_matches('\n'))).ok()
}

/// Remembers a demo's folder for the verbs typed in another shell.
pub fn remember_demo(folder: &Path) -> io::Result<()> {
    let state = state_folder()?;
    private_folder(&state)?;
    fs::write(state.join(LAST_DEMO), format!("{}\n", folder.display()))
}

const LAST_DEMO: &str = "last-demo";

/// Where a demo lives unless told otherwise.
pub fn demo_folder() -> io::Result<PathBuf> {
    user_folder("XDG_DATA_HOME", ".local/share", "postroad-demo")
}

fn state_folder() -> io::Result<PathBuf> {
    user_folder("XDG_STATE_HOME", ".local/state", "postroad")
}

/// A folder of this user by the XDG rules; without a home, one in the folder for temporary files.
fn user_folder(variable: &str, below_home: &str, name: &str) -> io::Result<PathBuf> {
    let absolute = |variable| {
        std::env::var_os(variable)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    if let Some(base) = absolute(variable) {
        return Ok(base.join(name));
    }
    if let Some(home) = absolute("HOME").filter(|home| home.is_dir()) {
        return Ok(home.join(below_home).join(name));
    }
    let user = rustix::process::getuid().as_raw();
    Ok(std::env::temp_dir().join(format!("{name}-{user}")))
}

/// Makes a folder that only this user may enter. One that is there must be ours: in a folder for temporary files
/// anyone could have put it there.
pub fn private_folder(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)?;
    let found = fs::metadata(path)?;
    if found.uid() != rustix::process::getuid().as_raw() {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("{} belongs to another user", path.display()),
        ));
    }
    if found.mode() & 0o077 != 0 {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(config: &Path) -> DemoCard {
        DemoCard {
            domain: "demo.test".to_owned(),
            ca_file: "ca.pem".into(),
            accounts: Vec::new(),
            ports: DemoPorts {
                smtp: 1,
                submission: 2,
                submissions: 3,
                lmtp: 4,
            },
            queue: "unix:/nowhere".to_owned(),
            maildir_root: "mail".into(),
            config: config.to_owned(),
        }
    }

    #[test]
    fn a_named_configuration_is_a_demo_if_its_folder_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("postroad.toml");
        assert_eq!(
            choose(Some(&config), Some(card(Path::new("/other")))),
            (config.clone(), None)
        );
        let ours = card(&config);
        fs::write(
            folder.path().join(DemoCard::FILE),
            serde_json::to_vec(&ours).unwrap(),
        )
        .unwrap();
        assert_eq!(choose(Some(&config), None), (config.clone(), Some(ours)));
        let other = folder.path().join("other.toml");
        assert_eq!(choose(Some(&other), None), (other, None));
    }

    #[test]
    fn a_private_folder_is_closed_to_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        private_folder(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        private_folder(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
    }
}
