//! One connection: two streams of octets under one weather.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split},
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until},
};

use super::{Weather, place::Wire};

/// Octets read at a time.
const READ: usize = 64 << 10;
/// Reads on their way in each direction; who sends more waits, as on any line.
const ROOM: usize = 64;

#[derive(Clone, Copy)]
enum Direction {
    There,
    Back,
}

/// How a stream of octets ended.
enum End {
    /// The sender had no more to say, or one of both is gone.
    Over,
    Torn,
}

/// Passes octets until both directions have ended, or one is torn.
pub async fn pass(
    mut near: Box<dyn Wire>,
    mut far: Box<dyn Wire>,
    weather: watch::Receiver<Weather>,
) {
    let limit = Limit::default();
    let torn = {
        let (near_read, near_write) = split(&mut near);
        let (far_read, far_write) = split(&mut far);
        let there = direction(near_read, far_write, Direction::There, &weather, &limit);
        let back = direction(far_read, near_write, Direction::Back, &weather, &limit);
        tokio::pin!(there, back);
        tokio::select! {
            end = &mut there => matches!(end, End::Torn) || matches!(back.await, End::Torn),
            end = &mut back => matches!(end, End::Torn) || matches!(there.await, End::Torn),
        }
    };
    if torn {
        near.tear();
        far.tear();
    }
}

/// Octets and when they may arrive. No octets are the end.
type Parcel = (Instant, Vec<u8>);

async fn direction(
    from: impl AsyncRead + Unpin,
    to: impl AsyncWrite + Unpin,
    direction: Direction,
    weather: &watch::Receiver<Weather>,
    limit: &Limit,
) -> End {
    let (sender, parcels) = mpsc::channel(ROOM);
    let departure = depart(from, sender, direction, weather.clone());
    let arrival = arrive(to, parcels, weather.clone(), limit);
    tokio::pin!(departure, arrival);
    tokio::select! {
        // What is under way arrives all the same.
        () = &mut departure => arrival.await,
        end = &mut arrival => end,
    }
}

async fn depart(
    mut from: impl AsyncRead + Unpin,
    parcels: mpsc::Sender<Parcel>,
    direction: Direction,
    weather: watch::Receiver<Weather>,
) {
    let mut buffer = vec![0; READ];
    loop {
        let now = *weather.borrow();
        let most = match now {
            Weather::Slow(octets, pause) => {
                sleep(pause).await;
                octets.clamp(1, READ)
            }
            _ => READ,
        };
        let read = from.read(&mut buffer[..most]).await.unwrap_or(0);
        // The weather may have turned while there was nothing to read.
        let now = *weather.borrow();
        let delay = match (now, direction) {
            (Weather::Far { there, .. }, Direction::There) => there,
            (Weather::Far { back, .. }, Direction::Back) => back,
            _ => Duration::ZERO,
        };
        let parcel = (Instant::now() + delay, buffer[..read].to_vec());
        if parcels.send(parcel).await.is_err() || read == 0 {
            return;
        }
    }
}

async fn arrive(
    mut to: impl AsyncWrite + Unpin,
    mut parcels: mpsc::Receiver<Parcel>,
    mut weather: watch::Receiver<Weather>,
    limit: &Limit,
) -> End {
    while let Some((due, octets)) = parcels.recv().await {
        sleep_until(due).await;
        let Ok(now) = weather
            .wait_for(|now| *now != Weather::Stalled)
            .await
            .map(|now| *now)
        else {
            return End::Over;
        };
        let (octets, torn) = limit.within(now, &octets);
        let written = async {
            to.write_all(octets).await?;
            to.flush().await
        };
        if written.await.is_err() {
            return End::Over;
        }
        if torn {
            return End::Torn;
        }
        if octets.is_empty() {
            let _ = to.shutdown().await;
            return End::Over;
        }
    }
    End::Over
}

/// How far a connection may still go before it is torn, both directions together.
#[derive(Default)]
struct Limit {
    /// What the weather says, and what of it is left.
    left: Mutex<Option<(u64, u64)>>,
}

impl Limit {
    /// What may still travel, and whether the line is torn after that.
    fn within<'a>(&self, now: Weather, octets: &'a [u8]) -> (&'a [u8], bool) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let Weather::Torn(most) = now else {
            *left = None;
            return (octets, false);
        };
        let before = left
            .filter(|(of, _)| *of == most)
            .map_or(most, |(_, left)| left);
        let after = before.saturating_sub(octets.len() as u64);
        *left = Some((most, after));
        let may = usize::try_from(before).unwrap_or(usize::MAX);
        (octets.get(..may).unwrap_or(octets), after == 0)
    }
}
