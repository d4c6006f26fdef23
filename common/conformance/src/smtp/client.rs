//! A mail program that hands mail to the agent.

use std::{net::SocketAddr, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use postroad_net::{ClientTls, Stream, Trust, connect_tcp};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use super::stuffed;
use crate::Problem;

/// Where an agent takes mail, and as whom.
#[derive(Debug, Clone)]
pub struct Door {
    /// Where it listens, in plain text at first.
    pub address: SocketAddr,
    /// The account to log in as, after STARTTLS, and its password; none: as anybody.
    pub login: Option<(String, String)>,
}

/// A conversation. Replies are whole, their lines joined by a line feed.
pub struct Client {
    stream: Stream,
    unread: Vec<u8>,
    patience: Duration,
}

impl Client {
    /// A conversation that is ready for MAIL.
    pub async fn open(door: &Door, patience: Duration) -> Result<Self, Problem> {
        let stream = connect_tcp(door.address, patience, None).await;
        let mut client = Self {
            stream: stream.map_err(|error| unreachable(door, &error.to_string()))?,
            unread: Vec::new(),
            patience,
        };
        let greeting = client.reply().await?;
        if !greeting.starts_with("220") {
            return Err(unreachable(door, &greeting));
        }
        client.expect("EHLO conformance.test", "250").await?;
        if let Some((account, password)) = &door.login {
            client = client.with_tls().await?;
            client.expect("EHLO conformance.test", "250").await?;
            let secret = BASE64_STANDARD.encode(format!("\0{account}\0{password}"));
            let reply = client.command(&format!("AUTH PLAIN {secret}")).await?;
            if !reply.starts_with("235") {
                return Err(Problem::NotTried(format!(
                    "{account} may not log in: {reply}"
                )));
            }
        }
        Ok(client)
    }

    /// Any certificate will do: it is no matter of the contract.
    async fn with_tls(mut self) -> Result<Self, Problem> {
        self.expect("STARTTLS", "220").await?;
        let broken = |error: postroad_net::Error| Problem::Broken(format!("STARTTLS: {error}"));
        let tls = ClientTls::opportunistic(Trust::Files(Vec::new())).map_err(broken)?;
        let upgraded = self
            .stream
            .upgrade_client(&tls, "localhost", &self.unread, self.patience);
        Ok(Self {
            stream: upgraded.await.map_err(broken)?,
            unread: Vec::new(),
            patience: self.patience,
        })
    }

    /// The envelope and DATA; the reply that decides: the first refusal, or 354.
    pub async fn announce(&mut self, from: &str, to: &[&str]) -> Result<String, Problem> {
        self.expect(&format!("MAIL FROM:<{from}>"), "250").await?;
        for to in to {
            self.expect(&format!("RCPT TO:<{to}>"), "250").await?;
        }
        self.command("DATA").await
    }

    /// The content up to the final dot, and no word on what became of it.
    pub async fn hand_over(&mut self, content: &[u8]) -> Result<(), Problem> {
        self.write(&stuffed(content)).await
    }

    /// A whole mail; the reply that decided it.
    pub async fn send(
        &mut self,
        from: &str,
        to: &[&str],
        content: &[u8],
    ) -> Result<String, Problem> {
        let reply = self.announce(from, to).await?;
        if !reply.starts_with("354") {
            return Ok(reply);
        }
        self.hand_over(content).await?;
        self.reply().await
    }

    pub async fn command(&mut self, line: &str) -> Result<String, Problem> {
        self.write(format!("{line}\r\n").as_bytes()).await?;
        self.reply().await
    }

    async fn expect(&mut self, line: &str, prefix: &str) -> Result<(), Problem> {
        let reply = self.command(line).await?;
        match reply.starts_with(prefix) {
            true => Ok(()),
            false => Err(Problem::NotTried(format!(
                "{line} was answered {reply:?}: the agent must take such mail"
            ))),
        }
    }

    pub async fn write(&mut self, octets: &[u8]) -> Result<(), Problem> {
        let written = timeout(self.patience, async {
            self.stream.write_all(octets).await?;
            self.stream.flush().await
        });
        let written = written.await.map_err(|_| broken("it does not read"))?;
        written.map_err(|error| broken(&error.to_string()))
    }

    /// The next reply; the agent must not hang up.
    pub async fn reply(&mut self) -> Result<String, Problem> {
        let patience = self.patience;
        let reply = self.reply_within(patience).await?;
        reply.ok_or_else(|| broken("no reply came"))
    }

    /// The next reply, if one comes in time.
    pub async fn reply_within(&mut self, time: Duration) -> Result<Option<String>, Problem> {
        match timeout(time, self.whole_reply()).await {
            Ok(reply) => reply.map(Some),
            Err(_) => Ok(None),
        }
    }

    /// May be given up between two lines: what was read is kept.
    async fn whole_reply(&mut self) -> Result<String, Problem> {
        loop {
            if let Some(end) = end_of_reply(&self.unread) {
                let octets: Vec<u8> = self.unread.drain(..end).collect();
                let text = String::from_utf8_lossy(&octets);
                return Ok(text.trim_end().replace("\r\n", "\n"));
            }
            let read = self.stream.read_buf(&mut self.unread).await;
            match read {
                Ok(0) => return Err(broken("it hung up")),
                Ok(_) => {}
                Err(error) => return Err(broken(&error.to_string())),
            }
        }
    }
}

fn broken(what: &str) -> Problem {
    Problem::Broken(format!("SMTP: {what}"))
}

fn unreachable(door: &Door, why: &str) -> Problem {
    Problem::NotTried(format!(
        "no mail can be handed in at {}: {why}",
        door.address
    ))
}

/// Behind the last line of a reply: the one without a hyphen.
fn end_of_reply(octets: &[u8]) -> Option<usize> {
    let mut begin = 0;
    loop {
        let line = octets.get(begin..)?;
        let end = line.windows(2).position(|pair| pair == b"\r\n")?;
        let next = begin + end + 2;
        if line.get(3) != Some(&b'-') {
            return Some(next);
        }
        begin = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_ends_with_the_line_that_says_so() {
        assert_eq!(end_of_reply(b"250-a\r\n250 b\r\n250 c\r\n"), Some(14));
        assert_eq!(end_of_reply(b"250-a\r\n250 b"), None);
        assert_eq!(end_of_reply(b"250\r\n"), Some(5));
        assert_eq!(end_of_reply(b""), None);
    }
}
