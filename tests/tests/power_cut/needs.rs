//! What a power cut needs on this machine.

use std::{
    env,
    ffi::OsString,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, Stdio},
};

use crate::disk::Disk;

const INSIDE: &str = "POSTROAD_POWER_CUT_INSIDE";
const PROGRAMS: [(&str, &str); 4] = [
    ("mkfs.ext4", "the Debian package e2fsprogs"),
    ("mount", "the Debian package mount"),
    ("unshare", "the Debian package util-linux"),
    ("cc", "the Debian package gcc"),
];

/// Goes on in a mount namespace of its own, so that nothing stays mounted however this ends, and nobody else's process
/// pins our mounts. Says what is missing, or returns nothing once inside.
pub fn enter() -> Option<String> {
    if env::var_os(INSIDE).is_some() {
        return None;
    }
    if !rustix::process::geteuid().is_root() {
        return Some("to be root, to mount".to_owned());
    }
    let missing = PROGRAMS.iter().find(|(program, _)| !on_path(program));
    if let Some((_, package)) = missing {
        return Some((*package).to_owned());
    }
    if !works(Command::new(python()).args(["-c", "import fcntl"])) {
        return Some("the Debian package python3".to_owned());
    }
    let unshared = ["--mount", "--propagation", "private"];
    if !works(Command::new("unshare").args(unshared).arg("true")) {
        return Some("the right to make a mount namespace".to_owned());
    }
    let error = Command::new("unshare")
        .args(unshared)
        .args(env::args_os())
        .env(INSIDE, "yes")
        .exec();
    Some(format!("unshare: {error}"))
}

/// Whether loop devices can be had and mounted; asked inside.
pub fn no_loop_device(folder: &Path) -> Option<String> {
    let mounted = Disk::new(folder, "trial").and_then(|mut disk| {
        disk.mount("defaults")?;
        disk.unmount()
    });
    let error = mounted.err()?;
    Some(format!(
        "loop devices and the right to mount ext4 ({error:#})"
    ))
}

pub fn python() -> OsString {
    env::var_os("POSTROAD_TEST_PYTHON").unwrap_or_else(|| "python3".into())
}

/// What mounts lies outside of the path of plain users.
pub fn search_path() -> OsString {
    let mut path = env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin:/sbin");
    path
}

fn on_path(program: &str) -> bool {
    env::split_paths(&search_path()).any(|folder| folder.join(program).exists())
}

fn works(command: &mut Command) -> bool {
    let command = command.stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
