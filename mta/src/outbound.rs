//! Mail to the world.
//!
//! ```text
//! lease ─► next_hop (MX, addresses, guards) ─► Conversation: connect, set_up, transfer ─► Ledger ─► settlement
//!                                               └─ the next candidate for those without an outcome
//! ```
//!
//! A job is one destination with up to a hundred recipients; each gets an outcome of its own. Candidates are tried in
//! their order until every recipient has one (RFC 5321 §5.1). What goes wrong is an [`Outcome`], never an error.

mod content;
mod conversation;
mod counts;
mod ledger;
pub mod next_hop;
mod own;
mod places;
mod record;
pub mod resolve;
mod unusable;
mod ways;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use postroad_address::ForwardPath;
use postroad_daemon::{Apply, CommonConfig, machine_name};
use postroad_dns::Resolver;
use postroad_envelope::{
    Envelope, Notify, Outcome, Recipient, RecipientIndex, Route, RouteClass, StatusReport,
    Timestamp,
};
use postroad_metrics::Metrics;
use postroad_net::ClientTls;
use postroad_queue_client::worker::{self, Handler, Verdict, WorkerOptions};
use postroad_queue_client::{HandBack, Lease, QueueService, Settlement};
use postroad_reply::{BAD_CONTENT_5_6_0, LOOP_5_4_6, MISCONFIGURED_4_3_5, SYSTEM_4_3_0};
use postroad_smtp::HeloName;
use postroad_smtp_session::{ClientConfig, OutgoingMail, OutgoingRecipient, TlsUse};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::content::{Content, ContentError};
use self::conversation::{Conversation, Disposition, Manners, Trouble};
use self::counts::{CLASSES, Counts};
use self::ledger::{Hop, Ledger};
use self::next_hop::{Candidate, NextHop, Surroundings, Target};
use self::places::Places;
use self::unusable::Unusable;
use self::ways::{Ways, watch_files};
use crate::Error;
use crate::config::OutboundConfig;

/// The worker for mail to the world, and to named hosts by SMTP and LMTP. Clones share what it is like, so that a changed
/// configuration reaches the jobs that begin from then on.
#[derive(Clone)]
pub struct Outbound {
    current: Arc<ArcSwap<Sender>>,
    /// What is read again when its files change.
    files: watch::Sender<Vec<ClientTls>>,
    common: CommonConfig,
    listening: Vec<SocketAddr>,
    concurrency: u32,
}

/// How jobs are tried that begin now.
struct Sender {
    config: OutboundConfig,
    agent: String,
    helo_name: HeloName,
    around: Surroundings,
    own_names: Vec<String>,
    ways: Ways,
    queue: Arc<dyn QueueService>,
    resolver: Arc<dyn Resolver>,
    places: Places,
    counts: Arc<Counts>,
    /// Conversations that only wait for the answer to QUIT.
    partings: TaskTracker,
}

impl Outbound {
    /// A worker that has not begun. `listening`: where this process takes mail itself.
    pub fn new(
        config: OutboundConfig,
        common: &CommonConfig,
        listening: &[SocketAddr],
        queue: Arc<dyn QueueService>,
        resolver: Arc<dyn Resolver>,
        metrics: &Metrics,
    ) -> Result<Self, Error> {
        let concurrency = config.concurrency;
        let helo_name = helo_name(&config, common)?;
        let around = own::surroundings(&config, common, listening);
        let ways = Ways::new(&config)?;
        let files = watch::Sender::new(ways.files());
        let sender = Sender {
            agent: format!("mta@{}", common.hostname.a_label()),
            helo_name,
            own_names: around.own_names.iter().map(ToString::to_string).collect(),
            around,
            ways,
            queue,
            resolver,
            places: Places::new(config.per_destination),
            counts: Arc::new(Counts::new(metrics)),
            partings: TaskTracker::new(),
            config,
        };
        Ok(Self {
            current: Arc::new(ArcSwap::from_pointee(sender)),
            files,
            common: common.clone(),
            listening: listening.to_vec(),
            concurrency,
        })
    }

