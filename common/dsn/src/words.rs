use postroad_envelope::{Outcome, StatusReport};
use postroad_reply::{EXPIRED_5_4_7, EnhancedStatusCode, NOT_CAPABLE_5_3_3};

use crate::{
    RecipientStatus, Report, ReportKind, Trace, causes, clean,
    status::{host_name, is_socket},
};

/// The subject of a report.
pub fn subject(report: &Report) -> String {
    let whom = match report.recipients.as_slice() {
        [only] => clean::address(named_by_sender(only)),
        all => format!("{} recipients", all.len()),
    };
    match report.kind {
        ReportKind::Failed if !report.has_sender => {
            format!("Not delivered, and nobody else to tell: mail to {whom}")
        }
        ReportKind::Failed => format!("Not delivered: your mail to {whom}"),
        ReportKind::Delayed => format!("Delayed: your mail to {whom}"),
        ReportKind::Succeeded => format!("{}: your mail to {whom}", success(report)),
    }
}

/// One word for all of them, and no more than is certain of each: what another system took may be lost there still.
fn success(report: &Report) -> &'static str {
    let all = |which: fn(&Outcome) -> bool| report.recipients.iter().all(|r| which(&r.outcome));
    if all(|outcome| matches!(outcome, Outcome::Delivered(_))) {
        "Delivered"
    } else if all(|outcome| matches!(outcome, Outcome::Relayed(_))) {
        "Relayed"
    } else {
        "Passed on"
    }
}

/// The part for people, lines ended by CRLF.
pub fn text(report: &Report) -> String {
    let host = report.reporting_mta.a_label();
    let mut text = clean::wrapped(
        &format!(
            "This is the mail system at {host}. It took {} mail on {}.",
            if report.has_sender { "your" } else { "this" },
            report.arrival.to_rfc5322()
        ),
        "",
    );
    text.push_str("\r\n");
    text.push_str(&clean::wrapped(&opening(report), ""));
    for recipient in &report.recipients {
        text.push_str("\r\n");
        text.push_str(&about(recipient));
    }
    let advice = advice(report);
    if !advice.is_empty() {
        text.push_str("\r\nWhat you can do:\r\n");
        for line in advice {
            text.push_str(&clean::wrapped(line, "    ").replacen("    ", "  - ", 1));
        }
    }
    text.push_str("\r\n");
    text.push_str(&clean::wrapped(&closing(report), ""));
    text
}

fn opening(report: &Report) -> String {
    let whom = match report.recipients.len() {
        1 => "this recipient",
        _ => "these recipients",
    };
    match report.kind {
        ReportKind::Failed => {
            let which = match report.has_sender {
                true => "Your mail",
                false => "A mail without a sender, such as a report,",
            };
            format!("{which} could not be delivered to {whom}, and will not be tried again:")
        }
        ReportKind::Delayed => {
            let until = report
                .recipients
                .iter()
                .filter_map(|one| one.will_retry_until)
                .max()
                .map_or_else(String::new, |until| {
                    format!(" until {}", until.to_rfc5322())
                });
            format!(
                "Your mail has not reached {whom} yet. You need not send it again: we go on \
                 trying{until}, and tell you if that fails."
            )
        }
        ReportKind::Succeeded if report.recipients.iter().any(|one| one.trace.is_some()) => {
            let by = report.deliver_by.map_or_else(String::new, |by| {
                format!(" within a time that ends on {}", by.to_rfc5322())
            });
            format!("You asked for delivery{by}. Your mail has left for {whom}:")
        }
        ReportKind::Succeeded => {
            format!("You asked to be told: your mail has arrived or left for {whom}:")
        }
    }
}

fn about(recipient: &RecipientStatus) -> String {
    let mut text = format!("  {}\r\n", clean::address(&recipient.final_recipient));
    if let Some(original) = &recipient.original {
        let original = clean::address(original);
        text.push_str(&clean::wrapped(
            &format!("(for your mail to {original})"),
            "    ",
        ));
    }
    let result = recipient.outcome.report();
    let what = match recipient.trace {
        Some(Trace::Told) => "Handed on to another mail system, which was told of that time.",
        Some(Trace::Lost) => {
            "Handed on to another mail system, which does not know of such a time: it may take longer."
        }
        None => what_happened(&recipient.outcome),
    };
    text.push_str(&clean::wrapped(what, "    "));
    match said(result) {
        Some((who, words)) => {
            text.push_str(&clean::wrapped(&format!("{who} said:"), "    "));
            text.push_str(&clean::wrapped(&words, "      "));
        }
        None => text.push_str(&clean::wrapped(
            &clean::one_line(&result.text, true),
            "    ",
        )),
    }
    text
}

/// The far side and its words.
fn said(result: &StatusReport) -> Option<(String, String)> {
    let reply = result.reply.as_ref()?;
    let who = match &result.remote {
        Some(remote) if is_socket(remote) => "The mail store".to_owned(),
        Some(remote) => match remote.address {
            Some(address) => format!("{} [{}]", host_name(remote), address.ip().to_canonical()),
            None => host_name(remote),
        },
        None => "The other mail system".to_owned(),
    };
    Some((who, clean::one_line(&reply.to_string(), true)))
}

