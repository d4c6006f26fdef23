//! The same where the queue tells of accounts.

#[path = "same_work.rs"]
mod same_work;
