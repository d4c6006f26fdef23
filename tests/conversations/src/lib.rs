//! Conversations between a client and our servers, as text: `rfcNNNN/section-behaviour.txt`, and in `postfix` what Postfix
//! invented.
//!
//! ```text
//! title: RFC 5321 §4.1.4: MAIL inside of a transaction is 503, and the transaction goes on
//! listener: submission, inbound
//! needs: ready
//!
//! C: MAIL FROM:<alice@demo.test>
//! S: 250 2.1.0 …
//! ```
//!
//! Headers: `title` begins with the RFC of the folder and says what is proved. `listener` is one or more of `submission`
//! (587), `submissions` (465), `inbound` (25), `neighbour` (25, from an address that may say XFORWARD), `proxy` (25, from one
//! that may say XCLIENT) and `lmtp`; the conversation is held at each. `needs` is what happens before the first line, see [`Needs`], and `one packet` if what the
//! client says too early shows only where it comes in one piece. `why` says why we answer so where others answer otherwise.
//!
//! | line | meaning |
//! |---|---|
//! | `C: text` | the client says a line, CRLF is added; lines in a row go out in one packet |
//! | `C! octets` | the client sends octets: `\r`, `\n`, `\0`, `\xff`, `\\` |
//! | `B: octets`, `L: octets` | the client sends BDAT with their number, without and with LAST, and the octets |
//! | `A: mechanism name password` | the client logs in so, answering each challenge; then comes what the server says to that |
//! | `S: text` | the server says exactly this line |
//! | `S+ 250 +PIPELINING -AUTH` | the server gives a whole reply, with such lines and without such others |
//! | `C*3: text`, `S*3: text` | three times |
//! | `T:` | the TLS handshake |
//! | `M: octets` | the content of the mail accepted just before ends so |
//! | `C--` | the client ends its side |
//! | `S--` | the server has closed the connection |
//! | `#` | a remark |
//!
//! In what the server says `…` stands for any text, `{queue-id}` for the id of a mail and `{number}` for digits. On both sides
//! there are `{host}` (the server's name), `{size}` (its limit, also `{size+1}`), `{x*600}` (600 times x, or `{x*size-2}`) and
//! `{b64:octets}`; on the client's also `{ehlo}` (EHLO, by LMTP LHLO).
//!
//! Everybody knows the same world: [`HOST`] has the accounts alice, bob and carol of demo.test with [`PASSWORD`], and dora, whose
//! password can be proved by SCRAM and CRAM-MD5 as well; carol is the postmaster, gone@demo.test is an account that takes no mail, all@demo.test is an alias of bob and carol; world.test is not ours.
//!
//! A [`Player`] tells a runner what to do next and compares what it hears. There are two runners: one with the machine alone
//! (`common/smtp-session`), one over TCP with the agents (`postroad-tests`); each plays all files.
#![forbid(unsafe_code)]

mod expand;
mod folder;
mod interview;
mod login;
mod parse;
mod pattern;
mod peers;
mod player;

use std::fmt;

pub use expand::PLACE_HOLDERS;
pub use folder::{all, folder};
pub use interview::{Answer, Ask, Interview};
pub use peers::{Difference, PEERS, Peers, differences, parse_peers, peers_text};
pub use player::{Action, Mismatch, Player};

/// The server's name.
pub const HOST: &str = "mx.demo.test";
/// Octets of content the server takes.
pub const SIZE: u64 = 64 << 10;
/// The password of every account.
pub const PASSWORD: &str = "correct horse";

/// Where a conversation is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Listener {
    /// Submission with STARTTLS (RFC 6409).
    Submission,
    /// Submission with TLS from the first octet (RFC 8314).
    Submissions,
    /// Mail from the world.
    Inbound,
    /// The same listener, spoken to by a mail system that is believed what it tells of its clients.
    Neighbour,
    /// The same listener, spoken to by a proxy that is believed for whom it speaks.
    Proxy,
    /// LMTP (RFC 2033).
    Lmtp,
}

impl Listener {
    /// All.
    pub const ALL: [Self; 6] = [
        Self::Submission,
        Self::Submissions,
        Self::Inbound,
        Self::Neighbour,
        Self::Proxy,
        Self::Lmtp,
    ];

    /// The word in files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Submission => "submission",
            Self::Submissions => "submissions",
            Self::Inbound => "inbound",
            Self::Neighbour => "neighbour",
            Self::Proxy => "proxy",
            Self::Lmtp => "lmtp",
        }
    }

    /// How a client greets there.
    pub const fn hello(self) -> &'static str {
        match self {
            Self::Lmtp => "LHLO",
            _ => "EHLO",
        }
    }

    /// Whether the connection begins with TLS.
    pub const fn begins_with_tls(self) -> bool {
        matches!(self, Self::Submissions)
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What happens before the first line of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Needs {
    /// Nothing: the file begins with the greeting.
    #[default]
    Nothing,
    /// `hello`: greeting and EHLO are over.
    Hello,
    /// `tls`: greeting and handshake are over, EHLO is not said under TLS yet.
    Tls,
    /// `tls hello`: EHLO is said under TLS.
    TlsHello,
    /// `auth`: and alice is logged in.
    Auth,
    /// `ready`: whatever it takes that MAIL is accepted.
    Ready,
}

/// A file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transcript {
    /// `rfcNNNN/section-behaviour.txt`.
    pub name: String,
    /// What it proves.
    pub title: String,
    /// Where.
    pub listeners: Vec<Listener>,
    /// From which state on.
    pub needs: Needs,
    /// What the client sends in a row must come in one piece.
    pub one_packet: bool,
    /// Why we answer so.
    pub why: Option<String>,
    pub(crate) lines: Vec<Line>,
}

