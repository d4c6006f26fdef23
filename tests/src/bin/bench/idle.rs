//! Memory of clients that say nothing: so many TLS connections at a listener, each past EHLO.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use postroad_net::{ClientTls, Stream, Trust, connect_tcp};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    figures::table,
    kept::Syncs,
    machine,
    product::{agent, prepare},
};

/// Handshakes at a time: more would wait for the processor and run into time-outs.
const AT_A_TIME: usize = 64;
/// Connections from one address; the limit that is built in.
const PER_ADDRESS: usize = 50;
const PATIENCE: Duration = Duration::from_secs(60);
/// What was freed and what is written behind goes in this time.
const CALM: Duration = Duration::from_secs(2);

#[derive(Args)]
pub struct Options {
    /// TLS connections that say EHLO and then nothing.
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
    /// So many in one step; memory is read after each.
    #[arg(long, default_value_t = 2500)]
    step: usize,
    /// Without STARTTLS: what TLS costs is the difference.
    #[arg(long)]
    plain: bool,
    /// Print the figures as JSON too.
    #[arg(long)]
    pub json: bool,
}

pub async fn run(options: &Options) -> Result<Value> {
    ensure!(
        options.connections > 0 && options.step > 0,
        "no connections"
    );
    // Nothing else differs from what is built in.
    let settings = format!(
        "[mta.inbound]\nlimits.max_connections = {}\n",
        options.connections + 100
    );
    let stack = prepare(&settings)?;
    let queue = agent(stack.folder(), "queued", Syncs::Ignored).await?;
    let before_agent = machine::product_resident();
    let mta = agent(stack.folder(), "mta", Syncs::Ignored).await?;
    let clients = Clients {
        server: stack.ports.smtp(),
        tls: ClientTls::opportunistic(Trust::Files(Vec::new()))?,
        plain: options.plain,
    };
    // The first connections bring what is made once.
    let first = clients.open(0, PER_ADDRESS).await?;
    drop(first);
    sleep(CALM).await;
    let empty = resident(stack.folder())?;
    println!(
        "idle: {} connections {}, the agent holds {:.1} MiB without any ({before_agent:.1} MiB: the queue)",
        options.connections,
        if options.plain {
            "in plain text"
        } else {
            "with TLS 1.3"
        },
        mib(empty)
    );

    let head = ["connections", "opened in s", "VmRSS MiB", "KiB for each"];
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    let mut figures = Vec::new();
    let mut open = Vec::with_capacity(options.connections);
    while open.len() < options.connections {
        let began = Instant::now();
        let more = options.step.min(options.connections - open.len());
        open.extend(clients.open(open.len(), more).await?);
        let took = began.elapsed().as_secs_f64();
        sleep(CALM).await;
        let now = resident(stack.folder())?;
        let each = (now - empty) / open.len() as f64;
        lines.push(vec![
            open.len().to_string(),
            format!("{took:.1}"),
            format!("{:.1}", mib(now)),
            format!("{:.1}", each / 1024.0),
        ]);
        figures.push(json!({ "connections": open.len(), "resident": now, "for_each": each }));
    }
    // Who was sent away meanwhile would not count.
    clients.are_there(&mut open).await?;
    println!("\n{}", table(&lines));
    drop(open);
    mta.end()?;
    queue.end()?;
    stack.end().await?;
    Ok(json!({ "empty": empty, "steps": figures }))
}

fn mib(octets: f64) -> f64 {
    octets / 1024.0 / 1024.0
}

/// Octets that the transfer agent holds.
fn resident(folder: &Path) -> Result<f64> {
    let program = folder.join("postroad-mta");
    let pid = machine::descendants(std::process::id())
        .into_iter()
        .find(|pid| machine::command(*pid).is_some_and(|command| Path::new(&command) == program))
        .context("the transfer agent does not run")?;
    machine::resident(pid).context("no VmRSS")
}

/// How clients come.
#[derive(Clone)]
struct Clients {
    server: SocketAddr,
    tls: ClientTls,
    plain: bool,
}

impl Clients {
    /// So many more, of which `already` are there, a few at a time.
    async fn open(&self, already: usize, more: usize) -> Result<Vec<Stream>> {
        let places = Arc::new(Semaphore::new(AT_A_TIME));
        let mut opening = JoinSet::new();
        for number in already..already + more {
            let place = Arc::clone(&places).acquire_owned().await?;
            let clients = self.clone();
            opening.spawn(async move {
                let opened = timeout(PATIENCE, clients.connect(number)).await;
                drop(place);
                opened.context("a client waits for too long")?
            });
        }
        let mut open = Vec::with_capacity(more);
        while let Some(opened) = opening.join_next().await {
            open.push(opened??);
        }
        Ok(open)
    }

    async fn connect(&self, number: usize) -> Result<Stream> {
        let host = u32::try_from(number / PER_ADDRESS)?;
        let source = Ipv4Addr::from_bits(Ipv4Addr::new(127, 0, 2, 0).to_bits() + host);
        let source = Some(IpAddr::V4(source));
        let mut stream = connect_tcp(self.server, PATIENCE, source).await?;
        expect(&mut stream, "220 ").await?;
        say(&mut stream, "EHLO client.test", "250 ").await?;
        if self.plain {
            return Ok(stream);
        }
        say(&mut stream, "STARTTLS", "220 ").await?;
        let mut stream = stream
            .upgrade_client(&self.tls, "mx.demo.test", &[], PATIENCE)
            .await?;
        say(&mut stream, "EHLO client.test", "250 ").await?;
        Ok(stream)
    }

    /// The first and the last of them answer.
    async fn are_there(&self, open: &mut [Stream]) -> Result<()> {
        for stream in [0, open.len() - 1] {
            say(&mut open[stream], "NOOP", "250 ").await?;
        }
        Ok(())
    }
}

async fn say(stream: &mut Stream, line: &str, wanted: &str) -> Result<()> {
    stream.write_all(format!("{line}\r\n").as_bytes()).await?;
    stream.flush().await?;
    expect(stream, wanted).await
}

/// Reads a reply to the end of its last line.
async fn expect(stream: &mut Stream, wanted: &str) -> Result<()> {
    let mut said = Vec::new();
    loop {
        ensure!(stream.read_buf(&mut said).await? > 0, "the server hung up");
        let text = String::from_utf8_lossy(&said);
        let last = text
            .strip_suffix("\r\n")
            .and_then(|text| text.lines().last());
        if let Some(last) = last.filter(|last| last.as_bytes().get(3) == Some(&b' ')) {
            ensure!(last.starts_with(wanted), "{last:?} instead of {wanted:?}");
            return Ok(());
        }
    }
}
