use postroad_envelope::{Envelope, Notify, Outcome, RecipientIndex};

/// What a report tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ReportKind {
    /// The mail will never arrive.
    Failed,
    /// The mail waits and is tried again.
    Delayed,
    /// The mail arrived, or left for where nothing more can be told.
    Succeeded,
}

/// A report that is due, and the recipients it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owed {
    /// What it tells.
    pub kind: ReportKind,
    /// About whom, in the order of the outcomes.
    pub recipients: Vec<RecipientIndex>,
}

/// The reports these outcomes owe to the sender, at most one of each kind.
///
/// Pass a delay only when the sender is to be told of it, and `Relayed` and `Expanded` only if whoever took the mail over does not
/// report itself (RFC 3461 §5.2.2: it lacks the DSN extension). `traced` are those of whom it is told that they were relayed unless
/// the sender wants to hear nothing at all (RFC 2852 §4.1.4).
pub fn decide(
    envelope: &Envelope,
    outcomes: &[(RecipientIndex, Outcome)],
    traced: &[RecipientIndex],
) -> Vec<Owed> {
    // RFC 3461 §6.1 and RFC 5321 §6.1: never a report about a report.
    if envelope.reverse_path.is_null() {
        return Vec::new();
    }
    let mut owed: Vec<Owed> = Vec::new();
    for (index, outcome) in outcomes {
        let Some(kind) = envelope
            .recipient(*index)
            .and_then(|recipient| wanted(recipient.notify, outcome, traced.contains(index)))
        else {
            continue;
        };
        match owed.iter_mut().find(|report| report.kind == kind) {
            Some(report) => report.recipients.push(*index),
            None => owed.push(Owed {
                kind,
                recipients: vec![*index],
            }),
        }
    }
    owed.sort_by_key(|report| report.kind);
    owed
}

/// RFC 3461 §5.2: NOTIFY of this recipient against what happened to it.
fn wanted(notify: Notify, outcome: &Outcome, traced: bool) -> Option<ReportKind> {
    let (asked, kind) = match outcome {
        Outcome::Failed(_) => (notify.wants_failure(), ReportKind::Failed),
        Outcome::Delayed(_) => (notify.wants_delay(), ReportKind::Delayed),
        Outcome::Relayed(_) if traced => (notify != Notify::Never, ReportKind::Succeeded),
        Outcome::Delivered(_) | Outcome::Relayed(_) | Outcome::Expanded(_) => {
            (notify.wants_success(), ReportKind::Succeeded)
        }
    };
    asked.then_some(kind)
}

#[cfg(test)]
mod tests {
    use postroad_address::{Mailbox, ReversePath};
    use postroad_envelope::{QueueId, Recipient, StatusReport, Timestamp};
    use postroad_reply::{BAD_MAILBOX_5_1_1, DELIVERED_2_6_0, NO_ANSWER_4_4_1};

    use super::*;

    const ALL: Notify = Notify::On {
        success: true,
        failure: true,
        delay: true,
    };

    fn envelope(sender: &str, notify: &[Notify]) -> Envelope {
        let sender = ReversePath::parse(sender).unwrap();
        let id = QueueId::from_bytes([0; 16]);
        let mut envelope = Envelope::new(id, sender, Timestamp::default());
        for (index, notify) in (0..).map(RecipientIndex).zip(notify) {
            let address = Mailbox::parse("bob@x.example").unwrap();
            envelope.recipients.push(Recipient {
                notify: *notify,
                ..Recipient::new(index, address)
            });
        }
        envelope
    }

    fn outcomes() -> Vec<(RecipientIndex, Outcome)> {
        let report = |status| StatusReport::local(status, "");
        let delivered = Outcome::Delivered(report(DELIVERED_2_6_0));
        let delayed = Outcome::Delayed(report(NO_ANSWER_4_4_1));
        let failed = Outcome::Failed(report(BAD_MAILBOX_5_1_1));
        (0..)
            .map(RecipientIndex)
            .zip([delivered, delayed, failed.clone(), failed])
            .collect()
    }

    fn told(sender: &str, notify: Notify) -> Vec<(ReportKind, usize)> {
        decide(&envelope(sender, &[notify; 4]), &outcomes(), &[])
            .iter()
            .map(|owed| (owed.kind, owed.recipients.len()))
            .collect()
    }

    #[test]
    fn notify_is_respected() {
        use ReportKind::{Delayed, Failed, Succeeded};
        assert_eq!(
            told("a@b.example", Notify::default()),
            [(Failed, 2), (Delayed, 1)]
        );
        assert_eq!(
            told("a@b.example", ALL),
            [(Failed, 2), (Delayed, 1), (Succeeded, 1)]
        );
        assert_eq!(told("a@b.example", Notify::Never), []);
        let success = Notify::On {
            success: true,
            failure: false,
            delay: false,
        };
        assert_eq!(told("a@b.example", success), [(Succeeded, 1)]);
    }

    #[test]
    fn never_about_a_report_or_an_unknown_recipient() {
        assert_eq!(told("", ALL), []);
        assert_eq!(decide(&envelope("a@b.example", &[]), &outcomes(), &[]), []);
    }

    /// RFC 2852 §4.1.4.
    #[test]
    fn a_trace_is_told_unless_nothing_is_to_be_told() {
        let relayed = Outcome::Relayed(StatusReport::local(DELIVERED_2_6_0, ""));
        let outcomes = [(RecipientIndex(0), relayed)];
        let told = |sender: &str, notify, traced: &[RecipientIndex]| {
            !decide(&envelope(sender, &[notify]), &outcomes, traced).is_empty()
        };
        let traced = [RecipientIndex(0)];
        let failure = Notify::On {
            success: false,
            failure: true,
            delay: false,
        };
        for notify in [Notify::default(), failure, ALL] {
            assert!(told("a@b.example", notify, &traced), "{notify:?}");
        }
        assert!(!told("a@b.example", Notify::Never, &traced));
        assert!(!told("a@b.example", Notify::default(), &[]));
        assert!(!told("", ALL, &traced));
    }
}
