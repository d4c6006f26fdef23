//! Store and forward: from a relay client by way of a durable queue to a remote host.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use postroad_tests::free_port;
use serde_json::{Value, json};
use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::{interval, timeout},
};

use crate::{
    figures::{Figure, cell, json_or_null, table},
    kept::Syncs,
    load::{self, Mails},
    machine::{Cpu, product_memory},
    postfix,
    product::{Kind, Product},
    sink::{Count, Sink},
};

/// Mails before a round that are not measured: processes start, caches fill.
const WARM_UP: usize = 200;
const MEMORY_EVERY: Duration = Duration::from_secs(1);

#[derive(Args)]
pub struct Options {
    /// Rounds of each product, in turn.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Mails in a round.
    #[arg(long, default_value_t = 3000)]
    mails: usize,
    /// Octets of a mail.
    #[arg(long, default_value_t = 5 << 10)]
    size: usize,
    /// Connections at a time; several numbers are measured one after the other.
    #[arg(long, value_delimiter = ',', default_values_t = [20, 100])]
    sessions: Vec<usize>,
    /// Mails on each connection; several numbers likewise.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 20])]
    per_connection: Vec<usize>,
    /// Domains the mails go to, each with a host of its own.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u8).range(1..=200))]
    destinations: u8,
    /// Only this product.
    #[arg(long)]
    only: Option<Kind>,
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

/// How the load comes.
#[derive(Clone, Copy)]
struct Shape {
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
    /// The same of load and sink.
    own_cpu: f64,
    /// MiB at the most.
    memory: f64,
    /// What others used of the processors, in percent.
    foreign: f64,
}

pub async fn run(options: &Options) -> Result<Value> {
    let mut kinds = vec![Kind::Postroad, Kind::Postfix];
    kinds.retain(|kind| options.only.is_none_or(|only| *kind == only));
    if let Some(why) = postfix::missing().filter(|_| kinds.contains(&Kind::Postfix)) {
        eprintln!("bench: Postfix is not measured: {why}");
        kinds.retain(|kind| *kind != Kind::Postfix);
    }
    println!(
        "store-and-forward: {} mails of {} octets a round to {} hosts, seed {}",
        options.mails, options.size, options.destinations, options.seed
    );
    let port = free_port()?;
    let hosts: Vec<SocketAddr> = (1..=options.destinations)
        .map(|host| (Ipv4Addr::new(127, 0, 1, host), port).into())
        .collect();
    let bench = Bench {
        options,
        sink: Sink::up(&hosts).await?,
        hosts,
    };
    let mut results = Vec::new();
    for &sessions in &options.sessions {
        for &per_connection in &options.per_connection {
            let shape = Shape {
                sessions,
                per_connection,
            };
            results.push(bench.compare(&kinds, shape).await?);
        }
    }
    Ok(
        json!({ "bench": "store-and-forward", "seed": options.seed, "mails": options.mails,
        "size": options.size, "destinations": options.destinations, "shapes": results }),
    )
}

struct Bench<'a> {
    options: &'a Options,
    sink: Sink,
    hosts: Vec<SocketAddr>,
}

