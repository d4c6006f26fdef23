//! An SMTP or LMTP server: session machine, socket, policy and queue together.
//!
//! ```text
//! Listener ─► Smtpd::serve ─► Conversation: read ─► ServerSession::receive ─► Event
//!               connect, auth, mail, rcpt, header ─► Policy (msa, mta, mda)
//!               admit, submit, chunk, finish      ─► QueueService ◆ ─► 250 2.0.0 <id> queued
//! ```
//!
//! Of a mail only its header is held ([`SmtpdConfig::header_limit`]). When the header is complete the policy sees
//! it, the envelope is made, and from then on content goes to the queue as it comes; a queue that is slow slows
//! the client down. Our Received field is a header edit of the envelope; the content stays what the client sent.
//!
//! What can fail, and what the client hears: the queue is away or full (4yz, nothing stored); the client drops the
//! connection before its final dot (nothing stored) or behind it (stored or not, and logged; the commit runs in a
//! task of its own, see [`Smtpd::drain`]); it takes too long (421). On shutdown a running transaction may end
//! within [`ServerTimeouts::leaving`], everybody else hears 421.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::as_conversions,
        clippy::panic
    )
)]

mod config;
mod conversation;
mod counts;
mod facts;
mod intake;
mod keys;
mod policy;

use std::sync::Arc;

pub use config::{ServerTimeouts, SmtpdConfig};
pub use facts::{ClientFacts, Proxied, TransactionFacts};
pub use keys::{DeliverByKeys, PerConnection, Timeouts, listener_faults};
pub use policy::{AuthDecision, HeaderTerms, MailTerms, Policy, RecipientDraft};
use postroad_metrics::Metrics;
use postroad_net::{Connection, Peer, ServerTls};
use postroad_queue_client::QueueService;
use tokio_util::task::TaskTracker;

use conversation::Conversation;
use counts::Counts;

/// One listener's server; all its connections share it.
pub struct Smtpd {
    config: SmtpdConfig,
    session: Arc<postroad_smtp_session::ServerConfig>,
    /// For neighbours that may forward.
    neighbour: Arc<postroad_smtp_session::ServerConfig>,
    /// The same two, for whoever comes through a proxy.
    proxied: [Arc<postroad_smtp_session::ServerConfig>; 2],
    policy: Arc<dyn Policy>,
    queue: Arc<dyn QueueService>,
    tls: Option<ServerTls>,
    commits: TaskTracker,
    counts: Arc<Counts>,
}

impl Smtpd {
    /// A server with this policy before this queue. Without `tls` STARTTLS is not offered, whatever the
    /// configuration says. What it does is counted under the listener's name.
    pub fn new(
        config: SmtpdConfig,
        policy: Arc<dyn Policy>,
        queue: Arc<dyn QueueService>,
        tls: Option<ServerTls>,
        metrics: &Metrics,
    ) -> Self {
        let logs_in = !config.session.offers.auth.is_empty();
        let counts = Counts::new(metrics, &config.listener, logs_in);
        let shared = (TaskTracker::new(), Arc::new(counts));
        Self::with(config, policy, queue, tls, shared)
    }

    fn with(
        mut config: SmtpdConfig,
        policy: Arc<dyn Policy>,
        queue: Arc<dyn QueueService>,
        tls: Option<ServerTls>,
        (commits, counts): (TaskTracker, Arc<Counts>),
    ) -> Self {
        config.session.offers.starttls &= tls.is_some() && !config.implicit_tls;
        Self {
            session: Arc::new(config.session.clone()),
            neighbour: Arc::new(config.with_neighbour()),
            proxied: [config.session.clone(), config.with_neighbour()]
                .map(|session| Arc::new(config.through_proxy(&session))),
            config,
            policy,
            queue,
            tls,
            commits,
            counts,
        }
    }

    /// The same server under another configuration, for conversations that begin from now on. Those that go on keep what they
    /// began with; commits are waited for by either's [`Smtpd::drain`].
    pub fn successor(
        &self,
        config: SmtpdConfig,
        policy: Arc<dyn Policy>,
        tls: Option<ServerTls>,
    ) -> Self {
        let shared = (self.commits.clone(), Arc::clone(&self.counts));
        Self::with(config, policy, Arc::clone(&self.queue), tls, shared)
    }

    /// What the conversation with a client at `peer` is like; `proxied`: a proxy may speak for it.
    fn session_of(&self, peer: Peer, proxied: bool) -> &Arc<postroad_smtp_session::ServerConfig> {
        let [ordinary, neighbour] = &self.proxied;
        match (self.config.may_forward(peer), proxied) {
            (false, false) => &self.session,
            (true, false) => &self.neighbour,
            (false, true) => ordinary,
            (true, true) => neighbour,
        }
    }

    /// Holds one conversation. `rdns` is the client's name by reverse DNS, confirmed by a forward look-up.
    pub async fn serve(&self, connection: Connection, rdns: Option<String>) {
        Conversation::run(self, connection, rdns).await;
    }

    /// After the last [`Smtpd::serve`]: waits for mails that are being committed for clients that are gone.
    pub async fn drain(&self) {
        self.commits.close();
        self.commits.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Octets that a future holds from its beginning to its end.
    fn size<A, F: Future>(_: impl FnOnce(A) -> F) -> usize {
        size_of::<F>()
    }

    /// There are as many as clients. What is seldom waited for, such as a handshake, must be on the heap.
    #[test]
    fn a_conversation_holds_little() {
        type Given = (&'static Smtpd, Connection);
        let held = size(|(smtpd, connection): Given| smtpd.serve(connection, None));
        assert!(held <= 7 << 10, "{held} octets");
    }
}
