//! Accounts as the agents ask for them: from the directory file of this host, or from the queue.
//!
//! ```text
//! msa, mta, mda ─► Accounts ─┬─ File:  the snapshot in force
//!                            └─ Queue: memory ─► gRPC ─► DirectoryService ─► the snapshot of queued
//!                                        ▲ Watch tells what changed
//! ```
//!
//! * Both ways give the same answers; the tests of the agents' policies run with either.
//! * Answers of the queue are remembered within bounds (`[common.accounts]`): fresh ones are as good as asked, older ones are
//!   used only while the queue does not answer. What changes is told and dropped; what was learnt before a gap in listening is asked again.
//! * Of a queue of several nodes any is as good, since all have the same directory file: one is asked and listened to until it
//!   does not answer, then the next.
//! * Verifiers of passwords are remembered of accounts that logged in here, in memory alone, and wiped when they are dropped.
//!   The password is checked where the client is, behind the [`AuthGate`].
//! * [`DirectoryService`] is the other end, which queued serves.
//!
//! What can fail: nobody answers and nothing is remembered ([`Away`]). That is a 4xx, never an acceptance and never a 5xx.
#![forbid(unsafe_code)]

mod cache;
mod desk;
mod memory;
mod nodes;
mod remote;
mod service;
mod wire;

use std::{sync::Arc, time::Duration};

use postroad_address::{ForwardPath, Mailbox, ReversePath};
use postroad_daemon::{AccountsFrom, CommonConfig};
use postroad_directory::{
    AppPassword, AppVerifier, AuthGate, AuthVerdict, DirectoryError, DirectoryHandle, Purpose,
    Resolved, SenderVerdict, Shown, Work, app_prefix,
};
use postroad_metrics::{
    Counter, Metrics, Table,
    labels::{Answer, Checked},
    list,
};
use postroad_reply::{LOCAL_ERROR_451, Reply, SYSTEM_4_3_0};
use postroad_sasl::{Secret, SecretKind, SecretQuery};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

pub use remote::RemoteAccounts;
pub use service::{DirectoryService, ServiceTerms};

/// How often a directory file is looked at by an agent that reads it itself.
const FILE_WATCH: Duration = Duration::from_secs(2);

/// Where accounts come from. Clones share it.
#[derive(Clone)]
pub struct Accounts {
    source: Source,
}

#[derive(Clone)]
enum Source {
    File(DirectoryHandle, Counts),
    Queue(Arc<RemoteAccounts>),
}

/// Nobody can tell now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("accounts cannot be looked up now")]
pub struct Away;

impl From<Away> for Reply {
    fn from(_: Away) -> Self {
        let text = "accounts cannot be looked up now, please try again later";
        Self::new(LOCAL_ERROR_451, SYSTEM_4_3_0, text)
    }
}

