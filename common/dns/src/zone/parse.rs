//! The lines of a zone file.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;

use super::Node;
use crate::{HostName, Record, RecordType, Tlsa};

const TYPES: &str = "A, AAAA, MX, CNAME, PTR, TXT, TLSA, SIGNED, SERVFAIL or TIMEOUT";

/// One line: nothing, or a name and what is said of it. Errors are sentences with a remedy.
pub(super) fn line(text: &str) -> Result<Option<(String, Node)>, String> {
    let words = words(text)?;
    let mut words = words.iter().map(String::as_str).peekable();
    let Some(name) = words.next() else {
        return Ok(None);
    };
    while words
        .next_if(|w| w.eq_ignore_ascii_case("IN") || w.parse::<u32>().is_ok())
        .is_some()
    {}
    let kind = words
        .next()
        .ok_or_else(|| format!("no type after the name; write {TYPES}"))?;
    let data: Vec<&str> = words.collect();
    let node = node(&kind.to_ascii_uppercase(), &data)?;
    Ok(Some((owner(name)?, node)))
}

/// Adds what a line says to what is known of the name.
pub(super) fn add(
    nodes: &mut HashMap<String, Node>,
    owner: String,
    new: Node,
) -> Result<(), String> {
    match nodes.entry(owner) {
        Entry::Vacant(vacant) => {
            vacant.insert(new);
        }
        Entry::Occupied(mut occupied) => match (occupied.get_mut(), new) {
            (Node::Records(known), Node::Records(new)) => {
                known.extend(new);
            }
            _ => {
                return Err(format!(
                    "{} has another line; a name with CNAME, SERVFAIL or TIMEOUT has no other",
                    occupied.key()
                ));
            }
        },
    }
    Ok(())
}

fn node(kind: &str, data: &[&str]) -> Result<Node, String> {
    let one = |kind, record| Ok(Node::Records(vec![(kind, record)]));
    match (kind, data) {
        ("A", [ip]) => match ip.parse() {
            Ok(ip) => one(RecordType::A, Record::Address(IpAddr::V4(ip))),
            Err(_) => Err(format!("{ip:?} is no IPv4 address; write A 192.0.2.1")),
        },
        ("AAAA", [ip]) => match ip.parse() {
            Ok(ip) => one(RecordType::Aaaa, Record::Address(IpAddr::V6(ip))),
            Err(_) => Err(format!("{ip:?} is no IPv6 address; write AAAA 2001:db8::1")),
        },
        ("MX", [preference, exchange]) => match preference.parse() {
            // The target stays as published: what cannot be a host must be possible to rehearse.
            Ok(preference) => one(
                RecordType::Mx,
                Record::MailExchanger {
                    preference,
                    exchange: (*exchange).to_owned(),
                },
            ),
            Err(_) => Err(format!(
                "preference {preference:?} is not 0 to 65535; write MX 10 mx.test."
            )),
        },
        ("PTR", [target]) => one(RecordType::Ptr, Record::Pointer((*target).to_owned())),
        ("TXT", [_, ..]) => one(RecordType::Txt, Record::Text(data.concat())),
        ("CNAME", [target]) => HostName::parse(target)
            .map(Node::Alias)
            .map_err(|error| format!("CNAME target {target:?}: {error}; write a full name")),
        ("TLSA", [usage, selector, matching, data @ ..]) if !data.is_empty() => {
            one(RecordType::Tlsa, tlsa([usage, selector, matching], data)?)
        }
        ("SIGNED", []) => Ok(Node::Signed),
        ("SERVFAIL", []) => Ok(Node::Failing("the name server said Server Failure")),
        ("TIMEOUT", []) => Ok(Node::Failing("no answer in time")),
        ("A" | "AAAA", _) => Err(format!("{kind} takes one address")),
        ("MX", _) => Err("MX takes a preference and a host; write MX 10 mx.test.".to_owned()),
        ("PTR" | "CNAME", _) => Err(format!("{kind} takes one name")),
        ("TXT", []) => Err("TXT takes a text; write TXT \"…\"".to_owned()),
        ("TLSA", _) => Err(NO_TLSA.to_owned()),
        ("SERVFAIL" | "TIMEOUT" | "SIGNED", _) => Err(format!("{kind} takes nothing after it")),
        _ => Err(format!("unknown type {kind:?}; write {TYPES}")),
    }
}

const NO_TLSA: &str =
    "TLSA takes usage, selector, matching type and hexadecimal digits; write TLSA 3 1 1 0123…";

fn tlsa(numbers: [&str; 3], data: &[&str]) -> Result<Record, String> {
    let wrong = || NO_TLSA.to_owned();
    let [usage, selector, matching] = numbers.map(str::parse::<u8>);
    let digits: Vec<u8> = data
        .concat()
        .chars()
        .map(|digit| digit.to_digit(16).and_then(|digit| digit.try_into().ok()))
        .collect::<Option<_>>()
        .ok_or_else(wrong)?;
    let (pairs, []) = digits.as_chunks::<2>() else {
        return Err(wrong());
    };
    Ok(Record::Tlsa(Tlsa {
        usage: usage.map_err(|_| wrong())?,
        selector: selector.map_err(|_| wrong())?,
        matching: matching.map_err(|_| wrong())?,
        data: pairs.iter().map(|[high, low]| high << 4 | low).collect(),
    }))
}

/// An absolute name, a wildcard, or an address (for its pointer).
fn owner(text: &str) -> Result<String, String> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(HostName::pointer(ip).to_string());
    }
    let (star, rest) = match text {
        "*" | "*." => return Ok("*".to_owned()),
        _ => text
            .strip_prefix("*.")
            .map_or(("", text), |rest| ("*.", rest)),
    };
    match HostName::parse(rest) {
        Ok(name) => Ok(format!("{star}{name}")),
        Err(error) => Err(format!(
            "{text:?}: {error}; write a full name such as mx1.example.com."
        )),
    }
}

/// Words of a line; a quoted text is one word, in it `\"` and `\\` stand for `"` and `\`.
fn words(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            ';' | '#' => break,
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('"') => break,
                        Some('\\') => word.extend(chars.next()),
                        Some(c) => word.push(c),
                        None => {
                            return Err("a quoted text does not end; close it with \"".to_owned());
                        }
                    }
                }
            }
            c if c.is_whitespace() => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}
