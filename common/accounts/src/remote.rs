//! Accounts of the queue's directory, asked for over gRPC and remembered.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures::{FutureExt as _, future::BoxFuture};
use postroad_address::{ForwardPath, Mailbox, ReversePath};
use postroad_daemon::{AccountsConfig, TlsFiles};
use postroad_directory::{AuthGate, AuthVerdict, Resolution, Resolved, SenderVerdict, Shown};
use postroad_metrics::{Gauge, Metrics, labels::Answer, list};
use postroad_proto::directory::v1::{ResolveRequest, SenderRequest, VerifierRequest, WatchRequest};
use postroad_rpc::Endpoint;
use postroad_sasl::{Secret, SecretQuery};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use tracing::{info, warn};
use zeroize::Zeroizing;

use crate::{
    Away, Counts, LogIn, by_app,
    memory::{Asked, Memory, Remembered, Terms, Verifier},
    nodes::{Client, Nodes},
    wire::{self, AnswerError},
};

/// After a question that nobody answered, so long nobody is asked: whoever waits has waited enough.
const PAUSE: Duration = Duration::from_millis(500);
/// Between attempts to listen for changes; while the queue is away, less and less often.
const LISTEN_AGAIN: Duration = Duration::from_millis(100);
const LISTEN_AGAIN_AT_MOST: Duration = Duration::from_secs(1);

/// Of a name that is no address, more is not worth asking for.
const LONGEST_NAME: usize = 200;

/// The directory of a queue elsewhere.
pub struct RemoteAccounts {
    nodes: Nodes,
    patience: Duration,
    memory: Mutex<Memory>,
    reach: Mutex<Reach>,
    counts: Counts,
    away: Gauge,
}

/// Whether the queue answers.
#[derive(Default)]
struct Reach {
    is_away: bool,
    ask_again_at: Option<Instant>,
}

/// Why there is no answer.
enum NoAnswer {
    /// Nobody was asked.
    Paused,
    /// This one is not answered; others are.
    Refused,
    /// It came and cannot be understood; others can.
    Senseless(AnswerError),
    /// It did not come.
    Failed(String),
}

impl From<Status> for NoAnswer {
    fn from(status: Status) -> Self {
        match status.code() {
            // The first may have no more of them, the second is about one name that cannot be: others are answered.
            Code::ResourceExhausted | Code::InvalidArgument => Self::Refused,
            code => Self::Failed(format!("{code:?}: {}", status.message())),
        }
    }
}

impl From<AnswerError> for NoAnswer {
    fn from(error: AnswerError) -> Self {
        Self::Senseless(error)
    }
}

impl RemoteAccounts {
    /// Prepares the connections to the queue's nodes; to be called inside a tokio runtime. Fails on certificates that cannot be
    /// read.
    pub fn connect(
        nodes: &[Endpoint],
        tls: Option<&TlsFiles>,
        config: &AccountsConfig,
        metrics: &Metrics,
    ) -> Result<Self, postroad_rpc::Error> {
        Ok(Self {
            nodes: Nodes::dial(nodes, tls)?,
            patience: config.timeout.into(),
            memory: Mutex::new(Memory::new(config.cache_size, config.max_stale.into())),
            reach: Mutex::default(),
            counts: Counts::new(metrics),
            away: metrics.gauge(&list::ACCOUNTS_AWAY, &[]),
        })
    }

    /// See [`Accounts::resolve`](crate::Accounts::resolve).
    pub async fn resolve(&self, path: &ForwardPath) -> Result<Resolved, Away> {
        let remembered = self.memory().resolved(path, Instant::now());
        let ask = |client, asked| self.ask_where(client, path, asked).boxed();
        self.answer(remembered, ask).await
    }

    /// See [`Accounts::resolve_for_delivery`](crate::Accounts::resolve_for_delivery).
    pub async fn resolve_for_delivery(&self, path: &ForwardPath) -> Result<Resolved, Away> {
        let remembered = match self.memory().resolved(path, Instant::now()) {
            Remembered::Fresh(known) | Remembered::Stale(known)
                if known.resolution == Resolution::UnknownRecipient =>
            {
                Remembered::Nothing
            }
            remembered => remembered,
        };
        let ask = |client, asked| self.ask_where(client, path, asked).boxed();
        self.answer(remembered, ask).await
    }

    /// See [`Accounts::check_sender`](crate::Accounts::check_sender).
    pub async fn check_sender(
        &self,
        account: &str,
        sender: &ReversePath,
    ) -> Result<SenderVerdict, Away> {
        let sender = sender.to_string();
        let remembered = self.memory().sender(account, &sender, Instant::now());
        let sender = sender.as_str();
        let ask = |client, asked| self.ask_sender(client, account, sender, asked).boxed();
        self.answer(remembered, ask).await
    }

