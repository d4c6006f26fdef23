//! A mail host that agents relay to: it answers as rules want it.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{Notify, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_util::task::AbortOnDropHandle;

use super::unstuffed;

/// What is answered to the final dot.
#[derive(Debug, Clone)]
pub enum End {
    Reply(&'static str),
    /// Nothing: the connection ends.
    HangUp,
    /// 250, once this is true.
    When(watch::Receiver<bool>),
}

/// What the host answers.
#[derive(Debug, Clone)]
pub struct Script {
    /// To RCPT, by recipient; others are taken.
    pub rcpt: BTreeMap<String, &'static str>,
    pub end: End,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            rcpt: BTreeMap::new(),
            end: End::Reply("250 2.0.0 taken"),
        }
    }
}

/// A mail whose content came.
#[derive(Debug, Clone)]
pub struct Taken {
    pub to: Vec<String>,
    pub content: Vec<u8>,
}

/// The host; it goes when it is dropped.
pub struct Host {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    _serving: AbortOnDropHandle<()>,
}

#[derive(Default)]
struct Shared {
    script: Mutex<Script>,
    taken: Mutex<Vec<Taken>>,
    came: Notify,
}

impl Host {
    /// Listens there.
    pub async fn start(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let shared: Arc<Shared> = Arc::default();
        let serving = tokio::spawn(serve(listener, Arc::clone(&shared)));
        Ok(Self {
            address,
            shared,
            _serving: AbortOnDropHandle::new(serving),
        })
    }

    /// Answers so from now on.
    pub fn answer(&self, script: Script) {
        *lock(&self.shared.script) = script;
    }

    /// The mails to one of ours that came so far.
    pub fn taken(&self, to: &str) -> Vec<Taken> {
        let taken = lock(&self.shared.taken);
        let theirs = taken
            .iter()
            .filter(|mail| mail.to.iter().any(|one| one == to));
        theirs.cloned().collect()
    }

    /// Waits until the content of a mail to one of ours has come.
    pub async fn comes(&self, to: &str, patience: Duration) -> bool {
        let come = async {
            loop {
                let came = self.shared.came.notified();
                tokio::pin!(came);
                came.as_mut().enable();
                if !self.taken(to).is_empty() {
                    return;
                }
                came.await;
            }
        };
        timeout(patience, come).await.is_ok()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                let connection = Connection { stream, unread: Vec::new(), shared: Arc::clone(&shared) };
                connections.spawn(connection.run());
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

struct Connection {
    stream: TcpStream,
    unread: Vec<u8>,
    shared: Arc<Shared>,
}

impl Connection {
    /// Until either side hangs up.
    async fn run(mut self) -> Option<()> {
        self.say("220 conformance.test ESMTP").await?;
        let mut to = Vec::new();
        loop {
            let line = self.until(b"\r\n").await?;
            let line = String::from_utf8_lossy(&line).into_owned();
            let verb = line.split([' ', '\r']).next().unwrap_or_default();
            match verb.to_ascii_uppercase().as_str() {
                "EHLO" => {
                    self.say("250-conformance.test\r\n250-8BITMIME\r\n250-SIZE\r\n250 ENHANCEDSTATUSCODES")
                        .await?;
                }
                "RCPT" => {
                    let path = line.split(['<', '>']).nth(1).unwrap_or_default().to_owned();
                    let reply = lock(&self.shared.script).rcpt.get(&path).copied();
                    let reply = reply.unwrap_or("250 2.1.5 ok");
                    if reply.starts_with('2') {
                        to.push(path);
                    }
                    self.say(reply).await?;
                }
                "DATA" if to.is_empty() => self.say("503 5.5.1 no recipients").await?,
                "DATA" => self.take(std::mem::take(&mut to)).await?,
                "QUIT" => {
                    self.say("221 2.0.0 bye").await?;
                    return Some(());
                }
                _ => {
                    to.clear();
                    self.say("250 2.0.0 ok").await?;
                }
            }
        }
    }

    async fn take(&mut self, to: Vec<String>) -> Option<()> {
        self.say("354 go on").await?;
        let wire = self.until(b"\r\n.\r\n").await?;
        let content = unstuffed(wire.strip_suffix(b".\r\n")?);
        lock(&self.shared.taken).push(Taken { to, content });
        self.shared.came.notify_waiters();
        let end = lock(&self.shared.script).end.clone();
        match end {
            End::Reply(reply) => self.say(reply).await,
            End::HangUp => None,
            End::When(mut gate) => {
                let _ = gate.wait_for(|open| *open).await;
                self.say("250 2.0.0 taken").await
            }
        }
    }

    async fn say(&mut self, reply: &str) -> Option<()> {
        let line = format!("{reply}\r\n");
        self.stream.write_all(line.as_bytes()).await.ok()
    }

    async fn until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        let mut searched: usize = 0;
        loop {
            let rest = self.unread.get(searched..)?;
            if let Some(at) = rest.windows(end.len()).position(|window| window == end) {
                let behind = self.unread.split_off(searched + at + end.len());
                return Some(std::mem::replace(&mut self.unread, behind));
            }
            searched = self.unread.len().saturating_sub(end.len());
            if self.stream.read_buf(&mut self.unread).await.ok()? == 0 {
                return None;
            }
        }
    }
}
