//! Who sends to whom, as it came in.

use std::collections::BTreeMap;

use prost::Message;

use super::*;

#[derive(Clone, PartialEq, Message)]
pub struct Envelope {
    #[prost(bytes = "vec", tag = "1")]
    pub queue_id: Vec<u8>,
    /// Empty: the null reverse-path.
    #[prost(string, tag = "2")]
    pub reverse_path: String,
    #[prost(message, repeated, tag = "3")]
    pub recipients: Vec<Recipient>,
    #[prost(string, tag = "4")]
    pub tenant: String,
    #[prost(string, optional, tag = "5")]
    pub account: Option<String>,
    #[prost(string, repeated, tag = "6")]
    pub tags: Vec<String>,
    #[prost(btree_map = "string, string", tag = "7")]
    pub facts: BTreeMap<String, String>,
    #[prost(string, tag = "8")]
    pub listener: String,
    #[prost(sint32, tag = "9")]
    pub priority: i32,
    #[prost(uint64, tag = "10")]
    pub received_at: u64,
    #[prost(uint64, optional, tag = "11")]
    pub not_before: Option<u64>,
    #[prost(uint64, optional, tag = "12")]
    pub expires_at: Option<u64>,
    #[prost(message, optional, tag = "13")]
    pub deliver_by: Option<DeliverBy>,
    /// 0 7BIT, 1 8BITMIME, 2 BINARYMIME.
    #[prost(uint32, tag = "14")]
    pub body: u32,
    #[prost(bool, tag = "15")]
    pub smtputf8: bool,
    #[prost(bool, tag = "16")]
    pub requiretls: bool,
    #[prost(string, optional, tag = "17")]
    pub envid: Option<String>,
    /// 0 not said, 1 FULL, 2 HDRS.
    #[prost(uint32, tag = "18")]
    pub ret: u32,
    #[prost(string, optional, tag = "19")]
    pub auth: Option<String>,
    #[prost(uint64, tag = "20")]
    pub size: u64,
    #[prost(btree_map = "string, string", tag = "21")]
    pub verdicts: BTreeMap<String, String>,
    #[prost(string, optional, tag = "22")]
    pub trace_context: Option<String>,
    #[prost(uint32, tag = "23")]
    pub hop_count: u32,
    #[prost(bytes = "vec", optional, tag = "24")]
    pub resent_of: Option<Vec<u8>>,
    #[prost(message, repeated, tag = "25")]
    pub header_edits: Vec<HeaderEdit>,
    #[prost(message, optional, tag = "26")]
    pub origin: Option<Origin>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Recipient {
    #[prost(uint32, tag = "1")]
    pub index: u32,
    #[prost(string, tag = "2")]
    pub address: String,
    #[prost(string, optional, tag = "3")]
    pub original: Option<String>,
    /// 1 NEVER, else 2 SUCCESS, 4 FAILURE, 8 DELAY.
    #[prost(uint32, tag = "4")]
    pub notify: u32,
    #[prost(message, optional, tag = "5")]
    pub orcpt: Option<OriginalRecipient>,
    /// 0 none, else as `JobState.class`.
    #[prost(uint32, tag = "6")]
    pub override_class: u32,
    #[prost(message, optional, tag = "7")]
    pub override_next_hop: Option<HostPort>,
    #[prost(string, optional, tag = "8")]
    pub target_folder: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct OriginalRecipient {
    #[prost(string, tag = "1")]
    pub address_type: String,
    #[prost(string, tag = "2")]
    pub address: String,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct DeliverBy {
    #[prost(uint64, tag = "1")]
    pub at: u64,
    #[prost(bool, tag = "2")]
    pub return_after: bool,
    #[prost(bool, tag = "3")]
    pub trace: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct HeaderEdit {
    /// 1 add at the top, 2 add at the bottom, 3 remove.
    #[prost(uint32, tag = "1")]
    pub action: u32,
    #[prost(bytes = "vec", tag = "2")]
    pub field: Vec<u8>,
    #[prost(string, tag = "3")]
    pub name: String,
    #[prost(uint32, optional, tag = "4")]
    pub occurrence: Option<u32>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Origin {
    #[prost(string, optional, tag = "1")]
    pub client: Option<String>,
    #[prost(string, optional, tag = "2")]
    pub rdns: Option<String>,
    #[prost(string, optional, tag = "3")]
    pub helo: Option<String>,
    #[prost(message, optional, tag = "4")]
    pub tls: Option<TlsFacts>,
    #[prost(string, optional, tag = "5")]
    pub account: Option<String>,
    /// The word of RFC 3848.
    #[prost(string, tag = "6")]
    pub protocol: String,
    /// Whoever does not know the field loses it when it copies the record; nothing is decided by it any more then.
    #[prost(string, optional, tag = "7")]
    pub peer: Option<String>,
}
