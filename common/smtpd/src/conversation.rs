//! One connection, from greeting to close.

mod events;
mod proxied;

use std::{collections::HashSet, io, sync::Arc, time::Duration};

use bytes::{BufMut, BytesMut};
use postroad_envelope::{QueueId, Timestamp};
use postroad_net::{Connection, PeerCertificate, Place, Stream};
use postroad_reply::{
    BAD_CONNECTION_4_4_2, INVALID_COMMAND_5_5_1, Reply, SERVICE_NOT_AVAILABLE_421,
    SYSTEM_NOT_ACCEPTING_4_3_2, TRANSACTION_FAILED_554,
};
use postroad_sasl::SecurityContext;
use postroad_smtp_session::{CloseReason, ServerSession};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{ClientFacts, Smtpd, TransactionFacts, facts::tls_facts, intake::Intake};

/// Octets of content read at a time, where more comes than fits into the first of it: most mail is small, and a large piece of
/// memory for each is dear: with 100 clients at work all processes together held 91 MiB, where 95 was reached before.
const READ: usize = 64 << 10;
const READ_FIRST: usize = 16 << 10;
/// Octets of commands read at a time: ten thousand clients that say nothing hold no more than this each.
const READ_COMMANDS: usize = 4 << 10;

/// How long a client may take to say good-bye.
const FAREWELL: Duration = Duration::from_secs(2);
const EARLY: &str = "you spoke before the greeting, and whoever does so does not listen";

pub struct Conversation<'a> {
    smtpd: &'a Smtpd,
    session: ServerSession,
    input: BytesMut,
    /// The last read took all there was room for.
    filled: bool,
    client: ClientFacts,
    mail: Option<Mail>,
    /// Of an exchange of GSSAPI.
    context: Option<Box<dyn SecurityContext>>,
    shutdown: CancellationToken,
    place: Place,
    /// When a running transaction must have ended, once we leave.
    leave_at: Option<Instant>,
    accepted: u32,
    /// A balancer's look: it comes every few seconds to each copy, so it is no fact worth a line or a count.
    look: bool,
}

/// A transaction with the content that came so far.
struct Mail {
    facts: TransactionFacts,
    /// The final addresses of its recipients.
    addresses: HashSet<String>,
    intake: Intake,
}

/// How a conversation ended.
enum Ending {
    Said(CloseReason),
    HungUp,
    Broken(io::Error),
    Tls(postroad_net::Error),
}

/// What follows an event.
enum Next {
    GoOn,
    /// The client is to hear at once, whatever else it has sent.
    Write,
    StartTls,
    End(CloseReason),
}

enum Heard {
    Octets(usize),
    TooLate,
    Shutdown,
}

impl<'a> Conversation<'a> {
    pub async fn run(smtpd: &'a Smtpd, connection: Connection, rdns: Option<String>) {
        let _open = (!connection.own).then(|| smtpd.counts.open.hold());
        let began = Instant::now();
        let (mut conversation, stream) = Self::begin(smtpd, connection, rdns);
        let ending = conversation.converse(stream).await;
        // Who looks and then sends mail is worth a line after all.
        if !conversation.look || conversation.accepted > 0 {
            conversation.log_end(&ending, began.elapsed());
        }
    }

    /// Apart from [`run`](Self::run), which would keep room for each part of it until the conversation is over.
    fn begin(smtpd: &'a Smtpd, connection: Connection, rdns: Option<String>) -> (Self, Stream) {
        let Connection {
            stream,
            peer,
            proxy,
            own,
            shutdown,
            place,
            ..
        } = connection;
        let client = ClientFacts {
            session_id: format!("{:016x}", rand::random::<u64>()),
            listener: smtpd.config.listener.clone(),
            peer,
            rdns,
            tls: None,
            certificate: PeerCertificate::Absent,
            hello: None,
            identity: None,
            forwarded: None,
            known: smtpd.config.account.clone(),
            proxied: None,
        };
        if !own {
            info!(
                event = "connection_opened",
                session_id = client.session_id,
                listener = client.listener,
                peer = %client.peer,
                proxy = proxy.map(tracing::field::display),
            );
            smtpd.counts.connections.count();
        }
        let session = smtpd.session_of(peer, smtpd.config.is_proxy(peer));
        let mut session = ServerSession::new(Arc::clone(session), smtpd.config.implicit_tls);
        session.set_seed(rand::random());
        let conversation = Self {
            smtpd,
            session,
            input: BytesMut::new(),
            filled: false,
            client,
            mail: None,
            context: None,
            shutdown,
            place,
            leave_at: None,
            accepted: 0,
            look: own,
        };
        (conversation, stream)
    }

