use postroad_address::{Domain, Mailbox, ReversePath};
use postroad_envelope::{
    BodyKind, Envelope, Notify, OriginalRecipient, Outcome, QueueId, Recipient, RecipientIndex,
    Timestamp,
};
use postroad_message::{HeaderBlock, MessageId, date_field, fold_structured, unstructured_field};

use crate::{ReportKind, Returned, clean, quoted, status, words};

/// A delivery status notification before it is written (RFC 3464).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Our own name.
    pub reporting_mta: Domain,
    /// Address of the From field.
    pub from: Mailbox,
    /// The sender of the mail, who is told.
    pub to: Mailbox,
    /// Whether that is so: of a mail without a sender somebody else is told.
    pub has_sender: bool,
    /// The mail the report is about.
    pub queue_id: QueueId,
    /// Its ENVID, decoded.
    pub envid: Option<String>,
    /// When we took it.
    pub arrival: Timestamp,
    /// By when it was to be delivered (RFC 2852 §5).
    pub deliver_by: Option<Timestamp>,
    /// Whether it came with SMTPUTF8, so that its header is UTF-8 (RFC 6533).
    pub smtputf8: bool,
    /// What is told.
    pub kind: ReportKind,
    /// About whom.
    pub recipients: Vec<RecipientStatus>,
    /// What of the mail goes back.
    pub returned: Returned,
}

/// One recipient in a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecipientStatus {
    /// The address the mail was to be delivered to in the end.
    pub final_recipient: Mailbox,
    /// The address the sender gave, if an alias changed it.
    pub original: Option<Mailbox>,
    /// ORCPT.
    pub original_recipient: Option<OriginalRecipient>,
    /// What became of it: action, status, host, diagnostics.
    pub outcome: Outcome,
    /// It was relayed, and that is told because of the time that the mail was given.
    pub trace: Option<Trace>,
    /// When it was tried last.
    pub last_attempt: Option<Timestamp>,
    /// How long it is still tried, for delays.
    pub will_retry_until: Option<Timestamp>,
}

/// What is certain of the time where a mail was relayed (RFC 2852 §4.1.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trace {
    /// The host was told how much is left.
    Told,
    /// It does not know of such a thing.
    Lost,
}

impl RecipientStatus {
    /// The status of a recipient of an envelope.
    pub fn new(recipient: &Recipient, outcome: Outcome) -> Self {
        Self {
            final_recipient: recipient.address.clone(),
            original: recipient.original.clone(),
            original_recipient: recipient.orcpt.clone(),
            outcome,
            trace: None,
            last_attempt: None,
            will_retry_until: None,
        }
    }
}

/// A report as it enters the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportMail {
    /// Header and body, lines ended by CRLF.
    pub content: Vec<u8>,
    /// Whether it has octets above 127.
    pub body: BodyKind,
    /// Whether its own header needs SMTPUTF8.
    pub smtputf8: bool,
    /// Who gets it.
    pub to: Mailbox,
}

impl ReportMail {
    /// The envelope it travels in: from nobody, to the sender (RFC 3461 §6.1).
    pub fn envelope(&self, queue_id: QueueId, now: Timestamp) -> Envelope {
        let mut envelope = Envelope::new(queue_id, ReversePath::Null, now);
        envelope.recipients.push(Recipient {
            notify: Notify::Never,
            ..Recipient::new(RecipientIndex(0), self.to.clone())
        });
        envelope.body = self.body;
        envelope.smtputf8 = self.smtputf8;
        envelope.size = u64::try_from(self.content.len()).unwrap_or(u64::MAX);
        envelope
    }
}

/// A part of the multipart/report.
struct Part {
    kind: &'static str,
    encoding: &'static str,
    octets: Vec<u8>,
}

impl Part {
    fn plain(kind: &'static str, octets: Vec<u8>) -> Self {
        let encoding = if octets.is_ascii() { "7bit" } else { "8bit" };
        Self {
            kind,
            encoding,
            octets,
        }
    }
}

impl Report {
    /// A report about a mail from `MAILER-DAEMON` at our name. None if the mail has no sender to tell.
    pub fn about(
        envelope: &Envelope,
        reporting_mta: Domain,
        kind: ReportKind,
        recipients: Vec<RecipientStatus>,
        returned: Returned,
    ) -> Option<Self> {
        let to = envelope.reverse_path.mailbox()?.clone();
        Self::to(to, envelope, reporting_mta, kind, recipients, returned)
    }

    /// The same to somebody else, about a mail that has no sender to tell (a double bounce).
    pub fn to(
        to: Mailbox,
        envelope: &Envelope,
        reporting_mta: Domain,
        kind: ReportKind,
        recipients: Vec<RecipientStatus>,
        returned: Returned,
    ) -> Option<Self> {
        let daemon = postroad_address::LocalPart::parse("MAILER-DAEMON").ok()?;
        Some(Self {
            from: Mailbox::new(daemon, reporting_mta.clone()),
            reporting_mta,
            to,
            has_sender: !envelope.reverse_path.is_null(),
            queue_id: envelope.queue_id,
            envid: envelope.envid.clone(),
            arrival: envelope.received_at,
            deliver_by: envelope.deliver_by.map(|by| by.at),
            smtputf8: envelope.smtputf8,
            kind,
            recipients,
            returned,
        })
    }

