//! Whether a mail says truly who it is from (RFC 6409 §6.1, carried over to the header): every mailbox of From and Sender is the
//! account's, or one that it may send as.

use postroad_accounts::Accounts;
use postroad_address::{Domain, Mailbox, ReversePath};
use postroad_directory::SenderVerdict;
use postroad_envelope::{EditPlace, HeaderEdit};
use postroad_message::{HeaderBlock, unstructured_field};
use postroad_reply::{
    BAD_CONTENT_5_6_0, MAILBOX_UNAVAILABLE_550, NOT_AUTHORIZED_5_7_1, Reply, TRANSACTION_FAILED_554,
};
use serde::{Deserialize, Serialize};

use crate::authors::mailboxes;

/// Of whom a mail may say that it is from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FromRule {
    /// The account, and those it may send as.
    #[default]
    Account,
    /// Anybody: only the sender of the envelope is looked at.
    Any,
}

/// Fields that name who wrote a mail, sent it, or sent it again. Of the last there is a pair for each time; the topmost is of this one.
const FIELDS: [&str; 4] = ["From", "Sender", "Resent-From", "Resent-Sender"];

/// Who sends.
pub struct Sender<'a> {
    /// The account.
    pub account: &'a str,
    /// MAIL.
    pub reverse_path: &'a ReversePath,
    /// Whose a word without a domain is; none: no address.
    pub domain: Option<&'a Domain>,
    /// The From field for a mail without one, if not just the sender.
    pub from_field: Option<Vec<u8>>,
    /// Mailboxes that are its own by another word than the directory's.
    pub own: &'a [Mailbox],
}

impl Sender<'_> {
    /// The mailbox that stands for it where the mail names nobody: allowed already.
    pub fn mailbox(&self) -> Option<Mailbox> {
        let sender = self.reverse_path.mailbox().cloned();
        sender.or_else(|| Mailbox::parse(self.account).ok())
    }

    fn owns(&self, mailbox: &Mailbox) -> bool {
        self.own.iter().any(|own| own.folded() == mailbox.folded())
    }
}

/// What the mail lacks of it: From, or Sender where several wrote it (RFC 5322 §3.6.2, RFC 6409 §8.1).
///
/// # Errors
///
/// The reply: 550 5.7.1 with the address that is not allowed, 554 5.6.0 for what cannot be read, or 451 while it cannot be told.
pub async fn check(
    accounts: &Accounts,
    sender: &Sender<'_>,
    header: &HeaderBlock,
    rule: FromRule,
) -> Result<Vec<HeaderEdit>, Reply> {
    for name in ["From", "Sender"] {
        let count = header.count(name);
        if count > 1 {
            let text =
                format!("the mail has {count} {name} fields, and may have one (RFC 5322, 3.6)");
            return Err(unreadable(text));
        }
    }
    let mut authors = 0;
    if rule == FromRule::Account {
        for name in FIELDS {
            let Some(field) = header.fields(name).next() else {
                continue;
            };
            let named = mailboxes(field.raw(), sender.domain)
                .map_err(|why| unreadable(format!("{name} {why}")))?;
            for mailbox in named.iter().filter(|mailbox| !sender.owns(mailbox)) {
                allowed(accounts, sender.account, name, mailbox).await?;
            }
            if name == "From" {
                authors = named.len();
            }
        }
    }
    Ok(lacking(sender, header, authors))
}

async fn allowed(
    accounts: &Accounts,
    account: &str,
    field: &str,
    mailbox: &Mailbox,
) -> Result<(), Reply> {
    let path = ReversePath::Mailbox(mailbox.clone());
    match accounts.check_sender(account, &path).await? {
        SenderVerdict::Allowed { .. } => Ok(()),
        SenderVerdict::NotAllowed { account } => {
            let text =
                format!("{account} may not send as {mailbox}, which is in the field {field}");
            Err(Reply::new(
                MAILBOX_UNAVAILABLE_550,
                NOT_AUTHORIZED_5_7_1,
                text,
            ))
        }
        SenderVerdict::NoAccount => {
            let text = "this account may not send mail any more";
            Err(Reply::new(
                MAILBOX_UNAVAILABLE_550,
                NOT_AUTHORIZED_5_7_1,
                text,
            ))
        }
    }
}

fn lacking(sender: &Sender<'_>, header: &HeaderBlock, authors: usize) -> Vec<HeaderEdit> {
    let name = match header.has("From") {
        false => "From",
        true if authors > 1 && !header.has("Sender") => "Sender",
        true => return Vec::new(),
    };
    let plain = |mailbox: Mailbox| unstructured_field(name, &mailbox.to_string(), true);
    let field = match (&sender.from_field, name) {
        (Some(field), "From") => Some(field.clone()),
        _ => sender.mailbox().map(plain),
    };
    let add = |field| HeaderEdit::Add {
        place: EditPlace::Bottom,
        field,
    };
    field.map(add).into_iter().collect()
}

fn unreadable(text: String) -> Reply {
    Reply::new(TRANSACTION_FAILED_554, BAD_CONTENT_5_6_0, text)
}
