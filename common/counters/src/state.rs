//! What a restart is not to forget, as text:
//!
//! ```text
//! postroad counters 1
//! counter <TAB> window in ms <TAB> part:count,part:count <TAB> key
//! ban <TAB> since in ms <TAB> until in ms <TAB> value <TAB> key
//! end <TAB> CRC32C of all before this line, in hex
//! ```

use std::{fmt::Write as _, time::Duration};

use postroad_envelope::Timestamp;

use crate::{Ban, Key};

const FIRST: &str = "postroad counters 1\n";

/// Something that a restart is not to forget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// A counter.
    Counter {
        /// Of whom.
        key: Key,
        /// The time that is looked back.
        window: Duration,
        /// Numbers of the parts of the window since 1970, ascending, and what was counted in them.
        parts: Vec<(u64, u64)>,
    },
    /// A ban.
    Ban(Ban),
}

/// The text is not whole, or none of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the counters are damaged")]
pub struct Damaged;

/// Writes it.
pub fn encode(kept: &[Kept]) -> String {
    let mut text = FIRST.to_owned();
    for one in kept {
        // Writing to a text cannot fail.
        let _ = match one {
            Kept::Counter { key, window, parts } => {
                let parts: Vec<_> = parts
                    .iter()
                    .map(|(number, count)| format!("{number}:{count}"))
                    .collect();
                let parts = parts.join(",");
                writeln!(text, "counter\t{}\t{parts}\t{key}", window.as_millis())
            }
            Kept::Ban(ban) => writeln!(
                text,
                "ban\t{}\t{}\t{}\t{}",
                ban.since.as_millis(),
                ban.until.as_millis(),
                ban.value,
                ban.key
            ),
        };
    }
    let _ = writeln!(text, "end\t{:08x}", crc32c::crc32c(text.as_bytes()));
    text
}

/// Reads it. Lines of a later release, and keys that are none any more, are passed over.
pub fn decode(text: &str) -> Result<Vec<Kept>, Damaged> {
    let body = text.strip_suffix('\n').ok_or(Damaged)?;
    let end = body.rfind('\n').ok_or(Damaged)? + 1;
    let (body, last) = body.split_at(end);
    let crc = last.strip_prefix("end\t").ok_or(Damaged)?;
    if crc != format!("{:08x}", crc32c::crc32c(body.as_bytes())) {
        return Err(Damaged);
    }
    let lines = body.strip_prefix(FIRST).ok_or(Damaged)?.lines();
    Ok(lines.filter_map(line).collect())
}

fn line(text: &str) -> Option<Kept> {
    let fields: Vec<_> = text.split('\t').collect();
    match fields.as_slice() {
        ["counter", window, parts, key] => Some(Kept::Counter {
            key: key.parse().ok()?,
            window: Duration::from_millis(window.parse().ok()?),
            parts: parts.split(',').map(part).collect::<Option<_>>()?,
        }),
        ["ban", since, until, value, key] => Some(Kept::Ban(Ban {
            key: key.parse().ok()?,
            since: moment(since)?,
            until: moment(until)?,
            value: value.parse().ok()?,
        })),
        _ => None,
    }
}

fn part(text: &str) -> Option<(u64, u64)> {
    let (number, count) = text.split_once(':')?;
    Some((number.parse().ok()?, count.parse().ok()?))
}

fn moment(text: &str) -> Option<Timestamp> {
    text.parse().ok().map(Timestamp::from_millis)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn some() -> Vec<Kept> {
        vec![
            Kept::Counter {
                key: "sent/alice@demo.test".parse().unwrap(),
                window: Duration::from_secs(3600),
                parts: vec![(5, 2), (6, 1)],
            },
            Kept::Counter {
                key: "sent/\"a b\"@demo.test".parse().unwrap(),
                window: Duration::from_secs(3600),
                parts: vec![(5, 2)],
            },
            Kept::Ban(Ban {
                key: "auth_failed/2001:db8::/64".parse().unwrap(),
                since: Timestamp::from_millis(1),
                until: Timestamp::from_millis(2),
                value: 7,
            }),
        ]
    }

    #[test]
    fn it_reads_what_it_writes_and_passes_over_what_it_does_not_know() {
        let text = encode(&some());
        assert_eq!(decode(&text), Ok(some()));
        assert_eq!(decode(&encode(&[])), Ok(Vec::new()));
        let later = format!("{FIRST}new\t1\ncounter\t1\t2:3\twhat/x\n");
        let later = format!("{later}end\t{:08x}\n", crc32c::crc32c(later.as_bytes()));
        assert_eq!(decode(&later), Ok(Vec::new()));
    }

    #[test]
    fn what_is_cut_or_changed_is_damaged() {
        let text = encode(&some());
        for cut in 0..text.len() {
            assert_eq!(decode(&text[..cut]), Err(Damaged), "cut at {cut}");
        }
        assert_eq!(decode(&text.replace("5:2", "5:3")), Err(Damaged));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,200}") {
            prop_assert_eq!(decode(&text), Err(Damaged));
        }

        #[test]
        fn any_line_is_read_or_passed_over(line_of_it in "(counter|ban|end)(\t[^\n]{0,12}){0,5}") {
            let text = format!("{FIRST}{line_of_it}\n");
            let text = format!("{text}end\t{:08x}\n", crc32c::crc32c(text.as_bytes()));
            prop_assert!(decode(&text).is_ok());
        }
    }
}
