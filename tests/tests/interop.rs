//! Peers that are not Rust.
