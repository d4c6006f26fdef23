//! The same where the queue tells of accounts.

#[path = "lmtp.rs"]
mod lmtp;
