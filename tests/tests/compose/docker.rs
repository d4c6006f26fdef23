//! The programs `docker` and Compose, with a deadline for each call, and what they leave behind.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use postroad_tests::wait_for_within;
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt as _, process::Command, time::timeout};

/// Longer than any one call takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(240);
/// Between two looks at something that Docker knows.
const PAUSE: Duration = Duration::from_millis(200);

/// The root of the project.
pub fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Where files that are worth keeping between runs lie.
pub fn cache() -> Result<PathBuf> {
    let folder = source().join("target/compose-journey");
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// Runs a program and returns what it wrote to standard output; anything but success is an error that shows all it said.
pub async fn output_of(command: &mut Command, input: &[u8], patience: Duration) -> Result<Vec<u8>> {
    let shown = format!("{:?}", command.as_std());
    let Output {
        status,
        stdout,
        stderr,
    } = outcome_of(command, input, patience)
        .await
        .with_context(|| shown.clone())?;
    ensure!(
        status.success(),
        "{shown} ended with {status}\n{}{}",
        String::from_utf8_lossy(&stdout),
        String::from_utf8_lossy(&stderr)
    );
    Ok(stdout)
}

/// The same whatever its status is.
pub async fn outcome_of(command: &mut Command, input: &[u8], patience: Duration) -> Result<Output> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    let feed = async move {
        // A program that does not read is no fault.
        let _ = stdin.write_all(input).await;
    };
    let waited = async { tokio::join!(feed, child.wait_with_output()).1 };
    let waited = timeout(patience, waited).await;
    Ok(waited.with_context(|| format!("it did not end within {} s", patience.as_secs()))??)
}

/// `docker …`; what it wrote, without the line end.
pub async fn docker(arguments: &[&str]) -> Result<String> {
    let written = docker_octets(arguments, b"").await?;
    Ok(String::from_utf8(written)?.trim_end().to_owned())
}

/// `docker …` with input.
pub async fn docker_octets(arguments: &[&str], input: &[u8]) -> Result<Vec<u8>> {
    output_of(Command::new("docker").args(arguments), input, PATIENCE).await
}

/// The log of a container.
pub async fn said(container: &str) -> Result<String> {
    let mut command = Command::new("docker");
    let outcome = outcome_of(command.args(["logs", container]), b"", PATIENCE).await?;
    let both = [outcome.stdout, outcome.stderr].concat();
    Ok(String::from_utf8_lossy(&both).into_owned())
}

/// A running Compose project, with all it has in Docker.
pub struct Compose {
    pub project: String,
    files: Vec<PathBuf>,
    env_file: PathBuf,
    variables: Vec<(String, String)>,
}

impl Compose {
    /// Of these files; nothing starts.
    pub fn new(project: &str, files: &[PathBuf], env_file: &Path) -> Self {
        Self {
            project: project.to_owned(),
            files: files.to_vec(),
            env_file: env_file.to_owned(),
            variables: Vec::new(),
        }
    }

