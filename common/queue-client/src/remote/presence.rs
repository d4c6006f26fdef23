//! Whether the queue is there: asked for again and again, told when it changes.

use std::time::Duration;

use postroad_rpc::{ChannelPool, serves};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

/// How often it is asked whether it is there; while it is away, less and less often.
const PROBE: Duration = Duration::from_secs(1);
const LONGEST_PROBE: Duration = Duration::from_secs(5);
const PROBE_PATIENCE: Duration = Duration::from_secs(5);

/// Asks for as long as it is polled, and hands each answer on.
pub(super) async fn keep(pool: ChannelPool, heard: impl Fn(&Result<(), String>)) {
    let (mut told, mut pause) = (Told::Nothing, PROBE);
    loop {
        let answer = timeout(PROBE_PATIENCE, serves(pool.pick())).await;
        let answer = answer.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        heard(&answer);
        pause = match &answer {
            Ok(()) => PROBE,
            Err(_) => (pause * 2).min(LONGEST_PROBE),
        };
        let address = pool.endpoint();
        match told.heard(answer) {
            Some(News::There) => info!(event = "queue_connected", %address),
            Some(News::Away(reason)) => {
                warn!(event = "queue_lost", %address, reason, "the queue is away, trying until it is back");
            }
            None => {}
        }
        sleep(pause).await;
    }
}

/// What has been said of the queue.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Nothing,
    There,
    /// And why, as it was told and as it was seen last.
    Away {
        told: String,
        seen: String,
    },
}

/// What is to be said.
#[derive(Debug, PartialEq, Eq)]
enum News {
    There,
    Away(String),
}

impl Told {
    /// Once when it goes, once when it is back. A queue that starts again is away for several reasons one after the other, which
    /// nobody wants to read; another one that stays is told.
    fn heard(&mut self, answer: Result<(), String>) -> Option<News> {
        match (answer, &mut *self) {
            (Ok(()), Self::There) => None,
            (Ok(()), _) => {
                *self = Self::There;
                Some(News::There)
            }
            (Err(why), Self::Away { told, seen }) => {
                let stays = why == *seen;
                seen.clone_from(&why);
                (stays && why != *told).then(|| {
                    told.clone_from(&why);
                    News::Away(why)
                })
            }
            (Err(why), _) => {
                *self = Self::Away {
                    told: why.clone(),
                    seen: why.clone(),
                };
                Some(News::Away(why))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn away(why: &str) -> Result<(), String> {
        Err(why.to_owned())
    }

    fn news(why: &str) -> Option<News> {
        Some(News::Away(why.to_owned()))
    }

    #[test]
    fn a_queue_that_goes_is_told_once_and_once_when_it_is_back() {
        let mut told = Told::Nothing;
        assert_eq!(told.heard(Ok(())), Some(News::There));
        assert_eq!(told.heard(Ok(())), None);
        assert_eq!(told.heard(away("it is stopping")), news("it is stopping"));
        for why in ["no such file", "refused", "no such file"] {
            assert_eq!(told.heard(away(why)), None, "{why}");
        }
        assert_eq!(told.heard(Ok(())), Some(News::There));
    }

    #[test]
    fn another_reason_that_stays_is_told() {
        let mut told = Told::Nothing;
        assert_eq!(told.heard(away("refused")), news("refused"));
        assert_eq!(told.heard(away("refused")), None);
        assert_eq!(told.heard(away("expired")), None);
        assert_eq!(told.heard(away("expired")), news("expired"));
        assert_eq!(told.heard(away("expired")), None);
    }
}
