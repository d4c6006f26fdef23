//! From an address to a place on disk. Pure; nothing a peer writes can leave the root.

use std::path::{Path, PathBuf};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use unicode_normalization::UnicodeNormalization;

use crate::MaildirError;
use crate::folder::FolderName;

/// The most a file name may have on the file systems we know.
const NAME_MAX: usize = 255;

/// All but `[a-z0-9._+-]`; capitals are gone after folding.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'.')
    .remove(b'_')
    .remove(b'+')
    .remove(b'-');

/// `<root>/<domain>/<local part>/Maildir`, the one rule that says where the mail of an address lies.
///
/// The local part is case-folded, brought to NFC and percent-encoded outside `[a-z0-9._+-]`, a leading
/// dot always as `%2E`. Two local parts share a path only if they fold to the same text. A name that
/// would exceed 255 octets is refused rather than shortened: 64 octets (RFC 5321 §4.5.3.1.1) encode to
/// 192, so it takes characters that grow threefold under NFC to get there, and a refusal
/// can neither collide nor surprise who looks for the folder by hand.
pub fn maildir_path(
    root: &Path,
    domain_a_label: &str,
    local_part: &str,
) -> Result<PathBuf, MaildirError> {
    Ok(root.join(relative(domain_a_label, local_part)?))
}

/// Where a mail shall go: an address that is ours, and perhaps a folder in its mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// `<domain>/<local part>/Maildir`, below the root.
    pub(crate) base: String,
    pub(crate) folder: Option<FolderName>,
}

impl Target {
    /// Parses. `folder` is an IMAP-like name such as `Lists/Rust`; `INBOX` or `None` is the inbox.
    pub fn new(
        domain_a_label: &str,
        local_part: &str,
        folder: Option<&str>,
    ) -> Result<Self, MaildirError> {
        Ok(Self {
            base: relative(domain_a_label, local_part)?,
            folder: folder.map_or(Ok(None), FolderName::parse)?,
        })
    }

    /// The folder that holds tmp, new and cur, below the root.
    pub(crate) fn mailbox(&self) -> String {
        match &self.folder {
            None => self.base.clone(),
            Some(folder) => format!("{}/{}", self.base, folder.on_disk()),
        }
    }
}

/// The queue's name for one delivery: one recipient of one mail.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeliveryId {
    queue_id: String,
    recipient_index: u32,
}

impl DeliveryId {
    /// Takes the text form of a QueueId (lower-case letters and digits).
    pub fn new(queue_id: &str, recipient_index: u32) -> Result<Self, MaildirError> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        if queue_id.is_empty() || queue_id.len() > 64 || !queue_id.bytes().all(plain) {
            return Err(MaildirError::invalid(
                "the queue id is not lower-case letters and digits",
            ));
        }
        Ok(Self {
            queue_id: queue_id.to_owned(),
            recipient_index,
        })
    }

    /// The QueueId as text.
    pub fn queue_id(&self) -> &str {
        &self.queue_id
    }

    /// Which recipient of that mail.
    pub fn recipient_index(&self) -> u32 {
        self.recipient_index
    }
}

/// `<sec>.Q<id>R<recipient index>.<host>,S=<size>`
pub(crate) fn final_name(received_sec: u64, id: &DeliveryId, host: &str, size: u64) -> String {
    format!(
        "{received_sec}.Q{}R{}.{host},S={size}",
        id.queue_id, id.recipient_index
    )
}

/// Like the final name, but unlike that of any other attempt.
pub(crate) fn tmp_name(received_sec: u64, id: &DeliveryId, host: &str, attempt: u64) -> String {
    let process = std::process::id();
    let DeliveryId {
        queue_id,
        recipient_index,
    } = id;
    format!("{received_sec}.Q{queue_id}R{recipient_index}P{process}N{attempt}.{host}")
}

/// Whether a name in tmp/ has the form of [`tmp_name`]; other programs' files are theirs to clean.
pub(crate) fn is_our_tmp_name(name: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let mut parts = name.splitn(3, '.');
    let (Some(seconds), Some(unique), Some(_host)) = (parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let Some((id, rest)) = unique
        .strip_prefix('Q')
        .and_then(|unique| unique.split_once('R'))
    else {
        return false;
    };
    let Some((index, (process, attempt))) = rest
        .split_once('P')
        .and_then(|(index, rest)| Some((index, rest.split_once('N')?)))
    else {
        return false;
    };
    !id.is_empty() && [seconds, index, process, attempt].into_iter().all(digits)
}

/// The host part of file names, as the Maildir convention escapes it: `/` is `\057`, `:` is `\072`.
/// Cut to 100 octets, so that a file name stays below 255 with what readers append.
pub(crate) fn escape_host(host: &str) -> String {
    let mut out = String::new();
    for character in host.chars() {
        let piece = match character {
            '/' => r"\057".to_owned(),
            ':' => r"\072".to_owned(),
            ',' => r"\054".to_owned(),
            c if c.is_control() || c.is_whitespace() => "_".to_owned(),
            c => c.to_string(),
        };
        if out.len() + piece.len() > 100 {
            break;
        }
        out.push_str(&piece);
    }
    if out.is_empty() {
        "localhost".to_owned()
    } else {
        out
    }
}

fn relative(domain: &str, local_part: &str) -> Result<String, MaildirError> {
    Ok(format!(
        "{}/{}/Maildir",
        domain_folder(domain)?,
        local_folder(local_part)?
    ))
}

/// RFC 5890 §2.3.1: letters, digits, hyphens; the underscore is tolerated, as the DNS does.
fn domain_folder(domain: &str) -> Result<String, MaildirError> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(legal);
    if domain.len() > 253 || !domain.split('.').all(label) {
        return Err(MaildirError::invalid(format!(
            "{domain:?} is not a domain in A-label form"
        )));
    }
    Ok(domain.to_ascii_lowercase())
}

