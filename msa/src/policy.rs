//! Who may send what to whom (RFC 6409 §6), and the completion of mails (§8).

use std::sync::Arc;

use async_trait::async_trait;
use postroad_accounts::{Accounts, Away};
use postroad_address::{Domain, Mailbox};
use postroad_daemon::CommonConfig;
use postroad_directory::{AuthGate, AuthVerdict};
use postroad_message::HeaderBlock;
use postroad_metrics::{Metrics, list};
use postroad_reply::*;
use postroad_sasl::Credentials;
use postroad_smtp_session::{MailRequest, PolicyReply, RcptRequest};
use postroad_smtpd::{
    AuthDecision, ClientFacts, HeaderTerms, MailTerms, Policy, RecipientDraft, TransactionFacts,
};

use crate::bans::Bans;
use crate::rules;
use crate::sending::Sending;
use crate::together::Together;
use crate::{AuthConfig, Config, Dependencies};

/// The policy of all listeners of one agent.
pub struct Submission {
    accounts: Accounts,
    gate: AuthGate,
    together: Arc<Together>,
    bans: Bans,
    sending: Sending,
    metrics: Metrics,
    host: Domain,
}

impl Submission {
    /// Decides by these accounts, and counts at this queue.
    pub fn new(config: &Config, common: &CommonConfig, dependencies: &Dependencies) -> Self {
        let Dependencies { queue, metrics, .. } = dependencies;
        let together = Arc::new(Together::new(
            Arc::clone(queue),
            config.counters_timeout.into(),
            metrics,
        ));
        let accounts = dependencies.accounts.clone();
        Self::with(
            config,
            (accounts, common.hostname.clone()),
            together,
            metrics,
        )
    }

    /// The same under another configuration; what is counted is not forgotten.
    pub fn successor(&self, config: &Config) -> Self {
        let whose = (self.accounts.clone(), self.host.clone());
        self.together.renew(config.counters_timeout.into());
        Self::with(config, whose, Arc::clone(&self.together), &self.metrics)
    }

    fn with(
        config: &Config,
        (accounts, host): (Accounts, Domain),
        together: Arc<Together>,
        metrics: &Metrics,
    ) -> Self {
        let banned = metrics.counter(&list::BANS_REFUSED, &[]);
        let over = metrics.counter(&list::SENDING_REFUSED, &[]);
        Self {
            accounts,
            gate: gate(&config.auth),
            bans: Bans::new(Arc::clone(&together), banned, config),
            sending: Sending::new(Arc::clone(&together), over, &config.sending),
            together,
            metrics: metrics.clone(),
            host,
        }
    }
}

fn gate(config: &AuthConfig) -> AuthGate {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let permits = match config.concurrency {
        0 => 2 * processors,
        permits => permits,
    };
    AuthGate::new(permits, config.patience.into())
}

#[async_trait]
impl Policy for Submission {
    async fn connect(&self, client: &ClientFacts) -> PolicyReply {
        match self.bans.refuse(client.peer.ip()).await {
            Some(reply) => PolicyReply::Close(reply),
            None => PolicyReply::Accept,
        }
    }

    async fn auth(&self, client: &ClientFacts, credentials: &Credentials) -> AuthDecision {
        // Others of its network may have failed since it connected.
        if let Some(reply) = self.bans.refuse_known(client.peer.ip()) {
            return AuthDecision::Close(reply);
        }
        let (name, mechanism) = (&credentials.authcid, credentials.mechanism.as_str());
        let password = credentials.password.reveal().as_bytes();
        let checked = self.accounts.log_in(&self.gate, name, mechanism, password);
        match checked.await {
            Ok(AuthVerdict::Accepted(account)) if acts_as_itself(&account, credentials) => {
                AuthDecision::Accept { account }
            }
            Ok(AuthVerdict::Accepted(_) | AuthVerdict::Refused) => {
                let wait = self.bans.failed(client.peer.ip()).await;
                tokio::time::sleep(wait).await;
                AuthDecision::Refuse(Reply::new(
                    AUTH_INVALID_535,
                    AUTH_INVALID_5_7_8,
                    "name or password is wrong",
                ))
            }
            Ok(AuthVerdict::Busy) => {
                later("too many log-ins at the moment, please try again later")
            }
            // RFC 4954 §6: it is not known whether they are right.
            Err(Away) => later("log-ins cannot be checked now, please try again later"),
        }
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

    async fn data(
        &self,
        client: &ClientFacts,
        transaction: &TransactionFacts,
    ) -> Result<(), Reply> {
        let account = client.account().unwrap_or_default();
        self.sending.send(account, &transaction.recipients).await
    }

    async fn header(
        &self,
        _: &ClientFacts,
        _: &TransactionFacts,
        header: &HeaderBlock,
    ) -> Result<HeaderTerms, Reply> {
        Ok(rules::header(header, &self.host))
    }
}

/// RFC 4616 §2: acting as somebody else is a right that nobody has here.
fn acts_as_itself(account: &str, credentials: &Credentials) -> bool {
    match &credentials.authzid {
        None => true,
        Some(other) => Mailbox::parse(other).is_ok_and(|other| other.folded() == account),
    }
}

fn later(text: &str) -> AuthDecision {
    AuthDecision::Refuse(Reply::new(TEMPORARY_AUTH_FAILURE_454, POLICY_4_7_0, text))
}
