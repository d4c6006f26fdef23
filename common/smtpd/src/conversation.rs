//! One connection, from greeting to close.

mod events;

use std::{collections::HashSet, io, sync::Arc, time::Duration};

use bytes::{BufMut, BytesMut};
use postroad_envelope::{QueueId, Timestamp};
use postroad_net::{Connection, PeerCertificate, Stream};
use postroad_reply::{
    BAD_CONNECTION_4_4_2, Reply, SERVICE_NOT_AVAILABLE_421, SYSTEM_NOT_ACCEPTING_4_3_2,
};
use postroad_smtp_session::{CloseReason, ServerSession};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{ClientFacts, Smtpd, TransactionFacts, facts::tls_facts, intake::Intake};

/// Octets read at a time.
const READ: usize = 64 << 10;
/// Content that must come within [`ServerTimeouts::data`](crate::ServerTimeouts::data): no client is that slow,
/// but one that sends an octet now and then to hold a connection is.
const BLOCK: usize = 1024;

pub struct Conversation<'a> {
    smtpd: &'a Smtpd,
    session: ServerSession,
    input: BytesMut,
    client: ClientFacts,
    mail: Option<Mail>,
    shutdown: CancellationToken,
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
        let Connection {
            stream,
            peer,
            proxy,
            own,
            shutdown,
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
        };
        let session = match smtpd.config.may_forward(peer) {
            true => &smtpd.neighbour,
            false => &smtpd.session,
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
        let _open = (!own).then(|| smtpd.counts.open.hold());
        let began = Instant::now();
        let mut conversation = Self {
            smtpd,
            session: ServerSession::new(Arc::clone(session), smtpd.config.implicit_tls),
            input: BytesMut::with_capacity(READ),
            client,
            mail: None,
            shutdown,
            leave_at: None,
            accepted: 0,
            look: own,
        };
        let ending = conversation.converse(stream).await;
        // Who looks and then sends mail is worth a line after all.
        if !conversation.look || conversation.accepted > 0 {
            conversation.log_end(&ending, began.elapsed());
        }
    }

    async fn converse(&mut self, mut stream: Stream) -> Ending {
        if self.smtpd.config.implicit_tls {
            stream = match self.start_tls(stream).await {
                Ok(stream) => stream,
                Err(error) => return Ending::Tls(error),
            };
        }
        let mut deadline = self.deadline();
        let mut block = 0;
        loop {
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
            let renewed = if goes_on { block >= BLOCK } else { stepped };
            if renewed {
                (deadline, block) = (self.deadline(), 0);
            }
            match self.read(&mut stream, deadline).await {
                Ok(Heard::Octets(0)) => return Ending::HungUp,
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

    fn deadline(&self) -> Instant {
        let timeouts = &self.smtpd.config.timeouts;
        let wait = if self.session.awaits_content() {
            timeouts.data
        } else {
            timeouts.command
        };
        Instant::now() + wait
    }

    async fn read(&mut self, stream: &mut Stream, deadline: Instant) -> io::Result<Heard> {
        self.input.reserve(READ);
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
            let mut room = (&mut self.input).limit(READ);
            return tokio::select! {
                biased;
                () = self.shutdown.cancelled(), if self.leave_at.is_none() => continue,
                read = timeout_at(until, stream.read_buf(&mut room)) => match read {
                    Ok(read) => read.map(Heard::Octets),
                    Err(_) if until < deadline => Ok(Heard::Shutdown),
                    Err(_) => Ok(Heard::TooLate),
                },
            };
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
            self.client.certificate = tls.peer.clone();
        }
        self.client.tls = stream.tls_info().map(tls_facts);
        // RFC 3207 §4.2.
        (self.client.hello, self.client.identity) = (None, None);
        Ok(stream)
    }

    async fn end(&mut self, mut stream: Stream, reason: CloseReason) -> Ending {
        if let Err(error) = self.write(&mut stream).await {
            return Ending::Broken(error);
        }
        let farewell = async {
            stream.shutdown().await?;
            // Closing over unread input resets the connection, and the reset may take our last words with it.
            let mut unread = [0; 4096];
            while stream.read(&mut unread).await? > 0 {}
            Ok::<(), io::Error>(())
        };
        // Whether the client takes part in it does not matter any more.
        let _ = timeout(Duration::from_secs(2), farewell).await;
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
