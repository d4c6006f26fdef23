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
use std::time::Duration;

use postroad_metrics::{Metrics, list};
use rustix::fs::Mode;
use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, Rlimit, getrlimit, getuid, setrlimit, umask};
use rustix::thread::disable_transparent_huge_pages;
use tracing::warn;

use crate::common::CommonConfig;
use crate::config::{ConfigError, ConfigFile};

/// What every process asks of its system first: files of its own user, as many open ones as it may have, and small pages.
pub fn prepare_process() {
    keep_files_private();
    if let Err(error) = raise_open_files() {
        warn!(%error, "cannot raise the number of open files");
    }
    if let Err(error) = keep_pages_small() {
        warn!(%error, "cannot do without huge pages, which take more memory");
    }
}

/// Raises the number of files that can be open to what the system allows.
fn raise_open_files() -> io::Result<()> {
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

/// Takes memory in pages of the usual size, also where the system gives huge ones to everybody (`transparent_hugepage/enabled` is `always`): this process
/// and what it starts held twice as much with them.
fn keep_pages_small() -> io::Result<()> {
    Ok(disable_transparent_huge_pages(true)?)
}

/// What this process creates is for its own user; sockets open themselves to their group.
fn keep_files_private() {
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

/// Lets these numbers of the process be told, each looked up in `/proc` when somebody asks.
pub fn count_process(metrics: &Metrics) {
    let ticks = clock_ticks_per_second() as f64;
    let page = page_size() as f64;
    let booted = boot_time();
    metrics.read(&list::CPU, &[], move || {
        Some((stat(11)? + stat(12)?) / ticks)
    });
    metrics.read(&list::START, &[], move || Some(booted? + stat(19)? / ticks));
    metrics.read(&list::RESIDENT, &[], move || Some(stat(21)? * page));
    metrics.read(&list::VIRTUAL, &[], || stat(20));
    metrics.read(&list::THREADS, &[], || stat(17));
    metrics.read(&list::OPEN_FILES, &[], || {
        // The one that reads the folder is open too.
        Some(
            fs::read_dir("/proc/self/fd")
                .ok()?
                .count()
                .saturating_sub(1) as f64,
        )
    });
    metrics.read(&list::MOST_FILES, &[], || {
        Some(
            getrlimit(Resource::Nofile)
                .current
                .map_or(f64::INFINITY, |most| most as f64),
        )
    });
}

/// proc_pid_stat(5): a number behind the name of the program, from 0.
fn stat(place: usize) -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name may hold anything, also blanks and parentheses.
    let (_, numbers) = stat.rsplit_once(')')?;
    numbers.split_ascii_whitespace().nth(place)?.parse().ok()
}

/// Seconds since 1970.
fn boot_time() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let time = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    time.trim().parse().ok()
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

/// How often a supervisor wants to hear of this process: half of what it would wait (sd_watchdog_enabled(3)).
pub(crate) fn watchdog_interval() -> Option<Duration> {
    let variable = |name| env::var(name).ok();
    watchdog(
        variable("WATCHDOG_USEC").as_deref(),
        variable("WATCHDOG_PID").as_deref(),
        std::process::id(),
    )
}

/// A process number that is not ours is that of a parent, which the watch is for.
fn watchdog(micros: Option<&str>, process: Option<&str>, own: u32) -> Option<Duration> {
    let is_ours = process.is_none_or(|process| process.parse() == Ok(own));
    let micros: u64 = micros?.parse().ok()?;
    (is_ours && micros > 1).then(|| Duration::from_micros(micros) / 2)
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
    fn a_watchdog_hears_of_its_process_twice_in_its_time() {
        let half = Some(Duration::from_secs(30));
        assert_eq!(watchdog(Some("60000000"), None, 7), half);
        assert_eq!(watchdog(Some("60000000"), Some("7"), 7), half);
        for (micros, process) in [
            (None, None),
            (Some("60000000"), Some("8")),
            (Some("60000000"), Some("x")),
            (Some("0"), None),
            (Some("soon"), None),
        ] {
            assert_eq!(watchdog(micros, process, 7), None, "{micros:?} {process:?}");
        }
    }

    #[test]
    fn the_numbers_of_the_process_are_those_of_the_system() {
        let metrics = Metrics::new("msa");
        count_process(&metrics);
        let page = postroad_metrics::page(&[&metrics]);
        let value = |name: &str| -> f64 {
            let start = format!("{name}{{agent=\"msa\"}} ");
            let line = page.lines().find_map(|line| line.strip_prefix(&start));
            line.unwrap_or_else(|| panic!("{name} in {page}"))
                .parse()
                .unwrap()
        };
        let started = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs_f64()
            - value("process_start_time_seconds");
        assert!((-5.0..24.0 * 3600.0).contains(&started), "{started}");
        let resident = value("process_resident_memory_bytes");
        assert!(resident > 1e6 && resident < value("process_virtual_memory_bytes"));
        assert!(value("process_threads") >= 1.0);
        assert!(value("process_open_fds") >= 3.0);
        assert!(value("process_max_fds") >= value("process_open_fds"));
        assert!(value("process_cpu_seconds_total") >= 0.0);
    }

    #[test]
    fn open_files_are_raised_to_the_hard_limit() {
        raise_open_files().unwrap();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }

    #[test]
    fn no_huge_pages_are_taken() {
        keep_pages_small().unwrap();
        let status = fs::read_to_string("/proc/self/status").unwrap();
        assert!(status.contains("THP_enabled:\t0"), "{status}");
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