fn what_happened(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Delivered(_) => "Delivered to the mailbox.",
        Outcome::Relayed(_) => {
            "Handed to the recipient's mail system, which does not report deliveries itself."
        }
        Outcome::Expanded(_) => "Passed on to everyone this address stands for.",
        Outcome::Delayed(report) => explain_delay(report),
        Outcome::Failed(report) => explain_failure(report).0,
    }
}

/// What a status means for the sender, and what to do about it (RFC 3463 §3).
fn explain_failure(report: &StatusReport) -> (&'static str, &'static str) {
    let of_status = explain_status(report.status);
    match report.cause.and_then(causes::explain) {
        // Whatever was in the way: that the time is over is what counts.
        Some((_, to_do)) if report.status == EXPIRED_5_4_7 => (of_status.0, to_do),
        // We found what is missing there; the host has no trouble.
        Some(_) if report.status == NOT_CAPABLE_5_3_3 && report.reply.is_none() => of_status,
        Some(explained) => explained,
        None => of_status,
    }
}

fn explain_status(status: EnhancedStatusCode) -> (&'static str, &'static str) {
    match (status.subject(), status.detail()) {
        (1, 1) => (
            "There is no mailbox with this address.",
            "Check the address for typing errors, correct it and send the mail again.",
        ),
        (1, 2) => (
            "There is no mail domain with this name.",
            "Check the part behind the @ for typing errors, correct it and send the mail again.",
        ),
        (1, 10) => (
            "This domain accepts no mail at all.",
            "Ask the recipient for another address.",
        ),
        (1, _) => (
            "The address is not valid there.",
            "Check the address, correct it and send the mail again.",
        ),
        (2, 1) => (
            "The mailbox exists, but does not accept mail.",
            "Ask the recipient for another address.",
        ),
        (2, 2) => (
            "The mailbox is full.",
            "Tell the recipient in another way, and send the mail again later.",
        ),
        (3, 3) => (
            "The recipient's mail system cannot do what you asked for with this mail.",
            "Send it again without asking for that.",
        ),
        (2 | 3, 3 | 4) => (
            "The mail is too large for the recipient's mail system.",
            "Send a smaller mail, or put large files elsewhere and send a link.",
        ),
        (4, 6) => (
            "The mail went round in a circle between mail systems.",
            "Forward this report to your postmaster: the mail systems are set up wrongly.",
        ),
        (4, 7) => (
            "It could not be delivered in the time allowed.",
            "Send the mail again later, or reach the recipient in another way.",
        ),
        (4, _) => (
            "The recipient's mail system could not be reached.",
            "Send the mail again later, or reach the recipient in another way.",
        ),
        (6, 7) => (
            "The recipient's mail system cannot handle addresses with letters outside ASCII.",
            "Send from, and to, an address in plain ASCII.",
        ),
        (6, _) => (
            "The recipient's mail system cannot handle the content of this mail.",
            "Send it in another form, for example without attachments.",
        ),
        (7, _) => (
            "The recipient's mail system refused it under its own rules.",
            "Read what it said above; it alone can change its rules, so ask the recipient.",
        ),
        _ => (
            "The mail was refused.",
            "Read the reason given above, or ask the recipient.",
        ),
    }
}

fn explain_delay(report: &StatusReport) -> &'static str {
    let status = report.status;
    if let Some((what, _)) = report.cause.and_then(causes::explain) {
        return what;
    }
    match (status.subject(), status.detail()) {
        (2, 2) => "The mailbox is full.",
        (4, 3) | (1, 2) => "The name service did not answer for this domain.",
        (4, _) => "The recipient's mail system cannot be reached at present.",
        _ => "The recipient's mail system does not take the mail at present.",
    }
}

/// Each piece of advice once.
fn advice(report: &Report) -> Vec<&'static str> {
    let mut all: Vec<&'static str> = Vec::new();
    for recipient in &report.recipients {
        if let Outcome::Failed(result) = &recipient.outcome {
            let (_, advice) = explain_failure(result);
            if !all.contains(&advice) {
                all.push(advice);
            }
        }
    }
    all
}

/// How the last paragraph begins; too short to be broken.
pub(crate) const MAIL_ATTACHED: &str = "Your mail is attached.";
pub(crate) const HEADER_ATTACHED: &str = "The header of your mail is attached.";

fn closing(report: &Report) -> String {
    let attached = match report.returned {
        crate::Returned::Full(_) => MAIL_ATTACHED,
        crate::Returned::Headers(_) => HEADER_ATTACHED,
    };
    let id = report.queue_id;
    format!(
        "{attached} If you need help, forward this report to your postmaster; the mail's id is {id}."
    )
}

/// The address the sender knows.
fn named_by_sender(recipient: &RecipientStatus) -> &postroad_address::Mailbox {
    recipient
        .original
        .as_ref()
        .unwrap_or(&recipient.final_recipient)
}
