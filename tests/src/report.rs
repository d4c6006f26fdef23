//! A delivery status notification as a mail program sees it.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use mail_parser::{MessageParser, MessagePart, MimeHeaders as _};

/// The fields of a group, names in lower case.
pub type Fields = BTreeMap<String, String>;

/// RFC 3464: a multipart/report taken apart.
#[derive(Debug)]
pub struct Report {
    /// The address of the To field.
    pub to: String,
    /// What is written for people.
    pub text: String,
    /// The fields about the mail.
    pub mail: Fields,
    /// The fields about each recipient.
    pub recipients: Vec<Fields>,
    /// The type of the part that came back, e.g. `message/rfc822`.
    pub returned_type: String,
    /// The mail or its header, as it came back.
    pub returned: String,
}

impl Report {
    /// Parses what lay in a Maildir.
    pub fn parse(mail: &[u8]) -> Result<Self> {
        let message = MessageParser::default().parse(mail).context("not a mail")?;
        ensure!(
            is(message.root_part(), "multipart", "report"),
            "the mail is no multipart/report"
        );
        let kind = message
            .content_type()
            .and_then(|kind| kind.attribute("report-type"));
        ensure!(
            kind == Some("delivery-status"),
            "the report is of type {kind:?}"
        );
        ensure!(
            message.return_address() == Some("") || empty_return_path(mail),
            "the report has a sender"
        );
        let parts: Vec<&MessagePart<'_>> = message.parts.iter().skip(1).collect();
        let [text, status, returned, ..] = parts.as_slice() else {
            anyhow::bail!("a report has three parts, this one {}", parts.len())
        };
        ensure!(
            is(text, "text", "plain"),
            "the first part is not text/plain"
        );
        // RFC 6533 §3: the same where an address is not ASCII.
        ensure!(
            is(status, "message", "delivery-status")
                || is(status, "message", "global-delivery-status"),
            "the second part is no delivery-status"
        );
        let mut groups = groups(&lossy(raw(mail, status)));
        ensure!(groups.len() > 1, "no recipient is named");
        let to = message
            .to()
            .and_then(|to| to.first())
            .and_then(|to| to.address());
        Ok(Self {
            to: to.context("nobody is told")?.to_owned(),
            text: text.text_contents().unwrap_or_default().to_owned(),
            mail: groups.remove(0),
            recipients: groups,
            returned_type: kind_of(returned),
            returned: lossy(raw(mail, returned)),
        })
    }

    /// The group of the recipient with this address.
    pub fn about(&self, address: &str) -> Result<&Fields> {
        let wanted = format!("rfc822;{address}");
        let is_wanted = |fields: &&Fields| {
            fields
                .get("final-recipient")
                .map(|found| found.replace(' ', ""))
                == Some(wanted.clone())
        };
        self.recipients
            .iter()
            .find(is_wanted)
            .with_context(|| format!("nothing about {address}: {self:#?}"))
    }
}

fn empty_return_path(mail: &[u8]) -> bool {
    mail.starts_with(b"Return-Path: <>")
}

fn raw<'a>(mail: &'a [u8], part: &MessagePart<'_>) -> &'a [u8] {
    mail.get(part.raw_body_offset() as usize..part.raw_end_offset() as usize)
        .unwrap_or_default()
}

fn lossy(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}

fn is(part: &MessagePart<'_>, kind: &str, subtype: &str) -> bool {
    kind_of(part) == format!("{kind}/{subtype}")
}

fn kind_of(part: &MessagePart<'_>) -> String {
    let kind = part.content_type();
    kind.map(|kind| format!("{}/{}", kind.ctype(), kind.subtype().unwrap_or_default()))
        .unwrap_or_default()
}

/// RFC 3464 §2.1: groups of fields, parted by empty lines; a line that begins with white space goes on.
fn groups(text: &str) -> Vec<Fields> {
    let unfolded = text
        .replace("\r\n", "\n")
        .replace("\n ", " ")
        .replace("\n\t", " ");
    let mut groups: Vec<Fields> = Vec::new();
    for group in unfolded.split("\n\n") {
        let lines = group.lines().filter_map(|line| line.split_once(':'));
        let fields: Fields = lines
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        if !fields.is_empty() {
            groups.push(fields);
        }
    }
    groups
}
