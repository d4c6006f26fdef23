//! Clients on port 25: transcripts of whole conversations, and what reached the queue.
//!
//! `C:` the client says the line; `C>` it says these octets (`\r \n \0`); `S:` the server says the line, `*` standing for
//! any text, the lines between `S: 250-*` and the last one for themselves; `S: (closed)` it hangs up. `Q:` a mail in the
//! queue: sender `>` recipients, the original in brackets `>` content.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use postroad_envelope::{Envelope, HeaderEdit, Protocol};
use postroad_mta::{Config, Mta};
use postroad_net::{ClientTls, ListenAddr, Networks, Stream, Trust};
use postroad_queue_client::QueueError;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::fake_queue::FakeQueue;
use crate::setup::{certificate, common, deps};

pub const PATIENCE: Duration = Duration::from_secs(30);
const ZONE: &str = "\
127.0.0.1    PTR client.test
client.test  A   127.0.0.1
";

/// An agent that takes mail at a free port.
pub struct Server {
    pub address: SocketAddr,
    pub queue: FakeQueue,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Server {
    pub async fn start(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        config.outbound.enabled = false;
        let listener: ListenAddr = "127.0.0.1:0".parse().unwrap();
        config.inbound.listeners = [("smtp".to_owned(), listener.into())].into();
        change(&mut config);
        let queue = FakeQueue::default();
        let mta = Mta::bind(config, &common(), deps(&queue, ZONE).await).unwrap();
        let shutdown = CancellationToken::new();
        Self {
            address: mta.addresses()[0],
            queue,
            task: tokio::spawn(mta.run(shutdown.clone())),
            shutdown,
        }
    }

    /// Ends the agent and gives what is in the queue.
    pub async fn stop(self) -> Vec<String> {
        self.shutdown.cancel();
        timeout(PATIENCE, self.task)
            .await
            .expect("stops in time")
            .unwrap();
        let mails = self.queue.with(|data| std::mem::take(&mut data.mails));
        mails
            .iter()
            .map(|(envelope, _, content)| shown(envelope, content))
            .collect()
    }
}

fn shown(envelope: &Envelope, content: &[u8]) -> String {
    let recipients: Vec<String> = envelope
        .recipients
        .iter()
        .map(|recipient| match &recipient.original {
            Some(original) => format!("{}({original})", recipient.address),
            None => recipient.address.to_string(),
        })
        .collect();
    let content = String::from_utf8_lossy(content)
        .replace('\r', "\\r")
        .replace('\n', "\\n");
    let shown = format!(
        "{} > {} > {content}",
        envelope.reverse_path,
        recipients.join(" ")
    );
    shown.trim().to_owned()
}

pub struct Client<S> {
    pub stream: BufReader<S>,
}

impl Client<TcpStream> {
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        Self {
            stream: BufReader::new(stream),
        }
    }
}

impl<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin> Client<S> {
    async fn say(&mut self, octets: &[u8]) {
        self.stream.write_all(octets).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    async fn hear(&mut self) -> String {
        let mut line = String::new();
        timeout(PATIENCE, self.stream.read_line(&mut line))
            .await
            .expect("an answer")
            .unwrap();
        if line.is_empty() {
            "(closed)".to_owned()
        } else {
            line.trim_end().to_owned()
        }
    }

    /// Expects a reply like this; of a multi-line one the lines between are skipped.
    pub async fn expect(&mut self, pattern: &str) {
        let heard = self.hear().await;
        assert!(
            fits(pattern, &heard),
            "expected {pattern:?}, heard {heard:?}"
        );
        if pattern.ends_with("-*") {
            while self.hear().await.as_bytes().get(3) == Some(&b'-') {}
        }
    }

    pub async fn ask(&mut self, line: &str, pattern: &str) {
        self.say(format!("{line}\r\n").as_bytes()).await;
        self.expect(pattern).await;
    }
}

fn fits(pattern: &str, line: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == line,
        Some((head, tail)) => line
            .strip_prefix(head)
            .is_some_and(|rest| rest.ends_with(tail)),
    }
}

