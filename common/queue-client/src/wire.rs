//! The words of this crate ↔ messages of the contract, for both ends of a connection.

mod admin;
mod count;
mod failure;
pub mod filter;
mod hold;
mod resend;
mod sites;
mod submit;
mod tried;
mod usage;
mod withdraw;
mod work;

pub use failure::{from_status, refusal_from_error, refusal_into_error, to_status};
