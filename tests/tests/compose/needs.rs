//! What the journey needs on this machine, and which Debian package brings it.

use std::time::Duration;

use tokio::process::Command;

use crate::docker::{compose_words, outcome_of};

const PATIENCE: Duration = Duration::from_secs(60);

/// What is missing, in words.
pub async fn missing() -> Vec<&'static str> {
    let compose = [compose_words(), vec!["version".to_owned()]].concat();
    let mut missing = Vec::new();
    for (words, remedy) in [
        (
            vec!["docker".to_owned(), "info".to_owned()],
            "a Docker engine that runs (the Debian package docker.io)",
        ),
        (
            compose,
            "docker-compose (the Debian package docker-compose)",
        ),
        (
            vec!["curl".to_owned(), "--version".to_owned()],
            "the Debian package curl",
        ),
        (
            vec!["ip".to_owned(), "-Version".to_owned()],
            "the Debian package iproute2",
        ),
        (
            vec!["debootstrap".to_owned(), "--version".to_owned()],
            "the Debian package debootstrap",
        ),
        (
            vec!["cargo".to_owned(), "deb".to_owned(), "--version".to_owned()],
            "cargo-deb (cargo install cargo-deb)",
        ),
    ] {
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        let outcome = outcome_of(&mut command, b"", PATIENCE).await;
        if !outcome.is_ok_and(|outcome| outcome.status.success()) {
            missing.push(remedy);
        }
    }
    if !rustix::process::geteuid().is_root() {
        missing.push("to be root, since debootstrap does");
    }
    missing
}