async fn play(path: &Path) {
    let server = Server::start(|_| {}).await;
    let mut client = Client::connect(server.address).await;
    let mut expected = Vec::new();
    for line in fs::read_to_string(path).unwrap().lines() {
        let (mark, text) = line.split_at(2.min(line.len()));
        let text = text.strip_prefix(' ').unwrap_or(text);
        match mark {
            "C:" => client.say(format!("{text}\r\n").as_bytes()).await,
            "C>" => {
                let raw = text
                    .replace("\\r", "\r")
                    .replace("\\n", "\n")
                    .replace("\\0", "\0");
                client.say(raw.as_bytes()).await;
            }
            "S:" => client.expect(text).await,
            "Q:" => expected.push(text.to_owned()),
            _ => assert!(
                line.starts_with('#') || line.is_empty(),
                "not a transcript: {line}"
            ),
        }
    }
    drop(client);
    assert_eq!(server.stop().await, expected, "{}", path.display());
}

#[tokio::test]
#[expect(clippy::print_stdout, reason = "shown only if one fails, to say which")]
async fn transcripts() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/agent/transcripts");
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(files.len() >= 9);
    for file in files {
        println!("{}", file.display());
        play(&file).await;
    }
}

#[tokio::test]
async fn a_mail_carries_one_received_and_where_it_came_from() {
    let server = Server::start(|_| {}).await;
    let mut client = Client::connect(server.address).await;
    client.expect("220 *").await;
    client.ask("EHLO helo.test", "250-*").await;
    client
        .ask("MAIL FROM:<eve@elsewhere.test> BODY=8BITMIME", "250 *")
        .await;
    client.ask("RCPT TO:<alice@ours.test>", "250 *").await;
    client.ask("DATA", "354 *").await;
    client
        .ask(
            "Received: from a\r\nReceived: from b\r\n\r\nx\r\n.",
            "250 2.0.0 * queued",
        )
        .await;
    let (envelope, admitted) = server
        .queue
        .with(|data| (data.mails[0].0.clone(), data.admitted.len()));
    assert_eq!(
        (envelope.listener.as_str(), envelope.hop_count, admitted),
        ("smtp", 2, 1)
    );
    assert_eq!(envelope.account, None);
    let origin = &envelope.origin;
    assert_eq!(
        (origin.rdns.as_deref(), origin.helo.as_deref()),
        (Some("client.test"), Some("helo.test"))
    );
    assert_eq!(
        origin.protocol,
        Protocol::Esmtp {
            tls: false,
            auth: false,
            utf8: false
        }
    );
    let [HeaderEdit::Add { field, .. }] = envelope.header_edits.as_slice() else {
        panic!("one edit: {:?}", envelope.header_edits);
    };
    let field = String::from_utf8(field.clone()).unwrap();
    assert!(
        field.starts_with("Received: from helo.test (client.test [127.0.0.1])\r\n"),
        "{field}"
    );
    assert!(
        field.contains("by mta.ours.test (Postroad) with ESMTP"),
        "{field}"
    );
    assert!(field.contains("for <alice@ours.test>"), "{field}");
    drop(client);
    server.stop().await;
}

#[tokio::test]
async fn rfc_3207_starttls_is_offered_with_a_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let files = certificate(&folder);
    let server = Server::start(|config| config.inbound.certificates = vec![files]).await;
    let mut client = Client::connect(server.address).await;
    client.expect("220 *").await;
    client.say(b"EHLO client.test\r\n").await;
    let mut offered = Vec::new();
    loop {
        offered.push(client.hear().await);
        if offered.last().unwrap().as_bytes()[3] == b' ' {
            break;
        }
    }
    assert!(
        offered.iter().any(|line| line.ends_with("STARTTLS")),
        "{offered:?}"
    );
    assert!(
        !offered.iter().any(|line| line.contains("AUTH")),
        "{offered:?}"
    );
    client.ask("STARTTLS", "220 2.0.0 *").await;
    let tls = ClientTls::opportunistic(Trust::Files(Vec::new())).unwrap();
    let stream = Stream::from(client.stream.into_inner());
    let stream = stream
        .upgrade_client(&tls, "mx.test", &[], PATIENCE)
        .await
        .unwrap();
    let mut client = Client {
        stream: BufReader::new(stream),
    };
    client
        .ask("MAIL FROM:<eve@elsewhere.test>", "503 5.5.1 *")
        .await;
    client.ask("EHLO client.test", "250-*").await;
    client.ask("MAIL FROM:<eve@elsewhere.test>", "250 *").await;
    client.ask("RCPT TO:<alice@ours.test>", "250 *").await;
    client.ask("DATA", "354 *").await;
    client.ask("x\r\n.", "250 *").await;
    let origin = server.queue.with(|data| data.mails[0].0.origin.clone());
    assert_eq!(origin.protocol.to_string(), "ESMTPS");
    assert_eq!(origin.tls.unwrap().version, "TLS1.3");
    client.ask("QUIT", "221 *").await;
    drop(client);
    server.stop().await;
}

