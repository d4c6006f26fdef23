//! The header block of a mail, never its body (RFC 5322 §2.2, RFC 6532).
//!
//! [`HeaderSplitter`] finds where the header ends while content arrives in chunks; [`HeaderBlock`] reads the fields;
//! [`Received`], [`MessageId`] and the field makers write ours; [`apply_edits`] gives the header as it is read after
//! the edits of an envelope. For any content `apply_edits(header, edits)` followed by the rest is the edited content.
//!
//! Everything works on octets and tolerates what real mail has: 8-bit octets, lines without a colon, no header at
//! all. Only one thing can fail: a header that is longer than its limit ([`HeaderTooLong`]).
#![forbid(unsafe_code)]

mod block;
mod edit;
mod encode;
mod fields;
mod message_id;
mod received;
mod split;

pub use block::{Field, HeaderBlock};
pub use edit::apply_edits;
pub use encode::{fold_structured, unstructured_field};
pub use fields::{date_field, delivered_to, return_path};
pub use message_id::MessageId;
pub use received::Received;
pub use split::{DEFAULT_HEADER_LIMIT, HeaderSplitter, HeaderTooLong, Split, split};