    /// How another configuration is put into force, for jobs that begin from then on.
    pub fn renewal(&self, config: &OutboundConfig) -> Result<Apply, Error> {
        let helo_name = helo_name(config, &self.common)?;
        let around = own::surroundings(config, &self.common, &self.listening);
        let ways = Ways::new(config)?;
        let (current, config) = (Arc::clone(&self.current), config.clone());
        let files = self.files.clone();
        Ok(Apply::new(move || {
            let old = current.load();
            let new = Sender {
                agent: old.agent.clone(),
                helo_name,
                own_names: around.own_names.iter().map(ToString::to_string).collect(),
                around,
                ways,
                queue: Arc::clone(&old.queue),
                resolver: Arc::clone(&old.resolver),
                places: old.places.with_limit(config.per_destination),
                counts: Arc::clone(&old.counts),
                partings: old.partings.clone(),
                config,
            };
            files.send_replace(new.ways.files());
            current.store(Arc::new(new));
        }))
    }

    /// Takes leases until `shutdown`, then ends what it holds within the grace period.
    pub async fn run(self, shutdown: CancellationToken) {
        let sender = self.current.load_full();
        let options = WorkerOptions {
            stores: Vec::new(),
            agent: sender.agent.clone(),
            host: machine_name(),
            classes: CLASSES.to_vec(),
            concurrency: self.concurrency,
            grace: self.common.shutdown_grace.as_duration(),
        };
        let (queue, partings) = (Arc::clone(&sender.queue), sender.partings.clone());
        drop(sender);
        let current = Arc::clone(&self.current);
        // Certificates matter as long as a job may still begin.
        let worked = CancellationToken::new();
        let watching = watch_files(self.files.subscribe(), worked.clone());
        let working = async {
            worker::run(queue, options, Arc::new(self), shutdown).await;
            worked.cancel();
        };
        tokio::join!(working, watching);
        partings.close();
        let quit = current.load().config.timeouts.quit.as_duration();
        // Their outcomes are settled; a host that does not even say good-bye is left standing.
        let _ = timeout(quit, partings.wait()).await;
    }
}

fn helo_name(config: &OutboundConfig, common: &CommonConfig) -> Result<HeloName, Error> {
    let name = own::helo_name(config, common).a_label().to_owned();
    HeloName::parse(&name).ok_or(Error::HeloName(name))
}

impl Sender {
    /// Tries a job at one host after the other.
    async fn attempt(&self, lease: &Lease) -> Attempted {
        let way = self.ways.of(&lease.route);
        let hop = Hop {
            routed: lease.route.next_hop.is_some(),
            listed: way.is_listed(),
        };
        let mut ledger = Ledger::new(&lease.envelope.recipients, hop);
        let hops = lease.envelope.hop_count;
        if hops > self.config.max_hops {
            let text = format!("the mail loops: it has {hops} Received fields");
            ledger.settle_rest(&Outcome::Failed(StatusReport::local(LOOP_5_4_6, text)));
            return Attempted::nowhere(ledger);
        }
        if let Some(report) = way.paused(&lease.route, Instant::now()) {
            ledger.settle_rest(&Outcome::Delayed(report));
            return Attempted::nowhere(ledger);
        }
        let hop = match self.next_hop(lease).await {
            Ok(hop) => hop,
            Err(verdict) => {
                ledger.settle_rest(&verdict.into_outcome());
                return Attempted::nowhere(ledger);
            }
        };
        match Content::open(&self.queue, lease).await {
            Ok(content) => self.try_all(&hop, lease, &content, &mut ledger).await,
            Err(error) => ledger.settle_rest(&unreadable(&error)),
        }
        Attempted {
            outcomes: ledger.finish(),
            site: Some(hop.site),
        }
    }

    async fn next_hop(&self, lease: &Lease) -> Result<NextHop, next_hop::Verdict> {
        let route = &lease.route;
        if route.class == RouteClass::Lmtp && route.next_hop.is_none() {
            return Err(no_lmtp_host(route));
        }
        let target = Target::of(route)?;
        let seed = rand::random();
        let hop = resolve::next_hop(&*self.resolver, &target, &self.around, seed).await?;
        for note in &hop.notes {
            tracing::debug!(
                queue_id = %lease.envelope.queue_id,
                destination = %route.destination,
                "{note}"
            );
        }
        Ok(hop)
    }

