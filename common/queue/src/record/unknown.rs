//! Finds the fields of a message that this release does not know, since prost drops them.

use bytes::Bytes;
use prost::encoding::{WireType, decode_key, decode_varint};

/// The raw octets of all top-level fields whose number is not in `known`, in order. What cannot be scanned is left out.
pub fn fields_outside(message: &[u8], known: std::ops::RangeInclusive<u32>) -> Bytes {
    let mut unknown = Vec::new();
    let mut rest = message;
    while !rest.is_empty() {
        let start = rest;
        let Some((number, after)) = skip_field(rest) else {
            break;
        };
        rest = after;
        if !known.contains(&number) {
            unknown.extend(start.iter().take(start.len() - rest.len()));
        }
    }
    unknown.into()
}

fn skip_field(mut rest: &[u8]) -> Option<(u32, &[u8])> {
    let (number, kind) = decode_key(&mut rest).ok()?;
    let len = match kind {
        WireType::Varint => {
            decode_varint(&mut rest).ok()?;
            0
        }
        WireType::ThirtyTwoBit => 4,
        WireType::SixtyFourBit => 8,
        WireType::LengthDelimited => usize::try_from(decode_varint(&mut rest).ok()?).ok()?,
        // Groups are not used by this format, nor will be.
        WireType::StartGroup | WireType::EndGroup => return None,
    };
    Some((number, rest.get(len..)?))
}
