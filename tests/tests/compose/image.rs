//! The image, built as where no image can be pulled.

use std::{env, path::PathBuf, time::Duration};

use anyhow::{Result, ensure};
use tokio::process::Command;

use crate::docker::{cache, docker, output_of, source};

/// What the journey calls it.
pub const TAG: &str = "postroad:journey";
/// What the image may weigh, in octets.
const LARGEST: u64 = 60_000_000;
const PATIENCE: Duration = Duration::from_secs(2400);

pub async fn build() -> Result<()> {
    let profile = env::var("POSTROAD_TEST_PROFILE").unwrap_or_else(|_| "release".to_owned());
    let mut build = Command::new(source().join("deploy/docker/build-local"));
    build.args(["--tag", TAG]);
    if env::var_os("POSTROAD_BINARY").is_none() {
        build.args(["--profile", &profile]);
    }
    output_of(&mut build, b"", PATIENCE).await?;
    copy_program().await?;

    let size: u64 = docker(&["image", "inspect", "--format", "{{.Size}}", TAG])
        .await?
        .parse()?;
    println!("the image has {:.1} MB", size as f64 / 1e6);
    ensure!(size < LARGEST, "the image has {size} octets");
    // All five names, no shell, no user with a name.
    for (program, answer) in [
        ("postroad", "postroad "),
        ("postroad-queued", "postroad-queued "),
        ("postroad-msa", "postroad-msa "),
        ("postroad-mta", "postroad-mta "),
        ("postroad-mda", "postroad-mda "),
    ] {
        let said = docker(&["run", "--rm", "--network=none", TAG, program, "--version"]).await?;
        ensure!(said.starts_with(answer), "{program} --version: {said}");
    }
    let user = docker(&["image", "inspect", "--format", "{{.Config.User}}", TAG]).await?;
    ensure!(user == "10001:10001", "{user}");
    Ok(())
}

/// The program that is in the image.
pub fn binary() -> Result<PathBuf> {
    Ok(cache()?.join("postroad"))
}

async fn copy_program() -> Result<()> {
    let container = docker(&["create", "--label", "postroad.test=image", TAG]).await?;
    let from = format!("{container}:/usr/bin/postroad");
    let copied = docker(&["cp", &from, &binary()?.to_string_lossy()]).await;
    docker(&["rm", &container]).await?;
    copied.map(drop)
}
