//! Clients that submit without a break, and the judge of what became of their mail.
//!
//! Each attempt has a token of its own. A client that hears anything but 250, or loses its connection, sends a new mail with a new token; so a
//! token that was acknowledged must arrive, one that was not may, and in a local mailbox no delivery may arrive twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use postroad_tests::{Client, Mail, mail_of};
use tokio::{runtime::Handle, task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;

const CLIENTS: usize = 3;
/// What a client does not send in: the journey is about what breaks, not about how much goes through.
const PAUSE: Duration = Duration::from_millis(40);
/// In mails; then the client comes anew, and may be led to another copy of the server.
const LONGEST_CONVERSATION: usize = 10;
/// Of so many mails one is too large to travel in a record of the journal.
const LARGE_EVERY: usize = 40;

/// By which door a client comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// 587: STARTTLS and log-in.
    Submission,
    /// 465: TLS from the start, and log-in.
    Submissions,
    /// 25: as a mail server of the world, who has no account.
    World,
}

impl Way {
    pub const ALL: [Self; 3] = [Self::Submission, Self::Submissions, Self::World];

    pub fn port(self) -> u16 {
        match self {
            Self::Submission => 587,
            Self::Submissions => 465,
            Self::World => 25,
        }
    }

    /// As the log calls the listener.
    pub fn listener(self) -> &'static str {
        match self {
            Self::Submission => "submission",
            Self::Submissions => "submissions",
            Self::World => "smtp",
        }
    }
}

/// Where and as whom mail is submitted.
#[derive(Clone)]
pub struct Submitter {
    pub way: Way,
    pub server: SocketAddr,
    pub host: String,
    pub ca_file: PathBuf,
    pub account: String,
    pub password: String,
}

impl Submitter {
    /// The same by another door, which may be elsewhere.
    pub fn by(&self, way: Way, server: IpAddr) -> Self {
        Self {
            way,
            server: SocketAddr::new(server, way.port()),
            ..self.clone()
        }
    }

    /// A client that may send.
    pub async fn login(&self) -> Result<Client> {
        let mut client = match self.way {
            Way::Submission => {
                let (client, _) = Client::connect(self.server).await?;
                client.starttls_as(&self.host, &self.ca_file).await?
            }
            Way::Submissions => {
                let (server, name, ca_file) = (self.server, &self.host, &self.ca_file);
                let (mut client, _) = Client::connect_tls_as(server, name, ca_file).await?;
                client.expect("EHLO client.test", "250").await?;
                client
            }
            Way::World => {
                let (mut client, _) = Client::connect(self.server).await?;
                client.expect("EHLO client.test", "250").await?;
                return Ok(client);
            }
        };
        client.login(&self.account, &self.password).await?;
        Ok(client)
    }
}

/// A mail that had its 250.
pub struct Sent {
    pub to: Vec<String>,
    pub reply: String,
}

/// Clients at work.
pub struct Load {
    clients: JoinSet<BTreeMap<String, Sent>>,
    acknowledged: Arc<AtomicUsize>,
    refused: Arc<AtomicUsize>,
    stop: CancellationToken,
}

impl Load {
    /// Sends to all of `to` in turn, and now and then to all at once; each client by the next of the ways in, from where `from` is. `name` tells its
    /// mail from that of other loads.
    pub fn start(name: &str, submitters: &[Submitter], to: &[&str], from: &Handle) -> Self {
        let load = Self {
            clients: JoinSet::new(),
            acknowledged: Arc::default(),
            refused: Arc::default(),
            stop: CancellationToken::new(),
        };
        let to: Vec<String> = to.iter().map(|&address| address.to_owned()).collect();
        let mut load = load;
        for (number, submitter) in (0..CLIENTS).zip(submitters.iter().cycle()) {
            let client = LoadClient {
                submitter: submitter.clone(),
                to: to.clone(),
                name: format!("{name}-{number}"),
                next: 0,
                sent: BTreeMap::new(),
                acknowledged: load.acknowledged.clone(),
                refused: load.refused.clone(),
            };
            load.clients.spawn_on(client.run(load.stop.clone()), from);
        }
        load
    }

    /// How many mails had their 250.
    pub fn acknowledged(&self) -> usize {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// How many were told that there is no room.
    pub fn refused(&self) -> usize {
        self.refused.load(Ordering::Relaxed)
    }

    /// Waits until so many more were acknowledged.
    pub async fn goes_on(&self, more: usize) -> Result<()> {
        let enough = self.acknowledged() + more;
        crate::docker::looking("acknowledged mail", async || {
            (self.acknowledged() >= enough).then_some(())
        })
        .await
    }

    /// Lets each client finish its mail; all that was acknowledged.
    pub async fn stop(mut self) -> Result<BTreeMap<String, Sent>> {
        self.stop.cancel();
        let mut sent = BTreeMap::new();
        while let Some(client) = self.clients.join_next().await {
            sent.extend(client?);
        }
        Ok(sent)
    }
}

struct LoadClient {
    submitter: Submitter,
    to: Vec<String>,
    name: String,
    next: usize,
    sent: BTreeMap<String, Sent>,
    acknowledged: Arc<AtomicUsize>,
    refused: Arc<AtomicUsize>,
}

impl LoadClient {
    async fn run(mut self, stop: CancellationToken) -> BTreeMap<String, Sent> {
        while !stop.is_cancelled() {
            // Whatever goes wrong, the answer is a new connection and new mail.
            let conversation = self.converse(&stop);
            let _ = conversation.await;
            sleep(PAUSE).await;
        }
        self.sent
    }