/// A line as it stands in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub number: usize,
    pub kind: Kind,
    pub times: usize,
    pub text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Client,
    ClientOctets,
    Chunk,
    LastChunk,
    LogIn,
    Server,
    ServerReply,
    Tls,
    Mail,
    ClientCloses,
    ServerCloses,
}

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {problem}")]
pub struct Fault {
    /// Which.
    pub file: String,
    /// Where.
    pub line: usize,
    /// What.
    pub problem: String,
}

/// What both sides do, in order.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    /// 0: from the preamble.
    pub line: usize,
    pub what: What,
}

#[derive(Debug, Clone)]
pub(crate) enum What {
    Client(Vec<u8>),
    LogIn(login::LogIn),
    Line(pattern::Pattern),
    Reply(pattern::ReplyPattern),
    Tls,
    Mail(Vec<u8>),
    ClientCloses,
    ServerCloses,
}

impl Transcript {
    /// The conversation at one of its listeners.
    ///
    /// # Errors
    ///
    /// A line that says nothing sensible.
    pub fn player(&self, listener: Listener) -> Result<Player, Fault> {
        let mut steps = Vec::new();
        for (kind, text) in preamble(listener, self.needs) {
            let line = Line {
                number: 0,
                kind,
                times: 1,
                text,
            };
            self.add(&mut steps, listener, &line)?;
        }
        for line in &self.lines {
            for _ in 0..line.times {
                self.add(&mut steps, listener, line)?;
            }
        }
        Ok(Player::new(self, listener, steps))
    }

    fn add(&self, steps: &mut Vec<Step>, listener: Listener, line: &Line) -> Result<(), Fault> {
        let what = line
            .what(listener)
            .map_err(|problem| self.fault(line.number, problem))?;
        // Lines of the client in a row are one packet.
        if let (
            What::Client(more),
            Some(Step {
                what: What::Client(packet),
                ..
            }),
        ) = (&what, steps.last_mut())
        {
            packet.extend_from_slice(more);
            return Ok(());
        }
        steps.push(Step {
            line: line.number,
            what,
        });
        Ok(())
    }

    pub(crate) fn fault(&self, line: usize, problem: impl Into<String>) -> Fault {
        Fault {
            file: self.name.clone(),
            line,
            problem: problem.into(),
        }
    }
}

impl Line {
    fn what(&self, listener: Listener) -> Result<What, String> {
        Ok(match self.kind {
            Kind::Client => {
                let mut octets = expand::client(&self.text, listener, false)?;
                octets.extend_from_slice(b"\r\n");
                What::Client(octets)
            }
            Kind::ClientOctets => What::Client(expand::client(&self.text, listener, true)?),
            Kind::Chunk | Kind::LastChunk => {
                let chunk = expand::client(&self.text, listener, true)?;
                let last = if self.kind == Kind::LastChunk {
                    " LAST"
                } else {
                    ""
                };
                let mut octets = format!("BDAT {}{last}\r\n", chunk.len()).into_bytes();
                octets.extend(chunk);
                What::Client(octets)
            }
            Kind::LogIn => What::LogIn(login::LogIn::parse(&self.text)?),
            Kind::Server => What::Line(pattern::Pattern::parse(&self.text)?),
            Kind::ServerReply => What::Reply(pattern::ReplyPattern::parse(&self.text)?),
            Kind::Tls => What::Tls,
            Kind::Mail => What::Mail(expand::client(&self.text, listener, true)?),
            Kind::ClientCloses => What::ClientCloses,
            Kind::ServerCloses => What::ServerCloses,
        })
    }
}

/// How a listener gets to the state a file begins in.
fn preamble(listener: Listener, needs: Needs) -> Vec<(Kind, String)> {
    let client = |text: &str| (Kind::Client, text.to_owned());
    let reply = |code: &str| (Kind::ServerReply, code.to_owned());
    let hello = [client("{ehlo} client.test"), reply("250")];
    let submits = matches!(listener, Listener::Submission | Listener::Submissions);
    let needs = match needs {
        Needs::Ready if submits => Needs::Auth,
        Needs::Ready => Needs::Hello,
        needs => needs,
    };
    if needs == Needs::Nothing {
        return Vec::new();
    }
    let mut lines = vec![reply("220")];
    if needs == Needs::Hello {
        lines.extend(hello);
        return lines;
    }
    if !listener.begins_with_tls() {
        lines.extend(hello.clone());
        lines.extend([client("STARTTLS"), reply("220"), (Kind::Tls, String::new())]);
    }
    if needs != Needs::Tls {
        lines.extend(hello);
    }
    if needs == Needs::Auth {
        let secret = format!("AUTH PLAIN {{b64:\\0alice@demo.test\\0{PASSWORD}}}");
        lines.extend([client(&secret), reply("235")]);
    }
    lines
}

#[cfg(test)]
mod tests;
