//! The threads that carry out tasks.

use std::io;
use std::num::{NonZeroU8, NonZeroUsize};
use std::thread::available_parallelism;

use serde::{Deserialize, Serialize};
use tokio::runtime::{Builder, Runtime};

/// A number of threads, 1 to 255.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "u8")]
pub struct Threads(NonZeroU8);

impl TryFrom<i64> for Threads {
    type Error = String;

    fn try_from(number: i64) -> Result<Self, Self::Error> {
        let threads = u8::try_from(number).ok().and_then(NonZeroU8::new);
        let wrong = || format!("{number} is no number of threads: write 1 to {}", u8::MAX);
        threads.map(Self).ok_or_else(wrong)
    }
}

impl From<Threads> for u8 {
    fn from(threads: Threads) -> Self {
        threads.0.get()
    }
}

/// What runs in a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// One agent, or the queue: others run beside it.
    Agent,
    /// All of them.
    Whole,
}

/// The runtime of a process: `common.threads` of them, or what suits these processors. Blocking work (files, hashes of
/// passwords) has threads of its own.
pub fn runtime(threads: Option<Threads>, share: Share) -> io::Result<Runtime> {
    let processors = available_parallelism().map_or(1, NonZeroUsize::get);
    Builder::new_multi_thread()
        .worker_threads(count(threads, share, processors))
        .enable_all()
        .build()
}

/// An agent takes half of the processors: on one host with the queue and other agents more of them only wake each other,
/// a tenth of the processor time of a mail.
fn count(threads: Option<Threads>, share: Share, processors: usize) -> usize {
    match (threads, share) {
        (Some(threads), _) => u8::from(threads).into(),
        (None, Share::Agent) => processors.div_ceil(2),
        (None, Share::Whole) => processors,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_takes_half_of_the_processors_unless_it_is_told() {
        let agent = |processors| count(None, Share::Agent, processors);
        assert_eq!([1, 2, 3, 4, 16].map(agent), [1, 1, 2, 2, 8]);
        assert_eq!(count(None, Share::Whole, 4), 4);
        let three = Threads::try_from(3).ok();
        assert_eq!(count(three, Share::Agent, 16), 3);
        assert_eq!(count(three, Share::Whole, 1), 3);
    }

    #[test]
    fn no_threads_and_thousands_are_refused() {
        for wrong in [0, -1, 256, 100_000] {
            let refused = Threads::try_from(wrong).unwrap_err();
            assert_eq!(
                refused,
                format!("{wrong} is no number of threads: write 1 to 255")
            );
        }
    }
}