    /// Writes the report. `boundary` is random text of the caller's making; it is lengthened should the mail hold it.
    pub fn to_mail(&self, now: Timestamp, message_id: &MessageId, boundary: &str) -> ReportMail {
        let parts = [self.text_part(), self.status_part(), self.returned_part()];
        let boundary = unique_boundary(boundary, &parts);
        let eight_bit = parts.iter().any(|part| !part.octets.is_ascii());
        let mut content = self.header(now, message_id, &boundary, eight_bit);
        for part in &parts {
            let (kind, encoding) = (part.kind, part.encoding);
            let head = format!(
                "--{boundary}\r\nContent-Type: {kind}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
            );
            content.extend_from_slice(head.as_bytes());
            content.extend_from_slice(&part.octets);
            // RFC 2046 §5.1.1: this line end belongs to the boundary below it.
            content.extend_from_slice(b"\r\n");
        }
        content.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
        ReportMail {
            body: if content.is_ascii() {
                BodyKind::SevenBit
            } else {
                BodyKind::EightBitMime
            },
            smtputf8: !clean::address(&self.to).is_ascii(),
            to: self.to.clone(),
            content,
        }
    }

    fn header(
        &self,
        now: Timestamp,
        message_id: &MessageId,
        boundary: &str,
        eight_bit: bool,
    ) -> Vec<u8> {
        let (from, to) = (clean::address(&self.from), clean::address(&self.to));
        let mut header = date_field(now);
        header.extend(fold_structured(
            "From",
            ["\"Mail Delivery System\"", &format!("<{from}>")],
        ));
        header.extend(fold_structured("To", [format!("<{to}>").as_str()]));
        let utf8 = !to.is_ascii();
        header.extend(unstructured_field("Subject", &words::subject(self), utf8));
        header.extend(message_id.to_field());
        if let Some(original) = self.original_id() {
            header.extend(fold_structured("In-Reply-To", [original.as_str()]));
            header.extend(fold_structured("References", [original.as_str()]));
        }
        // RFC 3834 §2 (§5): no program may answer this.
        header.extend_from_slice(b"Auto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n");
        let encoding = if eight_bit { "8bit" } else { "7bit" };
        let rest = format!(
            "Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary=\"{boundary}\"\r\n\
             Content-Transfer-Encoding: {encoding}\r\n\r\n"
        );
        header.extend_from_slice(rest.as_bytes());
        header
    }

    /// The id of the mail, for threads; one that would break our header is left out.
    fn original_id(&self) -> Option<MessageId> {
        HeaderBlock::parse(self.returned.octets())
            .message_id()
            .filter(|id| id.as_str().is_ascii() && id.as_str().len() < 900)
    }

    fn text_part(&self) -> Part {
        let text = words::text(self);
        let kind = if text.is_ascii() {
            "text/plain; charset=us-ascii"
        } else {
            "text/plain; charset=utf-8"
        };
        self.text(kind, text.into_bytes())
    }

    /// A sender who wrote without SMTPUTF8 may have no way for octets above 127; text can do without them (RFC 2045 §6.7).
    fn text(&self, kind: &'static str, octets: Vec<u8>) -> Part {
        if self.smtputf8 || octets.is_ascii() {
            return Part::plain(kind, octets);
        }
        Part {
            kind,
            encoding: "quoted-printable",
            octets: quoted::printable(&octets),
        }
    }

    fn status_part(&self) -> Part {
        let utf8 = status::needs_utf8(self);
        let kind = if utf8 {
            "message/global-delivery-status"
        } else {
            "message/delivery-status"
        };
        Part::plain(kind, status::delivery_status(self, utf8))
    }

    /// RFC 6533 §5: the `global` types are for headers in UTF-8; octets above 127 in other headers are merely 8bit.
    fn returned_part(&self) -> Part {
        let octets = self.returned.octets().to_vec();
        let header = postroad_message::split(&octets).0;
        let global = self.smtputf8 && !header.is_ascii() && std::str::from_utf8(header).is_ok();
        let kind = match (&self.returned, global) {
            (Returned::Full(_), false) => "message/rfc822",
            (Returned::Full(_), true) => "message/global",
            (Returned::Headers(_), false) => "text/rfc822-headers",
            (Returned::Headers(_), true) => "message/global-headers",
        };
        match &self.returned {
            Returned::Headers(_) => self.text(kind, octets),
            // RFC 2046 §5.2.1: a mail inside a mail has no encoding of its own.
            Returned::Full(_) => Part::plain(kind, octets),
        }
    }
}

/// RFC 2046 §5.1.1: the boundary stands in no part. At most 70 characters of a safe kind.
fn unique_boundary(wanted: &str, parts: &[Part]) -> String {
    let mut boundary: String = wanted
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || "._=-".contains(*c))
        .take(40)
        .collect();
    let within = |octets: &[u8], boundary: &str| {
        octets
            .windows(boundary.len().max(1))
            .any(|window| window == boundary.as_bytes())
    };
    // A random text is never there; whoever guessed it cannot have guessed all its continuations up to the end.
    for letter in ('a'..='z').chain(['a', 'b', 'c', 'd']) {
        if !boundary.is_empty() && !parts.iter().any(|part| within(&part.octets, &boundary)) {
            break;
        }
        boundary.push(letter);
    }
    boundary
}

#[cfg(test)]
mod tests;
