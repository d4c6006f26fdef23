//! The same where the queue tells of accounts.

#[path = "delivery.rs"]
mod delivery;