#[tokio::test]
async fn relay_networks_may_send_to_anyone() {
    let server = Server::start(|config| {
        config.inbound.relay_networks = Networks::parse(["127.0.0.0/8"]).unwrap();
    })
    .await;
    let mut client = Client::connect(server.address).await;
    client.expect("220 *").await;
    client.ask("EHLO client.test", "250-*").await;
    client.ask("MAIL FROM:<alice@ours.test>", "250 *").await;
    client.ask("RCPT TO:<carol@elsewhere.test>", "250 *").await;
    client
        .ask("RCPT TO:<nobody@ours.test>", "550 5.1.1 *")
        .await;
    client.ask("DATA", "354 *").await;
    client.ask("x\r\n.", "250 *").await;
    drop(client);
    assert_eq!(
        server.stop().await,
        ["alice@ours.test > carol@elsewhere.test > x\\r\\n"]
    );
}

#[tokio::test]
async fn who_may_relay_goes_by_the_neighbour_and_not_by_what_it_tells() {
    let networks = |text: &str| Networks::parse([text]).unwrap();
    for (relay, client, answer) in [
        ("192.0.2.0/24", "192.0.2.7", "550 5.7.1 *"),
        ("127.0.0.0/8", "192.0.2.7", "250 *"),
    ] {
        let server = Server::start(|config| {
            config.inbound.relay_networks = networks(relay);
            config.inbound.xforward_networks = networks("127.0.0.1");
        })
        .await;
        let mut front = Client::connect(server.address).await;
        front.expect("220 *").await;
        front.ask("EHLO front.test", "250-*").await;
        let told = format!("XFORWARD NAME=client.test ADDR={client} HELO=helo.test");
        front.ask(&told, "250 *").await;
        front.ask("MAIL FROM:<eve@elsewhere.test>", "250 *").await;
        front.ask("RCPT TO:<carol@far.test>", answer).await;
        front.ask("RCPT TO:<alice@ours.test>", "250 *").await;
        front.ask("DATA", "354 *").await;
        front.ask("x\r\n.", "250 *").await;
        let origin = server.queue.with(|data| data.mails[0].0.origin.clone());
        assert_eq!(
            origin.client.map(|one| one.to_string()),
            Some(format!("{client}:0"))
        );
        assert!(origin.peer.is_some_and(|peer| peer.ip().is_loopback()));
        drop(front);
        server.stop().await;
    }
}

#[tokio::test]
async fn a_client_behind_a_proxy_has_its_own_rights() {
    let networks = |text: &str| Networks::parse([text]).unwrap();
    for (relay, client, answer) in [
        ("127.0.0.0/8", "ADDR=192.0.2.7", "550 5.7.1 *"),
        ("127.0.0.0/8", "NAME=client.test", "550 5.7.1 *"),
        ("127.0.0.0/8", "ADDR=[UNAVAILABLE]", "550 5.7.1 *"),
        ("192.0.2.0/24", "ADDR=192.0.2.7", "250 *"),
    ] {
        let server = Server::start(|config| {
            config.inbound.relay_networks = networks(relay);
            config.inbound.xclient_networks = networks("127.0.0.1");
        })
        .await;
        let mut proxy = Client::connect(server.address).await;
        proxy.expect("220 *").await;
        proxy.ask("EHLO proxy.test", "250-*").await;
        proxy.ask(&format!("XCLIENT {client}"), "220 *").await;
        proxy.ask("EHLO client.test", "250-*").await;
        proxy.ask("MAIL FROM:<eve@elsewhere.test>", "250 *").await;
        proxy.ask("RCPT TO:<carol@far.test>", answer).await;
        drop(proxy);
        server.stop().await;
    }
}

#[tokio::test]
async fn without_the_queue_clients_come_again() {
    let server = Server::start(|_| {}).await;
    let away = |error| server.queue.with(|data| data.away = error);
    let mut client = Client::connect(server.address).await;
    client.expect("220 *").await;
    client.ask("EHLO client.test", "250-*").await;
    for (error, expected) in [
        (QueueError::Unavailable("test".into()), "451 4.3.0 *"),
        (QueueError::Full("test".into()), "452 4.3.1 *"),
    ] {
        client.ask("MAIL FROM:<eve@elsewhere.test>", "250 *").await;
        client.ask("RCPT TO:<alice@ours.test>", "250 *").await;
        away(Some(error.clone()));
        client.ask("DATA", expected).await;
        // Admitted, and gone before the end.
        away(None);
        client.ask("DATA", "354 *").await;
        away(Some(error));
        client.ask("x\r\n.", expected).await;
        away(None);
    }
    drop(client);
    assert!(server.stop().await.is_empty());
}

