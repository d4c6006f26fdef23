//! Access tokens of an OAuth issuer, checked here against the keys that it publishes.
//!
//! ```text
//! token ─► iss names the issuer ─► kid names the key ─► signature ─► times, audience, scope ─► account
//!                                      ▲
//!              KeySet ◄── jwks_file, or jwks_url (fetched, remembered, fetched again)
//! ```
//!
//! * [`Validator::check`] is the whole of the judgement: a token, keys and the time in, [`Claims`] or a [`Rejection`] out.
//! * [`Tokens`] has the issuers of a configuration and their keys. A key that nobody knows makes it look for new ones, at most
//!   once a minute; while the issuer does not answer the keys it had go on to count, for `max_stale`.
//! * Signatures are of a key pair, always: `none` is no algorithm here, and what an issuer publishes is never the secret of an HMAC
//!   (RFC 8725 §2.1). A key verifies the algorithms that fit its kind and no other.
//! * Nothing is asked of the issuer about a token: it counts until it runs out.
//!
//! * [`AccessTokens`] is the other direction: a token for ourselves, from an issuer's token endpoint, for hosts that want one of us.
//!
//! What can fail: see [`Refused`] and [`GrantError`]. A token is never logged, and nothing of it but the issuer, once that is one of ours.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)
)]

mod config;
mod fetch;
mod grant;
mod keys;
mod refusal;
mod source;
mod token;
mod tokens;
mod validator;

pub use config::{OAuthConfig, check_all};
pub use grant::{AccessTokens, GrantConfig, GrantError};
pub use keys::{KeySet, KeysError};
pub use refusal::Refusal;
pub use tokens::{Refused, Tokens};
pub use validator::{Claims, Rejection, Terms, Validator};

/// Octets of a token. Those of large issuers have some 2,000.
pub const MAX_TOKEN: usize = 8 << 10;
