use std::time::Duration;

use postroad_net::{Networks, Peer};
use postroad_smtp_session::ServerConfig;

/// How a listener serves.
#[derive(Debug, Clone)]
pub struct SmtpdConfig {
    /// Its name, for logs and envelopes.
    pub listener: String,
    /// What the conversation is like.
    pub session: ServerConfig,
    /// Neighbours that may say XFORWARD: mail systems in front of us, believed what they tell of their own clients.
    pub xforward_networks: Networks,
    /// Proxies that may say XCLIENT: believed for whom they speak, address and all.
    pub xclient_networks: Networks,
    /// Whether they are believed who its clients proved to be (LOGIN).
    pub xclient_login: bool,
    /// TLS from the first octet (RFC 8314 §3.3).
    pub implicit_tls: bool,
    /// Our Received names the listener in place of the client: its address, name and HELO are for our own log and queue alone.
    pub hide_client: bool,
    /// Whose account every client is, established otherwise than by AUTH; default: nobody's.
    pub account: Option<String>,
    /// How long the greeting is held back, to see who does not wait for it; default: not at all.
    pub greeting_delay: Duration,
    /// Octets that content must bring in a second, on the average of [`ServerTimeouts::data`]: no client is that slow, but one that sends
    /// an octet now and then to hold a connection is. Default 100.
    pub min_rate: u64,
    /// How long to wait.
    pub timeouts: ServerTimeouts,
    /// Octets a header may have; default 128 KiB.
    pub header_limit: usize,
    /// Received fields a mail may come with (RFC 5321 §6.3); default 50.
    pub max_hops: u32,
    /// Recipients one transaction may have once aliases are expanded; default 10,000.
    pub max_expanded: usize,
}

/// RFC 5321 §4.5.3.2.7 and its kin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerTimeouts {
    /// The first command after the greeting, and after the handshake: 5 minutes.
    pub greeting: Duration,
    /// A whole command, and the taking of replies: 5 minutes.
    pub command: Duration,
    /// The first content behind 354: 3 minutes.
    pub initiation: Duration,
    /// A block of content: 3 minutes.
    pub data: Duration,
    /// The TLS handshake: 30 seconds.
    pub handshake: Duration,
    /// The queue, for anything but the commit: 1 minute; else 451.
    pub queue: Duration,
    /// The commit: 5 minutes, as clients wait 10 (§4.5.3.2.6); else 451.
    pub commit: Duration,
    /// What a running transaction gets when we leave: 20 seconds; then 421.
    pub leaving: Duration,
}

impl SmtpdConfig {
    /// Defaults for this listener.
    pub fn new(listener: impl Into<String>, session: ServerConfig) -> Self {
        Self {
            listener: listener.into(),
            session,
            xforward_networks: Networks::default(),
            xclient_networks: Networks::default(),
            xclient_login: false,
            implicit_tls: false,
            hide_client: false,
            account: None,
            greeting_delay: Duration::ZERO,
            min_rate: 100,
            timeouts: ServerTimeouts::default(),
            header_limit: 128 << 10,
            max_hops: 50,
            max_expanded: 10_000,
        }
    }

    /// Octets of content that must come within its time-out.
    pub(crate) fn least_per_timeout(&self) -> usize {
        let octets = self.min_rate.saturating_mul(self.timeouts.data.as_secs());
        usize::try_from(octets).unwrap_or(usize::MAX).max(1)
    }

    /// Whether this peer is believed. Over a Unix socket everybody is: whoever may open it hands mail over as a neighbour
    /// does, and is on this host.
    pub(crate) fn may_forward(&self, peer: Peer) -> bool {
        peer.addr().is_none() || self.xforward_networks.contains(peer.ip())
    }

    /// Whether this peer is believed for whom it speaks.
    pub(crate) fn is_proxy(&self, peer: Peer) -> bool {
        peer.addr().is_some() && self.xclient_networks.contains(peer.ip())
    }

    /// What the conversation is like with a client that a proxy may speak for.
    pub(crate) fn through_proxy(&self, session: &ServerConfig) -> ServerConfig {
        let mut session = session.clone();
        session.offers.xclient = true;
        session.offers.xclient_login = self.xclient_login;
        session
    }

    /// What the conversation with such a peer is like. It brings the mail of all its clients, hour after hour on one
    /// connection, so what they did wrong is no reason to end it.
    pub(crate) fn with_neighbour(&self) -> ServerConfig {
        let mut session = self.session.clone();
        session.offers.xforward = true;
        session.limits.refused_recipients = u32::MAX;
        session.limits.idle_commands = u32::MAX;
        session.limits.mails = u32::MAX;
        session.limits.commands = u32::MAX;
        session
    }
}

impl Default for ServerTimeouts {
    fn default() -> Self {
        Self {
            greeting: Duration::from_secs(300),
            command: Duration::from_secs(300),
            initiation: Duration::from_secs(180),
            data: Duration::from_secs(180),
            handshake: Duration::from_secs(30),
            queue: Duration::from_secs(60),
            commit: Duration::from_secs(300),
            leaving: Duration::from_secs(20),
        }
    }
}
