//! Who must be told what became of a mail, and the report (RFC 3461, RFC 3464, RFC 6522, RFC 6533).
//!
//! [`decide`] says which reports a set of outcomes owes to the sender; [`Returned::choose`] what of the mail goes back
//! with it; [`Report::to_mail`] writes the multipart/report: a text for people, the fields for programs, the mail or
//! its header; [`seven_bit`] the same for a host without 8BITMIME. The report travels with the null reverse path, so no report about a report is ever made.
//!
//! Pure: date, Message-ID and boundary are arguments. Nothing can fail; what the far side said is reduced to text
//! that can neither end a line nor a part, and every line stays within 998 octets.
#![forbid(unsafe_code)]

mod causes;
mod clean;
mod decide;
mod quoted;
mod report;
mod returned;
mod seven_bit;
mod status;
mod words;

pub use decide::{Owed, ReportKind, decide};
pub use report::{RecipientStatus, Report, ReportMail, Trace};
pub use returned::{RETURN_LIMIT, Returned};
pub use seven_bit::seven_bit;