#[tokio::test]
async fn a_running_transaction_may_end_after_shutdown_began() {
    let server = Server::start(|_| {}).await;
    let mut idle = Client::connect(server.address).await;
    idle.expect("220 *").await;
    let mut client = Client::connect(server.address).await;
    client.expect("220 *").await;
    client.ask("EHLO client.test", "250-*").await;
    client.ask("MAIL FROM:<eve@elsewhere.test>", "250 *").await;
    client.ask("RCPT TO:<alice@ours.test>", "250 *").await;
    client.ask("DATA", "354 *").await;
    server.shutdown.cancel();
    idle.expect("421 4.3.2 *").await;
    drop(idle);
    client.ask("x\r\n.", "250 *").await;
    client.expect("421 4.3.2 *").await;
    drop(client);
    assert_eq!(server.stop().await.len(), 1);
}

#[tokio::test]
async fn over_its_connections_a_client_is_told_to_come_again() {
    let server = Server::start(|config| config.inbound.limits.max_connections_per_ip = 1).await;
    let mut first = Client::connect(server.address).await;
    first.expect("220 *").await;
    let mut second = Client::connect(server.address).await;
    second.expect("421 4.7.0 mta.ours.test *").await;
    let mut rest = Vec::new();
    timeout(PATIENCE, second.stream.read_to_end(&mut rest))
        .await
        .unwrap()
        .unwrap();
    drop((first, second));
    server.stop().await;
}

#[tokio::test]
async fn what_comes_to_the_address_of_one_recipient_goes_to_the_sender_and_names_that_one() {
    let server = Server::start(|config| {
        let senders = ["alice@ours.test", "team@ours.test"];
        let text = |one: &&str| postroad_mta::SenderText(one.parse().unwrap());
        config.inbound.verp_senders = senders.iter().map(text).collect();
    })
    .await;
    let mut client = Client::connect(server.address).await;
    client.expect("220 *").await;
    client.ask("EHLO client.test", "250-*").await;
    for (rcpt, answer) in [
        ("alice+bob=far.test@ours.test", "250 *"),
        ("team+eve+x=far.test@ours.test", "250 *"),
        ("bob+eve=far.test@ours.test", "550 5.2.1 *"),
        ("nobody+eve=far.test@ours.test", "550 5.1.1 *"),
    ] {
        client.ask("MAIL FROM:<>", "250 *").await;
        client.ask(&format!("RCPT TO:<{rcpt}>"), answer).await;
        if answer.starts_with("250") {
            client.ask("DATA", "354 *").await;
            let content = "X-Postroad-Bounce-Of: mallory@far.test\r\n\r\nx\r\n.";
            client.ask(content, "250 *").await;
        } else {
            client.ask("RSET", "250 *").await;
        }
    }
    let edits = server.queue.with(|data| {
        let each = data.mails.iter();
        let edits = each.map(|mail| mail.0.header_edits[1..].to_vec());
        edits.collect::<Vec<_>>()
    });
    for (edits, of) in edits.iter().zip(["bob@far.test", "eve+x@far.test"]) {
        let [
            HeaderEdit::Remove { name, .. },
            HeaderEdit::Add { field, .. },
        ] = edits.as_slice()
        else {
            panic!("what the client says goes, ours comes: {edits:?}");
        };
        assert_eq!(name, "X-Postroad-Bounce-Of");
        let told = format!("X-Postroad-Bounce-Of: {of}\r\n");
        assert_eq!(String::from_utf8_lossy(field), told);
    }
    drop(client);
    let mails = server.stop().await;
    // Nobody stands before the first mark, since the sender is null.
    let to = |mail: &String| mail.split(" > ").next().unwrap_or(mail).to_owned();
    assert_eq!(
        mails.iter().map(to).collect::<Vec<_>>(),
        [
            "> alice@ours.test(alice+bob=far.test@ours.test)",
            "> alice@ours.test(team@ours.test) carol@elsewhere.test(team@ours.test)"
        ]
    );
}
