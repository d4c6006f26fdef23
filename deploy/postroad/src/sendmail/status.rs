//! Exit statuses as programs that call `sendmail` know them (sysexits.h).

/// The command line.
pub const USAGE: u8 = 64;
/// The mail or an address in it.
pub const DATA: u8 = 65;
/// A recipient does not exist.
pub const NO_USER: u8 = 67;
/// Refused for good.
pub const UNAVAILABLE: u8 = 69;
/// A fault of ours.
pub const SOFTWARE: u8 = 70;
/// The mail could not be read.
pub const IO: u8 = 74;
/// Not now: the same again later may work. Nothing was sent.
pub const TRY_AGAIN: u8 = 75;
/// The caller may not.
pub const NOT_ALLOWED: u8 = 77;
/// The configuration.
pub const CONFIG: u8 = 78;

/// Why a mail was not sent.
#[derive(Debug, PartialEq, Eq)]
pub struct NotSent {
    /// The exit status.
    pub status: u8,
    /// For the person or the log that reads it; a line for each thing.
    pub why: String,
}

impl NotSent {
    /// Of this status, because.
    pub fn new(status: u8, why: impl ToString) -> Self {
        Self {
            status,
            why: why.to_string(),
        }
    }
}
