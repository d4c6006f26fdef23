//! One connection to one host: socket and [`ClientSession`] together, with a time-out on every wait.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use futures::StreamExt as _;
use postroad_envelope::TlsFacts;
use postroad_metrics::{Held, labels::Connect};
use postroad_net::{ClientTls, Error as NetError, Stream, connect_tcp, connect_unix};
use postroad_queue_client::QueueError;
use postroad_reply::{
    BAD_CONNECTION_4_4_2, EnhancedStatusCode, LOOP_5_4_6, MISCONFIGURED_4_3_5, NO_ANSWER_4_4_1,
    Reply, SYSTEM_4_3_0,
};
use postroad_smtp_session::{
    ClientConfig, ClientError, ClientSession, OutgoingMail, Progress, RecipientResult, Stage,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout, timeout_at};

use super::content::Content;
use super::counts::ConnectionCounts;
use super::next_hop::{Candidate, Door};
use super::unusable::Unusable;
use crate::config::OutboundConfig;

/// Octets of content encoded at a time, and gathered before they are written.
const PIECE: usize = 64 << 10;
/// How long a host that no longer takes our octets is listened to.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// What went wrong with a whole conversation.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// No connection came about.
    #[error("cannot connect: {0}")]
    Connect(NetError),
    /// The TLS handshake failed.
    #[error("{0}")]
    Handshake(NetError),
    /// The host does not go on.
    #[error("{0}")]
    Session(ClientError),
    /// The host is ourselves; if a route of ours led there, that is ours to mend.
    #[error("greeted with our own name {name}, so the mail loops")]
    Ourselves {
        /// What it called itself.
        name: String,
        /// Whether a route named the host, rather than the DNS.
        routed: bool,
    },
    /// The host hung up.
    #[error("closed the connection {}", at(*.0))]
    HungUp(Stage),
    /// The host said nothing for too long.
    #[error("did not answer in time {}", at(*.0))]
    TimedOut(Stage),
    /// The connection broke.
    #[error("lost the connection {where_}: {1}", where_ = at(*.0))]
    Broken(Stage, io::Error),
    /// Ours: the content cannot be read from the queue.
    #[error("the content could not be read from the queue: {0}")]
    Content(QueueError),
}

impl Trouble {
    /// The host's own words, if these are the trouble.
    pub fn reply(&self) -> Option<&Reply> {
        match self {
            Self::Session(
                ClientError::Refused { reply, .. } | ClientError::Unexpected { reply, .. },
            ) => Some(reply),
            _ => None,
        }
    }

    /// Where the conversation was.
    pub fn stage(&self) -> Stage {
        match self {
            Self::HungUp(stage) | Self::TimedOut(stage) | Self::Broken(stage, _) => *stage,
            Self::Session(
                ClientError::Refused { stage, .. }
                | ClientError::Unexpected { stage, .. }
                | ClientError::Protocol { stage, .. },
            ) => *stage,
            Self::Session(ClientError::TlsNotOffered | ClientError::PlaintextAfterStartTls)
            | Self::Handshake(_) => Stage::StartTls,
            Self::Session(_) => Stage::Auth,
            Self::Content(_) => Stage::Content,
            Self::Connect(_) | Self::Ourselves { .. } => Stage::Greeting,
        }
    }

    /// RFC 3463 §3.5, for what has no status from the host.
    pub fn status(&self) -> EnhancedStatusCode {
        if let Some(unusable) = Unusable::of(self) {
            return unusable.status(self.reply());
        }
        match self {
            Self::Connect(_) => NO_ANSWER_4_4_1,
            Self::Ourselves { routed: true, .. } => MISCONFIGURED_4_3_5,
            Self::Ourselves { routed: false, .. } => LOOP_5_4_6,
            Self::Content(_) => SYSTEM_4_3_0,
            _ => BAD_CONNECTION_4_4_2,
        }
    }
}

/// Where the conversation was, for a person.
fn at(stage: Stage) -> &'static str {
    match stage {
        Stage::Greeting => "before its greeting",
        Stage::Hello => "at EHLO",
        Stage::StartTls => "at STARTTLS",
        Stage::Auth => "at AUTH",
        Stage::Reset => "at RSET",
        Stage::Mail => "at MAIL FROM",
        Stage::Rcpt => "at RCPT TO",
        Stage::Data => "at DATA",
        Stage::Content => "while the content was sent",
        Stage::End => "after the end of the content, so that it may have taken the mail",
        Stage::Quit => "at QUIT",
        Stage::Idle => "between commands",
    }
}