    async fn try_all(
        &self,
        hop: &NextHop,
        lease: &Lease,
        content: &Content,
        ledger: &mut Ledger<'_>,
    ) {
        for candidate in &hop.candidates {
            let mail = outgoing(lease, ledger, content);
            let disposition = self.try_host(candidate, &lease.route, &mail, content).await;
            let unusable = Unusable::of_routed(&disposition);
            let well = disposition.trouble.is_none() && unusable.is_none();
            ledger.enter(candidate, disposition);
            match unusable {
                Some(unusable) => self.note(lease, ledger, unusable),
                None if well => self.ways.of(&lease.route).works(&lease.route),
                None => {}
            }
            if ledger.is_settled() {
                return;
            }
            if let Some(report) = ledger.last_trouble() {
                record::passed_over(lease, report);
            }
        }
    }

    /// A host that cannot be used is counted, and told to a person if our configuration names it.
    fn note(&self, lease: &Lease, ledger: &Ledger<'_>, unusable: Unusable) {
        let (way, route) = (self.ways.of(&lease.route), &lease.route);
        let named = way.is_listed() || route.next_hop.is_some();
        if unusable == Unusable::LoginMissing && !named {
            return;
        }
        self.counts.connections.unusable.count(unusable.label());
        let (Some(report), now) = (ledger.last_trouble(), Instant::now()) else {
            return;
        };
        if named && way.is_news(route, now) {
            record::unusable(lease, report, unusable, way.is_listed());
        }
        if matches!(unusable, Unusable::LoginRefused | Unusable::NoMechanism) {
            way.login_refused(route, report, now);
        }
    }

    /// One host; a second time in plain text if encryption was offered and failed.
    async fn try_host(
        &self,
        candidate: &Candidate,
        route: &Route,
        mail: &OutgoingMail,
        content: &Content,
    ) -> Disposition {
        // Nobody is in between at a socket, and there is no name that a certificate could have.
        let tls = match candidate.is_socket() {
            true => TlsUse::Never,
            false => self.ways.of(route).tls_use(),
        };
        let manners = self.manners(candidate, route, tls);
        let may_fall_back = tls == TlsUse::IfOffered && !manners.implicit_tls;
        match converse(candidate, &manners).await {
            Err(trouble) if may_fall_back && is_handshake(&trouble) => {
                // RFC 7435 §3: opportunistic security falls back to what there was before.
                tracing::info!(
                    event = "tls_failed",
                    relay = %record::relay(&candidate.remote(None)),
                    "sending in plain text instead: {trouble}"
                );
                let manners = self.manners(candidate, route, TlsUse::Never);
                let conversation = converse(candidate, &manners).await;
                self.deliver(conversation, mail, content).await
            }
            conversation => self.deliver(conversation, mail, content).await,
        }
    }

    async fn deliver(
        &self,
        conversation: Result<Conversation, Trouble>,
        mail: &OutgoingMail,
        content: &Content,
    ) -> Disposition {
        let mut conversation = match conversation {
            Ok(conversation) => conversation,
            Err(trouble) => {
                return Disposition {
                    trouble: Some(trouble),
                    ..Disposition::default()
                };
            }
        };
        let disposition = conversation.transfer(mail.clone(), content).await;
        if disposition.trouble.is_none() {
            self.partings.spawn(conversation.part());
        }
        disposition
    }

    fn manners(&self, candidate: &Candidate, route: &Route, tls: TlsUse) -> Manners<'_> {
        let way = self.ways.of(route);
        let (tls_name, tls_names) = way.names(candidate, route);
        let lmtp = route.class == RouteClass::Lmtp;
        Manners {
            config: &self.config,
            client: ClientConfig {
                lmtp,
                tls,
                auth: way.auth.clone(),
                auth_without_tls: way.auth_without_tls,
                timeouts: (&self.config.timeouts).into(),
                ..ClientConfig::new(self.helo_name.clone())
            },
            tls: &way.tls,
            tls_name,
            tls_names,
            implicit_tls: way.is_implicit(route),
            counts: &self.counts.connections,
            // An LMTP server of this host rightly has its name.
            own_names: if lmtp { &[] } else { &self.own_names },
            routed: route.next_hop.is_some(),
        }
    }
}

#[async_trait]
impl Handler for Outbound {
    async fn handle(&self, lease: Lease) -> Verdict {
        self.current.load_full().carry_out(lease).await
    }
}

