use std::ops::Range;

use bytes::Bytes;
use jiff::fmt::rfc2822::DateTimeParser;
use postroad_envelope::Timestamp;

use crate::{
    MessageId,
    split::{field_name, split},
};

/// A header that was read: its fields in order, over the octets as they came.
#[derive(Debug, Clone, Default)]
pub struct HeaderBlock {
    octets: Bytes,
    items: Vec<Item>,
}

/// A field, or a line that is none; with its continuation lines.
#[derive(Debug, Clone)]
struct Item {
    all: Range<usize>,
    /// Octets of the name and where the value begins; absent for a line without a name.
    name: Option<(Range<usize>, usize)>,
}

impl HeaderBlock {
    /// Reads a header; what follows its empty line is ignored. Never fails: see [`HeaderBlock::malformed_lines`].
    pub fn parse(header: &[u8]) -> Self {
        let octets = Bytes::copy_from_slice(split(header).0);
        let mut items: Vec<Item> = Vec::new();
        let mut start = 0;
        for line in octets.split_inclusive(|&byte| byte == b'\n') {
            let all = start..start + line.len();
            start = all.end;
            match items.last_mut() {
                _ if matches!(line, b"\r\n" | b"\n") => {}
                // RFC 5322 §2.2.3: a line that begins with white space continues the field above it.
                Some(last) if line.starts_with(b" ") || line.starts_with(b"\t") => {
                    last.all.end = all.end;
                }
                _ => items.push(Item {
                    name: name_range(line, all.start),
                    all,
                }),
            }
        }
        Self { octets, items }
    }

    /// Every field from the top.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Field<'_>> {
        self.items.iter().filter_map(|item| self.field(item))
    }

    /// The fields of that name, in any case, from the top.
    pub fn fields<'a>(&'a self, name: &'a str) -> impl DoubleEndedIterator<Item = Field<'a>> {
        self.iter()
            .filter(move |field| field.name.eq_ignore_ascii_case(name))
    }

    /// Whether there is a field of that name.
    pub fn has(&self, name: &str) -> bool {
        self.fields(name).next().is_some()
    }

    /// How many fields have that name; `count("Received")` is the hop count of RFC 5321 §6.3.
    pub fn count(&self, name: &str) -> usize {
        self.fields(name).count()
    }

    /// The text of the first field of that name.
    pub fn first(&self, name: &str) -> Option<String> {
        self.fields(name).next().map(|field| field.text())
    }

    /// The id of the first Message-ID field that holds one.
    pub fn message_id(&self) -> Option<MessageId> {
        self.fields("Message-ID")
            .find_map(|field| MessageId::find(&field.text()))
    }

    /// The moment of the first Date field that holds one, obsolete forms included (RFC 5322 §4.3).
    pub fn date(&self) -> Option<Timestamp> {
        let parser = DateTimeParser::new().relaxed_weekday(true);
        self.fields("Date").find_map(|field| {
            let at = parser.parse_timestamp(field.text()).ok()?;
            u64::try_from(at.as_millisecond())
                .ok()
                .map(Timestamp::from_millis)
        })
    }

    /// Whether it says of itself that it goes to many: it comes from a list (RFC 2919, RFC 2369), or has the old
    /// `Precedence` of bulk, list or junk (RFC 3834 §5).
    pub fn is_bulk(&self) -> bool {
        let precedence = self.first("Precedence");
        let precedence = precedence.as_deref().map(str::trim);
        self.has("List-Id")
            || self.has("List-Unsubscribe")
            || precedence.is_some_and(|word| {
                ["bulk", "list", "junk"]
                    .iter()
                    .any(|bulk| bulk.eq_ignore_ascii_case(word))
            })
    }

    /// How many lines are neither field nor continuation.
    pub fn malformed_lines(&self) -> usize {
        self.items.iter().filter(|item| item.name.is_none()).count()
    }

    /// The octets of each field or malformed line, with the field's name.
    pub(crate) fn raw_items(&self) -> impl Iterator<Item = (Option<&str>, &[u8])> {
        self.items.iter().map(|item| {
            let raw = self.octets.get(item.all.clone()).unwrap_or_default();
            (self.field(item).map(|field| field.name), raw)
        })
    }

    fn field(&self, item: &Item) -> Option<Field<'_>> {
        let (name, value_start) = item.name.as_ref()?;
        Some(Field {
            name: std::str::from_utf8(self.octets.get(name.clone())?).ok()?,
            value: self.octets.get(*value_start..item.all.end)?,
        })
    }
}

fn name_range(line: &[u8], start: usize) -> Option<(Range<usize>, usize)> {
    let name = field_name(line)?;
    let colon = line.iter().position(|&byte| byte == b':')?;
    Some((start..start + name.len(), start + colon + 1))
}

/// One field of a [`HeaderBlock`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    name: &'a str,
    value: &'a [u8],
}

impl<'a> Field<'a> {
    /// The name as it was written.
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// The octets after the colon, with folding and line end.
    pub fn raw(&self) -> &'a [u8] {
        self.value
    }

    /// The value on one line without the white space around it; octets that are not UTF-8 are replaced.
    pub fn text(&self) -> String {
        // RFC 5322 §2.2.3: unfolding removes the line ends and nothing else.
        let unfolded: Vec<u8> = self
            .value
            .iter()
            .copied()
            .filter(|byte| !matches!(byte, b'\r' | b'\n'))
            .collect();
        String::from_utf8_lossy(&unfolded).trim().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAIL: &[u8] = b"Received: one\r\nreceived : two\r\nSubject: a\r\n\tfolded =?x\xff\r\nno colon here\r\n\
        Date: Tue, 14 Nov 2023 23:13:20 +0100 (CET)\r\nMessage-Id: (c) <a.b@c.example> x\r\n\r\nTo: body\r\n";

    #[test]
    fn reads_what_real_mail_has() {
        let block = HeaderBlock::parse(MAIL);
        assert_eq!(block.count("Received"), 2);
        assert_eq!(block.first("SUBJECT").unwrap(), "a\tfolded =?x\u{fffd}");
        assert!(!block.has("To"), "the body is not looked at");
        assert_eq!(block.malformed_lines(), 1);
        assert_eq!(
            block.date(),
            Some(Timestamp::from_millis(1_700_000_000_000))
        );
        assert_eq!(block.message_id().unwrap().to_string(), "<a.b@c.example>");
    }

    #[test]
    fn bad_dates_and_ids_are_absent() {
        let block = HeaderBlock::parse(b"Date: yesterday\r\nMessage-ID: none\r\n");
        assert_eq!((block.date(), block.message_id()), (None, None));
        assert!(block.has("date") && block.has("message-id"));
    }

    #[test]
    fn mail_for_many_says_so() {
        let is_bulk = |header: &str| HeaderBlock::parse(header.as_bytes()).is_bulk();
        for bulk in [
            "List-Id: <l.x.test>\r\n",
            "list-unsubscribe: <u>\r\n",
            "Precedence: Bulk\r\n",
        ] {
            assert!(is_bulk(bulk), "{bulk}");
        }
        for personal in [
            "Precedence: first-class\r\n",
            "List-Help: <h>\r\n",
            "Subject: bulk\r\n",
            "",
        ] {
            assert!(!is_bulk(personal), "{personal}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics_and_nothing_is_lost(header in "[a: \t\r\n]{0,60}") {
            let block = HeaderBlock::parse(header.as_bytes());
            let all: usize = block.raw_items().map(|(_, raw)| raw.len()).sum();
            let read = split(header.as_bytes()).0.len();
            prop_assert!(all <= read && read - all <= 2);
        }
    }
}
