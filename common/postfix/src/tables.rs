//! Maps as text (postmap(1), aliases(5), pcre_table(5) where an expression means plain addresses), and lists that name them.

use std::io;
use std::path::Path;

use crate::{
    files::Layout,
    lines::{in_braces, logical_lines, words},
};

/// Kinds whose source is a text file of keys and values, also where Postfix reads what `postmap` made of it.
const TEXT: [&str; 7] = ["hash", "btree", "lmdb", "cdb", "dbm", "sdbm", "texthash"];

/// Reads files.
pub type Read<'a> = &'a dyn Fn(&Path) -> io::Result<String>;

/// What can be read of a Postfix.
pub struct Files<'a> {
    /// Where things lie.
    pub layout: Layout,
    /// `config_directory`, if that is another.
    pub config: String,
    /// How to read them.
    pub read: Read<'a>,
}

/// `hash:/etc/postfix/virtual`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableName {
    /// Its kind, without `proxy:` before it.
    pub kind: String,
    /// Its place, or what it holds.
    pub name: String,
}

/// One key with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// In lower case, as Postfix compares them.
    pub key: String,
    /// As written.
    pub value: String,
    /// `virtual:12`
    pub place: String,
}

/// What a map holds, and what of it was not understood.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// The keys.
    pub rows: Vec<Row>,
    /// Places of lines that are no pairs, or expressions that stand for more than addresses; and why.
    pub odd: Vec<String>,
}

/// Why a map was not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoTable {
    /// The copy lacks it.
    #[error("{0} is not there: copy it into the folder and run this again")]
    Missing(String),
    /// It is there, and cannot be read.
    #[error("{0} cannot be read: {1}")]
    Unreadable(String, String),
    /// Its contents are in no text file.
    #[error(
        "what a map of the kind {kind} holds is elsewhere: put its keys and values into {file}, a line for each as postmap(1) has them, and run this again"
    )]
    Elsewhere {
        /// Its kind.
        kind: String,
        /// What would be read.
        file: String,
    },
}

impl TableName {
    /// None: a word without a kind.
    pub fn parse(word: &str) -> Option<Self> {
        let word = word.strip_prefix("proxy:").unwrap_or(word);
        let (kind, name) = word.split_once(':')?;
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        (!kind.is_empty() && kind.chars().all(plain)).then(|| Self {
            kind: kind.to_ascii_lowercase(),
            name: name.to_owned(),
        })
    }
}

impl std::fmt::Display for TableName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.kind, self.name)
    }
}

