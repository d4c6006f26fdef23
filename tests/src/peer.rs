//! A foreign mail server that does as it is told and keeps what it takes.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context as _, Result};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::{JoinHandle, JoinSet},
    time::timeout,
};

use crate::PATIENCE;

/// A mail the peer said 250 to.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The reverse-path without brackets.
    pub from: String,
    /// The forward-paths without brackets.
    pub to: Vec<String>,
    /// The content as it came, without dot-stuffing.
    pub content: Vec<u8>,
}

/// The server; it goes down when it is dropped.
pub struct Peer {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    serving: Option<JoinHandle<()>>,
    /// Still holds the address for a moment after it went down.
    ending: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    kept: Vec<Kept>,
    /// What RCPT is answered with, by recipient; `*` is everybody else.
    answers: BTreeMap<String, String>,
    /// RCPT commands heard.
    attempts: usize,
    /// Connections that began, and those that ended with QUIT.
    connections: usize,
    farewells: usize,
    /// MAIL and RCPT, as they came.
    heard: Vec<String>,
    /// What is offered beside what every peer offers.
    offers: Vec<String>,
    /// Conversations to come that will get no answer to RCPT for now, by recipient.
    stalls: BTreeMap<String, Stall>,
}

/// The other end of a [`Stalled`].
struct Stall {
    reached: oneshot::Sender<()>,
    answer: oneshot::Receiver<String>,
}

/// A conversation that waits for the answer to its RCPT.
pub struct Stalled {
    reached: oneshot::Receiver<()>,
    answer: oneshot::Sender<String>,
}

impl Stalled {
    /// Waits until a client has said RCPT.
    pub async fn reached(&mut self) -> Result<()> {
        let reached = timeout(PATIENCE, &mut self.reached).await;
        reached.context("nobody came")?.context("the peer is down")
    }

    /// Answers it; the client may have gone.
    pub fn answer(self, reply: &str) {
        let _ = self.answer.send(reply.to_owned());
    }
}

impl Peer {
    /// A server that will be at `address` but is down.
    pub fn down(address: SocketAddr) -> Self {
        Self {
            address,
            state: Arc::default(),
            serving: None,
            ending: None,
        }
    }

    /// A server that takes everything.
    pub async fn up(address: SocketAddr) -> Result<Self> {
        let mut peer = Self::down(address);
        peer.go_up().await?;
        Ok(peer)
    }

    /// Begins to listen.
    pub async fn go_up(&mut self) -> Result<()> {
        if let Some(ending) = self.ending.take() {
            let _ = ending.await;
        }
        let listener = TcpListener::bind(self.address)
            .await
            .with_context(|| self.address.to_string())?;
        let state = self.state.clone();
        self.serving = Some(tokio::spawn(serve(listener, state)));
        Ok(())
    }

    /// Drops the listener and every connection.
    pub fn go_down(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
            self.ending = Some(serving);
        }
    }

    /// From now on RCPT for `recipient` (`*`: for all without an answer of their own) is answered so.
    pub fn answer(&self, recipient: &str, reply: &str) {
        lock(&self.state)
            .answers
            .insert(recipient.to_owned(), reply.to_owned());
    }

    /// The mails kept after the first so many.
    pub fn kept_after(&self, count: usize) -> Vec<Kept> {
        lock(&self.state)
            .kept
            .get(count..)
            .unwrap_or_default()
            .to_vec()
    }

    /// From now on everybody is welcome.
    pub fn welcome_all(&self) {
        lock(&self.state).answers.clear();
    }

    /// The next RCPT for `recipient` is answered when the test says so.
    pub fn stall_next(&self, recipient: &str) -> Stalled {
        let (reached, is_reached) = oneshot::channel();
        let (say, answer) = oneshot::channel();
        let stall = Stall { reached, answer };
        lock(&self.state).stalls.insert(recipient.to_owned(), stall);
        Stalled {
            reached: is_reached,
            answer: say,
        }
    }

    /// What was taken so far.
    pub fn kept(&self) -> Vec<Kept> {
        lock(&self.state).kept.clone()
    }

    /// MAIL and RCPT, as they came, with their parameters.
    pub fn heard(&self) -> Vec<String> {
        lock(&self.state).heard.clone()
    }

    /// From now on EHLO is answered with this line, too.
    pub fn offer(&self, line: &str) {
        lock(&self.state).offers.push(line.to_owned());
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        lock(&self.state).connections
    }

    /// Connections so far that ended with QUIT.
    pub fn farewells(&self) -> usize {
        lock(&self.state).farewells
    }

    /// RCPT commands heard so far.
    pub fn attempts(&self) -> usize {
        lock(&self.state).attempts
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.go_down();
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(listener: TcpListener, state: Arc<Mutex<State>>) {
    // Aborting this task drops the set and with it the conversations.
    let mut conversations = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let state = state.clone();
        conversations.spawn(async move {
            // A client that vanishes is its own business.
            let _ = converse(stream, &state).await;
        });
        while conversations.try_join_next().is_some() {}
    }
}

