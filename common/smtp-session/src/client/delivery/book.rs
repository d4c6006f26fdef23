//! Which replies are to come, and what each recipient came to.

use std::collections::VecDeque;

use postroad_reply::{Reply, Severity};

use super::{Delivery, OutgoingMail, RecipientResult, Sent, Timing};
use crate::client::{ClientError, Stage};

impl Delivery {
    pub(super) fn new(mail: OutgoingMail) -> Self {
        Self {
            results: vec![None; mail.recipients.len()],
            mail,
            accepted: VecDeque::new(),
            unanswered: VecDeque::new(),
            mail_command: None,
            next_recipient: 0,
            mail_accepted: false,
            data_sent: false,
            timing: Timing::default(),
            chunked: false,
            chunk_fault: None,
        }
    }

    /// Where the conversation is: behind the end of the content if that is under way, whatever was answered yet.
    pub(in crate::client) fn stage(&self) -> Stage {
        match self.unanswered.back() {
            Some(Sent::Last) => Stage::End,
            _ => self.awaited(),
        }
    }

    /// What the next reply is about.
    pub(in crate::client) fn awaited(&self) -> Stage {
        match self.unanswered.front() {
            Some(Sent::Reset) => Stage::Reset,
            Some(Sent::Mail) | None => Stage::Mail,
            Some(Sent::Rcpt(_)) => Stage::Rcpt,
            Some(Sent::Data) => Stage::Data,
            Some(Sent::Chunk) => Stage::Content,
            Some(Sent::Last) => Stage::End,
        }
    }

    /// Whether anybody may be left for the content.
    pub(super) fn may_be_wanted(&self) -> bool {
        self.results.iter().any(Option::is_none)
    }

    /// The content has ended before the first reply.
    pub(in crate::client) fn sent_at_once(&mut self) {
        self.unanswered.push_back(Sent::Last);
    }

    /// Whether the envelope waits for replies, with the content behind it.
    pub(in crate::client) fn is_at_once(&self) -> bool {
        let of_envelope = |sent: &Sent| !matches!(sent, Sent::Chunk);
        self.unanswered.iter().any(of_envelope)
    }

    /// How many replies are to come.
    pub(in crate::client) fn unanswered(&self) -> usize {
        self.unanswered.len()
    }

    pub(in crate::client) fn has_chunk_fault(&self) -> bool {
        self.chunk_fault.is_some()
    }

    /// Nobody gets a mail of which a chunk was refused.
    pub(in crate::client) fn refused_by_chunk(mut self) -> Vec<RecipientResult> {
        if let Some(fault) = self.chunk_fault.take() {
            self.settle_rest(|| refused(Stage::Content, &fault));
        }
        self.finished()
    }

    pub(in crate::client) fn chunk_sent(&mut self) {
        self.unanswered.push_back(Sent::Chunk);
    }

    /// The reply to a BDAT before the last.
    pub(in crate::client) fn chunk_answered(&mut self, reply: Reply) -> Result<(), ClientError> {
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
    pub(in crate::client) fn cut_short(
        mut self,
        stage: Stage,
        reply: &Reply,
    ) -> Vec<RecipientResult> {
        self.settle_rest(|| refused(stage, reply));
        self.finished()
    }

    /// Recipients already under way get their replies read, but this one counts.
    pub(super) fn refuse_mail(&mut self, reply: &Reply) {
        self.settle_rest(|| refused(Stage::Mail, reply));
        self.next_recipient = self.results.len();
    }

    pub(super) fn settle(&mut self, index: usize, result: RecipientResult) {
        if let Some(slot) = self.results.get_mut(index) {
            slot.get_or_insert(result);
        }
    }

    pub(super) fn settle_rest(&mut self, result: impl Fn() -> RecipientResult) {
        for slot in &mut self.results {
            slot.get_or_insert_with(&result);
        }
    }

    pub(super) fn finished(self) -> Vec<RecipientResult> {
        self.results.into_iter().flatten().collect()
    }
}

pub(super) fn refused(stage: Stage, reply: &Reply) -> RecipientResult {
    RecipientResult::Refused {
        stage,
        reply: reply.clone(),
    }
}
