//! A site that takes so many connections and so many mails in a time is given as many, though nobody told how many that is; one that is
//! down is tried by one mail after the other, while the rest of its mail waits and all other mail goes on.
#![allow(
    clippy::print_stdout,
    reason = "what was measured is told where the output is asked for"
)]

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use postroad_queue_client::{QueueAdmin as _, RemoteQueue, SitesQuery};
use postroad_tests::{
    Agent, Peer, Stack, envelope, mail, stack, submit, wait_for, wait_for_within,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// What a peer takes.
#[derive(Debug, Clone, Copy)]
struct Allowance {
    connections: usize,
    mails: usize,
    window: Duration,
}

/// What was tried: when, and whether the peer took it.
#[derive(Debug, Default)]
struct Book {
    open: usize,
    most_open: usize,
    taken: VecDeque<Instant>,
    tries: Vec<(Instant, bool)>,
}

struct Strict {
    book: Arc<Mutex<Book>>,
    task: JoinHandle<()>,
}

impl Drop for Strict {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Strict {
    async fn up(address: SocketAddr, allowance: Allowance) -> Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let book = Arc::new(Mutex::new(Book::default()));
        let of_all = Arc::clone(&book);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let book = Arc::clone(&of_all);
                tokio::spawn(async move {
                    let admitted = book.enter(allowance.connections);
                    let _ = serve(stream, &book, allowance, admitted).await;
                    if admitted {
                        lock(&book).open -= 1;
                    }
                });
            }
        });
        Ok(Self { book, task })
    }

    /// Mails taken and tries, of those from then on.
    fn since(&self, begin: Instant) -> (usize, usize) {
        let book = lock(&self.book);
        let tries = book.tries.iter().filter(|(at, _)| *at >= begin);
        tries.fold((0, 0), |(taken, all), (_, ok)| {
            (taken + usize::from(*ok), all + 1)
        })
    }
}

trait Enter {
    fn enter(&self, connections: usize) -> bool;
    fn takes(&self, allowance: Allowance) -> bool;
}

impl Enter for Mutex<Book> {
    fn enter(&self, connections: usize) -> bool {
        let mut book = lock(self);
        let admitted = book.open < connections;
        if admitted {
            book.open += 1;
            book.most_open = book.most_open.max(book.open);
        } else {
            book.tries.push((Instant::now(), false));
        }
        admitted
    }

    /// No stretch of the window has more.
    fn takes(&self, allowance: Allowance) -> bool {
        let (mut book, now) = (lock(self), Instant::now());
        while book
            .taken
            .front()
            .is_some_and(|at| now - *at >= allowance.window)
        {
            book.taken.pop_front();
        }
        let room = book.taken.len() < allowance.mails;
        if room {
            book.taken.push_back(now);
        }
        book.tries.push((now, room));
        room
    }
}

fn lock(book: &Mutex<Book>) -> std::sync::MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(
    mut stream: TcpStream,
    book: &Mutex<Book>,
    allowance: Allowance,
    admitted: bool,
) -> Result<()> {
    if !admitted {
        stream
            .write_all(b"421 4.7.0 mx.world.test too many connections from you\r\n")
            .await?;
        return Ok(());
    }
    let (read, mut write) = stream.split();
    let mut lines = BufReader::new(read);
    write.write_all(b"220 mx.world.test ESMTP\r\n").await?;
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let verb = line.trim().to_ascii_uppercase();
        let answer: &[u8] = match verb.get(..4).unwrap_or_default() {
            "EHLO" => b"250 mx.world.test\r\n",
            "MAIL" if !book.takes(allowance) => b"450 4.7.1 too much mail from you\r\n",
            "DATA" => {
                write.write_all(b"354 go on\r\n").await?;
                read_content(&mut lines).await?;
                b"250 2.0.0 taken\r\n"
            }
            "QUIT" => {
                write.write_all(b"221 2.0.0 bye\r\n").await?;
                return Ok(());
            }
            _ => b"250 2.0.0 ok\r\n",
        };
        write.write_all(answer).await?;
    }
}

async fn read_content(lines: &mut (impl AsyncBufReadExt + Unpin)) -> Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = lines.read_until(b'\n', &mut line).await?;
        ensure!(read > 0, "the content has no end");
        if line == b".\r\n" {
            return Ok(());
        }
    }
}

async fn submit_many(queue: &RemoteQueue, domain: &str, count: usize) -> Result<()> {
    let content = mail("many", "a\r\n");
    for number in 0..count {
        let envelope = envelope(&[&format!("r{number}@{domain}")])?;
        submit(queue, &envelope, &content).await?;
    }
    Ok(())
}

