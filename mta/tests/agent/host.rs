//! A mail host on loopback that answers what its script says.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use postroad_net::{ServerTls, Stream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// What the host answers; everything else is accepted.
#[derive(Clone)]
pub struct Script {
    pub greeting: &'static str,
    /// Lines of the reply to EHLO or LHLO after the host's name; none: 502, so that HELO is needed.
    pub ehlo: Option<Vec<&'static str>>,
    pub starttls: StartTls,
    /// TLS from the first octet.
    pub implicit: Option<ServerTls>,
    /// To AUTH PLAIN with everything in it.
    pub auth: &'static str,
    pub mail: &'static str,
    /// By local part; others get 250.
    pub rcpt: Vec<(&'static str, &'static str)>,
    /// Recipients of one transaction; more get 452 4.5.3.
    pub rcpt_max: Option<usize>,
    /// Recipients of other domains than the first one get 451 4.3.0.
    pub one_domain: bool,
    pub data: &'static str,
    pub end: &'static str,
    /// A reply for each accepted recipient after the content, `rcpt_end` by local part (RFC 2033).
    pub lmtp: bool,
    pub rcpt_end: Vec<(&'static str, &'static str)>,
    /// At this command the host hangs up without a word (`.` is the final dot, `greeting` the beginning).
    pub hang_up_at: Option<&'static str>,
    /// At this command the host falls silent.
    pub silent_at: Option<&'static str>,
    /// How the host ends a connection that had so many mails.
    pub last_mail: Option<(usize, Farewell)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Farewell {
    /// Hangs up without a word.
    HangsUp,
    /// Says this without being asked, then hangs up.
    Says(&'static str),
    /// Says this to the next MAIL, then hangs up.
    SaysToMail(&'static str),
}

#[derive(Clone)]
pub enum StartTls {
    /// Says 220 and makes the handshake.
    Works(ServerTls),
    /// Says 220 and then something that is no TLS.
    Breaks,
    /// Says this.
    Refused(&'static str),
}

impl Default for Script {
    fn default() -> Self {
        Self {
            greeting: "220 mx.test ESMTP",
            ehlo: Some(vec![
                "PIPELINING",
                "8BITMIME",
                "SIZE",
                "ENHANCEDSTATUSCODES",
            ]),
            starttls: StartTls::Refused("502 5.5.1 no"),
            implicit: None,
            auth: "235 2.7.0 welcome",
            mail: "250 2.1.0 ok",
            rcpt: Vec::new(),
            rcpt_max: None,
            one_domain: false,
            data: "354 go on",
            end: "250 2.0.0 queued as 42",
            lmtp: false,
            rcpt_end: Vec::new(),
            hang_up_at: None,
            silent_at: None,
            last_mail: None,
        }
    }
}

/// What was said in one connection.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    pub commands: Vec<String>,
    /// As sent, dot-stuffing and all, without the final dot.
    pub content: Vec<u8>,
    pub tls: bool,
    /// The name that the other side asked for.
    pub sni: Option<String>,
    /// Whether the other side showed a certificate.
    pub certificate: bool,
}

pub struct Host {
    pub address: SocketAddr,
    heard: Arc<Mutex<Vec<Heard>>>,
    ended: Arc<Semaphore>,
    task: JoinHandle<()>,
}

impl Host {
    /// Listens at a free port of 127.0.0.1.
    pub async fn start(script: Script) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), script).await
    }

