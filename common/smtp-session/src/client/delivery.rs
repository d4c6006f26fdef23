//! One mail: its envelope, commands and what becomes of each recipient.

use std::collections::VecDeque;

use postroad_address::{Domain, ForwardPath, Mailbox, ReversePath};
use postroad_envelope::{BodyKind, Notify, OriginalRecipient, Ret};
use postroad_reply::{
    CONVERSION_NEEDED_5_6_3, EnhancedStatusCode, NEEDS_SMTPUTF8_5_6_7, Reply, Severity,
    TOO_LARGE_5_3_4,
};
use postroad_smtp::{Command, Extension, MailParams, RcptParams};

use super::{ClientError, ClientSession, Encoder, Phase, Progress, Stage};

/// Commands under way at a time: their replies fit into any socket buffer, so that neither side blocks the other
/// (RFC 2920 §3.1).
const WINDOW: usize = 64;

/// A mail to be sent; what the host does not offer is left out where that is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutgoingMail {
    /// MAIL FROM.
    pub reverse_path: ReversePath,
    /// RCPT TO; at least one.
    pub recipients: Vec<OutgoingRecipient>,
    /// Octets of the content, header edits applied.
    pub size: u64,
    /// BODY. Content declared as 8BITMIME is never sent to a host without it (5.6.3); content of which nothing was
    /// said is sent as it is.
    pub body: BodyKind,
    /// The sender asked for SMTPUTF8. A host without it is sent the mail nevertheless if all that needs it can be done without: domains
    /// become A-labels.
    pub smtputf8: bool,
    /// The header is not all ASCII: with `smtputf8` never sent to a host without it (5.6.7, RFC 6531 §3.5).
    pub utf8_header: bool,
    /// REQUIRETLS; never sent to a host without it (5.7.30, RFC 8689 §4.2.1).
    pub requiretls: bool,
    /// RET, where DSN is offered.
    pub ret: Option<Ret>,
    /// ENVID, where DSN is offered.
    pub envid: Option<String>,
    /// AUTH (RFC 4954 §5), where we have logged in: who submitted the mail, or `<>` as the empty text.
    pub auth: Option<String>,
}

/// One recipient of an [`OutgoingMail`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutgoingRecipient {
    /// The address.
    pub forward_path: ForwardPath,
    /// NOTIFY, where DSN is offered.
    pub notify: Option<Notify>,
    /// ORCPT, where DSN is offered.
    pub orcpt: Option<OriginalRecipient>,
}

/// What became of one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecipientResult {
    /// The host took responsibility, in these words.
    Accepted(Reply),
    /// The host refused, for now or for good.
    Refused {
        /// When: at MAIL, RCPT, DATA, or the end.
        stage: Stage,
        /// In these words.
        reply: Reply,
    },
    /// We did not ask, since the host lacks what the mail needs.
    Unfit {
        /// Which lack.
        status: EnhancedStatusCode,
        /// In words.
        text: &'static str,
    },
}

/// A command that waits for its reply.
#[derive(Debug, Clone, Copy)]
enum Sent {
    Reset,
    Mail,
    Rcpt(usize),
    Data,
    Chunk,
}

#[derive(Debug)]
pub(super) struct Delivery {
    mail: OutgoingMail,
    pub(super) results: Vec<Option<RecipientResult>>,
    /// Indices of recipients the host accepted at RCPT.
    accepted: VecDeque<usize>,
    unanswered: VecDeque<Sent>,
    /// MAIL, not sent yet.
    mail_command: Option<Command>,
    next_recipient: usize,
    mail_accepted: bool,
    chunk_fault: Option<Reply>,
}

