//! Clients that bring mail, and the mails.

use std::{
    fmt,
    io::Cursor,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::{Buf, BytesMut};
use postroad_net::{ClientTls, Stream, connect_tcp};
use postroad_tests::PASSWORD;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    task::JoinSet,
};

/// The field that numbers the mails.
pub const NUMBER: &str = "X-Bench: ";
const LINE: usize = 76;
/// For a connection and for a handshake.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whom mails are to, in turn.
#[derive(Clone, Copy, Debug)]
pub enum To {
    /// `friend@world0.test`, `friend@world1.test` and so on.
    Worlds(usize),
    /// `user0@demo.test`, `user1@demo.test` and so on.
    Users(usize),
    /// The same, and each mail is from whom it is to.
    Colleagues(usize),
}

impl To {
    /// Whom the mail of this number is to.
    pub fn address(self, number: usize) -> String {
        match self {
            Self::Worlds(count) => format!("friend@world{}.test", number % count),
            Self::Users(count) | Self::Colleagues(count) => {
                format!("user{}@demo.test", number % count)
            }
        }
    }

    /// Whom the mail of this number is from.
    pub fn sender(self, number: usize) -> String {
        match self {
            Self::Worlds(_) | Self::Users(_) => "sender@client.test".to_owned(),
            Self::Colleagues(_) => self.address(number),
        }
    }
}

impl fmt::Display for To {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Worlds(count) => write!(f, "{count} hosts"),
            Self::Users(count) | Self::Colleagues(count) => write!(f, "{count} mailboxes"),
        }
    }
}

/// The mails of one round: all alike but for their numbers.
#[derive(Debug)]
pub struct Mails {
    pub count: usize,
    /// Header from its third field on, and body.
    rest: String,
    to: To,
    by_recipient: bool,
}

impl Mails {
    /// So many mails of about `size` octets.
    pub fn new(count: usize, size: usize, to: To, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let mut rest = String::from(
            "To: <friend@world.test>\r\nSubject: measured\r\n\
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
            to,
            by_recipient: false,
        }
    }

    /// The same, all with one content, which ends with an empty line, and to one domain: their number, from 1, is before the recipient's name.
    pub fn numbered_by_recipient(self) -> Self {
        Self {
            by_recipient: true,
            rest: self.rest + "\r\n",
            ..self
        }
    }

    /// Whom the mail of this number is to.
    pub fn recipient(&self, number: usize) -> String {
        self.to.address(number)
    }

    /// Whom the mail of this number is from.
    pub fn sender(&self, number: usize) -> String {
        self.to.sender(number)
    }

    /// The content without a number.
    pub fn plain(&self) -> String {
        format!("From: <{}>\r\n{}", self.sender(0), self.rest)
    }

    /// The number of a mail, if it is one of ours and whole. `content` is without the final dot; `rcpt` is the last RCPT.
    pub fn number_of(&self, rcpt: &[u8], content: &[u8]) -> Option<usize> {
        if !self.by_recipient {
            return self.number(content);
        }
        if !content.ends_with(self.rest.as_bytes()) {
            return None;
        }
        let begin = memchr::memchr(b'<', rcpt)? + 1;
        let name = std::str::from_utf8(rcpt.get(begin..)?).ok()?;
        let end = name.find(|letter: char| !letter.is_ascii_digit())?;
        let number = name.get(..end)?.parse::<usize>().ok()?.checked_sub(1)?;
        (number < self.count).then_some(number)
    }

    /// The number of a mail that has it in its content, if it is one of ours and whole.
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
            "MAIL FROM:<{}>\r\nRCPT TO:<{}>\r\nDATA\r\n",
            self.sender(number),
            self.recipient(number)
        )
    }

    /// The content of the mail of this number, with the final dot. What all mails share is not copied: at 5 MiB that was a fifth of the
    /// processor time of load and sink.
    fn content(&self, number: usize) -> impl Buf {
        let own = format!("{NUMBER}{number}\r\nFrom: <{}>\r\n", self.sender(number));
        Buf::chain(Cursor::new(own), self.rest.as_bytes()).chain(b".\r\n".as_slice())
    }
}

/// How mails get into a product.
#[derive(Clone)]
pub struct Way {
    pub server: SocketAddr,
    /// Clients begin with TLS, and log in as who the mail is from.
    pub submission: Option<ClientTls>,
}

/// Brings all mails by `way` over `sessions` connections at a time, `per_connection` on each.
pub async fn bring(
    mails: &Arc<Mails>,
    way: &Way,
    sessions: usize,
    per_connection: usize,
) -> Result<()> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut clients = JoinSet::new();
    for _ in 0..sessions {
        let (mails, next) = (Arc::clone(mails), Arc::clone(&next));
        clients.spawn(client(mails, next, way.clone(), per_connection));
    }
    while let Some(ended) = clients.join_next().await {
        ended??;
    }
    Ok(())
}