impl Files<'_> {
    /// The first of its places where a file is; how it is called for people, and its text.
    pub fn text(&self, named: &str) -> Result<(String, String), NoTable> {
        for place in self.layout.places(named, &self.config) {
            match (self.read)(&place) {
                Ok(text) => return Ok((self.shown(&place), text)),
                Err(error) if is_absent(&error) => {}
                Err(error) => {
                    return Err(NoTable::Unreadable(self.shown(&place), error.to_string()));
                }
            }
        }
        Err(NoTable::Missing(named.to_owned()))
    }

    fn shown(&self, place: &Path) -> String {
        let inside = place.strip_prefix(&self.layout.folder).unwrap_or(place);
        inside.display().to_string()
    }

    /// What a map holds.
    pub fn table(&self, table: &TableName) -> Result<Table, NoTable> {
        match table.kind.as_str() {
            "inline" => Ok(inline(&table.name)),
            "static" => Ok(Table::default()),
            "pcre" | "regexp" => self
                .text(&table.name)
                .map(|(file, text)| expressions(&file, &text)),
            kind if TEXT.contains(&kind) => self
                .text(&table.name)
                .map(|(file, text)| pairs(&file, &text)),
            kind => {
                let file = format!("{}.txt", table.name);
                match self.text(&file) {
                    Ok((file, text)) => Ok(pairs(&file, &text)),
                    Err(NoTable::Missing(_)) => Err(NoTable::Elsewhere {
                        kind: kind.to_owned(),
                        file: self
                            .layout
                            .places(&file, &self.config)
                            .first()
                            .map_or(file.clone(), |place| self.shown(place)),
                    }),
                    Err(other) => Err(other),
                }
            }
        }
    }

    /// A map of local aliases: aliases(5).
    pub fn aliases(&self, table: &TableName) -> Result<Table, NoTable> {
        match TEXT.contains(&table.kind.as_str()) {
            true => self
                .text(&table.name)
                .map(|(file, text)| aliases(&file, &text)),
            false => self.table(table),
        }
    }

    /// The words of a list of domains or networks: files that it names are read, and the keys of maps taken.
    pub fn list(&self, text: &str) -> (Vec<Row>, Vec<NoTable>) {
        let (mut found, mut missing) = (Vec::new(), Vec::new());
        for word in words(text) {
            if word.starts_with('/') {
                match self.text(word) {
                    Ok((file, text)) => {
                        let lines = logical_lines(&text);
                        for line in &lines {
                            let place = format!("{file}:{}", line.line);
                            found.extend(
                                words(&line.text)
                                    .into_iter()
                                    .map(|word| row(word, "", &place)),
                            );
                        }
                    }
                    Err(error) => missing.push(error),
                }
                continue;
            }
            match TableName::parse(word)
                .filter(|table| !table.name.starts_with(':') && !is_address(word))
            {
                Some(table) => match self.table(&table) {
                    Ok(table) => found.extend(table.rows),
                    Err(error) => missing.push(error),
                },
                None => found.push(row(word, "", "")),
            }
        }
        (found, missing)
    }
}

/// `2001:db8::/32` looks like a map.
fn is_address(word: &str) -> bool {
    let address = word.split('/').next().unwrap_or(word);
    address
        .trim_matches(['[', ']', '!'])
        .parse::<std::net::IpAddr>()
        .is_ok()
}

fn is_absent(error: &io::Error) -> bool {
    use io::ErrorKind::{IsADirectory, NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory | IsADirectory)
}

fn row(key: &str, value: &str, place: &str) -> Row {
    Row {
        key: key.to_lowercase(),
        value: value.to_owned(),
        place: place.to_owned(),
    }
}

/// postmap(1): a key, blanks, a value.
pub fn pairs(file: &str, text: &str) -> Table {
    let mut table = Table::default();
    for line in logical_lines(text) {
        let place = format!("{file}:{}", line.line);
        match pair(&line.text) {
            Some((key, value)) => table.rows.push(row(&key, value, &place)),
            // A list of domains may have keys alone: whether one is there is all that counts.
            None => table.rows.push(row(&line.text, "", &place)),
        }
    }
    table
}

fn pair(text: &str) -> Option<(String, &str)> {
    if let Some(quoted) = text.strip_prefix('"') {
        let end = quoted
            .find("\"@")
            .map(|at| at + 2)
            .or_else(|| quoted.find('"').map(|at| at + 1))?;
        let end = end + quoted.get(end..)?.find(char::is_whitespace)?;
        let (key, value) = quoted.split_at(end);
        return Some((format!("\"{key}"), value.trim()));
    }
    let (key, value) = text.split_once(char::is_whitespace)?;
    Some((key.to_owned(), value.trim()))
}

/// aliases(5): a name, a colon, addresses.
pub fn aliases(file: &str, text: &str) -> Table {
    let mut table = Table::default();
    for line in logical_lines(text) {
        let place = format!("{file}:{}", line.line);
        match line.text.split_once(':') {
            Some((name, value)) => {
                table
                    .rows
                    .push(row(name.trim().trim_matches('"'), value.trim(), &place));
            }
            None => table.odd.push(format!("{place}: no colon behind the name")),
        }
    }
    table
}

