//! The mail programs and mail hosts around an agent, no cleverer than rules need them.

mod client;
mod host;

pub use client::{Client, Door};
pub use host::{End, Host, Script};

/// The octets of a mail as they travel, with the final dot (RFC 5321 §4.5.2).
pub fn stuffed(content: &[u8]) -> Vec<u8> {
    let mut wire = Vec::with_capacity(content.len() + 16);
    for line in content.split_inclusive(|&octet| octet == b'\n') {
        if line.starts_with(b".") {
            wire.push(b'.');
        }
        wire.extend_from_slice(line);
    }
    wire.extend_from_slice(b".\r\n");
    wire
}

/// The other way round, without the final dot.
pub fn unstuffed(wire: &[u8]) -> Vec<u8> {
    let mut content = Vec::with_capacity(wire.len());
    for line in wire.split_inclusive(|&octet| octet == b'\n') {
        content.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
    }
    content
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_travel_and_come_back() {
        let content = b"a\r\n.b\r\n..\r\n";
        let wire = stuffed(content);
        assert_eq!(wire, b"a\r\n..b\r\n...\r\n.\r\n");
        let whole = wire.strip_suffix(b".\r\n").unwrap();
        assert_eq!(unstuffed(whole), content);
    }
}
