//! Connections that are open, set up and idle, until the next mail for their host or their end.
//!
//! ```text
//! end of a mail ─► put ─► keeper: waits ─┬─ take: the next mail goes over it
//!                                         ├─ the host hangs up, or says anything: closed
//!                                         └─ idle for too long, too many, reload, shutdown: QUIT
//! ```
//!
//! Whether a connection fits is a matter of its [`Key`], which holds all that its set-up depended on. So mail is never sent over
//! a connection that was set up with less than it needs: another level of TLS, other names or authorities, another log-in.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use postroad_net::TlsGeneration;
use postroad_smtp_session::ClientConfig;
use tokio::sync::oneshot;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::conversation::{Conversation, Manners};
use super::counts::Counts;
use super::next_hop::{Candidate, Door};
use super::security::Match;
use super::shelf::{Limits, Shelf, Taken, Used};

/// All that the set-up of a connection depended on.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    candidate: Candidate,
    source: Option<IpAddr>,
    client: ClientConfig,
    implicit_tls: bool,
    tls_name: String,
    certificate: Match,
    tls: TlsGeneration,
}

impl Key {
    /// Of a connection to this host in this manner.
    pub fn of(candidate: &Candidate, manners: &Manners<'_>) -> Self {
        // All fields, so that a new one is not forgotten here.
        let Manners {
            // Time-outs do not stick to a connection; the addresses are in `source`.
            config: _,
            source,
            client,
            tls,
            tls_name,
            certificate,
            implicit_tls,
            counts: _,
            // About what was said at its beginning.
            own_names: _,
            routed: _,
        } = manners;
        let source = match candidate.door {
            Door::Tcp(address) => source.address(address.ip()),
            Door::Unix(_) => None,
        };
        Self {
            candidate: candidate.clone(),
            source,
            client: client.clone(),
            implicit_tls: *implicit_tls,
            tls_name: tls_name.clone(),
            certificate: (*certificate).clone(),
            tls: tls.generation(),
        }
    }
}

/// How an idle connection is had back; dropped, it says QUIT.
type Handle = oneshot::Sender<oneshot::Sender<Box<Conversation>>>;

/// Idle connections, with the tasks that keep them.
pub struct Pool {
    limits: Limits,
    shelf: Mutex<Shelf<Door, Key, Handle>>,
    /// Those that keep a connection, and those that only wait for the answer to QUIT.
    tasks: TaskTracker,
    closing: CancellationToken,
    counts: Arc<Counts>,
}

impl Pool {
    /// An empty one.
    pub fn new(limits: Limits, counts: Arc<Counts>) -> Arc<Self> {
        Self::with_tasks(limits, counts, TaskTracker::new())
    }

    /// An empty one in the place of this one, which is to be [closed](Self::close).
    pub fn successor(&self, limits: Limits) -> Arc<Self> {
        Self::with_tasks(limits, Arc::clone(&self.counts), self.tasks.clone())
    }

    fn with_tasks(limits: Limits, counts: Arc<Counts>, tasks: TaskTracker) -> Arc<Self> {
        Arc::new(Self {
            limits,
            shelf: Mutex::new(Shelf::new(limits)),
            tasks,
            closing: CancellationToken::new(),
            counts,
        })
    }

    /// Whether a connection may have another transaction.
    pub fn bears(&self, used: &Used) -> bool {
        self.limits.bear(used)
    }

    /// Whether a connection waits there.
    pub fn leads_to(&self, candidate: &Candidate) -> bool {
        self.shelf().leads_to(&candidate.door)
    }

    /// A connection that fits and is well as far as can be seen.
    pub async fn take(&self, key: &Key) -> Option<Box<Conversation>> {
        loop {
            let taken = self.shelf().take(&key.candidate.door, key);
            // A stranger is dropped: hosts count our connections, whether or not these are of use to us.
            let Taken::Fitting(handle) = taken else {
                return None;
            };
            let (back, conversation) = oneshot::channel();
            // Its keeper may have seen the end of it in this moment.
            if handle.send(back).is_ok()
                && let Ok(mut conversation) = conversation.await
            {
                conversation.refresh();
                self.counts.connections.reused.count();
                return Some(conversation);
            }
        }
    }

    /// Keeps a connection for the next mail, or says QUIT if it is not to be used again.
    pub fn put(self: &Arc<Self>, mut conversation: Box<Conversation>) {
        let now = Instant::now();
        let patience = self.limits.patience(&conversation.used(), now);
        let key = conversation.key().cloned();
        let (Some(key), Some(patience), false) = (key, patience, self.closing.is_cancelled())
        else {
            self.tasks.spawn(conversation.part());
            return;
        };
        let (handle, wanted) = oneshot::channel();
        let door = key.candidate.door.clone();
        let (id, _evicted) = self.shelf().put(&door, key, handle);
        let pool = Arc::clone(self);
        self.tasks.spawn(async move {
            let idle = pool.counts.connections.idle.hold();
            let end = wait(&mut conversation, wanted, patience, &pool.closing).await;
            drop(idle);
            pool.shelf().remove(&door, id);
            pool.end(conversation, end).await;
        });
    }

    async fn end(&self, conversation: Box<Conversation>, end: End) {
        match end {
            End::Wanted(back) => {
                // Who wanted it may be gone.
                if let Err(conversation) = back.send(conversation) {
                    conversation.part().await;
                }
            }
            End::Disturbed(said) => {
                tracing::debug!(reason = %said, "an idle connection ended");
                self.counts.connections.lost_idle.count();
                conversation.leave().await;
            }
            End::Over => conversation.part().await,
        }
    }

    /// Says QUIT on all idle connections, and on those that come from now on.
    pub fn close(&self) {
        self.closing.cancel();
        self.shelf().clear();
    }

    /// Waits until nothing is open any more, after [`close`](Self::close).
    pub async fn closed(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf<Door, Key, Handle>> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a connection is idle no more.
enum End {
    Wanted(oneshot::Sender<Box<Conversation>>),
    /// The host hung up, or spoke without being asked: with these words.
    Disturbed(String),
    Over,
}

async fn wait(
    conversation: &mut Conversation,
    wanted: oneshot::Receiver<oneshot::Sender<Box<Conversation>>>,
    patience: Duration,
    closing: &CancellationToken,
) -> End {
    tokio::select! {
        // First, so that one which the host has closed is not handed out.
        biased;
        said = conversation.disturbed() => End::Disturbed(said),
        back = wanted => back.map_or(End::Over, End::Wanted),
        () = sleep(patience) => End::Over,
        () = closing.cancelled() => End::Over,
    }
}
