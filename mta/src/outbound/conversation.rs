//! One connection to one host: socket and [`ClientSession`] together, with a time-out on every wait.

use std::io;
use std::time::{Duration, Instant as Moment};

use bytes::BytesMut;
use futures::StreamExt as _;
use postroad_envelope::TlsFacts;
use postroad_metrics::Held;
use postroad_net::{ClientTls, Error as NetError, RefusedCertificate, Stream};
use postroad_reply::SERVICE_NOT_AVAILABLE_421;
use postroad_smtp::Extension;
use postroad_smtp_session::{
    ClientConfig, ClientSession, OutgoingMail, Progress, RecipientResult, Stage,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout, timeout_at};

use super::content::Content;
use super::counts::ConnectionCounts;
use super::lots::{Bearing, Promise};
use super::next_hop::Candidate;
use super::pool::Key;
use super::security::Match;
use super::shelf::Used;
use super::sources::Source;
use super::trouble::Trouble;
use crate::config::OutboundConfig;

/// Octets of content encoded at a time, and gathered before they are written.
const PIECE: usize = 64 << 10;
/// How long a host that no longer takes our octets is listened to.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// A host that answered so shortly ago has not hung up meanwhile because nothing was said. Only then is a mail said at once, since a host that
/// hangs up on it may have taken it.
const FRESH: Duration = Duration::from_secs(1);

/// The same connection under TLS.
async fn encrypted(
    stream: Stream,
    unread: &[u8],
    manners: &Manners<'_>,
) -> Result<Stream, Trouble> {
    let within = manners.config.timeouts.tls.as_duration();
    let (tls, name) = (&manners.tls, &manners.tls_name);
    let own = std::slice::from_ref(name);
    let names = match manners.certificate {
        Match::Anything => own,
        Match::Names(names) => names.as_slice(),
        Match::Host(host) => std::slice::from_ref(host),
        Match::Dane(_) => &[],
    };
    let upgraded = match manners.certificate {
        Match::Dane(dane) => {
            stream
                .upgrade_to_dane_host(tls, name, dane, unread, within)
                .await
        }
        _ => {
            stream
                .upgrade_to_host(tls, name, names, unread, within)
                .await
        }
    };
    if upgraded.is_err() {
        manners.counts.tls_failures.count();
    }
    upgraded.map_err(|error| Trouble::Handshake(as_demanded(error, manners.certificate)))
}

/// Where it is not we who demand that the certificate is for the host's own name, nothing of ours can change it.
fn as_demanded(error: NetError, certificate: &Match) -> NetError {
    match (error, certificate) {
        (NetError::Refused(refused), Match::Host(_)) => NetError::Refused(RefusedCertificate {
            remedy: "whoever runs the host must mend it, since others than us demand it (tls_policy)",
            ..refused
        }),
        (error, _) => error,
    }
}

fn binding(stream: &Stream) -> Option<Vec<u8>> {
    stream.tls_info()?.binding.clone()
}

