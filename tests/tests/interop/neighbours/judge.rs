//! What was seen of a mail, and whether it is as the table says.

use anyhow::Result;
use postroad_envelope::{Event, EventKind, RecipientIndex};
use postroad_tests::{Report, Stack};

use super::{
    mails::{SENDER, Sent},
    table::{Fate, Tls},
};

/// One attempt, of one recipient: the worker's word and the queue's.
#[derive(Clone, Debug)]
pub struct Step {
    outcome: String,
    status: String,
    cause: String,
    /// Whether the host replied.
    replied: bool,
    tls: bool,
}

/// All attempts of a recipient.
#[derive(Debug)]
pub struct Course(Vec<Step>);

impl Course {
    /// None before the end.
    pub fn of(events: &[Event], index: u32) -> Option<Self> {
        let about = |kind: EventKind| {
            events.iter().filter(move |event| {
                event.kind == kind && event.recipients.contains(&RecipientIndex(index))
            })
        };
        let field = |event: &Event, name: &str| event.fields.get(name).cloned().unwrap_or_default();
        let steps = about(EventKind::Settled).map(|settled| {
            let number = field(settled, "attempt");
            let tried = about(EventKind::Attempt).find(|event| field(event, "attempt") == number);
            let of_attempt = |name| tried.map(|event| field(event, name)).unwrap_or_default();
            Step {
                outcome: field(settled, "outcome"),
                status: field(settled, "enhanced"),
                cause: field(settled, "cause"),
                replied: !of_attempt("code").is_empty(),
                tls: of_attempt("tls").starts_with("TLS1."),
            }
        });
        let course = Self(steps.collect());
        let ended = matches!(course.last()?.outcome.as_str(), "relayed" | "failed");
        // What the worker tells is recorded by itself, and may come later.
        let told = about(EventKind::Attempt).count() >= course.0.len();
        (ended && told).then_some(course)
    }

    fn last(&self) -> Option<&Step> {
        self.0.last()
    }

    pub fn relayed(&self) -> bool {
        self.last().is_some_and(|step| step.outcome == "relayed")
    }

    pub fn was_delayed(&self) -> bool {
        self.0.iter().any(|step| step.outcome == "delayed")
    }
}

/// What is wrong with the courses of a mail's recipients.
pub fn judge(mail: &Sent<'_>, courses: &[Course]) -> Vec<String> {
    let mut problems = Vec::new();
    for (name, course) in mail.recipients().iter().zip(courses) {
        let fate = mail.neighbour.fate(mail.kind, name);
        let first = course.0.first();
        let delays = || course.0.iter().filter(|step| step.outcome == "delayed");
        let because = |cause: &str| delays().all(|step| step.cause == cause);
        let ended_so = |status: &str, cause: &str| {
            let last = course.last();
            last.is_some_and(|step| {
                step.outcome == "failed" && step.status == status && step.cause == cause
            })
        };
        let good = match fate {
            Fate::Delivered => course.relayed() && course.0.len() == 1,
            Fate::Eventually(cause) => course.relayed() && because(cause),
            Fate::Waits(cause) => course.relayed() && course.was_delayed() && because(cause),
            Fate::Bounced(status, cause) => {
                let before = match mail.neighbour.fate(mail.kind, "friend") {
                    Fate::Eventually(cause) => because(cause),
                    _ => !course.was_delayed(),
                };
                before && ended_so(status, cause)
            }
            Fate::GivenUp(status, cause) => course.was_delayed() && ended_so(status, cause),
        };
        if !good {
            problems.push(format!("{name} is not {fate:?}"));
        }
        let wanted = mail.neighbour.tls;
        let tls_as_wanted = course.0.iter().all(|step| {
            step.outcome != "relayed"
                || wanted == Tls::Any
                || step.tls == (wanted == Tls::Encrypted)
        });
        if !tls_as_wanted {
            problems.push(format!("{name} did not go {wanted:?}"));
        }
        let local = mail.neighbour.is_ours(mail.kind);
        if local.is_some_and(|ours| first.is_some_and(|step| step.replied == ours)) {
            problems.push(format!("{name}: who found it? {first:?}"));
        }
    }
    problems
}

/// A recipient in a report to the sender.
#[derive(Debug)]
pub struct Told {
    pub recipient: String,
    pub status: String,
    /// Whose report it is.
    pub by: String,
}

/// What the sender was told of a mail.
pub fn reports(stack: &Stack, mail: &Sent<'_>) -> Result<Vec<Told>> {
    let mut all = Vec::new();
    for found in stack.delivered(SENDER)? {
        if !found.contains(&mail.message_id()) {
            continue;
        }
        let report = Report::parse(&found.content)?;
        let by = report.mail.get("reporting-mta").cloned();
        for fields in &report.recipients {
            let text = |name: &str| fields.get(name).cloned().unwrap_or_default();
            let address = text("final-recipient");
            let address = address.split_once(';').map_or("", |(_, address)| address);
            all.push(Told {
                recipient: address.trim().to_owned(),
                status: text("status"),
                by: by.clone().unwrap_or_default(),
            });
        }
    }
    Ok(all)
}
