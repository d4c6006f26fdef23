use base64::{Engine, engine::general_purpose::STANDARD};

/// The width at which we fold (RFC 5322 §2.1.1: lines should not exceed 78).
const WIDTH: usize = 76;
/// RFC 2047 §2: an encoded word has at most 75 characters; 45 octets are 60 in base64, `=?UTF-8?B?` and `?=` 12.
const WORD_OCTETS: usize = 45;

/// A field of free text (Subject and the like), folded, with its line end.
///
/// ASCII stays as it is; other text becomes encoded words (RFC 2047), unless `utf8` says that the message is
/// internationalised (RFC 6532). Control characters become spaces, so the text cannot end the field.
pub fn unstructured_field(name: &str, text: &str, utf8: bool) -> Vec<u8> {
    let text: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let text = text.trim();
    let longest = text.split(' ').map(str::len).max().unwrap_or(0);
    // Too long a word cannot be folded, and `=?` in plain text would be read as an encoded word.
    let plain = (utf8 || text.is_ascii()) && longest <= 900 && !text.contains("=?");
    let words: Vec<String> = if plain {
        text.split(' ').map(str::to_owned).collect()
    } else {
        encoded_words(text)
    };
    let mut field = format!("{name}:");
    fold_into(&mut field, words.iter().map(String::as_str));
    field.push_str("\r\n");
    field.into_bytes()
}

/// Joins the parts of a structured value by spaces, folding between them where a line gets long.
pub fn fold_structured<'a>(name: &str, parts: impl IntoIterator<Item = &'a str>) -> Vec<u8> {
    let mut field = format!("{name}:");
    fold_into(&mut field, parts.into_iter());
    field.push_str("\r\n");
    field.into_bytes()
}

fn fold_into<'a>(field: &mut String, words: impl Iterator<Item = &'a str>) {
    let (mut column, mut has_text) = (field.len(), false);
    for word in words {
        // RFC 5322 §2.2.3: a folded line must not consist of white space alone.
        if has_text && !word.is_empty() && column + 1 + word.len() > WIDTH {
            field.push_str("\r\n");
            (column, has_text) = (0, false);
        }
        field.push(' ');
        field.push_str(word);
        column += 1 + word.len();
        has_text |= !word.is_empty();
    }
}

fn encoded_words(text: &str) -> Vec<String> {
    let (mut words, mut start, mut end) = (Vec::new(), 0, 0);
    // RFC 2047 §5 (3): a character is never divided between words.
    for (at, c) in text.char_indices() {
        if at + c.len_utf8() - start > WORD_OCTETS {
            words.push(encoded_word(text.get(start..at).unwrap_or_default()));
            start = at;
        }
        end = at + c.len_utf8();
    }
    words.push(encoded_word(text.get(start..end).unwrap_or_default()));
    words
}

fn encoded_word(text: &str) -> String {
    format!("=?UTF-8?B?{}?=", STANDARD.encode(text))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn subject(text: &str, utf8: bool) -> String {
        String::from_utf8(unstructured_field("Subject", text, utf8)).unwrap()
    }

    #[test]
    fn ascii_stays_and_the_rest_is_encoded() {
        assert_eq!(subject("Hello  there", false), "Subject: Hello  there\r\n");
        assert_eq!(
            subject("Grüße", false),
            "Subject: =?UTF-8?B?R3LDvMOfZQ==?=\r\n"
        );
        assert_eq!(subject("Grüße", true), "Subject: Grüße\r\n");
        assert_eq!(subject("a\r\nBcc: x", false), "Subject: a  Bcc: x\r\n");
    }

    proptest! {
        #[test]
        fn a_reader_gets_the_text_back(words in proptest::collection::vec("[a-zé漢=?]{1,30}", 1..20), utf8: bool) {
            let text = words.join(" ");
            let mut mail = unstructured_field("Subject", &text, utf8);
            prop_assert!(mail.split(|&b| b == b'\n').all(|line| line.len() < 998));
            mail.extend_from_slice(b"\r\n");
            let parsed = mail_parser::MessageParser::new().parse(&mail).unwrap();
            prop_assert_eq!(parsed.subject(), Some(text.as_str()));
        }
    }
}
