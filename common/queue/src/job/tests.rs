use postroad_reply::{
    BAD_MAILBOX_5_1_1, LOCAL_ERROR_451, MAILBOX_UNAVAILABLE_550, Reply, SUCCESS_2_0_0,
};

use super::*;
use crate::samples::{at, job_state};

fn delayed(text: &str) -> Outcome {
    let mut report = StatusReport::local("4.4.1".parse().unwrap(), text);
    report.reply = Some(Reply::plain(LOCAL_ERROR_451, "later"));
    Outcome::Delayed(report)
}

fn failed() -> Outcome {
    let mut report = StatusReport::local(BAD_MAILBOX_5_1_1, "no such user");
    report.reply = Some(Reply::new(MAILBOX_UNAVAILABLE_550, BAD_MAILBOX_5_1_1, "no"));
    Outcome::Failed(report)
}

fn delivered() -> Outcome {
    Outcome::Delivered(StatusReport::local(SUCCESS_2_0_0, "filed"))
}

#[test]
fn each_recipient_settles_alone() {
    let before = job_state(1, 3);
    let outcomes = vec![
        (RecipientIndex(0), delivered()),
        (RecipientIndex(1), failed()),
        (RecipientIndex(9), delivered()),
    ];
    let after = before.clone().settled(
        outcomes,
        crate::TakenOver::default(),
        Some(at(500)),
        at(100),
    );
    assert_eq!(after.revision, before.revision.next());
    assert_eq!((after.attempts, after.due), (1, at(500)));
    assert_eq!(after.pending().collect::<Vec<_>>(), [RecipientIndex(2)]);
    assert_eq!(after.recipients[1].progress, Progress::Done(failed()));
    // Only the failure is owed to the sender, who asked for nothing special.
    assert_eq!(
        after.recipients.iter().map(|r| r.owed).collect::<Vec<_>>(),
        [false, true, false]
    );
    assert_eq!(after.debt_since, Some(at(100)));
    let paid = after.reported(at(200));
    assert!(!paid.owes() && paid.is_pending() && paid.debt_since.is_none());
}

#[test]
fn a_recipient_that_is_done_stays_done() {
    let all = |outcome: Outcome| vec![(RecipientIndex(0), outcome)];
    let once = job_state(1, 1).settled(all(delivered()), crate::TakenOver::default(), None, at(1));
    assert!(once.has_ended());
    let twice = once
        .clone()
        .settled(all(failed()), crate::TakenOver::default(), None, at(2));
    assert_eq!(twice.recipients, once.recipients);
}

#[test]
fn time_over_is_a_permanent_failure_that_tells_the_last_reply() {
    let last = vec![(RecipientIndex(0), delayed("connection refused"))];
    let after = job_state(1, 2).settled(last, crate::TakenOver::default(), None, at(9));
    let Progress::Done(Outcome::Failed(report)) = &after.recipients[0].progress else {
        panic!("{after:?}")
    };
    assert_eq!(report.status.to_string(), "5.4.7");
    assert!(
        report.text.contains("connection refused"),
        "{}",
        report.text
    );
    assert_eq!(report.reply.as_ref().unwrap().code(), LOCAL_ERROR_451);
    assert!(
        after.recipients[1]
            .last_report()
            .unwrap()
            .text
            .contains("before the first")
    );
    assert!(after.owes() && !after.is_pending() && !after.has_ended());
}

#[test]
fn nobody_is_told_who_does_not_want_to_be() {
    let new = |notify, null| RecipientState::new(RecipientIndex(0), notify, null);
    let on = |success, failure| Notify::On {
        success,
        failure,
        delay: false,
    };
    for (recipient, outcome, owed) in [
        (new(Notify::default(), false), failed(), true),
        (new(Notify::default(), true), failed(), false),
        (new(Notify::Never, false), failed(), false),
        (new(on(true, false), false), failed(), false),
        (new(on(true, false), false), delivered(), true),
        (new(Notify::default(), false), delivered(), false),
    ] {
        let mut settled = recipient.clone();
        settled.settle(outcome, false, None);
        assert_eq!(settled.owed, owed, "{recipient:?}");
    }
}

/// RFC 3461 §5.2.1 and §5.2.2.
#[test]
fn who_takes_the_mail_over_tells_of_success_if_it_can() {
    let asked = Notify::On {
        success: true,
        failure: true,
        delay: false,
    };
    let report = || StatusReport::local(SUCCESS_2_0_0, "took it");
    for (notify, outcome, reporting, owed) in [
        (asked, Outcome::Relayed(report()), false, true),
        (asked, Outcome::Relayed(report()), true, false),
        (Notify::default(), Outcome::Relayed(report()), false, false),
        (asked, Outcome::Expanded(report()), true, false),
        (asked, Outcome::Expanded(report()), false, true),
        // What is in our own mailbox nobody else reports, whatever an agent says.
        (asked, delivered(), true, true),
        (asked, failed(), true, true),
    ] {
        let mut recipient = RecipientState::new(RecipientIndex(0), notify, false);
        recipient.settle(outcome, reporting, None);
        assert_eq!(recipient.owed, owed, "{recipient:?}");
    }
}

#[test]
fn a_delay_is_told_once_of_what_was_tried() {
    let mut before = job_state(1, 3);
    before.recipients[1].on_delay = false;
    let tried = (0..2).map(|index| (RecipientIndex(index), delayed("refused")));
    let once = before.settled(
        tried.collect(),
        crate::TakenOver::default(),
        Some(at(500)),
        at(100),
    );
    let owing = once.telling_of_delay(at(100));
    let owed = |state: &JobState| state.recipients.iter().map(|r| r.owed).collect::<Vec<_>>();
    // The second was not to be told of, the third was not tried.
    assert_eq!(owed(&owing), [true, false, false]);
    assert_eq!(owing.debt_since, Some(at(100)));
    let paid = owing.reported(at(101));
    assert!(!paid.owes() && paid.debt_since.is_none() && paid.is_pending());
    let again = paid.settled(
        Vec::new(),
        crate::TakenOver::default(),
        Some(at(900)),
        at(600),
    );
    assert!(!again.telling_of_delay(at(600)).owes());
}

#[test]
fn hold_release_drop() {
    let held = job_state(1, 1).held(Some("suspect".to_owned()), at(5));
    assert_eq!(held.hold.as_deref(), Some("suspect"));
    let released = held.held(None, at(6));
    assert_eq!((released.hold.as_deref(), released.due), (None, at(6)));
    let dropped = released.dropped(at(7));
    assert!(dropped.has_ended());
    assert_eq!(dropped.revision, Revision(4));
}
