//! What a host must offer for a mail: found by what our client says when it does not.

use bytes::BytesMut;
use postroad_address::ForwardPath;
use postroad_envelope::Envelope;
use postroad_smtp::HeloName;
use postroad_smtp_session::{
    ClientConfig, ClientSession, OutgoingMail, OutgoingRecipient, Progress, RecipientResult,
};

/// Extensions that some mails cannot do without.
const EXTENSIONS: [&str; 5] = [
    "8BITMIME",
    "BINARYMIME",
    "CHUNKING",
    "SMTPUTF8",
    "REQUIRETLS",
];

/// Those without which this mail is not sent.
pub fn of(said: &OutgoingMail, mail: &Envelope) -> Vec<&'static str> {
    let recipients = mail.recipients.iter().map(|to| OutgoingRecipient {
        forward_path: ForwardPath::Mailbox(to.address.clone()),
        notify: None,
        orcpt: None,
    });
    let said = OutgoingMail {
        recipients: recipients.collect(),
        ..said.clone()
    };
    let needed = EXTENSIONS.into_iter();
    needed.filter(|one| is_needed(one, &said)).collect()
}

/// Whether our client sends nothing to a host that has all but this.
fn is_needed(extension: &str, mail: &OutgoingMail) -> bool {
    let Some(name) = HeloName::parse("localhost") else {
        return false;
    };
    // Under TLS, where all is offered.
    let mut session = ClientSession::new(ClientConfig::new(name), true);
    let offered = EXTENSIONS.into_iter().filter(|one| *one != extension);
    let offered: String = offered.map(|one| format!("250-{one}\r\n")).collect();
    let hello = format!("250-host.test\r\n{offered}250-PIPELINING\r\n250 SIZE\r\n");
    for said in ["220 host.test\r\n", &hello] {
        let mut input = BytesMut::from(said);
        match session.receive(&mut input) {
            Ok(Some(Progress::Ready)) => {
                let unfit =
                    |result: &RecipientResult| matches!(result, RecipientResult::Unfit { .. });
                return match session.send(mail.clone()) {
                    Some(Progress::Done(results)) => results.iter().any(unfit),
                    _ => false,
                };
            }
            Ok(None) => drop(session.take_output()),
            _ => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use postroad_envelope::{BodyKind, QueueId, Recipient, RecipientIndex, RouteClass, Timestamp};

    use super::*;
    use crate::outbound::{content::Content, outgoing::outgoing};

    fn needs(change: impl FnOnce(&mut Envelope), content: &'static str) -> Vec<&'static str> {
        let at = Timestamp::from_millis(0);
        let sender = postroad_address::ReversePath::parse("a@ours.test").unwrap();
        let mut mail = Envelope::new(QueueId::mint(at, [1; 10]), sender, at);
        mail.recipients = vec![Recipient::new(
            RecipientIndex(0),
            "b@far.test".parse().unwrap(),
        )];
        change(&mut mail);
        let content = Content::here(&Bytes::from_static(content.as_bytes()), &[]);
        of(&outgoing(&mail, RouteClass::Relay, &content), &mail)
    }

    #[test]
    fn a_mail_needs_what_our_client_would_not_do_without() {
        let plain = "Subject: x\r\n\r\nx\r\n";
        assert_eq!(needs(|_| {}, plain), [""; 0]);
        assert_eq!(
            needs(|mail| mail.body = BodyKind::EightBitMime, plain),
            ["8BITMIME"]
        );
        assert_eq!(
            needs(|mail| mail.body = BodyKind::BinaryMime, plain),
            ["BINARYMIME", "CHUNKING"]
        );
        assert_eq!(needs(|mail| mail.requiretls = true, plain), ["REQUIRETLS"]);
        let utf8 = "Subject: ä\r\n\r\nx\r\n";
        assert_eq!(needs(|mail| mail.smtputf8 = true, utf8), ["SMTPUTF8"]);
        let local = |mail: &mut Envelope| {
            mail.smtputf8 = true;
            mail.recipients[0].address = "ü@far.test".parse().unwrap();
        };
        assert_eq!(needs(local, plain), ["SMTPUTF8"]);
    }
}
