//! A mail as a line of JSON: what the queue knows of it, for people and for an import.

mod read;
mod write;

use std::collections::BTreeMap;

use postroad_envelope::Notify;
use serde::{Deserialize, Serialize};

pub(super) use self::write::outcome_of;
use super::mbox::Lines;

/// The version of the lines.
pub(super) const SCHEMA: u64 = 1;

/// Beside FAILURE and DELAY alone: the client gave them. Without it they mean that it gave no NOTIFY.
const SAID: &str = "said";
const FAILURE_AND_DELAY: Notify = Notify::On {
    success: false,
    failure: true,
    delay: true,
};

/// One line of `envelopes.jsonl`. Times are RFC 3339 in UTC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mail {
    pub(super) schema: u64,
    pub(super) queue_id: String,
    /// Empty: the null path.
    pub(super) mail_from: String,
    pub(super) received_at: String,
    pub(super) expires_at: Option<String>,
    pub(super) recipients: Vec<MailRecipient>,
    pub(super) content: MailContent,
    pub(super) tenant: String,
    pub(super) account: Option<String>,
    pub(super) tags: Vec<String>,
    pub(super) priority: i8,
    pub(super) facts: BTreeMap<String, String>,
    pub(super) verdicts: BTreeMap<String, String>,
    pub(super) listener: String,
    pub(super) origin: MailOrigin,
    pub(super) body: String,
    pub(super) smtputf8: bool,
    pub(super) requiretls: bool,
    pub(super) envid: Option<String>,
    pub(super) ret: Option<String>,
    pub(super) auth: Option<String>,
    pub(super) deliver_by: Option<MailDeliverBy>,
    pub(super) not_before: Option<String>,
    pub(super) hop_count: u32,
    pub(super) resent_of: Option<String>,
    pub(super) trace_context: Option<String>,
    /// Not applied to the content in the mbox.
    pub(super) header_edits: Vec<MailEdit>,
}

/// Where the content is, and what it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MailContent {
    /// Where it begins in the mbox.
    pub(super) offset: u64,
    /// Octets there.
    pub(super) length: u64,
    pub(super) lines: Lines,
    /// Octets as received.
    pub(super) size: u64,
    /// CRC32C of these.
    pub(super) crc32c: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MailRecipient {
    pub(super) index: u32,
    pub(super) rcpt_to: String,
    /// due, delayed, held, or what became of it; for people.
    pub(super) state: String,
    pub(super) attempts: u32,
    pub(super) next_attempt: Option<String>,
    pub(super) hold: Option<String>,
    pub(super) priority: i8,
    pub(super) route: MailRoute,
    pub(super) outcome: Option<MailOutcome>,
    /// An operator dropped it.
    pub(super) dropped: bool,
    /// The sender is owed a report on it.
    pub(super) owed: bool,
    pub(super) original: Option<String>,
    pub(super) notify: Vec<String>,
    pub(super) orcpt: Option<MailOrcpt>,
    pub(super) route_override: Option<MailOverride>,
    pub(super) target_folder: Option<String>,
}

/// For people: the queue that takes the mail in finds its own routes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MailRoute {
    pub(super) class: String,
    pub(super) destination: String,
    pub(super) next_hop: Option<String>,
    pub(super) rule: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MailOverride {
    pub(super) class: String,
    pub(super) next_hop: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MailOrcpt {
    pub(super) r#type: String,
    pub(super) address: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MailOutcome {
    pub(super) action: String,
    pub(super) status: String,
    pub(super) text: String,
    pub(super) remote: Option<MailRemote>,
    pub(super) reply: Option<MailReply>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) stage: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) cause: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MailRemote {
    pub(super) name: String,
    pub(super) address: Option<String>,
    pub(super) tls: Option<MailTls>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tls_policy: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MailReply {
    pub(super) code: u16,
    pub(super) enhanced: Option<String>,
    pub(super) text: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MailTls {
    pub(super) version: String,
    pub(super) cipher: String,
    /// Unknown to lines of earlier releases, as the peer of an origin is.
    #[serde(default)]
    pub(super) verified: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MailOrigin {
    pub(super) client: Option<String>,
    pub(super) rdns: Option<String>,
    pub(super) helo: Option<String>,
    pub(super) tls: Option<MailTls>,
    pub(super) account: Option<String>,
    pub(super) protocol: String,
    #[serde(default)]
    pub(super) peer: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MailDeliverBy {
    pub(super) at: String,
    pub(super) return_after: bool,
    pub(super) trace: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "edit", rename_all = "snake_case")]
pub(super) enum MailEdit {
    /// On top of all that is there.
    AddTop(MailField),
    AddBottom(MailField),
    Remove {
        name: String,
        occurrence: Option<u32>,
    },
}

/// A complete field with its CRLF.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum MailField {
    Field(String),
    /// Where it is no UTF-8.
    FieldHex(String),
}

/// A value that cannot be.
#[derive(Debug, thiserror::Error)]
#[error("{field}: {why}")]
pub struct Unfit {
    field: &'static str,
    why: String,
}

impl Mail {
    /// Its id, as it stands there.
    pub fn queue_id(&self) -> &str {
        &self.queue_id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_is_told_from_what_was_not() {
        for (notify, words) in [
            (Notify::Unsaid, "failure delay"),
            (FAILURE_AND_DELAY, "failure delay said"),
            (Notify::Never, "never"),
        ] {
            let written = write::notify_of(notify);
            assert_eq!(written.join(" "), words);
            assert_eq!(read::notify_from(&written).ok(), Some(notify));
        }
        assert!(read::notify_from(&["seldom".to_owned()]).is_err());
    }
}
