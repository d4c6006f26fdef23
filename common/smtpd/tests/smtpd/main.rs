//! The server behind a real socket, with a queue in memory and a policy of fixed rules.

mod content;
mod fakes;
mod mails;
mod patience;
mod proxied;
mod server;
