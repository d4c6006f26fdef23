use postroad_address::AddressError;
use postroad_reply::*;

/// Why a command line is not a command we can act on; always the peer's doing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// No command of ours begins so.
    #[error("command not recognised")]
    Unknown,
    /// A command of old that nobody should offer (RFC 5321 Appendix F).
    #[error("this command is not implemented")]
    NotImplemented,
    /// The line is not UTF-8, or holds control characters.
    #[error("the line is not printable UTF-8")]
    Unprintable,
    /// Longer than this command may be.
    #[error("line too long")]
    TooLong,
    /// The arguments do not fit; holds the form they must have.
    #[error("syntax: {0}")]
    Arguments(&'static str),
    /// The address in MAIL.
    #[error("sender: {0}")]
    Sender(#[source] AddressError),
    /// The address in RCPT.
    #[error("recipient: {0}")]
    Recipient(#[source] AddressError),
    /// A parameter nobody here knows, or that was not offered.
    #[error("parameter {0} is not recognised")]
    UnknownParameter(String),
    /// The same parameter twice.
    #[error("parameter {0} is given twice")]
    DuplicateParameter(&'static str),
    /// A parameter that does not have the form its RFC gives it.
    #[error("parameter {0} is malformed")]
    BadParameter(&'static str),
}

impl CommandError {
    /// The answer it earns (RFC 5321 §4.2.2, RFC 3463 §3.6).
    pub fn reply(&self) -> Reply {
        let (code, enhanced) = match self {
            Self::Unknown => (SYNTAX_ERROR_500, INVALID_COMMAND_5_5_1),
            Self::NotImplemented => (NOT_IMPLEMENTED_502, INVALID_COMMAND_5_5_1),
            Self::Unprintable | Self::TooLong => (SYNTAX_ERROR_500, SYNTAX_5_5_2),
            Self::Arguments(_) => (PARAMETER_SYNTAX_501, INVALID_PARAMETER_5_5_4),
            Self::Sender(_) => (PARAMETER_SYNTAX_501, BAD_SENDER_SYNTAX_5_1_7),
            Self::Recipient(_) => (PARAMETER_SYNTAX_501, BAD_ADDRESS_SYNTAX_5_1_3),
            // RFC 5321 §4.1.1.11.
            Self::UnknownParameter(_) => (UNKNOWN_PARAMETER_555, INVALID_PARAMETER_5_5_4),
            Self::DuplicateParameter(_) | Self::BadParameter(_) => {
                (PARAMETER_SYNTAX_501, INVALID_PARAMETER_5_5_4)
            }
        };
        Reply::new(code, enhanced, self.to_string())
    }
}
