//! What the index keeps, and what of a longer message is read alone.

use prost::Message;

use super::*;

/// What the index keeps of a mail.
#[derive(Clone, PartialEq, Message)]
pub struct MailEntry {
    #[prost(message, optional, tag = "1")]
    pub location: Option<Location>,
    #[prost(string, tag = "2")]
    pub sender: String,
    #[prost(uint64, tag = "3")]
    pub received_at: u64,
    #[prost(message, optional, tag = "4")]
    pub digest: Option<Digest>,
    #[prost(message, optional, tag = "5")]
    pub file: Option<ContentFile>,
    #[prost(uint32, tag = "6")]
    pub recipients: u32,
    #[prost(string, tag = "7")]
    pub tenant: String,
    #[prost(string, optional, tag = "8")]
    pub account: Option<String>,
    #[prost(string, repeated, tag = "9")]
    pub tags: Vec<String>,
}

/// What of a [`MailEntry`] is counted.
#[derive(Clone, PartialEq, Message)]
pub struct CountedMail {
    #[prost(message, optional, tag = "4")]
    pub digest: Option<Digest>,
    #[prost(string, tag = "7")]
    pub tenant: String,
    #[prost(string, optional, tag = "8")]
    pub account: Option<String>,
}

/// What of a [`JobState`] is counted.
#[derive(Clone, PartialEq, Message)]
pub struct CountedJob {
    #[prost(string, tag = "5")]
    pub destination: String,
    #[prost(message, repeated, tag = "16")]
    pub recipients: Vec<RecipientState>,
    #[prost(message, optional, tag = "18")]
    pub digest: Option<Digest>,
}

/// A finished mail that is not retired yet, in the index.
#[derive(Clone, PartialEq, Message)]
pub struct Leaving {
    #[prost(message, optional, tag = "1")]
    pub mail: Option<MailEntry>,
    #[prost(uint64, tag = "2")]
    pub at: u64,
    /// Of the record that ended it.
    #[prost(uint64, tag = "3")]
    pub lsn: u64,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct Location {
    #[prost(uint32, tag = "1")]
    pub segment: u32,
    #[prost(uint32, tag = "2")]
    pub offset: u32,
    #[prost(uint32, tag = "3")]
    pub len: u32,
    #[prost(uint64, tag = "4")]
    pub lsn: u64,
}

/// What of a [`JobState`] the schedule knows.
#[derive(Clone, PartialEq, Message)]
pub struct ScheduledJob {
    #[prost(uint64, tag = "3")]
    pub revision: u64,
    #[prost(uint32, tag = "4")]
    pub class: u32,
    #[prost(string, tag = "5")]
    pub destination: String,
    #[prost(sint32, tag = "8")]
    pub priority: i32,
    #[prost(uint64, tag = "10")]
    pub expires_at: u64,
    #[prost(uint64, tag = "11")]
    pub due: u64,
    #[prost(string, optional, tag = "14")]
    pub hold: Option<String>,
    #[prost(uint64, optional, tag = "15")]
    pub debt_since: Option<u64>,
    #[prost(message, repeated, tag = "16")]
    pub recipients: Vec<RecipientState>,
    #[prost(string, optional, tag = "20")]
    pub store: Option<String>,
    #[prost(message, optional, tag = "23")]
    pub deliver_by: Option<DeliverBy>,
    #[prost(bool, tag = "24")]
    pub told_of_time: bool,
}

/// What of a [`JobState`] tells why it is not done.
#[derive(Clone, PartialEq, Message)]
pub struct JobReason {
    #[prost(string, optional, tag = "14")]
    pub hold: Option<String>,
    #[prost(message, repeated, tag = "16")]
    pub recipients: Vec<RecipientState>,
    #[prost(message, repeated, tag = "17")]
    pub reports: Vec<StatusReport>,
}
