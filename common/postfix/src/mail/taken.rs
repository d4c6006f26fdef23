//! Records of a mail in the words of our envelope.

use std::net::{IpAddr, SocketAddr};

use blake2::{Blake2b, Digest as _, digest::consts::U10};
use jiff::{civil::DateTime, tz::TimeZone};
use postroad_address::{Domain, LocalPart, Mailbox, ReversePath};
use postroad_envelope::{
    BodyKind, Envelope, Notify, Origin, OriginalRecipient, Protocol, QueueId, Recipient,
    RecipientIndex, Ret, Timestamp,
};

use super::{Arrival, MailFault, Rcpt, Records, WaitingMail};

/// The zone of the times that `postcat` printed.
#[derive(Debug, Clone, Copy)]
pub struct Zone<'a>(pub &'a TimeZone);

/// DSN_NOTIFY_*, DSN_RET_* and SMTPUTF8_FLAG_REQUESTED of Postfix.
const NEVER: u32 = 1;
const SUCCESS: u32 = 2;
const FAILURE: u32 = 4;
const DELAY: u32 = 8;
const RET_FULL: &str = "1";
const RET_HEADERS: &str = "2";
/// Where in the record of the size the flags are.
const UTF8_FIELD: usize = 5;
/// Longest parts of ORCPT and ENVID that are taken along.
const LONGEST: usize = 500;

pub(super) fn take(records: Records, zone: Zone<'_>) -> Result<WaitingMail, MailFault> {
    let seconds = match &records.arrival {
        Some(Arrival::Epoch(seconds)) => *seconds,
        Some(Arrival::Clock(text)) => {
            clock(text, zone).ok_or_else(|| MailFault::Time(text.clone()))?
        }
        None => return Err(MailFault::Time(String::new())),
    };
    let received_at = Timestamp::from_millis(seconds.saturating_mul(1_000));
    let sender = records
        .sender
        .as_deref()
        .ok_or(MailFault::Cut("it has no sender"))?;
    let reverse_path = match sender {
        b"" => ReversePath::Null,
        text => ReversePath::from(address(text)?),
    };
    if records.recipients.iter().all(|one| one.done) {
        return Err(MailFault::Nobody);
    }
    let mut envelope = Envelope::new(id(&records.name, received_at), reverse_path, received_at);
    let mut done = Vec::new();
    for (at, one) in records.recipients.iter().enumerate() {
        let index = RecipientIndex(u32::try_from(at).unwrap_or(u32::MAX));
        envelope.recipients.push(recipient(index, one)?);
        done.extend(one.done.then_some(index));
    }
    let eight_bit = !records.content.is_ascii();
    let encoding = records.text("encoding");
    envelope.body = match eight_bit || encoding.as_deref() == Some("8bit") {
        true => BodyKind::EightBitMime,
        false => BodyKind::SevenBit,
    };
    let flags = records.size.get(UTF8_FIELD).copied().unwrap_or_default();
    envelope.smtputf8 = flags & 1 == 1 || needs_utf8(&envelope);
    envelope.envid = records
        .text("envelope_id")
        .filter(|envid| envid.len() <= LONGEST);
    envelope.ret = match records.text("ret_flags").as_deref() {
        Some(RET_FULL) => Some(Ret::Full),
        Some(RET_HEADERS) => Some(Ret::Headers),
        _ => None,
    };
    envelope.size = u64::try_from(records.content.len()).unwrap_or(u64::MAX);
    envelope.hop_count = hops(&records.content);
    envelope.listener = "postfix".to_owned();
    envelope.origin = origin(&records);
    envelope
        .facts
        .insert("postfix_queue_id".to_owned(), records.name.clone());
    let mut remarks = Vec::new();
    if records.filtered {
        remarks.push("it was to go through a content filter, and goes on without");
    }
    if records.redirected.is_some() {
        remarks.push("it was to be redirected to another address, and goes to its recipients");
    }
    Ok(WaitingMail {
        held: records.folder == "hold",
        name: records.name,
        envelope,
        done,
        content: records.content,
        remarks,
    })
}

/// The same for the same mail, so that it is taken in once.
fn id(name: &str, received_at: Timestamp) -> QueueId {
    let mut hash = Blake2b::<U10>::new();
    hash.update(b"postfix ");
    hash.update(name.as_bytes());
    QueueId::mint(received_at, hash.finalize().into())
}

