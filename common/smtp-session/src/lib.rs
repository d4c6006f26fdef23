//! Both ends of an SMTP or LMTP conversation as state machines without sockets.
//!
//! ```text
//! server   input ─► ServerSession::receive ─► Event ─► (policy, queue) ─► answer ─► output
//! client   ClientSession::send(mail), input ─► receive ─► Progress ─► content, outcomes ─► output
//! ```
//!
//! A session owns no socket and no clock. The driver gives it what it read, does what the event says, and writes
//! what is in [`ServerSession::take_output`]. Wrong order, bad syntax, unknown commands, limits: all that RFC 5321
//! settles is answered inside; an event is either a decision for the driver or content.
//!
//! The server takes input only while nothing is undecided, so pipelined commands wait in the driver's buffer and
//! replies keep their order (RFC 2920). A transaction is one value, dropped whole at RSET, EHLO and STARTTLS.
//!
//! What can fail: on the server nothing; a misbehaving client gets replies until [`Event::Closed`]. On the client
//! [`ClientError`] says in which [`Stage`] the host refused or misbehaved; what became of single recipients is data.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::as_conversions,
        clippy::panic
    )
)]

mod client;
mod server;

pub use client::{
    ClientConfig, ClientError, ClientSession, ClientTimeouts, OutgoingMail, OutgoingRecipient,
    Progress, RecipientResult, Stage, TlsUse,
};
pub use server::{
    CloseReason, Event, Flavour, Hello, HelloKind, MailRequest, Offers, PolicyReply, RcptRequest,
    ServerConfig, ServerLimits, ServerSession, TokenRefused, Transaction,
};
