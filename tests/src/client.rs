//! A mail program, no cleverer than it must be: one command, one reply.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use postroad_net::{ClientTls, Stream, Trust, connect_tcp};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

const PATIENCE: Duration = Duration::from_secs(60);

/// A connection to an SMTP or LMTP server.
pub struct Client {
    stream: Stream,
    unread: Vec<u8>,
}

impl Client {
    /// Connects in plain text and returns the greeting.
    pub async fn connect(server: SocketAddr) -> Result<(Self, String)> {
        Self::carried(server, b"").await
    }

    /// The same from an address of this host.
    pub async fn connect_from(source: IpAddr, server: SocketAddr) -> Result<(Self, String)> {
        let stream = connect_tcp(server, PATIENCE, Some(source)).await?;
        Self::greeted(stream).await
    }

    /// As a balancer would, which first says by `header` whose connection it is.
    pub async fn carried(server: SocketAddr, header: &[u8]) -> Result<(Self, String)> {
        let mut stream = connect_tcp(server, PATIENCE, None).await?;
        stream.write_all(header).await?;
        Self::greeted(stream).await
    }

    async fn greeted(stream: Stream) -> Result<(Self, String)> {
        let mut client = Self {
            stream,
            unread: Vec::new(),
        };
        let greeting = client.reply().await?;
        Ok((client, greeting))
    }

    /// Connects with implicit TLS, verifies the certificate, and returns the greeting.
    pub async fn connect_tls(server: SocketAddr, ca_file: &Path) -> Result<(Self, String)> {
        Self::carried_tls(server, b"", ca_file).await
    }

    /// As a balancer would, which says whose connection it is before it passes the TLS handshake on.
    pub async fn carried_tls(
        server: SocketAddr,
        header: &[u8],
        ca_file: &Path,
    ) -> Result<(Self, String)> {
        Self::over_tls(server, header, "localhost", ca_file).await
    }

    /// Connects with implicit TLS to a server that must prove to be `name`.
    pub async fn connect_tls_as(
        server: SocketAddr,
        name: &str,
        ca_file: &Path,
    ) -> Result<(Self, String)> {
        Self::over_tls(server, b"", name, ca_file).await
    }

    async fn over_tls(
        server: SocketAddr,
        header: &[u8],
        name: &str,
        ca_file: &Path,
    ) -> Result<(Self, String)> {
        let mut stream = connect_tcp(server, PATIENCE, None).await?;
        stream.write_all(header).await?;
        let stream = stream
            .upgrade_client(&trust(ca_file)?, name, &[], PATIENCE)
            .await?;
        let mut client = Self {
            stream,
            unread: Vec::new(),
        };
        let greeting = client.reply().await?;
        Ok((client, greeting))
    }

    /// EHLO, STARTTLS, EHLO again.
    pub async fn starttls(self, ca_file: &Path) -> Result<Self> {
        self.starttls_as("localhost", ca_file).await
    }

    /// The same with a server that must prove to be `name`.
    pub async fn starttls_as(mut self, name: &str, ca_file: &Path) -> Result<Self> {
        self.expect("EHLO client.test", "250").await?;
        self.expect("STARTTLS", "220").await?;
        let stream = self
            .stream
            .upgrade_client(&trust(ca_file)?, name, &self.unread, PATIENCE)
            .await?;
        let mut client = Self {
            stream,
            unread: Vec::new(),
        };
        client.expect("EHLO client.test", "250").await?;
        Ok(client)
    }

    /// AUTH PLAIN.
    pub async fn login(&mut self, account: &str, password: &str) -> Result<()> {
        let secret = BASE64_STANDARD.encode(format!("\0{account}\0{password}"));
        self.expect(&format!("AUTH PLAIN {secret}"), "235").await?;
        Ok(())
    }