    async fn converse(&mut self, mut stream: Stream) -> Ending {
        if self.smtpd.config.implicit_tls {
            stream = match self.start_tls(stream).await {
                Ok(stream) => stream,
                Err(error) => return Ending::Tls(error),
            };
        }
        if let Some(ending) = self.before_greeting(&mut stream).await {
            return ending;
        }
        let mut deadline = self.deadline(false);
        let (mut block, least) = (0, self.smtpd.config.least_per_timeout());
        let mut content_began = false;
        loop {
            self.session.set_now(std::time::SystemTime::now().into());
            let (mut stepped, content) = (false, self.session.awaits_content());
            while let Some(event) = self.session.receive(&mut self.input) {
                stepped = true;
                match self.step(event).await {
                    Next::GoOn => {}
                    Next::Write => {
                        if let Err(error) = self.write(&mut stream).await {
                            return Ending::Broken(error);
                        }
                    }
                    Next::StartTls => {
                        if let Err(error) = self.write(&mut stream).await {
                            return Ending::Broken(error);
                        }
                        stream = match self.start_tls(stream).await {
                            Ok(stream) => stream,
                            Err(error) => return Ending::Tls(error),
                        };
                        self.session.tls_started();
                    }
                    Next::End(reason) => return self.end(stream, reason).await,
                }
            }
            match self.write(&mut stream).await {
                Ok(wrote) => stepped |= wrote,
                Err(error) => return Ending::Broken(error),
            }
            // A command has its time as a whole; content has it for each block.
            let goes_on = content && self.session.awaits_content();
            content_began &= goes_on;
            let begins = goes_on && !content_began && block > 0;
            let renewed = if goes_on {
                block >= least || begins
            } else {
                stepped
            };
            if renewed {
                content_began |= begins;
                (deadline, block) = (self.deadline(content_began), 0);
            }
            match self.read(&mut stream, deadline).await {
                Ok(Heard::Octets(0)) => {
                    // RFC 8446 §6.1: under TLS whoever ends says so, also to one who ended first.
                    let _ = timeout(FAREWELL, stream.shutdown()).await;
                    return Ending::HungUp;
                }
                Ok(Heard::Octets(count)) => block += count,
                Ok(Heard::TooLate) => self.session.close(too_late(), CloseReason::TimedOut),
                Ok(Heard::Shutdown) => self.session.close(leaving(), CloseReason::Shutdown),
                // Few clients say good-bye to TLS.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Ending::HungUp;
                }
                Err(error) => return Ending::Broken(error),
            }
        }
    }

    /// RFC 5321 §4.5.3.2: each state has its own.
    fn deadline(&self, content_began: bool) -> Instant {
        let timeouts = &self.smtpd.config.timeouts;
        let wait = match self.session.awaits_content() {
            true if content_began => timeouts.data,
            true => timeouts.initiation,
            false if self.session.hello().is_none() => timeouts.greeting,
            false => timeouts.command,
        };
        Instant::now() + wait
    }

    async fn read(&mut self, stream: &mut Stream, deadline: Instant) -> io::Result<Heard> {
        let most = self.make_room();
        loop {
            if self.shutdown.is_cancelled() {
                // What was begun may end, nothing new begins.
                if self.session.transaction().is_none() {
                    return Ok(Heard::Shutdown);
                }
                let leaving = self.smtpd.config.timeouts.leaving;
                self.leave_at
                    .get_or_insert_with(|| Instant::now() + leaving);
            }
            let until = self
                .leave_at
                .map_or(deadline, |leave_at| leave_at.min(deadline));
            // The buffer may have grown beyond what was asked; what is read stays bounded.
            let mut room = (&mut self.input).limit(most);
            return tokio::select! {
                biased;
                () = self.shutdown.cancelled(), if self.leave_at.is_none() => continue,
                read = timeout_at(until, stream.read_buf(&mut room)) => match read {
                    Ok(read) => {
                        self.filled = read.as_ref().is_ok_and(|read| *read == most);
                        read.map(Heard::Octets)
                    }
                    Err(_) if until < deadline => Ok(Heard::Shutdown),
                    Err(_) => Ok(Heard::TooLate),
                },
            };
        }
    }

    /// How much is read next. Between mails nothing of the room for content is kept.
    fn make_room(&mut self) -> usize {
        if self.session.awaits_content() {
            let most = if self.filled { READ } else { READ_FIRST };
            self.input.reserve(most);
            return most;
        }
        if self.input.is_empty() && self.input.capacity() > 2 * READ_COMMANDS {
            self.input = BytesMut::new();
        }
        self.input.reserve(READ_COMMANDS);
        READ_COMMANDS
    }

    /// Waits before the greeting: whoever speaks now does not listen, as programs that only pour out mail do not. Under TLS from
    /// the first octet nobody is asked to wait, since the handshake was waited for already.
    async fn before_greeting(&mut self, stream: &mut Stream) -> Option<Ending> {
        let config = &self.smtpd.config;
        if config.greeting_delay.is_zero() || config.implicit_tls || self.look {
            return None;
        }
        let until = Instant::now() + config.greeting_delay;
        match self.read(stream, until).await {
            Ok(Heard::TooLate) => None,
            Ok(Heard::Octets(0)) => Some(Ending::HungUp),
            Ok(Heard::Octets(_)) => {
                self.smtpd.counts.early_talkers.count();
                let reply = Reply::new(TRANSACTION_FAILED_554, INVALID_COMMAND_5_5_1, EARLY);
                self.log_early(&reply);
                self.session.close(reply, CloseReason::EarlyTalker);
                None
            }
            Ok(Heard::Shutdown) => {
                self.session.close(leaving(), CloseReason::Shutdown);
                None
            }
            Err(error) => Some(Ending::Broken(error)),
        }
    }

    /// Whether there was something to write.
    async fn write(&mut self, stream: &mut Stream) -> io::Result<bool> {
        let output = self.session.take_output();
        if output.is_empty() {
            return Ok(false);
        }
        let write = async {
            stream.write_all(&output).await?;
            stream.flush().await
        };
        match timeout(self.smtpd.config.timeouts.command, write).await {
            Ok(result) => result.map(|()| true),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    async fn start_tls(&mut self, stream: Stream) -> Result<Stream, postroad_net::Error> {
        let Some(tls) = &self.smtpd.tls else {
            return Err(postroad_net::Error::NotUpgradable);
        };
        let within = self.smtpd.config.timeouts.handshake;
        let stream = stream.upgrade_server(tls, &self.input, within).await?;
        if let Some(tls) = stream.tls_info() {
            self.smtpd.counts.encrypted(tls);
            // Behind a proxy the certificate is the proxy's, and says nothing of its client.
            self.client.certificate = match self.client.proxied {
                None => tls.peer.clone(),
                Some(_) => PeerCertificate::Absent,
            };
            self.session.set_binding(tls.binding.clone());
            self.session.set_certified(tls.is_peer_verified());
        }
        self.client.tls = stream.tls_info().map(tls_facts);
        self.unverify_proxied();
        // RFC 3207 §4.2.
        (self.client.hello, self.client.identity) = (None, None);
        Ok(stream)
    }

    async fn end(&mut self, mut stream: Stream, reason: CloseReason) -> Ending {
        self.smtpd.counts.ended(reason);
        if let Err(error) = self.write(&mut stream).await {
            return Ending::Broken(error);
        }
        let farewell = async {
            stream.shutdown().await?;
            // Closing over unread input resets the connection, and the reset may take our last words with it.
            let mut unread = BytesMut::with_capacity(READ_COMMANDS);
            while stream.read_buf(&mut unread).await? > 0 {
                unread.clear();
            }
            Ok::<(), io::Error>(())
        };
        // Whether the client takes part in it does not matter any more.
        let _ = timeout(FAREWELL, farewell).await;
        Ending::Said(reason)
    }

    fn log_end(&self, ending: &Ending, duration: Duration) {
        let (client, reason) = (&self.client, ending.reason());
        let duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let error = match ending {
            Ending::Broken(error) => Some(error.to_string()),
            Ending::Tls(error) => Some(error.to_string()),
            Ending::Said(_) | Ending::HungUp => None,
        };
        if let Ending::Tls(_) = ending {
            self.smtpd.counts.tls_failures.count();
            info!(
                event = "tls_failed",
                session_id = client.session_id,
                listener = client.listener,
                peer = %client.peer,
                error,
            );
        }
        info!(
            event = "connection_closed",
            session_id = client.session_id,
            listener = client.listener,
            peer = %client.peer,
            helo = client.helo(),
            account = client.account(),
            tls = client.tls_text(),
            verified = client.verified(),
            reason,
            error,
            count = self.accepted,
            duration_ms,
        );
    }
}

impl Ending {
    fn reason(&self) -> &'static str {
        match self {
            Self::Said(reason) => reason.as_str(),
            Self::HungUp => "hung_up",
            Self::Broken(_) => "connection_lost",
            Self::Tls(_) => "tls_failed",
        }
    }
}

fn mint() -> QueueId {
    let now = Timestamp::from(std::time::SystemTime::now());
    QueueId::mint(now, rand::random())
}

fn too_late() -> Reply {
    let text = "time-out, closing the connection";
    Reply::new(SERVICE_NOT_AVAILABLE_421, BAD_CONNECTION_4_4_2, text)
}

fn leaving() -> Reply {
    let text = "the service is shutting down, please try again later";
    Reply::new(SERVICE_NOT_AVAILABLE_421, SYSTEM_NOT_ACCEPTING_4_3_2, text)
}
