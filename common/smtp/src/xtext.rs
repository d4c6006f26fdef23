//! xtext of RFC 3461 §4, and the address forms of RFC 6533 §3.

/// Decodes xtext: `+` and two upper-case hexadecimal digits stand for an octet; the result must be UTF-8.
pub fn decode_xtext(text: &str) -> Option<String> {
    let mut octets = Vec::with_capacity(text.len());
    let mut input = text.bytes();
    while let Some(byte) = input.next() {
        match byte {
            b'+' => octets.push(hex(input.next()?)? << 4 | hex(input.next()?)?),
            b'=' => return None,
            b'!'..=b'~' => octets.push(byte),
            _ => return None,
        }
    }
    String::from_utf8(octets).ok()
}

/// Encodes as xtext.
pub fn encode_xtext(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        match byte {
            b'+' | b'=' | ..=b' ' | 0x7f.. => out.push_str(&format!("+{byte:02X}")),
            _ => out.push(char::from(byte)),
        }
        out
    })
}

/// RFC 6533 §3 utf-8-addr-xtext and utf-8-addr-unitext: `\x{HEX}` stands for a character.
pub(crate) fn decode_utf8_address(text: &str) -> Option<String> {
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some((head, tail)) = rest.split_once('\\') {
        out.push_str(head);
        let (digits, tail) = tail.strip_prefix("x{")?.split_once('}')?;
        let valid = (2..=6).contains(&digits.len()) && digits.bytes().all(|b| hex(b).is_some());
        let value = u32::from_str_radix(digits, 16).ok().filter(|_| valid)?;
        out.push(char::from_u32(value)?);
        rest = tail;
    }
    out.push_str(rest);
    (!out.chars().any(char::is_control)).then_some(out)
}

/// The all-ASCII form, good for hosts with and without SMTPUTF8.
pub(crate) fn encode_utf8_address(text: &str) -> String {
    text.chars().fold(String::new(), |mut out, c| {
        match c {
            '\\' | '+' | '=' | ' ' => out.push_str(&format!("\\x{{{:02X}}}", u32::from(c))),
            '!'..='~' => out.push(c),
            _ => out.push_str(&format!("\\x{{{:02X}}}", u32::from(c))),
        }
        out
    })
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn refuses_what_is_no_xtext() {
        for bad in ["a=b", "+4", "+", "+zz", "+2b", "a b", "é", "+FF"] {
            assert_eq!(decode_xtext(bad), None, "{bad}");
        }
        assert_eq!(decode_xtext("a+2Bb+3D"), Some("a+b=".to_owned()));
        for bad in [
            "\\",
            "\\x{}",
            "\\x{D800}",
            "\\x{00}",
            "\\x{110000}",
            "\\y{41}",
            "\\x{+41}",
        ] {
            assert_eq!(decode_utf8_address(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn round_trips(text in "\\PC{0,40}") {
            prop_assert_eq!(decode_xtext(&encode_xtext(&text)), Some(text.clone()));
            prop_assert_eq!(decode_utf8_address(&encode_utf8_address(&text)), Some(text));
        }
    }
}
