//! Logical lines, as postconf(5), master(5) and postmap(1) have them in common.
//!
//! A line that begins with a blank goes on with the one before; empty lines and comments are passed over, also between the
//! parts of one line.

/// A line and those that go on with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogicalLine {
    /// The parts, joined by a blank.
    pub text: String,
    /// Where it begins, counted from 1.
    pub line: usize,
    /// Offsets in the text where a part begins, and the line of the file that this is.
    parts: Vec<(usize, usize)>,
}

impl LogicalLine {
    /// The line of the file that an offset in the text stands on.
    pub fn line_at(&self, offset: usize) -> usize {
        let before = self.parts.iter().rev().find(|(at, _)| *at <= offset);
        before.map_or(self.line, |(_, line)| *line)
    }
}

/// All logical lines of a file.
pub fn logical_lines(text: &str) -> Vec<LogicalLine> {
    let mut lines: Vec<LogicalLine> = Vec::new();
    for (at, physical) in text.lines().enumerate() {
        let content = physical.trim();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        let goes_on = physical.starts_with([' ', '\t']);
        match lines.last_mut() {
            Some(last) if goes_on => {
                last.text.push(' ');
                last.parts.push((last.text.len(), at + 1));
                last.text.push_str(content);
            }
            _ => lines.push(LogicalLine {
                text: content.to_owned(),
                line: at + 1,
                parts: vec![(0, at + 1)],
            }),
        }
    }
    lines
}

/// The words of a list: divided by blanks and commas, but not within braces.
pub fn words(text: &str) -> Vec<&str> {
    split(text, |c| c.is_whitespace() || c == ',')
}

/// The fields of a line: divided by blanks, but not within braces.
pub fn fields(text: &str) -> Vec<&str> {
    split(text, char::is_whitespace)
}

fn split(text: &str, divides: impl Fn(char) -> bool) -> Vec<&str> {
    let (mut found, mut begin, mut depth) = (Vec::new(), None, 0_usize);
    for (at, c) in text.char_indices() {
        if depth == 0 && divides(c) {
            found.extend(begin.take().and_then(|begin| text.get(begin..at)));
            continue;
        }
        begin.get_or_insert(at);
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    found.extend(begin.and_then(|begin| text.get(begin..)));
    found
}

/// What stands between braces, if a word is written in them.
pub fn in_braces(word: &str) -> Option<&str> {
    Some(word.strip_prefix('{')?.strip_suffix('}')?.trim())
}

/// The line that a word of a text stands on.
pub fn offset_of(text: &str, word: &str) -> usize {
    // Both are of the same string, so the distance of their beginnings is the offset.
    (word.as_ptr() as usize).saturating_sub(text.as_ptr() as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_go_on_across_comments() {
        let text = "# top\na = 1,\n  # between\n\n\t2\n\nb = 3\n";
        let lines = logical_lines(text);
        let found: Vec<(&str, usize)> = lines.iter().map(|l| (l.text.as_str(), l.line)).collect();
        assert_eq!(found, [("a = 1, 2", 2), ("b = 3", 7)]);
        assert_eq!(lines[0].line_at(7), 5);
        assert_eq!(lines[0].line_at(0), 2);
    }

    #[test]
    fn braces_keep_words_together() {
        assert_eq!(
            words("a, b{c d} { e, f } ,g"),
            ["a", "b{c d}", "{ e, f }", "g"]
        );
        assert_eq!(fields("x a,b { c }"), ["x", "a,b", "{ c }"]);
        assert_eq!(in_braces("{ a = b }"), Some("a = b"));
    }
}
