//! MTA-STS (RFC 8461): a domain says by HTTPS which mail hosts it has, and that they show certificates that can be verified.
//!
//! **Purpose.** The grammar of the TXT record ([`Record`]) and of the policy ([`Policy`]), which hosts a policy names, and when
//! a policy that was fetched still counts or must be fetched ([`next`]).
//!
//! **Flow.** Pure: octets and the time in, values out. Who asks the DNS and fetches is `mta`:
//!
//! ```text
//! _mta-sts.DOMAIN TXT ─► Record ─┐
//! policies kept on disk ─► Kept ─┴► next: none │ use │ fetch ─► https://mta-sts.DOMAIN/.well-known/mta-sts.txt ─► Policy
//! ```
//!
//! **What can fail.** A policy that is none ([`NoPolicy`]) says which line is wrong. Nothing here makes mail wait by itself: a
//! domain without a policy that can be had is as one without MTA-STS (RFC 8461 §5.1).
#![forbid(unsafe_code)]

mod kept;
mod policy;
mod record;

pub use kept::{Kept, Next, next};
pub use policy::{MAX_POLICY, Mode, NoPolicy, Policy};
pub use record::Record;
