//! XCLIENT (Postfix's XCLIENT_README): a listed proxy tells for whom it speaks, and the conversation begins anew.
//!
//! Some proxies hand octets through once they have said it; then its client could say it as well, and be anybody. So it is believed
//! until a client speaks that was told of, and not again on that connection.

use std::sync::Arc;

use postroad_reply::{MAILBOX_UNAVAILABLE_550, NOT_AUTHORIZED_5_7_1, Reply};
use postroad_sasl::Identity;
use postroad_smtp::{Command, XClient};

use super::{Event, Pending, Phase, ServerConfig, ServerSession, command::out_of_order};

/// Whose words are heard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Speaker {
    /// Whoever connected.
    #[default]
    Peer,
    /// A proxy that told of a client, and may tell more of it.
    Proxy,
    /// A client that was told of.
    Client,
}

impl ServerSession {
    /// Between [`Event::XClient`] and its answer: what the conversation with that client is like, and who it is, if the proxy is
    /// believed that it knows.
    pub fn speaks_for(&mut self, config: Arc<ServerConfig>, identity: Option<Identity>) {
        if matches!(self.phase, Phase::Undecided(Pending::XClient)) {
            (self.config, self.identity) = (config, identity);
        }
    }

    /// Whether the peer is the client: TLS and the certificate of a connection are its peer's.
    pub(super) fn speaks_for_itself(&self) -> bool {
        self.speaker == Speaker::Peer
    }

    pub(super) fn takes_xclient(&self) -> bool {
        self.config.offers.xclient && self.speaker != Speaker::Client
    }

    /// After XCLIENT, anything but a greeting may be its client's.
    pub(super) fn heard_of_client(&mut self, command: &Command) {
        let proxys = matches!(
            command,
            Command::XClient(_)
                | Command::Ehlo(_)
                | Command::Helo(_)
                | Command::Lhlo(_)
                | Command::Noop
                | Command::Rset
                | Command::Quit
        );
        if self.speaker == Speaker::Proxy && !proxys {
            self.speaker = Speaker::Client;
        }
    }

    pub(super) fn xclient(&mut self, phase: Phase, told: XClient) -> Phase {
        let offers = &self.config.offers;
        let refusal = match phase {
            _ if !offers.xclient => not_believed("XCLIENT is for listed proxies only"),
            _ if self.speaker == Speaker::Client => {
                out_of_order("XCLIENT comes before all that its client says")
            }
            Phase::Idle if told.account().is_some() && !offers.xclient_login => {
                not_believed("LOGIN is not believed here")
            }
            Phase::Idle => return self.begin_anew(told),
            _ => out_of_order("a transaction is under way"),
        };
        self.mistake(phase, refusal)
    }

    /// All that was known is of the proxy, and forgotten: its certificate and what binds to its TLS are not its client's.
    fn begin_anew(&mut self, told: XClient) -> Phase {
        (self.hello, self.identity, self.forwarded) = (None, None, None);
        (self.size_limit, self.channel.binding) = (None, None);
        self.channel.certified = false;
        self.speaker = Speaker::Proxy;
        self.ask(Event::XClient(told), Pending::XClient)
    }
}

fn not_believed(text: &str) -> Reply {
    Reply::new(MAILBOX_UNAVAILABLE_550, NOT_AUTHORIZED_5_7_1, text)
}
