use postroad_address::Mailbox;

/// What a foreign text may hold at most in a report.
const LONGEST: usize = 800;

/// A foreign text on one line, bounded, without characters that end lines or turn the reading direction.
pub fn one_line(text: &str, utf8: bool) -> String {
    let mut line = String::with_capacity(text.len().min(LONGEST));
    for c in text.chars() {
        if line.len() + c.len_utf8() > LONGEST {
            line.push_str("...");
            break;
        }
        line.push(match c {
            ' '..='~' => c,
            '\t' | '\r' | '\n' => ' ',
            c if !utf8 || c.is_control() || is_invisible_command(c) => '?',
            c => c,
        });
    }
    line.trim().to_owned()
}

/// Line and paragraph separators, and the controls of bidirectional text.
fn is_invisible_command(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// The address in ASCII if it has such a form (A-labels), else as it is.
pub fn address(mailbox: &Mailbox) -> String {
    if mailbox.local_part().as_str().is_ascii() {
        format!("{}@{}", mailbox.local_part(), mailbox.domain().a_label())
    } else {
        mailbox.to_string()
    }
}

/// Breaks a text into indented lines of some 72 columns; words too long for a line of mail are cut.
pub fn wrapped(text: &str, indent: &str) -> String {
    const COLUMNS: usize = 72;
    const LONGEST_WORD: usize = 400;
    let mut lines = String::new();
    let mut line = String::new();
    let pieces = text.split_whitespace().flat_map(|word| {
        let chars: Vec<char> = word.chars().collect();
        let cut: Vec<String> = chars
            .chunks(LONGEST_WORD / 4)
            .map(|piece| piece.iter().collect())
            .collect();
        if word.len() > LONGEST_WORD {
            cut
        } else {
            vec![word.to_owned()]
        }
    });
    for word in pieces {
        let width = indent.len() + line.chars().count() + 1 + word.chars().count();
        if !line.is_empty() && width > COLUMNS {
            lines.push_str(&format!("{indent}{line}\r\n"));
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(&word);
    }
    if !line.is_empty() {
        lines.push_str(&format!("{indent}{line}\r\n"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_stays_on_its_line() {
        assert_eq!(
            one_line("a\r\nSubject: x\u{202e}\u{2028}é\0", true),
            "a  Subject: x??é?"
        );
        assert_eq!(one_line("é", false), "?");
        assert_eq!(one_line(&"x".repeat(5000), false).len(), LONGEST + 3);
    }

    #[test]
    fn wrapping_keeps_words_and_cuts_monsters() {
        assert_eq!(wrapped("a  b\nc", "  "), "  a b c\r\n");
        let long = wrapped(
            &format!("{} {}", "word ".repeat(40), "y".repeat(900)),
            "    ",
        );
        assert!(
            long.lines()
                .all(|line| line.len() <= 120 && line.starts_with("    "))
        );
        assert_eq!(long.matches('y').count(), 900);
    }

    #[test]
    fn addresses_are_ascii_where_they_can_be() {
        let of = |text: &str| address(&Mailbox::parse(text).unwrap());
        assert_eq!(of("bob@bücher.example"), "bob@xn--bcher-kva.example");
        assert_eq!(of("bøb@bücher.example"), "bøb@bücher.example");
    }
}
