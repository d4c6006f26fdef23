//! Addresses that stood for several others (RFC 3461 §5.2.7.3): their sender, who wants to hear of success, hears of the expansion once,
//! and of no success of those it led to, whom nobody named.

use postroad_address::Mailbox;
use postroad_envelope::{Envelope, Notify, Recipient, RecipientIndex};

/// Takes SUCCESS from the recipients that such addresses led to. Gives the first of each address, on which the report is owed; nobody
/// is told of a mail without a sender.
pub(super) fn take(envelope: &mut Envelope) -> Vec<RecipientIndex> {
    let asked = envelope.recipients.iter();
    let asked = asked.filter(|r| r.notify.wants_success());
    let originals: Vec<&Mailbox> = asked.filter_map(|r| r.original.as_ref()).collect();
    let mut several: Vec<Mailbox> = Vec::new();
    for (at, original) in originals.iter().enumerate() {
        let again = originals.iter().skip(at + 1).any(|other| other == original);
        if again && !several.contains(original) {
            several.push((*original).clone());
        }
    }
    let mut first = Vec::new();
    for original in &several {
        let of_it =
            |r: &&mut Recipient| r.notify.wants_success() && r.original.as_ref() == Some(original);
        let mut all = envelope.recipients.iter_mut().filter(of_it).peekable();
        first.extend(all.peek().map(|recipient| recipient.index));
        all.for_each(|recipient| recipient.notify = without_success(recipient.notify));
    }
    if envelope.reverse_path.is_null() {
        first.clear();
    }
    first
}

const fn without_success(notify: Notify) -> Notify {
    match notify {
        Notify::Unsaid => Notify::Unsaid,
        // Nothing is left of SUCCESS alone, and to say nothing would ask for failures.
        Notify::Never
        | Notify::On {
            failure: false,
            delay: false,
            ..
        } => Notify::Never,
        Notify::On { failure, delay, .. } => Notify::On {
            success: false,
            failure,
            delay,
        },
    }
}

#[cfg(test)]
mod tests {
    use postroad_address::ReversePath;
    use postroad_envelope::{QueueId, Timestamp};

    use super::*;

    const fn on(success: bool, failure: bool) -> Notify {
        Notify::On {
            success,
            failure,
            delay: false,
        }
    }

    fn mail(sender: &str, recipients: &[(&str, Notify)]) -> Envelope {
        let sender = ReversePath::parse(sender).unwrap();
        let id = QueueId::from_bytes([0; 16]);
        let mut envelope = Envelope::new(id, sender, Timestamp::default());
        let all = (0..).map(RecipientIndex).zip(recipients);
        let all = all.map(|(index, (original, notify))| Recipient {
            original: Mailbox::parse(original).ok(),
            notify: *notify,
            ..Recipient::new(index, Mailbox::parse("x@y.example").unwrap())
        });
        envelope.recipients = all.collect();
        envelope
    }

    #[test]
    fn the_first_of_several_owes_the_report_and_none_asks_for_success() {
        let team = "team@demo.test";
        let all = [
            ("", on(true, true)),
            (team, on(true, true)),
            ("one@demo.test", on(true, true)),
            (team, on(true, false)),
            (team, Notify::Never),
        ];
        let mut envelope = mail("a@b.example", &all);
        assert_eq!(take(&mut envelope), [RecipientIndex(1)]);
        let left: Vec<Notify> = envelope.recipients.iter().map(|r| r.notify).collect();
        let asks = on(true, true);
        // RFC 3461 §5.2.7.2: what stands for one other passes the request on.
        let expected = [asks, on(false, true), asks, Notify::Never, Notify::Never];
        assert_eq!(left, expected);
        assert_eq!(take(&mut envelope), []);
        assert_eq!(take(&mut mail("", &all)), []);
    }

    #[test]
    fn who_did_not_ask_is_not_told() {
        let team = ("team@demo.test", on(false, true));
        let mut envelope = mail("a@b.example", &[team, team]);
        let before = envelope.clone();
        assert_eq!(take(&mut envelope), []);
        assert_eq!(envelope, before);
    }
}
