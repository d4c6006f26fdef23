//! Tickets of Kerberos that let in: GSSAPI of SASL (RFC 4752) by the library of the system, MIT's.
//!
//! ```text
//! token of the client ─► SecurityContext (key of the service, from the keytab) ─► principal ─► GssapiConfig ─► account
//! ```
//!
//! * The exchange on the line is `postroad-sasl`'s; here is the security context that it calls ([`Service::begin`]), and whom a
//!   principal is ([`GssapiConfig::account_of`]).
//! * Only Kerberos V5 is taken, whatever else the library speaks, and nothing that a client delegates is used. Channel bindings are
//!   none: RFC 4752 §3.1 has it so.
//! * The key of the service is where the library looks for it: in the keytab that `KRB5_KTNAME` names in the environment of the process, or
//!   the system's. It is read anew for each ticket. Nothing here changes the environment, which other threads read.
//! * All calls block, for a file and perhaps for a name in the DNS; none asks the KDC.
//!
//! Built without the feature `gssapi` there is no library, [`BUILT`] is false, and each call fails: a configuration that wants it is
//! told so by [`GssapiConfig::check`].
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)
)]

#[cfg(feature = "gssapi")]
mod acceptor;
mod config;
mod service;

pub use config::{GssapiConfig, Unmapped, names_itself};
pub use service::Service;

/// Whether this build has the library.
pub const BUILT: bool = cfg!(feature = "gssapi");
