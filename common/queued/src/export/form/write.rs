//! What the queue knows of a mail, as it stands in a line.

use postroad_envelope::{
    BodyKind, EditPlace, Envelope, HeaderEdit, Notify, Origin, Recipient, Ret, StatusReport,
    TlsFacts,
};

use super::{
    FAILURE_AND_DELAY, Mail, MailContent, MailDeliverBy, MailEdit, MailField, MailOrcpt,
    MailOrigin, MailOutcome, MailOverride, MailRecipient, MailRemote, MailReply, MailRoute,
    MailTls, SAID, SCHEMA,
};

impl Mail {
    /// What the queue knows; where each recipient stands comes from elsewhere.
    pub(in crate::export) fn new(
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
}

impl MailRecipient {
    /// Whoever knows where it stands fills in the rest.
    pub(in crate::export) fn new(recipient: &Recipient) -> Self {
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
}

fn text(value: Option<impl ToString>) -> Option<String> {
    value.map(|value| value.to_string())
}

pub(super) fn notify_of(notify: Notify) -> Vec<String> {
    if notify == Notify::Never {
        return vec!["never".to_owned()];
    }
    let words = [
        (notify.wants_success(), "success"),
        (notify.wants_failure(), "failure"),
        (notify.wants_delay(), "delay"),
        (notify == FAILURE_AND_DELAY, SAID),
    ];
    words
        .into_iter()
        .filter(|(on, _)| *on)
        .map(|(_, word)| word.to_owned())
        .collect()
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

fn tls_of(tls: &TlsFacts) -> MailTls {
    MailTls {
        version: tls.version.clone(),
        cipher: tls.cipher.clone(),
        verified: tls.verified.clone(),
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
        peer: text(origin.peer),
    }
}

/// The action is that of an [`Outcome`].
pub(in crate::export) fn outcome_of(action: &str, report: &StatusReport) -> MailOutcome {
    MailOutcome {
        action: action.to_owned(),
        status: report.status.to_string(),
        text: report.text.clone(),
        remote: report.remote.as_ref().map(|remote| MailRemote {
            name: remote.name.clone(),
            address: text(remote.address),
            tls: remote.tls.as_ref().map(tls_of),
            tls_policy: remote.tls_policy.clone(),
        }),
        reply: report.reply.as_ref().map(|reply| MailReply {
            code: reply.code().value(),
            enhanced: text(reply.enhanced()),
            text: reply.text().to_owned(),
        }),
        stage: text(report.stage),
        cause: text(report.cause),
    }
}
