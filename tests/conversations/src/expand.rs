//! Place-holders and escapes of what the client sends.

use base64::{Engine as _, prelude::BASE64_STANDARD};

use crate::{HOST, Listener, SIZE};

/// The place-holders there are.
pub const PLACE_HOLDERS: [&str; 7] = [
    "{host}",
    "{size",
    "{ehlo}",
    "{queue-id}",
    "{number}",
    "{b64:",
    "*size",
];

/// What goes over the line.
pub fn client(text: &str, listener: Listener, escapes: bool) -> Result<Vec<u8>, String> {
    let mut octets = Vec::new();
    for piece in pieces(text)? {
        match piece {
            Piece::Text(text) if escapes => octets.extend(unescape(text)?),
            Piece::Text(text) => octets.extend_from_slice(text.as_bytes()),
            Piece::Holder("ehlo") => octets.extend_from_slice(listener.hello().as_bytes()),
            Piece::Holder(name) => octets.extend(known(name)?),
        }
    }
    Ok(octets)
}

pub enum Piece<'a> {
    Text(&'a str),
    /// What stands between the braces.
    Holder(&'a str),
}

/// Cuts at braces.
pub fn pieces(mut text: &str) -> Result<Vec<Piece<'_>>, String> {
    let mut pieces = Vec::new();
    while let Some((before, rest)) = text.split_once('{') {
        let (holder, after) = rest.split_once('}').ok_or("a brace is not closed")?;
        pieces.extend([Piece::Text(before), Piece::Holder(holder)]);
        text = after;
    }
    pieces.push(Piece::Text(text));
    Ok(pieces)
}

/// What both sides may say.
pub fn known(name: &str) -> Result<Vec<u8>, String> {
    if let Some(text) = name.strip_prefix("b64:") {
        return Ok(BASE64_STANDARD.encode(unescape(text)?).into_bytes());
    }
    Ok(match name {
        "host" => HOST.as_bytes().to_vec(),
        _ if name.starts_with("size") => number(name)?.to_string().into_bytes(),
        _ => times(name)?,
    })
}

/// `x*600`.
fn times(name: &str) -> Result<Vec<u8>, String> {
    let (text, times) = name
        .rsplit_once('*')
        .ok_or_else(|| format!("no place-holder is {{{name}}}"))?;
    let times = usize::try_from(number(times)?).map_err(|_| "too often".to_owned())?;
    Ok(unescape(text)?.repeat(times))
}

/// Digits, or `size` with something added or taken off.
fn number(text: &str) -> Result<u64, String> {
    let wrong = || format!("no number: {text:?}");
    let Some(rest) = text.strip_prefix("size") else {
        return text.parse().map_err(|_| wrong());
    };
    let part = |digits: &str| digits.parse::<u64>().map_err(|_| wrong());
    match rest.split_at_checked(1) {
        None => Ok(SIZE),
        Some(("+", digits)) => Ok(SIZE + part(digits)?),
        Some(("-", digits)) => SIZE.checked_sub(part(digits)?).ok_or_else(wrong),
        Some(_) => Err(wrong()),
    }
}

pub fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut octets = Vec::new();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        if c != '\\' {
            octets.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        octets.push(match rest.next() {
            Some('r') => b'\r',
            Some('n') => b'\n',
            Some('t') => b'\t',
            Some('0') => 0,
            Some('\\') => b'\\',
            Some('x') => {
                let digits: String = rest.by_ref().take(2).collect();
                u8::from_str_radix(&digits, 16).map_err(|_| format!("no octet: \\x{digits}"))?
            }
            other => return Err(format!("no escape: \\{}", other.unwrap_or(' '))),
        });
    }
    Ok(octets)
}
