//! The agent from outside: hosts and clients on loopback, a queue that is plain data.

mod fake_queue;
mod host;
mod inbound;
mod known_clients;
mod log;
mod outbound;
mod setup;
#[path = "../../../common/accounts/tests/support/source.rs"]
mod source;
