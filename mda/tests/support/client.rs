//! A mail client that says what a test tells it to.
#![allow(dead_code, reason = "each test uses its part")]

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use postroad_net::{ClientTls, Stream, connect_tcp, connect_unix};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);

pub struct Client {
    stream: Stream,
    heard: Vec<u8>,
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Self {
        Self::over(connect_tcp(address, PATIENCE, None).await.unwrap())
    }

    pub async fn connect_unix(path: &Path) -> Self {
        Self::over(connect_unix(path, PATIENCE).await.unwrap())
    }

    fn over(stream: Stream) -> Self {
        Self {
            stream,
            heard: Vec::new(),
        }
    }

    pub async fn start_tls(self, tls: &ClientTls) -> Self {
        let upgraded = self
            .stream
            .upgrade_client(tls, "localhost", &self.heard, PATIENCE);
        Self::over(upgraded.await.unwrap())
    }

    /// One whole reply, its lines ended by `\n`; empty at the end of the conversation.
    pub async fn hear(&mut self) -> String {
        let mut reply = String::new();
        loop {
            let Some(end) = self.heard.iter().position(|&byte| byte == b'\n') else {
                let read = self.stream.read_buf(&mut self.heard);
                // A server that closes with a reset has ended the conversation too.
                match timeout(PATIENCE, read).await.expect("no reply in time") {
                    Ok(0) | Err(_) => return reply,
                    Ok(_) => continue,
                }
            };
            let line: Vec<u8> = self.heard.drain(..=end).collect();
            let line = String::from_utf8(line).unwrap().replace("\r\n", "\n");
            let last = line.as_bytes().get(3) != Some(&b'-');
            reply.push_str(&line);
            if last {
                return reply;
            }
        }
    }

    pub async fn send(&mut self, octets: &[u8]) {
        let write = async {
            self.stream.write_all(octets).await?;
            self.stream.flush().await
        };
        timeout(PATIENCE, write).await.unwrap().unwrap();
    }

    /// Says a line and hears the reply.
    pub async fn ask(&mut self, line: &str) -> String {
        self.send(format!("{line}\r\n").as_bytes()).await;
        self.hear().await
    }

    /// As [`Client::ask`]; the reply must begin like this.
    pub async fn expect(&mut self, line: &str, begin: &str) -> String {
        let reply = self.ask(line).await;
        assert!(
            reply.starts_with(begin),
            "{line:?}: {reply:?} is not {begin:?}"
        );
        reply
    }
}
