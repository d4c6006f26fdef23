//! Who may send what to whom.
//!
//! | recipient | answer |
//! |---|---|
//! | an account or alias of ours, `<postmaster>` | taken; aliases expand |
//! | unknown in a domain of ours | 550 5.1.1 |
//! | disabled | 550 5.2.1 |
//! | an alias that leads in a circle or to too many | 451 4.3.5, and an ERROR for the operator |
//! | any other domain | 550 5.7.1, but for clients in `relay_networks` taken |
//! | one that cannot be looked up now | 451 4.3.0 |

use async_trait::async_trait;
use postroad_accounts::Accounts;
use postroad_address::Mailbox;
use postroad_directory::Resolution;
use postroad_message::HeaderBlock;
use postroad_net::Networks;
use postroad_reply::{
    INVALID_COMMAND_5_5_1, MAILBOX_UNAVAILABLE_550, NOT_AUTHORIZED_5_7_1, NOT_IMPLEMENTED_502,
    Reply,
};
use postroad_sasl::Credentials;
use postroad_smtp_session::{MailRequest, PolicyReply, RcptRequest};
use postroad_smtpd::{
    AuthDecision, ClientFacts, HeaderTerms, MailTerms, Policy, RecipientDraft, TransactionFacts,
};

use crate::config::InboundConfig;

/// The decisions of port 25.
#[derive(Clone)]
pub struct InboundPolicy {
    accounts: Accounts,
    relay_networks: Networks,
}

impl InboundPolicy {
    /// Decides by these accounts.
    pub fn new(config: &InboundConfig, accounts: Accounts) -> Self {
        Self {
            accounts,
            relay_networks: config.relay_networks.clone(),
        }
    }

    /// The same under another configuration.
    pub fn successor(&self, config: &InboundConfig) -> Self {
        Self::new(config, self.accounts.clone())
    }

    fn foreign(&self, client: &ClientFacts, mailbox: &Mailbox) -> Result<RecipientDraft, Reply> {
        if self.relay_networks.contains(client.peer.ip()) {
            return Ok(RecipientDraft::new(mailbox.clone()));
        }
        Err(Reply::new(
            MAILBOX_UNAVAILABLE_550,
            NOT_AUTHORIZED_5_7_1,
            "relaying denied, that domain is not ours",
        ))
    }
}

#[async_trait]
impl Policy for InboundPolicy {
    async fn connect(&self, _client: &ClientFacts) -> PolicyReply {
        PolicyReply::Accept
    }

    /// AUTH is not offered here, so this is never asked.
    async fn auth(&self, _client: &ClientFacts, _credentials: &Credentials) -> AuthDecision {
        let text = "AUTH is not offered";
        AuthDecision::Refuse(Reply::new(NOT_IMPLEMENTED_502, INVALID_COMMAND_5_5_1, text))
    }

    async fn mail(&self, _client: &ClientFacts, _mail: &MailRequest) -> Result<MailTerms, Reply> {
        Ok(MailTerms::default())
    }

    async fn rcpt(
        &self,
        client: &ClientFacts,
        transaction: &TransactionFacts,
        rcpt: &RcptRequest,
    ) -> Result<Vec<RecipientDraft>, Reply> {
        let path = &rcpt.forward_path;
        let resolved = self.accounts.resolve(path).await?;
        match (path.mailbox(), &resolved.resolution) {
            (Some(mailbox), Resolution::ForeignDomain) => {
                self.foreign(client, mailbox).map(|draft| vec![draft])
            }
            _ => RecipientDraft::local(resolved, transaction, path),
        }
    }

    async fn header(
        &self,
        _client: &ClientFacts,
        _transaction: &TransactionFacts,
        _header: &HeaderBlock,
    ) -> Result<HeaderTerms, Reply> {
        Ok(HeaderTerms::default())
    }
}