/// Sends for so long, and tells the share of the allowance and of refusals after `begin`.
async fn measure(
    stack: &Stack,
    allowance: Allowance,
    begin: u32,
    windows: u32,
) -> Result<(f64, f64)> {
    let peer = Strict::up(stack.peer_address(1), allowance).await?;
    let queue = stack.queue()?;
    let mails = allowance.mails * usize::try_from(begin + windows + 3)?;
    submit_many(&queue, "world.test", mails).await?;
    let started = Instant::now();
    tokio::time::sleep(allowance.window * begin).await;
    let from = Instant::now();
    tokio::time::sleep(allowance.window * windows).await;
    let (taken, tries) = peer.since(from);
    let share = taken as f64 / (allowance.mails as f64 * f64::from(windows));
    let refused = (tries - taken) as f64 / tries as f64;
    println!(
        "{:.0} s, most at once {}; from {:.0} s on {taken} of {tries} tries taken: {:.1} % of the allowance, {:.2} % refused",
        started.elapsed().as_secs_f64(),
        lock(&peer.book).most_open,
        (from - started).as_secs_f64(),
        share * 100.0,
        refused * 100.0,
    );
    Ok((share, refused))
}

/// Scaled down: a window is as short as people set none, so nothing but the answers tells how long it is, and so few mails fit into
/// one that it is they that bound what is sent, on a busy machine as well. How much of the allowance is used in the long run is
/// measured by the simulation of `postroad-shaping` and by the test below.
#[tokio::test]
async fn the_allowance_of_a_site_is_found_and_kept() -> Result<()> {
    let stack = stack!()
        .settings("[queued.sites]\nenabled = true\n")
        .start()
        .await?;
    let allowance = Allowance {
        connections: 3,
        mails: 12,
        window: Duration::from_secs(3),
    };
    let (share, refused) = measure(&stack, allowance, 4, 6).await?;
    let admin = stack.admin()?;
    let sites = admin.sites(SitesQuery::default()).await?;
    let site = sites.sites.first().context("a site")?;
    ensure!(share > 0.5, "{share}: {site:?}");
    ensure!(refused < 0.3, "{refused}: {site:?}");
    ensure!(site.domains == ["world.test"], "{site:?}");
    ensure!(
        site.refused > 0 && site.reason.contains("too much"),
        "{site:?}"
    );
    ensure!(
        stack
            .log(Agent::Queued)
            .contains("\"event\":\"site_state\"")
    );
    stack.end().await
}

/// Takes 12 minutes: `cargo test -p postroad-tests --test sites_are_not_overrun -- --ignored --nocapture`.
#[tokio::test]
#[ignore = "takes 12 minutes"]
async fn five_connections_and_a_hundred_mails_a_minute() -> Result<()> {
    let settings = "[queued.retry]\nfirst = \"4m\"\nmax = \"4h\"\n[queued.sites]\nenabled = true\nprobe_first = \"15s\"\nprobe_longest = \"15m\"\n";
    let mut stack = stack!().prepare()?;
    stack.configure("50-sites", settings)?;
    stack.start_all().await?;
    let allowance = Allowance {
        connections: 5,
        mails: 100,
        window: Duration::from_secs(60),
    };
    let (share, refused) = measure(&stack, allowance, 2, 10).await?;
    ensure!(share >= 0.9, "{share}");
    ensure!(refused <= 0.01, "{refused}");
    stack.end().await
}

#[tokio::test]
async fn a_site_that_is_down_is_probed_while_its_mail_waits() -> Result<()> {
    const WAITING: usize = 40;
    let zone = "down.test MX 10 mx2.world.test\nalso.test MX 10 mx2.world.test\n";
    let mut stack = stack!().zone(zone).prepare()?;
    let settings =
        "[queued.sites]\nenabled = true\nprobe_first = \"20s\"\nprobe_longest = \"1m\"\n";
    stack.configure("50-sites", settings)?;
    stack.start_all().await?;
    let well = Peer::up(stack.peer_address(1)).await?;
    let queue = stack.queue()?;
    submit_many(&queue, "down.test", WAITING).await?;
    stack
        .wait_for_log(Agent::Queued, &["site_state", "down"])
        .await?;
    submit_many(&queue, "also.test", 5).await?;
    submit_many(&queue, "world.test", 20).await?;
    wait_for("mail for others", async || {
        (well.kept().len() == 20).then_some(())
    })
    .await?;
    let attempts = |stack: &Stack| {
        let log = stack.log(Agent::Queued);
        let settled = log.lines().filter(|line| line.contains("\"settled\""));
        settled
            .filter(|line| line.contains("down.test") || line.contains("also.test"))
            .count()
    };
    ensure!(attempts(&stack) <= 4, "{} attempts", attempts(&stack));
    let admin = stack.admin()?;
    let query = SitesQuery {
        name: Some("down.test".to_owned()),
        limit: 0,
    };
    let site = admin.sites(query).await?.sites.pop().context("a site")?;
    ensure!(site.state == "down" && site.until.is_some(), "{site:?}");
    ensure!(site.in_use == 0, "{site:?}");

    // It comes back, and somebody says so.
    let back = Peer::up(stack.peer_address(2)).await?;
    ensure!(admin.lift_site("down.test", "a test").await? == 1);
    let all = async || (back.kept().len() == WAITING + 5).then_some(());
    wait_for_within(Duration::from_secs(30), "mail that waited", all).await?;
    stack.end().await
}
