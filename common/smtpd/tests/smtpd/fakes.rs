//! A queue in memory and a policy of fixed rules.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use postroad_address::{ForwardPath, Mailbox};
use postroad_envelope::{EditPlace, Envelope, Event, HeaderEdit, QueueId};
use postroad_message::HeaderBlock;
use postroad_queue_client::*;
use postroad_reply::*;
use postroad_sasl::Credentials;
use postroad_smtp_session::{MailRequest, PolicyReply, RcptRequest};
use postroad_smtpd::*;
use tokio::sync::{Semaphore, watch};

/// What a test prescribes, and what it finds afterwards.
pub struct MemoryQueue {
    pub admit: Result<(), QueueError>,
    pub submit: Result<(), QueueError>,
    pub finish: Result<(), QueueError>,
    /// Each chunk and each finish takes a permit.
    pub gate: Arc<Semaphore>,
    pub mails: Arc<Mutex<Vec<StoredMail>>>,
    pub counts: Arc<watch::Sender<Counts>>,
}

#[derive(Debug, Clone)]
pub struct StoredMail {
    pub envelope: Envelope,
    pub content: Bytes,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub begun: usize,
    pub chunks: usize,
    pub finishing: usize,
    pub dropped: usize,
}

impl Default for MemoryQueue {
    fn default() -> Self {
        Self {
            admit: Ok(()),
            submit: Ok(()),
            finish: Ok(()),
            gate: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
            mails: Arc::default(),
            counts: Arc::new(watch::Sender::new(Counts::default())),
        }
    }
}

impl MemoryQueue {
    pub fn closed_gate() -> Self {
        Self {
            gate: Arc::new(Semaphore::new(0)),
            ..Self::default()
        }
    }
}

#[async_trait]
impl QueueService for MemoryQueue {
    async fn admit(&self, request: AdmitRequest) -> Result<(), QueueError> {
        assert!(!request.recipients.is_empty());
        self.admit.clone()
    }

    async fn submit(&self, envelope: Envelope) -> Result<Box<dyn Submission>, QueueError> {
        self.submit.clone()?;
        self.counts.send_modify(|counts| counts.begun += 1);
        Ok(Box::new(MemorySubmission {
            envelope,
            content: BytesMut::new(),
            finish: self.finish.clone(),
            gate: self.gate.clone(),
            mails: self.mails.clone(),
            counts: self.counts.clone(),
            done: false,
        }))
    }

    async fn work(&self, _: WorkHello) -> Result<WorkChannel, QueueError> {
        Err(QueueError::Unsupported("work".into()))
    }

    async fn read(&self, _: QueueId, _: u64) -> Result<ContentStream, QueueError> {
        Err(QueueError::NotFound)
    }

    async fn record(&self, _: Vec<Event>) -> Result<(), QueueError> {
        Ok(())
    }

    async fn count(&self, _: Count) -> Result<Counted, QueueError> {
        Err(QueueError::Unsupported("count".into()))
    }
}

struct MemorySubmission {
    envelope: Envelope,
    content: BytesMut,
    finish: Result<(), QueueError>,
    gate: Arc<Semaphore>,
    mails: Arc<Mutex<Vec<StoredMail>>>,
    counts: Arc<watch::Sender<Counts>>,
    done: bool,
}

#[async_trait]
impl Submission for MemorySubmission {
    async fn chunk(&mut self, bytes: Bytes) -> Result<(), QueueError> {
        assert!(
            (1..=64 << 10).contains(&bytes.len()),
            "a chunk of {} octets",
            bytes.len()
        );
        self.counts.send_modify(|counts| counts.chunks += 1);
        self.gate.acquire().await.unwrap().forget();
        self.content.extend_from_slice(&bytes);
        Ok(())
    }

    async fn finish(mut self: Box<Self>, completion: Completion) -> Result<Accepted, QueueError> {
        self.counts.send_modify(|counts| counts.finishing += 1);
        self.gate.acquire().await.unwrap().forget();
        self.done = true;
        self.finish.clone()?;
        assert_eq!(completion.size, self.content.len() as u64);
        let queue_id = self.envelope.queue_id;
        self.mails.lock().unwrap().push(StoredMail {
            envelope: self.envelope.clone(),
            content: self.content.split().freeze(),
        });
        Ok(Accepted {
            queue_id,
            duplicate: false,
        })
    }
}

impl Drop for MemorySubmission {
    fn drop(&mut self) {
        if !self.done {
            self.counts.send_modify(|counts| counts.dropped += 1);
        }
    }
}

/// `refused@` may not send, `nobody@` does not exist, `all@` is an alias, `secret` is everybody's password, a field
/// `X-Refuse` is not taken.
pub struct FixedPolicy;

#[async_trait]
impl Policy for FixedPolicy {
    async fn connect(&self, _: &ClientFacts) -> PolicyReply {
        PolicyReply::Accept
    }

    async fn auth(&self, _: &ClientFacts, credentials: &Credentials) -> AuthDecision {
        if credentials
            .password()
            .is_some_and(|password| password.reveal() == "secret")
        {
            return AuthDecision::Accept {
                account: credentials.authcid.clone(),
            };
        }
        let text = "authentication failed";
        AuthDecision::Refuse(Reply::new(AUTH_INVALID_535, AUTH_INVALID_5_7_8, text))
    }

    async fn mail(&self, _: &ClientFacts, mail: &MailRequest) -> Result<MailTerms, Reply> {
        if mail.reverse_path.to_string().starts_with("refused@") {
            return Err(Reply::new(
                MAILBOX_UNAVAILABLE_550,
                NOT_AUTHORIZED_5_7_1,
                "not you",
            ));
        }
        Ok(MailTerms::default())
    }

    async fn rcpt(
        &self,
        _: &ClientFacts,
        _: &TransactionFacts,
        rcpt: &RcptRequest,
    ) -> Result<Vec<RecipientDraft>, Reply> {
        let mailbox = match &rcpt.forward_path {
            ForwardPath::Postmaster => Mailbox::parse("postmaster@mx.example").unwrap(),
            ForwardPath::Mailbox(mailbox) => mailbox.clone(),
        };
        match mailbox.local_part().as_str() {
            "nobody" => Err(Reply::new(
                MAILBOX_UNAVAILABLE_550,
                BAD_MAILBOX_5_1_1,
                "no such user",
            )),
            "all" => Ok(["b@mx.example", "c@MX.example", "b@mx.example"]
                .map(|text| RecipientDraft {
                    original: Some(mailbox.clone()),
                    ..RecipientDraft::new(Mailbox::parse(text).unwrap())
                })
                .to_vec()),
            _ => Ok(vec![RecipientDraft::new(mailbox)]),
        }
    }

    async fn header(
        &self,
        _: &ClientFacts,
        _: &TransactionFacts,
        header: &HeaderBlock,
    ) -> Result<HeaderTerms, Reply> {
        if header.has("X-Refuse") {
            return Err(Reply::new(
                MAILBOX_UNAVAILABLE_550,
                BAD_CONTENT_5_6_0,
                "not this",
            ));
        }
        let date = HeaderEdit::Add {
            place: EditPlace::Bottom,
            field: b"Date: now\r\n".to_vec(),
        };
        Ok(HeaderTerms {
            edits: if header.has("Date") {
                vec![]
            } else {
                vec![date]
            },
            ..HeaderTerms::default()
        })
    }
}
