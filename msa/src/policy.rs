//! Who may send what to whom (RFC 6409 §6), and the completion of mails (§8).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use postroad_accounts::{Accounts, Away, LogIn};
use postroad_address::{Domain, Mailbox};
use postroad_daemon::CommonConfig;
use postroad_directory::{AuthGate, AuthVerdict, Purpose, Scope};
use postroad_message::HeaderBlock;
use postroad_metrics::{Metrics, list};
use postroad_oauth::Tokens;
use postroad_reply::*;
use postroad_sasl::{
    ContextAnswer, ContextCall, Credentials, Evidence, Secret, SecretQuery, SecurityContext,
};
use postroad_smtp_session::{MailRequest, PolicyReply, RcptRequest};
use postroad_smtpd::{
    AuthDecision, ClientFacts, HeaderTerms, MailTerms, Policy, RecipientDraft, TransactionFacts,
};

use crate::bans::Bans;
use crate::identity::Sender;
use crate::questions;
use crate::rules::{self, HeaderRules};
use crate::sending::Sending;
use crate::tickets::{self, Called, Tickets};
use crate::together::Together;
use crate::vouched::{self, Vouched};
use crate::{AuthConfig, ClientCertificates, Config, Dependencies};

/// The policy of all listeners of one agent.
pub struct Submission {
    accounts: Accounts,
    gate: AuthGate,
    together: Arc<Together>,
    bans: Bans,
    sending: Sending,
    tokens: Tokens,
    tickets: Tickets,
    certificates: ClientCertificates,
    metrics: Metrics,
    host: Domain,
    /// By the listener's name.
    header_rules: HashMap<String, HeaderRules>,
    /// Whether VRFY and EXPN tell anything.
    tells: (bool, bool),
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
            (together, Tokens::new(&config.auth.oauth, metrics)),
            metrics,
        )
    }

    /// The same under another configuration; what is counted is not forgotten. `tokens` are those in force. Reads files; blocks.
    pub fn successor(&self, config: &Config, tokens: &Tokens) -> Self {
        let whose = (self.accounts.clone(), self.host.clone());
        self.together.renew(config.counters_timeout.into());
        let tokens = tokens.successor(&config.auth.oauth, &self.metrics);
        let together = Arc::clone(&self.together);
        Self::with(config, whose, (together, tokens), &self.metrics)
    }

    fn with(
        config: &Config,
        (accounts, host): (Accounts, Domain),
        (together, tokens): (Arc<Together>, Tokens),
        metrics: &Metrics,
    ) -> Self {
        let banned = metrics.counter(&list::BANS_REFUSED, &[]);
        let over = metrics.counter(&list::SENDING_REFUSED, &[]);
        Self {
            accounts,
            gate: gate(&config.auth),
            bans: Bans::new(Arc::clone(&together), banned, config),
            sending: Sending::new(Arc::clone(&together), over, &config.sending),
            tokens,
            tickets: Tickets::new(&config.auth.gssapi, &host, metrics),
            certificates: config.client_certificates.clone(),
            together,
            metrics: metrics.clone(),
            host,
            tells: (config.vrfy, config.expn),
            header_rules: config
                .all_listeners()
                .into_iter()
                .map(|terms| (terms.name, terms.rules))
                .collect(),
        }
    }

    /// Keys of issuers, which somebody has to fetch.
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// A listener that a changed configuration has no more is served on until the restart, under the strict rules.
    fn header_rules(&self, listener: &str) -> HeaderRules {
        self.header_rules.get(listener).copied().unwrap_or_default()
    }
}

fn gate(config: &AuthConfig) -> AuthGate {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let permits = match config.concurrency {
        0 => 2 * processors,
        permits => permits,
    };
    AuthGate::new(permits, config.patience.into())
        .remembering(config.remember.into(), config.remember_most)
}

#[async_trait]
impl Policy for Submission {
    async fn connect(&self, client: &ClientFacts) -> PolicyReply {
        match self.bans.refuse(client.peer.ip()).await {
            Some(reply) => PolicyReply::Close(reply),
            None => PolicyReply::Accept,
        }
    }

    async fn secret(&self, client: &ClientFacts, query: &SecretQuery) -> Result<Secret, Reply> {
        if let Some(reply) = self.bans.refuse_known(client.peer.ip()) {
            return Err(reply);
        }
        self.refuse_name(client, &query.name).await?;
        let secret = self.accounts.secret(query).await;
        secret.map_err(|Away| away())
    }