fn recipient(index: RecipientIndex, one: &Rcpt) -> Result<Recipient, MailFault> {
    let found = address(&one.address)?;
    let original = one
        .original
        .as_deref()
        .filter(|text| !text.is_empty())
        .map(address)
        .transpose();
    let original = original
        .unwrap_or_default()
        .filter(|original| *original != found);
    Ok(Recipient {
        original,
        notify: match one.notify {
            0 => Notify::default(),
            flags if flags & NEVER != 0 => Notify::Never,
            flags => Notify::On {
                success: flags & SUCCESS != 0,
                failure: flags & FAILURE != 0,
                delay: flags & DELAY != 0,
            },
        },
        orcpt: one.orcpt.as_deref().and_then(orcpt),
        ..Recipient::new(index, found)
    })
}

fn orcpt(text: &[u8]) -> Option<OriginalRecipient> {
    let text = std::str::from_utf8(text)
        .ok()
        .filter(|text| text.len() <= LONGEST)?;
    let (kind, address) = text.split_once(';')?;
    Some(OriginalRecipient {
        address_type: kind.to_owned(),
        address: address.to_owned(),
    })
}

/// Postfix keeps local parts without quotes.
fn address(octets: &[u8]) -> Result<Mailbox, MailFault> {
    let text = String::from_utf8_lossy(octets);
    let fault = |why: &dyn std::fmt::Display| MailFault::Address(text.to_string(), why.to_string());
    let text = std::str::from_utf8(octets).map_err(|error| fault(&error))?;
    if let Ok(plain) = Mailbox::parse(text) {
        return Ok(plain);
    }
    let (local, domain) = text
        .rsplit_once('@')
        .ok_or_else(|| fault(&"it has no domain"))?;
    let quoted = format!("\"{}\"", local.replace('\\', "\\\\").replace('"', "\\\""));
    let local = LocalPart::parse(&quoted).map_err(|error| fault(&error))?;
    let domain = Domain::parse(domain).map_err(|error| fault(&error))?;
    Ok(Mailbox::new(local, domain))
}

fn needs_utf8(envelope: &Envelope) -> bool {
    let recipients = envelope.recipients.iter().map(|one| &one.address);
    let mut all = recipients.chain(envelope.reverse_path.mailbox());
    all.any(Mailbox::needs_smtputf8)
}

/// `Fri Nov 27 07:23:17 2026`
fn clock(text: &str, zone: Zone<'_>) -> Option<u64> {
    let at = DateTime::strptime("%a %b %d %H:%M:%S %Y", text.trim()).ok()?;
    let at = at.to_zoned(zone.0.clone()).ok()?;
    u64::try_from(at.timestamp().as_second()).ok()
}

/// RFC 5321 §6.3: Received fields of the header.
fn hops(content: &[u8]) -> u32 {
    let header = content
        .split(|octet| *octet == b'\n')
        .take_while(|line| !matches!(line, [] | [b'\r']));
    let received = header.filter(|line| {
        line.get(..9)
            .is_some_and(|name| name.eq_ignore_ascii_case(b"received:"))
    });
    u32::try_from(received.count()).unwrap_or(u32::MAX)
}

fn origin(records: &Records) -> Origin {
    // What a neighbour in front told by XFORWARD stands in the names with log_.
    let named = |name: &str| {
        let told = records
            .text(&format!("log_{name}"))
            .or_else(|| records.text(name));
        told.filter(|text| text != "unknown")
    };
    let socket = |address: Option<String>, port: Option<String>| {
        let address: IpAddr = address?.parse().ok()?;
        let port = port.and_then(|text| text.parse().ok());
        Some(SocketAddr::new(address, port.unwrap_or_default()))
    };
    let client = socket(named("client_address"), named("client_port"));
    let connected = socket(records.text("client_address"), records.text("client_port"));
    let auth = records.text("sasl_username").is_some();
    let protocol = named("protocol_name").unwrap_or_default();
    Origin {
        client,
        peer: connected
            .filter(|connected| client.is_some_and(|client| client.ip() != connected.ip())),
        rdns: named("client_name"),
        helo: named("helo_name"),
        protocol: match protocol.as_str() {
            "SMTP" => Protocol::Smtp,
            "ESMTP" => Protocol::Esmtp {
                tls: false,
                auth,
                utf8: false,
            },
            "LMTP" => Protocol::Lmtp {
                tls: false,
                auth,
                utf8: false,
            },
            _ => Protocol::Internal,
        },
        ..Origin::default()
    }
}