impl ClientSession {
    /// Begins a mail on a ready session. Results come by [`Progress::Done`], at once if the host cannot take it.
    pub fn send(&mut self, mail: OutgoingMail) -> Option<Progress> {
        if !matches!(self.phase, Phase::Ready) {
            return None;
        }
        let mut delivery = Delivery::new(mail);
        match self.fitted(&mut delivery) {
            Ok(command) => {
                if std::mem::take(&mut self.needs_reset) {
                    self.say(&Command::Rset);
                    delivery.unanswered.push_back(Sent::Reset);
                }
                delivery.mail_command = Some(command);
                self.pump(&mut delivery);
                self.phase = Phase::Envelope(delivery);
                None
            }
            Err((status, text)) => {
                delivery.settle_rest(|| RecipientResult::Unfit { status, text });
                Some(Progress::Done(delivery.finished()))
            }
        }
    }

    /// MAIL with what the host offers, or what the host lacks.
    fn fitted(
        &self,
        delivery: &mut Delivery,
    ) -> Result<Command, (EnhancedStatusCode, &'static str)> {
        let mail = &mut delivery.mail;
        let offers = |extension: &Extension| self.capabilities.offers(extension);
        let eight_bit = match mail.body {
            BodyKind::SevenBit => true,
            BodyKind::EightBitMime => offers(&Extension::EightBitMime),
            // RFC 3030 §3 goes with BDAT alone.
            BodyKind::BinaryMime => offers(&Extension::BinaryMime) && self.uses_chunking(),
        };
        if !eight_bit {
            return Err((
                CONVERSION_NEEDED_5_6_3,
                "the host does not take 8-bit content",
            ));
        }
        let utf8 = offers(&Extension::SmtpUtf8);
        if mail.smtputf8 && mail.utf8_header && !utf8 {
            return Err((NEEDS_SMTPUTF8_5_6_7, "the host does not support SMTPUTF8"));
        }
        let limit = self.capabilities.size();
        if limit.flatten().is_some_and(|limit| mail.size > limit) {
            return Err((TOO_LARGE_5_3_4, "the mail is larger than the host takes"));
        }
        if mail.requiretls && !(self.tls && offers(&Extension::RequireTls)) {
            return Err((requiretls_needed(), "the host does not support REQUIRETLS"));
        }
        if !utf8 {
            delivery.downgrade()?;
        }
        let mail = &delivery.mail;
        let dsn = offers(&Extension::Dsn);
        Ok(Command::Mail {
            reverse_path: mail.reverse_path.clone(),
            params: MailParams {
                size: limit.map(|_| mail.size),
                body: Some(mail.body).filter(|body| *body != BodyKind::SevenBit),
                smtputf8: mail.smtputf8 && utf8,
                requiretls: mail.requiretls,
                ret: mail.ret.filter(|_| dsn),
                envid: mail.envid.clone().filter(|_| dsn),
                auth: mail
                    .auth
                    .clone()
                    .filter(|auth| self.authenticated && (utf8 || auth.is_ascii())),
                ..MailParams::default()
            },
        })
    }

    pub(super) fn uses_chunking(&self) -> bool {
        self.config.chunking
            && self.capabilities.offers(&Extension::Chunking)
            && self.capabilities.offers(&Extension::Pipelining)
    }

    /// Sends MAIL, and as many RCPT as may be under way.
    fn pump(&mut self, delivery: &mut Delivery) {
        let pipelining = self.capabilities.offers(&Extension::Pipelining);
        let window = if pipelining { WINDOW } else { 1 };
        if delivery.unanswered.len() < window
            && let Some(command) = delivery.mail_command.take()
        {
            self.say(&command);
            delivery.unanswered.push_back(Sent::Mail);
        }
        let dsn = self.capabilities.offers(&Extension::Dsn);
        while delivery.unanswered.len() < window {
            let index = delivery.next_recipient;
            let Some(recipient) = delivery.mail.recipients.get(index) else {
                return;
            };
            delivery.next_recipient += 1;
            if delivery.results.get(index).is_some_and(Option::is_some) {
                continue;
            }
            Command::Rcpt {
                forward_path: recipient.forward_path.clone(),
                params: RcptParams {
                    notify: recipient.notify.filter(|_| dsn),
                    orcpt: recipient.orcpt.clone().filter(|_| dsn),
                },
            }
            .write_to(&mut self.output);
            delivery.unanswered.push_back(Sent::Rcpt(index));
        }
    }