impl Bench<'_> {
    async fn compare(&self, kinds: &[Kind], shape: Shape) -> Result<Value> {
        let mut rounds: Vec<(Kind, Vec<Measured>)> =
            kinds.iter().map(|kind| (*kind, Vec::new())).collect();
        for round in 0..self.options.rounds {
            // Who begins changes, in case the disk remembers.
            if round > 0 {
                rounds.reverse();
            }
            for (kind, measured) in &mut rounds {
                let result = self.round(*kind, shape).await;
                let result = result.with_context(|| format!("{kind}, round {}", round + 1))?;
                eprintln!(
                    "bench: {} sessions, {} to a connection, round {}, {kind}: {:.0}/s accepted, {:.0}/s through, {:.2} CPU s/1000, others {:.0} %",
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
        }
        rounds.sort_by_key(|(kind, _)| *kind != Kind::Postroad);
        let mut syncs = Vec::new();
        for kind in kinds {
            syncs.push(match self.options.no_syncs {
                true => None,
                false => self.syncs(*kind, shape).await?,
            });
        }
        Ok(report(shape, &rounds, &syncs))
    }

    async fn round(&self, kind: Kind, shape: Shape) -> Result<Measured> {
        let product = Product::start(kind, &self.hosts, Syncs::Ignored).await?;
        self.pass(&product, WARM_UP, shape).await?;
        product.idle().await?;
        let memory = Memory::watch();
        let (before, began) = (Cpu::now()?, Instant::now());
        let took = self.pass(&product, self.options.mails, shape).await?;
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

    /// Syncs per mail, from a round of its own that is not timed.
    async fn syncs(&self, kind: Kind, shape: Shape) -> Result<Option<f64>> {
        let product = Product::start(kind, &self.hosts, Syncs::Counted).await?;
        self.pass(&product, self.options.mails, shape).await?;
        product.idle().await?;
        let syncs = product.end().await?;
        eprintln!(
            "bench: {kind}: {syncs:?} syncs for {} mails",
            self.options.mails
        );
        Ok(syncs.map(|syncs| syncs as f64 / self.options.mails as f64))
    }

    /// Sends mails through; every one must arrive once and unchanged.
    async fn pass(&self, product: &Product, count: usize, shape: Shape) -> Result<Took> {
        let options = self.options;
        let destinations = usize::from(options.destinations);
        let mails = Arc::new(Mails::new(count, options.size, destinations, options.seed));
        self.sink.expect(&mails);
        let began = Instant::now();
        let pass = async {
            load::bring(
                &mails,
                product.inbound,
                shape.sessions,
                shape.per_connection,
            )
            .await?;
            let accepted = began.elapsed();
            self.sink.all_arrived().await?;
            anyhow::Ok(Took {
                accepted,
                through: began.elapsed(),
            })
        };
        let ended = timeout(Duration::from_secs(options.time_limit), pass).await;
        let counted = self.sink.count();
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
struct Memory {
    watching: JoinHandle<()>,
    most: Arc<std::sync::Mutex<f64>>,
}

impl Memory {
    fn watch() -> Self {
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

    async fn end(self) -> Result<f64> {
        self.watching.abort();
        let now = spawn_blocking(product_memory).await?;
        Ok(self.most.lock().map_or(now, |most| now.max(*most)))
    }
}

fn report(shape: Shape, rounds: &[(Kind, Vec<Measured>)], syncs: &[Option<f64>]) -> Value {
    let Shape {
        sessions,
        per_connection,
    } = shape;
    println!("\n{sessions} sessions, {per_connection} to a connection: median (least–greatest)\n");
    let head = [
        "",
        "accepted/s",
        "through/s",
        "CPU s/1000",
        "PSS MiB",
        "syncs/mail",
        "bench CPU s/1000",
        "others' CPU %",
    ];
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    let mut products = Vec::new();
    for ((kind, measured), syncs) in rounds.iter().zip(syncs) {
        let figure = |of: fn(&Measured) -> f64| Figure::of(measured.iter().map(of));
        let figures = [
            ("accepted_per_s", figure(|round| round.accepted)),
            ("through_per_s", figure(|round| round.through)),
            ("cpu_s_per_1000", figure(|round| round.cpu)),
            ("pss_mib", figure(|round| round.memory)),
            (
                "syncs_per_mail",
                syncs.and_then(|syncs| Figure::of([syncs])),
            ),
            ("bench_cpu_s_per_1000", figure(|round| round.own_cpu)),
            ("foreign_cpu_percent", figure(|round| round.foreign)),
        ];
        let mut line = vec![kind.to_string()];
        let mut product = json!({ "product": kind.to_string(), "rounds": measured.len() });
        for (name, figure) in figures {
            line.push(match (name, figure) {
                ("syncs_per_mail", Some(figure)) => format!("{:.3}", figure.median),
                _ => cell(figure),
            });
            product[name] = json_or_null(figure);
        }
        lines.push(line);
        products.push(product);
    }
    print!("{}", table(&lines));
    let ratio = |of: fn(&Measured) -> f64| match rounds {
        [(_, ours), (_, theirs)] => Figure::of(
            ours.iter()
                .zip(theirs)
                .map(|(ours, theirs)| of(ours) / of(theirs)),
        ),
        _ => None,
    };
    let (through, cpu) = (ratio(|round| round.through), ratio(|round| round.cpu));
    println!(
        "\nPostroad to Postfix, round by round: through {}, CPU {}",
        cell(through),
        cell(cpu)
    );
    json!({ "sessions": sessions, "per_connection": per_connection, "products": products,
        "ratio": { "through": json_or_null(through), "cpu": json_or_null(cpu) } })
}