/// Why an agent cannot start.
#[derive(Debug, thiserror::Error)]
pub enum AccountsError {
    /// Operator: the directory file.
    #[error(transparent)]
    File(#[from] DirectoryError),
    /// Operator: `common.queue` or certificates.
    #[error(transparent)]
    Queue(#[from] postroad_rpc::Error),
}

impl Accounts {
    /// Of a directory file, kept current by its owner.
    pub fn of_file(directory: DirectoryHandle, metrics: &Metrics) -> Self {
        // Told as 0, so that dashboards need not know where accounts come from.
        metrics.gauge(&list::ACCOUNTS_AWAY, &[]);
        Self {
            source: Source::File(directory, Counts::new(metrics)),
        }
    }

    /// Of a queue's directory.
    pub fn of_queue(accounts: RemoteAccounts) -> Self {
        Self {
            source: Source::Queue(Arc::new(accounts)),
        }
    }

    /// As `[common.accounts]` has it; to be called inside a tokio runtime. Reads files; blocks.
    pub fn configured(common: &CommonConfig, metrics: &Metrics) -> Result<Self, AccountsError> {
        let config = &common.accounts;
        if config.from == AccountsFrom::File {
            let directory = DirectoryHandle::open(&common.directory)?;
            return Ok(Self::of_file(directory, metrics));
        }
        let nodes = postroad_rpc::nodes(common)?;
        let nodes: Vec<_> = nodes.into_iter().map(|node| node.endpoint).collect();
        let remote = RemoteAccounts::connect(&nodes, common.tls.as_ref(), config, metrics)?;
        tracing::info!(
            event = "accounts_from_queue",
            address = %common.queue,
            "accounts are asked of the queue (common.accounts.from); no directory file is read here"
        );
        Ok(Self::of_queue(remote))
    }

    /// Keeps what is known current, until `stop`.
    pub async fn keep(&self, stop: CancellationToken) {
        match &self.source {
            Source::File(directory, _) => directory.clone().watch(FILE_WATCH, stop).await,
            Source::Queue(queue) => queue.listen(stop).await,
        }
    }

    /// Where mail for an address goes.
    pub async fn resolve(&self, path: &ForwardPath) -> Result<Resolved, Away> {
        match &self.source {
            Source::File(directory, counts) => Ok(counts.here(directory.current().look_up(path))),
            Source::Queue(queue) => queue.resolve(path).await,
        }
    }

    /// Where mail goes that was accepted already. That an address does not exist is asked anew: the mail bounces by it, and who
    /// accepted it may have heard sooner of an account that is new.
    pub async fn resolve_for_delivery(&self, path: &ForwardPath) -> Result<Resolved, Away> {
        match &self.source {
            Source::File(directory, counts) => Ok(counts.here(directory.current().look_up(path))),
            Source::Queue(queue) => queue.resolve_for_delivery(path).await,
        }
    }

    /// Whether an account, which logged in some time ago, may use this sender now.
    pub async fn check_sender(
        &self,
        account: &str,
        sender: &ReversePath,
    ) -> Result<SenderVerdict, Away> {
        match &self.source {
            Source::File(directory, counts) => {
                Ok(counts.here(directory.current().check_sender(account, sender)))
            }
            Source::Queue(queue) => queue.check_sender(account, sender).await,
        }
    }

    /// Checks name and password, as the SASL mechanism brought them. Slow on purpose, for whoever is asked for; an app password is
    /// checked at once, since nobody guesses it.
    pub async fn log_in(&self, gate: &AuthGate, log_in: &LogIn<'_>) -> Result<AuthVerdict, Away> {
        if let Some(prefix) = app_prefix(log_in.password) {
            return self.log_in_by_app(prefix, log_in).await;
        }
        match &self.source {
            Source::File(directory, counts) => {
                let directory = directory.current();
                let key = directory.own_decoy_key();
                let shown = Shown {
                    account: folded(log_in.name),
                    verifier: directory.verifier(log_in.name, &key),
                    password: Zeroizing::new(log_in.password.to_vec()),
                };
                let (verdict, work) = gate.check(shown).await;
                counts.checked(work);
                Ok(counts.here(verdict))
            }
            Source::Queue(queue) => queue.log_in(gate, log_in).await,
        }
    }

    async fn log_in_by_app(&self, prefix: &str, log_in: &LogIn<'_>) -> Result<AuthVerdict, Away> {
        let LogIn { name, .. } = *log_in;
        match &self.source {
            Source::File(directory, counts) => {
                let directory = directory.current();
                let key = directory.own_decoy_key();
                let (verifier, terms) = directory.app_verifier(name, prefix, &key);
                let terms = terms.as_ref();
                let verdict = by_app(&folded(name), &verifier, terms, log_in, counts);
                Ok(counts.here(verdict))
            }
            Source::Queue(queue) => queue.log_in_by_app(prefix, log_in).await,
        }
    }
}

/// Somebody who shows a password.
#[derive(Clone, Copy)]
pub struct LogIn<'a> {
    /// The account's name, as the client said it.
    pub name: &'a str,
    /// PLAIN or LOGIN.
    pub mechanism: &'a str,
    /// The password.
    pub password: &'a [u8],
    /// For what it is shown, from where and when.
    pub purpose: Purpose,
}

/// What comes of an app password of this account.
fn by_app(
    account: &str,
    verifier: &AppVerifier,
    terms: Option<&AppPassword>,
    log_in: &LogIn<'_>,
    counts: &Counts,
) -> AuthVerdict {
    counts.1.count(Checked::App);
    match (verifier.verify(log_in.password), terms) {
        (true, Some(terms)) => AuthVerdict::ByAppPassword {
            account: account.to_owned(),
            name: terms.name.clone(),
            refused: terms.refuses(&log_in.purpose),
        },
        _ => AuthVerdict::Refused,
    }
}

fn folded(name: &str) -> String {
    Mailbox::parse(name).map_or_else(|_| name.to_lowercase(), |name| name.folded())
}

impl Accounts {
    /// What a mechanism has to know of an account to verify a proof. Of an account that is unknown, disabled or without such keys, what
    /// looks like the others' and fits nothing.
    pub async fn secret(&self, query: &SecretQuery) -> Result<Secret, Away> {
        match &self.source {
            Source::File(directory, counts) => {
                let (directory, name) = (directory.current(), &query.name);
                let key = directory.own_decoy_key();
                Ok(counts.here(match query.kind {
                    SecretKind::Scram(hash) => {
                        Secret::Scram(directory.scram_keys(name, hash, &key))
                    }
                    SecretKind::Cram => Secret::Cram(directory.recoverable_secret(name, &key)),
                }))
            }
            Source::Queue(queue) => queue.secret(query).await,
        }
    }

    /// The account of this name, if it may log in: for evidence that was verified elsewhere, such as a proof, a token or a certificate.
    pub async fn may_log_in(&self, name: &str) -> Result<Option<String>, Away> {
        let Ok(account) = Mailbox::parse(name) else {
            return Ok(None);
        };
        let name = account.folded();
        let itself = ReversePath::Mailbox(account);
        Ok(match self.check_sender(&name, &itself).await? {
            SenderVerdict::NoAccount => None,
            SenderVerdict::Allowed { .. } | SenderVerdict::NotAllowed { .. } => Some(name),
        })
    }
}

/// Answers by where they came from, and passwords by how they were checked.
#[derive(Clone)]
struct Counts(Table<Answer, Counter>, Table<Checked, Counter>);

impl Counts {
    fn new(metrics: &Metrics) -> Self {
        Self(
            metrics.counters(&list::ACCOUNT_ANSWERS, &[]),
            metrics.counters(&list::PASSWORD_CHECKS, &[]),
        )
    }

    fn count(&self, answer: Answer) {
        self.0.count(answer);
    }

    fn checked(&self, work: Work) {
        match work {
            Work::Hashed => self.1.count(Checked::Hashed),
            Work::Remembered => self.1.count(Checked::Remembered),
            Work::Nothing => {}
        }
    }

    fn here<T>(&self, answer: T) -> T {
        self.count(Answer::File);
        answer
    }
}
