//! An agent by somebody else that takes mail from other hosts and hands it over: honest, or a liar.

use anyhow::{Context as _, Result};
use bytes::Bytes;
use futures::stream;
use postroad_proto::queue::v1::{
    AdmitRequest, Completion, Envelope, Origin, Recipient, Reply, SubmitRequest,
    queue_client::QueueClient, refusal::Reason, submit_request::Part,
};
use prost::Message as _;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tonic::{Code, Status, transport::Channel};

/// What is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// 250 before the queue has said anything.
    SaysYesAtOnce,
    /// A mail of unknown outcome comes again under a new id.
    NewIdEachTime,
    IdOfNoTime,
    LargeChunks,
    KeepsDots,
    NeverAsks,
    /// What the queue does not understand is refused for good.
    RefusesForGood,
    NamesAnAccount,
    /// A client that went in the middle of its mail has sent it.
    EndsWhatWasCut,
}

/// The agent.
#[derive(Clone)]
pub struct Edge {
    pub queue: Channel,
    pub lies: Vec<Lie>,
}

impl Edge {
    fn lies(&self, lie: Lie) -> bool {
        self.lies.contains(&lie)
    }

    /// Takes mail until it is dropped.
    pub async fn run(self, listener: TcpListener) {
        let mut clients = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let edge = self.clone();
            clients.spawn(async move { edge.converse(BufReader::new(stream)).await });
        }
    }

    async fn converse(self, mut client: BufReader<TcpStream>) -> Result<()> {
        say(&mut client, "220 edge.test").await?;
        let (mut from, mut to) = (String::new(), Vec::new());
        loop {
            let mut line = String::new();
            if client.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            let path = line.split(['<', '>']).nth(1).unwrap_or_default().to_owned();
            match line.get(..4).unwrap_or_default() {
                "MAIL" => from = path,
                "RCPT" => to.push(path),
                "DATA" => {
                    let (from, to) = (std::mem::take(&mut from), std::mem::take(&mut to));
                    self.take(&mut client, from, to).await?;
                    continue;
                }
                _ => {}
            }
            say(&mut client, "250 ok").await?;
        }
    }

    async fn take(
        &self,
        client: &mut BufReader<TcpStream>,
        from: String,
        to: Vec<String>,
    ) -> Result<()> {
        if let Some(refusal) = self.admit(&to).await? {
            return say(client, &refusal).await;
        }
        say(client, "354 go on").await?;
        let mut content = Vec::new();
        loop {
            let mut line = Vec::new();
            if client.read_until(b'\n', &mut line).await? == 0 {
                if self.lies(Lie::EndsWhatWasCut) {
                    let envelope = self.envelope(&from, &to);
                    let _ = self.submit(envelope, content.into()).await;
                }
                return Ok(());
            }
            if line == b".\r\n" {
                break;
            }
            let dot = line.starts_with(b".") && !self.lies(Lie::KeepsDots);
            content.extend_from_slice(line.get(usize::from(dot)..).unwrap_or_default());
        }
        if self.lies(Lie::SaysYesAtOnce) {
            say(client, "250 ok").await?;
        }
        let envelope = self.envelope(&from, &to);
        let mut reply = self.submit(envelope.clone(), content.clone().into()).await;
        if self.lies(Lie::NewIdEachTime) && reply.starts_with("451 4.3.0") {
            reply = self.submit(self.envelope(&from, &to), content.into()).await;
        }
        match self.lies(Lie::SaysYesAtOnce) {
            true => Ok(()),
            false => say(client, &reply).await,
        }
    }

    async fn admit(&self, to: &[String]) -> Result<Option<String>> {
        if self.lies(Lie::NeverAsks) {
            return Ok(None);
        }
        let request = AdmitRequest {
            tenant: "default".to_owned(),
            recipients: to.to_vec(),
            ..AdmitRequest::default()
        };
        let answer = QueueClient::new(self.queue.clone()).admit(request).await;
        let answer = match answer {
            Ok(answer) => answer.into_inner(),
            Err(status) => return Ok(Some(self.reply_to(&status))),
        };
        Ok(answer.refusal.map(|refusal| {
            let reason = refusal.reason();
            match (refusal.reply, reason) {
                (Some(reply), _) => line_of(&reply),
                (None, Reason::Full) => "452 4.3.1 full".to_owned(),
                (None, _) => "451 4.3.0 not now".to_owned(),
            }
        }))
    }

    fn envelope(&self, from: &str, to: &[String]) -> Envelope {
        let recipients = (0..).zip(to).map(|(index, address)| Recipient {
            index,
            address: address.clone(),
            ..Recipient::default()
        });
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now = now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(0));
        let mut id: [u8; 16] = rand::random();
        if !self.lies(Lie::IdOfNoTime) {
            id[..6].copy_from_slice(&now.to_be_bytes()[2..]);
            id[6] = id[6] & 0x0f | 0x70;
            id[8] = id[8] & 0x3f | 0x80;
        }
        Envelope {
            queue_id: Bytes::copy_from_slice(&id),
            reverse_path: from.to_owned(),
            recipients: recipients.collect(),
            tenant: "default".to_owned(),
            account: self.lies(Lie::NamesAnAccount).then(|| from.to_owned()),
            received_at_ms: now,
            origin: Some(Origin {
                protocol: "ESMTP".to_owned(),
                ..Origin::default()
            }),
            ..Envelope::default()
        }
    }

    /// What the client hears.
    async fn submit(&self, envelope: Envelope, content: Bytes) -> String {
        let end = Completion {
            size: u64::try_from(content.len()).unwrap_or(0),
            crc32c: crc32c::crc32c(&content),
            ..Completion::default()
        };
        let chunk = match self.lies(Lie::LargeChunks) {
            true => 1 << 20,
            false => 60_000,
        };
        let chunks = content
            .chunks(chunk)
            .map(|one| Part::Chunk(content.slice_ref(one)));
        let parts = [Part::Begin(envelope)].into_iter().chain(chunks);
        let parts: Vec<_> = parts
            .chain([Part::End(end)])
            .map(|part| SubmitRequest { part: Some(part) })
            .collect();
        let mut client = QueueClient::new(self.queue.clone());
        match client.submit(stream::iter(parts)).await {
            Ok(_) => "250 2.0.0 taken".to_owned(),
            Err(status) => self.reply_to(&status),
        }
    }

    fn reply_to(&self, status: &Status) -> String {
        let own = Reply::decode(status.details())
            .ok()
            .filter(|own| own.code > 0);
        match (status.code(), own) {
            (Code::ResourceExhausted | Code::Aborted, Some(own)) => line_of(&own),
            (Code::ResourceExhausted, None) => "452 4.3.1 full".to_owned(),
            (Code::InvalidArgument | Code::PermissionDenied, _)
                if self.lies(Lie::RefusesForGood) =>
            {
                "554 5.0.0 no".to_owned()
            }
            (Code::AlreadyExists | Code::InvalidArgument | Code::PermissionDenied, _) => {
                "451 4.3.5 not now".to_owned()
            }
            _ => "451 4.3.0 not now".to_owned(),
        }
    }
}

fn line_of(reply: &Reply) -> String {
    let enhanced = reply.enhanced.as_deref().unwrap_or_default();
    format!("{} {enhanced} {}", reply.code, reply.text)
}

async fn say(client: &mut BufReader<TcpStream>, line: &str) -> Result<()> {
    let line = format!("{line}\r\n");
    let written = client.write_all(line.as_bytes()).await;
    written.context("the client has gone")
}
