//! What the journey needs on this machine, and its own namespaces.

use std::{
    env,
    os::unix::process::CommandExt as _,
    process::{Command, Stdio},
};

const INSIDE: &str = "POSTROAD_HOSTS_INSIDE";
/// In a namespace that is thrown away.
const TRIALS: [(&[&str], &str); 6] = [
    (
        &["ip", "link", "set", "lo", "up"],
        "the Debian package iproute2",
    ),
    (
        &[
            "nft",
            "add table inet t; add chain inet t c; add rule inet t c numgen random mod 10 0 drop; delete table inet t",
        ],
        "the Debian package nftables, and a kernel that has it",
    ),
    (
        &[
            "ip", "link", "add", "trial", "type", "veth", "peer", "name", "b",
        ],
        "a kernel with veth",
    ),
    (
        &["sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"],
        "the right to route packets in a network namespace",
    ),
    (&["nsenter", "--version"], "the Debian package util-linux"),
    (
        &["mount", "-t", "tmpfs", "tmpfs", "/run"],
        "the right to mount",
    ),
];

/// Goes on in a network and a mount namespace of its own, which vanish with it. Says what is missing, or returns nothing once inside.
pub fn enter() -> Option<String> {
    if env::var_os(INSIDE).is_some() {
        return prepare();
    }
    if !rustix::process::geteuid().is_root() {
        return Some("to be root, to make network namespaces".to_owned());
    }
    let error = Command::new("unshare")
        .args(["--net", "--mount", "--propagation", "private"])
        .args(env::args_os())
        .env(INSIDE, "yes")
        .exec();
    Some(format!("the right to make a network namespace ({error})"))
}

fn prepare() -> Option<String> {
    for (words, remedy) in TRIALS {
        let outcome = Command::new(words[0])
            .args(&words[1..])
            .stdin(Stdio::null())
            .output();
        match outcome {
            Ok(outcome) if outcome.status.success() => {}
            Ok(outcome) => {
                let said = String::from_utf8_lossy(&outcome.stderr).into_owned();
                return Some(format!("{remedy} ({words:?}: {})", said.trim()));
            }
            Err(error) => return Some(format!("{remedy} ({error})")),
        }
    }
    None
}
