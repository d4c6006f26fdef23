//! The server's end.

mod answer;
mod auth;
mod command;
mod config;
mod content;
mod deliver_by;
mod event;
mod foreign;
mod offers;
mod proxied;

use std::{collections::VecDeque, mem, sync::Arc};

use bytes::{Bytes, BytesMut};
pub use config::{Flavour, Offers, ServerConfig, ServerLimits, TokenRefused};
pub use event::{
    CloseReason, Event, Hello, HelloKind, MailRequest, PolicyReply, RcptRequest, Transaction,
};
use postroad_envelope::Timestamp;
use postroad_reply::*;
use postroad_sasl::{Asking, Calling, Identity, Mechanism, ServerExchange};
use postroad_smtp::{
    Command, ContentChecker, DotDecoder, Forwarded, LineDecoder, LineFault, MAX_AUTH_LINE,
};

/// One conversation, from greeting to close.
#[derive(Debug)]
pub struct ServerSession {
    config: Arc<ServerConfig>,
    phase: Phase,
    lines: LineDecoder,
    output: BytesMut,
    events: VecDeque<Event>,
    tls: bool,
    hello: Option<Hello>,
    identity: Option<Identity>,
    channel: Channel,
    speaker: proxied::Speaker,
    /// See [`ServerSession::set_size_limit`].
    size_limit: Option<u64>,
    /// For the next transaction, which takes it.
    forwarded: Option<Forwarded>,
    counts: Counts,
    /// As the driver told last.
    now: Timestamp,
}

/// What the driver told of the connection, for AUTH.
#[derive(Debug, Default)]
struct Channel {
    /// Chance; without it, mechanisms that need some are not offered.
    seed: Option<[u8; 32]>,
    exchanges: u64,
    /// See [`ServerSession::set_binding`].
    binding: Option<Vec<u8>>,
    certified: bool,
}

/// What happened so far in the whole conversation, TLS or not.
#[derive(Debug, Default)]
struct Counts {
    mails: u32,
    commands: u32,
    errors: u32,
    auth_failures: u32,
    refused_recipients: u32,
    idle_commands: u32,
}

/// What comes next. Each state holds what makes sense in it and nothing else.
#[derive(Debug)]
enum Phase {
    /// Nothing was said yet.
    Start,
    /// Greeted with 554: nothing but QUIT is taken (RFC 5321 §3.1).
    Refused,
    /// No transaction.
    Idle,
    /// AUTH waits for a response.
    Exchange(ServerExchange),
    /// The client was told why its token is refused, and says that it heard it (RFC 7628 §3.2.3).
    TokenRefused(Reply),
    /// MAIL was accepted.
    Transaction(Transaction),
    /// Behind 354.
    Dot(Incoming, DotDecoder),
    /// In the octets of BDAT.
    Chunk(Incoming, Chunk),
    /// Between BDAT and BDAT.
    BetweenChunks(Incoming),
    /// In the octets of a BDAT that has no place; then this reply, then on as before.
    Discard(u64, Reply, Box<Phase>),
    /// The driver has an event to answer.
    Undecided(Pending),
    /// The driver makes the TLS handshake.
    StartingTls,
    Closed,
}

#[derive(Debug)]
enum Pending {
    Connected,
    Hello(Hello),
    XClient,
    Secret(Asking),
    Context(Calling),
    Auth(Mechanism),
    /// With the priority that was granted, if that is less than was asked for (RFC 6710).
    Mail(MailRequest, Option<i8>),
    Rcpt(Transaction, RcptRequest),
    /// VRFY or EXPN: where it goes on, and what is said if nothing is told.
    Question(Box<Phase>, Reply),
    /// `early`: the client sent something behind DATA without waiting for the reply.
    Data {
        transaction: Transaction,
        early: bool,
    },
    FirstChunk(Transaction, Chunk),
    ContentEnd(Transaction),
}

/// A transaction whose content is coming in.
#[derive(Debug)]
struct Incoming {
    transaction: Transaction,
    received: u64,
    /// None for content that may hold anything (BODY=BINARYMIME).
    checker: Option<ContentChecker>,
    /// Set: the rest is read and dropped, and this is the answer.
    fault: Option<Reply>,
}

#[derive(Debug, Clone, Copy)]
struct Chunk {
    size: u64,
    remaining: u64,
    last: bool,
}

