//! Holds every conversation of `tests/conversations` over TCP with the agents, all of them at once at one stack; then every mail
//! that was taken lies in a mailbox, with the content it was sent with.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use futures::{StreamExt as _, stream};
use postroad_conversations::{Action, HOST, Listener, PASSWORD, Player, SIZE, Transcript};
use postroad_net::{ClientTls, Stream, Trust, connect_tcp};
use postroad_sasl::{CramSecret, SCRAM_ITERATIONS, ScramHash, ScramKeys};
use postroad_tests::{Stack, stack, wait_for};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

/// Where a client comes from that may say XFORWARD.
const NEIGHBOUR: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
/// And from where one that may say XCLIENT.
const PROXY: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));
const SOON: Duration = Duration::from_secs(60);
const AT_ONCE: usize = 16;

/// What somebody who is kept waiting on purpose or refused for being many does not belong here.
fn settings() -> String {
    format!(
        r#"
[msa]
size_limit = "{SIZE}B"
limits.max_connections_per_ip = 1000
auth.mechanisms = ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "SCRAM-SHA-1", "CRAM-MD5", "PLAIN", "LOGIN"]
auth.delay = "1ms"
auth.ban_after = 0
auth.max_delay = "1ms"
auth.patience = "60s"
queue_timeout = "30s"
[mta.inbound]
size_limit = "{SIZE}B"
queue_timeout = "30s"
xforward_networks = ["{NEIGHBOUR}"]
xclient_networks = ["{PROXY}"]
limits.max_connections_per_ip = 1000
[mda.lmtp]
size_limit = "{SIZE}B"
limits.max_connections_per_ip = 1000
"#
    )
}

const DIRECTORY: &str = r#"
[[account]]
address = "dora@demo.test"
password_hash = "HASH"
KEYS[[account]]
address = "gone@demo.test"
password_hash = "HASH"
disabled = true
[[alias]]
address = "all@demo.test"
to = ["bob@demo.test", "carol@demo.test"]
"#;

/// What proves dora's password.
fn keys() -> Result<String> {
    let scram = |hash| ScramKeys::derive(hash, PASSWORD, &[7; 16], SCRAM_ITERATIONS);
    let (Ok(sha_256), Ok(sha_1)) = (scram(ScramHash::Sha256), scram(ScramHash::Sha1)) else {
        bail!("no keys")
    };
    let secret = CramSecret::new(PASSWORD.as_bytes());
    let secret = secret.to_text();
    Ok(format!(
        "scram_sha_256 = \"{sha_256}\"\nscram_sha_1 = \"{sha_1}\"\nrecoverable_secret = \"{}\"\n",
        *secret
    ))
}

/// A mail that was taken.
struct Taken {
    id: String,
    /// From which file, and what it said that the content is.
    name: String,
    content: Option<Vec<u8>>,
}

#[tokio::test]
async fn all_over_tcp() -> Result<()> {
    let transcripts =
        postroad_conversations::all().map_err(|faults| anyhow::anyhow!("{faults:#?}"))?;
    let hash = postroad_directory::hash_password(PASSWORD.as_bytes(), *b"salt for testing")?;
    let stack = stack!()
        .all_in_one(true)
        .settings(&settings())
        .directory(&DIRECTORY.replace("HASH", &hash).replace("KEYS", &keys()?))
        .start()
        .await?;
    let both = |transcript: &Transcript| {
        let listeners = transcript.listeners.clone();
        let transcript = transcript.clone();
        listeners
            .into_iter()
            .map(move |listener| (transcript.clone(), listener))
    };
    let ends = stream::iter(transcripts.iter().flat_map(both))
        .map(async |(transcript, listener)| play(&stack, &transcript, listener).await)
        .buffer_unordered(AT_ONCE)
        .collect::<Vec<_>>()
        .await;
    let played = ends.len();
    let (mut taken, mut failures) = (Vec::new(), Vec::new());
    for end in ends {
        match end {
            Ok(mails) => taken.extend(mails),
            Err(failure) => failures.push(format!("{failure:#}")),
        }
    }
    failures.sort();
    ensure!(
        failures.is_empty(),
        "{} of {played} conversations went otherwise:\n{}",
        failures.len(),
        failures.join("\n")
    );
    ensure!(played > 50, "only {played} conversations were found");
    delivered(&stack, &taken).await?;
    stack.end().await
}

async fn play(stack: &Stack, transcript: &Transcript, listener: Listener) -> Result<Vec<Taken>> {
    let mut player = transcript.player(listener)?;
    let mut client = Client::connect(stack, listener).await?;
    let mut contents = Vec::new();
    let held = timeout(SOON, hold(&mut player, &mut client, &mut contents));
    held.await
        .with_context(|| player.failed("an answer", "nothing in time").to_string())??;
    let taken = player.ids().iter().map(|id| {
        let content = contents.iter().find(|(other, _)| other == id);
        Taken {
            id: id.clone(),
            name: transcript.name.clone(),
            content: content.map(|(_, content)| content.clone()),
        }
    });
    Ok(taken.collect())
}

