//! A policy service for Postfix that puts off whom it sees for the first time, in the words of postgrey.

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Result;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// Gone with its guard.
pub struct Greylist {
    pub address: SocketAddr,
    _serving: JoinSet<()>,
}

type Seen = Arc<Mutex<HashSet<(String, String)>>>;

impl Greylist {
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let (seen, mut all) = (Seen::default(), JoinSet::new());
            while let Ok((stream, _)) = listener.accept().await {
                all.spawn(serve(stream, seen.clone()));
            }
        });
        Ok(Self {
            address,
            _serving: serving,
        })
    }
}

/// SMTPD_POLICY_README: lines of `name=value` up to an empty one, then the answer.
async fn serve(stream: TcpStream, seen: Seen) {
    let mut stream = BufReader::new(stream);
    let (mut sender, mut recipient, mut line) = (String::new(), String::new(), String::new());
    while let Ok(1..) = stream.read_line(&mut line).await {
        match line.trim_end().split_once('=') {
            Some(("sender", value)) => value.clone_into(&mut sender),
            Some(("recipient", value)) => value.clone_into(&mut recipient),
            Some(_) => {}
            None => {
                let pair = (sender.clone(), recipient.clone());
                let is_new = seen
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(pair);
                let answer: &[u8] = match is_new {
                    true => b"action=DEFER_IF_PERMIT Greylisted, see http://postgrey.test/help\n\n",
                    false => b"action=DUNNO\n\n",
                };
                if stream.write_all(answer).await.is_err() {
                    return;
                }
            }
        }
        line.clear();
    }
}
