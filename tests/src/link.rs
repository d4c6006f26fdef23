//! A bad line between the queue and its agents: slow, or cut.

use std::{path::Path, time::Duration};

use anyhow::Result;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        UnixListener, UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{broadcast, watch},
    task::{JoinHandle, JoinSet},
    time::sleep,
};

/// How octets travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// As fast as they can.
    Clear,
    /// So many at most, then a pause, in each direction.
    Slow(usize, Duration),
}

/// A Unix socket that leads to another one. It ends when it is dropped.
pub struct Link {
    weather: watch::Sender<Weather>,
    cuts: broadcast::Sender<()>,
    serving: JoinHandle<()>,
}

impl Link {
    /// Listens at `from` and passes on to `to`.
    pub fn open(from: &Path, to: &Path, weather: Weather) -> Result<Self> {
        let listener = UnixListener::bind(from)?;
        let (weather, _) = watch::channel(weather);
        let (cuts, _) = broadcast::channel(1);
        let serving = tokio::spawn({
            let (to, weather, cuts) = (to.to_owned(), weather.clone(), cuts.clone());
            async move {
                let mut calls = JoinSet::new();
                while let Ok((near, _)) = listener.accept().await {
                    let (to, weather, mut cut) =
                        (to.clone(), weather.subscribe(), cuts.subscribe());
                    calls.spawn(async move {
                        let Ok(far) = UnixStream::connect(&to).await else {
                            return;
                        };
                        tokio::select! {
                            () = call(near, far, weather) => {}
                            _ = cut.recv() => {}
                        }
                    });
                    while calls.try_join_next().is_some() {}
                }
            }
        });
        Ok(Self {
            weather,
            cuts,
            serving,
        })
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

async fn call(near: UnixStream, far: UnixStream, weather: watch::Receiver<Weather>) {
    let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
    tokio::join!(
        pass(near_read, far_write, weather.clone()),
        pass(far_read, near_write, weather)
    );
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, weather: watch::Receiver<Weather>) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let now = *weather.borrow();
        let most = match now {
            Weather::Clear => buffer.len(),
            Weather::Slow(octets, pause) => {
                sleep(pause).await;
                octets.min(buffer.len())
            }
        };
        match from.read(&mut buffer[..most]).await {
            Ok(0) | Err(_) => return drop(to.shutdown().await),
            Ok(read) => {
                if to.write_all(&buffer[..read]).await.is_err() {
                    return;
                }
            }
        }
    }
}
