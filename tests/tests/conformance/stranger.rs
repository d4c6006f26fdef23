//! A delivery agent by somebody else, written from the contract: honest, or a liar.

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};
use bytes::{Bytes, BytesMut};
use postroad_proto::queue::v1::{
    Action, Envelope, HandBack, Lease, LeaseRef, LeaseRefs, Outcome, ReadRequest, RecipientOutcome,
    RouteClass, Settlement, WorkUp, header_edit::Edit, queue_client::QueueClient, work_down,
    work_up,
};
use tokio::{sync::mpsc, task::JoinSet, time::sleep};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

const ROOM: u32 = 4;

/// What is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// Numbers of a reference are cut to 32 bits.
    ShortNumbers,
    /// All the room there is, said again with each settlement.
    CreditsAgain,
    HoldsNothing,
    FilesTwice,
    WrongStatus,
    /// What was read is the mail, whatever was said of its size.
    TakesAnySize,
    EditsNothing,
    ComesAtOnce,
    TakesAnyClass,
    NeverExtends,
    NeverSaysDrained,
}

/// The agent.
pub struct Stranger {
    pub queue: Channel,
    pub mailbox: PathBuf,
    pub account: String,
    pub lies: Vec<Lie>,
    pub stop: CancellationToken,
    /// Deliveries that were made.
    filed: Mutex<HashSet<(Bytes, u32)>>,
}

/// What it holds.
#[derive(Default)]
struct Held {
    /// Under way: the name a lease was given under, and the one it has now.
    running: HashMap<Vec<u8>, LeaseRef>,
    /// Done, and the queue has not said that it knows.
    results: Vec<Settlement>,
    /// It takes nothing more.
    leaving: bool,
}

enum Done {
    Settled(Vec<RecipientOutcome>),
    Back,
}

fn key(lease: &LeaseRef) -> Vec<u8> {
    prost::Message::encode_to_vec(lease)
}

impl Stranger {
    pub fn new(queue: Channel, mailbox: PathBuf, account: &str, lies: &[Lie]) -> Self {
        Self {
            queue,
            mailbox,
            account: account.to_owned(),
            lies: lies.to_vec(),
            stop: CancellationToken::new(),
            filed: Mutex::default(),
        }
    }

    fn lies(&self, lie: Lie) -> bool {
        self.lies.contains(&lie)
    }

