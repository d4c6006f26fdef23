//! A bad line between two parties, over TCP or a Unix socket: slow, far, cut, stalled, or torn in the midst.
//!
//! Every fault lasts until [`Link::change`] to another [`Weather`], and [`Weather::Clear`] heals. What was under way when a line
//! stalled arrives when it is healed; what was cut or torn is gone.

mod flow;
mod place;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Result;
use tokio::{
    sync::{broadcast, watch},
    task::{JoinHandle, JoinSet},
    time::sleep,
};

use self::place::{Door, Place, Wire};

/// Between two tries to listen again where the line was cut.
const AGAIN: Duration = Duration::from_millis(10);

/// How octets travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// As fast as they can.
    Clear,
    /// So many at most, then a pause, in each direction.
    Slow(usize, Duration),
    /// Each arrives so much later than it was sent, and as many as before are on their way at a time.
    Far {
        /// From the caller.
        there: Duration,
        /// To the caller.
        back: Duration,
    },
    /// Callers are let in, and nothing travels.
    Stalled,
    /// Nobody is connected, and who calls is refused.
    Cut,
    /// A connection is reset at both ends once so many more octets have travelled, both directions together: one that is there from now
    /// on, another from its beginning. A Unix socket knows no reset and is closed.
    Torn(u64),
}

/// A line with a fault. It ends when it is dropped.
pub struct Link {
    weather: watch::Sender<Weather>,
    cuts: broadcast::Sender<()>,
    serving: JoinHandle<()>,
    at: Option<SocketAddr>,
}

impl Link {
    /// Listens at `from` and passes on to `to`, both Unix sockets.
    pub fn open(from: &Path, to: &Path, weather: Weather) -> Result<Self> {
        let place = |path: &Path| Place::Unix(PathBuf::from(path));
        Self::between(place(from), place(to), weather)
    }

    /// The same over TCP; port 0 takes a free one.
    pub fn tcp(from: SocketAddr, to: SocketAddr, weather: Weather) -> Result<Self> {
        Self::between(Place::Tcp(from), Place::Tcp(to), weather)
    }

    fn between(from: Place, to: Place, weather: Weather) -> Result<Self> {
        let door = from.listen()?;
        let at = door.address();
        let from = at.map_or(from, Place::Tcp);
        let (weather, _) = watch::channel(weather);
        let (cuts, _) = broadcast::channel(1);
        let line = Line {
            from,
            to,
            weather: weather.subscribe(),
            cuts: cuts.clone(),
        };
        let serving = tokio::spawn(line.serve(door));
        Ok(Self {
            weather,
            cuts,
            serving,
            at,
        })
    }

    /// Where it listens, if over TCP.
    pub fn address(&self) -> Option<SocketAddr> {
        self.at
    }

