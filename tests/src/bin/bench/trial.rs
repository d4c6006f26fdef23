//! Rounds of several products in turn, with the same mails: what they have in common, wherever the mails go.

mod report;

use std::{
    fmt,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use async_trait::async_trait;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::{interval, timeout},
};

use crate::{
    kept::Syncs,
    load::{self, Mails, To, Way},
    machine::{Cpu, product_memory},
    postfix,
    product::{Kind, Product, Task},
    sink::Count,
    source,
};

/// Mails before a round that are not measured: processes start, caches fill.
const WARM_UP: usize = 200;
const MEMORY_EVERY: Duration = Duration::from_secs(1);

#[derive(Args)]
pub struct Rounds {
    /// Rounds of each product, in turn.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Mails in a round.
    #[arg(long, default_value_t = 3000)]
    mails: usize,
    /// Octets of a mail; several sizes are measured one after the other.
    #[arg(long, value_delimiter = ',', default_values_t = [5 << 10])]
    size: Vec<usize>,
    /// Connections at a time; several numbers are measured one after the other.
    #[arg(long, value_delimiter = ',', default_values_t = [20, 100])]
    sessions: Vec<usize>,
    /// Mails on each connection; several numbers likewise.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 20])]
    per_connection: Vec<usize>,
    /// Who brings the mail. Postfix's program sends to one domain, with a connection for each mail or never a new one.
    #[arg(long, default_value_t = Load::Own)]
    load: Load,
    /// Measure the load alone too, straight to where the mails go (store-and-forward).
    #[arg(long)]
    direct: bool,
    /// Only these products.
    #[arg(long, value_delimiter = ',', default_values_t = Kind::ALL)]
    only: Vec<Kind>,
    /// Skip the extra round in which syncs are counted.
    #[arg(long)]
    no_syncs: bool,
    /// Seconds a round may take.
    #[arg(long, default_value_t = 120)]
    time_limit: u64,
    /// What the contents are made from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print the figures as JSON too.
    #[arg(long)]
    pub json: bool,
}

/// Who brings the mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Load {
    Own,
    SmtpSource,
}

/// As it is typed.
impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Own => "own",
            Self::SmtpSource => "smtp-source",
        })
    }
}

impl Rounds {
    /// Whether the load can bring mail for so many domains.
    pub fn check_domains(&self, domains: u8) -> Result<()> {
        ensure!(
            self.load == Load::Own || domains == 1,
            "smtp-source sends to one domain: add --destinations 1"
        );
        Ok(())
    }

    fn shapes(&self) -> Vec<Shape> {
        let mut shapes = Vec::new();
        for &size in &self.size {
            for &sessions in &self.sessions {
                shapes.extend(self.per_connection.iter().map(|&per_connection| Shape {
                    size,
                    sessions,
                    per_connection,
                }));
            }
        }
        shapes
    }
}

/// Where the mails go.
#[async_trait(?Send)]
pub trait Goal {
    /// What a product has to do.
    fn task(&self) -> Task<'_>;
    /// Whom mails are to.
    fn to(&self) -> To;
    /// From now on these are counted.
    fn expect(&self, mails: &Arc<Mails>);
    /// Where a load can bring mail without a product.
    fn direct(&self) -> Option<SocketAddr> {
        None
    }
    /// Returns when all mails expected have arrived, by way of a product or of none.
    async fn all_arrived(&self, product: Option<&Product>) -> Result<()>;
    /// What has arrived.
    fn count(&self, product: Option<&Product>) -> Result<Count>;
}

/// How the load comes.
#[derive(Clone, Copy)]
struct Shape {
    size: usize,
    sessions: usize,
    per_connection: usize,
}

struct Measured {
    /// Mails per second until the last was accepted.
    accepted: f64,
    /// Mails per second until the last arrived.
    through: f64,
    /// Seconds of processor time for 1,000 mails, until all were settled.
    cpu: f64,
    /// The same of load and goal.
    own_cpu: f64,
    /// MiB at the most.
    memory: f64,
    /// What others used of the processors, in percent.
    foreign: f64,
}

/// Measures all shapes; `bench` is the name of it.
pub async fn run(bench: &str, options: &Rounds, goal: &dyn Goal) -> Result<Value> {
    let kinds = postfix::measurable(&options.only);
    println!(
        "{bench}: {} mails a round to {}, seed {}",
        options.mails,
        goal.to(),
        options.seed
    );
    ensure!(
        !options.direct || goal.direct().is_some(),
        "--direct needs a host that mail goes to: only store-and-forward has one"
    );
    let bench_of = Bench { options, goal };
    let mut results = Vec::new();
    for shape in options.shapes() {
        results.push(bench_of.compare(&kinds, shape).await?);
    }
    Ok(
        json!({ "bench": bench, "seed": options.seed, "mails": options.mails, "to": goal.to().to_string(), "shapes": results }),
    )
}

struct Bench<'a> {
    options: &'a Rounds,
    goal: &'a dyn Goal,
}

