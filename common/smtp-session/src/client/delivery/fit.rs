//! What a host must offer for a mail, and what the mail can do without.

use postroad_address::{Domain, ForwardPath, Mailbox, ReversePath};
use postroad_envelope::BodyKind;
use postroad_reply::{
    CONVERSION_NEEDED_5_6_3, EnhancedStatusCode, NEEDS_SMTPUTF8_5_6_7, REQUIRETLS_NEEDED_5_7_30,
    TOO_LARGE_5_3_4,
};
use postroad_smtp::{Command, Extension, MailParams};

use super::{Delivery, RecipientResult};
use crate::client::ClientSession;

impl ClientSession {
    /// MAIL with what the host offers, or what the host lacks.
    pub(super) fn fitted(
        &self,
        delivery: &mut Delivery,
    ) -> Result<Command, (EnhancedStatusCode, &'static str)> {
        let mail = &mut delivery.mail;
        let offers = |extension: &Extension| self.capabilities.offers(extension);
        let eight_bit = match mail.body {
            BodyKind::SevenBit => true,
            BodyKind::EightBitMime => offers(&Extension::EightBitMime),
            // RFC 3030 §3 goes with BDAT alone.
            BodyKind::BinaryMime => offers(&Extension::BinaryMime) && self.can_chunk(),
        };
        if !eight_bit {
            let lacks = match mail.body {
                BodyKind::BinaryMime => "the host does not take binary content (BINARYMIME)",
                _ => "the host does not take 8-bit content",
            };
            return Err((CONVERSION_NEEDED_5_6_3, lacks));
        }
        let utf8 = offers(&Extension::SmtpUtf8);
        if mail.smtputf8 && mail.utf8_header && !utf8 {
            return Err((NEEDS_SMTPUTF8_5_6_7, "the host does not support SMTPUTF8"));
        }
        let limit = self.capabilities.size();
        if limit.flatten().is_some_and(|limit| mail.size > limit) {
            return Err((TOO_LARGE_5_3_4, "the mail is larger than the host takes"));
        }
        if mail.requiretls && !(self.tls && offers(&Extension::RequireTls)) {
            return Err((
                REQUIRETLS_NEEDED_5_7_30,
                "the host does not support REQUIRETLS",
            ));
        }
        let timing = self.timing(mail.deliver_by)?;
        delivery.timing = timing;
        if !utf8 {
            delivery.downgrade()?;
        }
        let mail = &delivery.mail;
        let dsn = offers(&Extension::Dsn);
        Ok(Command::Mail {
            reverse_path: mail.reverse_path.clone(),
            params: MailParams {
                size: limit.map(|_| mail.size),
                body: Some(mail.body).filter(|body| *body != BodyKind::SevenBit),
                smtputf8: mail.smtputf8 && utf8,
                requiretls: mail.requiretls,
                ret: mail.ret.filter(|_| dsn),
                envid: mail.envid.clone().filter(|_| dsn),
                priority: Some(mail.priority)
                    .filter(|priority| *priority != 0 && self.capabilities.takes_priority()),
                deliver_by: timing.said,
                auth: mail
                    .auth
                    .clone()
                    .filter(|auth| self.authenticated && (utf8 || auth.is_ascii())),
                ..MailParams::default()
            },
        })
    }
}

impl Delivery {
    /// Domains become A-labels for a host without SMTPUTF8; local parts cannot (RFC 6531 §3.2).
    fn downgrade(&mut self) -> Result<(), (EnhancedStatusCode, &'static str)> {
        let lack = (
            NEEDS_SMTPUTF8_5_6_7,
            "the address needs SMTPUTF8, which the host lacks",
        );
        if let ReversePath::Mailbox(mailbox) = &mut self.mail.reverse_path {
            *mailbox = ascii(mailbox).ok_or(lack)?;
        }
        for (recipient, result) in self.mail.recipients.iter_mut().zip(&mut self.results) {
            if let ForwardPath::Mailbox(mailbox) = &mut recipient.forward_path {
                match ascii(mailbox) {
                    Some(ascii) => *mailbox = ascii,
                    None => {
                        let (status, text) = lack;
                        *result = Some(RecipientResult::Unfit { status, text });
                    }
                }
            }
        }
        // With nobody left there is nothing to ask the host.
        if self.results.iter().all(Option::is_some) {
            Err(lack)
        } else {
            Ok(())
        }
    }
}

fn ascii(mailbox: &Mailbox) -> Option<Mailbox> {
    let domain = Domain::parse(mailbox.domain().a_label()).ok()?;
    let local_part = mailbox.local_part();
    local_part
        .as_str()
        .is_ascii()
        .then(|| Mailbox::new(local_part.clone(), domain))
}
