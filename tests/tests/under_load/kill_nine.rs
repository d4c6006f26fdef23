//! `kill -9` of every process under load, while a reader moves and deletes mail: every mail that had its 250 arrives
//! with its body, and none is filed twice.
//!
//! Each attempt of a client has a token of its own. A client that hears anything but 250, or loses its connection,
//! sends a new mail with a new token; so a token that was acknowledged must arrive, one that was not may, and in a
//! local mailbox neither may arrive twice.
//!
//! `POSTROAD_KILL_ROUNDS` runs more rounds, `POSTROAD_SEED` repeats a run.

#![allow(clippy::print_stdout, reason = "the report of a test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs, io,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use postroad_tests::{
    Agent, Client, Kept, Mail, PASSWORD, Peer, Stack, is_same_mail, mail, stack, unwired, wait_for,
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const ROUNDS: usize = 20;
const CLIENTS: u64 = 4;
/// Recipients whose Maildirs the reader works on.
const LOCAL: [&str; 2] = ["bob@demo.test", "carol@demo.test"];
const FOREIGN: &str = "friend@world.test";
/// Acknowledged mails between two kills.
const LOAD: usize = 15;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_had_its_250_arrives_and_nothing_is_filed_twice() -> Result<()> {
    let seed = number("POSTROAD_SEED").unwrap_or_else(rand::random);
    let rounds = number("POSTROAD_KILL_ROUNDS").map_or(Ok(ROUNDS), usize::try_from)?;
    println!("POSTROAD_SEED={seed} POSTROAD_KILL_ROUNDS={rounds}");
    let mut chance = StdRng::seed_from_u64(seed);

    let mut stack = stack!().start().await?;
    let peer = Peer::up(stack.peer_address(1)).await?;
    let reader = Reader::start(&stack, seed)?;
    let load = Load::start(&stack, seed);

    for round in 0..rounds {
        let enough = load.acknowledged() + chance.random_range(1..LOAD);
        wait_for("acknowledged mail", async || {
            (load.acknowledged() >= enough).then_some(())
        })
        .await?;
        let mut victims = BTreeSet::from([Agent::SEPARATE[round % Agent::SEPARATE.len()]]);
        if chance.random_bool(0.25) {
            victims.insert(Agent::SEPARATE[chance.random_range(0..Agent::SEPARATE.len())]);
        }
        for &victim in &victims {
            stack.kill_nine(victim).await?;
        }
        for &victim in &victims {
            stack.start(victim)?;
        }
        for &victim in &victims {
            stack.ready(victim).await?;
        }
    }
    let enough = load.acknowledged() + LOAD;
    wait_for("mail after the last kill", async || {
        (load.acknowledged() >= enough).then_some(())
    })
    .await?;
    let sent = load.stop().await?;
    stack.wait_for_empty_queue().await?;
    let seen = reader.stop()?;

    judge(&sent, &seen, &peer.kept())?;
    println!("{} mails acknowledged, {} filed", sent.len(), seen.len());
    stack.end().await
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok()?.parse().ok()
}

fn judge(sent: &BTreeMap<String, Sent>, seen: &[Seen], relayed_mails: &[Kept]) -> Result<()> {
    let mut deliveries = BTreeMap::new();
    let mut arrived: BTreeMap<(String, &str), Vec<&Seen>> = BTreeMap::new();
    for one in seen {
        let earlier = deliveries.insert(one.mail.delivery()?, &one.mail.name);
        ensure!(
            earlier.is_none(),
            "filed twice: {} and {earlier:?}",
            one.mail.name
        );
        arrived
            .entry((token(&one.mail.content)?, one.account))
            .or_default()
            .push(one);
    }
    for ((token, account), copies) in &arrived {
        ensure!(
            copies.len() == 1,
            "{} copies of {token} for {account}",
            copies.len()
        );
        let written = content(token);
        ensure!(
            is_same_mail(&written, &copies[0].mail.content),
            "{token} was changed on its way to {account}"
        );
    }
    let mut relayed = BTreeSet::new();
    for kept in relayed_mails {
        let token = token(&kept.content)?;
        ensure!(
            kept.content.ends_with(&content(&token)),
            "{token} was changed on its way to the peer"
        );
        relayed.insert(token);
    }
    for (token, mail) in sent {
        for &account in &mail.local {
            ensure!(
                arrived.contains_key(&(token.clone(), account)),
                "{token} for {account} was acknowledged ({}) and is lost",
                mail.reply
            );
        }
        ensure!(
            !mail.foreign || relayed.contains(token),
            "{token} was acknowledged ({}) and was not relayed",
            mail.reply
        );
    }
    Ok(())
}