    pub(super) fn step_envelope(
        &mut self,
        mut delivery: Delivery,
        reply: Reply,
    ) -> Result<Option<Progress>, ClientError> {
        let stage = delivery.stage();
        match (delivery.unanswered.pop_front(), reply.severity()) {
            (Some(Sent::Data), Severity::Intermediate) => {
                self.phase = Phase::Content(delivery, Encoder::dots());
                return Ok(Some(Progress::SendContent));
            }
            (_, Severity::Intermediate) | (None | Some(Sent::Data), Severity::Completion) => {
                return Err(ClientError::Unexpected { stage, reply });
            }
            (Some(Sent::Mail), Severity::Completion) => delivery.mail_accepted = true,
            (Some(Sent::Rcpt(index)), Severity::Completion) => delivery.accepted.push_back(index),
            (Some(Sent::Mail), _) => delivery.refuse_mail(&reply),
            (Some(Sent::Rcpt(index)), _) => delivery.settle(index, refused(stage, &reply)),
            (Some(Sent::Data), _) => delivery.settle_rest(|| refused(stage, &reply)),
            // RSET cannot fail (RFC 5321 §4.1.1.5), and if it does MAIL will tell.
            (Some(Sent::Reset | Sent::Chunk) | None, _) => {}
        }
        self.pump(&mut delivery);
        if delivery.unanswered.is_empty() {
            return Ok(self.envelope_done(delivery));
        }
        self.phase = Phase::Envelope(delivery);
        Ok(None)
    }

    fn envelope_done(&mut self, mut delivery: Delivery) -> Option<Progress> {
        if delivery.results.iter().all(Option::is_some) {
            self.needs_reset = delivery.mail_accepted;
            self.phase = Phase::Ready;
            return Some(Progress::Done(delivery.finished()));
        }
        if self.uses_chunking() {
            self.phase = Phase::Content(delivery, Encoder::chunks());
            return Some(Progress::SendContent);
        }
        self.say(&Command::Data);
        delivery.unanswered.push_back(Sent::Data);
        self.phase = Phase::Envelope(delivery);
        None
    }

    /// A reply behind the end of the content.
    pub(super) fn step_ending(
        &mut self,
        mut delivery: Delivery,
        reply: Reply,
    ) -> Result<Option<Progress>, ClientError> {
        if !delivery.unanswered.is_empty() {
            delivery.chunk_answered(reply)?;
            self.phase = Phase::Ending(delivery);
            return Ok(None);
        }
        let stage = Stage::End;
        let result = match (reply.severity(), &delivery.chunk_fault) {
            (Severity::Intermediate, _) => return Err(ClientError::Unexpected { stage, reply }),
            // Without one of its chunks a mail cannot have been taken.
            (_, Some(fault)) => refused(Stage::Content, fault),
            (Severity::Completion, None) => RecipientResult::Accepted(reply),
            (_, None) => refused(stage, &reply),
        };
        if !self.config.lmtp {
            delivery.settle_rest(|| result.clone());
        } else if let Some(index) = delivery.accepted.pop_front() {
            // RFC 2033 §4.2: one reply for each accepted RCPT, in their order.
            delivery.settle(index, result);
            if !delivery.accepted.is_empty() {
                self.phase = Phase::Ending(delivery);
                return Ok(None);
            }
        }
        self.phase = Phase::Ready;
        Ok(Some(Progress::Done(delivery.finished())))
    }
}

impl Delivery {
    fn new(mail: OutgoingMail) -> Self {
        Self {
            results: vec![None; mail.recipients.len()],
            mail,
            accepted: VecDeque::new(),
            unanswered: VecDeque::new(),
            mail_command: None,
            next_recipient: 0,
            mail_accepted: false,
            chunk_fault: None,
        }
    }

