//! One of many sites is away: what mail for the others notices of it.
//!
//! ```text
//! load, steady ──SMTP──► mta ──► queue ──► mta ──by MX──► a sink at as many addresses as there are sites
//!                                                    └──► one that lets every SYN lie, every other round
//! ```

use std::{
    fmt::Write as _,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use postroad_tests::Stack;
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    time::{Instant, timeout},
};

use crate::{
    figures::{Column, Figure, cell, json_or_null, report},
    kept::Syncs,
    latency::send,
    load::{Mails, To, Way},
    machine::Cpu,
    mails::percentile_ms,
    product,
    sink::Sink,
};

/// The site whose mail is not measured, away or not.
const AWAY: usize = 0;
/// A connection over loopback that takes longer is not made.
const NO_ANSWER: Duration = Duration::from_millis(500);
/// Connections until an address has no room for one more.
const MOST_WAITING: usize = 64;
/// What tests set for haste goes back to what is built in.
const AS_SHIPPED: &str = "[queued.sites]\nprobe_first = \"15s\"\nprobe_longest = \"15m\"\n";
/// For the last mails of a round.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Args)]
pub struct Options {
    /// Sites, each with one domain; mail goes to them in turn.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(2..=20_000))]
    sites: u16,
    /// Mails in a second.
    #[arg(long, default_value_t = 200.0)]
    rate: f64,
    /// Seconds of mail in a round.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Octets of a mail.
    #[arg(long, default_value_t = 5 << 10)]
    size: usize,
    /// Rounds with all sites and with one away, in turn.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// TOML for the stack, such as `queued.sites.enabled = true`.
    #[arg(long, default_value = "")]
    settings: String,
    /// What the contents are made from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print the figures as JSON too.
    #[arg(long)]
    pub json: bool,
}

/// What mail for the others met with, in milliseconds from its 250 to the sink.
struct Round {
    mails: usize,
    median: f64,
    p99: f64,
    longest: f64,
    foreign: f64,
}

const COLUMNS: [Column<Round>; 5] = [
    Column {
        head: "mails for others",
        key: "mails",
        of: |round| round.mails as f64,
    },
    Column {
        head: "250 to host, median ms",
        key: "median_ms",
        of: |round| round.median,
    },
    Column {
        head: "p99 ms",
        key: "p99_ms",
        of: |round| round.p99,
    },
    Column {
        head: "longest ms",
        key: "longest_ms",
        of: |round| round.longest,
    },
    Column {
        head: "others' CPU %",
        key: "foreign_cpu_percent",
        of: |round| round.foreign,
    },
];

pub async fn run(options: &Options) -> Result<Value> {
    ensure!(options.rate > 0.0 && options.seconds > 0, "no mails");
    println!(
        "dead-site: {} sites, {} mails/s for {} s a round, {} octets, seed {}, settings {:?}",
        options.sites, options.rate, options.seconds, options.size, options.seed, options.settings
    );
    let (mut well, mut dead) = (Vec::new(), Vec::new());
    for number in 1..=options.rounds {
        let mut turns = [(false, &mut well), (true, &mut dead)];
        // Who begins changes.
        if number.is_multiple_of(2) {
            turns.reverse();
        }
        for (is_away, rounds) in turns {
            let name = if is_away { "one away" } else { "all there" };
            let result = round(options, is_away).await;
            let round = result.with_context(|| format!("{name}, round {number}"))?;
            eprintln!(
                "bench: round {number}, {name}: {} mails for others, median {:.1} ms, p99 {:.1} ms, longest {:.0} ms, others' CPU {:.0} %",
                round.mails, round.median, round.p99, round.longest, round.foreign
            );
            rounds.push(round);
        }
    }
    let kinds = [
        ("all there", well.as_slice()),
        ("one away", dead.as_slice()),
    ];
    let (table, results) = report("sites", &kinds, &COLUMNS);
    let growth = well.iter().zip(&dead);
    let growth = Figure::of(growth.map(|(well, dead)| (dead.p99 / well.p99 - 1.0) * 100.0));
    println!(
        "\nmedian (least–greatest) of the rounds\n\n{table}\nround by round: p99 grew by {} %",
        cell(growth)
    );
    Ok(
        json!({ "bench": "dead-site", "seed": options.seed, "sites": options.sites, "rate": options.rate,
        "seconds": options.seconds, "size": options.size, "settings": options.settings, "rows": results,
        "growth_of_p99_percent": json_or_null(growth) }),
    )
}