    /// One transaction; the reply to the end of data. Lines that begin with a dot are stuffed here.
    pub async fn send(&mut self, from: &str, to: &[&str], content: &[u8]) -> Result<String> {
        self.expect(&format!("MAIL FROM:<{from}>"), "250").await?;
        for recipient in to {
            self.expect(&format!("RCPT TO:<{recipient}>"), "250")
                .await?;
        }
        self.expect("DATA", "354").await?;
        self.write(&stuffed(content)).await?;
        self.reply().await
    }

    /// One transaction that must end with 250.
    pub async fn deliver(&mut self, from: &str, to: &[&str], content: &[u8]) -> Result<()> {
        let reply = self.send(from, to, content).await?;
        if !reply.starts_with("250") {
            bail!("the end of data was answered {reply:?}");
        }
        Ok(())
    }

    /// One transaction; the reply that decided it: the first refusal, or that to the end of data.
    pub async fn attempt(&mut self, from: &str, to: &[&str], content: &[u8]) -> Result<String> {
        let mut commands = vec![format!("MAIL FROM:<{from}>")];
        commands.extend(to.iter().map(|recipient| format!("RCPT TO:<{recipient}>")));
        commands.push("DATA".to_owned());
        for command in commands {
            let reply = self.command(&command).await?;
            if reply.starts_with(['4', '5']) {
                return Ok(reply);
            }
        }
        self.write(&stuffed(content)).await?;
        self.reply().await
    }

    /// What the server still says before it closes the connection.
    pub async fn last_words(&mut self) -> Result<Vec<String>> {
        let mut words = Vec::new();
        loop {
            match self.reply().await {
                Ok(reply) => words.push(reply),
                Err(error) if error.is::<io::Error>() => return Ok(words),
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends a command and returns the whole reply, lines joined by `\n`.
    pub async fn command(&mut self, line: &str) -> Result<String> {
        self.write(format!("{line}\r\n").as_bytes()).await?;
        self.reply().await
    }

    /// Sends a command whose reply must begin so.
    pub async fn expect(&mut self, line: &str, prefix: &str) -> Result<String> {
        let reply = self.command(line).await?;
        if !reply.starts_with(prefix) {
            bail!("{line:.60} was answered {reply:?}, not {prefix}");
        }
        Ok(reply)
    }

    /// Sends octets as they are.
    pub async fn write(&mut self, octets: &[u8]) -> Result<()> {
        timeout(PATIENCE, async {
            self.stream.write_all(octets).await?;
            self.stream.flush().await
        })
        .await
        .context("the server does not read")??;
        Ok(())
    }

    /// Reads one whole reply.
    pub async fn reply(&mut self) -> Result<String> {
        let mut text = String::new();
        loop {
            let line = self.line().await?;
            let last = line.as_bytes().get(3) != Some(&b'-');
            text.push_str(&line);
            if last {
                return Ok(text);
            }
            text.push('\n');
        }
    }

    async fn line(&mut self) -> Result<String> {
        loop {
            if let Some(end) = self.unread.windows(2).position(|pair| pair == b"\r\n") {
                let line: Vec<u8> = self.unread.drain(..end + 2).take(end).collect();
                return Ok(String::from_utf8(line)?);
            }
            let mut buffer = [0; 4096];
            let read = timeout(PATIENCE, self.stream.read(&mut buffer))
                .await
                .context("no reply in time")??;
            if read == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            self.unread.extend_from_slice(&buffer[..read]);
        }
    }
}

fn trust(ca_file: &Path) -> Result<ClientTls> {
    Ok(ClientTls::verified(Trust::Files(vec![ca_file.to_owned()]))?)
}

/// RFC 5321 §4.5.2, with the final dot.
fn stuffed(content: &[u8]) -> Vec<u8> {
    let mut wire = Vec::with_capacity(content.len() + 16);
    for line in content.split_inclusive(|&octet| octet == b'\n') {
        if line.starts_with(b".") {
            wire.push(b'.');
        }
        wire.extend_from_slice(line);
    }
    if !content.is_empty() && !content.ends_with(b"\r\n") {
        wire.extend_from_slice(b"\r\n");
    }
    wire.extend_from_slice(b".\r\n");
    wire
}