    async fn converse(&mut self, stop: &CancellationToken) -> Result<()> {
        let mut client = self.submitter.login().await?;
        for _ in 0..LONGEST_CONVERSATION {
            if stop.is_cancelled() {
                break;
            }
            let (number, token) = (self.next, format!("{}-{}", self.name, self.next));
            self.next += 1;
            let to: Vec<String> = match number % (self.to.len() + 1) {
                all if all == self.to.len() => self.to.clone(),
                one => vec![self.to[one].clone()],
            };
            let recipients: Vec<&str> = to.iter().map(String::as_str).collect();
            let account = self.submitter.account.clone();
            let reply = client
                .attempt(&account, &recipients, &content(number, &token))
                .await?;
            if reply.starts_with("250") {
                self.sent.insert(token, Sent { to, reply });
                self.acknowledged.fetch_add(1, Ordering::Relaxed);
            } else {
                let full = reply.starts_with("452 4.3.1");
                self.refused.fetch_add(usize::from(full), Ordering::Relaxed);
                client.expect("RSET", "250").await?;
            }
            sleep(PAUSE).await;
        }
        Ok(())
    }
}

fn content(number: usize, token: &str) -> Vec<u8> {
    let large = number % LARGE_EVERY == LARGE_EVERY - 1;
    let lines = if large { 6000 } else { number % 50 };
    let line = |line| format!(".line {line} of {token}, said again: {token}\r\n");
    mail_of(
        crate::journey::ALICE,
        &format!("token {token}"),
        &(0..lines).map(line).collect::<String>(),
    )
}

/// The token of a mail, if it is one of a [`Load`].
fn token(content: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(content);
    let subject = text
        .lines()
        .find_map(|line| line.strip_prefix("Subject: token "))?;
    Some(subject.trim_end().to_owned())
}

/// Compares what was acknowledged with what was filed for local accounts and what reached a foreign address.
pub fn judge(
    sent: &BTreeMap<String, Sent>,
    filed: &BTreeMap<String, Vec<Mail>>,
    foreign: &str,
    relayed: &[Vec<u8>],
) -> Result<()> {
    let relayed: BTreeSet<String> = relayed.iter().filter_map(|mail| token(mail)).collect();
    let mut arrived: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (account, mails) in filed {
        let mut deliveries = BTreeSet::new();
        for mail in mails {
            let delivery = mail.delivery()?;
            ensure!(
                deliveries.insert(delivery),
                "{} was filed twice for {account}",
                mail.name
            );
        }
        let tokens = mails.iter().filter_map(|mail| token(&mail.content));
        arrived.insert(account, tokens.collect());
    }
    for (token, mail) in sent {
        for to in &mail.to {
            let there = match to == foreign {
                true => relayed.contains(token),
                false => arrived
                    .get(to.as_str())
                    .with_context(|| format!("nobody looked for {to}"))?
                    .contains(token),
            };
            ensure!(
                there,
                "{token} for {to} was acknowledged ({}) and is lost",
                mail.reply
            );
        }
    }
    Ok(())
}

/// The judge sees what it is there for.
pub async fn judge_finds_a_lost_and_a_doubled_mail() -> Result<()> {
    let (local, foreign) = ("a@here.test", "b@there.test");
    let written = postroad_tests::unwired(&content(1, "a-0-1"));
    let filed = |times: usize| {
        let mail = Mail {
            name: "1.Q01m82zeek8etesv9sk3k12xtemR0.mx.here.test,S=1".to_owned(),
            content: written.clone(),
        };
        BTreeMap::from([(local.to_owned(), vec![mail; times])])
    };
    let sent = Sent {
        to: vec![local.to_owned(), foreign.to_owned()],
        reply: String::new(),
    };
    let sent = BTreeMap::from([("a-0-1".to_owned(), sent)]);
    judge(&sent, &filed(1), foreign, std::slice::from_ref(&written))?;
    for (times, relayed, fault) in [
        (0, vec![written.clone()], "is lost"),
        (1, vec![], "is lost"),
        (2, vec![written.clone()], "filed twice"),
    ] {
        let verdict = judge(&sent, &filed(times), foreign, &relayed);
        let found = verdict.err().context(fault)?.to_string();
        ensure!(found.contains(fault), "{found}");
    }
    Ok(())
}
