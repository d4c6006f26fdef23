//! How a mail comes in, rehearsed: a conversation of our own client with the listener's own server, before a queue that keeps
//! nothing.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use postroad_envelope::{Envelope, Event, QueueId};
use postroad_net::{Connection, Peer, PeerRole, Place};
use postroad_queue_client::{
    Accepted, AdmitRequest, Completion, ContentStream, Count, Counted, QueueError, QueueService,
    Submission, WorkChannel, WorkHello,
};
use postroad_queued::explain::Explainer;
use postroad_smtp::HeloName;
use postroad_smtp_session::{
    ClientConfig, ClientSession, OutgoingMail, Progress, RecipientResult, TlsUse,
};
use postroad_smtpd::Smtpd;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;

use crate::fault::Fault;

/// Octets of content at a time.
const PIECE: usize = 64 << 10;

/// A queue that looks at what it is given, and keeps nothing. Clones saw the same.
#[derive(Clone)]
pub struct DryQueue {
    explainer: Arc<Explainer>,
    role: PeerRole,
    seen: Arc<Mutex<Seen>>,
}

/// What a [`DryQueue`] saw.
#[derive(Debug, Default)]
pub struct Seen {
    /// The mail, as the queue would have it.
    pub envelope: Option<Envelope>,
    /// Why the queue would not take it.
    pub refused: Option<QueueError>,
}

impl DryQueue {
    /// Before which agents of this role stand.
    pub fn new(explainer: &Arc<Explainer>, role: PeerRole) -> Self {
        Self {
            explainer: Arc::clone(explainer),
            role,
            seen: Arc::default(),
        }
    }

    /// What it saw.
    pub fn take(&self) -> Seen {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn nothing_here<T>() -> Result<T, QueueError> {
    Err(QueueError::Unavailable("nothing is kept here".to_owned()))
}

#[async_trait]
impl QueueService for DryQueue {
    async fn admit(&self, _: AdmitRequest) -> Result<(), QueueError> {
        Ok(())
    }

    async fn submit(&self, envelope: Envelope) -> Result<Box<dyn Submission>, QueueError> {
        let queue = self.clone();
        Ok(Box::new(DrySubmission { queue, envelope }))
    }

    async fn work(&self, _: WorkHello) -> Result<WorkChannel, QueueError> {
        nothing_here()
    }

    async fn read(&self, _: QueueId, _: u64) -> Result<ContentStream, QueueError> {
        nothing_here()
    }

    async fn record(&self, _: Vec<Event>) -> Result<(), QueueError> {
        Ok(())
    }

    async fn count(&self, _: Count) -> Result<Counted, QueueError> {
        nothing_here()
    }
}

/// A mail on its way to nowhere.
struct DrySubmission {
    queue: DryQueue,
    envelope: Envelope,
}

#[async_trait]
impl Submission for DrySubmission {
    async fn chunk(&mut self, _: Bytes) -> Result<(), QueueError> {
        Ok(())
    }

    async fn finish(self: Box<Self>, completion: Completion) -> Result<Accepted, QueueError> {
        let Self { queue, envelope } = *self;
        let envelope = Envelope {
            size: completion.size,
            ..envelope
        };
        let taken = queue
            .explainer
            .takes(queue.role, &envelope, completion.size);
        let accepted = Accepted {
            queue_id: envelope.queue_id,
            duplicate: false,
        };
        let mut seen = queue.lock();
        seen.refused = taken.clone().err();
        seen.envelope = Some(envelope);
        taken.map(|()| accepted)
    }
}

/// The client that `server` sees: none: one whose address nobody knows.
pub fn peer(ip: Option<IpAddr>) -> Peer {
    let unknown = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    Peer::new(SocketAddr::new(ip.unwrap_or(unknown), 0))
}

/// Sends a mail to a server in this process; what becomes of each recipient, or in what words nobody is served.
pub async fn converse(
    server: &Smtpd,
    peer: Peer,
    mail: OutgoingMail,
    content: &[u8],
) -> Result<Result<Vec<RecipientResult>, String>, Fault> {
    let (ours, theirs) = UnixStream::pair().map_err(Fault::not_done)?;
    let connection = Connection {
        stream: theirs.into(),
        peer,
        proxy: None,
        own: false,
        place: Place::default(),
        local: ([127, 0, 0, 1], 0).into(),
        shutdown: CancellationToken::new(),
    };
    let (sent, ()) = tokio::join!(send(ours, mail, content), server.serve(connection, None));
    server.drain().await;
    sent
}

async fn send(
    mut socket: UnixStream,
    mail: OutgoingMail,
    content: &[u8],
) -> Result<Result<Vec<RecipientResult>, String>, Fault> {
    let name = HeloName::parse("localhost").ok_or_else(|| Fault::not_done("no name for EHLO"))?;
    let mut config = ClientConfig::new(name);
    config.tls = TlsUse::Never;
    let mut session = ClientSession::new(config, false);
    let (mut input, mut waiting) = (BytesMut::new(), Some(mail));
    loop {
        let mut news = match session.receive(&mut input) {
            Ok(news) => news,
            Err(refused) => return Ok(Err(refused.to_string())),
        };
        if news == Some(Progress::Ready)
            && let Some(mail) = waiting.take()
        {
            news = session.send(mail);
        }
        match news {
            Some(Progress::Done(results)) => return Ok(Ok(results)),
            Some(Progress::SendContent) => {
                for piece in content.chunks(PIECE) {
                    session.content(piece).map_err(unfit)?;
                    write(&mut session, &mut socket).await?;
                }
                session.content_end().map_err(unfit)?;
            }
            Some(_) => return Err(Fault::not_done("the conversation ended early")),
            None => {
                write(&mut session, &mut socket).await?;
                if socket.read_buf(&mut input).await.map_err(Fault::not_done)? == 0 {
                    return Err(Fault::not_done("the conversation broke off"));
                }
            }
        }
    }
}

fn unfit(fault: impl std::fmt::Display) -> Fault {
    Fault::NotDone(format!("the mail of --eml cannot be sent: {fault}"))
}

async fn write(session: &mut ClientSession, socket: &mut UnixStream) -> Result<(), Fault> {
    let output = session.take_output();
    socket.write_all(&output).await.map_err(Fault::not_done)
}
