//! SMTP grammar: bytes to commands, parameters and replies, and back.
//!
//! ```text
//! server   bytes ─► LineDecoder ─► Command::parse ─► Command { params: MailParams, … }
//!          content ─► DotDecoder or ContentChecker (BDAT) ─► chunks, end, fault
//! client   Command::write_to ─► bytes          bytes ─► ReplyDecoder ─► Reply ─► Capabilities
//!          content ─► DotEncoder ─► bytes
//! ```
//!
//! Towards those who send to us the grammar is strict where leniency can be abused: a line ends with CRLF and
//! nothing else, content ends with CRLF.CRLF and nothing else, control characters and duplicate parameters are
//! refused. It is lenient where that is harmless: blanks around arguments, any case. Towards hosts we send to,
//! [`ReplyDecoder`] takes what real hosts say, within bounds.
//!
//! What can fail: [`LineFault`], [`CommandError`] and [`ContentFault`] are the peer's, and each knows the
//! [`Reply`](postroad_reply::Reply) it earns; [`ReplyError`] is a host that does not speak SMTP.
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

mod command;
mod content;
mod error;
mod extension;
mod line;
mod parameter;
mod reply;
mod xclient;
mod xforward;
mod xtext;

pub use command::{Command, HeloName};
pub use content::{ContentChecker, ContentFault, DotDecoder, DotEncoder, DotPiece};
pub use error::CommandError;
pub use extension::{Capabilities, Extension};
pub use line::{LineDecoder, LineFault};
pub use parameter::{By, Hold, MailParams, RcptParams};
pub use reply::{ReplyDecoder, ReplyError};
pub use xclient::{ClientProtocol, XClient};
pub use xforward::{ForwardSource, Forwarded, Told, XForward};
pub use xtext::{decode_xtext, encode_xtext};

/// Octets of a command line with its CRLF, before extensions (RFC 5321 §4.5.3.1.4).
pub const MAX_COMMAND_LINE: usize = 512;
/// Octets of an AUTH command or response line with its CRLF (RFC 4954 §4).
pub const MAX_AUTH_LINE: usize = 12_288;
