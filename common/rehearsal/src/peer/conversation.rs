//! One connection: reads, asks the session, does what it says.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use postroad_net::Stream;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{sleep, timeout};

use super::{Keep, Shared};
use crate::event::{Ended, EventKind, Taken};
use crate::script::CertificateKind;
use crate::session::{Around, Deed, Session};

/// How long a client may take for the handshake.
const HANDSHAKE: Duration = Duration::from_secs(60);
/// How long a client that has its last answer may take to go.
const FAREWELL: Duration = Duration::from_secs(5);
const READ_SIZE: usize = 64 << 10;

/// Holds the conversation to its end.
pub async fn converse(stream: Stream, from: Option<SocketAddr>, shared: Arc<Shared>) {
    let (number, session) = {
        let mut state = shared.state();
        state.tally.connections += 1;
        state.tally.open += 1;
        let number = state.tally.connections;
        let session = Session::new(Arc::clone(&state.script), number, rand::random());
        (number, session)
    };
    let _open = Open(&shared);
    shared.tell(number, EventKind::Connected(from)).await;
    let mut conversation = Conversation {
        stream: Some(stream),
        input: BytesMut::new(),
        number,
        session,
        shared: &shared,
    };
    let ended = conversation.run().await.unwrap_or(Ended::ByClient);
    shared.tell(number, EventKind::Closed(ended)).await;
}

/// Counts a connection as open.
struct Open<'a>(&'a Shared);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.state().tally.open -= 1;
    }
}

struct Conversation<'a> {
    /// Gone once it is over.
    stream: Option<Stream>,
    input: BytesMut,
    number: u64,
    session: Session,
    shared: &'a Shared,
}

impl Conversation<'_> {
    async fn run(&mut self) -> io::Result<Ended> {
        let deeds = self.ask(|session, _, around| Some(session.begin(around)));
        if let Some(ended) = self.carry_out(deeds.unwrap_or_default()).await? {
            return Ok(ended);
        }
        loop {
            let deeds = self.ask(|session, input, around| session.receive(input, around));
            if let Some(deeds) = deeds {
                if let Some(ended) = self.carry_out(deeds).await? {
                    return Ok(ended);
                }
            } else if !self.read().await? {
                return Ok(Ended::ByClient);
            }
        }
    }

    fn ask(
        &mut self,
        question: impl FnOnce(&mut Session, &mut BytesMut, &mut Around<'_>) -> Option<Vec<Deed>>,
    ) -> Option<Vec<Deed>> {
        let mut state = self.shared.state();
        let mut around = Around {
            tally: &mut state.tally,
            now: self.shared.started.elapsed(),
        };
        question(&mut self.session, &mut self.input, &mut around)
    }

    async fn carry_out(&mut self, deeds: Vec<Deed>) -> io::Result<Option<Ended>> {
        for deed in deeds {
            match deed {
                Deed::Send(octets) => self.send(&octets).await?,
                Deed::Drip(pause, octets) => {
                    for octet in octets {
                        self.send(&[octet]).await?;
                        sleep(pause).await;
                    }
                }
                Deed::Wait(time) => sleep(time).await,
                Deed::Silence => {
                    while self.read().await? {
                        self.input.clear();
                    }
                    return Ok(Some(Ended::ByClient));
                }
                Deed::Deaf => {
                    self.shared.shutdown.cancelled().await;
                    return Ok(Some(Ended::ByHost));
                }
                Deed::Handshake(kind) => self.encrypt(&kind).await?,
                Deed::Keep(taken) => self.keep(*taken).await?,
                Deed::Close => {
                    self.close().await?;
                    return Ok(Some(Ended::ByHost));
                }
                Deed::Reset => {
                    if let Some(stream) = self.stream.take() {
                        stream.reset()?;
                    }
                    return Ok(Some(Ended::Reset));
                }
                Deed::Tell(told) => self.shared.tell(self.number, told.into()).await,
            }
        }
        Ok(None)
    }

    /// Whether anything came.
    async fn read(&mut self) -> io::Result<bool> {
        let Some(stream) = &mut self.stream else {
            return Ok(false);
        };
        self.input.reserve(READ_SIZE);
        Ok(stream.read_buf(&mut self.input).await? > 0)
    }

    async fn send(&mut self, octets: &[u8]) -> io::Result<()> {
        let Some(stream) = &mut self.stream else {
            return Ok(());
        };
        stream.write_all(octets).await?;
        stream.flush().await
    }

    /// Ends our side and lets the client read to the end: octets of it that nobody read would make the system send RST, and
    /// our last words might be lost.
    async fn close(&mut self) -> io::Result<()> {
        if let Some(stream) = &mut self.stream {
            stream.shutdown().await?;
        }
        let drained = async {
            while self.read().await? {
                self.input.clear();
            }
            Ok::<_, io::Error>(())
        };
        let _ = timeout(FAREWELL, drained).await;
        Ok(())
    }

    async fn encrypt(&mut self, kind: &CertificateKind) -> io::Result<()> {
        let Some(stream) = self.stream.take() else {
            return Ok(());
        };
        // RFC 3207 §6: what came before it in plain text is nobody's word.
        self.input.clear();
        let shown = self.shared.certificates.of(kind);
        let shown = shown.ok_or_else(|| io::Error::other("no such certificate was made"))?;
        match stream.upgrade_server(shown, &[], HANDSHAKE).await {
            Ok(stream) => {
                let version = stream.tls_info().map(|info| info.version.to_string());
                self.stream = Some(stream);
                let told = EventKind::Encrypted(version.unwrap_or_default());
                self.shared.tell(self.number, told).await;
                Ok(())
            }
            Err(error) => {
                let told = EventKind::NotEncrypted(error.to_string());
                self.shared.tell(self.number, told).await;
                Err(io::Error::other(error))
            }
        }
    }

    /// A mail that cannot be kept ends the conversation before it is answered.
    async fn keep(&self, mut taken: Taken) -> io::Result<()> {
        let keep = self.shared.options.keep.clone();
        let count = {
            let mut state = self.shared.state();
            state.taken += 1;
            state.taken
        };
        match keep {
            Keep::InMemory => {}
            Keep::Nothing => taken.content = Vec::new(),
            Keep::In(folder) => {
                let content = std::mem::take(&mut taken.content);
                let told = taken.clone();
                let write = move || write(&folder, count, &told, &content);
                tokio::task::spawn_blocking(write).await??;
            }
        }
        let told = EventKind::Taken(Arc::new(taken));
        self.shared.tell(self.number, told).await;
        Ok(())
    }
}

fn write(folder: &Path, count: u64, taken: &Taken, content: &[u8]) -> io::Result<()> {
    let envelope = json!({
        "schema": 1, "from": taken.from, "to": taken.to, "tls": taken.tls, "login": taken.login,
    });
    let name = |ending: &str| folder.join(format!("{count:06}.{ending}"));
    std::fs::write(name("json"), format!("{envelope}\n"))?;
    std::fs::write(name("eml"), content)
}