/// The mail of a token; now and then one that is too large to travel in a record of the journal or in a lease.
fn content(token: &str) -> Vec<u8> {
    let number: usize = token
        .rsplit('-')
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or_default();
    let lines = if number % 25 == 7 {
        6000
    } else {
        number * 7 % 100
    };
    let body: String = (0..lines)
        .map(|line| format!(".line {line} of {token}, said again: {token}\r\n"))
        .collect();
    mail(&format!("token {token}"), &body)
}

fn token(content: &[u8]) -> Result<String> {
    let text = String::from_utf8_lossy(content);
    let subject = text
        .lines()
        .find_map(|line| line.strip_prefix("Subject: token "));
    Ok(subject
        .with_context(|| format!("a mail without a token: {text:.1000}"))?
        .trim_end()
        .to_owned())
}

/// Clients that submit as fast as they can.
struct Load {
    clients: JoinSet<BTreeMap<String, Sent>>,
    acknowledged: Arc<AtomicUsize>,
    stop: CancellationToken,
}

/// A mail that had its 250.
struct Sent {
    local: Vec<&'static str>,
    foreign: bool,
    reply: String,
}

impl Load {
    fn start(stack: &Stack, seed: u64) -> Self {
        let (acknowledged, stop) = (Arc::new(AtomicUsize::new(0)), CancellationToken::new());
        let mut clients = JoinSet::new();
        for number in 0..CLIENTS {
            let client = LoadClient {
                server: stack.ports.submission(),
                ca_file: stack.ca_file(),
                number,
                chance: StdRng::seed_from_u64(seed ^ (number + 1)),
                acknowledged: acknowledged.clone(),
                sent: BTreeMap::new(),
                next: 0,
            };
            clients.spawn(client.run(stop.clone()));
        }
        Self {
            clients,
            acknowledged,
            stop,
        }
    }

    fn acknowledged(&self) -> usize {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Lets each client finish its mail; all that was acknowledged.
    async fn stop(mut self) -> Result<BTreeMap<String, Sent>> {
        self.stop.cancel();
        let mut sent = BTreeMap::new();
        while let Some(client) = self.clients.join_next().await {
            sent.extend(client?);
        }
        Ok(sent)
    }
}

struct LoadClient {
    server: std::net::SocketAddr,
    ca_file: PathBuf,
    number: u64,
    chance: StdRng,
    acknowledged: Arc<AtomicUsize>,
    sent: BTreeMap<String, Sent>,
    next: usize,
}

impl LoadClient {
    async fn run(mut self, stop: CancellationToken) -> BTreeMap<String, Sent> {
        while !stop.is_cancelled() {
            // Whatever goes wrong, the answer is a new connection and new mail.
            if self.converse(&stop).await.is_err() {
                let pause = Duration::from_millis(self.chance.random_range(5..50));
                tokio::time::sleep(pause).await;
            }
        }
        self.sent
    }

