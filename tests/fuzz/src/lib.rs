//! What must hold for whatever octets a peer or a disk gives us: one function for each decoder, which takes any octets and fails
//! where they break what it promises. `tests/targets.rs` gives them octets.
#![forbid(unsafe_code)]

mod journal;
mod net;
mod session;
mod wire;

pub use journal::journal;
pub use net::proxy_header;
pub use session::{bdat, sasl, whole_session};
pub use wire::{address, capabilities, command, content, header, record, reply};

/// Parts `input` at places that its own octets choose, so that a corpus decides about them too.
fn pieces(input: &[u8]) -> Vec<&[u8]> {
    let mut rest = input;
    let mut pieces = Vec::new();
    for &octet in input {
        if rest.is_empty() {
            break;
        }
        let length = usize::from(octet % 7 + 1).min(rest.len());
        let (piece, left) = rest.split_at(length);
        pieces.push(piece);
        rest = left;
    }
    pieces
}
