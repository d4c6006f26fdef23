//! One mail of the queue: from its file, or from what `postcat` prints of it.
//!
//! Both say the same, but for this: `postcat` prints times of day without their zone, and to the second; and of a mail in which
//! a line looks like its own headings it is the last such line that counts. The file is exact.
//!
//! Lines of the content end with CRLF here, as they do on the wire; Postfix keeps them without an end.

mod postcat;
mod queue_file;
mod taken;

use postroad_envelope::{Envelope, RecipientIndex};

pub use taken::Zone;

/// Why a mail cannot be taken along.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MailFault {
    /// It is neither a file of a queue nor what `postcat` prints.
    #[error("it is neither a mail of a Postfix queue nor what postcat prints of one")]
    NoMail,
    /// It ends too early: it was being written, or copied badly.
    #[error("it is not whole: {0}")]
    Cut(&'static str),
    /// It was given to `sendmail` and not yet taken up.
    #[error("it is in maildrop, where Postfix has not looked yet: let Postfix take it up first")]
    NotTakenUp,
    /// A sender or recipient that is no address.
    #[error("{0:?} is no address: {1}")]
    Address(String, String),
    /// It has no time, or one that is none.
    #[error("{0:?} is no time of arrival")]
    Time(String),
    /// It has no recipients.
    #[error("nobody is to get it any more")]
    Nobody,
}

/// A mail that waits in a queue of Postfix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingMail {
    /// Its name there.
    pub name: String,
    /// What our queue is to know. The id follows from name and time there, so it is the same each time.
    pub envelope: Envelope,
    /// The recipients that Postfix is done with: delivered or returned.
    pub done: Vec<RecipientIndex>,
    /// Whether it is on hold.
    pub held: bool,
    /// As it goes over the wire, without dot-stuffing.
    pub content: Vec<u8>,
    /// What of it could not be taken along.
    pub remarks: Vec<&'static str>,
}

impl WaitingMail {
    /// CRC32C of its content.
    pub fn crc32c(&self) -> u32 {
        crc32c::crc32c(&self.content)
    }
}

/// Where a mail was found.
#[derive(Debug, Clone, Copy)]
pub struct Found<'a> {
    /// The folder of the queue, such as `deferred`, if it lies in one.
    pub folder: Option<&'a str>,
    /// The name of the file.
    pub name: &'a str,
}

/// Reads one mail, in either form.
pub fn read(octets: &[u8], found: Found<'_>, zone: Zone<'_>) -> Result<WaitingMail, MailFault> {
    if found.folder == Some("maildrop") {
        return Err(MailFault::NotTakenUp);
    }
    let records = match octets {
        [b'C', ..] => queue_file::read(octets, found)?,
        _ => postcat::read(octets)?,
    };
    taken::take(records, zone)
}

/// What both forms come to.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Records {
    name: String,
    folder: String,
    size: Vec<u64>,
    arrival: Option<Arrival>,
    sender: Option<Vec<u8>>,
    attributes: Vec<(String, Vec<u8>)>,
    recipients: Vec<Rcpt>,
    content: Vec<u8>,
    filtered: bool,
    redirected: Option<Vec<u8>>,
}

/// When it came.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Arrival {
    /// Seconds since 1970.
    Epoch(u64),
    /// As asctime(3) has it, in the zone of whoever ran `postcat`.
    Clock(String),
}

/// One of its recipients, with what was said of it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Rcpt {
    address: Vec<u8>,
    original: Option<Vec<u8>>,
    orcpt: Option<Vec<u8>>,
    notify: u32,
    done: bool,
}

impl Records {
    /// A word of the envelope, whatever the form.
    fn attribute(&mut self, pending: &mut Rcpt, name: &str, value: &[u8]) {
        match name {
            "notify_flags" => pending.notify = number(value),
            "dsn_orig_rcpt" => pending.orcpt = Some(value.to_vec()),
            _ => self.attributes.push((name.to_owned(), value.to_vec())),
        }
    }

    fn recipient(&mut self, pending: &mut Rcpt, address: &[u8], done: bool) {
        let mut recipient = std::mem::take(pending);
        recipient.address = address.to_vec();
        recipient.done = done;
        self.recipients.push(recipient);
    }

    fn text(&self, name: &str) -> Option<String> {
        let mut all = self.attributes.iter().rev();
        let (_, value) = all.find(|(one, _)| one == name)?;
        Some(String::from_utf8_lossy(value).into_owned()).filter(|text| !text.is_empty())
    }
}

fn number<T: std::str::FromStr + Default>(text: &[u8]) -> T {
    let text = std::str::from_utf8(text).unwrap_or_default();
    text.trim().parse().unwrap_or_default()
}

#[cfg(test)]
mod tests;