/// What to do about it, where the system says only what is wrong.
pub fn no_socket(error: NetError) -> NetError {
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

/// How one mail went.
pub struct Transferred {
    /// One for each recipient, or none.
    pub results: Vec<Option<RecipientResult>>,
    /// Why it ended early.
    pub trouble: Option<Trouble>,
    /// The host had taken mail on this connection, and ended it before it answered to this one: that is not about the mail.
    pub stale: bool,
}

/// The same in words (RFC 5321 §3.8).
fn is_farewell(result: &RecipientResult) -> bool {
    let RecipientResult::Refused { stage, reply } = result else {
        return false;
    };
    reply.code() == SERVICE_NOT_AVAILABLE_421 && matches!(stage, Stage::Reset | Stage::Mail)
}

/// An open connection to a host.
pub struct Conversation {
    stream: Stream,
    session: ClientSession,
    input: BytesMut,
    /// As what it may be used again.
    key: Option<Key>,
    opened: Moment,
    /// Transactions that were begun.
    mails: usize,
    /// When the last one was answered.
    answered: Moment,
    /// How long all that is said for one job may take.
    patience: Duration,
    /// When that is over.
    until: Instant,
    _open: Held,
}

/// What a conversation needs beside its host.
pub struct Manners<'a> {
    /// Addresses and time-outs.
    pub config: &'a OutboundConfig,
    /// Where we send from.
    pub source: &'a Source,
    /// How we present ourselves.
    pub client: ClientConfig,
    /// For TLS.
    pub tls: ClientTls,
    /// What to call the host in the handshake.
    pub tls_name: String,
    /// What its certificate must be.
    pub certificate: &'a Match,
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
    /// Over a connection that was just made, and with TLS where that comes first; the greeting has not been read yet.
    pub async fn over(
        stream: Stream,
        candidate: &Candidate,
        manners: &Manners<'_>,
    ) -> Result<Box<Self>, Trouble> {
        let open = manners.counts.open.hold();
        let stream = match manners.implicit_tls {
            true => encrypted(stream, &[], manners).await?,
            false => stream,
        };
        let mut session = ClientSession::new(manners.client.clone(), manners.implicit_tls);
        session.set_seed(rand::random());
        session.set_binding(binding(&stream));
        let patience = manners.config.timeouts.conversation.as_duration();
        Ok(Box::new(Self {
            _open: open,
            stream,
            session,
            input: BytesMut::with_capacity(4096),
            key: Some(Key::of(candidate, manners)),
            opened: Moment::now(),
            mails: 0,
            answered: Moment::now(),
            patience,
            until: Instant::now() + patience,
        }))
    }

    /// From the greeting until a mail can be sent, by way of STARTTLS.
    pub async fn set_up(mut self: Box<Self>, manners: &Manners<'_>) -> Result<Box<Self>, Trouble> {
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

    async fn start_tls(mut self: Box<Self>, manners: &Manners<'_>) -> Result<Box<Self>, Trouble> {
        self.write().await?;
        self.stream = encrypted(self.stream, &self.input, manners).await?;
        self.session.set_binding(binding(&self.stream));
        self.session.tls_started();
        Ok(self)
    }

    /// What the host takes on a connection, by its own word.
    pub fn bearing(&self) -> Bearing {
        Bearing::of(self.session.capabilities())
    }

    /// What the host sees to itself.
    pub fn promise(&self) -> Promise {
        Promise::of(self.session.capabilities())
    }

    /// Whether the host takes 8-bit content (RFC 6152).
    pub fn takes_eight_bits(&self) -> bool {
        let offers = self.session.capabilities();
        offers.offers(&Extension::EightBitMime)
    }

    /// As what it may be used again, if at all.
    pub fn key(&self) -> Option<&Key> {
        self.key.as_ref()
    }

    /// It is for one job alone.
    pub fn use_once(&mut self) {
        self.key = None;
    }

    /// What it has behind it.
    pub fn used(&self) -> Used {
        Used {
            opened: self.opened,
            mails: self.mails,
            allowed: self.bearing().mails(),
        }
    }

    /// Begins the patience with it anew, for another job.
    pub fn refresh(&mut self) {
        self.until = Instant::now() + self.patience;
    }

    /// Waits, while nothing is asked of the host, for it to hang up or to speak: what it said. Nothing is lost if this is
    /// dropped before it is ready.
    pub async fn disturbed(&mut self) -> String {
        match self.stream.read_buf(&mut self.input).await {
            Ok(0) => "the host closed it".to_owned(),
            Ok(_) => String::from_utf8_lossy(&self.input).trim().to_owned(),
            Err(error) => error.to_string(),
        }
    }

    /// Whether the host has said good-bye.
    pub fn is_closed(&self) -> bool {
        self.session.is_closed()
    }

    /// Sends one mail. What is known of each recipient is kept, however it ends: one for each, or none.
    pub async fn transfer(&mut self, mail: OutgoingMail, content: &Content) -> Transferred {
        let fresh = self.mails > 0 && self.answered.elapsed() < FRESH;
        self.mails += 1;
        let begun = match fresh {
            true => self.session.send_at_once(mail),
            false => self.session.send(mail),
        };
        let ended = match begun {
            Some(progress) => Ok(progress),
            None => self.progress().await,
        };
        let ended = match ended {
            Ok(Progress::SendContent) => self.send_content(content).await,
            ended => ended,
        };
        let trouble = match ended {
            Ok(Progress::Done(results)) => {
                self.answered = Moment::now();
                let unheard = self.is_closed() && results.iter().any(is_farewell);
                return Transferred {
                    results: results.into_iter().map(Some).collect(),
                    trouble: None,
                    stale: unheard && self.mails > 1,
                };
            }
            Ok(_) => Trouble::HungUp(self.session.stage()),
            Err(trouble) => trouble,
        };
        Transferred {
            results: self.session.abandon().1,
            stale: trouble.is_parting() && self.mails > 1,
            trouble: Some(trouble),
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
                self.session.content(&piece).map_err(Trouble::Unfit)?;
                // A header, a short body and the final dot travel together.
                if self.session.output_len() < PIECE {
                    continue;
                }
                if let Err(trouble) = self.write().await {
                    return self.last_words(trouble).await;
                }
                if self.session.awaits_replies()
                    && let Some(progress) = self.listen(ClientSession::awaits_replies).await?
                {
                    return Ok(progress);
                }
            }
        }
        self.session.content_end().map_err(Trouble::Unfit)?;
        self.progress().await
    }

    /// Says QUIT and waits a little for the answer; what comes of it does not matter.
    pub async fn part(mut self: Box<Self>) {
        self.session.quit();
        if self.session.stage() == Stage::Quit {
            let _ = self.progress().await;
        }
        self.leave().await;
    }

    /// Closes the connection without a word.
    pub async fn leave(mut self: Box<Self>) {
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
        loop {
            if let Some(progress) = self.listen(|_| true).await? {
                return Ok(progress);
            }
        }
    }

    /// The same, or until the session no longer waits for any.
    async fn listen(
        &mut self,
        waits: impl Fn(&ClientSession) -> bool,
    ) -> Result<Option<Progress>, Trouble> {
        let mut deadline = self.deadline();
        loop {
            let held = self.input.len();
            let news = self.session.receive(&mut self.input);
            if let Some(progress) = news.map_err(Trouble::Session)? {
                return Ok(Some(progress));
            }
            if !waits(&self.session) {
                return Ok(None);
            }
            if let Err(trouble) = self.write().await {
                return self.last_words(trouble).await.map(Some);
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