    async fn converse(&mut self, stop: &CancellationToken) -> Result<()> {
        let (client, _) = Client::connect(self.server).await?;
        let mut client = client.starttls(&self.ca_file).await?;
        client.login("alice@demo.test", PASSWORD).await?;
        while !stop.is_cancelled() {
            let token = format!("{}-{}", self.number, self.next);
            self.next += 1;
            let foreign = self.chance.random_bool(0.3);
            let mut local: Vec<&'static str> = LOCAL
                .into_iter()
                .filter(|_| self.chance.random_bool(0.6))
                .collect();
            if local.is_empty() && !foreign {
                local.push(LOCAL[0]);
            }
            let recipients: Vec<&str> = local
                .iter()
                .copied()
                .chain(foreign.then_some(FOREIGN))
                .collect();
            let reply = client
                .attempt("alice@demo.test", &recipients, &content(&token))
                .await?;
            if !reply.starts_with("250") {
                ensure!(reply.starts_with("451"), "{reply}");
                client.expect("RSET", "250").await?;
                continue;
            }
            self.sent.insert(
                token,
                Sent {
                    local,
                    foreign,
                    reply,
                },
            );
            self.acknowledged.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// A mail program that reads, moves and deletes while mail comes in.
struct Reader {
    thread: thread::JoinHandle<Result<()>>,
    seen: Arc<Mutex<Vec<Seen>>>,
    stop: Arc<AtomicBool>,
}

/// One file that appeared in `new`.
struct Seen {
    account: &'static str,
    mail: Mail,
}

impl Reader {
    fn start(stack: &Stack, seed: u64) -> Result<Self> {
        let (seen, stop) = (
            Arc::<Mutex<Vec<Seen>>>::default(),
            Arc::new(AtomicBool::new(false)),
        );
        let maildirs =
            LOCAL.map(|account| stack.maildir(account).map(|maildir| (account, maildir)));
        let maildirs = maildirs.into_iter().collect::<Result<Vec<_>>>()?;
        let mut chance = StdRng::seed_from_u64(!seed);
        let thread = thread::spawn({
            let (seen, stop) = (seen.clone(), stop.clone());
            move || loop {
                let last_look = stop.load(Ordering::Acquire);
                for (account, maildir) in &maildirs {
                    let share = if last_look { 1.0 } else { 0.7 };
                    let found = take(maildir, &mut chance, share)?;
                    let found = found.into_iter().map(|mail| Seen { account, mail });
                    seen.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .extend(found);
                }
                if last_look {
                    return Ok(());
                }
                thread::sleep(Duration::from_millis(3));
            }
        });
        Ok(Self { thread, seen, stop })
    }

    /// Takes what is left and tells all that was ever there.
    fn stop(self) -> Result<Vec<Seen>> {
        self.stop.store(true, Ordering::Release);
        self.thread
            .join()
            .map_err(|_| anyhow::anyhow!("the reader panicked"))??;
        Ok(std::mem::take(
            &mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner),
        ))
    }
}

/// Reads a share of what is new, then moves it to `cur` or deletes it: whatever appears in `new` later was filed later.
fn take(maildir: &std::path::Path, chance: &mut StdRng, share: f64) -> Result<Vec<Mail>> {
    let mut taken = Vec::new();
    let entries = match fs::read_dir(maildir.join("new")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(taken),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if !chance.random_bool(share) {
            continue;
        }
        let name = entry.file_name().to_string_lossy().into_owned();
        let content = fs::read(entry.path())?;
        if chance.random_bool(0.5) {
            fs::remove_file(entry.path())?;
        } else {
            let seen = maildir.join("cur").join(format!("{name}:2,S"));
            fs::rename(entry.path(), &seen)?;
            if chance.random_bool(0.5) {
                fs::remove_file(seen)?;
            }
        }
        taken.push(Mail { name, content });
    }
    Ok(taken)
}

/// The judge sees what it is there for.
#[test]
fn a_lost_a_changed_and_a_doubled_mail_are_found() -> Result<()> {
    let filed = |id: &str, token: &str| Seen {
        account: LOCAL[0],
        mail: Mail {
            name: format!("1.Q{id}R0.mx.demo.test,S=1"),
            content: unwired(&[b"Return-Path: <>\r\n", &content(token)[..]].concat()),
        },
    };
    let kept = |token: &str| Kept {
        from: String::new(),
        to: Vec::new(),
        content: content(token),
    };
    let sent = Sent {
        local: vec![LOCAL[0]],
        foreign: true,
        reply: String::new(),
    };
    let sent = BTreeMap::from([("0-1".to_owned(), sent)]);
    let (one, other) = ("01m82zeek8etesv9sk3k12xtem", "01m82zeeqxfzfrz7k675c563dm");
    let mut changed = filed(one, "0-1");
    changed.mail.content.push(b'!');

    judge(&sent, &[filed(one, "0-1")], &[kept("0-1"), kept("0-1")])?;
    for (seen, relayed, fault) in [
        (vec![], vec![kept("0-1")], "is lost"),
        (vec![filed(one, "0-1")], vec![], "was not relayed"),
        (
            vec![filed(one, "0-1"), filed(one, "0-1")],
            vec![kept("0-1")],
            "filed twice",
        ),
        (
            vec![filed(one, "0-1"), filed(other, "0-1")],
            vec![kept("0-1")],
            "2 copies",
        ),
        (vec![changed], vec![kept("0-1")], "was changed"),
    ] {
        let verdict = judge(&sent, &seen, &relayed)
            .err()
            .context(fault)?
            .to_string();
        ensure!(verdict.contains(fault), "{verdict}");
    }
    Ok(())
}
