use postroad_envelope::Notify;
use postroad_reply::SUCCESS_2_0_0;

use super::*;
use crate::RecipientState;
use crate::samples::{at, id, job_state};

fn by(seconds: u64, return_after: bool, trace: bool) -> Deadline {
    let by = DeliverBy {
        at: at(seconds),
        return_after,
        trace,
    };
    Deadline::new(by, id(1))
}

fn job(deadline: Deadline) -> JobState {
    let mut job = job_state(1, 2);
    job.deadline = Some(deadline);
    job.keep_time();
    job
}

#[test]
fn the_sender_decides_what_the_end_of_the_time_means() {
    assert_eq!(job_state(1, 1).term(), Term::GivesUp(at(5 * 86400)));
    assert_eq!(job(by(60, true, false)).term(), Term::Returns(at(60)));
    assert_eq!(job(by(60, false, false)).term(), Term::Tells(at(60)));
    // RFC 2852 §4: no mail lives longer for it.
    let long = 6 * 86400;
    let end = Term::GivesUp(at(5 * 86400));
    assert_eq!(job(by(long, true, false)).term(), end);
    assert_eq!(job(by(long, false, false)).term(), end);
    // Who had it in time has told of it.
    assert_eq!(job(by(0, false, false)).term(), end);
}

#[test]
fn a_last_attempt_goes_before_the_end() {
    let job = job(by(600, true, false));
    assert_eq!(job.last_chance(at(240), at(0)), at(240));
    assert_eq!(job.last_chance(at(600), at(240)), at(570));
    assert_eq!(job.last_chance(at(600), at(570)), at(600));
    let plain = job_state(1, 1);
    let end = plain.expires_at;
    assert_eq!(plain.last_chance(end, at(0)), end);
}

#[test]
fn a_relay_is_told_where_it_is_a_trace_or_the_time_is_lost() {
    let relayed = |deadline: Deadline, class, timed: bool, now| {
        let trace = deadline.trace(class, timed, at(now));
        trace.map(|trace| trace.untimed)
    };
    let (relay, lmtp) = (RouteClass::Relay, RouteClass::Lmtp);
    assert_eq!(relayed(by(60, false, false), relay, true, 1), None);
    assert_eq!(relayed(by(60, false, false), relay, false, 1), Some(true));
    assert_eq!(relayed(by(60, false, false), relay, false, 60), None);
    assert_eq!(relayed(by(60, false, true), relay, true, 1), Some(false));
    assert_eq!(relayed(by(60, false, true), relay, false, 61), Some(true));
    assert_eq!(relayed(by(60, true, true), relay, true, 1), Some(false));
    assert_eq!(relayed(by(60, true, false), relay, true, 1), None);
    assert_eq!(relayed(by(60, false, true), lmtp, false, 1), None);
}

#[test]
fn a_trace_is_owed_whoever_reports_success_and_is_paid_once() {
    let relayed = Outcome::Relayed(StatusReport::local(SUCCESS_2_0_0, "took it"));
    let (first, second) = (RecipientIndex(0), RecipientIndex(1));
    let taken = TakenOver {
        reporting: &[first, second],
        timed: &[first],
    };
    let outcomes = vec![(first, relayed.clone()), (second, relayed)];
    let state = job(by(60, false, false)).settled(outcomes, taken, None, at(1));
    let owed = |state: &JobState| state.recipients.iter().map(|r| r.owed).collect::<Vec<_>>();
    assert_eq!(owed(&state), [false, true]);
    assert_eq!(state.recipients[1].trace, Some(Trace { untimed: true }));
    let paid = state.reported(at(2));
    assert_eq!(owed(&paid), [false, false]);
    assert_eq!(paid.recipients[1].trace, None);
    assert!(paid.has_ended());
}

#[test]
fn what_is_told_of_late_mail_is_that_it_is_late() {
    let heard = StatusReport::local("4.4.1".parse().unwrap(), "no answer");
    let mut state = job(by(60, false, false));
    state.recipients[0].progress = Progress::Pending(Some(heard.clone()));
    // The sender was told of a delay before.
    state.recipients[0].on_delay = false;
    assert!(!state.is_past_its_time(at(59)));
    assert!(state.is_past_its_time(at(60)));
    let told = |state: &JobState, at: usize| {
        let outcome = state.delay_of(&state.recipients[at].progress)?;
        Some((
            outcome.report().status.to_string(),
            outcome.report().text.clone(),
        ))
    };
    assert_eq!(told(&state, 1), None);
    let late = state.past_its_time(at(60));
    assert!(late.recipients.iter().all(RecipientState::owes_delay));
    assert_eq!(late.term(), Term::GivesUp(at(5 * 86400)));
    let text = |rest: &str| Some(("4.4.7".to_owned(), format!("delivery time expired{rest}")));
    assert_eq!(told(&late, 0), text("; last attempt: no answer"));
    assert_eq!(told(&late, 1), text(" before the first attempt"));
    assert!(!late.reported(at(62)).is_past_its_time(at(70)));

    // Of mail that came late only what is true here is told.
    let mut came_late = job(by(0, false, false));
    came_late.recipients[0].progress = Progress::Pending(Some(heard));
    assert_eq!(
        told(&came_late, 0),
        Some(("4.4.1".to_owned(), "no answer".to_owned()))
    );
    assert!(!came_late.is_past_its_time(at(1)));
}

#[test]
fn nobody_is_owed_anything_of_a_mail_without_a_time() {
    let mut state = job_state(1, 1);
    state.recipients[0] = RecipientState::new(RecipientIndex(0), Notify::default(), false);
    assert!(!state.is_past_its_time(at(9 * 86400)));
}
