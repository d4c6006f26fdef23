//! Is the process able to do its work, and if not, why? Named checks, and a socket that answers.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use postroad_metrics::list;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::http::Observed;
use crate::shutdown::Shutdown;

/// How long either side of the socket waits for the other.
const PATIENCE: Duration = Duration::from_secs(5);
/// No answer is longer.
const LONGEST_ANSWER: u64 = 64 * 1024;

/// The checks of one process. Clones share them. Without any check the process is still starting.
#[derive(Clone, Debug)]
pub struct HealthState {
    checks: watch::Sender<Checks>,
}

type Checks = BTreeMap<String, Kept>;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Kept {
    state: CheckState,
    whose: Whose,
}

/// Who must do something that a check may turn ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Ours,
    /// Another process, which may be started later.
    Others,
}

/// How one check stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckState {
    /// True if this part can do its work.
    pub ready: bool,
    /// Why not; or, of a part that is ready, what it cannot do yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What the socket answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Version of this object.
    pub schema: u32,
    /// The agent that answered.
    pub agent: String,
    /// True if there are checks and all of them are ready.
    pub ready: bool,
    /// Each check by its name.
    pub checks: BTreeMap<String, CheckState>,
    /// Seconds that each of its certificates has left, by what it is for; negative: it has run out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub certificates: BTreeMap<String, i64>,
}

/// One named check, to be kept by whoever knows how it stands.
#[derive(Clone, Debug)]
pub struct Check {
    state: HealthState,
    name: String,
    whose: Whose,
}

impl Default for HealthState {
    fn default() -> Self {
        Self {
            checks: watch::Sender::new(BTreeMap::new()),
        }
    }
}

impl HealthState {
    /// Without checks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a check that is not ready yet. Add all of them before the first one turns ready.
    pub fn check(&self, name: impl Into<String>) -> Check {
        self.add(name.into(), Whose::Ours)
    }

    /// As [`HealthState::check`], of another process that this one leans on. Without it the process is not ready, but it has
    /// started: agents may start in any order.
    pub fn dependency(&self, name: impl Into<String>) -> Check {
        self.add(name.into(), Whose::Others)
    }

    fn add(&self, name: String, whose: Whose) -> Check {
        let check = Check {
            state: self.clone(),
            name,
            whose,
        };
        check.not_ready("starting");
        check
    }

    /// True if there are checks and all of them are ready.
    pub fn is_ready(&self) -> bool {
        all_ready(&self.checks.borrow())
    }

    /// Waits until that is so.
    pub async fn ready(&self) {
        // The sender lives in `self`, so the wait ends only by readiness.
        let _ = self.checks.subscribe().wait_for(all_ready).await;
    }

    /// Waits until all is ready that depends on this process alone.
    pub async fn started(&self) {
        // As in `ready`.
        let _ = self.checks.subscribe().wait_for(has_started).await;
    }

    /// A picture of now.
    pub fn snapshot(&self, agent: &str) -> Health {
        let checks = self.checks.borrow();
        let states = checks
            .iter()
            .map(|(name, kept)| (name.clone(), kept.state.clone()));
        Health {
            schema: 1,
            agent: agent.to_owned(),
            ready: all_ready(&checks),
            checks: states.collect(),
            certificates: BTreeMap::new(),
        }
    }

    fn set(&self, name: &str, kept: Kept) {
        self.checks.send_if_modified(|checks| {
            let changed = checks.get(name) != Some(&kept);
            checks.insert(name.to_owned(), kept);
            changed
        });
    }
}

fn all_ready(checks: &Checks) -> bool {
    !checks.is_empty() && checks.values().all(|kept| kept.state.ready)
}

fn has_started(checks: &Checks) -> bool {
    let mut ours = checks
        .values()
        .filter(|kept| kept.whose == Whose::Ours)
        .peekable();
    ours.peek().is_some() && ours.all(|kept| kept.state.ready)
}

impl Check {
    /// This part can do its work.
    pub fn ready(&self) {
        self.set(true, None);
    }

    /// This part can do the work that others wait for, though not all of it yet.
    pub fn ready_but(&self, reason: impl Into<String>) {
        self.set(true, Some(reason.into()));
    }

    /// This part cannot do its work.
    pub fn not_ready(&self, reason: impl Into<String>) {
        self.set(false, Some(reason.into()));
    }

