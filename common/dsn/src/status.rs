use std::net::IpAddr;

use postroad_address::{Domain, Mailbox};
use postroad_envelope::{NextHop, Outcome, RemoteHost, StatusReport};
use postroad_message::fold_structured;

use crate::{RecipientStatus, Report, clean};

/// The part for programs (RFC 3464 §2): fields about the mail, then a group for each recipient.
///
/// With `utf8` it is a message/global-delivery-status (RFC 6533 §4), else a message/delivery-status in ASCII.
pub fn delivery_status(report: &Report, utf8: bool) -> Vec<u8> {
    let mut fields = Vec::new();
    if let Some(envid) = &report.envid {
        push(
            &mut fields,
            "Original-Envelope-Id",
            &clean::one_line(envid, utf8),
        );
    }
    let host = report.reporting_mta.a_label();
    push(&mut fields, "Reporting-MTA", &format!("dns; {host}"));
    push(
        &mut fields,
        "X-Postroad-Queue-Id",
        &report.queue_id.to_string(),
    );
    push(&mut fields, "Arrival-Date", &report.arrival.to_rfc5322());
    if let Some(by) = report.deliver_by {
        push(&mut fields, "Deliver-By-Date", &by.to_rfc5322());
    }
    for recipient in &report.recipients {
        fields.extend_from_slice(b"\r\n");
        recipient_fields(&mut fields, recipient, utf8);
    }
    fields
}

/// Whether the fields are in UTF-8: an address needs it, and the sender has a way for it, since the mail came by one. Else such
/// addresses are written in ASCII (RFC 6533 §3).
pub fn needs_utf8(report: &Report) -> bool {
    let mut recipients = report.recipients.iter();
    let needs = recipients.any(|recipient| {
        !clean::address(&recipient.final_recipient).is_ascii()
            || recipient
                .original_recipient
                .as_ref()
                .is_some_and(|original| !original.address.is_ascii())
    });
    needs && report.smtputf8
}

fn recipient_fields(fields: &mut Vec<u8>, recipient: &RecipientStatus, utf8: bool) {
    if let Some(original) = &recipient.original_recipient {
        let kind = clean::one_line(&original.address_type, false).replace([' ', ';'], "");
        let address = clean::one_line(&original.address, true);
        let is_utf8 = kind.eq_ignore_ascii_case("utf-8") || !address.is_ascii();
        let address = match is_utf8 && !utf8 {
            true => in_ascii(&address),
            false => address,
        };
        push(fields, "Original-Recipient", &format!("{kind}; {address}"));
    }
    push(
        fields,
        "Final-Recipient",
        &typed_address(&recipient.final_recipient, utf8),
    );
    push(fields, "Action", recipient.outcome.action());
    let result = recipient.outcome.report();
    push(fields, "Status", &result.status.to_string());
    // A socket of ours has no name that means something to others.
    if let Some(remote) = result.remote.as_ref().filter(|remote| !is_socket(remote)) {
        push(fields, "Remote-MTA", &format!("dns; {}", host_name(remote)));
    }
    push(fields, "Diagnostic-Code", &diagnostic(result, utf8));
    // RFC 3464 §2.3: an extension field.
    if let Some(cause) = result.cause {
        push(fields, "X-Postroad-Cause", cause.as_str());
    }
    if let Some(at) = recipient.last_attempt {
        push(fields, "Last-Attempt-Date", &at.to_rfc5322());
    }
    // RFC 3464 §2.3.9: only where the mail is tried again.
    if let (Outcome::Delayed(_), Some(until)) = (&recipient.outcome, recipient.will_retry_until) {
        push(fields, "Will-Retry-Until", &until.to_rfc5322());
    }
}

fn push(fields: &mut Vec<u8>, name: &str, value: &str) {
    if !value.is_empty() {
        fields.extend(fold_structured(name, value.split_whitespace()));
    }
}

/// RFC 6533 §3: `utf-8` for an address that has no ASCII form.
fn typed_address(mailbox: &Mailbox, utf8: bool) -> String {
    let address = clean::address(mailbox);
    if address.is_ascii() {
        return format!("rfc822; {address}");
    }
    let written = if utf8 { address } else { in_ascii(&address) };
    format!("utf-8; {written}")
}

/// RFC 6533 §3, utf-8-addr-xtext: `\x{HEX}` for each character that is not plain.
fn in_ascii(address: &str) -> String {
    let mut written = String::with_capacity(address.len());
    for c in address.chars() {
        match c {
            '\\' | '+' | '=' => written.push_str(&format!("\\x{{{:02X}}}", u32::from(c))),
            '!'..='~' => written.push(c),
            _ => written.push_str(&format!("\\x{{{:02X}}}", u32::from(c))),
        }
    }
    written
}

/// RFC 3464 §2.3.6: the far side's own words, or ours under a type of our own.
fn diagnostic(result: &StatusReport, utf8: bool) -> String {
    match &result.reply {
        Some(reply) => format!("smtp; {}", clean::one_line(&reply.to_string(), utf8)),
        None if result.text.trim().is_empty() => String::new(),
        None => format!("x-postroad; {}", clean::one_line(&result.text, utf8)),
    }
}

/// Whether the other side is a program on this host, by a Unix socket.
pub fn is_socket(remote: &RemoteHost) -> bool {
    remote.address.is_none() && matches!(remote.name.parse(), Ok(NextHop::Unix(_)))
}

/// The name of the host, or the literal of its address.
pub fn host_name(remote: &RemoteHost) -> String {
    match remote.name.parse::<IpAddr>() {
        Ok(ip) => Domain::from_ip(ip).to_string(),
        Err(_) => match Domain::parse(&remote.name) {
            Ok(domain) => domain.a_label().to_owned(),
            Err(_) => clean::one_line(&remote.name, false).replace(' ', "?"),
        },
    }
}
