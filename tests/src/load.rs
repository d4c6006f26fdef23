//! Mail programs and servers that send without a break to whichever copy of an agent serves them, and the judge of what became of their
//! mail.
//!
//! A client who is turned away (nobody answers, or 421 before MAIL was taken) goes to the next copy, as mail programs and balancers do. What
//! may happen once a transaction has begun depends on the [`Temper`]. Each transaction has a token of its own: what was accepted must
//! arrive, whatever else came of it may arrive, and nothing arrives twice.

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Error, Result, anyhow};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use postroad_envelope::QueueId;
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

pub use self::judge::{Verdict, judge, token};
use crate::{Client, PASSWORD, mail, wait_for};

mod judge;

/// In mails; then the client comes anew.
const LONGEST_CONVERSATION: usize = 10;
/// Of so many mails one is too large to travel in a record of the journal.
const LARGE_EVERY: usize = 40;

/// How clients come in.
#[derive(Clone, Debug)]
pub enum Way {
    /// As a mail server of the world.
    World,
    /// As a mail program of alice: TLS from the start, and log-in.
    Submissions {
        /// What the server must prove to be.
        name: String,
        /// By this authority.
        ca_file: PathBuf,
    },
}

/// What clients put up with after MAIL was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Temper {
    /// Nothing: the mail is accepted.
    Strict,
    /// To be told to come again (4yz), also at log-in.
    Patient,
    /// Whatever happens; who hears nothing for so long hangs up and comes anew.
    Tough(Duration),
}

/// How clients are.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// So many at each door.
    pub clients: usize,
    /// Between two words of a client: most of the time it is in the midst of a transaction.
    pub pace: Duration,
    /// What they put up with.
    pub temper: Temper,
}

/// Where clients come in, and to whom they write. All copies take the same mail.
pub struct Door {
    way: Way,
    copies: Vec<Copy>,
    to: Vec<String>,
}

/// One of several servers that are as good as each other.
struct Copy {
    address: SocketAddr,
    /// Transactions that have begun and not ended.
    busy: AtomicUsize,
    /// How often it was stopped.
    stops: AtomicUsize,
}

impl Door {
    /// Mail goes to each of `to` in turn.
    pub fn new(way: Way, copies: &[SocketAddr], to: &[&str]) -> Arc<Self> {
        let copy = |&address| Copy {
            address,
            busy: AtomicUsize::new(0),
            stops: AtomicUsize::new(0),
        };
        Arc::new(Self {
            way,
            copies: copies.iter().map(copy).collect(),
            to: to.iter().map(|&to| to.to_owned()).collect(),
        })
    }

    /// How many transactions are under way at a copy.
    pub fn busy(&self, copy: usize) -> usize {
        self.copies[copy].busy.load(Ordering::Relaxed)
    }

    /// A copy is asked to stop now: transactions that end from now on and began before are counted by [`Load::finished`].
    pub fn stops(&self, copy: usize) {
        self.copies[copy].stops.fetch_add(1, Ordering::Relaxed);
    }
}

/// A mail that was accepted.
#[derive(Clone, Debug)]
pub struct Sent {
    /// What its subject ends with.
    pub token: String,
    /// Its recipient.
    pub to: String,
    /// What the server said.
    pub reply: String,
    /// When.
    pub at: Instant,
}

impl Sent {
    /// As the server named it.
    pub fn queue_id(&self) -> Option<QueueId> {
        self.reply.split(' ').nth(2)?.parse().ok()
    }
}

#[derive(Default)]
struct Counts {
    accepted: AtomicUsize,
    finished: AtomicUsize,
    turned_away: AtomicUsize,
    put_off: AtomicUsize,
}

/// Clients at work.
pub struct Load {
    doors: Vec<Arc<Door>>,
    manner: Manner,
    clients: JoinSet<Result<()>>,
    sent: Arc<Mutex<Vec<Sent>>>,
    counts: Arc<Counts>,
    stop: CancellationToken,
    probes: usize,
}

impl Load {
    /// Begins.
    pub fn start(doors: &[Arc<Door>], manner: Manner) -> Self {
        let mut load = Self {
            doors: doors.to_vec(),
            manner,
            clients: JoinSet::new(),
            sent: Arc::default(),
            counts: Arc::default(),
            stop: CancellationToken::new(),
            probes: 0,
        };
        for door in 0..doors.len() {
            for number in 0..manner.clients {
                let client = load.client(door, number, format!("{door}-{number}"));
                load.clients.spawn(client.run(load.stop.clone()));
            }
        }
        load
    }

    fn client(&self, door: usize, copy: usize, name: String) -> LoadClient {
        LoadClient {
            name,
            door: Arc::clone(&self.doors[door]),
            manner: self.manner,
            copy,
            next: 0,
            accepted: 0,
            sent: Arc::clone(&self.sent),
            counts: Arc::clone(&self.counts),
        }
    }

