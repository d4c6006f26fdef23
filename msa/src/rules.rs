//! The rules of submission for an account that is known, however it proved itself (RFC 6409 §6 and §8).

use std::time::{Duration, SystemTime};

use postroad_accounts::Accounts;
use postroad_address::{Domain, ReversePath};
use postroad_directory::{Resolution, SenderVerdict};
use postroad_envelope::Timestamp;
use postroad_message::HeaderBlock;
use postroad_reply::{MAILBOX_UNAVAILABLE_550, NOT_AUTHORIZED_5_7_1, Reply};
use postroad_smtp_session::RcptRequest;
use postroad_smtpd::{HeaderTerms, MailTerms, RecipientDraft, TransactionFacts};

use crate::complete::complete;
use crate::identity::{self, FromRule};

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

/// How a way in treats headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeaderRules {
    /// Of whom a mail may say that it is from.
    pub from: FromRule,
    /// Fields that tell of the client go.
    pub hide_client: bool,
    /// How long a mail rests before it is tried, so that it can be taken back.
    pub undo: Duration,
}

/// Whether the mail is truly from whom it says, and what it still lacks.
///
/// # Errors
///
/// The reply; see [`identity::check`].
pub async fn header(
    accounts: &Accounts,
    sender: &identity::Sender<'_>,
    header: &HeaderBlock,
    host: &Domain,
    rules: HeaderRules,
) -> Result<HeaderTerms, Reply> {
    let lacking = identity::check(accounts, sender, header, rules.from).await?;
    let now = Timestamp::from(SystemTime::now());
    let completed = complete(header, now, rand::random(), host, rules.hide_client);
    let mut terms = HeaderTerms {
        edits: completed.edits,
        not_before: (!rules.undo.is_zero()).then(|| now.plus(rules.undo)),
        ..HeaderTerms::default()
    };
    terms.edits.extend(lacking);
    if let Some(id) = completed.message_id {
        let id = id.as_str().to_owned();
        terms.facts.insert("message_id".to_owned(), id);
    }
    Ok(terms)
}

fn not_allowed(text: &str) -> Reply {
    Reply::new(MAILBOX_UNAVAILABLE_550, NOT_AUTHORIZED_5_7_1, text)
}