impl ServerSession {
    /// A conversation that has not begun; `tls`: the connection is encrypted from its first octet.
    pub fn new(config: Arc<ServerConfig>, tls: bool) -> Self {
        Self {
            config,
            phase: Phase::Start,
            lines: LineDecoder::new(MAX_AUTH_LINE),
            output: BytesMut::new(),
            events: VecDeque::new(),
            tls,
            hello: None,
            identity: None,
            channel: Channel::default(),
            speaker: proxied::Speaker::default(),
            size_limit: None,
            forwarded: None,
            counts: Counts::default(),
            now: Timestamp::default(),
        }
    }

    /// Octets of content this client may send, in place of [`ServerLimits::size`]; known once it has proved who it is.
    pub fn set_size_limit(&mut self, limit: Option<u64>) {
        self.size_limit = limit;
    }

    /// Octets of content, now.
    fn size_limit(&self) -> u64 {
        self.size_limit.unwrap_or(self.config.limits.size)
    }

    /// What time it is, for extensions that speak of it. To be told before input is given.
    pub fn set_now(&mut self, now: Timestamp) {
        self.now = now;
    }

    /// Chance for the nonces of SASL, used for no other conversation. Without it mechanisms that need one are not offered.
    pub fn set_seed(&mut self, seed: [u8; 32]) {
        self.channel.seed = Some(seed);
    }

    /// What names this connection alone, once TLS 1.3 is in use: 32 octets by `tls-exporter` (RFC 9266).
    pub fn set_binding(&mut self, binding: Option<Vec<u8>>) {
        self.channel.binding = binding.filter(|_| self.speaks_for_itself());
    }

    /// Whether the client showed a certificate that may speak for an account.
    pub fn set_certified(&mut self, certified: bool) {
        self.channel.certified = certified && self.speaks_for_itself();
    }

