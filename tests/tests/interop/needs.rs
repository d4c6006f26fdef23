//! What a scenario needs on this machine, and which Debian package brings it.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::foreign;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    Swaks,
    Python,
    Curl,
    Msmtp,
    Dnsmasq,
    Postfix,
    Dovecot,
}

impl Need {
    /// What is missing and how to get it, or `None`.
    pub fn missing(self) -> Option<String> {
        let (there, package) = match self {
            // swaks speaks TLS only with this module.
            Self::Swaks => (
                on_path("swaks") && perl_has("Net::SSLeay"),
                "packages swaks and libnet-ssleay-perl",
            ),
            Self::Python => (works(python()), "package python3"),
            Self::Curl => (on_path("curl"), "package curl"),
            Self::Msmtp => (on_path("msmtp"), "package msmtp"),
            Self::Dnsmasq => (on_path("dnsmasq"), "package dnsmasq-base"),
            Self::Postfix => (Path::new(foreign::MASTER).exists(), "package postfix"),
            Self::Dovecot => (
                on_path("dovecot") && on_path("doveadm"),
                "packages dovecot-core and dovecot-imapd",
            ),
        };
        if !there {
            return Some(format!("{package} of Debian"));
        }
        (self.is_privileged() && !rustix::process::geteuid().is_root())
            .then(|| format!("to be root, since {self:?} does"))
    }

    /// Postfix and Dovecot give their parts users of their own, and only root can.
    fn is_privileged(self) -> bool {
        matches!(self, Self::Postfix | Self::Dovecot)
    }
}

/// The interpreter with the packages of `tests/python/requirements.txt`, if there is one.
pub fn python() -> OsString {
    env::var_os("POSTROAD_TEST_PYTHON").unwrap_or_else(|| "python3".into())
}

/// Servers lie outside of the path of plain users.
pub fn search_path() -> OsString {
    let mut path = env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/local/sbin:/usr/sbin:/sbin");
    path
}

fn on_path(program: &str) -> bool {
    let folders: Vec<PathBuf> = env::split_paths(&search_path()).collect();
    folders.iter().any(|folder| folder.join(program).exists())
}

fn perl_has(module: &str) -> bool {
    let mut command = Command::new("perl");
    let command = command.args([&format!("-M{module}"), "-e", "1"]);
    command
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn works(program: OsString) -> bool {
    let mut command = Command::new(program);
    let command = command
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