    /// From now on octets travel so.
    pub fn change(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    /// Breaks every connection there is; new ones may be made.
    pub fn cut(&self) {
        // Nobody may be connected.
        let _ = self.cuts.send(());
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

struct Line {
    from: Place,
    to: Place,
    weather: watch::Receiver<Weather>,
    cuts: broadcast::Sender<()>,
}

impl Line {
    async fn serve(mut self, door: Door) {
        let mut door = Some(door);
        let mut calls = JoinSet::new();
        loop {
            let weather = *self.weather.borrow_and_update();
            if weather == Weather::Cut {
                door = None;
                calls.shutdown().await;
                if self.weather.changed().await.is_err() {
                    return;
                }
                continue;
            }
            let Some(open) = &door else {
                door = self.from.listen().ok();
                sleep(AGAIN).await;
                continue;
            };
            tokio::select! {
                near = open.accept() => match near {
                    Ok(near) => drop(calls.spawn(self.call(near))),
                    Err(_) => sleep(AGAIN).await,
                },
                Some(_) = calls.join_next() => {}
                changed = self.weather.changed() => if changed.is_err() { return },
            }
        }
    }

    fn call(&self, near: Box<dyn Wire>) -> impl Future<Output = ()> + Send + use<> {
        let (to, weather, mut cut) = (self.to.clone(), self.weather.clone(), self.cuts.subscribe());
        async move {
            let passing = async {
                let Ok(far) = to.connect().await else {
                    // As the target would have done, if there were no line.
                    return near.tear();
                };
                flow::pass(near, far, weather).await;
            };
            tokio::select! {
                () = passing => {}
                _ = cut.recv() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        net::Ipv4Addr,
        time::{Duration, Instant},
    };

    use anyhow::{Context as _, ensure};
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpStream},
        time::timeout,
    };

    use super::*;
    use crate::wait_for;

    /// Who sends back what he hears, behind a link.
    async fn echo(weather: Weather) -> Result<(Link, SocketAddr, JoinHandle<()>)> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let to = listener.local_addr()?;
        let echo = tokio::spawn(async move {
            let mut calls = JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                calls.spawn(async move {
                    let (mut read, mut write) = stream.split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        let link = Link::tcp((Ipv4Addr::LOCALHOST, 0).into(), to, weather)?;
        let at = link.address().context("an address")?;
        Ok((link, at, echo))
    }

    async fn said_back(stream: &mut TcpStream, words: &[u8]) -> io::Result<()> {
        stream.write_all(words).await?;
        let mut heard = vec![0; words.len()];
        stream.read_exact(&mut heard).await?;
        assert_eq!(heard, words);
        Ok(())
    }

    #[tokio::test]
    async fn octets_and_ends_travel() -> Result<()> {
        let (_link, at, _echo) = echo(Weather::Clear).await?;
        let mut stream = TcpStream::connect(at).await?;
        let many: Vec<u8> = (0..1_000_000_u32).map(|at| (at % 251) as u8).collect();
        let (mut read, mut write) = stream.split();
        let mut heard = Vec::new();
        let (sent, all) = tokio::join!(
            async {
                write.write_all(&many).await?;
                write.shutdown().await
            },
            read.read_to_end(&mut heard)
        );
        sent?;
        all?;
        ensure!(heard == many, "{} of {}", heard.len(), many.len());
        Ok(())
    }

    #[tokio::test]
    async fn a_cut_line_refuses_until_it_is_healed() -> Result<()> {
        let (link, at, _echo) = echo(Weather::Clear).await?;
        let mut stream = TcpStream::connect(at).await?;
        said_back(&mut stream, b"before").await?;
        link.change(Weather::Cut);
        let end = stream.read(&mut [0]).await;
        ensure!(!matches!(end, Ok(1..)), "{end:?}");
        let refused = TcpStream::connect(at).await;
        ensure!(
            matches!(&refused, Err(error) if error.kind() == io::ErrorKind::ConnectionRefused),
            "{refused:?}"
        );
        link.change(Weather::Clear);
        let healed = async || {
            let mut stream = TcpStream::connect(at).await.ok()?;
            said_back(&mut stream, b"after").await.ok()
        };
        wait_for("a line that was healed", healed).await
    }

    #[tokio::test]
    async fn what_stalled_arrives_when_it_is_healed() -> Result<()> {
        let (link, at, _echo) = echo(Weather::Clear).await?;
        let mut before = TcpStream::connect(at).await?;
        said_back(&mut before, b"before").await?;
        link.change(Weather::Stalled);
        let mut new = TcpStream::connect(at).await?;
        for stream in [&mut before, &mut new] {
            stream.write_all(b"held").await?;
            let heard = timeout(Duration::from_millis(50), stream.read_u8()).await;
            ensure!(heard.is_err(), "{heard:?}");
        }
        link.change(Weather::Clear);
        for mut stream in [before, new] {
            let mut heard = [0; 4];
            stream.read_exact(&mut heard).await?;
            ensure!(heard == *b"held");
        }
        Ok(())
    }

    #[tokio::test]
    async fn a_long_way_takes_its_time_and_has_room_for_many() -> Result<()> {
        let (there, back) = (Duration::from_millis(60), Duration::from_millis(140));
        let (link, at, _echo) = echo(Weather::Far { there, back }).await?;
        let mut stream = TcpStream::connect(at).await?;
        let began = Instant::now();
        for _ in 0..50 {
            stream.write_all(b"one of many").await?;
        }
        stream.shutdown().await?;
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).await?;
        ensure!(heard.len() == 550, "{}", heard.len());
        let took = began.elapsed();
        // One after the other they would take ten seconds, on any machine.
        ensure!(took >= there + back, "{took:?}");
        ensure!(took < (there + back) * 50, "{took:?}");
        drop(link);
        Ok(())
    }

    #[tokio::test]
    async fn a_torn_line_is_reset_at_both_ends_after_so_much() -> Result<()> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let to = listener.local_addr()?;
        let link = Link::tcp((Ipv4Addr::LOCALHOST, 0).into(), to, Weather::Clear)?;
        let mut near = TcpStream::connect(link.address().context("an address")?).await?;
        let (mut far, _) = listener.accept().await?;
        near.write_all(b"before").await?;
        far.read_exact(&mut [0; 6]).await?;

        link.change(Weather::Torn(10));
        near.write_all(b"123456").await?;
        far.read_exact(&mut [0; 6]).await?;
        far.write_all(b"7890 and more").await?;
        for stream in [&mut near, &mut far] {
            let mut heard = Vec::new();
            let end = stream.read_to_end(&mut heard).await;
            ensure!(
                matches!(&end, Err(error) if error.kind() == io::ErrorKind::ConnectionReset),
                "{end:?}"
            );
            ensure!(heard.len() <= 4, "{heard:?}");
        }
        Ok(())
    }

    #[tokio::test]
    async fn who_calls_a_target_that_is_away_is_turned_away() -> Result<()> {
        let target = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let to = target.local_addr()?;
        drop(target);
        let link = Link::tcp((Ipv4Addr::LOCALHOST, 0).into(), to, Weather::Clear)?;
        let mut stream = TcpStream::connect(link.address().context("an address")?).await?;
        let end = stream.read(&mut [0]).await;
        ensure!(!matches!(end, Ok(1..)), "{end:?}");
        Ok(())
    }

    #[tokio::test]
    async fn unix_sockets_have_the_same_weather() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        let listener = tokio::net::UnixListener::bind(&to)?;
        let link = Link::open(&from, &to, Weather::Clear)?;
        for _ in 0..2 {
            let connect = async || tokio::net::UnixStream::connect(&from).await.ok();
            let mut near = wait_for("a line that was healed", connect).await?;
            let (mut far, _) = listener.accept().await?;
            near.write_all(b"a").await?;
            ensure!(far.read_u8().await? == b'a');
            link.change(Weather::Cut);
            ensure!(far.read(&mut [0]).await? == 0);
            link.change(Weather::Clear);
        }
        Ok(())
    }
}