    pub(super) fn stage(&self) -> Stage {
        match self.unanswered.front() {
            Some(Sent::Reset) => Stage::Reset,
            Some(Sent::Mail) | None => Stage::Mail,
            Some(Sent::Rcpt(_)) => Stage::Rcpt,
            Some(Sent::Data) => Stage::Data,
            Some(Sent::Chunk) => Stage::Content,
        }
    }

    /// Domains become A-labels for a host without SMTPUTF8; local parts cannot (RFC 6531 §3.2).
    fn downgrade(&mut self) -> Result<(), (EnhancedStatusCode, &'static str)> {
        let lack = (
            NEEDS_SMTPUTF8_5_6_7,
            "the address needs SMTPUTF8, which the host lacks",
        );
        if let ReversePath::Mailbox(mailbox) = &mut self.mail.reverse_path {
            *mailbox = ascii(mailbox).ok_or(lack)?;
        }
        for (recipient, result) in self.mail.recipients.iter_mut().zip(&mut self.results) {
            if let ForwardPath::Mailbox(mailbox) = &mut recipient.forward_path {
                match ascii(mailbox) {
                    Some(ascii) => *mailbox = ascii,
                    None => {
                        let (status, text) = lack;
                        *result = Some(RecipientResult::Unfit { status, text });
                    }
                }
            }
        }
        // With nobody left there is nothing to ask the host.
        if self.results.iter().all(Option::is_some) {
            Err(lack)
        } else {
            Ok(())
        }
    }

    pub(super) fn chunk_sent(&mut self) {
        self.unanswered.push_back(Sent::Chunk);
    }

    /// The reply to a BDAT before the last.
    pub(super) fn chunk_answered(&mut self, reply: Reply) -> Result<(), ClientError> {
        let asked = self.unanswered.pop_front().is_some();
        match reply.severity() {
            Severity::Completion if asked => Ok(()),
            Severity::Transient | Severity::Permanent => {
                self.chunk_fault.get_or_insert(reply);
                Ok(())
            }
            Severity::Completion | Severity::Intermediate => Err(ClientError::Unexpected {
                stage: Stage::Content,
                reply,
            }),
        }
    }

    /// The host leaves: every recipient without a result shares this one.
    pub(super) fn cut_short(mut self, stage: Stage, reply: &Reply) -> Vec<RecipientResult> {
        self.settle_rest(|| refused(stage, reply));
        self.finished()
    }

    /// Recipients already under way get their replies read, but this one counts.
    fn refuse_mail(&mut self, reply: &Reply) {
        self.settle_rest(|| refused(Stage::Mail, reply));
        self.next_recipient = self.results.len();
    }

    fn settle(&mut self, index: usize, result: RecipientResult) {
        if let Some(slot) = self.results.get_mut(index) {
            slot.get_or_insert(result);
        }
    }

    fn settle_rest(&mut self, result: impl Fn() -> RecipientResult) {
        for slot in &mut self.results {
            slot.get_or_insert_with(&result);
        }
    }

    fn finished(self) -> Vec<RecipientResult> {
        self.results.into_iter().flatten().collect()
    }
}

fn refused(stage: Stage, reply: &Reply) -> RecipientResult {
    RecipientResult::Refused {
        stage,
        reply: reply.clone(),
    }
}

fn ascii(mailbox: &Mailbox) -> Option<Mailbox> {
    let domain = Domain::parse(mailbox.domain().a_label()).ok()?;
    let local_part = mailbox.local_part();
    local_part
        .as_str()
        .is_ascii()
        .then(|| Mailbox::new(local_part.clone(), domain))
}

/// RFC 8689 §5: 5.7.30, REQUIRETLS support required.
fn requiretls_needed() -> EnhancedStatusCode {
    EnhancedStatusCode::new(5, 7, 30).unwrap_or(postroad_reply::SECURITY_5_7_0)
}