    async fn context(
        &self,
        client: &ClientFacts,
        held: Option<Box<dyn SecurityContext>>,
        call: ContextCall,
    ) -> Result<(Box<dyn SecurityContext>, ContextAnswer), Reply> {
        if let Some(reply) = self.bans.refuse_known(client.peer.ip()) {
            return Err(reply);
        }
        match self.tickets.call(&self.gate, client, held, call).await {
            Called::Answered(context, answer) => Ok((context, answer)),
            Called::Refused => {
                self.failed(client, "").await;
                Err(wrong())
            }
            Called::Away => Err(away()),
            Called::Busy => Err(busy()),
        }
    }

    async fn auth(&self, client: &ClientFacts, credentials: &Credentials) -> AuthDecision {
        // Others of its network may have failed since it connected.
        if let Some(reply) = self.bans.refuse_known(client.peer.ip()) {
            return AuthDecision::Close(reply);
        }
        let name = &credentials.authcid;
        // A proof was judged by keys that a refused name is not given.
        if credentials.password().is_some()
            && let Err(reply) = self.refuse_name(client, name).await
        {
            return AuthDecision::Refuse(reply);
        }
        if let Evidence::Token(token) = &credentials.evidence {
            let vouched = vouched::by_token(&self.tokens, client, token).await;
            return self.vouched_for(client, credentials, vouched).await;
        }
        if credentials.evidence == Evidence::Certificate {
            let vouched = vouched::by_certificate(&self.certificates, client);
            return self.vouched_for(client, credentials, vouched).await;
        }
        if credentials.evidence == Evidence::Ticket {
            let vouched = self.tickets.whose(client, name);
            let credentials = tickets::as_itself(credentials);
            return self.vouched_for(client, &credentials, vouched).await;
        }
        match self.judge(client, credentials).await {
            Ok(AuthVerdict::Accepted(account)) if acts_as_itself(&account, credentials) => {
                self.bans.succeeded(client.peer.ip(), &account);
                AuthDecision::Accept { account }
            }
            Ok(
                AuthVerdict::Accepted(_) | AuthVerdict::ByAppPassword { .. } | AuthVerdict::Refused,
            ) => {
                self.failed(client, name).await;
                AuthDecision::Refuse(wrong())
            }
            Ok(AuthVerdict::Busy) => AuthDecision::Refuse(busy()),
            // RFC 4954 §6: it is not known whether they are right.
            Err(Away) => AuthDecision::Refuse(away()),
        }
    }

    async fn vouched(&self, _: &ClientFacts, name: &str) -> AuthDecision {
        match self.accounts.may_log_in(name).await {
            Ok(Some(account)) => AuthDecision::Accept { account },
            Ok(None) => AuthDecision::Refuse(wrong()),
            Err(Away) => AuthDecision::Refuse(away()),
        }
    }

    fn size_limit(&self, client: &ClientFacts) -> Option<u64> {
        self.sending.size_limit(client.account()?)
    }

    async fn mail(&self, client: &ClientFacts, mail: &MailRequest) -> Result<MailTerms, Reply> {
        let account = client.account().unwrap_or_default();
        self.sending.fits(account, mail.params.size.unwrap_or(0))?;
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
        let announced = transaction.mail.params.size;
        let asked = self
            .sending
            .ask(account, &transaction.recipients, announced);
        asked.await
    }

    async fn content(
        &self,
        client: &ClientFacts,
        transaction: &TransactionFacts,
        size: u64,
    ) -> Result<(), Reply> {
        let account = client.account().unwrap_or_default();
        let counted = self.sending.count(account, &transaction.recipients, size);
        counted.await
    }

    async fn verify(&self, _: &ClientFacts, name: &str) -> Option<Reply> {
        let (vrfy, _) = self.tells;
        questions::verify(&self.accounts, name)
            .await
            .filter(|_| vrfy)
    }

    async fn expand(&self, _: &ClientFacts, name: &str) -> Option<Reply> {
        let (_, expn) = self.tells;
        questions::expand(&self.accounts, name)
            .await
            .filter(|_| expn)
    }