    /// See [`Accounts::log_in`](crate::Accounts::log_in).
    pub async fn log_in(&self, gate: &AuthGate, log_in: &LogIn<'_>) -> Result<AuthVerdict, Away> {
        let account = account_of(log_in.name);
        let which = (account.as_str(), None);
        let remembered = self.memory().verifier(which.0, which.1, Instant::now());
        let remembered = remembered.map(|verifier| (verifier, None));
        let mechanism = log_in.mechanism;
        let ask = |client, asked| self.ask_verifier(client, which, mechanism, asked).boxed();
        let (verifier, fresh) = self.answer(remembered, &ask).await?;
        let shown = Shown {
            account: which.0.to_owned(),
            verifier: verifier.text.clone(),
            password: Zeroizing::new(log_in.password.to_vec()),
        };
        let (verdict, work) = gate.check(shown).await;
        self.counts.checked(work);
        match (&verdict, fresh) {
            // Verifiers are kept of those who proved to be at home here, and of nobody else.
            (AuthVerdict::Accepted(_), Some((asked, terms))) => {
                self.memory().keep_verifier(which, &verifier, asked, terms);
            }
            // The question that a name costs which never logged in here.
            (AuthVerdict::Refused, None) => drop(self.asked(ask).await),
            _ => {}
        }
        Ok(verdict)
    }

    /// See [`Accounts::log_in`](crate::Accounts::log_in).
    pub async fn log_in_by_app(
        &self,
        prefix: &str,
        log_in: &LogIn<'_>,
    ) -> Result<AuthVerdict, Away> {
        let account = account_of(log_in.name);
        let which = (account.as_str(), Some(prefix));
        let remembered = self.memory().verifier(which.0, which.1, Instant::now());
        let remembered = remembered.map(|verifier| (verifier, None));
        let mechanism = log_in.mechanism;
        let ask = |client, asked| self.ask_verifier(client, which, mechanism, asked).boxed();
        let (verifier, fresh) = self.answer(remembered, ask).await?;
        let kept = verifier.text.parse().map_err(|_| {
            warn!(event = "fault", error = %AnswerError::NoVerifier);
            Away
        })?;
        let verdict = by_app(
            which.0,
            &kept,
            verifier.terms.as_ref(),
            log_in,
            &self.counts,
        );
        if let (AuthVerdict::ByAppPassword { .. }, Some((asked, terms))) = (&verdict, fresh) {
            self.memory().keep_verifier(which, &verifier, asked, terms);
        }
        Ok(verdict)
    }

    /// See [`Accounts::secret`](crate::Accounts::secret). Nothing of it is remembered: whoever asks does not prove anything yet.
    pub async fn secret(&self, query: &SecretQuery) -> Result<Secret, Away> {
        let (account, mechanism) = (account_of(&query.name), wire::mechanism_of(query.kind));
        let account = account.as_str();
        let ask = |client, asked| {
            self.ask_verifier(client, (account, None), mechanism, asked)
                .boxed()
        };
        let (verifier, _) = self.answer(Remembered::Nothing, ask).await?;
        wire::into_secret(query.kind, &verifier.text).map_err(|error| {
            warn!(event = "fault", %error);
            Away
        })
    }

    async fn ask_where(
        &self,
        mut client: Client,
        path: &ForwardPath,
        asked: Asked,
    ) -> Result<Resolved, NoAnswer> {
        let request = ResolveRequest {
            address: path.to_string(),
        };
        let answer = client.resolve(request).await?.into_inner();
        let terms = terms(answer.max_age_ms, answer.generation);
        let resolved = wire::into_resolved(answer)?;
        self.memory().keep_resolved(path, &resolved, asked, terms);
        Ok(resolved)
    }

    async fn ask_sender(
        &self,
        mut client: Client,
        account: &str,
        sender: &str,
        asked: Asked,
    ) -> Result<SenderVerdict, NoAnswer> {
        let request = SenderRequest {
            account: account.to_owned(),
            sender: sender.to_owned(),
        };
        let answer = client.sender(request).await?.into_inner();
        let terms = terms(answer.max_age_ms, answer.generation);
        let verdict = wire::into_sender(answer)?;
        self.memory()
            .keep_sender(account, sender, &verdict, asked, terms);
        Ok(verdict)
    }

    async fn ask_verifier(
        &self,
        mut client: Client,
        (account, app): (&str, Option<&str>),
        mechanism: &str,
        asked: Asked,
    ) -> Result<(Verifier, Option<(Asked, Terms)>), NoAnswer> {
        let request = VerifierRequest {
            account: account.to_owned(),
            mechanism: mechanism.to_owned(),
            app_password: app.map(str::to_owned),
        };
        let answer = client.verifier(request).await?.into_inner();
        let terms = terms(answer.max_age_ms, answer.generation);
        let text = answer.verifier.map(Zeroizing::new);
        let verifier = Verifier {
            text: text.ok_or(AnswerError::NoVerifier)?,
            terms: answer.app_password.map(wire::into_app).transpose()?,
        };
        Ok((verifier, Some((asked, terms))))
    }

