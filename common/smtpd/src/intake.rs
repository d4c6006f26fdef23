//! The way of one mail's content into the queue.

use std::{mem, sync::Arc};

use bytes::{Bytes, BytesMut};
use postroad_envelope::{BULK_PRIORITY, BodyKind, EditPlace, Envelope, HeaderEdit, Timestamp};
use postroad_message::{HeaderBlock, HeaderSplitter, Received, Split};
use postroad_queue_client::{Accepted, Completion, QueueError, Submission};
use postroad_reply::*;
use tokio::time::timeout;
use tracing::{debug, info};

use crate::{ClientFacts, HeaderTerms, Smtpd, TransactionFacts, counts::Counts};

/// Octets handed to the queue at a time.
const CHUNK: usize = 64 << 10;
/// Pieces of this size go on without being copied together with others.
const LARGE: usize = 16 << 10;

/// Why content is not taken: what the client hears, and what the log is told besides.
pub struct Refusal {
    pub reply: Reply,
    pub cause: Option<String>,
}

impl From<Reply> for Refusal {
    fn from(reply: Reply) -> Self {
        Self { reply, cause: None }
    }
}

impl From<QueueError> for Refusal {
    fn from(error: QueueError) -> Self {
        Self {
            reply: error.to_reply(),
            cause: Some(error.to_string()),
        }
    }
}

/// Content on its way: first its header is gathered, then all goes to the queue.
pub struct Intake {
    state: State,
}

enum State {
    Header(HeaderSplitter),
    Streaming(Box<Streaming>),
    Refused,
}

struct Streaming {
    submission: Box<dyn Submission>,
    held: BytesMut,
    size: u64,
    log: MailLog,
}

/// What the log says of an accepted mail.
struct MailLog {
    client: ClientFacts,
    mail_from: String,
    recipients: usize,
    message_id: Option<String>,
    rests_until: Option<Timestamp>,
    counts: Arc<Counts>,
}

impl Intake {
    pub fn new(header_limit: usize) -> Self {
        Self {
            state: State::Header(HeaderSplitter::new(header_limit)),
        }
    }

    /// Takes the next piece; returns when there is room for more. After an error it takes nothing more.
    pub async fn push(
        &mut self,
        smtpd: &Smtpd,
        client: &ClientFacts,
        transaction: &TransactionFacts,
        piece: Bytes,
    ) -> Result<(), Refusal> {
        match mem::replace(&mut self.state, State::Refused) {
            State::Refused => Ok(()),
            State::Streaming(mut streaming) => {
                streaming.push(smtpd, piece).await?;
                self.state = State::Streaming(streaming);
                Ok(())
            }
            State::Header(mut splitter) => {
                match splitter
                    .push(&piece)
                    .map_err(|too_long| header_too_long(&too_long))?
                {
                    Split::Incomplete => self.state = State::Header(splitter),
                    Split::Complete { header, rest } => {
                        let streaming = begin(smtpd, client, transaction, header, rest).await?;
                        self.state = State::Streaming(streaming);
                    }
                }
                Ok(())
            }
        }
    }

    /// The content is complete: commits it, and says until when it rests. The commit goes on even if the conversation is dropped meanwhile.
    pub async fn finish(
        self,
        smtpd: &Smtpd,
        client: &ClientFacts,
        transaction: &TransactionFacts,
    ) -> Result<(Accepted, Option<Timestamp>), Refusal> {
        let mut streaming = match self.state {
            State::Refused => return Err(unavailable("the content was refused")),
            State::Streaming(streaming) => streaming,
            // The header is all there is, or there is nothing at all.
            State::Header(mut splitter) => {
                let (header, rest) = splitter.finish();
                begin(smtpd, client, transaction, header, rest).await?
            }
        };
        streaming.flush(smtpd).await?;
        let policy = &smtpd.policy;
        policy.content(client, transaction, streaming.size).await?;
        let rests_until = streaming.log.rests_until;
        let commit = smtpd.commits.spawn(streaming.commit());
        match timeout(smtpd.config.timeouts.commit, commit).await {
            Ok(Ok(Ok(accepted))) => Ok((accepted, rests_until)),
            Ok(Ok(Err(error))) => Err(error.into()),
            // A commit that panicked or hangs: nobody knows, so the client keeps the mail.
            Ok(Err(error)) => Err(unavailable(error)),
            Err(_) => Err(unavailable("the commit takes too long")),
        }
    }
}

