//! What no single crate can prove: conversations, journeys, crash, interop, architecture.
#![forbid(unsafe_code)]