    /// Listens there.
    pub async fn start_at(address: SocketAddr, script: Script) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let heard: Arc<Mutex<Vec<Heard>>> = Arc::default();
        let ended = Arc::new(Semaphore::new(0));
        let task = tokio::spawn(serve(
            listener,
            script,
            Arc::clone(&heard),
            Arc::clone(&ended),
        ));
        Self {
            address,
            heard,
            ended,
            task,
        }
    }

    /// Waits for one more connection to end.
    pub async fn one_ended(&self) {
        self.ended.acquire().await.unwrap().forget();
    }

    /// Every connection so far.
    pub fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap().clone()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    listener: TcpListener,
    script: Script,
    heard: Arc<Mutex<Vec<Heard>>>,
    ended: Arc<Semaphore>,
) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let index = {
            let mut heard = heard.lock().unwrap();
            heard.push(Heard::default());
            heard.len() - 1
        };
        let connection = Connection {
            stream: Stream::from(stream),
            input: Vec::new(),
            script: script.clone(),
            heard: Arc::clone(&heard),
            index,
            accepted: Vec::new(),
            domain: None,
            mails: 0,
        };
        let ended = Arc::clone(&ended);
        connections.spawn(async move {
            let end = connection.run().await;
            ended.add_permits(1);
            end
        });
    }
}

struct Connection {
    stream: Stream,
    input: Vec<u8>,
    script: Script,
    heard: Arc<Mutex<Vec<Heard>>>,
    index: usize,
    accepted: Vec<String>,
    /// Of the first of them.
    domain: Option<String>,
    /// That were taken.
    mails: usize,
}

impl Connection {
    /// Ends with `None` when either side hangs up.
    async fn run(mut self) -> Option<()> {
        if let Some(tls) = self.script.implicit.clone() {
            self = self.encrypt(&tls).await?;
        }
        self.obey("greeting").await?;
        let greeting = self.script.greeting;
        self.say(greeting).await?;
        loop {
            let line = String::from_utf8(self.until(b"\r\n").await?).unwrap();
            self.note(|heard| heard.commands.push(line.trim_end().to_owned()));
            let verb = line.split([' ', '\r']).next().unwrap().to_uppercase();
            self.obey(&verb).await?;
            match verb.as_str() {
                "EHLO" | "LHLO" => self.hello().await?,
                "STARTTLS" => self = self.start_tls().await?,
                "AUTH" => self.say(self.script.auth).await?,
                "MAIL" => {
                    self.accepted.clear();
                    self.domain = None;
                    if let Some(Farewell::SaysToMail(words)) = self.farewell() {
                        self.say(words).await?;
                        return None;
                    }
                    self.say(self.script.mail).await?;
                }
                "RCPT" => self.rcpt(&line).await?,
                "DATA" => {
                    self.data().await?;
                    match self.farewell() {
                        Some(Farewell::Says(words)) => {
                            self.say(words).await?;
                            return None;
                        }
                        Some(Farewell::HangsUp) => return None,
                        _ => {}
                    }
                }
                "BDAT" => self.chunk(&line).await?,
                "QUIT" => {
                    self.say("221 2.0.0 bye").await?;
                    return Some(());
                }
                _ => self.say("250 ok").await?,
            }
        }
    }

    async fn hello(&mut self) -> Option<()> {
        let Some(extensions) = self.script.ehlo.clone() else {
            return self.say("502 5.5.1 what is that").await;
        };
        let lines = [vec!["mx.test"], extensions].concat();
        let (last, first) = lines.split_last().unwrap();
        for line in first {
            self.say(&format!("250-{line}")).await?;
        }
        self.say(&format!("250 {last}")).await
    }

    async fn start_tls(mut self) -> Option<Self> {
        match self.script.starttls.clone() {
            StartTls::Refused(reply) => self.say(reply).await?,
            StartTls::Breaks => {
                self.say("220 go on").await?;
                // Waits for the first flight, so that this is no plain text behind the reply.
                self.stream.read_u8().await.ok()?;
                self.say("this is not TLS").await?;
                return None;
            }
            StartTls::Works(tls) => {
                self.say("220 go on").await?;
                self = self.encrypt(&tls).await?;
            }
        }
        Some(self)
    }

    async fn encrypt(mut self, tls: &ServerTls) -> Option<Self> {
        let within = Duration::from_secs(10);
        let upgraded = self.stream.upgrade_server(tls, &self.input, within).await;
        self.stream = upgraded.ok()?;
        let sni = self.stream.tls_info().and_then(|info| info.sni.clone());
        let certificate = self.stream.peer_certificate().is_some();
        self.note(|heard| (heard.tls, heard.sni, heard.certificate) = (true, sni, certificate));
        Some(self)
    }