/// Shows the header to the policy, makes the envelope and opens the submission.
async fn begin(
    smtpd: &Smtpd,
    client: &ClientFacts,
    transaction: &TransactionFacts,
    header: Bytes,
    rest: Bytes,
) -> Result<Box<Streaming>, Refusal> {
    let block = HeaderBlock::parse(&header);
    let hop_count = u32::try_from(block.count("Received")).unwrap_or(u32::MAX);
    if hop_count > smtpd.config.max_hops {
        // RFC 5321 §6.3.
        let text = "too many Received fields, the mail is looping";
        return Err(Reply::new(TRANSACTION_FAILED_554, LOOP_5_4_6, text).into());
    }
    let terms = smtpd.policy.header(client, transaction, &block).await?;
    let (mut envelope, log) = drafted(smtpd, client, transaction, (&block, terms));
    envelope.hop_count = hop_count;
    let submission = in_time(smtpd, smtpd.queue.submit(envelope)).await?;
    let mut streaming = Box::new(Streaming {
        submission,
        held: BytesMut::new(),
        size: 0,
        log,
    });
    streaming.push(smtpd, header).await?;
    streaming.push(smtpd, rest).await?;
    Ok(streaming)
}

/// What the queue is told of a mail, and the log.
fn drafted(
    smtpd: &Smtpd,
    client: &ClientFacts,
    transaction: &TransactionFacts,
    (block, terms): (&HeaderBlock, HeaderTerms),
) -> (Envelope, MailLog) {
    let message_id = block.message_id().map(|id| id.to_string());
    let mut envelope = envelope(smtpd, client, transaction, terms);
    add_fact(&mut envelope, "peer_queue_id", client.peer_queue_id());
    add_fact(
        &mut envelope,
        "client_protocol",
        client.forwarded_protocol(),
    );
    let said = transaction.mail.params.priority.is_some();
    if !said && envelope.priority == 0 && block.is_bulk() {
        envelope.priority = BULK_PRIORITY;
    }
    add_fact(&mut envelope, "message_id", message_id.as_deref());
    let log = MailLog {
        client: client.clone(),
        mail_from: envelope.reverse_path.to_string(),
        recipients: envelope.recipients.len(),
        message_id,
        rests_until: envelope.not_before,
        counts: Arc::clone(&smtpd.counts),
    };
    (envelope, log)
}

/// One the policy has not stated itself, if it has room.
fn add_fact(envelope: &mut Envelope, name: &str, value: Option<&str>) {
    let fits = |value: &&str| value.len() <= postroad_envelope::MAX_FACT;
    if let Some(value) = value.filter(fits) {
        let fact = envelope.facts.entry(name.to_owned());
        fact.or_insert_with(|| value.to_owned());
    }
}

fn envelope(
    smtpd: &Smtpd,
    client: &ClientFacts,
    transaction: &TransactionFacts,
    terms: HeaderTerms,
) -> Envelope {
    let (mail, now) = (
        &transaction.mail,
        Timestamp::from(std::time::SystemTime::now()),
    );
    let params = &mail.params;
    let origin = client.origin(params.smtputf8);
    let received = received(smtpd, transaction, &client.own_origin(params.smtputf8), now);
    let mut header_edits = vec![HeaderEdit::Add {
        place: EditPlace::Top,
        field: received,
    }];
    header_edits.extend(terms.edits);
    Envelope {
        recipients: transaction.recipients.clone(),
        tenant: transaction.tenant().to_owned(),
        account: origin.account.clone(),
        tags: transaction.terms.tags.clone(),
        facts: terms.facts,
        listener: client.listener.clone(),
        // What the session granted.
        priority: params.priority.unwrap_or(transaction.terms.priority),
        body: params.body.unwrap_or(BodyKind::SevenBit),
        smtputf8: params.smtputf8,
        requiretls: params.requiretls,
        envid: params.envid.clone(),
        ret: params.ret,
        // RFC 4954 §5: who submitted a mail is believed of clients that we know; of others it is from nobody known.
        auth: params.auth.as_ref().map(|mailbox| match origin.account {
            Some(_) => mailbox.clone(),
            None => String::new(),
        }),
        size: params.size.unwrap_or(0),
        // RFC 4865; what rests anyway rests at least as long.
        not_before: params
            .hold
            .map(|hold| hold.until(now))
            .filter(|until| *until > now)
            .max(terms.not_before),
        // RFC 2852 §4: from MAIL on, where the id was made.
        deliver_by: params
            .deliver_by
            .map(|by| by.from(transaction.queue_id.minted_at())),
        verdicts: terms.verdicts,
        header_edits,
        origin,
        ..Envelope::new(transaction.queue_id, mail.reverse_path.clone(), now)
    }
}

