//! What all copies of an agent count together: failed log-ins, mails sent, and the bans that follow.
//!
//! ```text
//! Count (key, how many, rule) ─┐
//!                         now ─┴► Counters::count ─► Counted (value, banned until, what is full until when)
//! ```
//!
//! * A [`Key`] is a [`Kind`] and whom it is about: `auth_failed/192.0.2.7/32`, `sent/alice@demo.test`.
//! * A [`Rule`] says over which time is counted and what follows: a ban once it is too much, or nothing added where there
//!   is no room.
//! * Counters and bans are bounded in number; the ones that were touched longest ago make room.
//! * What a restart must not forget is written as text ([`Counters::kept`], [`encode`], [`decode`]).
//!
//! Nothing here fails but reading what is no key, or no such text.
#![forbid(unsafe_code)]

mod aged;
mod counters;
mod key;
mod state;
mod tally;

pub use counters::{Ban, Count, Counted, Counter, Counters, Full, Limit, Room, Rule};
pub use key::{Key, KeyError, Kind};
pub use state::{Damaged, Kept, decode, encode};