    /// The next event. None: write the output, and give more input, or the answer that is due.
    pub fn receive(&mut self, input: &mut BytesMut) -> Option<Event> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            match mem::replace(&mut self.phase, Phase::Closed) {
                Phase::Start => {
                    self.phase = self.ask(Event::Connected, Pending::Connected);
                }
                waiting @ (Phase::Undecided(_) | Phase::StartingTls | Phase::Closed) => {
                    self.phase = waiting;
                    return None;
                }
                phase @ (Phase::Dot(..) | Phase::Chunk(..) | Phase::Discard(..)) => {
                    let (phase, progress) = self.step_content(phase, input);
                    self.phase = phase;
                    if !progress {
                        return None;
                    }
                }
                phase if self.is_foreign(&phase, input) => {
                    self.phase = self.other_protocol(phase);
                }
                phase => {
                    let Some(line) = self.lines.decode(input) else {
                        self.phase = phase;
                        return None;
                    };
                    self.phase = self.step_line(phase, line, !input.is_empty());
                }
            }
        }
    }

    /// What is to be written now.
    pub fn take_output(&mut self) -> Bytes {
        self.output.split().freeze()
    }

    /// After [`Event::StartTls`], when the handshake is done.
    ///
    /// RFC 3207 §4.2: all that was known of the client is forgotten. What it did wrong is not.
    pub fn tls_started(&mut self) {
        if matches!(self.phase, Phase::StartingTls) {
            self.tls = true;
            self.hello = None;
            self.identity = None;
            self.forwarded = None;
            self.size_limit = None;
            self.lines = LineDecoder::new(MAX_AUTH_LINE);
            self.phase = Phase::Idle;
        }
    }

    /// Says `reply` and ends the conversation: time-outs, shutdown (421), refusals of ours. A running transaction
    /// is lost; the driver knows.
    pub fn close(&mut self, reply: Reply, reason: CloseReason) {
        if !self.is_closed() {
            self.phase = self.closing(reply, reason);
        }
    }

    /// Whether the conversation is over.
    pub fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed)
    }

    /// Whether the client is expected to send content rather than a command (RFC 5321 §4.5.3.2.5).
    pub fn awaits_content(&self) -> bool {
        matches!(
            self.phase,
            Phase::Dot(..) | Phase::Chunk(..) | Phase::Discard(..)
        )
    }

    /// The running transaction.
    pub fn transaction(&self) -> Option<&Transaction> {
        match &self.phase {
            Phase::Transaction(transaction) => Some(transaction),
            Phase::Dot(incoming, _)
            | Phase::Chunk(incoming, _)
            | Phase::BetweenChunks(incoming) => Some(&incoming.transaction),
            Phase::Undecided(
                Pending::Rcpt(transaction, _)
                | Pending::Data { transaction, .. }
                | Pending::FirstChunk(transaction, _)
                | Pending::ContentEnd(transaction),
            ) => Some(transaction),
            _ => None,
        }
    }

    /// What the client called itself, once accepted.
    pub fn hello(&self) -> Option<&Hello> {
        self.hello.as_ref()
    }

    /// Who the client is, once authenticated.
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// What the client told of its own client, for the running transaction or else the next one. `None`: it speaks for itself.
    pub fn forwarded(&self) -> Option<&Forwarded> {
        match self.transaction() {
            Some(transaction) => transaction.forwarded.as_ref(),
            None => self.forwarded.as_ref(),
        }
    }

    /// Whether the connection is encrypted.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    fn step_line(
        &mut self,
        phase: Phase,
        line: Result<Bytes, LineFault>,
        more_input: bool,
    ) -> Phase {
        // Whatever the line is: responses of AUTH and what is no command too.
        if self.counts.commands >= self.config.limits.commands {
            let text = "too many commands on one connection, please connect again";
            return self.give_up(text, CloseReason::TooManyCommands);
        }
        self.counts.commands += 1;
        match (phase, line) {
            (Phase::Exchange(exchange), Ok(line)) => {
                let step = exchange.respond(&line);
                self.step_exchange(step)
            }
            (Phase::TokenRefused(reply), Ok(_)) => self.refuse_auth(&reply),
            (Phase::Exchange(_) | Phase::TokenRefused(_), Err(fault)) => {
                self.mistake(Phase::Idle, fault.reply())
            }
            (phase, Err(fault)) => self.mistake(phase, fault.reply()),
            (phase, Ok(line)) => match Command::parse(&line) {
                Ok(command) => self.step_command(phase, command, more_input),
                Err(_) if foreign::is_line(&line) => self.other_protocol(phase),
                Err(error) => self.mistake(phase, error.reply()),
            },
        }
    }

    /// TLS where plain text is spoken: no line of it ends, so it is known by its first octets.
    fn is_foreign(&self, phase: &Phase, input: &BytesMut) -> bool {
        matches!(phase, Phase::Idle | Phase::Refused) && foreign::is_hello_of_tls(input)
    }

    /// A program that speaks another protocol may have been made to by a page in somebody's browser: nothing more is heard of it.
    fn other_protocol(&mut self, phase: Phase) -> Phase {
        self.reset(phase);
        let text = "this is SMTP, and you speak something else";
        let reply = Reply::new(SERVICE_NOT_AVAILABLE_421, POLICY_4_7_0, text);
        self.closing(reply, CloseReason::OtherProtocol)
    }

    fn ask(&mut self, event: Event, pending: Pending) -> Phase {
        self.events.push_back(event);
        Phase::Undecided(pending)
    }

    fn say(&mut self, reply: &Reply) {
        self.output.extend_from_slice(&reply.to_wire());
    }

    /// Answers what the client did wrong; too much of that ends the conversation.
    fn mistake(&mut self, phase: Phase, reply: Reply) -> Phase {
        self.say(&reply);
        self.counts.errors += 1;
        if self.counts.errors < self.config.limits.errors {
            return phase;
        }
        self.give_up("too many errors", CloseReason::TooManyErrors)
    }

    fn give_up(&mut self, text: &str, reason: CloseReason) -> Phase {
        let reply = Reply::new(SERVICE_NOT_AVAILABLE_421, POLICY_4_7_0, text);
        self.closing(reply, reason)
    }

    fn closing(&mut self, reply: Reply, reason: CloseReason) -> Phase {
        self.say(&reply);
        self.events.push_back(Event::Closed(reason));
        Phase::Closed
    }

    /// Drops a transaction by value, and tells the driver if there was one. What was forwarded for the next one goes too.
    fn reset(&mut self, phase: Phase) {
        self.forwarded = None;
        if matches!(phase, Phase::Transaction(_) | Phase::BetweenChunks(_)) {
            self.events.push_back(Event::Reset);
        }
    }
}

#[cfg(test)]
mod tests;
