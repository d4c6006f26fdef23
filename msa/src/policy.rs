//! Who may send what to whom (RFC 6409 §6), and the completion of mails (§8).

use std::time::{Instant, SystemTime};

use async_trait::async_trait;
use postroad_address::{Domain, Mailbox};
use postroad_daemon::CommonConfig;
use postroad_directory::{AuthGate, AuthVerdict, DirectoryHandle};
use postroad_envelope::Timestamp;
use postroad_message::HeaderBlock;
use postroad_reply::*;
use postroad_sasl::Credentials;
use postroad_smtp_session::{MailRequest, PolicyReply, RcptRequest};
use postroad_smtpd::{
    AuthDecision, ClientFacts, HeaderTerms, MailTerms, Policy, RecipientDraft, TransactionFacts,
};

use crate::AuthConfig;
use crate::complete::complete;
use crate::slowdown::Slowdown;

/// The policy of all listeners of one agent.
pub struct Submission {
    directory: DirectoryHandle,
    gate: AuthGate,
    slowdown: Slowdown,
    host: Domain,
}

impl Submission {
    /// Decides by this directory.
    pub fn new(config: &AuthConfig, common: &CommonConfig, directory: DirectoryHandle) -> Self {
        Self {
            directory,
            gate: gate(config),
            slowdown: Slowdown::new(config.delay.into(), config.max_delay.into()),
            host: common.hostname.clone(),
        }
    }

    /// The same under another configuration; who failed to log in is not forgotten.
    pub fn successor(&self, config: &AuthConfig) -> Self {
        let (first, longest) = (config.delay.into(), config.max_delay.into());
        Self {
            directory: self.directory.clone(),
            gate: gate(config),
            slowdown: self.slowdown.with_delays(first, longest),
            host: self.host.clone(),
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
    async fn connect(&self, _: &ClientFacts) -> PolicyReply {
        PolicyReply::Accept
    }

    async fn auth(&self, client: &ClientFacts, credentials: &Credentials) -> AuthDecision {
        let password = credentials.password.reveal().as_bytes().to_vec();
        let (directory, name) = (self.directory.current(), credentials.authcid.clone());
        match self.gate.verify(directory, name, password).await {
            AuthVerdict::Accepted(account) if acts_as_itself(&account, credentials) => {
                self.slowdown.succeeded(client.peer.ip());
                AuthDecision::Accept { account }
            }
            AuthVerdict::Accepted(_) | AuthVerdict::Refused => {
                let wait = self.slowdown.failed(client.peer.ip(), Instant::now());
                tokio::time::sleep(wait).await;
                AuthDecision::Refuse(Reply::new(
                    AUTH_INVALID_535,
                    AUTH_INVALID_5_7_8,
                    "name or password is wrong",
                ))
            }
            AuthVerdict::Busy => AuthDecision::Refuse(Reply::new(
                TEMPORARY_AUTH_FAILURE_454,
                POLICY_4_7_0,
                "too many log-ins at the moment, please try again later",
            )),
        }
    }

    async fn mail(&self, client: &ClientFacts, mail: &MailRequest) -> Result<MailTerms, Reply> {
        let directory = self.directory.current();
        // The directory may have changed since the log-in.
        let account = client
            .account()
            .and_then(|name| directory.account_by_name(name))
            .filter(|account| !account.disabled)
            .ok_or_else(|| not_allowed("this account may not send mail any more"))?;
        if !directory.may_send_as(account, &mail.reverse_path) {
            let sender = &mail.reverse_path;
            let name = &account.address;
            // RFC 6409 §6.1.
            return Err(not_allowed(&format!("{name} may not send as {sender}")));
        }
        let tenant = directory.tenant_of(account.address.domain());
        Ok(MailTerms {
            tenant: tenant.map(str::to_owned),
            ..MailTerms::default()
        })
    }

    async fn rcpt(
        &self,
        _: &ClientFacts,
        transaction: &TransactionFacts,
        rcpt: &RcptRequest,
    ) -> Result<Vec<RecipientDraft>, Reply> {
        let (directory, path) = (self.directory.current(), &rcpt.forward_path);
        match path.mailbox() {
            // Ours are resolved, others go out.
            Some(mailbox) if !directory.is_local_domain(mailbox.domain()) => {
                Ok(vec![RecipientDraft::new(mailbox.clone())])
            }
            _ => RecipientDraft::local(&directory, transaction, path),
        }
    }

    async fn header(
        &self,
        _: &ClientFacts,
        _: &TransactionFacts,
        header: &HeaderBlock,
    ) -> Result<HeaderTerms, Reply> {
        let now = Timestamp::from(SystemTime::now());
        let completed = complete(header, now, rand::random(), &self.host);
        let mut terms = HeaderTerms {
            edits: completed.edits,
            ..HeaderTerms::default()
        };
        if let Some(id) = completed.message_id {
            let id = id.as_str().to_owned();
            terms.facts.insert("message_id".to_owned(), id);
        }
        Ok(terms)
    }
}

/// RFC 4616 §2: acting as somebody else is a right that nobody has here.
fn acts_as_itself(account: &str, credentials: &Credentials) -> bool {
    match &credentials.authzid {
        None => true,
        Some(other) => Mailbox::parse(other).is_ok_and(|other| other.folded() == account),
    }
}

fn not_allowed(text: &str) -> Reply {
    Reply::new(MAILBOX_UNAVAILABLE_550, NOT_AUTHORIZED_5_7_1, text)
}
