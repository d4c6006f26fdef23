//! The keys of one issuer: had, fetched again, and kept while they cannot be.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tracing::{error, info};

use crate::config::Place;
use crate::fetch::fetch;
use crate::keys::{KeySet, MAX_SET};

/// How often an issuer is asked at most, whatever clients send: an unknown key, or no answer.
const PAUSE: Duration = Duration::from_secs(60);
/// The same of a file.
const FILE_PAUSE: Duration = Duration::from_secs(1);
/// How often a file is looked at.
const FILE_REFRESH: Duration = Duration::from_secs(10);

/// Where the keys of an issuer come from, and those it has.
#[derive(Debug)]
pub struct Source {
    issuer: String,
    place: Place,
    refresh: Duration,
    max_stale: Duration,
    held: ArcSwapOption<Held>,
    tried: Mutex<Option<Instant>>,
}

#[derive(Debug)]
struct Held {
    keys: Arc<KeySet>,
    at: Instant,
}

/// What a look for keys came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Looked {
    Fetched,
    Failed,
    /// Somebody looked a moment ago.
    NotYet,
}

impl Source {
    pub fn new(issuer: &str, place: Place, refresh: Duration, max_stale: Duration) -> Self {
        let refresh = match place {
            Place::File(_) => FILE_REFRESH.min(refresh),
            Place::Server(..) => refresh,
        };
        Self {
            issuer: issuer.to_owned(),
            place,
            refresh,
            max_stale,
            held: ArcSwapOption::empty(),
            tried: Mutex::new(None),
        }
    }

    /// The keys that count now.
    pub fn keys(&self) -> Option<Arc<KeySet>> {
        let held = self.held.load_full()?;
        (held.at.elapsed() <= self.max_stale).then(|| Arc::clone(&held.keys))
    }

    /// Whether it is time to look.
    pub fn is_due(&self) -> bool {
        let held = self.held.load();
        held.as_ref()
            .is_none_or(|held| held.at.elapsed() >= self.refresh)
    }

    /// Looks for keys, unless that was done a moment ago. Those who come meanwhile wait for the same answer.
    pub async fn look(&self) -> Looked {
        let pause = match self.place {
            Place::File(_) => FILE_PAUSE,
            Place::Server(..) => PAUSE,
        };
        let mut tried = self.tried.lock().await;
        if tried.is_some_and(|at| at.elapsed() < pause) {
            return Looked::NotYet;
        }
        let began = Instant::now();
        let answer = self.read().await;
        *tried = Some(Instant::now());
        match answer {
            Ok(keys) => {
                self.take(keys, began);
                Looked::Fetched
            }
            Err(problem) => {
                self.complain(&problem);
                Looked::Failed
            }
        }
    }

    /// Also what the source before it had, whose configuration was the same.
    pub fn inherit(&self, before: &Self) {
        self.held.store(before.held.load_full());
    }

    async fn read(&self) -> Result<KeySet, String> {
        match &self.place {
            Place::Server(address, tls) => {
                if let Some(tls) = tls.clone() {
                    // A file of authorities that cannot be read leaves the old ones in use, and says so.
                    let _ = spawn_blocking(move || tls.refresh()).await;
                }
                fetch(address, tls.as_ref()).await
            }
            Place::File(file) => {
                let name = file.clone();
                let read = spawn_blocking(move || read_file(&name)).await;
                let text = read.map_err(|error| error.to_string())?;
                let told = |problem: String| format!("{}: {problem}", file.display());
                KeySet::parse(&text.map_err(told)?).map_err(|error| told(error.to_string()))
            }
        }
    }

    fn take(&self, keys: KeySet, at: Instant) {
        let before = self.held.load();
        if before.as_ref().is_none_or(|before| *before.keys != keys) {
            info!(
                event = "keys_fetched",
                issuer = self.issuer,
                keys = keys.len(),
                "the keys of an issuer of tokens were read"
            );
        }
        let keys = Arc::new(keys);
        self.held.store(Some(Arc::new(Held { keys, at })));
    }

    fn complain(&self, problem: &str) {
        let issuer = self.issuer.as_str();
        match self.keys() {
            Some(_) => info!(
                event = "keys_away",
                issuer,
                error = problem,
                "the keys of an issuer of tokens cannot be read; those read before go on to count"
            ),
            None => error!(
                event = "keys_away",
                issuer,
                error = problem,
                remedy = "see whether the issuer answers at jwks_url, or mend jwks_file",
                "there are no keys of an issuer of tokens, so that nobody can log in by its tokens"
            ),
        }
    }
}

/// Reads a file that should be small. Blocks.
pub fn read_file(file: &Path) -> Result<Vec<u8>, String> {
    let mut text = Vec::new();
    let most = MAX_SET as u64 + 1;
    let opened = File::open(file).map_err(|error| error.to_string())?;
    let read = opened.take(most).read_to_end(&mut text);
    read.map(|_| text).map_err(|error| error.to_string())
}