fn local_folder(local_part: &str) -> Result<String, MaildirError> {
    let folded = fold(local_part);
    let encoded = utf8_percent_encode(&folded, ENCODED).to_string();
    let name = match encoded.strip_prefix('.') {
        Some(rest) => format!("%2E{rest}"),
        None => encoded,
    };
    if name.is_empty() {
        return Err(MaildirError::invalid("the local part is empty"));
    }
    if name.len() > NAME_MAX {
        return Err(MaildirError::invalid(
            "the local part is too long for a folder name",
        ));
    }
    Ok(name)
}

/// Lower case and NFC, as the directory looks accounts up (`LocalPart::folded`): coarser here would let two
/// accounts share a mailbox. Repeated until nothing changes, since lower-casing can undo NFC.
fn fold(text: &str) -> String {
    let mut folded: String = text.nfc().collect();
    for _ in 0..4 {
        let next: String = folded.to_lowercase().nfc().collect();
        if next == folded {
            break;
        }
        folded = next;
    }
    folded
}

#[cfg(test)]
mod tests {
    use super::*;
    use percent_encoding::percent_decode_str;
    use proptest::prelude::*;
    use std::path::Component;

    fn name(local_part: &str) -> String {
        let path = maildir_path(Path::new("/m"), "Example.ORG", local_part).unwrap();
        let inner = path
            .strip_prefix("/m/example.org")
            .unwrap()
            .to_str()
            .unwrap();
        inner.strip_suffix("/Maildir").unwrap().to_owned()
    }

    #[test]
    fn the_plain_and_the_awkward() {
        assert_eq!(name("Alice.B+x_y-z"), "alice.b+x_y-z");
        assert_eq!(name(".."), "%2E.");
        assert_eq!(name("."), "%2E");
        assert_eq!(name("a/b"), "a%2Fb");
        assert_eq!(name("\0"), "%00");
        assert_eq!(name("%2e"), "%252e");
        assert_eq!(name("JOSÉ"), name("jose\u{301}"));
        assert_eq!(name("ΟΔΟΣ"), name("οδος"));
        assert_eq!(name(&"é".repeat(32)).len(), 192);
        let worst = maildir_path(Path::new("/m"), "a.b", &"\u{1d160}".repeat(16));
        assert!(matches!(worst, Err(MaildirError::InvalidTarget { .. })));
        assert!(maildir_path(Path::new("/m"), "a.b", "").is_err());
    }

    #[test]
    fn domains_that_are_none() {
        let long = "a".repeat(64);
        for domain in [
            "",
            ".",
            "..",
            "a..b",
            ".a",
            "a/b",
            "a.",
            "[127.0.0.1]",
            "ü.de",
            "a\0",
            &long,
        ] {
            assert!(
                maildir_path(Path::new("/m"), domain, "a").is_err(),
                "{domain:?}"
            );
        }
    }

    #[test]
    fn file_names_fit() {
        let host = escape_host(&"a/:b".repeat(80));
        assert!(host.starts_with(r"a\057\072b") && host.len() <= 100);
        assert_eq!(escape_host(""), "localhost");
        let id = DeliveryId::new(&"z".repeat(64), u32::MAX).unwrap();
        let tmp = tmp_name(u64::MAX, &id, &host, u64::MAX);
        assert!(tmp.len() <= NAME_MAX && is_our_tmp_name(&tmp), "{tmp}");
        assert!(final_name(u64::MAX, &id, &host, u64::MAX).len() <= NAME_MAX);
        for theirs in [
            "1700000000.M1P2.host",
            "x",
            "1.Q.h",
            "17.Q1R2.h",
            "17.QR0P1N1.h",
        ] {
            assert!(!is_our_tmp_name(theirs), "{theirs}");
        }
        for bad in ["", "A", "a/b", "a.b", &"a".repeat(65)] {
            assert!(DeliveryId::new(bad, 0).is_err(), "{bad:?}");
        }
    }

    fn awkward() -> impl Strategy<Value = String> {
        prop_oneof![
            any::<String>(),
            "[./%a-zA-Z\\x00 ]{0,8}",
            "\\PC{0,64}",
            "[\\.İıςΣßÅÅéÉ\u{301}\u{307}]{0,6}",
        ]
    }

    proptest! {
        #[test]
        fn never_escapes_and_is_bounded(domain in awkward(), local in awkward()) {
            for domain in [domain.as_str(), "example.org"] {
                let Ok(path) = maildir_path(Path::new("/mail"), domain, &local) else { continue };
                let parts: Vec<_> = path.components().collect();
                prop_assert_eq!(parts.len(), 5);
                prop_assert!(path.starts_with("/mail") && path.ends_with("Maildir"));
                for part in parts.iter().skip(1) {
                    let Component::Normal(name) = part else { panic!("{path:?}") };
                    prop_assert!(name.len() <= NAME_MAX && !name.as_encoded_bytes().starts_with(b"."));
                    prop_assert!(name.as_encoded_bytes().iter().all(|b| (0x21..0x7f).contains(b)));
                }
            }
        }

        // The name decodes to the folded text, so different folded texts have different names.
        #[test]
        fn injective_up_to_folding(local in awkward()) {
            if let Ok(name) = local_folder(&local) {
                let decoded = percent_decode_str(&name).decode_utf8().unwrap().into_owned();
                prop_assert_eq!(&decoded, &fold(&local));
                prop_assert_eq!(fold(&decoded), decoded);
            }
        }
    }
}
