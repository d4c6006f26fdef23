//! What is sent to each neighbour.

use anyhow::{Context as _, Result, ensure};
use postroad_envelope::QueueId;
use postroad_tests::Client;

use super::table::Neighbour;

pub const SENDER: &str = "alice@demo.test";
/// More than goes in one piece with the envelope, and than the small ones take.
pub const LARGE: usize = 300_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Plain,
    /// BODY=8BITMIME.
    EightBit,
    /// SMTPUTF8: the recipient's name and the subject need it.
    Utf8,
    /// Two who are there, and one who is not.
    Several,
    Large,
    /// NOTIFY=SUCCESS.
    Asked,
}

impl Kind {
    pub const ALL: [Self; 6] = [
        Self::Plain,
        Self::EightBit,
        Self::Utf8,
        Self::Several,
        Self::Large,
        Self::Asked,
    ];

    fn recipients(self) -> &'static [&'static str] {
        match self {
            Self::Utf8 => &["j\u{fc}rgen"],
            Self::Several => &["friend", "second", "stranger"],
            _ => &["friend"],
        }
    }

    /// Of MAIL.
    fn parameters(self) -> &'static str {
        match self {
            Self::EightBit => " BODY=8BITMIME",
            Self::Utf8 => " BODY=8BITMIME SMTPUTF8",
            Self::Asked => " RET=HDRS ENVID=asked",
            _ => "",
        }
    }
}

/// A mail on its way.
pub struct Sent<'a> {
    pub neighbour: &'a Neighbour,
    pub kind: Kind,
    pub id: QueueId,
    pub content: Vec<u8>,
}

impl<'a> Sent<'a> {
    pub async fn submit(client: &mut Client, neighbour: &'a Neighbour, kind: Kind) -> Result<Self> {
        let content = content(neighbour.name, kind);
        let mail = format!("MAIL FROM:<{SENDER}>{}", kind.parameters());
        client.expect(&mail, "250").await?;
        for name in kind.recipients() {
            let to = neighbour.address_of(name);
            let notify = match kind {
                Kind::Asked => format!(" NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;{to}"),
                _ => String::new(),
            };
            client
                .expect(&format!("RCPT TO:<{to}>{notify}"), "250")
                .await?;
        }
        client.expect("DATA", "354").await?;
        client.write(&[&content[..], b".\r\n"].concat()).await?;
        let reply = client.reply().await?;
        ensure!(reply.starts_with("250 2.0.0 "), "{reply}");
        let id = reply.split(' ').nth(2).context("no id in the reply")?;
        Ok(Self {
            neighbour,
            kind,
            id: id.parse()?,
            content,
        })
    }

    pub fn recipients(&self) -> &'static [&'static str] {
        self.kind.recipients()
    }

    /// How it is found again.
    pub fn message_id(&self) -> String {
        message_id(self.neighbour.name, self.kind)
    }

    pub fn name(&self) -> String {
        format!("{:?} to {}", self.kind, self.neighbour.name)
    }
}

fn message_id(name: &str, kind: Kind) -> String {
    format!("<{kind:?}.{name}@client.test>")
}

/// No line of it begins with a dot.
fn content(name: &str, kind: Kind) -> Vec<u8> {
    let subject = match kind {
        Kind::Utf8 => "Gr\u{fc}\u{df}e",
        _ => "greetings",
    };
    let (charset, encoding, line) = match kind {
        Kind::EightBit | Kind::Utf8 => ("utf-8", "8bit", "Gr\u{fc}\u{df}e \u{20ac} \u{1f4ee}"),
        _ => ("us-ascii", "7bit", "Greetings"),
    };
    let mut content = format!(
        "From: <{SENDER}>\r\nTo: <friend@{name}.test>\r\nSubject: {subject}\r\n\
         Date: Mon, 23 Nov 2026 00:00:00 +0000\r\nMessage-ID: {}\r\nMIME-Version: 1.0\r\n\
         Content-Type: text/plain; charset={charset}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n{line}\r\n",
        message_id(name, kind)
    );
    if kind == Kind::Large {
        while content.len() < LARGE {
            content.push_str(&"x".repeat(76));
            content.push_str("\r\n");
        }
    }
    content.into_bytes()
}
