//! What a process asks of its system before it starts work.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;

use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, getrlimit, getuid, setrlimit, umask};

use crate::common::CommonConfig;
use crate::config::{ConfigError, ConfigFile};

/// Raises the number of files that can be open to what the system allows.
pub fn raise_open_files() -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    )?;
    Ok(())
}

/// What this process creates is for its own user; sockets open themselves to their group.
pub fn keep_files_private() {
    umask(Mode::RWXG | Mode::RWXO);
}

/// Creates the folder of sockets, open to the group, if the system has not.
pub(crate) fn make_run_dir(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o750))
}

/// Agents read what strangers send; they need no power over the system.
pub fn refuse_root(file: &ConfigFile, common: &CommonConfig) -> Result<(), ConfigError> {
    if !getuid().is_root() || common.allow_root {
        return Ok(());
    }
    Err(file.error(
        "common.allow_root",
        "this process runs as root",
        "run it as a user of its own, or write `allow_root = true` in section [common]",
    ))
}

/// True if the user is root: allowed, but worth a warning.
pub(crate) fn is_root() -> bool {
    getuid().is_root()
}

/// Tells systemd (or who else set `NOTIFY_SOCKET`) how the process stands: `READY=1`, `STOPPING=1`.
pub fn notify_supervisor(state: &str) -> io::Result<()> {
    match env::var_os("NOTIFY_SOCKET") {
        Some(name) => notify(&name, state),
        None => Ok(()),
    }
}

/// sd_notify(3): a path, or `@` and an abstract name.
fn notify(name: &OsStr, state: &str) -> io::Result<()> {
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(abstract_name) => SocketAddr::from_abstract_name(abstract_name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;

    fn heard(socket: &UnixDatagram) -> Vec<u8> {
        let mut buffer = [0; 64];
        let length = socket.recv(&mut buffer).unwrap();
        buffer[..length].to_vec()
    }

    #[test]
    fn a_supervisor_is_told_by_path_and_by_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        notify(path.as_os_str(), "READY=1").unwrap();
        assert_eq!(heard(&socket), b"READY=1");

        let name = format!("{}", path.display());
        let address = SocketAddr::from_abstract_name(name.as_bytes()).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        notify(&OsString::from(format!("@{name}")), "STOPPING=1").unwrap();
        assert_eq!(heard(&socket), b"STOPPING=1");
    }

    #[test]
    fn open_files_are_raised_to_the_hard_limit() {
        raise_open_files().unwrap();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }

    #[test]
    fn root_is_refused_unless_allowed() {
        let file = ConfigFile::assemble([("p.toml".into(), "[common]\n".to_owned())], []).unwrap();
        let refused = refuse_root(&file, &CommonConfig::default());
        match is_root() {
            true => assert_eq!(
                refused.unwrap_err().to_string(),
                "p.toml:1: common.allow_root: this process runs as root; run it as a user of its \
                 own, or write `allow_root = true` in section [common]"
            ),
            false => refused.unwrap(),
        }
        let allowed = CommonConfig {
            allow_root: true,
            ..CommonConfig::default()
        };
        refuse_root(&file, &allowed).unwrap();
    }
}
