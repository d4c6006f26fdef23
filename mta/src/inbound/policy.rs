//! Who may send what to whom.
//!
//! | recipient | answer |
//! |---|---|
//! | an account or alias of ours, `<postmaster>` | taken; aliases expand |
//! | unknown in a domain of ours | 550 5.1.1 |
//! | disabled | 550 5.2.1 |
//! | an alias that leads in a circle or to too many | 451 4.3.5, and an ERROR for the operator |
//! | any other domain | 550 5.7.1, but for clients in `relay_networks` taken, and for those a listener knows by their certificates |
//! | one that cannot be looked up now | 451 4.3.0 |
//!
//! On a listener for known clients there is more at MAIL: 530 5.7.0 without TLS or without a certificate, and 454 4.7.5 for one that
//! does not count. That one was to be known: while somebody mends it, its mail waits at its end and does not bounce.

use async_trait::async_trait;
use postroad_accounts::Accounts;
use postroad_address::Mailbox;
use postroad_directory::Resolution;
use postroad_message::HeaderBlock;
use postroad_net::{Networks, PeerCertificate};
use postroad_reply::{
    AUTH_REQUIRED_530, CRYPTOGRAPHY_4_7_5, INVALID_COMMAND_5_5_1, MAILBOX_UNAVAILABLE_550,
    NOT_AUTHORIZED_5_7_1, NOT_IMPLEMENTED_502, Reply, SECURITY_5_7_0, TEMPORARY_AUTH_FAILURE_454,
};
use postroad_sasl::Credentials;
use postroad_smtp_session::{MailRequest, PolicyReply, RcptRequest};
use postroad_smtpd::{
    AuthDecision, ClientFacts, HeaderTerms, MailTerms, Policy, RecipientDraft, TransactionFacts,
};

use crate::config::{InboundConfig, ListenerConfig};

/// The decisions of port 25.
#[derive(Clone)]
pub struct InboundPolicy {
    accounts: Accounts,
    relay_networks: Networks,
    /// The listener is for clients alone that prove who they are.
    known_clients: bool,
}

impl InboundPolicy {
    /// Decides by these accounts.
    pub fn new(config: &InboundConfig, accounts: Accounts) -> Self {
        Self {
            accounts,
            relay_networks: config.relay_networks.clone(),
            known_clients: false,
        }
    }

    /// The same at one listener.
    pub fn of(&self, listener: &ListenerConfig) -> Self {
        Self {
            known_clients: listener.is_for_known_clients(),
            ..self.clone()
        }
    }

    /// The same under another configuration.
    pub fn successor(&self, config: &InboundConfig) -> Self {
        Self::new(config, self.accounts.clone())
    }

    fn foreign(&self, client: &ClientFacts, mailbox: &Mailbox) -> Result<RecipientDraft, Reply> {
        let known = self.known_clients && client.verified().is_some();
        if known || self.relay_networks.contains(client.peer.ip()) {
            return Ok(RecipientDraft::new(mailbox.clone()));
        }
        Err(Reply::new(
            MAILBOX_UNAVAILABLE_550,
            NOT_AUTHORIZED_5_7_1,
            "relaying denied, that domain is not ours",
        ))
    }
}

/// Whether a client of a listener for known clients is one.
fn known(client: &ClientFacts) -> Result<(), Reply> {
    match &client.certificate {
        PeerCertificate::Verified => Ok(()),
        PeerCertificate::Absent => Err(Reply::new(
            AUTH_REQUIRED_530,
            SECURITY_5_7_0,
            "this listener is for servers that show a certificate known here, and you showed none",
        )),
        PeerCertificate::Unverified(reason) => Err(Reply::new(
            TEMPORARY_AUTH_FAILURE_454,
            CRYPTOGRAPHY_4_7_5,
            format!("the certificate you showed {reason}"),
        )),
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

    async fn mail(&self, client: &ClientFacts, _mail: &MailRequest) -> Result<MailTerms, Reply> {
        if self.known_clients {
            known(client)?;
        }
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
