//! What a verb says: results to standard output, talk to standard error, tables or one JSON object.

use std::fmt::Display;
use std::io::{BufRead, IsTerminal, Write};

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};
use jiff::tz::TimeZone;
use postroad_envelope::Timestamp;
use serde_json::{Map, Value};

use crate::fault::Fault;

/// The version of the objects `--json` prints.
pub const SCHEMA: u64 = 1;

/// Where a verb writes. A reader that has gone away is no fault of the verb.
pub struct Terminal<'a> {
    out: &'a mut dyn Write,
    talk: &'a mut dyn Write,
    json: bool,
    in_progress: bool,
}

impl<'a> Terminal<'a> {
    /// Results to `out`, everything else to `talk`.
    pub fn new(out: &'a mut dyn Write, talk: &'a mut dyn Write, json: bool) -> Self {
        Self {
            out,
            talk,
            json,
            in_progress: false,
        }
    }

    /// Whether JSON is wanted.
    pub fn wants_json(&self) -> bool {
        self.json
    }

    /// A line of the result.
    pub fn line(&mut self, text: impl Display) {
        let _ = writeln!(self.out, "{text}");
        let _ = self.out.flush();
    }

    /// Octets of the result, as they are.
    pub fn octets(&mut self, octets: &[u8]) {
        let _ = self.out.write_all(octets);
        let _ = self.out.flush();
    }

    /// Where the result goes, for one that is a stream: whoever writes it must know if it goes nowhere.
    pub fn stream(&mut self) -> &mut dyn Write {
        self.out
    }

    /// The result as one object: `fields` and the schema.
    pub fn object(&mut self, fields: Value) {
        self.line(Self::with_schema(fields));
    }

    /// `fields` and the schema as one object.
    pub fn with_schema(fields: Value) -> Value {
        let mut object = Map::from_iter([("schema".to_owned(), Value::from(SCHEMA))]);
        match fields {
            Value::Object(fields) => object.extend(fields),
            other => {
                object.insert("value".to_owned(), other);
            }
        }
        Value::Object(object)
    }

    /// A line for the person, not part of the result.
    pub fn say(&mut self, text: impl Display) {
        self.clear_progress();
        let _ = writeln!(self.talk, "{text}");
        let _ = self.talk.flush();
    }

    /// How far it is, on a line that the next word takes the place of; only where a person looks on.
    pub fn progress(&mut self, text: impl Display) {
        if std::io::stderr().is_terminal() {
            let _ = write!(self.talk, "\r{text}\x1b[K");
            let _ = self.talk.flush();
            self.in_progress = true;
        }
    }

    /// Takes the line of [`Terminal::progress`] away.
    pub fn clear_progress(&mut self) {
        if std::mem::take(&mut self.in_progress) {
            let _ = write!(self.talk, "\r\x1b[K");
            let _ = self.talk.flush();
        }
    }

    /// Why it was not done.
    pub fn fault(&mut self, fault: &Fault) {
        if !matches!(fault, Fault::Told | Fault::Exit(_)) {
            self.say(format_args!("postroad: {fault}"));
        }
    }

    /// Asks before something that cannot be undone.
    pub fn confirm(&mut self, question: &str) -> Result<(), Fault> {
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            return Err(Fault::NotDone(format!("{question} Say so with --yes.")));
        }
        let _ = write!(self.talk, "{question} [y/N] ");
        let _ = self.talk.flush();
        let mut answer = String::new();
        let read = stdin.lock().read_line(&mut answer);
        match answer.trim() {
            "y" | "Y" | "yes" if read.is_ok() => Ok(()),
            _ => Err(Fault::NotDone("nothing was done".to_owned())),
        }
    }
}

/// A table without lines: columns stand two blanks apart.
pub fn table<'a>(headings: impl IntoIterator<Item = &'a str>) -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(headings);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

/// A cell for a number.
pub fn number(value: impl ToString) -> Cell {
    Cell::new(value).set_alignment(CellAlignment::Right)
}

/// A table as text, without blanks at the ends of its lines.
pub fn lines(table: &Table) -> String {
    table.trim_fmt()
}

/// Local time with its offset, for tables.
pub fn local_time(at: Timestamp) -> String {
    match zoned(at, TimeZone::system()) {
        Some(at) => at.strftime("%Y-%m-%d %H:%M:%S %:z").to_string(),
        None => at.to_string(),
    }
}

/// Local time of day with milliseconds, for timelines.
pub fn local_clock(at: Timestamp) -> String {
    match zoned(at, TimeZone::system()) {
        Some(at) => at.strftime("%H:%M:%S%.3f").to_string(),
        None => at.to_string(),
    }
}

/// RFC 3339 in UTC with milliseconds, for JSON.
pub fn utc_time(at: Timestamp) -> String {
    match zoned(at, TimeZone::UTC) {
        Some(at) => at.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(),
        None => at.to_string(),
    }
}

fn zoned(at: Timestamp, zone: TimeZone) -> Option<jiff::Zoned> {
    let millis = i64::try_from(at.as_millis()).ok()?;
    let at = jiff::Timestamp::from_millisecond(millis).ok()?;
    Some(at.to_zoned(zone))
}

/// What strangers wrote, harmless on a terminal: control and direction characters are shown, not obeyed. Line ends
/// and tabs stay.
pub fn harmless(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        let obeyed = c.is_control() && c != '\n' && c != '\t';
        let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if obeyed || turns {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// One line of what strangers wrote, cut to `limit` characters.
pub fn one_line(text: &str, limit: usize) -> String {
    let flat = harmless(&text.replace(['\r', '\n', '\t'], " "));
    match flat.char_indices().nth(limit) {
        Some((end, _)) => format!("{}…", &flat[..end]),
        None => flat,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_align_and_end_without_blanks() {
        let mut table = table(["ID", "SIZE"]);
        table.add_row([Cell::new("abc"), number(7)]);
        table.add_row([Cell::new("d"), number(1234)]);
        assert_eq!(lines(&table), "ID   SIZE\nabc     7\nd    1234");
    }

    #[test]
    fn what_strangers_wrote_moves_no_cursor() {
        assert_eq!(
            harmless("a\u{1b}[2J\r\n\tb\u{202e}"),
            "a\\u{1b}[2J\\r\n\tb\\u{202e}"
        );
        assert_eq!(one_line("one\r\ntwo", 80), "one  two");
        assert_eq!(one_line("äöü", 2), "äö…");
    }

    #[test]
    fn json_has_its_schema_and_times_are_utc() {
        let (mut out, mut talk) = (Vec::new(), Vec::new());
        Terminal::new(&mut out, &mut talk, true).object(serde_json::json!({ "a": 1 }));
        assert_eq!(out, b"{\"a\":1,\"schema\":1}\n");
        assert_eq!(
            utc_time(Timestamp::from_millis(1_700_000_000_007)),
            "2023-11-14T22:13:20.007Z"
        );
    }
}