    fn set(&self, ready: bool, reason: Option<String>) {
        let state = CheckState { ready, reason };
        let whose = self.whose;
        self.state.set(&self.name, Kept { state, whose });
    }
}

/// The health socket of an agent.
pub fn health_socket(run_dir: &Path, agent: &str) -> PathBuf {
    run_dir.join(format!("{agent}.health"))
}

/// Answers each connection with one JSON object and closes it, until told to stop. A socket file left
/// by a dead process is replaced, that of a living one is not.
pub async fn serve_health(path: &Path, observed: Observed, shutdown: Shutdown) -> io::Result<()> {
    let listener = listen(path).await?;
    loop {
        let (mut stream, _) = tokio::select! {
            connection = listener.accept() => match connection {
                Ok(connection) => connection,
                // Out of descriptors: others need them more.
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            () = shutdown.requested() => break,
        };
        let answer = serde_json::to_vec(&picture(&observed)).map_err(io::Error::other)?;
        // The answer fits into the socket's buffer: a peer that does not read delays nobody.
        let _ = timeout(PATIENCE, async {
            stream.write_all(&answer).await?;
            stream.shutdown().await
        })
        .await;
    }
    drop(listener);
    fs::remove_file(path)
}

/// How the process stands now, with what a check does not tell.
fn picture(observed: &Observed) -> Health {
    let metrics = &observed.metrics;
    let left = metrics.stands(&list::CERTIFICATE_EXPIRES).into_iter();
    let left =
        left.filter_map(|(labels, seconds)| Some((labels.into_iter().next()?, seconds as i64)));
    Health {
        certificates: left.collect(),
        ..observed.health.snapshot(metrics.agent())
    }
}

async fn listen(path: &Path) -> io::Result<UnixListener> {
    if UnixStream::connect(path).await.is_ok() {
        return Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another process answers there",
        ));
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

/// Asks the process behind a health socket.
pub async fn query_health(path: &Path) -> io::Result<Health> {
    let ask = async {
        let mut answer = Vec::new();
        let stream = UnixStream::connect(path).await?;
        stream.take(LONGEST_ANSWER).read_to_end(&mut answer).await?;
        serde_json::from_slice(&answer).map_err(io::Error::other)
    };
    timeout(PATIENCE, ask).await?
}

#[cfg(test)]
mod tests {
    use postroad_metrics::Metrics;

    use super::*;

    #[tokio::test]
    async fn the_socket_tells_how_each_check_stands() {
        let folder = tempfile::tempdir().unwrap();
        let path = health_socket(folder.path(), "msa");
        // What a dead process leaves behind.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());

        let state = HealthState::new();
        assert!(!state.is_ready());
        let listener = state.check("listener");
        let queue = state.dependency("queue");
        listener.ready();
        queue.not_ready("no answer");

        let metrics = Metrics::new("msa");
        let left = |seconds: Option<f64>| move || seconds;
        metrics.read(
            &list::CERTIFICATE_EXPIRES,
            &["listeners"],
            left(Some(86_400.0)),
        );
        metrics.read(&list::CERTIFICATE_EXPIRES, &["agents"], left(None));
        let shutdown = Shutdown::new();
        let server = tokio::spawn({
            let (path, state, shutdown) = (path.clone(), state.clone(), shutdown.clone());
            let observed = Observed {
                health: state,
                metrics: metrics.clone(),
            };
            async move { serve_health(&path, observed, shutdown).await }
        });
        let health = loop {
            match query_health(&path).await {
                Ok(health) => break health,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        assert_eq!(
            serde_json::to_string(&health).unwrap(),
            r#"{"schema":1,"agent":"msa","ready":false,"checks":{"listener":{"ready":true},"queue":{"ready":false,"reason":"no answer"}},"certificates":{"listeners":86400}}"#
        );
        let again = Observed {
            health: state.clone(),
            metrics,
        };
        let second = serve_health(&path, again, shutdown.clone()).await;
        assert_eq!(second.unwrap_err().kind(), io::ErrorKind::AddrInUse);

        // It has started all the same.
        state.started().await;
        assert!(!state.is_ready());
        queue.ready();
        state.ready().await;
        assert!(query_health(&path).await.unwrap().ready);
        shutdown.request();
        server.await.unwrap().unwrap();
        assert!(!path.exists());
    }
}
