//! Which of two addresses of one host is connected to: the first, or one of the other family if the first takes too long.
//!
//! ```text
//! first ──connect──────────┬─ connected, or failed, before the delay is over: the second is not begun
//!                          └─ neither: second ──connect── whichever is connected sooner is spoken to,
//!                                                         the other is dropped before anything was said
//! ```
//!
//! RFC 8305 §5, for the two families of one mail host: which host is tried is a matter of preference (RFC 5321 §5.1) and never of speed.
//! It ends with the TCP connection, so there is one conversation for a mail, however many addresses its host has.

use std::pin::pin;
use std::time::Duration;

use postroad_metrics::labels::Connect;
use postroad_net::{Error as NetError, Stream, connect_tcp, connect_unix};
use tokio::time::{Instant, timeout};

use super::conversation::{Manners, no_socket};
use super::next_hop::{Candidate, Door};
use super::reach::Reach;

/// An address to try, and one of the other family that may overtake it.
#[derive(Clone, Copy, Debug)]
pub struct Pair<'a> {
    /// Begun with.
    pub first: &'a Candidate,
    /// Of the same host.
    pub second: Option<&'a Candidate>,
}

impl<'a> Pair<'a> {
    /// An address that nothing overtakes.
    pub fn alone(first: &'a Candidate) -> Self {
        Self {
            first,
            second: None,
        }
    }

    /// The first of those that are left, and the next one of its host that is of the other family.
    pub fn of(left: &[&'a Candidate]) -> Option<Self> {
        let (first, others) = left.split_first()?;
        let is_other = |candidate: &&&Candidate| match (&first.door, &candidate.door) {
            (Door::Tcp(one), Door::Tcp(other)) => {
                candidate.host == first.host && one.is_ipv4() != other.is_ipv4()
            }
            _ => false,
        };
        Some(Self {
            first,
            second: others.iter().find(is_other).copied(),
        })
    }
}

/// How a race went.
#[derive(Debug)]
pub struct Raced<'a, S, E> {
    /// The address that was connected to; if none was, the one that failed last.
    pub at: &'a Candidate,
    /// How that ended.
    pub result: Result<S, E>,
    /// The other one, if it was begun with.
    pub other: Option<(&'a Candidate, Lost<E>)>,
}

/// What became of an address that is not spoken to.
#[derive(Debug)]
pub enum Lost<E> {
    /// It was begun with first, and was still being connected to.
    Overtaken,
    /// It was begun with second, and the first one came about after all.
    Superfluous,
    /// It could not be connected to.
    Failed(E),
}

/// Runs it. The second address has its turn after `delay`; never, if that is zero.
pub async fn race<'a, S, E, F>(
    pair: Pair<'a>,
    delay: Duration,
    connect: impl Fn(&'a Candidate) -> F,
) -> Raced<'a, S, E>
where
    F: Future<Output = Result<S, E>>,
{
    let ended = |at, result, other| Raced { at, result, other };
    let first = pair.first;
    let mut one = pin!(connect(first));
    let Some(second) = pair.second.filter(|_| !delay.is_zero()) else {
        return ended(first, one.await, None);
    };
    if let Ok(result) = timeout(delay, &mut one).await {
        return ended(first, result, None);
    }
    let mut other = pin!(connect(second));
    // Where both are connected to in one moment, the first is what was asked for.
    tokio::select! {
        biased;
        result = &mut one => match result {
            Ok(_) => ended(first, result, Some((second, Lost::Superfluous))),
            Err(error) => ended(second, other.await, Some((first, Lost::Failed(error)))),
        },
        result = &mut other => match result {
            Ok(_) => ended(second, result, Some((first, Lost::Overtaken))),
            Err(error) => ended(first, one.await, Some((second, Lost::Failed(error)))),
        },
    }
}

/// Connects to a host in this manner; what it shows of our own ways out is remembered.
pub async fn dial<'a>(
    pair: Pair<'a>,
    manners: &Manners<'_>,
    reach: &Reach,
) -> Raced<'a, Stream, NetError> {
    let config = manners.config;
    let within = config.timeouts.connect.as_duration();
    let connect = |candidate: &'a Candidate| async move {
        match &candidate.door {
            Door::Tcp(address) => {
                let from = manners.source.address(address.ip());
                connect_tcp(*address, within, from).await
            }
            Door::Unix(path) => connect_unix(path.as_path(), within)
                .await
                .map_err(no_socket),
        }
    };
    let raced = race(pair, config.fallback_delay.as_duration(), connect).await;
    let tried = &manners.counts.tried;
    tried.count(match raced.result {
        Ok(_) => Connect::Connected,
        Err(_) => Connect::Failed,
    });
    match &raced.other {
        Some((slow, Lost::Overtaken | Lost::Superfluous)) => {
            tried.count(Connect::Overtaken);
            tracing::debug!(relay = %raced.at.name(), "was connected to sooner than {}", slow.name());
        }
        Some((_, Lost::Failed(_))) => tried.count(Connect::Failed),
        None => {}
    }
    let memory = config.fallback_memory.as_duration();
    reach.learn(&raced, manners.source, memory, Instant::now());
    raced
}

#[cfg(test)]
mod tests;