/// The same connection under TLS.
async fn encrypted(
    stream: Stream,
    unread: &[u8],
    manners: &Manners<'_>,
) -> Result<Stream, Trouble> {
    let within = manners.config.timeouts.tls.as_duration();
    let (name, names) = (&manners.tls_name, &manners.tls_names);
    let upgraded = stream.upgrade_to_host(manners.tls, name, names, unread, within);
    let upgraded = upgraded.await;
    if upgraded.is_err() {
        manners.counts.tls_failures.count();
    }
    upgraded.map_err(Trouble::Handshake)
}

/// What to do about it, where the system says only what is wrong.
fn no_socket(error: NetError) -> NetError {
    let NetError::Io(error) = error else {
        return error;
    };
    let remedy = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "the user of postroad-mta must be allowed to write to the socket and to enter its folder"
        }
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            "the program that serves it makes the socket, and does not run"
        }
        _ => return NetError::Io(error),
    };
    NetError::Io(io::Error::new(error.kind(), format!("{error}: {remedy}")))
}

/// How far a conversation came.
#[derive(Debug, Default)]
pub struct Disposition {
    /// One per recipient asked for, in their order; none: nothing is known.
    pub results: Vec<Option<RecipientResult>>,
    /// Why it ended early.
    pub trouble: Option<Trouble>,
    /// How it was encrypted.
    pub tls: Option<TlsFacts>,
}

/// An open connection to a host.
pub struct Conversation {
    stream: Stream,
    session: ClientSession,
    input: BytesMut,
    /// When patience with the whole conversation ends.
    until: Instant,
    _open: Held,
}

/// What a conversation needs beside its host.
pub struct Manners<'a> {
    /// Addresses and time-outs.
    pub config: &'a OutboundConfig,
    /// How we present ourselves.
    pub client: ClientConfig,
    /// For TLS.
    pub tls: &'a ClientTls,
    /// What to call the host in the handshake.
    pub tls_name: String,
    /// Of these its certificate must have one, if it is verified.
    pub tls_names: Vec<String>,
    /// TLS from the first octet.
    pub implicit_tls: bool,
    /// Where it is counted.
    pub counts: &'a ConnectionCounts,
    /// A host that greets with one of these is ourselves.
    pub own_names: &'a [String],
    /// Whether a route of ours named the host.
    pub routed: bool,
}

impl Conversation {
    /// Connects, and begins TLS where that comes first; the greeting has not been read yet.
    pub async fn connect(candidate: &Candidate, manners: &Manners<'_>) -> Result<Self, Trouble> {
        let config = manners.config;
        let within = config.timeouts.connect.as_duration();
        let connected = match &candidate.door {
            Door::Tcp(address) => connect_tcp(*address, within, config.source(address.ip())).await,
            Door::Unix(path) => connect_unix(path.as_path(), within)
                .await
                .map_err(no_socket),
        };
        manners.counts.tried.count(match connected {
            Ok(_) => Connect::Connected,
            Err(_) => Connect::Failed,
        });
        let stream = connected.map_err(Trouble::Connect)?;
        let open = manners.counts.open.hold();
        let stream = match manners.implicit_tls {
            true => encrypted(stream, &[], manners).await?,
            false => stream,
        };
        Ok(Self {
            _open: open,
            stream,
            session: ClientSession::new(manners.client.clone(), manners.implicit_tls),
            input: BytesMut::with_capacity(4096),
            until: Instant::now() + config.timeouts.conversation.as_duration(),
        })
    }

    /// From the greeting until a mail can be sent, by way of STARTTLS.
    pub async fn set_up(mut self, manners: &Manners<'_>) -> Result<Self, Trouble> {
        loop {
            match self.progress().await? {
                Progress::Ready => break,
                Progress::StartTls => self = self.start_tls(manners).await?,
                Progress::SendContent | Progress::Done(_) | Progress::Closed => {
                    return Err(Trouble::HungUp(self.session.stage()));
                }
            }
        }
        let name = self.session.host_greeting();
        let ours = |own: &String| own.eq_ignore_ascii_case(name);
        if manners.own_names.iter().any(ours) {
            let (name, routed) = (name.to_owned(), manners.routed);
            return Err(Trouble::Ourselves { name, routed });
        }
        Ok(self)
    }

    async fn start_tls(mut self, manners: &Manners<'_>) -> Result<Self, Trouble> {
        self.write().await?;
        self.stream = encrypted(self.stream, &self.input, manners).await?;
        self.session.tls_started();
        Ok(self)
    }

