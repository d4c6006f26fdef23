//! The same where the queue tells of accounts.

#[path = "submission.rs"]
mod submission;
