//! The guide, followed to the letter: each block of commands of `deploy/guide/compose.md` is run, in order, in one folder.
//!
//! `<!-- shows: TEXT -->` before a block says what it must show; the block is run again until it does. The address of the server in the guide is
//! one of loopback here, and the image is made of a program that was built before.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use tokio::process::Command;

use crate::{
    docker::{Compose, compose_words, docker, looking, outcome_of, output_of, source},
    elsewhere, image, told,
};

const PROJECT: &str = "postroad-guide";
const IMAGES: [&str; 2] = ["postroad:guide", "postroad:before"];
/// The server in the guide, and here.
const ADDRESS: [&str; 2] = ["203.0.113.5", "127.77.0.2"];
const PATIENCE: Duration = Duration::from_secs(240);

/// A block of commands.
struct Block {
    section: String,
    commands: String,
    shows: Option<String>,
}

/// Runs the whole guide.
pub async fn follow(passed: &mut usize) -> Result<()> {
    let text = fs::read_to_string(source().join("deploy/guide/compose.md"))?;
    let blocks = blocks(&text);
    ensure!(blocks.len() > 10, "{} blocks of commands", blocks.len());
    let reader = Reader::new()?;
    reader.tidy().await?;
    let mut followed = Ok(());
    for (number, block) in blocks.iter().enumerate() {
        let name = format!("guide: {} ({})", block.section, number + 1);
        followed = told(&name, passed, reader.run(block)).await;
        if followed.is_err() {
            break;
        }
    }
    let tidied = reader.tidy().await;
    followed.and(tidied)
}

/// Who follows the guide.
struct Reader {
    folder: TempDir,
    compose: Compose,
}

impl Reader {
    fn new() -> Result<Self> {
        // A copy, so that .env and what the guide writes do not lie about in the source.
        let folder = tempfile::Builder::new()
            .prefix("postroad-guide-")
            .tempdir()?;
        copy_folder(
            &source().join("deploy/docker"),
            &folder.path().join("deploy/docker"),
        )?;
        let compose = Compose::new(PROJECT, &[], Path::new(".env"));
        Ok(Self { folder, compose })
    }

    async fn run(&self, block: &Block) -> Result<()> {
        let Some(text) = &block.shows else {
            output_of(&mut self.shell(&block.commands)?, b"", PATIENCE).await?;
            return Ok(());
        };
        let mut last = String::new();
        let what = format!("{text:?}");
        let shown = looking(&what, async || {
            let mut shell = self.shell(&block.commands).ok()?;
            let outcome = outcome_of(&mut shell, b"", PATIENCE).await.ok()?;
            let both = [outcome.stdout, outcome.stderr].concat();
            last = String::from_utf8_lossy(&both).into_owned();
            (outcome.status.success() && last.contains(text)).then_some(())
        });
        shown
            .await
            .with_context(|| format!("{}\n{last}", block.commands))
    }

    fn shell(&self, commands: &str) -> Result<Command> {
        let here = self.folder.path().join("deploy/docker");
        let compose = compose_words().join(" ");
        let mut script = String::from("set -euo pipefail\n");
        if compose != "docker-compose" {
            script += &format!("docker-compose() {{ {compose} \"$@\"; }}\n");
        }
        script += &commands.replace(ADDRESS[0], ADDRESS[1]);
        let mut shell = Command::new("bash");
        shell
            .args(["-c", &script])
            .current_dir(here)
            .env("COMPOSE_PROJECT_NAME", PROJECT)
            .env("POSTROAD_PUBLISH", format!("{}:", ADDRESS[1]))
            .env("POSTROAD_IMAGE", IMAGES[0])
            .env("POSTROAD_BALANCER_IMAGE", elsewhere::TAG)
            .env("POSTROAD_BINARY", image::binary()?);
        Ok(shell)
    }

    async fn tidy(&self) -> Result<()> {
        self.compose.remove().await?;
        for image in IMAGES {
            // It may never have been made.
            let _ = docker(&["image", "rm", "--force", image]).await;
        }
        Ok(())
    }
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else if entry.file_name() != ".env" {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// The blocks marked `sh`.
fn blocks(text: &str) -> Vec<Block> {
    let (mut section, mut shows, mut blocks) = (String::new(), None, Vec::new());
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(title) = line.strip_prefix("## ") {
            section = title.to_owned();
        } else if let Some(text) = line.strip_prefix("<!-- shows: ") {
            shows = text.strip_suffix(" -->").map(ToOwned::to_owned);
        } else if line == "```sh" {
            let commands: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            blocks.push(Block {
                section: section.clone(),
                commands: commands.join("\n"),
                shows: shows.take(),
            });
        }
    }
    blocks
}
