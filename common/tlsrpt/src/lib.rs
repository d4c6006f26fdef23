//! TLSRPT (RFC 8460): a domain hears once a day how TLS went with its mail hosts.
//!
//! **Purpose.** What is counted ([`Day`]), who wants to hear of it ([`Wanted`]), and the report as JSON ([`Day::report`]) and as
//! a mail ([`Mail`]).
//!
//! **Flow.** Pure: outcomes of connections and dates in, text out. Who connects, keeps the file and sends is `mta`:
//!
//! ```text
//! each connection ─► Day::count ─► a file ─► Day::report ─► Mail ─► whom _smtp._tls.DOMAIN names
//! ```
//!
//! **What can fail.** Nothing but the reading of a damaged file, which then counts as empty. Everything that a stranger can make
//! grow is bounded, see [`MAX_DOMAINS`]; what is over the bound is not counted.
#![forbid(unsafe_code)]

mod day;
mod mail;
mod wanted;

pub use day::{Day, Failure, MAX_DOMAINS, PolicyKind, PolicyText, Submitter};
pub use mail::Mail;
pub use wanted::Wanted;
