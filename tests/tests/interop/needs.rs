//! What a scenario needs on this machine, and which Debian package brings it.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::foreign;

const AIOSMTPD: &str = "the Python package aiosmtpd (tests/python/requirements.txt; POSTROAD_TEST_PYTHON names the interpreter)";
const EXIM: &str = "the program of the Debian package exim4-daemon-light, which is not installed beside postfix: unpack it (dpkg-deb -x), \
     make its user Debian-exim, and name usr/sbin/exim4 by POSTROAD_TEST_EXIM";
const FLUFL: &str = "the Python package flufl.bounce (tests/python/requirements.txt; POSTROAD_TEST_PYTHON names the interpreter)";
const GRPC: &str = "the Python packages of proto/examples/python/requirements.txt (POSTROAD_TEST_PYTHON names the interpreter)";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    Swaks,
    Python,
    Curl,
    Msmtp,
    Dnsmasq,
    Postfix,
    Dovecot,
    Exim,
    Aiosmtpd,
    Flufl,
    Grpc,
    Mailx,
    Mutt,
}

impl Need {
    /// What is missing and how to get it, or `None`.
    pub fn missing(self) -> Option<String> {
        let (there, package) = match self {
            // swaks speaks TLS only with this module.
            Self::Swaks => (
                on_path("swaks") && perl_has("Net::SSLeay"),
                "the Debian packages swaks and libnet-ssleay-perl",
            ),
            Self::Python => (python_has("smtplib"), "the Debian package python3"),
            Self::Aiosmtpd => (python_has("aiosmtpd"), AIOSMTPD),
            Self::Flufl => (python_has("flufl.bounce"), FLUFL),
            Self::Grpc => (python_has("grpc_tools, google_crc32c"), GRPC),
            Self::Mailx => (on_path("mailx"), "the Debian package bsd-mailx"),
            Self::Mutt => (on_path("mutt"), "the Debian package mutt"),
            Self::Curl => (on_path("curl"), "the Debian package curl"),
            Self::Msmtp => (on_path("msmtp"), "the Debian package msmtp"),
            Self::Dnsmasq => (on_path("dnsmasq"), "the Debian package dnsmasq-base"),
            Self::Postfix => (
                Path::new(foreign::MASTER).exists(),
                "the Debian package postfix",
            ),
            Self::Dovecot => (
                ["imap", "pop3", "lmtp"]
                    .iter()
                    .all(|part| Path::new("/usr/lib/dovecot").join(part).exists()),
                "the Debian packages dovecot-core, dovecot-imapd, dovecot-pop3d and dovecot-lmtpd",
            ),
            Self::Exim => (
                foreign::exim().exists() && foreign::user(foreign::EXIM_USER).is_ok(),
                EXIM,
            ),
        };
        if !there {
            return Some(package.to_owned());
        }
        (self.is_privileged() && !rustix::process::geteuid().is_root())
            .then(|| format!("to be root, since {self:?} does"))
    }

    /// Postfix, Dovecot and Exim give their parts users of their own, programs run as a user of theirs; only root can do that.
    fn is_privileged(self) -> bool {
        matches!(
            self,
            Self::Mailx | Self::Mutt | Self::Postfix | Self::Dovecot | Self::Exim
        )
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
    works(Command::new("perl").args([&format!("-M{module}"), "-e", "1"]))
}

fn python_has(module: &str) -> bool {
    works(Command::new(python()).args(["-c", &format!("import {module}")]))
}

fn works(command: &mut Command) -> bool {
    let command = command.stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
