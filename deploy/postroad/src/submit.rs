//! A mail program in miniature: submits one mail by SMTP with a verified certificate and a password.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::BytesMut;
use postroad_address::Mailbox;
use postroad_envelope::{BodyKind, QueueId, Timestamp};
use postroad_net::{ClientTls, Stream, Trust, connect_tcp};
use postroad_sasl::Password;
use postroad_smtp::HeloName;
use postroad_smtp_session::{
    ClientConfig, ClientSession, OutgoingMail, OutgoingRecipient, Progress, RecipientResult, TlsUse,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::fault::Fault;
use crate::home::{DemoAccount, DemoCard};
use crate::timeline::Stop;

const PATIENCE: Duration = Duration::from_secs(30);
const PIECE: usize = 64 * 1024;

/// A mail that was taken.
#[derive(Debug)]
pub struct Submitted {
    /// Its id, as the reply names it.
    pub queue_id: Option<QueueId>,
    /// What the server said for each recipient.
    pub results: Vec<(Mailbox, RecipientResult)>,
    /// What happened on the client's side.
    pub stops: Vec<Stop>,
}

/// Submits to a demo, on its port for STARTTLS.
pub async fn submit(
    demo: &DemoCard,
    account: &DemoAccount,
    recipients: &[Mailbox],
    content: &[u8],
) -> Result<Submitted, Fault> {
    let server = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), demo.ports.submission);
    let sender = Mailbox::parse(&account.address).map_err(Fault::not_done)?;
    let mail = outgoing(&sender, recipients, content);
    let mut client = Client::connect(server, &demo.ca_file, account).await?;
    let results = timeout(PATIENCE, client.deliver(mail, content)).await;
    let results = results.map_err(|_| Fault::not_done(format!("{server} does not answer")))??;
    let queue_id = results.iter().find_map(|result| match result {
        RecipientResult::Accepted(reply) => reply
            .text()
            .split_whitespace()
            .find_map(|word| word.parse().ok()),
        _ => None,
    });
    Ok(Submitted {
        queue_id,
        results: recipients.iter().cloned().zip(results).collect(),
        stops: client.stops,
    })
}

fn outgoing(sender: &Mailbox, recipients: &[Mailbox], content: &[u8]) -> OutgoingMail {
    let utf8 = sender.needs_smtputf8() || recipients.iter().any(Mailbox::needs_smtputf8);
    OutgoingMail {
        reverse_path: sender.clone().into(),
        recipients: recipients
            .iter()
            .map(|recipient| OutgoingRecipient {
                forward_path: recipient.clone().into(),
                notify: None,
                orcpt: None,
            })
            .collect(),
        size: content.len() as u64,
        body: if content.is_ascii() {
            BodyKind::SevenBit
        } else {
            BodyKind::EightBitMime
        },
        smtputf8: utf8,
        utf8_header: !content.is_ascii(),
        requiretls: false,
        ret: None,
        envid: None,
        priority: 0,
        deliver_by: None,
        auth: None,
    }
}

/// One conversation.
struct Client {
    stream: Option<Stream>,
    session: ClientSession,
    tls: ClientTls,
    input: BytesMut,
    stops: Vec<Stop>,
}

impl Client {
    async fn connect(
        server: SocketAddr,
        ca_file: &Path,
        account: &DemoAccount,
    ) -> Result<Self, Fault> {
        let away = |error| {
            Fault::NotDone(format!(
                "cannot connect to {server}: {error}; is the demo running? start it with `postroad run --demo`"
            ))
        };
        let begun = now();
        let stream = connect_tcp(server, PATIENCE, None).await.map_err(away)?;
        let tls =
            ClientTls::verified(Trust::Files(vec![ca_file.to_owned()])).map_err(Fault::not_done)?;
        let name =
            HeloName::parse("localhost").ok_or_else(|| Fault::not_done("no name for EHLO"))?;
        let mut config = ClientConfig::new(name);
        config.tls = TlsUse::Required;
        config.auth = Some((
            account.address.clone(),
            Password::new(account.password.clone()),
        ));
        let mut client = Self {
            stream: Some(stream),
            session: ClientSession::new(config, false),
            tls,
            input: BytesMut::new(),
            stops: Vec::new(),
        };
        client.stop(begun, "connected", format!("to {server}"));
        Ok(client)
    }

    async fn deliver(
        &mut self,
        mail: OutgoingMail,
        content: &[u8],
    ) -> Result<Vec<RecipientResult>, Fault> {
        let mut mail = Some(mail);
        let mut results = None;
        let mut early = None;
        loop {
            let progress = match early.take() {
                Some(progress) => Some(progress),
                None => self
                    .session
                    .receive(&mut self.input)
                    .map_err(Fault::not_done)?,
            };
            match progress {
                Some(Progress::StartTls) => self.start_tls().await?,
                Some(Progress::Ready) => {
                    self.stop(now(), "logged in", "AUTH under TLS".to_owned());
                    early = mail.take().and_then(|mail| self.session.send(mail));
                }
                Some(Progress::SendContent) => self.send_content(content).await?,
                Some(Progress::Done(done)) => {
                    self.stop(now(), "answered", told(&done));
                    results = Some(done);
                    self.session.quit();
                }
                Some(Progress::Closed) => break,
                None => {
                    self.write().await?;
                    if self.read().await? == 0 {
                        break;
                    }
                }
            }
        }
        results.ok_or_else(|| {
            Fault::not_done("the server closed the connection before it took the mail")
        })
    }

    async fn start_tls(&mut self) -> Result<(), Fault> {
        self.write().await?;
        let stream = self.stream.take().ok_or_else(closed)?;
        let stream = stream
            .upgrade_client(&self.tls, "localhost", &self.input, PATIENCE)
            .await;
        let stream = stream.map_err(Fault::not_done)?;
        let facts = stream
            .tls_info()
            .map(|tls| format!("{} {}, certificate verified", tls.version, tls.cipher));
        self.stream = Some(stream);
        self.session.tls_started();
        self.stop(now(), "encrypted", facts.unwrap_or_default());
        Ok(())
    }

    async fn send_content(&mut self, content: &[u8]) -> Result<(), Fault> {
        for piece in content.chunks(PIECE) {
            self.session.content(piece).map_err(Fault::not_done)?;
            self.write().await?;
        }
        self.session.content_end().map_err(Fault::not_done)
    }

    async fn write(&mut self) -> Result<(), Fault> {
        let output = self.session.take_output();
        let stream = self.stream.as_mut().ok_or_else(closed)?;
        stream.write_all(&output).await.map_err(Fault::not_done)?;
        stream.flush().await.map_err(Fault::not_done)
    }

    async fn read(&mut self) -> Result<usize, Fault> {
        let stream = self.stream.as_mut().ok_or_else(closed)?;
        stream
            .read_buf(&mut self.input)
            .await
            .map_err(Fault::not_done)
    }

    fn stop(&mut self, at: Timestamp, what: &str, text: String) {
        self.stops.push(Stop {
            at,
            who: "client".to_owned(),
            what: what.to_owned(),
            text,
        });
    }
}

fn closed() -> Fault {
    Fault::not_done("the connection is closed")
}

fn told(results: &[RecipientResult]) -> String {
    match results.first() {
        Some(RecipientResult::Accepted(reply) | RecipientResult::Refused { reply, .. }) => {
            reply.to_string()
        }
        Some(RecipientResult::Unfit { text, .. }) => (*text).to_owned(),
        None => String::new(),
    }
}

/// The clock of this process.
pub fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
