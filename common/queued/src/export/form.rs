//! A mail as a line of JSON: what the queue knows of it, for people and for an import.

use std::collections::BTreeMap;

use postroad_address::ReversePath;
use postroad_envelope::{
    BodyKind, DeliverBy, EditPlace, Envelope, HeaderEdit, Notify, Origin, OriginalRecipient,
    Outcome, Protocol, Recipient, RecipientIndex, RemoteHost, Ret, StatusReport, Timestamp,
    TlsFacts,
};
use postroad_queue_client::{ImportedMail, ImportedRecipient};
use postroad_reply::{Reply, ReplyCode};
use serde::{Deserialize, Serialize};

use super::mbox::Lines;

/// The version of the lines.
pub(super) const SCHEMA: u64 = 1;

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
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MailRemote {
    pub(super) name: String,
    pub(super) address: Option<String>,
    pub(super) tls: Option<MailTls>,
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
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MailOrigin {
    pub(super) client: Option<String>,
    pub(super) rdns: Option<String>,
    pub(super) helo: Option<String>,
    pub(super) tls: Option<MailTls>,
    pub(super) account: Option<String>,
    pub(super) protocol: String,
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

fn unfit(field: &'static str) -> impl Fn(&dyn std::fmt::Display) -> Unfit {
    move |why| Unfit {
        field,
        why: why.to_string(),
    }
}

fn parse<T: std::str::FromStr>(field: &'static str, text: &str) -> Result<T, Unfit>
where
    T::Err: std::fmt::Display,
{
    text.parse()
        .map_err(|error: T::Err| unfit(field)(&format_args!("{text:?} {error}")))
}

fn perhaps<T: std::str::FromStr>(
    field: &'static str,
    text: Option<&str>,
) -> Result<Option<T>, Unfit>
where
    T::Err: std::fmt::Display,
{
    text.map(|text| parse(field, text)).transpose()
}

fn text(value: Option<impl ToString>) -> Option<String> {
    value.map(|value| value.to_string())
}

impl Mail {
    /// What the queue knows; where each recipient stands comes from elsewhere.
    pub(super) fn new(
        envelope: &Envelope,
        content: MailContent,
        recipients: Vec<MailRecipient>,
    ) -> Self {
        Self {
            schema: SCHEMA,
            queue_id: envelope.queue_id.to_string(),
            mail_from: envelope.reverse_path.to_string(),
            received_at: envelope.received_at.to_string(),
            expires_at: text(envelope.expires_at),
            recipients,
            content,
            tenant: envelope.tenant.clone(),
            account: envelope.account.clone(),
            tags: envelope.tags.clone(),
            priority: envelope.priority,
            facts: envelope.facts.clone(),
            verdicts: envelope.verdicts.clone(),
            listener: envelope.listener.clone(),
            origin: origin_of(&envelope.origin),
            body: match envelope.body {
                BodyKind::SevenBit => "7bit",
                BodyKind::EightBitMime => "8bitmime",
                BodyKind::BinaryMime => "binarymime",
            }
            .to_owned(),
            smtputf8: envelope.smtputf8,
            requiretls: envelope.requiretls,
            envid: envelope.envid.clone(),
            ret: envelope.ret.map(|ret| match ret {
                Ret::Full => "full".to_owned(),
                Ret::Headers => "hdrs".to_owned(),
            }),
            auth: envelope.auth.clone(),
            deliver_by: envelope.deliver_by.map(|by| MailDeliverBy {
                at: by.at.to_string(),
                return_after: by.return_after,
                trace: by.trace,
            }),
            not_before: text(envelope.not_before),
            hop_count: envelope.hop_count,
            resent_of: text(envelope.resent_of),
            trace_context: envelope.trace_context.clone(),
            header_edits: envelope.header_edits.iter().map(edit_of).collect(),
        }
    }

    /// Its id, as it stands there.
    pub fn queue_id(&self) -> &str {
        &self.queue_id
    }

    /// What a queue is told of it.
    pub fn imported(&self) -> Result<ImportedMail, Unfit> {
        if self.schema != SCHEMA {
            return Err(unfit("schema")(&format_args!(
                "{} is not known to this release, which reads {SCHEMA}",
                self.schema
            )));
        }
        let recipients = self.recipients.iter();
        Ok(ImportedMail {
            envelope: self.envelope()?,
            crc32c: self.content.crc32c,
            recipients: recipients
                .map(MailRecipient::standing)
                .collect::<Result<_, _>>()?,
            by: String::new(),
            dry_run: false,
        })
    }

    fn envelope(&self) -> Result<Envelope, Unfit> {
        let sender = ReversePath::parse(&self.mail_from);
        let sender = sender.map_err(|error| unfit("mail_from")(&error))?;
        let received_at = parse("received_at", &self.received_at)?;
        let deliver_by = self.deliver_by.as_ref().map(|by| {
            Ok(DeliverBy {
                at: parse("deliver_by", &by.at)?,
                return_after: by.return_after,
                trace: by.trace,
            })
        });
        let recipients = self.recipients.iter().map(MailRecipient::recipient);
        let edits = self.header_edits.iter().map(edit_from);
        Ok(Envelope {
            recipients: recipients.collect::<Result<_, _>>()?,
            tenant: self.tenant.clone(),
            account: self.account.clone(),
            tags: self.tags.clone(),
            facts: self.facts.clone(),
            listener: self.listener.clone(),
            priority: self.priority,
            not_before: perhaps("not_before", self.not_before.as_deref())?,
            expires_at: perhaps("expires_at", self.expires_at.as_deref())?,
            deliver_by: deliver_by.transpose()?,
            body: match self.body.as_str() {
                "7bit" => BodyKind::SevenBit,
                "8bitmime" => BodyKind::EightBitMime,
                "binarymime" => BodyKind::BinaryMime,
                other => return Err(unfit("body")(&other)),
            },
            smtputf8: self.smtputf8,
            requiretls: self.requiretls,
            envid: self.envid.clone(),
            ret: match self.ret.as_deref() {
                None => None,
                Some("full") => Some(Ret::Full),
                Some("hdrs") => Some(Ret::Headers),
                Some(other) => return Err(unfit("ret")(&other)),
            },
            auth: self.auth.clone(),
            size: self.content.size,
            verdicts: self.verdicts.clone(),
            trace_context: self.trace_context.clone(),
            hop_count: self.hop_count,
            resent_of: perhaps("resent_of", self.resent_of.as_deref())?,
            header_edits: edits.collect::<Result<_, _>>()?,
            origin: origin_from(&self.origin)?,
            ..Envelope::new(parse("queue_id", &self.queue_id)?, sender, received_at)
        })
    }
}

impl MailRecipient {
    /// Whoever knows where it stands fills in the rest.
    pub(super) fn new(recipient: &Recipient) -> Self {
        let route_override = recipient.route_override.as_ref();
        Self {
            index: recipient.index.0,
            rcpt_to: recipient.address.to_string(),
            state: String::new(),
            attempts: 0,
            next_attempt: None,
            hold: None,
            priority: 0,
            route: MailRoute::default(),
            outcome: None,
            dropped: false,
            owed: false,
            original: text(recipient.original.as_ref()),
            notify: notify_of(recipient.notify),
            orcpt: recipient.orcpt.as_ref().map(|orcpt| MailOrcpt {
                r#type: orcpt.address_type.clone(),
                address: orcpt.address.clone(),
            }),
            route_override: route_override.map(|(class, next_hop)| MailOverride {
                class: class.to_string(),
                next_hop: text(next_hop.as_ref()),
            }),
            target_folder: recipient.target_folder.clone(),
        }
    }

    fn recipient(&self) -> Result<Recipient, Unfit> {
        let route_override = self.route_override.as_ref().map(|over| {
            let class = parse("route_override", &over.class)?;
            let next_hop = perhaps("route_override", over.next_hop.as_deref())?;
            Ok((class, next_hop))
        });
        Ok(Recipient {
            original: perhaps("original", self.original.as_deref())?,
            notify: notify_from(&self.notify)?,
            orcpt: self.orcpt.as_ref().map(|orcpt| OriginalRecipient {
                address_type: orcpt.r#type.clone(),
                address: orcpt.address.clone(),
            }),
            route_override: route_override.transpose()?,
            target_folder: self.target_folder.clone(),
            ..Recipient::new(RecipientIndex(self.index), parse("rcpt_to", &self.rcpt_to)?)
        })
    }

    fn standing(&self) -> Result<ImportedRecipient, Unfit> {
        Ok(ImportedRecipient {
            index: RecipientIndex(self.index),
            outcome: self.outcome.as_ref().map(outcome_from).transpose()?,
            dropped: self.dropped,
            owed: self.owed,
            attempts: self.attempts,
            next_attempt: perhaps::<Timestamp>("next_attempt", self.next_attempt.as_deref())?,
            hold: self.hold.clone(),
            priority: Some(self.priority),
        })
    }
}

fn notify_of(notify: Notify) -> Vec<String> {
    let Notify::On {
        success,
        failure,
        delay,
    } = notify
    else {
        return vec!["never".to_owned()];
    };
    [(success, "success"), (failure, "failure"), (delay, "delay")]
        .into_iter()
        .filter(|(on, _)| *on)
        .map(|(_, word)| word.to_owned())
        .collect()
}

fn notify_from(words: &[String]) -> Result<Notify, Unfit> {
    let has = |word: &str| words.iter().any(|one| one == word);
    let known = ["never", "success", "failure", "delay"];
    if let Some(other) = words.iter().find(|word| !known.contains(&word.as_str())) {
        return Err(unfit("notify")(other));
    }
    Ok(match has("never") {
        true => Notify::Never,
        false => Notify::On {
            success: has("success"),
            failure: has("failure"),
            delay: has("delay"),
        },
    })
}

fn edit_of(edit: &HeaderEdit) -> MailEdit {
    match edit {
        HeaderEdit::Remove { name, occurrence } => MailEdit::Remove {
            name: name.clone(),
            occurrence: *occurrence,
        },
        HeaderEdit::Add { place, field } => {
            let field = match std::str::from_utf8(field) {
                Ok(field) => MailField::Field(field.to_owned()),
                Err(_) => MailField::FieldHex(field.iter().map(|b| format!("{b:02x}")).collect()),
            };
            match place {
                EditPlace::Top => MailEdit::AddTop(field),
                EditPlace::Bottom => MailEdit::AddBottom(field),
            }
        }
    }
}

fn edit_from(edit: &MailEdit) -> Result<HeaderEdit, Unfit> {
    let (place, field) = match edit {
        MailEdit::Remove { name, occurrence } => {
            return Ok(HeaderEdit::Remove {
                name: name.clone(),
                occurrence: *occurrence,
            });
        }
        MailEdit::AddTop(field) => (EditPlace::Top, field),
        MailEdit::AddBottom(field) => (EditPlace::Bottom, field),
    };
    let field = match field {
        MailField::Field(field) => field.clone().into_bytes(),
        MailField::FieldHex(hex) => octets(hex)?,
    };
    Ok(HeaderEdit::Add { place, field })
}

fn octets(hex: &str) -> Result<Vec<u8>, Unfit> {
    let digits: Option<Vec<u8>> = hex
        .chars()
        .map(|digit| u8::try_from(digit.to_digit(16)?).ok())
        .collect();
    let digits = digits.filter(|digits| digits.len().is_multiple_of(2));
    let digits = digits.ok_or_else(|| unfit("field_hex")(&"no octets in hex"))?;
    let pairs = digits.chunks_exact(2);
    Ok(pairs
        .map(|pair| pair.iter().fold(0, |octet, digit| octet << 4 | digit))
        .collect())
}

fn tls_of(tls: &TlsFacts) -> MailTls {
    MailTls {
        version: tls.version.clone(),
        cipher: tls.cipher.clone(),
    }
}

fn tls_from(tls: &MailTls) -> TlsFacts {
    TlsFacts {
        version: tls.version.clone(),
        cipher: tls.cipher.clone(),
    }
}

fn origin_of(origin: &Origin) -> MailOrigin {
    MailOrigin {
        client: text(origin.client),
        rdns: origin.rdns.clone(),
        helo: origin.helo.clone(),
        tls: origin.tls.as_ref().map(tls_of),
        account: origin.account.clone(),
        protocol: origin.protocol.to_string(),
    }
}

fn origin_from(origin: &MailOrigin) -> Result<Origin, Unfit> {
    let protocol = Protocol::all().find(|one| one.to_string() == origin.protocol);
    Ok(Origin {
        client: perhaps("origin", origin.client.as_deref())?,
        rdns: origin.rdns.clone(),
        helo: origin.helo.clone(),
        tls: origin.tls.as_ref().map(tls_from),
        account: origin.account.clone(),
        protocol: protocol.ok_or_else(|| unfit("protocol")(&origin.protocol))?,
    })
}

/// The action is that of an [`Outcome`].
pub(super) fn outcome_of(action: &str, report: &StatusReport) -> MailOutcome {
    MailOutcome {
        action: action.to_owned(),
        status: report.status.to_string(),
        text: report.text.clone(),
        remote: report.remote.as_ref().map(|remote| MailRemote {
            name: remote.name.clone(),
            address: text(remote.address),
            tls: remote.tls.as_ref().map(tls_of),
        }),
        reply: report.reply.as_ref().map(|reply| MailReply {
            code: reply.code().value(),
            enhanced: text(reply.enhanced()),
            text: reply.text().to_owned(),
        }),
    }
}

fn outcome_from(outcome: &MailOutcome) -> Result<Outcome, Unfit> {
    let remote = outcome.remote.as_ref().map(|remote| {
        Ok(RemoteHost {
            name: remote.name.clone(),
            address: perhaps("remote", remote.address.as_deref())?,
            tls: remote.tls.as_ref().map(tls_from),
        })
    });
    let report = StatusReport {
        status: parse("status", &outcome.status)?,
        text: outcome.text.clone(),
        remote: remote.transpose()?,
        reply: outcome.reply.as_ref().map(reply_from).transpose()?,
    };
    Ok(match outcome.action.as_str() {
        "delivered" => Outcome::Delivered(report),
        "relayed" => Outcome::Relayed(report),
        "delayed" => Outcome::Delayed(report),
        "failed" => Outcome::Failed(report),
        "expanded" => Outcome::Expanded(report),
        other => return Err(unfit("action")(&other)),
    })
}

fn reply_from(reply: &MailReply) -> Result<Reply, Unfit> {
    let code = ReplyCode::new(reply.code).map_err(|error| unfit("reply")(&error))?;
    Ok(match &reply.enhanced {
        Some(enhanced) => Reply::new(code, parse("reply", enhanced)?, reply.text.clone()),
        None => Reply::plain(code, reply.text.clone()),
    })
}
