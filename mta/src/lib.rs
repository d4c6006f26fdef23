//! The mail transfer agent: port 25 in, the world out.
#![forbid(unsafe_code)]

pub mod outbound;