async fn round(options: &Options, is_away: bool) -> Result<Round> {
    let sites = usize::from(options.sites);
    let stack = product::prepare_relay(AS_SHIPPED, &zone(sites))?;
    stack.configure("90-bench", &options.settings)?;
    let addresses: Vec<SocketAddr> = (0..sites).map(|site| host(&stack, site)).collect();
    let there: Vec<SocketAddr> = match is_away {
        true => addresses.iter().copied().skip(AWAY + 1).collect(),
        false => addresses.clone(),
    };
    let sink = Sink::up(&there).await?;
    let _silence = match addresses.get(AWAY).filter(|_| is_away) {
        Some(away) => Some(Silence::at(*away).await?),
        None => None,
    };
    let queued = product::agent(stack.folder(), "queued", Syncs::Ignored).await?;
    let mta = product::agent(stack.folder(), "mta", Syncs::Ignored).await?;
    let way = Way {
        server: stack.ports.smtp(),
        submission: None,
    };
    let count = (options.rate * f64::from(options.seconds)) as usize;
    let mails = Arc::new(Mails::new(
        count,
        options.size,
        To::Worlds(sites),
        options.seed,
    ));
    sink.expect(&mails);
    let (before, began) = (Cpu::now()?, Instant::now());
    let accepted = send(&mails, &way, options.rate).await?;
    let is_other = |number: &usize| number % sites != AWAY;
    let awaited = match is_away {
        true => (0..count).filter(is_other).count(),
        false => count,
    };
    timeout(PATIENCE, sink.have_arrived(awaited))
        .await
        .context("mail for the others did not arrive")??;
    let foreign = Cpu::now()?.since(before).foreign_percent(began.elapsed());
    let mut waits = Vec::with_capacity(count);
    for (number, arrived) in sink
        .arrivals()
        .into_iter()
        .enumerate()
        .filter(|(number, _)| is_other(number))
    {
        let arrived = arrived.with_context(|| format!("mail {number} is missing"))?;
        let (_, answered) = accepted.get(number).context("a mail that was sent")?;
        waits.push(arrived.saturating_duration_since(*answered));
    }
    waits.sort_unstable();
    mta.end()?;
    queued.end()?;
    stack.end().await?;
    Ok(Round {
        mails: waits.len(),
        median: percentile_ms(&waits, 50),
        p99: percentile_ms(&waits, 99),
        longest: waits.last().map_or(0.0, |wait| wait.as_secs_f64() * 1e3),
        foreign,
    })
}

/// Each domain has a mail host of its own.
fn zone(sites: usize) -> String {
    let mut zone = String::new();
    for site in 0..sites {
        // Writing to text cannot fail.
        let _ = writeln!(
            zone,
            "world{site}.test MX 10 mx.world{site}.test\nmx.world{site}.test A {}",
            address(site)
        );
    }
    zone
}

fn address(site: usize) -> Ipv4Addr {
    let [.., high, low] = (site + 1).to_be_bytes();
    Ipv4Addr::new(127, 2, high, low)
}

fn host(stack: &Stack, site: usize) -> SocketAddr {
    (address(site), stack.ports.world).into()
}

/// An address with a listener that takes nobody in: what comes after its backlog is full gets no answer, as from a host
/// that is switched off.
struct Silence {
    _listener: TcpListener,
    _waiting: Vec<TcpStream>,
}

impl Silence {
    async fn at(address: SocketAddr) -> Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(address)?;
        let listener = socket.listen(1)?;
        let mut waiting = Vec::new();
        while let Ok(connected) = timeout(NO_ANSWER, TcpStream::connect(address)).await {
            waiting.push(connected?);
            ensure!(waiting.len() < MOST_WAITING, "{address} answers still");
        }
        Ok(Self {
            _listener: listener,
            _waiting: waiting,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_site_has_an_address_of_its_own() {
        assert_eq!(address(0).to_string(), "127.2.0.1");
        assert_eq!(address(999).to_string(), "127.2.3.232");
        assert!(zone(2).ends_with("mx.world1.test A 127.2.0.2\n"));
    }

    #[tokio::test]
    async fn an_address_in_silence_does_not_answer() -> Result<()> {
        let free = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
        let _silence = Silence::at(free).await?;
        assert!(timeout(NO_ANSWER, TcpStream::connect(free)).await.is_err());
        Ok(())
    }
}
