//! What of a mail in the queue is said to a host, and which mail is said to none.

use std::time::SystemTime;

use postroad_address::ForwardPath;
use postroad_envelope::{
    BodyKind, DeliverBy, Envelope, Notify, Outcome, Recipient, RouteClass, StatusReport, Timestamp,
};
use postroad_reply::{BAD_CONTENT_5_6_0, SYSTEM_4_3_0};
use postroad_smtp::By;
use postroad_smtp_session::{OutgoingMail, OutgoingRecipient};

use super::content::{Content, ContentError};
use super::ledger::Ledger;

/// The mail as it is said to a host; its recipients are chosen for each transaction.
pub fn outgoing(envelope: &Envelope, class: RouteClass, content: &Content) -> OutgoingMail {
    OutgoingMail {
        reverse_path: envelope.reverse_path.clone(),
        recipients: Vec::new(),
        size: content.size(),
        body: envelope.body,
        smtputf8: envelope.smtputf8,
        utf8_header: content.has_utf8_header(),
        // RFC 8689 §2 is for SMTP; whoever has mail by LMTP is where it ends.
        requiretls: envelope.requiretls && class == RouteClass::Relay,
        ret: envelope.ret,
        envid: envelope.envid.clone(),
        priority: envelope.priority,
        deliver_by: None,
        auth: submitter(envelope),
    }
}

/// One transaction with some of the recipients, begun now.
pub fn transaction(
    mail: &OutgoingMail,
    recipients: Vec<OutgoingRecipient>,
    deadline: Option<DeliverBy>,
) -> OutgoingMail {
    // RFC 2852 §4.1.4: as close to MAIL as can be.
    let now = Timestamp::from(SystemTime::now());
    OutgoingMail {
        recipients,
        deliver_by: deadline.map(|deadline| By::left(deadline, now)),
        ..mail.clone()
    }
}

/// Those without an outcome.
pub fn recipients(ledger: &Ledger<'_>) -> Vec<OutgoingRecipient> {
    ledger.pending().map(outgoing_recipient).collect()
}

/// RFC 4954 §5: what a client said of who submitted a mail is believed of its own account alone; of others, and of clients
/// that did not log in, it is `<>`, as if nobody knew.
fn submitter(envelope: &Envelope) -> Option<String> {
    let said = envelope.auth.as_ref()?;
    let own = envelope.account.as_deref();
    let believed = own.is_some_and(|account| account.eq_ignore_ascii_case(said));
    Some(if believed {
        said.clone()
    } else {
        String::new()
    })
}

fn outgoing_recipient(recipient: &Recipient) -> OutgoingRecipient {
    OutgoingRecipient {
        forward_path: ForwardPath::Mailbox(recipient.address.clone()),
        // RFC 3461 §5.2.1: what the sender did not say is not said for them.
        notify: Some(recipient.notify).filter(|notify| *notify != Notify::Unsaid),
        orcpt: recipient.orcpt.clone(),
    }
}

/// What becomes of a mail whose content cannot be had.
pub fn unreadable(error: &ContentError) -> Outcome {
    match error {
        ContentError::Queue(_) => {
            let text = format!("the content could not be read from the queue: {error}");
            Outcome::Delayed(StatusReport::local(SYSTEM_4_3_0, text))
        }
        ContentError::Header(_) => {
            Outcome::Failed(StatusReport::local(BAD_CONTENT_5_6_0, error.to_string()))
        }
    }
}

/// RFC 5321 §2.3.8: what is not made of lines is for BDAT with BINARYMIME alone; no host is asked.
pub fn unfit(mail: &Envelope, content: &Content) -> Option<Outcome> {
    let fault = content.fault()?;
    let text = format!("{fault}, so that it cannot be sent on");
    let report = StatusReport::local(BAD_CONTENT_5_6_0, text);
    (mail.body != BodyKind::BinaryMime).then_some(Outcome::Failed(report))
}
