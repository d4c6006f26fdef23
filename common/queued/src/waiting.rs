//! Why mail that is due waits for its site, in words: for its sender once that takes long, for operators at any time.

use postroad_envelope::{RouteClass, StatusReport};
use postroad_queue::{JobSummary, Phase, Waits};
use postroad_reply::{CONGESTION_4_4_5, EnhancedStatusCode, NO_ANSWER_4_4_1};
use postroad_shaping::{Standing, State};

use crate::{core::Core, work::CAUSES};

impl Core {
    /// Why mail of a class to a destination waits, if it waits for its site.
    pub fn waits(&self, class: RouteClass, destination: &str) -> Option<Waits> {
        let mut waits = self.sites.waits(class, destination)?;
        if self.format >= CAUSES {
            waits.why.cause = Some(self.causes.load().diagnose(&waits.why).cause);
        }
        Some(waits)
    }

    /// The same of a job: none if it is not due, or is with a worker.
    pub fn why_waits(&self, job: &JobSummary) -> Option<StatusReport> {
        let is_due = matches!(job.phase, Some((Phase::Ready, _)));
        let waits = is_due.then(|| self.waits(job.state.class, &job.state.destination));
        waits.flatten().map(|waits| waits.for_now())
    }

    /// Why a job is not done, for operators.
    pub fn reason_of(&self, job: &JobSummary) -> Option<String> {
        let waits = self.why_waits(job).map(|why| postroad_queue::said(&why));
        waits.or_else(|| job.state.reason())
    }
}

/// How a site stands, told to those whose mail waits for it.
pub(crate) fn waits(standing: &Standing) -> Waits {
    let Standing { site, state, .. } = standing;
    let what = match state {
        State::Down { since, .. } => {
            format!("{site} cannot be reached since {}", since.to_rfc5322())
        }
        State::BackingOff { .. } => format!("{site} refuses more mail for now"),
        State::Paused { .. } => format!("{site} is left alone for a time"),
        State::Limited | State::Open | State::New => {
            format!("{site} takes no more mail than other mail that goes before")
        }
    };
    let text = match &standing.reason {
        Some(reason) => format!("{what}: {reason}"),
        None => what,
    };
    Waits {
        why: StatusReport::local(status(standing), text),
        until: state.until(),
    }
}

/// What the site said, if that is about now.
fn status(standing: &Standing) -> EnhancedStatusCode {
    let said = standing.status.filter(|(class, ..)| *class == 4);
    let said = said
        .and_then(|(class, subject, detail)| EnhancedStatusCode::new(class, subject, detail).ok());
    said.unwrap_or(match standing.state {
        State::Down { .. } => NO_ANSWER_4_4_1,
        _ => CONGESTION_4_4_5,
    })
}

#[cfg(test)]
mod tests {
    use postroad_envelope::Timestamp;

    use super::*;

    #[test]
    fn what_a_site_said_is_what_its_mail_waits_for() {
        let at = Timestamp::from_millis(1_800_000_000_000);
        let standing = |state, reason: Option<&str>, status| Standing {
            site: "mx.test".into(),
            state,
            reason: reason.map(str::to_owned),
            status,
        };
        let down = State::Down {
            since: at,
            probe_at: at,
        };
        for (standing, status, text) in [
            (
                standing(down, Some("mx.test: connection refused"), None),
                "4.4.1",
                "mx.test cannot be reached since Fri, 15 Jan 2027 08:00:00 +0000: mx.test: connection refused",
            ),
            (
                standing(
                    State::BackingOff { until: at },
                    Some("421 4.7.28 too fast"),
                    Some((4, 7, 28)),
                ),
                "4.7.28",
                "mx.test refuses more mail for now: 421 4.7.28 too fast",
            ),
            // For good is what it said to others.
            (
                standing(State::Paused { until: at }, None, Some((5, 7, 1))),
                "4.4.5",
                "mx.test is left alone for a time",
            ),
        ] {
            let Waits { why, until } = waits(&standing);
            assert_eq!(
                (why.status.to_string(), &*why.text),
                (status.to_owned(), text)
            );
            assert_eq!(until, Some(at));
        }
        let open = waits(&standing(State::Open, None, None));
        assert_eq!(open.until, None);
    }
}