    /// Sets a variable of every call.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A call of Compose about this project.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let words = compose_words();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        command.arg("--env-file").arg(&self.env_file);
        command.args(["-p", &self.project]);
        for file in &self.files {
            command.arg("-f").arg(file);
        }
        command.args(arguments).envs(self.variables.iter().cloned());
        command
    }

    /// Runs one and returns what it wrote.
    pub async fn run(&self, arguments: &[&str]) -> Result<String> {
        let written = output_of(&mut self.command(arguments), b"", PATIENCE).await?;
        Ok(String::from_utf8(written)?)
    }

    /// The only container of a service, whether it runs or not.
    pub async fn container(&self, service: &str) -> Result<String> {
        let mut containers = self.containers(service).await?.into_iter();
        match (containers.next(), containers.next()) {
            (Some(id), None) => Ok(id),
            (None, _) => bail!("no container of {service}"),
            _ => bail!("several containers of {service}"),
        }
    }

    /// All its containers.
    pub async fn containers(&self, service: &str) -> Result<Vec<String>> {
        let project = format!("label=com.docker.compose.project={}", self.project);
        let of_service = format!("label=com.docker.compose.service={service}");
        let ids = docker(&[
            "ps",
            "--all",
            "--quiet",
            "--no-trunc",
            "--filter",
            &project,
            "--filter",
            &of_service,
            "--filter",
            "label=com.docker.compose.oneoff=False",
        ])
        .await?;
        Ok(ids.lines().map(ToOwned::to_owned).collect())
    }

    /// A field of the container of a service, as a Go template.
    pub async fn inspect(&self, service: &str, template: &str) -> Result<String> {
        let container = self.container(service).await?;
        docker(&["inspect", "--format", template, &container]).await
    }

    /// Waits until the health checks of all its containers pass.
    pub async fn healthy(&self, service: &str) -> Result<()> {
        let template = "{{.State.Status}} {{.State.Health.Status}}";
        looking(&format!("health of {service}"), async || {
            let containers = self.containers(service).await.ok()?;
            let words = ["inspect", "--format", template];
            let all: Vec<&str> = containers.iter().map(String::as_str).collect();
            let states = docker(&[&words, &all[..]].concat()).await.ok()?;
            let well = states.lines().filter(|state| *state == "running healthy");
            (!all.is_empty() && well.count() == all.len()).then_some(())
        })
        .await
    }

    /// Runs a program in the container of a service, as its user.
    pub async fn exec(&self, service: &str, arguments: &[&str]) -> Result<String> {
        let container = self.container(service).await?;
        docker(&[&["exec", &container], arguments].concat()).await
    }

    /// The file or folder `path` of a container of a service, in a folder of this machine.
    pub async fn copy(&self, service: &str, path: &str) -> Result<TempDir> {
        let folder = tempfile::tempdir()?;
        let containers = self.containers(service).await?;
        let container = containers.first().context("no container")?;
        let from = format!("{container}:{path}");
        let to = folder.path().join("copy");
        docker(&["cp", &from, &to.to_string_lossy()]).await?;
        Ok(folder)
    }

    /// A network of the project as Docker calls it.
    pub fn network(&self, name: &str) -> String {
        format!("{}_{name}", self.project)
    }

    /// The last lines of all logs.
    pub async fn last_words(&self) -> String {
        let logs = self.command(&["logs", "--no-color", "--tail", "40"]);
        let mut logs = logs;
        match outcome_of(&mut logs, b"", PATIENCE).await {
            Ok(said) => String::from_utf8_lossy(&said.stdout).into_owned(),
            Err(error) => format!("no logs: {error:#}"),
        }
    }

    /// Removes all there is of the project, also what a broken run left.
    pub async fn remove(&self) -> Result<()> {
        let label = format!("label=com.docker.compose.project={}", self.project);
        remove(&label).await
    }
}

/// The Compose program: a word or two.
pub fn compose_words() -> Vec<String> {
    let named = env::var("POSTROAD_TEST_COMPOSE").unwrap_or_else(|_| "docker-compose".to_owned());
    named.split_whitespace().map(ToOwned::to_owned).collect()
}

/// Removes containers, networks and volumes that a filter finds.
pub async fn remove(filter: &str) -> Result<()> {
    let kinds: [(&[&str], &[&str]); 3] = [
        (&["ps", "--all"], &["rm", "--force", "--volumes"]),
        (&["network", "ls"], &["network", "rm"]),
        (&["volume", "ls"], &["volume", "rm"]),
    ];
    for (list, end) in kinds {
        let found = docker(&[list, &["--quiet", "--filter", filter]].concat()).await?;
        let found: Vec<&str> = found.lines().collect();
        if !found.is_empty() {
            docker(&[end, &found].concat()).await?;
        }
    }
    Ok(())
}

/// Waits for something that takes a call of Docker to see.
pub async fn looking<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> Result<T> {
    wait_for_within(Duration::from_secs(120), what, async || {
        let found = look().await;
        if found.is_none() {
            tokio::time::sleep(PAUSE).await;
        }
        found
    })
    .await
}
