//! A host whose events are collected, for tests: they wait for what happens, never for time to pass.

use std::net::SocketAddr;
use std::ops::Deref;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use crate::event::{Event, EventKind, Taken};
use crate::peer::{Error, Keep, Options, Peer, Place};
use crate::script::Script;

/// A host with all that it has told.
pub struct Watched {
    peer: Peer,
    record: Arc<Record>,
    collecting: JoinHandle<()>,
}

#[derive(Default)]
struct Record {
    events: Mutex<Vec<Event>>,
    news: Notify,
}

impl Watched {
    /// A host on loopback that keeps mails in memory and tells each line.
    pub async fn start(script: Script, place: Place) -> Result<Self, Error> {
        let options = Options {
            keep: Keep::InMemory,
            talk: true,
            ..Options::default()
        };
        Self::start_with(script, place, options).await
    }

    /// The same, with options.
    pub async fn start_with(script: Script, place: Place, options: Options) -> Result<Self, Error> {
        let (peer, mut events) = Peer::start(script, place, options).await?;
        let record = Arc::new(Record::default());
        let filling = Arc::clone(&record);
        let collecting = tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                filling.events().push(event);
                filling.news.notify_waiters();
            }
        });
        Ok(Self {
            peer,
            record,
            collecting,
        })
    }

    /// Where it is; at a Unix socket port 0 of nowhere.
    pub fn address(&self) -> SocketAddr {
        match self.peer.place() {
            Place::Tcp(address) => *address,
            Place::Unix(_) => SocketAddr::from(([0, 0, 0, 0], 0)),
        }
    }

    /// The certificate of its authority.
    pub fn authority_file(&self) -> &Path {
        self.peer.authority_file()
    }

    /// All that happened so far.
    pub fn events(&self) -> Vec<Event> {
        self.record.events().clone()
    }

    /// The mails taken so far.
    pub fn taken(&self) -> Vec<Arc<Taken>> {
        taken(&self.record.events())
    }

    /// Waits until `look` finds what it wants among all events; none: it did not come in time.
    pub async fn wait_for<T>(
        &self,
        within: Duration,
        mut look: impl FnMut(&[Event]) -> Option<T>,
    ) -> Option<T> {
        let until = Instant::now() + within;
        loop {
            let news = self.record.news.notified();
            tokio::pin!(news);
            // From here on nothing is missed.
            news.as_mut().enable();
            if let Some(found) = look(&self.record.events()) {
                return Some(found);
            }
            timeout_at(until, news).await.ok()?;
        }
    }

    /// Waits until so many mails were taken.
    pub async fn wait_for_mails(&self, count: usize, within: Duration) -> Option<Vec<Arc<Taken>>> {
        let enough = |events: &[Event]| {
            let taken = taken(events);
            (taken.len() >= count).then_some(taken)
        };
        self.wait_for(within, enough).await
    }
}

impl Deref for Watched {
    type Target = Peer;

    fn deref(&self) -> &Peer {
        &self.peer
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.collecting.abort();
    }
}

impl Record {
    fn events(&self) -> MutexGuard<'_, Vec<Event>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn taken(events: &[Event]) -> Vec<Arc<Taken>> {
    let kept = events.iter().filter_map(|event| match &event.kind {
        EventKind::Taken(taken) => Some(Arc::clone(taken)),
        _ => None,
    });
    kept.collect()
}