/// RFC 5321 §4.4: who handed the mail to us, so a neighbour, whose own field names the client behind it; `for` names a recipient only where it is the only one (§7.2), and then as the client did.
fn received(
    smtpd: &Smtpd,
    transaction: &TransactionFacts,
    origin: &postroad_envelope::Origin,
    at: Timestamp,
) -> Vec<u8> {
    let only = match transaction.recipients.as_slice() {
        [only] => Some(
            only.original
                .as_ref()
                .unwrap_or(&only.address)
                .clone()
                .into(),
        ),
        _ => None,
    };
    Received {
        origin,
        host: &smtpd.config.session.host_name,
        queue_id: transaction.queue_id,
        only_recipient: only.as_ref(),
        hidden: smtpd
            .config
            .hide_client
            .then_some(smtpd.config.listener.as_str()),
        at,
    }
    .to_field()
}

impl Streaming {
    async fn push(&mut self, smtpd: &Smtpd, mut piece: Bytes) -> Result<(), Refusal> {
        while piece.len() >= LARGE {
            self.flush(smtpd).await?;
            self.send(smtpd, piece.split_to(piece.len().min(CHUNK)))
                .await?;
        }
        // Small pieces, such as come from many lines with a dot, travel together.
        while !piece.is_empty() {
            let room = CHUNK - self.held.len();
            self.held
                .extend_from_slice(&piece.split_to(piece.len().min(room)));
            if self.held.len() == CHUNK {
                self.flush(smtpd).await?;
            }
        }
        Ok(())
    }

    async fn flush(&mut self, smtpd: &Smtpd) -> Result<(), Refusal> {
        match self.held.split().freeze() {
            held if held.is_empty() => Ok(()),
            held => self.send(smtpd, held).await,
        }
    }

    async fn send(&mut self, smtpd: &Smtpd, chunk: Bytes) -> Result<(), Refusal> {
        self.size += u64::try_from(chunk.len()).unwrap_or(u64::MAX);
        in_time(smtpd, self.submission.chunk(chunk)).await
    }

    /// Ends with the mail stored or not, and with a line in the log, whoever still listens.
    async fn commit(self: Box<Self>) -> Result<Accepted, QueueError> {
        let Self {
            submission,
            size,
            log,
            ..
        } = *self;
        let completion = Completion {
            size,
            ..Completion::default()
        };
        let result = submission.finish(completion).await;
        let client = &log.client;
        if result.is_ok() {
            log.counts.mails.count();
            let recipients = u64::try_from(log.recipients).unwrap_or(u64::MAX);
            log.counts.recipients.add(recipients);
            log.counts.sizes.observe(size);
        }
        match &result {
            Ok(accepted) => info!(
                event = "accepted",
                session_id = client.session_id,
                queue_id = %accepted.queue_id,
                listener = client.listener,
                peer = %client.peer,
                helo = client.helo(),
                account = client.account(),
                client = client.forwarded_client(),
                client_name = client.forwarded_name(),
                client_helo = client.forwarded_helo(),
                peer_queue_id = client.peer_queue_id(),
                mail_from = log.mail_from,
                recipients = log.recipients,
                message_id = log.message_id,
                size,
                tls = client.tls_text(),
                verified = client.verified(),
            ),
            // The conversation tells the log, if it is still there.
            Err(error) => debug!(session_id = client.session_id, %error, "the commit failed"),
        }
        result
    }
}

/// The queue is ours, but may be at the other end of a network.
pub async fn in_time<T>(
    smtpd: &Smtpd,
    asked: impl Future<Output = Result<T, QueueError>>,
) -> Result<T, Refusal> {
    match timeout(smtpd.config.timeouts.queue, asked).await {
        Ok(result) => result.map_err(Refusal::from),
        Err(_) => Err(unavailable("no answer in time")),
    }
}

fn unavailable(cause: impl ToString) -> Refusal {
    QueueError::Unavailable(cause.to_string()).into()
}

fn header_too_long(error: &postroad_message::HeaderTooLong) -> Refusal {
    Reply::new(EXCEEDED_STORAGE_552, TOO_LARGE_5_3_4, error.to_string()).into()
}
