use async_trait::async_trait;
use postroad_address::ForwardPath;
use postroad_directory::{Directory, DirectoryHandle, Resolution};
use postroad_message::HeaderBlock;
use postroad_net::Networks;
use postroad_reply::*;
use postroad_sasl::Credentials;
use postroad_smtp_session::{MailRequest, PolicyReply, RcptRequest};
use postroad_smtpd::{
    AuthDecision, ClientFacts, HeaderTerms, MailTerms, Policy, RecipientDraft, TransactionFacts,
};

/// Mail for our own mailboxes, from any sender.
pub struct Local {
    pub directory: DirectoryHandle,
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

    async fn auth(&self, _: &ClientFacts, _: &Credentials) -> AuthDecision {
        // AUTH is not offered.
        AuthDecision::Refuse(Reply::new(
            AUTH_INVALID_535,
            AUTH_INVALID_5_7_8,
            "nobody logs in here",
        ))
    }

    async fn mail(&self, _: &ClientFacts, _: &MailRequest) -> Result<MailTerms, Reply> {
        Ok(MailTerms::default())
    }

    async fn rcpt(
        &self,
        _: &ClientFacts,
        _: &TransactionFacts,
        rcpt: &RcptRequest,
    ) -> Result<Vec<RecipientDraft>, Reply> {
        recipients(&self.directory.current(), &rcpt.forward_path)
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

fn recipients(directory: &Directory, path: &ForwardPath) -> Result<Vec<RecipientDraft>, Reply> {
    let refuse = |enhanced, text: &str| Reply::new(MAILBOX_UNAVAILABLE_550, enhanced, text);
    match directory.resolve(path) {
        Resolution::Local(targets) => Ok(targets
            .into_iter()
            .map(|target| RecipientDraft {
                original: target.original,
                ..RecipientDraft::new(target.address)
            })
            .collect()),
        Resolution::UnknownRecipient => {
            Err(refuse(BAD_MAILBOX_5_1_1, "there is no such mailbox here"))
        }
        Resolution::ForeignDomain => Err(refuse(NOT_AUTHORIZED_5_7_1, "this domain is not ours")),
        Resolution::Disabled => Err(refuse(MAILBOX_DISABLED_5_2_1, "this mailbox takes no mail")),
        Resolution::AliasLoop | Resolution::TooManyTargets => Err(Reply::new(
            LOCAL_ERROR_451,
            MISCONFIGURED_4_3_5,
            "the aliases of this address cannot be followed, please try again later",
        )),
    }
}