impl Sender {
    async fn carry_out(&self, lease: Lease) -> Verdict {
        let now = Instant::now();
        let _place = match self.places.take(&lease.route.destination, now) {
            Ok(place) => place,
            Err(delay) => {
                self.counts.limited.count();
                return Verdict::HandBack(HandBack {
                    touch: postroad_queue_client::Touch::Unclear,
                    lease: lease.lease,
                    delay,
                    reason: "limited".to_owned(),
                });
            }
        };
        let _worked_on = self.counts.attempts.begin();
        let started_at = Timestamp::from(SystemTime::now());
        let Attempted { outcomes, site } = self.attempt(&lease).await;
        let (class, took) = (lease.route.class, now.elapsed());
        let each = outcomes.iter().map(|(_, outcome)| outcome);
        self.counts.attempts.tried(class, each, took);
        let events = record::attempt(&self.agent, &lease, &outcomes, started_at);
        // The timeline is worth a moment, the settlement is worth more.
        let _ = timeout(record::PATIENCE, self.queue.record(events)).await;
        Verdict::Settle(Settlement {
            elsewhere: Vec::new(),
            lease: lease.lease,
            outcomes,
            site,
            started_at,
        })
    }
}

/// The result of a job.
struct Attempted {
    outcomes: Vec<(RecipientIndex, Outcome)>,
    site: Option<String>,
}

impl Attempted {
    fn nowhere(ledger: Ledger<'_>) -> Self {
        Self {
            outcomes: ledger.finish(),
            site: None,
        }
    }
}

async fn converse(candidate: &Candidate, manners: &Manners<'_>) -> Result<Conversation, Trouble> {
    let conversation = Conversation::connect(candidate, manners).await?;
    conversation.set_up(manners).await
}

/// Whether a conversation ended because of STARTTLS, rather than by the host's refusal of us.
fn is_handshake(trouble: &Trouble) -> bool {
    trouble.stage() == postroad_smtp_session::Stage::StartTls && trouble.reply().is_none()
}

/// The mail for those without an outcome.
fn outgoing(lease: &Lease, ledger: &Ledger<'_>, content: &Content) -> OutgoingMail {
    let envelope = &lease.envelope;
    OutgoingMail {
        reverse_path: envelope.reverse_path.clone(),
        recipients: ledger.pending().map(outgoing_recipient).collect(),
        size: content.size(),
        body: envelope.body,
        smtputf8: envelope.smtputf8,
        utf8_header: content.has_utf8_header(),
        requiretls: envelope.requiretls,
        ret: envelope.ret,
        envid: envelope.envid.clone(),
        auth: submitter(envelope),
    }
}

/// RFC 4954 §5: what a client said of who submitted a mail is believed of its own account alone; of others, and of clients
/// that did not log in, it is `<>`, as if nobody knew.
fn submitter(envelope: &Envelope) -> Option<String> {
    let said = envelope.auth.as_ref()?;
    let own = envelope.account.as_deref();
    let believed = own.is_some_and(|account| account.eq_ignore_ascii_case(said));
    Some(if believed {
        said.clone()
    } else {
        String::new()
    })
}

fn outgoing_recipient(recipient: &Recipient) -> OutgoingRecipient {
    OutgoingRecipient {
        forward_path: ForwardPath::Mailbox(recipient.address.clone()),
        // RFC 3461 §5.2.1: what the sender did not say is not said for them.
        notify: Some(recipient.notify).filter(|notify| *notify != Notify::default()),
        orcpt: recipient.orcpt.clone(),
    }
}

fn unreadable(error: &ContentError) -> Outcome {
    match error {
        ContentError::Queue(_) => {
            let text = format!("the content could not be read from the queue: {error}");
            Outcome::Delayed(StatusReport::local(SYSTEM_4_3_0, text))
        }
        ContentError::Header(_) => {
            Outcome::Failed(StatusReport::local(BAD_CONTENT_5_6_0, error.to_string()))
        }
    }
}

fn no_lmtp_host(route: &Route) -> next_hop::Verdict {
    next_hop::Verdict {
        status: MISCONFIGURED_4_3_5,
        text: format!("{} is for LMTP but names no host", route.rule),
    }
}
