//! The messages as they lie on disk: internal, in the formats of [`super::FORMATS`]. Numbers are never
//! used again, fields only added, and written only into folders of the format that has them.

mod envelope;
mod index;

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;

pub use envelope::*;
pub use index::*;

#[derive(Clone, PartialEq, Message)]
pub struct MailHead {
    #[prost(message, optional, tag = "1")]
    pub envelope: Option<Envelope>,
    /// Absent: the content follows the head in the record.
    #[prost(message, optional, tag = "2")]
    pub file: Option<ContentFile>,
    #[prost(message, optional, tag = "3")]
    pub digest: Option<Digest>,
    /// The `JobState`s as accepted; none in a record that was copied forward. Octets, so that each keeps the fields that
    /// this release does not know.
    #[prost(bytes = "bytes", repeated, tag = "4")]
    pub jobs: Vec<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
pub struct ContentFile {
    #[prost(bytes = "vec", tag = "1")]
    pub nonce: Vec<u8>,
    #[prost(uint64, tag = "2")]
    pub len: u64,
    #[prost(fixed32, tag = "3")]
    pub crc32c: u32,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct Digest {
    #[prost(uint64, tag = "1")]
    pub len: u64,
    #[prost(fixed32, tag = "2")]
    pub crc32c: u32,
    #[prost(fixed64, tag = "3")]
    pub envelope: u64,
}

#[derive(Clone, PartialEq, Message)]
pub struct JobState {
    #[prost(bytes = "vec", tag = "1")]
    pub queue_id: Vec<u8>,
    #[prost(uint32, tag = "2")]
    pub number: u32,
    #[prost(uint64, tag = "3")]
    pub revision: u64,
    #[prost(uint32, tag = "4")]
    pub class: u32,
    #[prost(string, tag = "5")]
    pub destination: String,
    #[prost(message, optional, tag = "6")]
    pub next_hop: Option<HostPort>,
    #[prost(string, tag = "7")]
    pub rule: String,
    #[prost(sint32, tag = "8")]
    pub priority: i32,
    #[prost(uint64, tag = "9")]
    pub arrived_at: u64,
    #[prost(uint64, tag = "10")]
    pub expires_at: u64,
    #[prost(uint64, tag = "11")]
    pub due: u64,
    #[prost(uint32, tag = "12")]
    pub attempts: u32,
    #[prost(uint64, tag = "13")]
    pub changed_at: u64,
    #[prost(string, optional, tag = "14")]
    pub hold: Option<String>,
    #[prost(uint64, optional, tag = "15")]
    pub debt_since: Option<u64>,
    #[prost(message, repeated, tag = "16")]
    pub recipients: Vec<RecipientState>,
    /// Reports that recipients name by position: those of one job are mostly alike.
    #[prost(message, repeated, tag = "17")]
    pub reports: Vec<StatusReport>,
    #[prost(message, optional, tag = "18")]
    pub digest: Option<Digest>,
    #[prost(uint32, tag = "19")]
    pub of_jobs: u32,
    /// Absent: the default store. Whoever does not know the field knows of one store, and keeps it.
    #[prost(string, optional, tag = "20")]
    pub store: Option<String>,
    /// Several to choose among, the first of them `next_hop`. A release that does not know the field goes by that one; where it
    /// sends a job another way, the two differ, and this one counts no more.
    #[prost(message, repeated, tag = "21")]
    pub next_hops: Vec<WeightedHop>,
    /// The pool of addresses to send from.
    #[prost(string, optional, tag = "22")]
    pub source: Option<String>,
    /// By when the sender wants it delivered, and whether it was told that the time is over. A release that does not know the fields
    /// keeps them; by `expires_at` it gives up in time what is to be returned.
    #[prost(message, optional, tag = "23")]
    pub deliver_by: Option<DeliverBy>,
    #[prost(bool, tag = "24")]
    pub told_of_time: bool,
}

impl JobState {
    /// Every number above; others are kept unread.
    pub const KNOWN: std::ops::RangeInclusive<u32> = 1..=24;
}

#[derive(Clone, PartialEq, Message)]
pub struct WeightedHop {
    #[prost(message, optional, tag = "1")]
    pub hop: Option<HostPort>,
    #[prost(uint32, tag = "2")]
    pub weight: u32,
    #[prost(uint32, tag = "3")]
    pub preference: u32,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct RecipientState {
    #[prost(uint32, tag = "1")]
    pub index: u32,
    /// 0 pending, 1 delivered, 2 relayed, 3 failed, 4 expanded, 5 dropped.
    #[prost(uint32, tag = "2")]
    pub progress: u32,
    /// Position in `reports`, from 1; 0 is none.
    #[prost(uint32, tag = "3")]
    pub report: u32,
    /// 1 on failure, 2 on success, 4 owed, 8 not on delay, or told of it already, 16 what is owed tells of an expansion,
    /// 32 of a relay, 64 to a host that does not know of the time.
    #[prost(uint32, tag = "4")]
    pub notify: u32,
}

#[derive(Clone, PartialEq, Message)]
pub struct StatusReport {
    #[prost(string, tag = "1")]
    pub status: String,
    #[prost(string, tag = "2")]
    pub text: String,
    #[prost(message, optional, tag = "3")]
    pub remote: Option<RemoteHost>,
    #[prost(message, optional, tag = "4")]
    pub reply: Option<Reply>,
    /// How far the attempt had come; a word that is not known is as good as none.
    #[prost(string, optional, tag = "5")]
    pub stage: Option<String>,
    /// Why, as the rules had it then.
    #[prost(string, optional, tag = "6")]
    pub cause: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct RemoteHost {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, optional, tag = "2")]
    pub address: Option<String>,
    #[prost(message, optional, tag = "3")]
    pub tls: Option<TlsFacts>,
    #[prost(string, optional, tag = "4")]
    pub tls_policy: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct TlsFacts {
    #[prost(string, tag = "1")]
    pub version: String,
    #[prost(string, tag = "2")]
    pub cipher: String,
    /// As `Origin::peer`.
    #[prost(string, optional, tag = "3")]
    pub verified: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Reply {
    #[prost(uint32, tag = "1")]
    pub code: u32,
    #[prost(string, optional, tag = "2")]
    pub enhanced: Option<String>,
    #[prost(string, tag = "3")]
    pub text: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct HostPort {
    #[prost(string, tag = "1")]
    pub host: String,
    #[prost(uint32, tag = "2")]
    pub port: u32,
}

#[derive(Clone, PartialEq, Message)]
pub struct LeaseHint {
    #[prost(bytes = "vec", tag = "1")]
    pub queue_id: Vec<u8>,
    #[prost(uint32, tag = "2")]
    pub number: u32,
    #[prost(uint64, tag = "3")]
    pub revision: u64,
    #[prost(string, tag = "4")]
    pub agent: String,
    #[prost(uint64, tag = "5")]
    pub epoch: u64,
    #[prost(uint64, tag = "6")]
    pub counter: u64,
    #[prost(uint64, tag = "7")]
    pub deadline: u64,
}

#[derive(Clone, PartialEq, Message)]
pub struct LeaseHints {
    #[prost(message, repeated, tag = "1")]
    pub hints: Vec<LeaseHint>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct Epoch {
    #[prost(uint64, tag = "1")]
    pub epoch: u64,
}

#[derive(Clone, PartialEq, Message)]
pub struct Checkpoint {
    #[prost(uint64, tag = "1")]
    pub epoch: u64,
    #[prost(uint64, tag = "2")]
    pub at: u64,
    #[prost(message, repeated, tag = "3")]
    pub leases: Vec<LeaseHint>,
    /// What finished before this number was retired.
    #[prost(uint64, tag = "4")]
    pub retired_before: u64,
    /// Format 2: how many jobs live.
    #[prost(uint64, optional, tag = "5")]
    pub living_jobs: Option<u64>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Snapshot {
    #[prost(btree_map = "string, bytes", tag = "1")]
    pub sections: BTreeMap<String, Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
pub struct FinishedBlock {
    #[prost(message, repeated, tag = "1")]
    pub finished: Vec<Finished>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Finished {
    #[prost(bytes = "vec", tag = "1")]
    pub queue_id: Vec<u8>,
    #[prost(uint64, tag = "2")]
    pub at: u64,
    #[prost(message, optional, tag = "3")]
    pub digest: Option<Digest>,
}

/// A mail after its end: `retired v1`, in segments of its own.
#[derive(Clone, PartialEq, Message)]
pub struct Retired {
    #[prost(bytes = "vec", tag = "1")]
    pub queue_id: Vec<u8>,
    #[prost(uint64, tag = "2")]
    pub retired_at: u64,
    /// 1 delivered, 2 failed, 3 dropped, 4 partly.
    #[prost(uint32, tag = "3")]
    pub ending: u32,
    /// A `MailHead` without jobs, as it lay in the mail's record.
    #[prost(bytes = "vec", tag = "4")]
    pub head: Vec<u8>,
    /// The last `JobState`s.
    #[prost(bytes = "bytes", repeated, tag = "5")]
    pub jobs: Vec<Bytes>,
    /// Where the segments of retired contents have its content.
    #[prost(message, optional, tag = "6")]
    pub content: Option<Location>,
    /// Its content is a file among the retired ones.
    #[prost(message, optional, tag = "7")]
    pub file: Option<ContentFile>,
}

/// The beginning of a [`Retired`], and what stands before a retired content.
#[derive(Clone, PartialEq, Message)]
pub struct RetiredKey {
    #[prost(bytes = "vec", tag = "1")]
    pub queue_id: Vec<u8>,
    #[prost(uint64, tag = "2")]
    pub retired_at: u64,
}