    async fn header(
        &self,
        client: &ClientFacts,
        transaction: &TransactionFacts,
        header: &HeaderBlock,
    ) -> Result<HeaderTerms, Reply> {
        let sender = Sender {
            account: client.account().unwrap_or_default(),
            reverse_path: &transaction.mail.reverse_path,
            domain: None,
            from_field: None,
            own: &[],
        };
        let rules = self.header_rules(&client.listener);
        rules::header(&self.accounts, &sender, header, &self.host, rules).await
    }
}

impl Submission {
    /// Whose these credentials are, if they are true.
    async fn judge(
        &self,
        client: &ClientFacts,
        credentials: &Credentials,
    ) -> Result<AuthVerdict, Away> {
        let (name, mechanism) = (&credentials.authcid, credentials.mechanism.as_str());
        match &credentials.evidence {
            Evidence::Password(password) => {
                let log_in = LogIn {
                    name,
                    mechanism,
                    password: password.reveal().as_bytes(),
                    purpose: Purpose {
                        scope: Scope::Submission,
                        client: Some(client.peer.ip()),
                        now: SystemTime::now().into(),
                    },
                };
                let verdict = self.accounts.log_in(&self.gate, &log_in).await?;
                Ok(vouched::by_app_password(client, verdict))
            }
            // Whoever is disabled or gone has no keys that fit; it may have happened meanwhile.
            Evidence::Proof { holds: true } => self.of_account(name).await,
            // Of the last three others are asked before.
            Evidence::Proof { holds: false }
            | Evidence::Token(_)
            | Evidence::Certificate
            | Evidence::Ticket => Ok(AuthVerdict::Refused),
        }
    }

    /// Whether an account that somebody vouches for is there, and is the one the client wants to be.
    async fn vouched_for(
        &self,
        client: &ClientFacts,
        credentials: &Credentials,
        vouched: Vouched,
    ) -> AuthDecision {
        let refusal = match vouched {
            Vouched::For(account) => match self.accounts.may_log_in(&account).await {
                Ok(Some(account)) if acts_as_itself(&account, credentials) => {
                    self.bans.succeeded(client.peer.ip(), &account);
                    return AuthDecision::Accept { account };
                }
                Ok(_) => wrong(),
                Err(Away) => return AuthDecision::Refuse(away()),
            },
            Vouched::NotNow => return AuthDecision::Refuse(away()),
            Vouched::ForNobody(reply) => reply,
        };
        // A principal is no name that anybody else could be refused by.
        let name = match credentials.evidence {
            Evidence::Ticket => "",
            _ => &credentials.authcid,
        };
        self.failed(client, name).await;
        AuthDecision::Refuse(refusal)
    }

    async fn of_account(&self, name: &str) -> Result<AuthVerdict, Away> {
        let account = self.accounts.may_log_in(name).await?;
        Ok(account.map_or(AuthVerdict::Refused, AuthVerdict::Accepted))
    }

    /// Refuses, and counts that as another failure.
    async fn refuse_name(&self, client: &ClientFacts, name: &str) -> Result<(), Reply> {
        match self.bans.refuse_name(client.peer.ip(), name).await {
            None => Ok(()),
            Some(reply) => {
                self.failed(client, name).await;
                Err(reply)
            }
        }
    }

    /// Counts a failure; its answer waits.
    async fn failed(&self, client: &ClientFacts, name: &str) {
        let wait = self.bans.failed(client.peer.ip(), name).await;
        tokio::time::sleep(wait).await;
    }
}

/// RFC 4616 §2: acting as somebody else is a right that nobody has here.
fn acts_as_itself(account: &str, credentials: &Credentials) -> bool {
    match &credentials.authzid {
        None => true,
        Some(other) => Mailbox::parse(other).is_ok_and(|other| other.folded() == account),
    }
}

/// The same for whatever it is that is wrong.
pub(crate) fn wrong() -> Reply {
    let text = "name or password is wrong";
    Reply::new(AUTH_INVALID_535, AUTH_INVALID_5_7_8, text)
}

fn away() -> Reply {
    later("log-ins cannot be checked now, please try again later")
}

fn busy() -> Reply {
    later("too many log-ins at the moment, please try again later")
}

fn later(text: &str) -> Reply {
    Reply::new(TEMPORARY_AUTH_FAILURE_454, POLICY_4_7_0, text)
}
