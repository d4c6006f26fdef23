//! main.cf: settings, and the values their names stand for (postconf(5)).

use std::collections::BTreeMap;

use crate::lines::logical_lines;

/// Names within names; more is a circle.
const DEEPEST: usize = 32;

/// `name = value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The parameter.
    pub name: String,
    /// As written, on one line.
    pub value: String,
    /// Where, counted from 1.
    pub line: usize,
}

/// The settings of a main.cf, and the lines that are none.
pub fn parse(text: &str) -> (Vec<Setting>, Vec<usize>) {
    let (mut settings, mut others) = (Vec::new(), Vec::new());
    for line in logical_lines(text) {
        match setting(&line.text, line.line) {
            Some(setting) => settings.push(setting),
            None => others.push(line.line),
        }
    }
    (settings, others)
}

/// One setting.
pub fn setting(text: &str, line: usize) -> Option<Setting> {
    let (name, value) = text.split_once('=')?;
    let (name, value) = (name.trim(), value.trim());
    (!name.is_empty() && !name.contains(char::is_whitespace)).then(|| Setting {
        name: name.to_owned(),
        value: value.to_owned(),
        line,
    })
}

/// The values in force, by name; names within values are followed.
#[derive(Debug, Clone, Default)]
pub struct Values {
    set: BTreeMap<String, String>,
}

impl Values {
    /// Of these settings; the last one of a name counts.
    pub fn new(settings: &[Setting]) -> Self {
        let all = settings.iter();
        Self {
            set: all
                .map(|one| (one.name.clone(), one.value.clone()))
                .collect(),
        }
    }

    /// The same, with those of a service over them.
    pub fn with(&self, options: &[Setting]) -> Self {
        let mut all = self.clone();
        all.set.extend(Self::new(options).set);
        all
    }

    /// As written; none: it is not set.
    pub fn raw(&self, name: &str) -> Option<&str> {
        self.set.get(name).map(String::as_str)
    }

    /// Sets what stands nowhere.
    pub fn suppose(&mut self, name: &str, value: &str) {
        self.set
            .entry(name.to_owned())
            .or_insert_with(|| value.to_owned());
    }

    /// Sets what is known better.
    pub fn force(&mut self, name: &str, value: &str) {
        self.set.insert(name.to_owned(), value.to_owned());
    }

    /// The value in force, or what Postfix has without it.
    pub fn value(&self, name: &str) -> String {
        self.known(name, 0).unwrap_or_default()
    }

    /// Whether a value says yes.
    pub fn says_yes(&self, name: &str) -> bool {
        self.value(name).eq_ignore_ascii_case("yes")
    }

    /// A text with the values of the names in it.
    pub fn expand(&self, text: &str) -> String {
        self.expand_at(text, 0)
    }

    fn known(&self, name: &str, depth: usize) -> Option<String> {
        if depth > DEEPEST {
            return None;
        }
        let raw = match (self.raw(name), name) {
            (Some(raw), _) => raw,
            // What the name of the host has behind its first dot.
            (None, "mydomain") => {
                let host = self.known("myhostname", depth + 1)?;
                let domain = host.split_once('.').map(|(_, domain)| domain.to_owned());
                return Some(domain.unwrap_or_else(|| "localdomain".to_owned()));
            }
            (None, _) => crate::defaults::default_of(name)?,
        };
        Some(self.expand_at(raw, depth + 1))
    }

    fn expand_at(&self, text: &str, depth: usize) -> String {
        let (mut out, mut rest) = (String::new(), text);
        if depth > DEEPEST {
            return out;
        }
        while let Some((before, behind)) = rest.split_once('$') {
            out.push_str(before);
            if let Some(behind) = behind.strip_prefix('$') {
                out.push('$');
                rest = behind;
                continue;
            }
            let (inner, behind) = match behind.chars().next() {
                Some('{') => enclosed(behind, '{', '}'),
                Some('(') => enclosed(behind, '(', ')'),
                _ => {
                    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
                    let end = behind.find(|c| !is_name(c)).unwrap_or(behind.len());
                    behind.split_at(end)
                }
            };
            rest = behind;
            out.push_str(&self.replaced(inner, depth));
        }
        out + rest
    }

