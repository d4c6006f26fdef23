//! A line as a queue is told of it that takes the mail in.

use postroad_address::ReversePath;
use postroad_envelope::{
    BodyKind, DeliverBy, EditPlace, Envelope, HeaderEdit, Notify, Origin, OriginalRecipient,
    Outcome, Protocol, Recipient, RecipientIndex, RemoteHost, Ret, StatusReport, Timestamp,
    TlsFacts,
};
use postroad_queue_client::{ImportedMail, ImportedRecipient};
use postroad_reply::{Reply, ReplyCode};

use super::{
    FAILURE_AND_DELAY, Mail, MailEdit, MailField, MailOrigin, MailOutcome, MailRecipient,
    MailReply, MailTls, SAID, SCHEMA, Unfit,
};

impl Mail {
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

pub(super) fn notify_from(words: &[String]) -> Result<Notify, Unfit> {
    let has = |word: &str| words.iter().any(|one| one == word);
    let known = ["never", "success", "failure", "delay", SAID];
    if let Some(other) = words.iter().find(|word| !known.contains(&word.as_str())) {
        return Err(unfit("notify")(other));
    }
    let notify = Notify::On {
        success: has("success"),
        failure: has("failure"),
        delay: has("delay"),
    };
    Ok(match notify {
        _ if has("never") => Notify::Never,
        FAILURE_AND_DELAY if !has(SAID) => Notify::Unsaid,
        _ => notify,
    })
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

fn tls_from(tls: &MailTls) -> TlsFacts {
    TlsFacts {
        version: tls.version.clone(),
        cipher: tls.cipher.clone(),
        verified: tls.verified.clone(),
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
        peer: perhaps("origin", origin.peer.as_deref())?,
    })
}

fn outcome_from(outcome: &MailOutcome) -> Result<Outcome, Unfit> {
    let remote = outcome.remote.as_ref().map(|remote| {
        Ok(RemoteHost {
            name: remote.name.clone(),
            address: perhaps("remote", remote.address.as_deref())?,
            tls: remote.tls.as_ref().map(tls_from),
            tls_policy: remote.tls_policy.clone(),
        })
    });
    let report = StatusReport {
        status: parse("status", &outcome.status)?,
        text: outcome.text.clone(),
        remote: remote.transpose()?,
        reply: outcome.reply.as_ref().map(reply_from).transpose()?,
        stage: outcome
            .stage
            .as_deref()
            .and_then(|stage| stage.parse().ok()),
        cause: outcome
            .cause
            .as_deref()
            .and_then(|cause| cause.parse().ok()),
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