    /// Sends one mail by this copy alone, again and again until it is accepted.
    pub async fn probe(&mut self, door: usize, copy: usize) -> Result<()> {
        self.probes += 1;
        let mut client = self.client(door, copy, format!("{door}-probe{}", self.probes));
        wait_for(
            &format!("mail accepted at door {door} by copy {copy}"),
            async || {
                client.converse(1, &CancellationToken::new()).await.ok()?;
                (client.accepted > 0).then_some(())
            },
        )
        .await
    }

    /// What was accepted so far.
    pub fn sent(&self) -> Vec<Sent> {
        lock(&self.sent).clone()
    }

    /// How many mails were accepted.
    pub fn accepted(&self) -> usize {
        self.counts.accepted.load(Ordering::Relaxed)
    }

    /// How many of these were accepted by a copy that had been asked to stop meanwhile.
    pub fn finished(&self) -> usize {
        self.counts.finished.load(Ordering::Relaxed)
    }

    /// How often a client went to the next copy.
    pub fn turned_away(&self) -> usize {
        self.counts.turned_away.load(Ordering::Relaxed)
    }

    /// How many mails were told to come again.
    pub fn put_off(&self) -> usize {
        self.counts.put_off.load(Ordering::Relaxed)
    }

    /// Waits until so many more were accepted. An error if a client gave up.
    pub async fn goes_on(&mut self, more: usize) -> Result<()> {
        let enough = self.accepted() + more;
        let (clients, counts) = (&mut self.clients, &self.counts);
        wait_for("accepted mail", async || {
            if let Some(ended) = clients.try_join_next() {
                return Some(Err(what_ended(ended)));
            }
            (counts.accepted.load(Ordering::Relaxed) >= enough).then_some(Ok(()))
        })
        .await?
    }

    /// Lets each client finish its mail; all that was accepted. An error if a client met what it does not put up with.
    pub async fn stop(mut self) -> Result<Vec<Sent>> {
        self.finish().await
    }

    /// The same, for whoever owns more than the load.
    pub async fn finish(&mut self) -> Result<Vec<Sent>> {
        self.stop.cancel();
        while let Some(client) = self.clients.join_next().await {
            client??;
        }
        Ok(self.sent())
    }
}

fn lock(sent: &Mutex<Vec<Sent>>) -> MutexGuard<'_, Vec<Sent>> {
    sent.lock().unwrap_or_else(PoisonError::into_inner)
}

fn what_ended(ended: Result<Result<()>, tokio::task::JoinError>) -> Error {
    match ended {
        Ok(Ok(())) => anyhow!("a client went home"),
        Ok(Err(error)) => error,
        Err(error) => error.into(),
    }
}

struct LoadClient {
    name: String,
    door: Arc<Door>,
    manner: Manner,
    /// The one that serves it; more than there are begin anew.
    copy: usize,
    next: usize,
    accepted: usize,
    sent: Arc<Mutex<Vec<Sent>>>,
    counts: Arc<Counts>,
}

/// Why a conversation ended before its time.
enum Trouble {
    /// The client tries the next copy.
    TurnedAway,
    /// The server said or did what it must not.
    Fault(Error),
}

impl LoadClient {
    async fn run(mut self, stop: CancellationToken) -> Result<()> {
        while !stop.is_cancelled() {
            match self.converse(LONGEST_CONVERSATION, &stop).await {
                Ok(()) => {}
                Err(Trouble::Fault(fault)) if !matches!(self.manner.temper, Temper::Tough(_)) => {
                    let copy = self.copy % self.door.copies.len();
                    return Err(fault.context(format!("client {} at copy {copy}", self.name)));
                }
                Err(_) => {
                    self.counts.turned_away.fetch_add(1, Ordering::Relaxed);
                }
            }
            // As a balancer would, also when all is well.
            self.copy += 1;
            sleep(self.manner.pace).await;
        }
        Ok(())
    }

    async fn converse(&mut self, mails: usize, stop: &CancellationToken) -> Result<(), Trouble> {
        let door = Arc::clone(&self.door);
        let copy = &door.copies[self.copy % door.copies.len()];
        let mut client = self.enter(copy.address).await?;
        for _ in 0..mails {
            if stop.is_cancelled() {
                break;
            }
            self.transact(&mut client, copy).await?;
            sleep(self.manner.pace).await;
        }
        Ok(())
    }

