//! The host all mail goes to: it takes everything, checks it and counts.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use anyhow::{Result, ensure};
use bytes::{Buf as _, BytesMut};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

use crate::load::{Mails, To};

/// A server on one or more addresses; it goes down when it is dropped.
pub struct Sink {
    _serving: JoinSet<()>,
    state: Arc<State>,
}

struct State {
    round: Mutex<Round>,
    arrived: watch::Sender<usize>,
}

struct Round {
    mails: Arc<Mails>,
    /// How often each mail has come.
    times: Vec<u32>,
    /// When it came first.
    first: Vec<Option<Instant>>,
    strange: usize,
}

/// What came in one round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Different mails.
    pub arrived: usize,
    /// Mails that came again.
    pub repeated: usize,
    /// Mails that were changed or not of this round.
    pub strange: usize,
}

impl Sink {
    pub async fn up(addresses: &[SocketAddr]) -> Result<Self> {
        let nothing = Arc::new(Mails::new(0, 0, To::Worlds(1), 0));
        let state = Arc::new(State {
            round: Mutex::new(Round::of(nothing)),
            arrived: watch::channel(0).0,
        });
        let mut serving = JoinSet::new();
        for &address in addresses {
            let listener = TcpListener::bind(address).await?;
            serving.spawn(serve(listener, Arc::clone(&state)));
        }
        Ok(Self {
            _serving: serving,
            state,
        })
    }

    /// From now on these are counted.
    pub fn expect(&self, mails: &Arc<Mails>) {
        *self.state.lock() = Round::of(Arc::clone(mails));
        self.state.arrived.send_replace(0);
    }

    /// Returns when all mails expected have arrived.
    pub async fn all_arrived(&self) -> Result<()> {
        let count = self.state.lock().times.len();
        self.have_arrived(count).await
    }

    /// Returns when so many of them have.
    pub async fn have_arrived(&self, count: usize) -> Result<()> {
        let mut arrived = self.state.arrived.subscribe();
        arrived.wait_for(|arrived| *arrived >= count).await?;
        Ok(())
    }

    /// When each mail came first.
    pub fn arrivals(&self) -> Vec<Option<Instant>> {
        self.state.lock().first.clone()
    }

    pub fn count(&self) -> Count {
        let round = self.state.lock();
        let mut count = Count {
            strange: round.strange,
            ..Count::default()
        };
        for &times in &round.times {
            count.arrived += usize::from(times > 0);
            count.repeated += usize::from(times > 1);
        }
        count
    }
}

impl Round {
    fn of(mails: Arc<Mails>) -> Self {
        Self {
            times: vec![0; mails.count],
            first: vec![None; mails.count],
            mails,
            strange: 0,
        }
    }
}

impl State {
    fn lock(&self) -> MutexGuard<'_, Round> {
        self.round.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, rcpt: &[u8], content: &[u8]) {
        let mails = Arc::clone(&self.lock().mails);
        let number = mails.number_of(rcpt, content);
        let mut round = self.lock();
        let Some(number) = number.filter(|number| *number < round.times.len()) else {
            round.strange += 1;
            return;
        };
        if let Some(times) = round.times.get_mut(number) {
            *times += 1;
        }
        if let Some(first @ None) = round.first.get_mut(number) {
            *first = Some(Instant::now());
            drop(round);
            self.arrived.send_modify(|arrived| *arrived += 1);
        }
    }
}

async fn serve(listener: TcpListener, state: Arc<State>) {
    // Aborting this task drops the set and with it the conversations.
    let mut conversations = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let state = Arc::clone(&state);
        conversations.spawn(async move {
            // A client that vanishes shows in the count.
            let _ = converse(stream, &state).await;
        });
        while conversations.try_join_next().is_some() {}
    }
}

/// RFC 5321 §4.1.1 with RFC 2920, as much as a client needs: replies to what came together go together.
async fn converse(mut stream: TcpStream, state: &State) -> Result<()> {
    stream.set_nodelay(true)?;
    let (mut input, mut output) = (BytesMut::with_capacity(16 << 10), Vec::new());
    let mut rcpt = BytesMut::new();
    output.extend_from_slice(b"220 sink.test ESMTP\r\n");
    loop {
        stream.write_all(&output).await?;
        output.clear();
        if stream.read_buf(&mut input).await? == 0 {
            return Ok(());
        }
        while let Some(end) = memchr::memchr(b'\n', &input) {
            let line = input.split_to(end + 1);
            let verb = line.get(..4).unwrap_or_default().to_ascii_uppercase();
            if verb == b"RCPT" {
                rcpt.clear();
                rcpt.extend_from_slice(&line);
            }
            // Else the next content would be read into a new buffer, and that one grow from nothing.
            drop(line);
            let reply: &[u8] = match verb.as_slice() {
                b"EHLO" => b"250-sink.test\r\n250-8BITMIME\r\n250-SIZE 0\r\n250 PIPELINING\r\n",
                b"RCPT" => b"250 2.1.5 go on\r\n",
                b"DATA" => {
                    output.extend_from_slice(b"354 go on\r\n");
                    stream.write_all(&output).await?;
                    output.clear();
                    let content = content(&mut stream, &mut input).await?;
                    state.take(&rcpt, &content);
                    b"250 2.0.0 kept\r\n"
                }
                b"QUIT" => {
                    output.extend_from_slice(b"221 2.0.0 bye\r\n");
                    return Ok(stream.write_all(&output).await?);
                }
                _ => b"250 2.0.0 go on\r\n",
            };
            output.extend_from_slice(reply);
        }
    }
}

/// Up to the final dot, which is taken off.
async fn content(stream: &mut TcpStream, input: &mut BytesMut) -> Result<BytesMut> {
    const END: &[u8] = b"\r\n.\r\n";
    let mut searched = 0;
    loop {
        let unsearched = input.get(searched..).unwrap_or_default();
        if let Some(at) = memchr::memmem::find(unsearched, END) {
            let content = input.split_to(searched + at + 2);
            input.advance(END.len() - 2);
            return Ok(content);
        }
        searched = input.len().saturating_sub(END.len() - 1);
        ensure!(stream.read_buf(input).await? > 0, "the content has no end");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load;

    #[tokio::test]
    async fn every_mail_is_counted_once() -> Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        drop(listener);
        let sink = Sink::up(&[address]).await?;
        let mails = Arc::new(Mails::new(50, 5120, To::Worlds(2), 1));
        sink.expect(&mails);
        let way = load::Way {
            server: address,
            submission: None,
        };
        load::bring(&mails, &way, 3, 4).await?;
        sink.all_arrived().await?;
        let all = Count {
            arrived: 50,
            ..Count::default()
        };
        assert_eq!(sink.count(), all);
        let stranger = Arc::new(Mails::new(1, 5120, To::Worlds(2), 2));
        load::bring(&mails, &way, 1, 50).await?;
        load::bring(&stranger, &way, 1, 1).await?;
        let more = Count {
            repeated: 50,
            strange: 1,
            ..all
        };
        assert_eq!(sink.count(), more);
        Ok(())
    }
}
