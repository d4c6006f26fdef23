//! The rules of submission for a user of this host whose account is known.

use std::sync::Arc;

use async_trait::async_trait;
use postroad_accounts::{Accounts, Away};
use postroad_address::{Domain, ForwardPath, Mailbox};
use postroad_directory::Resolution;
use postroad_message::HeaderBlock;
use postroad_metrics::Metrics;
use postroad_msa::identity::Sender;
use postroad_msa::rules::{self, HeaderRules};
use postroad_net::{Connection, Peer, Place};
use postroad_queue_client::QueueService;
use postroad_reply::Reply;
use postroad_smtp_session::{Flavour, MailRequest, PolicyReply, RcptRequest, ServerConfig};
use postroad_smtpd::{
    ClientFacts, HeaderTerms, MailTerms, Policy, RecipientDraft, Smtpd, SmtpdConfig,
    TransactionFacts,
};
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;

use super::header::{from_field, qualified};

/// The name of this way in, in logs and envelopes.
const LISTENER: &str = "sendmail";

/// What a conversation needs.
pub struct Local {
    /// Who asks.
    pub account: Mailbox,
    /// The name by which this host knows who asks.
    pub user: String,
    /// `-F`.
    pub full_name: Option<String>,
    /// Of this host.
    pub host: Domain,
    /// Of addresses without one.
    pub domain: Domain,
    /// How headers are treated.
    pub rules: HeaderRules,
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
            place: Place::default(),
            local: ([127, 0, 0, 1], 0).into(),
            shutdown: CancellationToken::new(),
        };
        smtpd.serve(connection, None).await;
        smtpd.drain().await;
    }
}

impl Local {
    /// The addresses by which programs of this host name its user, as cron writes `From: root`: the user's name at the host and
    /// at the domain. The kernel says who calls, so they are the user's, but for those that are somebody's account.
    async fn own_names(&self) -> Result<Vec<Mailbox>, Away> {
        let mut own = Vec::new();
        for domain in [&self.host, &self.domain] {
            let Ok(name) = qualified(&self.user, domain) else {
                continue;
            };
            let path = ForwardPath::Mailbox(name.clone());
            let resolved = self.accounts.resolve(&path).await?;
            if !is_an_account(&resolved.resolution, &name) {
                own.push(name);
            }
        }
        Ok(own)
    }
}

fn is_an_account(resolution: &Resolution, name: &Mailbox) -> bool {
    match resolution {
        Resolution::Disabled => true,
        Resolution::Local(leads_to) => leads_to
            .iter()
            .any(|to| to.local && to.address.folded() == name.folded()),
        _ => false,
    }
}

#[async_trait]
impl Policy for Local {
    async fn connect(&self, _: &ClientFacts) -> PolicyReply {
        PolicyReply::Accept
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
        let reverse_path = &transaction.mail.reverse_path;
        let account = self.account.to_string();
        let own = self.own_names().await?;
        let author = reverse_path.mailbox().unwrap_or(&self.account);
        let sender = Sender {
            account: &account,
            reverse_path,
            domain: Some(&self.domain),
            from_field: Some(from_field(author, self.full_name.as_deref())),
            own: &own,
        };
        rules::header(&self.accounts, &sender, header, &self.host, self.rules).await
    }
}
