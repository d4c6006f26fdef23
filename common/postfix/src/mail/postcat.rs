//! What `postcat` prints: headings with the name of the file, and lines `word: value` for the envelope.

use super::{Arrival, MailFault, Rcpt, Records, number};

const ENVELOPE: &str = "ENVELOPE RECORDS";
const CONTENTS: &str = "MESSAGE CONTENTS";
const EXTRACTED: &str = "HEADER EXTRACTED";
const END: &str = "MESSAGE FILE END";

pub(super) fn read(octets: &[u8]) -> Result<Records, MailFault> {
    let first = lines(octets).next().unwrap_or_default();
    let first = std::str::from_utf8(first).map_err(|_| MailFault::NoMail)?;
    let place = first
        .strip_prefix("*** ")
        .and_then(|rest| rest.strip_prefix(ENVELOPE));
    let place = place
        .and_then(|rest| rest.trim().strip_suffix("***"))
        .ok_or(MailFault::NoMail)?
        .trim();
    let mut parts = place.rsplit('/');
    let name = parts.next().unwrap_or(place).to_owned();
    let folders = [
        "active", "incoming", "deferred", "hold", "maildrop", "corrupt",
    ];
    let folder = parts
        .find(|part| folders.contains(part))
        .unwrap_or_default();
    let heading = |word: &str| format!("*** {word} {place} ***\n").into_bytes();
    let missing = |_| MailFault::Cut("postcat must print all of it, without options but -q");
    let begin = find(octets, &heading(CONTENTS))
        .ok_or(())
        .map_err(missing)?;
    // A content may have such a line too; ours is the last one.
    let extracted = rfind(octets, &heading(EXTRACTED))
        .ok_or(())
        .map_err(missing)?;
    let end = rfind(octets, &heading(END)).ok_or(()).map_err(missing)?;
    let content_at = begin + heading(CONTENTS).len();
    let behind_at = extracted + heading(EXTRACTED).len();
    let (Some(before), Some(content), Some(behind)) = (
        octets.get(..begin),
        octets.get(content_at..extracted),
        octets.get(behind_at..end),
    ) else {
        return Err(MailFault::Cut("its parts are not in their order"));
    };
    let mut records = Records {
        name,
        folder: folder.to_owned(),
        content: wired(content),
        ..Records::default()
    };
    let mut pending = Rcpt::default();
    for line in lines(before).skip(1).chain(lines(behind)) {
        word(&mut records, &mut pending, line);
    }
    match records.folder == "maildrop" {
        true => Err(MailFault::NotTakenUp),
        false => Ok(records),
    }
}

fn word(records: &mut Records, pending: &mut Rcpt, line: &[u8]) {
    let Some(at) = find(line, b": ") else {
        return;
    };
    let (name, value) = (
        line.get(..at).unwrap_or_default(),
        line.get(at + 2..).unwrap_or_default(),
    );
    match name {
        b"message_size" => {
            let text = String::from_utf8_lossy(value);
            records.size = text
                .split_whitespace()
                .map(|one| number(one.as_bytes()))
                .collect();
        }
        b"message_arrival_time" => {
            records.arrival = Some(Arrival::Clock(String::from_utf8_lossy(value).into_owned()));
        }
        b"sender" => records.sender = Some(value.to_vec()),
        b"named_attribute" => {
            let mut parts = value.splitn(2, |octet| *octet == b'=');
            let name = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
            records.attribute(pending, &name, parts.next().unwrap_or_default());
        }
        b"original_recipient" => pending.original = Some(value.to_vec()),
        b"recipient" => records.recipient(pending, value, false),
        b"done_recipient" => records.recipient(pending, value, true),
        b"content_filter" => records.filtered = true,
        b"redirect_to" => records.redirected = Some(value.to_vec()),
        _ => {}
    }
}

/// Without their LF; a CR is of the line.
fn lines(octets: &[u8]) -> impl Iterator<Item = &[u8]> {
    octets.split(|octet| *octet == b'\n')
}

fn wired(content: &[u8]) -> Vec<u8> {
    let mut wired = Vec::with_capacity(content.len() + content.len() / 40);
    for octet in content {
        if *octet == b'\n' {
            wired.push(b'\r');
        }
        wired.push(*octet);
    }
    wired
}

fn find(octets: &[u8], wanted: &[u8]) -> Option<usize> {
    memchr::memmem::find(octets, wanted)
}

fn rfind(octets: &[u8], wanted: &[u8]) -> Option<usize> {
    memchr::memmem::rfind(octets, wanted)
}