/// Brings one mail over a connection of its own: how long the final dot took, and when it was answered.
pub async fn bring_one(mails: &Mails, way: &Way, number: usize) -> Result<(Duration, Instant)> {
    let mut session = Session::open(way, &mails.sender(number)).await?;
    let times = session.send(mails, number).await?;
    session.quit().await?;
    Ok(times)
}

async fn client(
    mails: Arc<Mails>,
    next: Arc<AtomicUsize>,
    way: Way,
    per_connection: usize,
) -> Result<()> {
    let take = || {
        let number = next.fetch_add(1, Ordering::Relaxed);
        (number < mails.count).then_some(number)
    };
    let mut number = take();
    while number.is_some() {
        let sender = mails.sender(number.unwrap_or_default());
        let mut session = Session::open(&way, &sender).await?;
        for _ in 0..per_connection {
            // Who logged in sends what is from them alone.
            let Some(at) = number.filter(|at| mails.sender(*at) == sender) else {
                break;
            };
            session.send(&mails, at).await?;
            number = take();
        }
        session.quit().await?;
    }
    Ok(())
}

/// A conversation past EHLO.
pub struct Session {
    stream: Stream,
    input: BytesMut,
}

impl Session {
    /// Greets, and logs in as `account` where the way is one of submission.
    pub async fn open(way: &Way, account: &str) -> Result<Self> {
        let mut stream = connect_tcp(way.server, PATIENCE, None).await?;
        if let Some(tls) = &way.submission {
            stream = stream
                .upgrade_client(tls, "mx.demo.test", &[], PATIENCE)
                .await?;
        }
        let mut session = Self {
            stream,
            input: BytesMut::with_capacity(1024),
        };
        session.expect(220).await?;
        session.say(&b"EHLO client.test\r\n"[..]).await?;
        session.expect(250).await?;
        if way.submission.is_some() {
            let secret = BASE64_STANDARD.encode(format!("\0{account}\0{PASSWORD}"));
            session
                .say(format!("AUTH PLAIN {secret}\r\n").as_bytes())
                .await?;
            session.expect(235).await?;
        }
        Ok(session)
    }

    async fn quit(&mut self) -> Result<()> {
        self.say(&b"QUIT\r\n"[..]).await?;
        self.expect(221).await
    }

    /// Both servers offer PIPELINING (RFC 2920), so the three commands go together.
    /// How long the final dot took, and when it was answered.
    async fn send(&mut self, mails: &Mails, number: usize) -> Result<(Duration, Instant)> {
        self.say(mails.commands(number).as_bytes()).await?;
        for code in [250, 250, 354] {
            self.expect(code).await?;
        }
        self.say(mails.content(number)).await?;
        let said = Instant::now();
        self.expect(250).await?;
        Ok((said.elapsed(), Instant::now()))
    }

    async fn say(&mut self, mut octets: impl Buf) -> Result<()> {
        self.stream.write_all_buf(&mut octets).await?;
        Ok(self.stream.flush().await?)
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
    fn smtp_sources_number_is_before_the_recipient() {
        let mails = Mails::new(10, 5120, To::Worlds(1), 1).numbered_by_recipient();
        let content = format!("Received: x\r\n{}", mails.plain());
        let number = |rcpt: &str| mails.number_of(rcpt.as_bytes(), content.as_bytes());
        assert_eq!(number("RCPT TO:<1friend@world0.test>\r\n"), Some(0));
        assert_eq!(number("RCPT TO:<10friend@world0.test>\r\n"), Some(9));
        for strange in ["<11friend@world0.test>", "<0friend@x>", "<friend@x>", ""] {
            assert_eq!(number(strange), None, "{strange}");
        }
        assert_eq!(mails.number_of(b"RCPT TO:<1friend@x>", b"else"), None);
    }

    #[test]
    fn only_whole_mails_of_the_round_have_a_number() {
        let mails = Mails::new(10, 5120, To::Worlds(2), 1);
        let content = |number| {
            let mut content = mails.content(number);
            let content = content.copy_to_bytes(content.remaining());
            String::from_utf8(content.into()).expect("text")
        };
        let number = |content: String| mails.number(content.trim_end_matches(".\r\n").as_bytes());
        assert_eq!(number(format!("Received: x\r\n{}", content(7))), Some(7));
        assert_eq!(number(content(10)), None, "not of this round");
        assert_eq!(number(content(7).replacen("measured", "measures", 1)), None);
        assert!(!mails.rest.contains("\r\n."));
        assert_eq!(
            mails.rest,
            Mails::new(1, 5120, To::Users(1), 1).rest,
            "the seed decides"
        );
    }
}
