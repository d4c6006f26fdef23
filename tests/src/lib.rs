//! What no single crate can prove: conversations, journeys, crash, interop, architecture.
//!
//! A journey starts a [`Stack`] of real processes on free ports of loopback, speaks to it as [`Client`] (a mail
//! program) and [`Peer`] (a foreign server), and looks into the Maildir. Every wait has a deadline and says what it
//! waited for; a stack that was not ended by [`Stack::end`] shows the last lines of its logs and keeps its folder.
#![forbid(unsafe_code)]

pub mod client;
mod content;
mod link;
pub mod load;
mod metrics;
mod peer;
mod report;
pub mod setup;
mod stack;
mod wait;

pub use client::Client;
pub use content::{body, envelope, is_same_mail, mail, mail_of, submit, unwired};
pub use link::{Link, Weather};
pub use metrics::{Labels, MetricsPage, http_get};
pub use peer::{Kept, Peer, Stalled};
pub use report::Report;
pub use stack::{
    Agent, Builder, Host, Mail, PASSWORD, Ports, Second, Stack, free_port, mails_below,
};
pub use wait::{PATIENCE, wait_for, wait_for_within};

/// A [`Builder`] of a stack whose agents are the binary `agents` of this package, freshly built.
#[macro_export]
macro_rules! stack {
    () => {
        $crate::Builder::new(env!("CARGO_BIN_EXE_agents"))
    };
}