    async fn rcpt(&mut self, line: &str) -> Option<()> {
        if !self.script.mail.starts_with('2') {
            return self.say("503 5.5.1 MAIL first").await;
        }
        let local_part = line
            .split_once('<')
            .unwrap()
            .1
            .split('@')
            .next()
            .unwrap()
            .to_owned();
        let domain = line.split(['@', '>']).nth(1).unwrap_or_default().to_owned();
        let first = self.domain.get_or_insert_with(|| domain.clone());
        if self.script.one_domain && *first != domain {
            return self.say("451 4.3.0 one domain at a time").await;
        }
        let most = self.script.rcpt_max;
        if most.is_some_and(|most| self.accepted.len() >= most) {
            return self.say("452 4.5.3 too many recipients").await;
        }
        let reply = said(&self.script.rcpt, &local_part).unwrap_or("250 2.1.5 ok");
        if reply.starts_with('2') {
            self.accepted.push(local_part);
        }
        self.say(reply).await
    }

    async fn data(&mut self) -> Option<()> {
        if self.accepted.is_empty() {
            return self.say("503 5.5.1 nobody").await;
        }
        let reply = self.script.data;
        self.say(reply).await?;
        if !reply.starts_with('3') {
            return Some(());
        }
        let mut content = self.until(b"\r\n.\r\n").await?;
        content.truncate(content.len() - b".\r\n".len());
        self.mails += 1;
        self.note(|heard| heard.content = content);
        self.obey(".").await?;
        if !self.script.lmtp {
            return self.say(self.script.end).await;
        }
        for local_part in std::mem::take(&mut self.accepted) {
            let reply = said(&self.script.rcpt_end, &local_part).unwrap_or(self.script.end);
            self.say(reply).await?;
        }
        Some(())
    }

    /// RFC 3030 §2.
    async fn chunk(&mut self, line: &str) -> Option<()> {
        let mut words = line.split_whitespace().skip(1);
        let size: usize = words.next()?.parse().ok()?;
        while self.input.len() < size {
            if self.stream.read_buf(&mut self.input).await.ok()? == 0 {
                return None;
            }
        }
        let rest = self.input.split_off(size);
        let content = std::mem::replace(&mut self.input, rest);
        if self.accepted.is_empty() {
            return self.say("503 5.5.1 nobody").await;
        }
        self.note(|heard| heard.content = content);
        self.mails += 1;
        self.obey(".").await?;
        self.say(self.script.end).await
    }

    fn farewell(&self) -> Option<Farewell> {
        let (last, farewell) = self.script.last_mail?;
        (self.mails >= last).then_some(farewell)
    }

    async fn obey(&mut self, step: &str) -> Option<()> {
        if self.script.silent_at == Some(step) {
            // Until the other side has had enough.
            while self.stream.read_u8().await.is_ok() {}
            return None;
        }
        (self.script.hang_up_at != Some(step)).then_some(())
    }

    async fn say(&mut self, line: &str) -> Option<()> {
        let line = format!("{line}\r\n");
        self.stream.write_all(line.as_bytes()).await.ok()?;
        self.stream.flush().await.ok()
    }

    async fn until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        let mut searched = 0;
        loop {
            let from = searched.min(self.input.len());
            if let Some(at) = self.input[from..].windows(end.len()).position(|w| w == end) {
                let rest = self.input.split_off(from + at + end.len());
                return Some(std::mem::replace(&mut self.input, rest));
            }
            searched = self.input.len().saturating_sub(end.len());
            if self.stream.read_buf(&mut self.input).await.ok()? == 0 {
                return None;
            }
        }
    }

    fn note(&self, what: impl FnOnce(&mut Heard)) {
        what(&mut self.heard.lock().unwrap()[self.index]);
    }
}

fn said(replies: &[(&'static str, &'static str)], local_part: &str) -> Option<&'static str> {
    replies
        .iter()
        .find(|(known, _)| *known == local_part)
        .map(|(_, reply)| *reply)
}
