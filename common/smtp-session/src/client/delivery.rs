//! One mail: its envelope, commands and what becomes of each recipient.

mod book;
mod fit;
mod mail;

use std::collections::VecDeque;

use postroad_envelope::BodyKind;
use postroad_reply::{Reply, Severity};
use postroad_smtp::{Command, Extension, RcptParams};

use self::book::refused;
pub use self::mail::{OutgoingMail, OutgoingRecipient, RecipientResult};
use super::deliver_by::Timing;
use super::{ClientError, ClientSession, Encoder, Phase, Progress, Stage};

/// Commands under way at a time: their replies fit into any socket buffer, so that neither side blocks the other
/// (RFC 2920 §3.1).
const WINDOW: usize = 64;
/// Octets of content that may travel together with the envelope.
const AT_ONCE: u64 = 64 << 10;

/// A command that waits for its reply.
#[derive(Debug, Clone, Copy)]
enum Sent {
    Reset,
    Mail,
    Rcpt(usize),
    Data,
    Chunk,
    /// The last BDAT, together with the envelope.
    Last,
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
    data_sent: bool,
    /// What the host is told of the time.
    timing: Timing,
    /// BDAT carries the content.
    chunked: bool,
    chunk_fault: Option<Reply>,
}

impl ClientSession {
    /// Begins a mail on a ready session. Results come by [`Progress::Done`], at once if the host cannot take it.
    pub fn send(&mut self, mail: OutgoingMail) -> Option<Progress> {
        self.begin(mail, false)
    }

    /// The same for a host that will hardly have left meanwhile: where it offers CHUNKING and PIPELINING a small mail is sent as a whole,
    /// in one round trip; [`Progress::SendContent`] comes at once then, and the output is to be written when the content has ended.
    ///
    /// Whatever breaks after that leaves open whether the host took the mail, even if it has not answered to MAIL.
    pub fn send_at_once(&mut self, mail: OutgoingMail) -> Option<Progress> {
        self.begin(mail, true)
    }

    fn begin(&mut self, mail: OutgoingMail, at_once: bool) -> Option<Progress> {
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
                let at_once = at_once && self.fits_at_once(&delivery.mail);
                self.pump(&mut delivery);
                if at_once {
                    return Some(self.send_chunks(delivery));
                }
                self.phase = Phase::Envelope(delivery);
                None
            }
            Err((status, text)) => {
                delivery.settle_rest(|| RecipientResult::Unfit { status, text });
                Some(Progress::Done(delivery.finished()))
            }
        }
    }

    /// Whether BDAT is used: if that is wished, or nothing else can carry the content (RFC 3030 §3).
    fn uses_chunking(&self, mail: &OutgoingMail) -> bool {
        (self.config.chunking || mail.body == BodyKind::BinaryMime) && self.can_chunk()
    }

    fn can_chunk(&self) -> bool {
        self.capabilities.offers(&Extension::Chunking)
            && self.capabilities.offers(&Extension::Pipelining)
    }

    /// Whether envelope and content may be under way together: all replies fit into the socket's buffers, and there is one to BDAT
    /// (LMTP has one for each recipient that was accepted, RFC 2033 §4.2, which is not known then).
    fn fits_at_once(&self, mail: &OutgoingMail) -> bool {
        let small = mail.size <= AT_ONCE && mail.recipients.len() + 3 <= WINDOW;
        small && self.uses_chunking(mail) && !self.config.lmtp
    }

    fn send_chunks(&mut self, mut delivery: Delivery) -> Progress {
        delivery.chunked = true;
        let binary = delivery.mail.body == BodyKind::BinaryMime;
        self.phase = Phase::Content(delivery, Encoder::chunks(binary));
        Progress::SendContent
    }

    /// Sends MAIL, as many RCPT as may be under way, and DATA behind the last of them (RFC 2920 §3.1).
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
                let early = pipelining && !self.uses_chunking(&delivery.mail);
                if early && delivery.may_be_wanted() && !delivery.data_sent {
                    self.say_data(delivery);
                }
                return;
            };
            delivery.next_recipient += 1;
            if delivery.results.get(index).is_some_and(Option::is_some) {
                continue;
            }
            Command::Rcpt {
                forward_path: recipient.forward_path.clone(),
                params: RcptParams {
                    notify: delivery.timing.notify(recipient.notify).filter(|_| dsn),
                    orcpt: recipient.orcpt.clone().filter(|_| dsn),
                },
            }
            .write_to(&mut self.output);
            delivery.unanswered.push_back(Sent::Rcpt(index));
        }
    }

    fn say_data(&mut self, delivery: &mut Delivery) {
        self.say(&Command::Data);
        delivery.unanswered.push_back(Sent::Data);
        delivery.data_sent = true;
    }

    /// The host waits for the content.
    fn go_ahead(
        &mut self,
        delivery: Delivery,
        reply: Reply,
    ) -> Result<Option<Progress>, ClientError> {
        if delivery.results.iter().any(Option::is_none) {
            self.phase = Phase::Content(delivery, Encoder::dots());
            return Ok(Some(Progress::SendContent));
        }
        // RFC 2033 §4.2: without a recipient LMTP has no reply to the end of the content.
        if self.config.lmtp {
            self.phase = Phase::Envelope(delivery);
            let stage = Stage::Data;
            return Err(ClientError::Unexpected { stage, reply });
        }
        // RFC 2920 §3.1: nobody is left, and the host wants to hear the end all the same.
        self.output.extend_from_slice(b".\r\n");
        self.phase = Phase::Ending(delivery);
        Ok(None)
    }

    pub(super) fn step_envelope(
        &mut self,
        mut delivery: Delivery,
        reply: Reply,
    ) -> Result<Option<Progress>, ClientError> {
        // The whole conversation and one reply: with the content under way these differ.
        let (whole, stage) = (delivery.stage(), delivery.awaited());
        match (delivery.unanswered.pop_front(), reply.severity()) {
            (Some(Sent::Data), Severity::Intermediate) => return self.go_ahead(delivery, reply),
            (Some(Sent::Last), _) => return self.step_ending(delivery, reply),
            (_, Severity::Intermediate) | (None | Some(Sent::Data), Severity::Completion) => {
                let stage = whole;
                return Err(ClientError::Unexpected { stage, reply });
            }
            (Some(Sent::Chunk), Severity::Transient | Severity::Permanent) => {
                delivery.chunk_fault.get_or_insert(reply);
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
        if self.uses_chunking(&delivery.mail) {
            return Some(self.send_chunks(delivery));
        }
        self.say_data(&mut delivery);
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
        // RFC 3030 §2: what a host makes of a transaction whose BDAT failed is not known.
        let taken = matches!(result, RecipientResult::Accepted(_));
        self.needs_reset |= delivery.chunked && !taken;
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
