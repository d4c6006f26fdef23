//! The rules of submission for a user of this host whose account is known.

use std::sync::Arc;

use async_trait::async_trait;
use postroad_accounts::Accounts;
use postroad_address::{Domain, Mailbox};
use postroad_envelope::{EditPlace, HeaderEdit};
use postroad_message::HeaderBlock;
use postroad_metrics::Metrics;
use postroad_msa::rules;
use postroad_net::{Connection, Peer};
use postroad_queue_client::QueueService;
use postroad_reply::{INVALID_COMMAND_5_5_1, NOT_IMPLEMENTED_502, Reply};
use postroad_sasl::Credentials;
use postroad_smtp_session::{Flavour, MailRequest, PolicyReply, RcptRequest, ServerConfig};
use postroad_smtpd::{
    AuthDecision, ClientFacts, HeaderTerms, MailTerms, Policy, RecipientDraft, Smtpd, SmtpdConfig,
    TransactionFacts,
};
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;

use super::header::from_field;

/// The name of this way in, in logs and envelopes.
const LISTENER: &str = "sendmail";

/// What a conversation needs.
pub struct Local {
    /// Who asks.
    pub account: Mailbox,
    /// `-F`.
    pub full_name: Option<String>,
    /// Of this host.
    pub host: Domain,
    /// Octets of the largest mail.
    pub size_limit: u64,
    /// Whose senders and recipients.
    pub accounts: Accounts,
    /// Where mail goes.
    pub queue: Arc<dyn QueueService>,
}

impl Local {
    /// Serves one conversation at this end of a pair of sockets, as a submission agent would after a log-in.
    pub async fn serve(self, socket: UnixStream) {
        let mut session = ServerConfig::new(self.host.clone(), Flavour::Smtp);
        session.limits.size = self.size_limit;
        let config = SmtpdConfig {
            account: Some(self.account.to_string()),
            ..SmtpdConfig::new(LISTENER, session)
        };
        let queue = Arc::clone(&self.queue);
        let smtpd = Smtpd::new(
            config,
            Arc::new(self),
            queue,
            None,
            &Metrics::new("sendmail"),
        );
        let connection = Connection {
            stream: socket.into(),
            peer: Peer::local(),
            proxy: None,
            own: false,
            local: ([127, 0, 0, 1], 0).into(),
            shutdown: CancellationToken::new(),
        };
        smtpd.serve(connection, None).await;
        smtpd.drain().await;
    }
}

#[async_trait]
impl Policy for Local {
    async fn connect(&self, _: &ClientFacts) -> PolicyReply {
        PolicyReply::Accept
    }

    /// AUTH is not offered, so this is never asked.
    async fn auth(&self, _: &ClientFacts, _: &Credentials) -> AuthDecision {
        let text = "AUTH is not offered";
        AuthDecision::Refuse(Reply::new(NOT_IMPLEMENTED_502, INVALID_COMMAND_5_5_1, text))
    }

    async fn mail(&self, client: &ClientFacts, mail: &MailRequest) -> Result<MailTerms, Reply> {
        let account = client.account().unwrap_or_default();
        rules::sender(&self.accounts, account, &mail.reverse_path).await
    }

    async fn rcpt(
        &self,
        _: &ClientFacts,
        transaction: &TransactionFacts,
        rcpt: &RcptRequest,
    ) -> Result<Vec<RecipientDraft>, Reply> {
        rules::recipient(&self.accounts, transaction, rcpt).await
    }

    async fn header(
        &self,
        _: &ClientFacts,
        transaction: &TransactionFacts,
        header: &HeaderBlock,
    ) -> Result<HeaderTerms, Reply> {
        let mut terms = rules::header(header, &self.host);
        if !header.has("From") {
            let sender = transaction.mail.reverse_path.mailbox();
            terms.edits.push(HeaderEdit::Add {
                place: EditPlace::Bottom,
                field: from_field(sender.unwrap_or(&self.account), self.full_name.as_deref()),
            });
        }
        Ok(terms)
    }
}