    /// What is remembered while it is fresh; else what is asked; else, if nobody answers, what is remembered.
    async fn answer<'a, V>(
        &'a self,
        remembered: Remembered<V>,
        ask: impl Fn(Client, Asked) -> BoxFuture<'a, Result<V, NoAnswer>>,
    ) -> Result<V, Away> {
        let stale = match remembered {
            Remembered::Fresh(value) => {
                self.counts.count(Answer::Remembered);
                return Ok(value);
            }
            Remembered::Stale(value) => Some(value),
            Remembered::Nothing => None,
        };
        match self.asked(ask).await {
            Ok(value) => {
                self.counts.count(Answer::Asked);
                Ok(value)
            }
            Err(no_answer) => {
                match no_answer {
                    NoAnswer::Failed(why) => self.lost(&why),
                    NoAnswer::Senseless(error) => warn!(event = "fault", %error),
                    NoAnswer::Paused | NoAnswer::Refused => {}
                }
                let answer = match stale {
                    Some(_) => Answer::Stale,
                    None => Answer::None,
                };
                self.counts.count(answer);
                stale.ok_or(Away)
            }
        }
    }

    async fn asked<'a, V>(
        &'a self,
        ask: impl Fn(Client, Asked) -> BoxFuture<'a, Result<V, NoAnswer>>,
    ) -> Result<V, NoAnswer> {
        let now = Instant::now();
        if self.reach().ask_again_at.is_some_and(|again| now < again) {
            return Err(NoAnswer::Paused);
        }
        let until = now + self.patience;
        let mut why = "there is no node".to_owned();
        for left in (1..=self.nodes.count()).rev() {
            let Some((node, client)) = self.nodes.current() else {
                break;
            };
            let now = Instant::now();
            let asked = self.memory().asking(now);
            let its_share = until.saturating_duration_since(now) / u32::try_from(left).unwrap_or(1);
            match timeout(its_share, ask(client, asked)).await {
                Ok(Err(NoAnswer::Failed(failure))) => why = failure,
                Err(_) => "no answer in time".clone_into(&mut why),
                Ok(answer) => {
                    self.found();
                    return answer;
                }
            }
            self.move_on(node);
        }
        Err(NoAnswer::Failed(why))
    }

    /// The next node is asked; what was learnt from this one may change there unheard.
    fn move_on(&self, from: usize) {
        if self.nodes.move_on(from) {
            self.memory().deaf();
        }
    }

    /// Listens to what changes until `stop`, and again whenever the stream ends.
    pub async fn listen(&self, stop: CancellationToken) {
        tokio::select! {
            () = self.keep_listening() => {}
            () = stop.cancelled() => {}
        }
    }

    async fn keep_listening(&self) {
        let mut pause = LISTEN_AGAIN;
        // Nodes one after the other that told nothing.
        let mut silent = 0;
        while let Some((node, client)) = self.nodes.current() {
            let mut begun = false;
            let why = tokio::select! {
                why = self.hear(client, &mut begun) => Some(why),
                () = self.nodes.moved_from(node) => None,
            };
            self.memory().deaf();
            if begun {
                (pause, silent) = (LISTEN_AGAIN, 0);
            }
            let Some(why) = why else {
                continue;
            };
            silent += 1;
            self.move_on(node);
            if silent >= self.nodes.count() {
                self.lost(&why);
                sleep(pause).await;
                pause = (pause * 2).min(LISTEN_AGAIN_AT_MOST);
                silent = 0;
            }
        }
    }

    /// One stream to its end; says why it ended, and whether it told anything.
    async fn hear(&self, mut client: Client, begun: &mut bool) -> String {
        let watching = timeout(self.patience, client.watch(WatchRequest {}));
        let mut stream = match watching.await {
            Ok(Ok(stream)) => stream.into_inner(),
            Ok(Err(status)) => return format!("{:?}: {}", status.code(), status.message()),
            Err(_) => return "no answer in time".to_owned(),
        };
        loop {
            match stream.message().await {
                Ok(Some(told)) if *begun => {
                    self.memory().changed(&told.addresses, told.generation);
                }
                Ok(Some(told)) => {
                    *begun = true;
                    self.memory().listen(told.generation);
                    self.found();
                }
                Ok(None) => return "the stream of changes ended".to_owned(),
                Err(status) => return format!("{:?}: {}", status.code(), status.message()),
            }
        }
    }

    fn lost(&self, why: &str) {
        let mut reach = self.reach();
        reach.ask_again_at = Some(Instant::now() + PAUSE);
        if !std::mem::replace(&mut reach.is_away, true) {
            self.away.set(1);
            warn!(
                event = "accounts_lost",
                reason = why,
                "the queue does not tell of accounts; what is remembered goes on, all else is told to come again"
            );
        }
    }

    fn found(&self) {
        let mut reach = self.reach();
        reach.ask_again_at = None;
        if std::mem::replace(&mut reach.is_away, false) {
            self.away.set(0);
            info!(
                event = "accounts_found",
                "the queue tells of accounts again"
            );
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reach(&self) -> MutexGuard<'_, Reach> {
        self.reach.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A name that is no address is no account, and asked for like any other.
fn account_of(name: &str) -> String {
    Mailbox::parse(name).map_or_else(
        |_| name.chars().take(LONGEST_NAME).collect(),
        |name| name.folded(),
    )
}

fn terms(max_age_ms: u64, generation: u64) -> Terms {
    Terms {
        max_age: Duration::from_millis(max_age_ms),
        generation,
    }
}
