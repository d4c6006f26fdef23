//! The sockets of a host.

mod conversation;
mod door;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::certificates::Certificates;
use crate::event::{Event, EventKind};
use crate::script::Script;
use crate::tally::Tally;
use door::Entrance;

/// Events that nobody has taken yet; then conversations wait.
const EVENTS: usize = 1024;

/// Why a host cannot be there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Where it shall listen.
    #[error("cannot listen on {place}: {source}")]
    Bind {
        /// The address.
        place: String,
        /// Why.
        source: io::Error,
    },
    /// It would be reachable from elsewhere.
    #[error("{0} is not of this host alone; write an address of loopback, such as 127.0.0.1:0")]
    NotLoopback(SocketAddr),
    /// A file.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A certificate cannot be made.
    #[error("{0}")]
    Pki(#[from] postroad_pki::Error),
    /// A certificate cannot be shown.
    #[error("{0}")]
    Tls(#[from] postroad_net::Error),
    /// Ours.
    #[error("{0}")]
    Task(#[from] JoinError),
}

/// Where a host is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// An address of loopback; port 0 takes a free one.
    Tcp(SocketAddr),
    /// A socket in the file system, made anew.
    Unix(PathBuf),
}

impl Default for Place {
    fn default() -> Self {
        Self::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// What becomes of mails that are taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    /// They are counted.
    #[default]
    Nothing,
    /// Their content is in the events.
    InMemory,
    /// Each is a file there, `000001.eml`, and its envelope another, `000001.json`.
    In(PathBuf),
}

/// What a host is like apart from its script.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// What becomes of mails.
    pub keep: Keep,
    /// Where certificates are; one that is made for it and goes with it.
    pub certificates: Option<PathBuf>,
    /// Whether each line that is said is an event.
    pub talk: bool,
}

/// What a host has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Connections that came.
    pub connections: u64,
    /// Of these, how many are open.
    pub open: u64,
    /// MAIL commands that were answered by rules or well.
    pub mails: u64,
    /// Mails that were taken.
    pub taken: u64,
}

/// A host. It goes down when it is dropped.
pub struct Peer {
    place: Place,
    shared: Arc<Shared>,
    shutdown: CancellationToken,
    serving: Option<JoinHandle<()>>,
}

/// What all conversations have.
struct Shared {
    state: Mutex<State>,
    certificates: Certificates,
    options: Options,
    events: mpsc::Sender<Event>,
    started: Instant,
    shutdown: CancellationToken,
    _folder: Option<TempDir>,
}

struct State {
    script: Arc<Script>,
    tally: Tally,
    taken: u64,
}

impl Peer {
    /// Begins to follow the script; with what happens from then on. Events must be taken: when many wait, the host does, too.
    pub async fn start(
        script: Script,
        place: Place,
        options: Options,
    ) -> Result<(Self, mpsc::Receiver<Event>), Error> {
        let entrance = Entrance::open(&place, script.door).await?;
        let place = entrance.place().clone();
        let (made, place_of) = (options.clone(), place.clone());
        let (script, certificates, folder) = tokio::task::spawn_blocking(move || {
            let (folder, own) = folder(&made)?;
            let certificates = Certificates::make(&folder, &script, &place_of)?;
            if let Keep::In(folder) = &made.keep {
                std::fs::create_dir_all(folder)?;
            }
            Ok::<_, Error>((script, certificates, own))
        })
        .await??;
        let (events, receiver) = mpsc::channel(EVENTS);
        let shutdown = CancellationToken::new();
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                tally: Tally::new(&script),
                script: Arc::new(script),
                taken: 0,
            }),
            certificates,
            options,
            events,
            started: Instant::now(),
            shutdown: shutdown.clone(),
            _folder: folder,
        });
        let serving = tokio::spawn(entrance.serve(Arc::clone(&shared)));
        let peer = Self {
            place,
            shared,
            shutdown,
            serving: Some(serving),
        };
        Ok((peer, receiver))
    }

    /// Where it is, with the port it got.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The certificate of its authority.
    pub fn authority_file(&self) -> &Path {
        &self.shared.certificates.authority
    }

    /// From now on new connections follow another script; its counts of rules and limits begin anew. Its name and its door stay
    /// what they were.
    pub fn follow(&self, script: Script) {
        let mut state = self.shared.state();
        state.tally.follow(&script);
        state.script = Arc::new(script);
    }

    /// What it has counted.
    pub fn totals(&self) -> Totals {
        let state = self.shared.state();
        Totals {
            connections: state.tally.connections,
            open: state.tally.open,
            mails: state.tally.mails,
            taken: state.taken,
        }
    }

    /// Goes down, and waits until it is.
    pub async fn stop(mut self) {
        self.shutdown.cancel();
        if let Some(serving) = self.serving.take() {
            let _ = serving.await;
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.shutdown.cancel();
        if let Some(serving) = self.serving.take() {
            serving.abort();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn tell(&self, connection: u64, kind: EventKind) {
        let is_talk = matches!(kind, EventKind::Heard(_) | EventKind::Said(_));
        if is_talk && !self.options.talk {
            return;
        }
        let event = Event {
            at: self.started.elapsed(),
            connection,
            kind,
        };
        // Who does not listen any more need not be told.
        let _ = self.events.send(event).await;
    }
}

/// Where certificates are, and the folder that goes with the host.
fn folder(options: &Options) -> Result<(PathBuf, Option<TempDir>), Error> {
    if let Some(folder) = &options.certificates {
        std::fs::create_dir_all(folder)?;
        return Ok((folder.clone(), None));
    }
    let folder = tempfile::Builder::new()
        .prefix("postroad-rehearsal-")
        .tempdir()?;
    Ok((folder.path().to_owned(), Some(folder)))
}
