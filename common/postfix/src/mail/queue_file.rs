//! A file of the queue: records of a type, a length and octets.
//!
//! The length has seven bits in each octet, the least first, as long as the highest bit is set. `p` is a jump to another place in the
//! file: mail that was changed on its way has its newer records at the end.

use super::{Arrival, Found, MailFault, Rcpt, Records, number};

/// More jumps than a file can have that is no circle.
const MOST_JUMPS: usize = 10_000;

struct Reader<'a> {
    octets: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let kind = *self.octets.get(self.at)?;
        let (mut len, mut shift, mut at) = (0_usize, 0_u32, self.at + 1);
        loop {
            let octet = *self.octets.get(at)?;
            at += 1;
            len |= usize::from(octet & 0x7f).checked_shl(shift)?;
            if octet & 0x80 == 0 {
                break;
            }
            shift += 7;
            if shift > 28 {
                return None;
            }
        }
        let end = at.checked_add(len)?;
        let value = self.octets.get(at..end)?;
        self.at = end;
        Some((kind, value))
    }
}

pub(super) fn read(octets: &[u8], found: Found<'_>) -> Result<Records, MailFault> {
    let mut records = Records {
        name: found.name.to_owned(),
        folder: found.folder.unwrap_or_default().to_owned(),
        ..Records::default()
    };
    let mut reader = Reader { octets, at: 0 };
    let (mut pending, mut in_content, mut jumps) = (Rcpt::default(), false, 0);
    loop {
        let Some((kind, value)) = reader.next() else {
            return Err(MailFault::Cut("the record of its end is missing"));
        };
        match (kind, in_content) {
            (b'E', _) => return Ok(records),
            (b'p', _) => {
                jumps += 1;
                let to: usize = number(value);
                if jumps > MOST_JUMPS {
                    return Err(MailFault::Cut("its records lead in a circle"));
                }
                // Nought: nothing was put elsewhere.
                if to > 0 {
                    reader.at = to;
                }
            }
            (b'M', _) => in_content = true,
            (b'X', _) => in_content = false,
            (b'N', true) => {
                records.content.extend_from_slice(value);
                records.content.extend_from_slice(b"\r\n");
            }
            (b'L', true) => records.content.extend_from_slice(value),
            (_, true) => {}
            (kind, false) => envelope(&mut records, &mut pending, kind, value),
        }
    }
}

fn envelope(records: &mut Records, pending: &mut Rcpt, kind: u8, value: &[u8]) {
    match kind {
        b'C' => {
            let text = String::from_utf8_lossy(value);
            records.size = text
                .split_whitespace()
                .map(|one| number(one.as_bytes()))
                .collect();
        }
        b'T' => {
            let text = String::from_utf8_lossy(value);
            let seconds = text
                .split_whitespace()
                .next()
                .and_then(|one| one.parse().ok());
            records.arrival = seconds.map(Arrival::Epoch);
        }
        b'S' => records.sender = Some(value.to_vec()),
        b'A' => {
            let mut parts = value.splitn(2, |octet| *octet == b'=');
            let name = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
            records.attribute(pending, &name, parts.next().unwrap_or_default());
        }
        b'O' => pending.original = Some(value.to_vec()),
        b'R' => records.recipient(pending, value, false),
        b'D' => records.recipient(pending, value, true),
        b'L' => records.filtered = true,
        b'>' => records.redirected = Some(value.to_vec()),
        _ => {}
    }
}