    /// Works until it is told to stop.
    pub async fn run(self: Arc<Self>) {
        let (mut held, mut tasks) = (Held::default(), JoinSet::new());
        let mut pause = Duration::from_millis(50);
        while !self.stop.is_cancelled() {
            // Why a stream ended is of no interest: there will be another.
            let _ = self.converse(&mut held, &mut tasks).await;
            if !self.lies(Lie::ComesAtOnce) {
                sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(1));
            }
        }
    }

    fn hello(&self, held: &Held) -> WorkUp {
        let all = held.results.iter().filter_map(|one| one.lease.as_ref());
        let all = all.chain(held.running.values()).cloned();
        up(work_up::Message::Hello(work_up::Hello {
            agent: "stranger@example.net".to_owned(),
            version: "3".to_owned(),
            host: "store".to_owned(),
            classes: vec![RouteClass::Local.into()],
            held: match self.lies(Lie::HoldsNothing) {
                true => Vec::new(),
                false => all.collect(),
            },
            ..work_up::Hello::default()
        }))
    }

    async fn converse(
        self: &Arc<Self>,
        held: &mut Held,
        tasks: &mut JoinSet<(Vec<u8>, Done)>,
    ) -> Result<()> {
        let (ups, stream) = mpsc::channel(64);
        ups.send(self.hello(held)).await?;
        let mut client = QueueClient::new(self.queue.clone());
        let mut down = client.work(ReceiverStream::new(stream)).await?.into_inner();
        held.leaving = false;
        let mut stopping = false;
        let mut extend = tokio::time::interval(Duration::from_millis(250));
        loop {
            if stopping && tasks.is_empty() && held.results.is_empty() {
                if !self.lies(Lie::NeverSaysDrained) {
                    ups.send(up(work_up::Message::Drained(work_up::Drained {})))
                        .await?;
                    while down.message().await?.is_some() {}
                }
                return Ok(());
            }
            tokio::select! {
                message = down.message() => {
                    let message = message?.context("the stream ended")?;
                    match message.message {
                        Some(work_down::Message::Drain(_)) => held.leaving = true,
                        Some(message) => self.hear(message, held, tasks, &ups).await?,
                        None => {}
                    }
                }
                Some(done) = tasks.join_next() => {
                    let (name, done) = done?;
                    if let Some(lease) = held.running.remove(&name) {
                        self.tell(lease, done, held, &ups).await?;
                    }
                }
                _ = extend.tick(), if !held.running.is_empty() && !self.lies(Lie::NeverExtends) => {
                    let leases = held.running.values().cloned().collect();
                    ups.send(up(work_up::Message::Extend(LeaseRefs { leases }))).await?;
                }
                () = self.stop.cancelled(), if !stopping => (stopping, held.leaving) = (true, true),
            }
        }
    }

    async fn hear(
        self: &Arc<Self>,
        message: work_down::Message,
        held: &mut Held,
        tasks: &mut JoinSet<(Vec<u8>, Done)>,
        ups: &mpsc::Sender<WorkUp>,
    ) -> Result<()> {
        match message {
            work_down::Message::Welcome(welcome) => {
                let renamed = |old: &LeaseRef| {
                    let of = |one: &&work_down::Resumed| one.old.as_ref() == Some(old);
                    welcome.resumed.iter().find(of)?.new.clone()
                };
                held.running.retain(|_, name| match renamed(name) {
                    Some(new) => {
                        *name = new;
                        true
                    }
                    None => false,
                });
                for mut result in std::mem::take(&mut held.results) {
                    let Some(new) = result.lease.as_ref().and_then(&renamed) else {
                        continue;
                    };
                    result.lease = Some(new);
                    held.results.push(result.clone());
                    ups.send(up(work_up::Message::Settle(result))).await?;
                }
                let busy = held.running.len() + held.results.len();
                let room = ROOM.saturating_sub(u32::try_from(busy)?);
                ups.send(up(work_up::Message::Credits(room))).await?;
            }
            work_down::Message::Lease(lease) => {
                let reference = lease.lease.clone().context("no reference")?;
                held.running.insert(key(&reference), reference.clone());
                let this = Arc::clone(self);
                tasks.spawn(async move { (key(&reference), this.deliver(lease).await) });
            }
            work_down::Message::Settled(settled) => {
                held.results.retain(|one| one.lease != settled.lease);
                if !self.lies(Lie::CreditsAgain) && !held.leaving {
                    ups.send(up(work_up::Message::Credits(1))).await?;
                }
            }
            work_down::Message::Revoked(revoked) => {
                let is_over = |name: &LeaseRef| revoked.leases.contains(name);
                let before = held.running.len();
                held.running.retain(|_, name| !is_over(name));
                let over = u32::try_from(before - held.running.len())?;
                ups.send(up(work_up::Message::Credits(over))).await?;
            }
            _ => {}
        }
        Ok(())
    }

    async fn tell(
        &self,
        mut lease: LeaseRef,
        done: Done,
        held: &mut Held,
        ups: &mpsc::Sender<WorkUp>,
    ) -> Result<()> {
        if self.lies(Lie::ShortNumbers) {
            lease.revision &= u64::from(u32::MAX);
        }
        match done {
            Done::Settled(outcomes) => {
                let settlement = Settlement {
                    lease: Some(lease),
                    outcomes,
                    ..Settlement::default()
                };
                held.results.push(settlement.clone());
                ups.send(up(work_up::Message::Settle(settlement))).await?;
                if self.lies(Lie::CreditsAgain) {
                    ups.send(up(work_up::Message::Credits(ROOM))).await?;
                }
            }
            Done::Back => {
                let back = HandBack {
                    lease: Some(lease),
                    reason: "not now".to_owned(),
                    ..HandBack::default()
                };
                ups.send(up(work_up::Message::HandBack(back))).await?;
                if !held.leaving {
                    ups.send(up(work_up::Message::Credits(1))).await?;
                }
            }
        }
        Ok(())
    }

    async fn deliver(&self, lease: Lease) -> Done {
        let class = lease.route.as_ref().map(|route| route.class());
        if class != Some(RouteClass::Local) && !self.lies(Lie::TakesAnyClass) {
            return Done::Back;
        }
        let envelope = lease.envelope.unwrap_or_default();
        let content = match lease.content {
            Some(content) => content,
            None => match self.read(&envelope).await {
                Some(content) => content,
                None => return Done::Back,
            },
        };
        let recipients = envelope.recipients.iter();
        let outcomes = recipients.map(|to| {
            let action = match to.address == self.account {
                true => Action::Delivered,
                false => Action::Failed,
            };
            if action == Action::Delivered {
                self.file(&envelope, to.index, &content);
            }
            let status = match action {
                Action::Delivered if self.lies(Lie::WrongStatus) => "2.0",
                Action::Delivered => "2.1.5",
                _ => "5.1.1",
            };
            let outcome = Outcome {
                action: action.into(),
                status: status.to_owned(),
                text: "filed, or not".to_owned(),
                ..Outcome::default()
            };
            RecipientOutcome {
                index: to.index,
                outcome: Some(outcome),
            }
        });
        Done::Settled(outcomes.collect())
    }

    async fn read(&self, envelope: &Envelope) -> Option<Bytes> {
        let request = ReadRequest {
            queue_id: envelope.queue_id.clone(),
            ..ReadRequest::default()
        };
        let mut client = QueueClient::new(self.queue.clone());
        let mut chunks = client.read(request).await.ok()?.into_inner();
        let mut content = BytesMut::new();
        let any = self.lies(Lie::TakesAnySize);
        loop {
            match chunks.message().await {
                Ok(Some(part)) => content.extend_from_slice(&part.chunk),
                Ok(None) => break,
                Err(_) if any => break,
                Err(_) => return None,
            }
        }
        let is_whole = u64::try_from(content.len()).ok()? == envelope.size;
        (is_whole || any).then(|| content.freeze())
    }

    /// Once for each recipient of a mail, unless it lies.
    fn file(&self, envelope: &Envelope, index: u32, content: &Bytes) {
        let id = (envelope.queue_id.clone(), index);
        let mut filed = self.filed.lock().unwrap_or_else(PoisonError::into_inner);
        if !filed.insert(id) && !self.lies(Lie::FilesTwice) {
            return;
        }
        let text = String::from_utf8_lossy(content);
        let (header, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let mut fields: Vec<String> = header.split("\r\n").map(ToOwned::to_owned).collect();
        let edits = match self.lies(Lie::EditsNothing) {
            true => &[][..],
            false => &envelope.header_edits,
        };
        for edit in edits {
            match &edit.edit {
                Some(Edit::Add(add)) => {
                    let field = String::from_utf8_lossy(&add.field).trim_end().to_owned();
                    let at = if add.at_bottom { fields.len() } else { 0 };
                    fields.insert(at, field);
                }
                Some(Edit::Remove(remove)) => fields.retain(|field| {
                    let name = field.split(':').next().unwrap_or_default();
                    !name.eq_ignore_ascii_case(&remove.name)
                }),
                None => {}
            }
        }
        fields.insert(0, format!("Delivered-To: {}", self.account));
        fields.insert(0, format!("Return-Path: <{}>", envelope.reverse_path));
        let mail = format!("{}\r\n\r\n{body}", fields.join("\r\n"));
        let name = format!("{:016x}", rand::random::<u64>());
        // A failure shows in the mailbox.
        let _ = fs::write(self.mailbox.join("new").join(name), mail);
    }
}

fn up(message: work_up::Message) -> WorkUp {
    WorkUp {
        message: Some(message),
    }
}
