//! Maildir++ folder names: `Lists/Bücher` is the folder `.Lists.B&APw-cher`.

use base64::Engine;
use base64::alphabet::IMAP_MUTF7;
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD};
use unicode_normalization::UnicodeNormalization;

use crate::MaildirError;

const MUTF7: GeneralPurpose = GeneralPurpose::new(&IMAP_MUTF7, NO_PAD);

/// A folder below the inbox; its parts are modified UTF-7 (RFC 3501 §5.1.3) already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FolderName {
    parts: Vec<String>,
}

impl FolderName {
    /// `/` and `.` both part levels, since Maildir++ cannot hold a dot in a name. `INBOX` is `None`, and as a
    /// first level it falls away.
    pub(crate) fn parse(name: &str) -> Result<Option<Self>, MaildirError> {
        let name: String = name.nfc().collect();
        let mut levels: Vec<&str> = name.split(['/', '.']).collect();
        if levels
            .first()
            .is_some_and(|first| first.eq_ignore_ascii_case("INBOX"))
        {
            levels.remove(0);
        }
        if levels.is_empty() {
            return Ok(None);
        }
        if levels.iter().any(|level| level.is_empty()) || name.chars().any(char::is_control) {
            return Err(MaildirError::invalid(format!(
                "{name:?} is not a folder name"
            )));
        }
        let folder = Self {
            parts: levels.into_iter().map(encode).collect(),
        };
        if folder.on_disk().len() > 255 {
            return Err(MaildirError::invalid("the folder name is too long"));
        }
        Ok(Some(folder))
    }

    /// `.Lists.Rust`
    pub(crate) fn on_disk(&self) -> String {
        format!(".{}", self.parts.join("."))
    }

    /// A line for the file `subscriptions`: with dots, or with tabs in Dovecot's second version.
    pub(crate) fn subscription(&self, tabs: bool) -> String {
        self.parts.join(if tabs { "\t" } else { "." })
    }
}

/// `.Lists.B&APw-cher` as people read it: `Lists/Bücher`. What does not decode stays as it is.
pub(crate) fn display(on_disk: &str) -> String {
    let levels = on_disk.trim_start_matches('.').split('.');
    levels
        .map(|level| decode(level).unwrap_or_else(|| level.to_owned()))
        .collect::<Vec<_>>()
        .join("/")
}

fn encode(level: &str) -> String {
    let mut out = String::new();
    let mut wide: Vec<u8> = Vec::new();
    let flush = |wide: &mut Vec<u8>, out: &mut String| {
        if !wide.is_empty() {
            out.push('&');
            out.push_str(&MUTF7.encode(&wide));
            out.push('-');
            wide.clear();
        }
    };
    for character in level.chars() {
        if matches!(character, ' '..='~') {
            flush(&mut wide, &mut out);
            out.push(character);
            if character == '&' {
                out.push('-');
            }
        } else {
            let mut units = [0; 2];
            let units = character.encode_utf16(&mut units);
            wide.extend(units.iter().flat_map(|unit| unit.to_be_bytes()));
        }
    }
    flush(&mut wide, &mut out);
    out
}

fn decode(level: &str) -> Option<String> {
    let mut out = String::new();
    let mut rest = level;
    while let Some((before, shifted)) = rest.split_once('&') {
        out.push_str(before);
        let (code, after) = shifted.split_once('-')?;
        if code.is_empty() {
            out.push('&');
        } else {
            let bytes = MUTF7.decode(code).ok()?;
            let (pairs, []) = bytes.as_chunks::<2>() else {
                return None;
            };
            let units: Vec<u16> = pairs.iter().map(|pair| u16::from_be_bytes(*pair)).collect();
            out.push_str(&String::from_utf16(&units).ok()?);
        }
        rest = after;
    }
    out.push_str(rest);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn on_disk(name: &str) -> String {
        FolderName::parse(name).unwrap().unwrap().on_disk()
    }

    #[test]
    fn names_as_imap_servers_write_them() {
        assert_eq!(on_disk("Spam"), ".Spam");
        assert_eq!(on_disk("Lists/Rust"), ".Lists.Rust");
        assert_eq!(on_disk("INBOX.Lists.Rust"), ".Lists.Rust");
        assert_eq!(on_disk("Entwürfe"), ".Entw&APw-rfe");
        // RFC 3501 §5.1.3 gives this very example.
        assert_eq!(
            on_disk("~peter/mail/台北/日本語"),
            ".~peter.mail.&U,BTFw-.&ZeVnLIqe-"
        );
        assert_eq!(on_disk("Q&A"), ".Q&-A");
        assert_eq!(FolderName::parse("inbox").unwrap(), None);
        let long = "x".repeat(255);
        for bad in [
            "", "..", "/etc", "a//b", "a/", "a\0b", "a\nb", "../x", &long,
        ] {
            assert!(FolderName::parse(bad).is_err(), "{bad:?}");
        }
        assert_eq!(display(".broken&x"), "broken&x");
    }

    proptest! {
        #[test]
        fn decodes_to_what_it_was(level in "[^./\\x00-\\x1f\\x7f-\\x9f]{1,40}") {
            prop_assert_eq!(decode(&encode(&level)), Some(level));
        }

        #[test]
        fn never_escapes(name in any::<String>()) {
            if let Ok(Some(folder)) = FolderName::parse(&name) {
                let disk = folder.on_disk();
                prop_assert!(disk.starts_with('.') && !disk.contains('/') && disk.len() <= 255);
                prop_assert!(disk.bytes().all(|b| (0x20..0x7f).contains(&b)) && !disk.contains(".."));
            }
        }
    }
}
