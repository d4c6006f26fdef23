//! Mail to the world.
//!
//! ```text
//! lease ─► next_hop (MX, addresses, guards) ─► Conversation: connect, set_up, transfer ─► Ledger ─► settlement
//!                                               │   ▲ an idle one of the Pool, if it fits
//!                                               └─ the next candidate for those without an outcome
//! ```
//!
//! A job is one destination with up to a hundred recipients; each gets an outcome of its own. Candidates are tried in
//! their order until every recipient has one (RFC 5321 §5.1). What goes wrong is an [`Outcome`], never an error.

mod apart;
mod attempt;
mod attempted;
pub mod content;
mod conversation;
mod counts;
mod dane;
pub mod deciding;
pub mod demands;
mod host;
mod ledger;
mod login;
mod lots;
pub mod next_hop;
pub mod outgoing;
pub mod own;
mod places;
mod pool;
mod race;
mod reach;
mod record;
pub mod resolve;
pub mod security;
mod shelf;
mod site;
pub mod sources;
pub mod sts;
mod tlsrpt;
mod together;
mod tried;
mod trouble;
pub mod turns;
mod unusable;
pub mod ways;

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use futures::FutureExt as _;
use postroad_daemon::{Apply, CommonConfig, machine_name};
use postroad_dns::Resolver;
use postroad_metrics::Metrics;
use postroad_net::ClientTls;
use postroad_queue_client::worker::{self, Desk, Handler, Party, Verdict, WorkerOptions};
use postroad_queue_client::{Lease, QueueService};
use postroad_smtp::HeloName;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::apart::Apart;
use self::counts::{CLASSES, Counts};
use self::next_hop::Surroundings;
use self::places::Places;
use self::pool::Pool;
use self::reach::Reach;
use self::shelf::Limits;
use self::sources::Sources;
use self::sts::Policies;
use self::tlsrpt::{Reports, Sending};
use self::ways::{Ways, watch_files};
use crate::Error;
use crate::bounces::Bounces;
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
    sources: Sources,
    around: Surroundings,
    own_names: Vec<String>,
    ways: Arc<Ways>,
    bounces: Bounces,
    queue: Arc<dyn QueueService>,
    resolver: Arc<dyn Resolver>,
    places: Places,
    policies: Policies,
    reports: Reports,
    counts: Arc<Counts>,
    pool: Arc<Pool>,
    reach: Reach,
    apart: Apart,
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
        let sources = Sources::new(&config, helo_name(&config, common)?)?;
        sources.warn();
        let around = own::surroundings(&config, common, listening);
        let ways = Arc::new(Ways::new(&config)?);
        let bounces = bounces(&config)?;
        let files = watch::Sender::new(ways.files());
        let counts = Arc::new(Counts::new(metrics));
        let sender = Sender {
            agent: format!("mta@{}", common.hostname.a_label()),
            sources,
            own_names: around.own_names.iter().map(ToString::to_string).collect(),
            around,
            ways,
            bounces,
            queue,
            resolver,
            places: Places::new(config.per_destination),
            policies: Policies::open(&common.state_dir.join("mta"), &config.mta_sts),
            reports: Reports::open(&common.state_dir.join("mta")),
            pool: Pool::new(Limits::of(&config.reuse), Arc::clone(&counts)),
            counts,
            reach: Reach::default(),
            apart: Apart::default(),
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
        let sources = Sources::new(config, helo_name(config, &self.common)?)?;
        sources.warn();
        let around = own::surroundings(config, &self.common, &self.listening);
        let ways = Arc::new(Ways::new(config)?);
        let bounces = bounces(config)?;
        let (current, config) = (Arc::clone(&self.current), config.clone());
        let files = self.files.clone();
        Ok(Apply::new(move || {
            let old = current.load_full();
            // Who has mended a name in the DNS need not wait for its TTL.
            old.resolver.forget();
            // Idle connections were made as the configuration was.
            let (ways, pool) = match config == old.config {
                true => (Arc::clone(&old.ways), Arc::clone(&old.pool)),
                false => (ways, old.pool.successor(Limits::of(&config.reuse))),
            };
            let new = Sender {
                agent: old.agent.clone(),
                sources,
                own_names: around.own_names.iter().map(ToString::to_string).collect(),
                around,
                ways,
                bounces,
                queue: Arc::clone(&old.queue),
                resolver: Arc::clone(&old.resolver),
                places: old.places.with_limit(config.per_destination),
                policies: old.policies.clone(),
                reports: old.reports.clone(),
                counts: Arc::clone(&old.counts),
                pool: Arc::clone(&pool),
                reach: old.reach.clone(),
                apart: old.apart.clone(),
                config,
            };
            files.send_replace(new.ways.files());
            current.store(Arc::new(new));
            if !Arc::ptr_eq(&pool, &old.pool) {
                old.pool.close();
            }
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
        let queue = Arc::clone(&sender.queue);
        drop(sender);
        let current = Arc::clone(&self.current);
        // Certificates matter as long as a job may still begin.
        let worked = CancellationToken::new();
        let watching = watch_files(self.files.subscribe(), worked.clone());
        let reports = current.load().reports.clone();
        let reporting = reports.run(self.sending(), worked.clone());
        let working = async {
            worker::run(queue, options, Arc::new(self), shutdown).await;
            worked.cancel();
        };
        tokio::join!(working, watching, reporting);
        let last = current.load_full();
        last.pool.close();
        let quit = last.config.timeouts.quit.as_duration();
        // Their outcomes are settled; a host that does not even say good-bye is left standing.
        let _ = timeout(quit, last.pool.closed()).await;
    }
}

impl Outbound {
    /// For reports of TLS; each start has its own time for them, that not all the world sends them at once.
    fn sending(&self) -> Sending {
        let sender = self.current.load();
        let config = &sender.config.tls_reports;
        Sending {
            enabled: config.enabled,
            queue: Arc::clone(&sender.queue),
            resolver: Arc::clone(&sender.resolver),
            hostname: self.common.hostname.a_label().to_owned(),
            organisation: self.common.domain().a_label().to_owned(),
            after: config.spread.as_duration().mul_f64(rand::random()),
        }
    }
}

pub fn bounces(config: &OutboundConfig) -> Result<Bounces, Error> {
    Bounces::outbound(config).map_err(|source| Error::BounceKey {
        key: "mta.outbound.bounce_key_file",
        source,
    })
}

pub fn helo_name(config: &OutboundConfig, common: &CommonConfig) -> Result<HeloName, Error> {
    let name = own::helo_name(config, common).a_label().to_owned();
    HeloName::parse(&name).ok_or(Error::HeloName(name))
}

#[async_trait]
impl Handler for Outbound {
    async fn handle(&self, lease: Lease) -> Verdict {
        self.handle_at(lease, Desk::closed()).await
    }

    async fn handle_at(&self, lease: Lease, desk: Desk) -> Verdict {
        self.current.load_full().carry_out_one(lease, &desk).await
    }

    fn joins(&self) -> bool {
        self.current.load().config.join_domains
    }

    async fn part(self: Arc<Self>, leases: Vec<Lease>, desk: Desk) -> Vec<Party> {
        let sender = self.current.load_full();
        let joined = sender.part(leases).await.into_iter();
        let parties = joined.map(|joined| {
            let (sender, desk) = (Arc::clone(&sender), desk.clone());
            Party {
                leases: joined.leases(),
                work: async move { sender.carry_out(joined, &desk).await }.boxed(),
            }
        });
        parties.collect()
    }
}