    /// What stands within `${}`.
    fn replaced(&self, inner: &str, depth: usize) -> String {
        let inner = inner.trim();
        if inner.starts_with('{') {
            return self.compared(inner, depth);
        }
        let end = inner.find(['?', ':']).unwrap_or(inner.len());
        let (name, operation) = inner.split_at(end);
        let value = self.known(name.trim(), depth).unwrap_or_default();
        let Some(operator) = operation.chars().next() else {
            return value;
        };
        let (then, otherwise) = branches(operation.get(1..).unwrap_or_default());
        let chosen = match (operator, value.is_empty()) {
            ('?', false) => then,
            ('?', true) => otherwise.unwrap_or_default(),
            (_, true) => then,
            _ => return value,
        };
        self.expand_at(chosen, depth + 1)
    }

    /// `{a} == {b} ? {c} : {d}`
    fn compared(&self, inner: &str, depth: usize) -> String {
        let (left, rest) = enclosed(inner, '{', '}');
        let rest = rest.trim_start();
        let end = rest.find('{').unwrap_or(rest.len());
        let (operator, rest) = rest.split_at(end);
        let (right, rest) = enclosed(rest, '{', '}');
        let [left, right] = [left, right].map(|side| self.expand_at(side.trim(), depth + 1));
        let order = match (left.parse::<i64>(), right.parse::<i64>()) {
            (Ok(left), Ok(right)) => left.cmp(&right),
            _ => left.cmp(&right),
        };
        let holds = match operator.trim() {
            "==" => order.is_eq(),
            "!=" => order.is_ne(),
            "<" => order.is_lt(),
            "<=" => order.is_le(),
            ">" => order.is_gt(),
            ">=" => order.is_ge(),
            _ => false,
        };
        let (then, otherwise) = branches(rest.trim_start().trim_start_matches('?'));
        let chosen = if holds {
            then
        } else {
            otherwise.unwrap_or_default()
        };
        self.expand_at(chosen, depth + 1)
    }
}

/// `{then} : {otherwise}`, or all of it.
fn branches(text: &str) -> (&str, Option<&str>) {
    let text = text.trim_start();
    if !text.starts_with('{') {
        return (text, None);
    }
    let (then, rest) = enclosed(text, '{', '}');
    let otherwise = rest.trim_start().strip_prefix(':').map(|rest| {
        let rest = rest.trim();
        crate::lines::in_braces(rest).unwrap_or(rest)
    });
    (then.trim(), otherwise)
}

/// What stands between the first bracket and its partner, and what is behind that.
fn enclosed(text: &str, open: char, close: char) -> (&str, &str) {
    let mut depth = 0_usize;
    for (at, c) in text.char_indices() {
        if c == open {
            depth += 1;
        } else if c == close {
            depth = depth.saturating_sub(1);
            if depth == 0 {
                return (
                    text.get(1..at).unwrap_or_default(),
                    text.get(at + 1..).unwrap_or_default(),
                );
            }
        }
    }
    (text.get(1..).unwrap_or_default(), "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> Values {
        Values::new(&parse(text).0)
    }

    #[test]
    fn settings_are_read_with_their_lines() {
        let (settings, others) = parse("a=1\n b\nno setting\nc =\n");
        assert_eq!(others, [3]);
        let found = settings
            .iter()
            .map(|s| (s.name.as_str(), s.value.as_str(), s.line));
        assert_eq!(found.collect::<Vec<_>>(), [("a", "1 b", 1), ("c", "", 4)]);
    }

    #[test]
    fn names_stand_for_values() {
        let values = values(
            "myhostname = a.b\nx = $myhostname, ${myhostname} $(myhostname)$$y\nempty =\nloop = $loop",
        );
        assert_eq!(values.value("x"), "a.b, a.b a.b$y");
        assert_eq!(values.value("loop"), "");
        assert_eq!(values.expand("${x?yes}${empty?no}${empty:or}"), "yesor");
        assert_eq!(values.expand("${empty?{a}:{b$myhostname}}"), "ba.b");
        assert_eq!(values.expand("${{3.6} < {3.7} ? {old} : {new}}"), "old");
        assert_eq!(values.expand("$mydomain"), "b");
    }
}
