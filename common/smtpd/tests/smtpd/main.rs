//! The server behind a real socket, with a queue in memory and a policy of fixed rules.

mod fakes;
mod mails;
mod server;
#[path = "../../../smtp-session/tests/support/transcript.rs"]
mod transcript;
mod transcripts;