fn inline(text: &str) -> Table {
    let text = in_braces(text).unwrap_or(text);
    let mut table = Table::default();
    for word in words(text) {
        let word = in_braces(word).unwrap_or(word);
        match word.split_once('=') {
            Some((key, value)) => table.rows.push(row(key.trim(), value.trim(), "inline")),
            None => table.odd.push(format!("inline: {word}")),
        }
    }
    table
}

/// pcre_table(5) and regexp_table(5): what stands for one address or all of a domain is taken as such.
fn expressions(file: &str, text: &str) -> Table {
    let mut table = Table::default();
    for line in logical_lines(text) {
        let place = format!("{file}:{}", line.line);
        match expression(&line.text) {
            Some((key, value)) if !value.contains('$') => table.rows.push(row(&key, value, &place)),
            _ => table.odd.push(format!(
                "{place}: the expression stands for more than one address or domain"
            )),
        }
    }
    table
}

fn expression(line: &str) -> Option<(String, &str)> {
    let (pattern, rest) = line.strip_prefix('/')?.rsplit_once('/')?;
    let (flags, value) = rest.split_once(char::is_whitespace)?;
    if !flags.chars().all(|flag| flag == 'i') {
        return None;
    }
    let pattern = pattern.strip_suffix('$')?;
    let (pattern, is_whole) = match pattern.strip_prefix('^') {
        Some(pattern) => (pattern, true),
        None => (pattern, false),
    };
    let pattern = match pattern
        .strip_prefix(".*")
        .or_else(|| pattern.strip_prefix(".+"))
    {
        Some(domain) if domain.starts_with('@') => domain,
        Some(_) => return None,
        None if is_whole || pattern.starts_with('@') => pattern,
        None => return None,
    };
    let (mut plain, mut chars) = (String::new(), pattern.chars());
    while let Some(c) = chars.next() {
        match c {
            '\\' => plain.push(chars.next().filter(|c| !c.is_alphanumeric())?),
            c if c.is_alphanumeric() || "@-_=!%&~'".contains(c) => plain.push(c),
            _ => return None,
        }
    }
    Some((plain, value.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_name_tables_or_not() {
        let name = |word| TableName::parse(word).map(|table| table.to_string());
        assert_eq!(
            name("proxy:mysql:/etc/x.cf").as_deref(),
            Some("mysql:/etc/x.cf")
        );
        assert_eq!(name("example.org"), None);
    }

    #[test]
    fn maps_are_read_as_text() {
        let table = pairs(
            "virtual",
            "# c\nA@b.test x@y,\n  z@y\n\"a b\"@c d\n\nb.test anything\nonly.test\n",
        );
        let rows: Vec<_> = table
            .rows
            .iter()
            .map(|r| (r.key.as_str(), r.value.as_str(), r.place.as_str()))
            .collect();
        assert_eq!(
            rows,
            [
                ("a@b.test", "x@y, z@y", "virtual:2"),
                ("\"a b\"@c", "d", "virtual:4"),
                ("b.test", "anything", "virtual:6"),
                ("only.test", "", "virtual:7"),
            ]
        );
        let table = aliases(
            "aliases",
            "root: bob\n\"odd name\": |\"/bin/x y\"\nnothing\n",
        );
        assert_eq!(table.rows[1].key, "odd name");
        assert_eq!(table.odd.len(), 1);
        assert_eq!(inline("{ a=b, {c = d e} }").rows[1].value, "d e");
    }

    #[test]
    fn expressions_that_mean_addresses() {
        let table = expressions(
            "p",
            "/^info@a\\.test$/ x@y\n/@b\\.test$/i all@y\n/^.*@c\\.test$/ z@y\n/^(.*)@d\\.test$/ $1@e\n/foo/ x\n",
        );
        let keys: Vec<_> = table.rows.iter().map(|row| row.key.as_str()).collect();
        assert_eq!(keys, ["info@a.test", "@b.test", "@c.test"]);
        assert_eq!(table.odd.len(), 2);
    }
}
