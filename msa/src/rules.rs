//! The rules of submission for an account that is known, however it proved itself (RFC 6409 §6 and §8).

use std::time::SystemTime;

use postroad_accounts::Accounts;
use postroad_address::{Domain, ReversePath};
use postroad_directory::{Resolution, SenderVerdict};
use postroad_envelope::Timestamp;
use postroad_message::HeaderBlock;
use postroad_reply::{MAILBOX_UNAVAILABLE_550, NOT_AUTHORIZED_5_7_1, Reply};
use postroad_smtp_session::RcptRequest;
use postroad_smtpd::{HeaderTerms, MailTerms, RecipientDraft, TransactionFacts};

use crate::complete::complete;

/// Whether an account may send as `sender` now: the directory may have changed since it proved itself.
///
/// # Errors
///
/// The reply: 550 5.7.1, or 451 while it cannot be told.
pub async fn sender(
    accounts: &Accounts,
    account: &str,
    sender: &ReversePath,
) -> Result<MailTerms, Reply> {
    match accounts.check_sender(account, sender).await? {
        SenderVerdict::Allowed { tenant } => Ok(MailTerms {
            tenant,
            ..MailTerms::default()
        }),
        // RFC 6409 §6.1.
        SenderVerdict::NotAllowed { account } => {
            Err(not_allowed(&format!("{account} may not send as {sender}")))
        }
        SenderVerdict::NoAccount => Err(not_allowed("this account may not send mail any more")),
    }
}

/// Where mail to a recipient goes: ours are resolved, others go out.
///
/// # Errors
///
/// The reply.
pub async fn recipient(
    accounts: &Accounts,
    transaction: &TransactionFacts,
    rcpt: &RcptRequest,
) -> Result<Vec<RecipientDraft>, Reply> {
    let path = &rcpt.forward_path;
    let resolved = accounts.resolve(path).await?;
    match (path.mailbox(), &resolved.resolution) {
        (Some(mailbox), Resolution::ForeignDomain) => {
            Ok(vec![RecipientDraft::new(mailbox.clone())])
        }
        _ => RecipientDraft::local(resolved, transaction, path),
    }
}

/// What the mail still lacks.
pub fn header(header: &HeaderBlock, host: &Domain) -> HeaderTerms {
    let now = Timestamp::from(SystemTime::now());
    let completed = complete(header, now, rand::random(), host);
    let mut terms = HeaderTerms {
        edits: completed.edits,
        ..HeaderTerms::default()
    };
    if let Some(id) = completed.message_id {
        let id = id.as_str().to_owned();
        terms.facts.insert("message_id".to_owned(), id);
    }
    terms
}

fn not_allowed(text: &str) -> Reply {
    Reply::new(MAILBOX_UNAVAILABLE_550, NOT_AUTHORIZED_5_7_1, text)
}