    /// Sends one mail. What is known of each recipient is kept, however it ends.
    pub async fn transfer(&mut self, mail: OutgoingMail, content: &Content) -> Disposition {
        let tls = self.tls();
        let ended = match self.session.send(mail) {
            Some(progress) => Ok(progress),
            None => self.progress().await,
        };
        let ended = match ended {
            Ok(Progress::SendContent) => self.send_content(content).await,
            ended => ended,
        };
        match ended {
            Ok(Progress::Done(results)) => Disposition {
                results: results.into_iter().map(Some).collect(),
                trouble: None,
                tls,
            },
            Ok(_) => self.abandoned(Trouble::HungUp(self.session.stage())),
            Err(trouble) => self.abandoned(trouble),
        }
    }

    fn abandoned(&mut self, trouble: Trouble) -> Disposition {
        Disposition {
            results: self.session.abandon().1,
            trouble: Some(trouble),
            tls: self.tls(),
        }
    }

    /// Without the final dot the host must drop what it has, so any fault of ours ends here with no more than a
    /// closed connection (RFC 5321 §4.1.1.4).
    async fn send_content(&mut self, content: &Content) -> Result<Progress, Trouble> {
        let mut stream = content.stream().await.map_err(Trouble::Content)?;
        while let Some(chunk) = stream.next().await {
            let mut chunk = chunk.map_err(Trouble::Content)?;
            while !chunk.is_empty() {
                let piece = chunk.split_to(chunk.len().min(PIECE));
                self.session.content(&piece);
                // A header, a short body and the final dot travel together.
                if self.session.output_len() < PIECE {
                    continue;
                }
                if let Err(trouble) = self.write().await {
                    return self.last_words(trouble).await;
                }
            }
        }
        self.session.content_end();
        self.progress().await
    }

    /// Says QUIT and waits a little for the answer; what comes of it does not matter.
    pub async fn part(mut self) {
        self.session.quit();
        if self.session.stage() == Stage::Quit {
            let _ = self.progress().await;
        }
        let _ = timeout(LAST_WORDS, self.stream.shutdown()).await;
    }

    /// How the connection is encrypted.
    pub fn tls(&self) -> Option<TlsFacts> {
        self.stream.tls_info().map(|info| TlsFacts {
            version: info.version.to_string(),
            cipher: info.cipher.clone(),
            verified: info.verified.clone(),
        })
    }

    /// Writes, reads and waits until the session has news.
    async fn progress(&mut self) -> Result<Progress, Trouble> {
        let mut deadline = self.deadline();
        loop {
            let held = self.input.len();
            let news = self.session.receive(&mut self.input);
            if let Some(progress) = news.map_err(Trouble::Session)? {
                return Ok(progress);
            }
            if let Err(trouble) = self.write().await {
                return self.last_words(trouble).await;
            }
            // Each whole line of a reply buys new patience, a part of one does not.
            if self.input.len() < held {
                deadline = self.deadline();
            }
            let stage = self.session.stage();
            match timeout_at(deadline, self.stream.read_buf(&mut self.input)).await {
                Ok(Ok(0)) => return Err(Trouble::HungUp(stage)),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(Trouble::Broken(stage, error)),
                Err(_) => return Err(Trouble::TimedOut(stage)),
            }
        }
    }

    /// A host that hangs up in the middle may have said why.
    async fn last_words(&mut self, trouble: Trouble) -> Result<Progress, Trouble> {
        let soon = Instant::now() + LAST_WORDS;
        while let Ok(Ok(1..)) = timeout_at(soon, self.stream.read_buf(&mut self.input)).await {
            match self.session.receive(&mut self.input) {
                Ok(Some(progress @ Progress::Done(_))) => return Ok(progress),
                Err(error) => return Err(Trouble::Session(error)),
                Ok(_) => {}
            }
        }
        Err(trouble)
    }

    async fn write(&mut self) -> Result<(), Trouble> {
        let output = self.session.take_output();
        if output.is_empty() {
            return Ok(());
        }
        let (stage, deadline) = (self.session.stage(), self.deadline());
        let stream = &mut self.stream;
        let write = async {
            stream.write_all(&output).await?;
            stream.flush().await
        };
        match timeout_at(deadline, write).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Trouble::Broken(stage, error)),
            Err(_) => Err(Trouble::TimedOut(stage)),
        }
    }

    fn deadline(&self) -> Instant {
        self.until.min(Instant::now() + self.session.timeout())
    }
}
