//! The words of the tools for the queue's files.

use futures::stream::BoxStream;
use postroad_proto::queue::v1;

use crate::QueueError;

/// What a verification has found so far.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VerifyProgress {
    /// Octets looked at.
    pub done: u64,
    /// Octets to look at, as far as known.
    pub total: u64,
    /// Problems found since the message before.
    pub problems: Vec<String>,
    /// What is looked at: journal, content, index, retired, timeline.
    pub stage: String,
    /// Living mails seen.
    pub mails: u64,
    /// This is the last message.
    pub finished: bool,
}

/// Ends after the message that says so; an end without it means that not all was looked at.
pub type VerifyStream = BoxStream<'static, Result<VerifyProgress, QueueError>>;

impl From<VerifyProgress> for v1::VerifyProgress {
    fn from(progress: VerifyProgress) -> Self {
        Self {
            done_bytes: progress.done,
            total_bytes: progress.total,
            problems: progress.problems,
            stage: progress.stage,
            mails: progress.mails,
            finished: progress.finished,
        }
    }
}

impl From<v1::VerifyProgress> for VerifyProgress {
    fn from(progress: v1::VerifyProgress) -> Self {
        Self {
            done: progress.done_bytes,
            total: progress.total_bytes,
            problems: progress.problems,
            stage: progress.stage,
            mails: progress.mails,
            finished: progress.finished,
        }
    }
}
