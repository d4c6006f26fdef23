//! The content between DATA and its final dot, and in BDAT chunks.

mod decode;
mod encode;

pub use decode::{ContentChecker, DotDecoder, DotPiece};
pub use encode::DotEncoder;
use postroad_reply::{BAD_CONTENT_5_6_0, MAILBOX_UNAVAILABLE_550, Reply};

/// What makes content unacceptable, whoever wrote it; the client sent it.
///
/// Hosts disagree about bare line ends, and mails are smuggled through the gap; so none gets in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ContentFault {
    /// LF without CR before it (RFC 5321 §2.3.8).
    #[error("the content has a bare LF; lines must end with CRLF")]
    BareLf,
    /// CR without LF after it (RFC 5321 §2.3.8).
    #[error("the content has a bare CR; lines must end with CRLF")]
    BareCr,
    /// A NUL octet (RFC 5321 §4.5.2 asks for no control characters; NUL breaks most that read it).
    #[error("the content has a NUL octet")]
    Nul,
    /// A line beyond the configured bound, which is far beyond RFC 5321 §4.5.3.1.6.
    #[error("the content has a line that is too long")]
    LineTooLong,
}

impl ContentFault {
    /// The answer it earns, once the whole content was read.
    pub fn reply(self) -> Reply {
        Reply::new(MAILBOX_UNAVAILABLE_550, BAD_CONTENT_5_6_0, self.to_string())
    }
}

#[cfg(test)]
mod tests;
