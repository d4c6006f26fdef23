//! Clients that bring mail, and the mails.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::BytesMut;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

/// The field that numbers the mails.
pub const NUMBER: &str = "X-Bench: ";
const LINE: usize = 76;

/// The mails of one round: all alike but for their numbers.
#[derive(Debug)]
pub struct Mails {
    pub count: usize,
    /// Header from its second field on, and body.
    rest: String,
    destinations: usize,
}

impl Mails {
    /// So many mails of about `size` octets to `destinations` domains.
    pub fn new(count: usize, size: usize, destinations: usize, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let mut rest = String::from(
            "From: <sender@client.test>\r\nTo: <friend@world.test>\r\nSubject: measured\r\n\
             Date: Mon, 23 Nov 2026 00:00:00 +0000\r\nMessage-ID: <bench@client.test>\r\n\r\n",
        );
        while rest.len() < size {
            // No line begins with a dot, so that the content on the wire is the content.
            rest.extend((0..LINE).map(|_| char::from(random.random_range(b'0'..=b'z'))));
            rest += "\r\n";
        }
        Self {
            count,
            rest,
            destinations,
        }
    }

    /// The number of a mail, if it is one of ours and whole. `content` is without the final dot.
    pub fn number(&self, content: &[u8]) -> Option<usize> {
        if !content.ends_with(self.rest.as_bytes()) {
            return None;
        }
        let at = memchr::memmem::find(content, NUMBER.as_bytes())?;
        let digits = content.get(at + NUMBER.len()..)?;
        let end = digits.iter().position(|octet| *octet == b'\r')?;
        let number = std::str::from_utf8(digits.get(..end)?).ok()?.parse().ok()?;
        (number < self.count).then_some(number)
    }

    fn commands(&self, number: usize) -> String {
        format!(
            "MAIL FROM:<sender@client.test>\r\nRCPT TO:<friend@world{}.test>\r\nDATA\r\n",
            number % self.destinations
        )
    }

    fn content(&self, number: usize) -> String {
        format!("{NUMBER}{number}\r\n{}.\r\n", self.rest)
    }
}

/// Brings all mails to `server` over `sessions` connections at a time, `per_connection` on each.
pub async fn bring(
    mails: &Arc<Mails>,
    server: SocketAddr,
    sessions: usize,
    per_connection: usize,
) -> Result<()> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut clients = JoinSet::new();
    for _ in 0..sessions {
        let (mails, next) = (Arc::clone(mails), Arc::clone(&next));
        clients.spawn(client(mails, next, server, per_connection));
    }
    while let Some(ended) = clients.join_next().await {
        ended??;
    }
    Ok(())
}

async fn client(
    mails: Arc<Mails>,
    next: Arc<AtomicUsize>,
    server: SocketAddr,
    per_connection: usize,
) -> Result<()> {
    let take = || {
        let number = next.fetch_add(1, Ordering::Relaxed);
        (number < mails.count).then_some(number)
    };
    let mut number = take();
    while number.is_some() {
        let mut session = Session::open(server).await?;
        for _ in 0..per_connection {
            let Some(at) = number else { break };
            session.send(&mails, at).await?;
            number = take();
        }
        session.say("QUIT\r\n").await?;
        session.expect(221).await?;
    }
    Ok(())
}

struct Session {
    stream: TcpStream,
    input: BytesMut,
}

impl Session {
    async fn open(server: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(server).await?;
        stream.set_nodelay(true)?;
        let mut session = Self {
            stream,
            input: BytesMut::with_capacity(1024),
        };
        session.expect(220).await?;
        session.say("EHLO client.test\r\n").await?;
        session.expect(250).await?;
        Ok(session)
    }

    /// Both servers offer PIPELINING (RFC 2920), so the three commands go together.
    async fn send(&mut self, mails: &Mails, number: usize) -> Result<()> {
        self.say(&mails.commands(number)).await?;
        for code in [250, 250, 354] {
            self.expect(code).await?;
        }
        self.say(&mails.content(number)).await?;
        self.expect(250).await
    }

    async fn say(&mut self, text: &str) -> Result<()> {
        Ok(self.stream.write_all(text.as_bytes()).await?)
    }

    /// Reads a reply of one or more lines.
    async fn expect(&mut self, code: u16) -> Result<()> {
        loop {
            while let Some(end) = memchr::memchr(b'\n', &self.input) {
                let line = self.input.split_to(end + 1);
                let last = line.get(3) != Some(&b'-');
                if last {
                    let line = String::from_utf8_lossy(&line);
                    let said: u16 = line
                        .get(..3)
                        .unwrap_or_default()
                        .parse()
                        .context("a reply")?;
                    ensure!(said == code, "{code} was expected: {line}");
                    return Ok(());
                }
            }
            if self.stream.read_buf(&mut self.input).await? == 0 {
                bail!("the server hung up where {code} was expected");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_mails_of_the_round_have_a_number() {
        let mails = Mails::new(10, 5120, 2, 1);
        let number = |content: String| mails.number(content.trim_end_matches(".\r\n").as_bytes());
        assert_eq!(
            number(format!("Received: x\r\n{}", mails.content(7))),
            Some(7)
        );
        assert_eq!(number(mails.content(10)), None, "not of this round");
        assert_eq!(
            number(mails.content(7).replacen("measured", "measures", 1)),
            None
        );
        assert!(!mails.rest.contains("\r\n."));
        assert_eq!(
            mails.rest,
            Mails::new(1, 5120, 1, 1).rest,
            "the seed decides"
        );
    }
}
