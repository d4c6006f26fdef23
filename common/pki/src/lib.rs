//! Certificates of our own (RFC 5280): the authority of a house, what it issues, and where the files lie.
//!
//! **Purpose.** Agents on different hosts show each other certificates of one internal authority; the role is a URI name
//! (`postroad://role/mta`), as `postroad-net` reads it. A mail host without a certificate of a public authority gets
//! one from here too, and so does the demo.
//!
//! **Flow.** [`Authority::make`] or [`Authority::from_pem`] ─► [`Authority::issue`] a [`Request`] for a [`Key`]. These
//! take `now` as an argument. [`Pki`] is the folder: `ca/` with the authority, and a folder for each holder, written so
//! that a reader sees whole files only:
//!
//! ```text
//! ca/ca.pem  ca/ca.key                              the authority; its key for nobody but its owner
//! mta/agents-ca.pem  mta/agent.pem  mta/agent.key   an agent
//! server/ca.pem  server/cert.pem  server/key.pem    the mail host, as mail clients see it
//! revoked                                           serial numbers of certificates that count no more
//! ```
//!
//! A certificate is renewed for the key it has, by one rename: nobody can read half of a new pair. With a new key there
//! are two renames, the key first; who reads in between finds that they do not belong together and reads again
//! (`postroad_net::CertFiles`), and a renewal that was cut off there is completed by the next.
//!
//! **What can fail.** [`Error`]: a name the authority may not vouch for, a file that is there already, bad or open to
//! others. Keys are never part of a message.
#![forbid(unsafe_code)]

mod authority;
mod certificate;
mod error;
mod file;
mod folder;
mod key;
mod permits;
mod revoked;

pub use authority::{Authority, AuthorityTerms, Request};
pub use certificate::{Certificate, fingerprint};
pub use error::Error;
pub use file::{Owner, make_folder, read, write};
pub use folder::{AUTHORITY_FOLDER, Done, Holder, Kind, Pki, Renewal, Renewed, SERVER_FOLDER};
pub use key::Key;
pub use permits::Permits;
pub use revoked::revocations;

/// How long an authority lives.
pub const AUTHORITY_DAYS: u32 = 3652;
/// How long an agent's certificate lives unless told otherwise.
pub const AGENT_DAYS: u32 = 365;
/// How long a mail host's certificate lives unless told otherwise: some programs refuse more than 398 days.
pub const SERVER_DAYS: u32 = 390;
