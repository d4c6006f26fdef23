use async_trait::async_trait;
use postroad_accounts::Accounts;
use postroad_message::HeaderBlock;
use postroad_net::Networks;
use postroad_reply::*;
use postroad_smtp_session::{MailRequest, PolicyReply, RcptRequest};
use postroad_smtpd::{
    ClientFacts, HeaderTerms, MailTerms, Policy, RecipientDraft, TransactionFacts,
};

/// Mail for our own mailboxes, from any sender.
pub struct Local {
    pub accounts: Accounts,
    /// Whom to serve; none: the socket's permissions have decided.
    pub allow: Option<Networks>,
}

#[async_trait]
impl Policy for Local {
    async fn connect(&self, client: &ClientFacts) -> PolicyReply {
        let allowed = |networks: &Networks| networks.contains(client.peer.ip());
        if self.allow.as_ref().is_none_or(allowed) {
            return PolicyReply::Accept;
        }
        PolicyReply::Close(Reply::new(
            TRANSACTION_FAILED_554,
            NOT_AUTHORIZED_5_7_1,
            "this host takes LMTP from its own mail systems only",
        ))
    }

    async fn mail(&self, _: &ClientFacts, _: &MailRequest) -> Result<MailTerms, Reply> {
        Ok(MailTerms::default())
    }

    async fn rcpt(
        &self,
        _: &ClientFacts,
        transaction: &TransactionFacts,
        rcpt: &RcptRequest,
    ) -> Result<Vec<RecipientDraft>, Reply> {
        let path = &rcpt.forward_path;
        let resolved = self.accounts.resolve(path).await?;
        RecipientDraft::local(resolved, transaction, path)
    }

    async fn header(
        &self,
        _: &ClientFacts,
        _: &TransactionFacts,
        _: &HeaderBlock,
    ) -> Result<HeaderTerms, Reply> {
        Ok(HeaderTerms::default())
    }
}