/// RFC 5321 §4.1.1, as much as a client needs.
async fn converse(stream: TcpStream, state: &Mutex<State>) -> Result<()> {
    let mut stream = BufReader::new(stream);
    lock(state).connections += 1;
    say(&mut stream, "220 peer.test ESMTP").await?;
    let (mut from, mut to) = (String::new(), Vec::new());
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let line = line.trim_end();
        let (verb, argument) = line.split_once([' ', ':']).unwrap_or((line, ""));
        let reply = match verb.to_ascii_uppercase().as_str() {
            "EHLO" => hello(state),
            "HELO" | "NOOP" => "250 peer.test".to_owned(),
            "MAIL" => {
                lock(state).heard.push(line.to_owned());
                (from, to) = (path(argument), Vec::new());
                "250 2.1.0 sender".to_owned()
            }
            "RCPT" => {
                lock(state).heard.push(line.to_owned());
                rcpt(state, path(argument), &mut to).await
            }
            "DATA" if to.is_empty() => "554 5.5.1 no valid recipients".to_owned(),
            "DATA" => {
                say(&mut stream, "354 go on").await?;
                let content = content(&mut stream).await?;
                lock(state).kept.push(Kept {
                    from: from.clone(),
                    to: std::mem::take(&mut to),
                    content,
                });
                "250 2.0.0 kept".to_owned()
            }
            "RSET" => {
                to.clear();
                "250 2.0.0 reset".to_owned()
            }
            "QUIT" => {
                lock(state).farewells += 1;
                return say(&mut stream, "221 2.0.0 bye").await;
            }
            _ => "502 5.5.1 not here".to_owned(),
        };
        say(&mut stream, &reply).await?;
    }
}

fn hello(state: &Mutex<State>) -> String {
    let offers = &lock(state).offers;
    let offers = offers.iter().map(|line| format!("250-{line}\r\n"));
    let offers: String = offers.collect();
    format!("250-peer.test\r\n250-8BITMIME\r\n{offers}250 PIPELINING")
}

async fn rcpt(state: &Mutex<State>, address: String, to: &mut Vec<String>) -> String {
    let stall = lock(state).stalls.remove(&address);
    let Some(stall) = stall else {
        return recipient(state, address, to);
    };
    lock(state).attempts += 1;
    let _ = stall.reached.send(());
    let reply = stall.answer.await.unwrap_or_default();
    if reply.starts_with('2') {
        to.push(address);
    }
    reply
}

fn recipient(state: &Mutex<State>, recipient: String, to: &mut Vec<String>) -> String {
    let mut state = lock(state);
    state.attempts += 1;
    match state
        .answers
        .get(&recipient)
        .or_else(|| state.answers.get("*"))
    {
        Some(refusal) => refusal.clone(),
        None => {
            to.push(recipient);
            "250 2.1.5 recipient".to_owned()
        }
    }
}

/// What stands between the brackets of `FROM:<a@b> SIZE=3`.
fn path(argument: &str) -> String {
    let inside = argument
        .split_once('<')
        .and_then(|(_, rest)| rest.split_once('>'));
    inside.map_or(String::new(), |(path, _)| path.to_owned())
}

async fn content(stream: &mut BufReader<TcpStream>) -> Result<Vec<u8>> {
    let mut content = Vec::new();
    loop {
        let mut line = Vec::new();
        if stream.read_until(b'\n', &mut line).await? == 0 {
            anyhow::bail!("the content has no end");
        }
        match line.strip_prefix(b".") {
            Some(b"\r\n") => return Ok(content),
            Some(rest) => content.extend_from_slice(rest),
            None => content.extend_from_slice(&line),
        }
    }
}

async fn say(stream: &mut BufReader<TcpStream>, reply: &str) -> Result<()> {
    stream.write_all(format!("{reply}\r\n").as_bytes()).await?;
    Ok(stream.flush().await?)
}