    /// Until MAIL may be said.
    async fn enter(&self, server: SocketAddr) -> Result<Client, Trouble> {
        let arrival = async {
            match &self.door.way {
                Way::World => Client::connect(server).await,
                Way::Submissions { name, ca_file } => {
                    Client::connect_tls_as(server, name, ca_file).await
                }
            }
        };
        // Who was not greeted does not know why.
        let arrived = self.patiently(arrival).await;
        let (mut client, greeting) = arrived.map_err(|_| Trouble::TurnedAway)?;
        self.idle(Ok(greeting))?;
        let mut words = vec!["EHLO client.test".to_owned()];
        if let Way::Submissions { .. } = self.door.way {
            let secret = BASE64_STANDARD.encode(format!("\0alice@demo.test\0{PASSWORD}"));
            words.push(format!("AUTH PLAIN {secret}"));
        }
        for word in words {
            let reply = self.patiently(client.command(&word)).await;
            self.idle(reply)?;
        }
        Ok(client)
    }

    /// One mail. Nobody is turned away once MAIL was taken.
    async fn transact(&mut self, client: &mut Client, copy: &Copy) -> Result<(), Trouble> {
        let number = self.next;
        self.next += 1;
        let token = format!("{}-{number}", self.name);
        let to = self.door.to[number % self.door.to.len()].clone();
        let from = match self.door.way {
            Way::World => "friend@world.test",
            Way::Submissions { .. } => "alice@demo.test",
        };
        let word = format!("MAIL FROM:<{from}>");
        let reply = self.patiently(client.command(&word)).await;
        self.idle(reply)?;

        copy.busy.fetch_add(1, Ordering::Relaxed);
        let stops = copy.stops.load(Ordering::Relaxed);
        let result = self.content(client, &to, &content(number, &token)).await;
        copy.busy.fetch_sub(1, Ordering::Relaxed);
        let reply = result.map_err(|fault| Trouble::Fault(fault.context(token.clone())))?;
        if reply.starts_with("250") {
            let at = Instant::now();
            self.accepted += 1;
            lock(&self.sent).push(Sent {
                token,
                to,
                reply,
                at,
            });
            self.counts.accepted.fetch_add(1, Ordering::Relaxed);
            let stopped = copy.stops.load(Ordering::Relaxed) > stops;
            self.counts
                .finished
                .fetch_add(usize::from(stopped), Ordering::Relaxed);
            return Ok(());
        }
        let put_off = reply.starts_with('4') && !reply.starts_with("421");
        if self.manner.temper == Temper::Strict || !put_off {
            return Err(Trouble::Fault(anyhow!(
                "{token} was told {reply:?} in its transaction"
            )));
        }
        self.counts.put_off.fetch_add(1, Ordering::Relaxed);
        let reply = self.patiently(client.command("RSET")).await;
        self.idle(reply)
    }

    /// The reply that decided: the first refusal, or that to the end of data.
    async fn content(&self, client: &mut Client, to: &str, content: &[u8]) -> Result<String> {
        for (word, right) in [
            (format!("RCPT TO:<{to}>"), "250"),
            ("DATA".to_owned(), "354"),
        ] {
            sleep(self.manner.pace).await;
            let reply = self.patiently(client.command(&word)).await?;
            if !reply.starts_with(right) {
                return Ok(reply);
            }
        }
        // No line of these mails begins with a dot.
        for part in content.chunks(content.len() / 2 + 1).chain([&b".\r\n"[..]]) {
            sleep(self.manner.pace).await;
            self.patiently(client.write(part)).await?;
        }
        self.patiently(client.reply()).await
    }

    /// A reply outside of a transaction: of success, or 421 on the way out.
    fn idle(&self, reply: Result<String>) -> Result<(), Trouble> {
        let reply = reply
            .context("outside of a transaction")
            .map_err(Trouble::Fault)?;
        match reply.as_bytes() {
            [b'2', ..] => Ok(()),
            [b'4', b'2', b'1', ..] => Err(Trouble::TurnedAway),
            [b'4', ..] if self.manner.temper != Temper::Strict => {
                self.counts.put_off.fetch_add(1, Ordering::Relaxed);
                Err(Trouble::TurnedAway)
            }
            _ => Err(Trouble::Fault(anyhow!(
                "{reply:?} outside of a transaction"
            ))),
        }
    }

    async fn patiently<T>(&self, step: impl Future<Output = Result<T>>) -> Result<T> {
        match self.manner.temper {
            Temper::Tough(patience) => timeout(patience, step)
                .await
                .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into())),
            _ => step.await,
        }
    }
}

fn content(number: usize, token: &str) -> Vec<u8> {
    let large = number % LARGE_EVERY == LARGE_EVERY - 1;
    let lines = if large { 6000 } else { number % 50 };
    let line = |line| format!("line {line} of {token}, said again: {token}\r\n");
    mail(
        &format!("token {token}"),
        &(0..lines).map(line).collect::<String>(),
    )
}
