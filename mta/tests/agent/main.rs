//! The agent from outside: hosts and clients on loopback, a queue that is plain data.

mod fake_queue;
mod host;
mod inbound;
mod log;
mod outbound;
mod setup;
