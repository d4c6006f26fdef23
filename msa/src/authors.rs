//! Whom a mail says it is from (RFC 5322 §3.6.2), read strictly: on what is read here a permission rests, so what is not
//! understood to its last character is no list of mailboxes. Readers are laxer than the grammar, and each in its own way.

use postroad_address::{Domain, Mailbox};

/// Mailboxes that one field may have: each is asked for.
const MOST: usize = 20;
/// Octets of a field.
const LONGEST: usize = 16 << 10;
/// Comments within comments.
const DEEPEST: u32 = 8;

/// Why a field is no list of mailboxes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unclear {
    /// Its octets are no text, or a control character is among them.
    #[error("is no text")]
    Text,
    /// It has more than one may have.
    #[error("is too long")]
    TooLong,
    /// Nobody is named.
    #[error("names nobody")]
    Nobody,
    /// It begins like a list and goes on otherwise; with what was read last.
    #[error("cannot be understood at {0:?}")]
    Grammar(String),
    /// There is something in the place of an address that is none.
    #[error("has {0:?}, which is no address")]
    Address(String),
}

/// The mailboxes of a field, those in groups too (RFC 6854). A word alone is a mailbox of `domain`, if that is given.
pub fn mailboxes(value: &[u8], domain: Option<&Domain>) -> Result<Vec<Mailbox>, Unclear> {
    if value.len() > LONGEST {
        return Err(Unclear::TooLong);
    }
    let text = std::str::from_utf8(value).map_err(|_| Unclear::Text)?;
    // RFC 5322 §2.2.3: unfolding takes the line ends alone.
    let text = text.replace("\r\n", "");
    if text.chars().any(|c| c.is_control() && c != '\t') {
        return Err(Unclear::Text);
    }
    let mut reader = Reader {
        rest: &text,
        domain,
        found: Vec::new(),
    };
    reader.list()?;
    match reader.found {
        found if found.is_empty() => Err(Unclear::Nobody),
        found => Ok(found),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token<'a> {
    /// Letters, digits and the like, with dots: also what stands before and behind an `@`.
    Word(&'a str),
    /// With its quotes.
    Quoted(&'a str),
    /// A domain literal with its brackets.
    Literal(&'a str),
    Special(char),
}

impl<'a> Token<'a> {
    fn text(self) -> String {
        match self {
            Self::Word(text) | Self::Quoted(text) | Self::Literal(text) => text.to_owned(),
            Self::Special(c) => c.to_string(),
        }
    }

    /// What may stand in a display name; dots in one are obsolete (RFC 5322 §4.1) and everywhere.
    fn is_of_a_phrase(self) -> bool {
        matches!(self, Self::Word(_) | Self::Quoted(_))
    }
}

struct Reader<'a> {
    rest: &'a str,
    domain: Option<&'a Domain>,
    found: Vec<Mailbox>,
}

impl<'a> Reader<'a> {
    fn list(&mut self) -> Result<(), Unclear> {
        // What was read of the entry: each token, and whether something stood between it and the one before.
        let (mut entry, mut group) = (Vec::new(), false);
        loop {
            let apart = self.skip()?;
            let Some(token) = self.token()? else {
                return match group {
                    true => Err(Unclear::Grammar("the end of a group".to_owned())),
                    false => self.entry(&entry),
                };
            };
            match token {
                Token::Special(',') => self.entry(&std::mem::take(&mut entry))?,
                Token::Special(':') if !group && is_phrase(&entry) => {
                    (group, entry) = (true, Vec::new());
                }
                Token::Special(';') if group => {
                    if !entry.is_empty() {
                        self.entry(&std::mem::take(&mut entry))?;
                    }
                    group = false;
                    self.skip()?;
                    match self.token()? {
                        None => return Ok(()),
                        Some(Token::Special(',')) => {}
                        Some(other) => return Err(Unclear::Grammar(other.text())),
                    }
                }
                token => entry.push((token, apart)),
            }
        }
    }

    /// One mailbox, with or without a name before it.
    fn entry(&mut self, entry: &[(Token<'a>, bool)]) -> Result<(), Unclear> {
        let opens = entry
            .iter()
            .position(|(token, _)| *token == Token::Special('<'));
        let address = match opens {
            None => entry,
            Some(at) => {
                let (name, address) = entry.split_at(at);
                if !name.iter().all(|(token, _)| token.is_of_a_phrase()) {
                    return Err(unclear(name));
                }
                match address {
                    [_, inner @ .., (Token::Special('>'), _)] => inner,
                    other => return Err(unclear(other)),
                }
            }
        };
        let mailbox = self.address(address)?;
        if self.found.len() == MOST {
            return Err(Unclear::TooLong);
        }
        self.found.push(mailbox);
        Ok(())
    }

    fn address(&self, tokens: &[(Token<'a>, bool)]) -> Result<Mailbox, Unclear> {
        let whole = match tokens {
            // Spaces and comments within an address are obsolete, and read differently by everybody.
            [
                (local @ (Token::Word(_) | Token::Quoted(_)), _),
                (Token::Special('@'), false),
                (domain @ (Token::Word(_) | Token::Literal(_)), false),
            ] => format!("{}@{}", local.text(), domain.text()),
            [(local @ (Token::Word(_) | Token::Quoted(_)), _)] => match self.domain {
                Some(domain) => format!("{}@{domain}", local.text()),
                None => return Err(Unclear::Address(local.text())),
            },
            other => return Err(unclear(other)),
        };
        Mailbox::parse(&whole).map_err(|_| Unclear::Address(whole))
    }

    /// White space and comments (RFC 5322 §3.2.2); whether there were any.
    fn skip(&mut self) -> Result<bool, Unclear> {
        let before = self.rest.len();
        loop {
            self.rest = self.rest.trim_start_matches([' ', '\t']);
            if !self.rest.starts_with('(') {
                return Ok(self.rest.len() < before);
            }
            let end = comment_end(self.rest).ok_or_else(|| Unclear::Grammar("(".to_owned()))?;
            self.rest = self.rest.get(end..).unwrap_or_default();
        }
    }

    fn token(&mut self) -> Result<Option<Token<'a>>, Unclear> {
        let Some(first) = self.rest.chars().next() else {
            return Ok(None);
        };
        let is_word = |c: char| {
            !c.is_ascii() && !c.is_whitespace()
                || c.is_ascii_alphanumeric()
                || "!#$%&'*+-/=?^_`{|}~.".contains(c)
        };
        let end = match first {
            '"' => quoted_end(self.rest),
            '[' => self.rest.find(']').map(|end| end + 1),
            c if is_word(c) => {
                let end = self.rest.find(|c| !is_word(c));
                Some(end.unwrap_or(self.rest.len()))
            }
            '<' | '>' | ',' | ':' | ';' | '@' => Some(1),
            _ => None,
        };
        let Some((text, rest)) = end.and_then(|end| self.rest.split_at_checked(end)) else {
            return Err(Unclear::Grammar(first.to_string()));
        };
        self.rest = rest;
        Ok(Some(match first {
            '"' => Token::Quoted(text),
            '[' => Token::Literal(text),
            c if is_word(c) => Token::Word(text),
            c => Token::Special(c),
        }))
    }
}

fn is_phrase(tokens: &[(Token<'_>, bool)]) -> bool {
    !tokens.is_empty() && tokens.iter().all(|(token, _)| token.is_of_a_phrase())
}

fn unclear(tokens: &[(Token<'_>, bool)]) -> Unclear {
    let texts: Vec<String> = tokens.iter().map(|(token, _)| token.text()).collect();
    match texts.is_empty() {
        true => Unclear::Grammar(",".to_owned()),
        false => Unclear::Grammar(texts.join(" ")),
    }
}

fn comment_end(text: &str) -> Option<usize> {
    let (mut depth, mut escaped) = (0_u32, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '(' if depth == DEEPEST => return None,
            '(' => depth += 1,
            ')' if depth == 1 => return Some(at + 1),
            ')' => depth -= 1,
            _ => {}
        }
    }
    None
}

fn quoted_end(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some(at + 1),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use mail_parser::{HeaderValue, MessageParser};
    use proptest::prelude::*;

    use super::*;

    fn read(value: &str) -> Result<Vec<String>, Unclear> {
        let found = mailboxes(value.as_bytes(), None)?;
        Ok(found.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn all_that_the_grammar_allows_is_read_as_others_read_it() {
        for (value, wanted) in [
            (" a@x.example\r\n", &["a@x.example"][..]),
            ("<a@x.example>", &["a@x.example"]),
            ("Alice Example <a@x.example>", &["a@x.example"]),
            ("John Q. Public <a@x.example>", &["a@x.example"]),
            ("\"Example, Alice\" <a@x.example>", &["a@x.example"]),
            ("\"b@y.example\" <a@x.example>", &["a@x.example"]),
            ("\"a \\\" <b@y.example>\" <a@x.example>", &["a@x.example"]),
            (
                "=?utf-8?q?M=C3=BCller=2C_A?= <a@x.example>",
                &["a@x.example"],
            ),
            ("Müller <a@x.example>", &["a@x.example"]),
            ("a@x.example (Alice (b@y.example))", &["a@x.example"]),
            (
                "(b@y.example) Alice\r\n\t<a@x.example> (c)",
                &["a@x.example"],
            ),
            (
                "a@x.example, B <b@y.example>",
                &["a@x.example", "b@y.example"],
            ),
            (
                "us: a@x.example, <b@y.example>;",
                &["a@x.example", "b@y.example"],
            ),
            (
                "us: a@x.example;, c@z.example",
                &["a@x.example", "c@z.example"],
            ),
            ("\"a b\"@x.example", &["\"a b\"@x.example"]),
        ] {
            assert_eq!(read(value).unwrap(), wanted, "{value}");
            let mail = format!("From:{value}\r\n\r\n");
            let parsed = MessageParser::default().parse(mail.as_bytes()).unwrap();
            let HeaderValue::Address(other) = parsed.header("From").unwrap() else {
                panic!("{value}");
            };
            let other: Vec<_> = other.iter().filter_map(|one| one.address()).collect();
            if !value.starts_with("\"a b\"") {
                assert_eq!(other, wanted, "{value}");
            }
        }
        for (value, wanted) in [
            ("ä@x.example", "ä@x.example"),
            ("a@bücher.example", "a@bücher.example"),
            ("a@[192.0.2.1]", "a@[192.0.2.1]"),
        ] {
            assert_eq!(read(value).unwrap(), [wanted], "{value}");
        }
    }

    #[test]
    fn what_readers_could_read_differently_is_refused() {
        for value in [
            "",
            " \r\n",
            "nobody:;",
            "Alice",
            "a@x.example b@y.example",
            "a@x.example <b@y.example>",
            "<a@x.example> <b@y.example>",
            "<a@x.example> b@y.example",
            "<a@x.example",
            "a@x.example>",
            "<<a@x.example>>",
            "<@y.example:a@x.example>",
            "a @x.example",
            "a@ x.example",
            "a(c)@x.example",
            "a@x.example,",
            ",a@x.example",
            "a@x.example,,b@x.example",
            "a@x.example;b@y.example",
            "us: them: a@x.example;;",
            "us: a@x.example",
            "us: a@x.example; b@y.example",
            "\"Alice <a@x.example>",
            "Alice (a@x.example",
            "a@x.example\\, b@y.example",
            "a@b@x.example",
            "a@x.example\0",
            "a@x.example\n b@y.example",
            "a@x.example\r",
            "a@x..example",
            "<>",
        ] {
            assert!(read(value).is_err(), "{value:?}: {:?}", read(value));
        }
        assert_eq!(mailboxes(b"\xff <a@x.example>", None), Err(Unclear::Text));
        let many = vec!["a@x.example"; MOST + 1].join(",");
        assert_eq!(read(&many), Err(Unclear::TooLong));
        let deep = format!("{}{} a@x.example", "(".repeat(50), ")".repeat(50));
        assert!(read(&deep).is_err());
    }

    #[test]
    fn a_word_alone_is_of_this_host_where_that_is_meant() {
        let domain = Domain::parse("here.example").unwrap();
        for (value, wanted) in [
            ("root (Cron Daemon)", "root@here.example"),
            ("\"(Cron Daemon)\" <root>", "root@here.example"),
            ("a@x.example", "a@x.example"),
        ] {
            let found = mailboxes(value.as_bytes(), Some(&domain)).unwrap();
            assert_eq!(found, [wanted.parse().unwrap()], "{value}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(value in "[a@x.,:;<>()\"\\\\ \\[\\]\r\n\tä]{0,40}") {
            let _ = mailboxes(value.as_bytes(), None);
        }
    }
}