impl Bench<'_> {
    async fn compare(&self, kinds: &[Kind], shape: Shape) -> Result<Value> {
        let mut rounds: Vec<(Kind, Vec<Measured>)> =
            kinds.iter().map(|kind| (*kind, Vec::new())).collect();
        let mut direct = Vec::new();
        for round in 0..self.options.rounds {
            // Who begins changes, in case the disk remembers.
            if round > 0 {
                rounds.reverse();
            }
            for (kind, measured) in &mut rounds {
                let result = self.round(*kind, shape).await;
                let result = result.with_context(|| format!("{kind}, round {}", round + 1))?;
                eprintln!(
                    "bench: {} octets, {} sessions, {} to a connection, round {}, {kind}: {:.0}/s accepted, {:.0}/s through, {:.2} CPU s/1000, others {:.0} %",
                    shape.size,
                    shape.sessions,
                    shape.per_connection,
                    round + 1,
                    result.accepted,
                    result.through,
                    result.cpu,
                    result.foreign
                );
                measured.push(result);
            }
            direct.extend(self.direct(shape).await?);
        }
        rounds.sort_by_key(|(kind, _)| kinds.iter().position(|one| one == kind));
        let mut syncs = Vec::new();
        for kind in kinds {
            syncs.push(match self.options.no_syncs {
                true => None,
                false => self.syncs(*kind, shape).await?,
            });
        }
        Ok(report::report(shape, &rounds, &syncs, &direct))
    }

    async fn round(&self, kind: Kind, shape: Shape) -> Result<Measured> {
        let product = Product::start(kind, self.goal.task(), Syncs::Ignored).await?;
        let (way, through) = (product.way()?, Some(&product));
        let warm_up = WARM_UP.min(self.options.mails);
        self.pass(&way, through, warm_up, shape).await?;
        product.idle().await?;
        let memory = Memory::watch();
        let (before, began) = (Cpu::now()?, Instant::now());
        let took = self.pass(&way, through, self.options.mails, shape).await?;
        product.idle().await?;
        let (cpu, elapsed) = (Cpu::now()?.since(before), began.elapsed());
        let memory = memory.end().await?;
        product.end().await?;
        let mails = self.options.mails as f64;
        Ok(Measured {
            accepted: mails / took.accepted.as_secs_f64(),
            through: mails / took.through.as_secs_f64(),
            cpu: cpu.product / mails * 1000.0,
            own_cpu: cpu.own / mails * 1000.0,
            memory,
            foreign: cpu.foreign_percent(elapsed),
        })
    }

    /// Mails per second from the load straight to where they go, if that is wanted.
    async fn direct(&self, shape: Shape) -> Result<Option<f64>> {
        let Some(server) = self.goal.direct().filter(|_| self.options.direct) else {
            return Ok(None);
        };
        let way = Way {
            server,
            submission: None,
        };
        let took = self.pass(&way, None, self.options.mails, shape).await?;
        let rate = self.options.mails as f64 / took.through.as_secs_f64();
        eprintln!("bench: the load alone: {rate:.0}/s");
        Ok(Some(rate))
    }

    /// Syncs per mail, from a round of its own that is not timed.
    async fn syncs(&self, kind: Kind, shape: Shape) -> Result<Option<f64>> {
        let product = Product::start(kind, self.goal.task(), Syncs::Counted).await?;
        let way = product.way()?;
        self.pass(&way, Some(&product), self.options.mails, shape)
            .await?;
        product.idle().await?;
        let syncs = product.end().await?;
        eprintln!(
            "bench: {kind}: {syncs:?} syncs for {} mails",
            self.options.mails
        );
        Ok(syncs.map(|syncs| syncs as f64 / self.options.mails as f64))
    }

    /// Sends mails through; every one must arrive once and unchanged.
    async fn pass(
        &self,
        way: &Way,
        product: Option<&Product>,
        count: usize,
        shape: Shape,
    ) -> Result<Took> {
        let options = self.options;
        let mails = Mails::new(count, shape.size, self.goal.to(), options.seed);
        let mails = Arc::new(match options.load {
            Load::Own => mails,
            Load::SmtpSource => mails.numbered_by_recipient(),
        });
        self.goal.expect(&mails);
        let began = Instant::now();
        let pass = async {
            let (sessions, per_connection) = (shape.sessions, shape.per_connection);
            match options.load {
                Load::Own => load::bring(&mails, way, sessions, per_connection).await?,
                Load::SmtpSource => source::bring(&mails, way, sessions, per_connection).await?,
            }
            let accepted = began.elapsed();
            self.goal.all_arrived(product).await?;
            anyhow::Ok(Took {
                accepted,
                through: began.elapsed(),
            })
        };
        let ended = timeout(Duration::from_secs(options.time_limit), pass).await;
        let counted = self.goal.count(product)?;
        let took = ended
            .with_context(|| format!("{counted:?} of {count} within {} s", options.time_limit))??;
        let whole = Count {
            arrived: count,
            ..Count::default()
        };
        ensure!(counted == whole, "{counted:?} of {count}");
        Ok(took)
    }
}

struct Took {
    accepted: Duration,
    through: Duration,
}

/// Looks at the memory of the product from time to time.
pub struct Memory {
    watching: JoinHandle<()>,
    most: Arc<std::sync::Mutex<f64>>,
}

impl Memory {
    /// From now on.
    pub fn watch() -> Self {
        let most = Arc::new(std::sync::Mutex::new(0.0));
        let greatest = Arc::clone(&most);
        let watching = tokio::spawn(async move {
            let mut ticks = interval(MEMORY_EVERY);
            loop {
                ticks.tick().await;
                let Ok(now) = spawn_blocking(product_memory).await else {
                    return;
                };
                if let Ok(mut most) = greatest.lock() {
                    *most = now.max(*most);
                }
            }
        });
        Self { watching, most }
    }

    /// The most, in MiB.
    pub async fn end(self) -> Result<f64> {
        self.watching.abort();
        let now = spawn_blocking(product_memory).await?;
        Ok(self.most.lock().map_or(now, |most| now.max(*most)))
    }
}