async fn hold(
    player: &mut Player,
    client: &mut Client,
    contents: &mut Vec<(String, Vec<u8>)>,
) -> Result<()> {
    while let Some(action) = player.next() {
        match action {
            // A server that closes while we send has said why.
            Action::Send(octets) => _ = client.send(&octets).await,
            Action::Hear => {
                let said = client.line().await?;
                player.heard(said.as_deref())?;
            }
            Action::StartTls => client.start_tls().await?,
            Action::Mail(content, id) => {
                contents.push((id.context("no mail was taken")?, content));
            }
            Action::HalfClose => client.half_close().await?,
            Action::AwaitClose => {
                if let Some(said) = client.line().await? {
                    bail!(player.failed("the end", &said));
                }
                return Ok(());
            }
        }
    }
    // Whatever else it has to say, it says before it closes too.
    client.half_close().await?;
    match client.line().await? {
        None => Ok(()),
        Some(surplus) => bail!(player.failed("nothing", &surplus)),
    }
}

/// All mail goes to bob and carol, or into the world, where nobody listens.
async fn delivered(stack: &Stack, taken: &[Taken]) -> Result<()> {
    for Taken { id, name, content } in taken {
        let found = wait_for(&format!("mail {id} of {name}"), async || {
            let boxes = ["bob@demo.test", "carol@demo.test"];
            let mails = boxes
                .iter()
                .filter_map(|account| stack.delivered(account).ok());
            mails.flatten().find(|mail| mail.contains(id))
        })
        .await?;
        let Some(content) = content else { continue };
        let stored: Vec<u8> = content
            .iter()
            .copied()
            .filter(|&octet| octet != b'\r')
            .collect();
        // What is not made of lines is kept as it came (BODY=BINARYMIME).
        ensure!(
            found.content.ends_with(&stored) || found.content.ends_with(content),
            "{name}: {:?} does not end with {:?}",
            found.text(),
            String::from_utf8_lossy(&stored)
        );
    }
    Ok(())
}

struct Client {
    /// None while it changes.
    stream: Option<Stream>,
    said: Vec<u8>,
    tls: ClientTls,
}

impl Client {
    async fn connect(stack: &Stack, listener: Listener) -> Result<Self> {
        let ports = &stack.ports;
        let (address, source): (SocketAddr, _) = match listener {
            Listener::Submission => (ports.submission(), None),
            Listener::Submissions => (ports.submissions(), None),
            Listener::Inbound => (ports.smtp(), None),
            Listener::Neighbour => (ports.smtp(), Some(NEIGHBOUR)),
            Listener::Proxy => (ports.smtp(), Some(PROXY)),
            Listener::Lmtp => (ports.lmtp(), None),
        };
        let tls = ClientTls::verified(Trust::Files(vec![stack.ca_file()]))?;
        let stream = connect_tcp(address, SOON, source).await?;
        let mut client = Self {
            stream: Some(stream),
            said: Vec::new(),
            tls,
        };
        if listener.begins_with_tls() {
            client.start_tls().await?;
        }
        Ok(client)
    }

    fn stream(&mut self) -> Result<&mut Stream> {
        self.stream.as_mut().context("the handshake failed")
    }

    async fn send(&mut self, octets: &[u8]) -> Result<()> {
        let stream = self.stream()?;
        stream.write_all(octets).await?;
        Ok(stream.flush().await?)
    }

    async fn half_close(&mut self) -> Result<()> {
        // It may be closed already.
        let _ = self.stream()?.shutdown().await;
        Ok(())
    }

    async fn start_tls(&mut self) -> Result<()> {
        let plain = self.stream.take().context("no connection")?;
        let secured = plain
            .upgrade_client(&self.tls, HOST, &self.said, SOON)
            .await?;
        self.stream = Some(secured);
        Ok(())
    }

    /// The next line; none: the server has closed.
    async fn line(&mut self) -> Result<Option<String>> {
        loop {
            if let Some(end) = self.said.windows(2).position(|pair| pair == b"\r\n") {
                let line: Vec<u8> = self.said.drain(..end + 2).take(end).collect();
                return Ok(Some(String::from_utf8(line)?));
            }
            let mut buffer = [0; 4096];
            match self.stream()?.read(&mut buffer).await {
                Ok(0) => return Ok(None),
                Ok(read) => self
                    .said
                    .extend_from_slice(buffer.get(..read).unwrap_or_default()),
                Err(error) => match error.kind() {
                    // A server that closes before it has read all we sent resets the connection, and few say good-bye to TLS
                    // when the other side has hung up.
                    io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof => {
                        return Ok(None);
                    }
                    _ => return Err(error.into()),
                },
            }
        }
    }
}
