//! Submissions, and how the played queue answers them.

use bytes::Bytes;
use postroad_proto::queue::v1::{Completion, Envelope, Reply, refusal::Reason};
use prost::Message as _;
use tokio::sync::watch;
use tonic::{Code, Status};

/// How a mail came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// By `Submit`, in so many chunks of which the largest has so many octets.
    Parts { chunks: usize, largest: usize },
    /// By `SubmitMany`.
    OneOfMany,
}

/// A mail as far as it came.
#[derive(Debug, Clone)]
pub struct Submitted {
    pub envelope: Envelope,
    pub content: Bytes,
    /// None: it broke off.
    pub end: Option<Completion>,
    pub form: Form,
}

/// How a submission that came to its end is answered.
#[derive(Debug, Clone)]
pub enum Answer {
    Accepted,
    /// Accepted, once this is true.
    AcceptedWhen(watch::Receiver<bool>),
    /// With this status, or what stands for it in `SubmitMany`.
    Refused(Code, Option<Reply>),
    /// The stream breaks, and nobody knows.
    Silence,
}

/// A status of the contract.
pub fn status(code: Code, reply: Option<&Reply>) -> Status {
    let details = reply.map(Reply::encode_to_vec).unwrap_or_default();
    Status::with_details(code, "as the tester wants it", details.into())
}

/// What stands for it in `SubmitMany` and `Admit`.
pub fn reason(code: Code) -> Reason {
    match code {
        Code::ResourceExhausted => Reason::Full,
        Code::Aborted => Reason::Refused,
        Code::AlreadyExists => Reason::IdTaken,
        Code::InvalidArgument => Reason::Invalid,
        Code::PermissionDenied => Reason::NotAllowed,
        _ => Reason::Unspecified,
    }
}
