//! One line per event on standard error, as text or JSON. Whatever a peer sent cannot break a line
//! or move a cursor: control and direction characters are escaped in both forms.

use std::cell::Cell;
use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, ParseError, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::{LookupSpan, Registry, Scope};
use tracing_subscriber::reload;

use crate::common::{LogConfig, LogFormat};
use crate::config::{ConfigError, Place};
use crate::reload::Apply;

/// Overrides the level, also by target: `info,postroad_mta=debug`.
pub const LOG_VARIABLE: &str = "POSTROAD_LOG";

/// Sends the events of this process to standard error under the name of `agent`. A span or an event
/// with a field `agent` speaks for another one. A process that has a subscriber already keeps it.
pub fn init_logging(config: &LogConfig, agent: &str) -> Result<LogControl, ConfigError> {
    let (filter, handle) = reload::Layer::new(wanted(config)?);
    let mut lines = LogLines::new(config.format, agent, std::io::stderr);
    lines.tells_priority = is_journal();
    let json = Arc::clone(&lines.json);
    let subscriber = tracing_subscriber::registry().with(filter).with(lines);
    let _ = tracing::subscriber::set_global_default(subscriber);
    Ok(LogControl {
        filter: handle,
        json,
    })
}

/// Changes the logs of this process while it runs.
#[derive(Clone)]
pub struct LogControl {
    filter: reload::Handle<Targets, Registry>,
    json: Arc<AtomicBool>,
}

impl LogControl {
    /// How level and format are put into force.
    pub(crate) fn prepare(&self, config: &LogConfig) -> Result<Apply, ConfigError> {
        let (control, filter) = (self.clone(), wanted(config)?);
        let json = is_json(config.format);
        Ok(Apply::new(move || {
            control.json.store(json, Ordering::Relaxed);
            // It fails only where another subscriber is in the place of ours.
            let _ = control.filter.reload(filter);
        }))
    }
}

/// A line of an error before there are logs.
pub(crate) fn complaint(text: fmt::Arguments<'_>) -> String {
    let priority = is_journal().then(|| priority(Level::ERROR));
    format!("{}{text}\n", priority.unwrap_or_default())
}

fn is_journal() -> bool {
    goes_to_the_journal(std::env::var("JOURNAL_STREAM").ok().as_deref())
}

/// Whether standard error is the stream to systemd's journal that this variable names by device and inode (systemd.exec(5)).
fn goes_to_the_journal(stream: Option<&str>) -> bool {
    let own = rustix::fs::fstat(std::io::stderr());
    let own = own.map(|found| format!("{}:{}", found.st_dev, found.st_ino));
    stream.is_some_and(|stream| own.is_ok_and(|own| own == stream))
}

fn wanted(config: &LogConfig) -> Result<Targets, ConfigError> {
    let directives = std::env::var(LOG_VARIABLE).ok();
    filter(config, directives.as_deref()).map_err(|error| ConfigError::Meaning {
        place: Place::Environment(LOG_VARIABLE.into()),
        key: LOG_VARIABLE.to_owned(),
        problem: error.to_string(),
        remedy: "write for example \"info,postroad_mta=debug\"".to_owned(),
    })
}

fn is_json(format: LogFormat) -> bool {
    matches!(format, LogFormat::Json)
}

/// What libraries have to say below WARN is of no use to an operator; and of what the resolver says nothing, since who asked gets
/// the answer as an error, and tells of it once. An answer with wrong signatures alone would be dozens of lines.
fn filter(config: &LogConfig, directives: Option<&str>) -> Result<Targets, ParseError> {
    match directives {
        Some(directives) => directives.parse(),
        None => {
            let level = Level::from(config.level);
            let others = level.min(Level::WARN);
            Ok(Targets::new()
                .with_default(others)
                .with_target("hickory", LevelFilter::OFF)
                .with_target("postroad", level))
        }
    }
}

/// Writes events as lines.
pub struct LogLines<W> {
    json: Arc<AtomicBool>,
    agent: String,
    writer: W,
    /// Lines begin with what syslog calls their severity, which the journal takes off (sd-daemon(3)).
    tells_priority: bool,
}

impl<W> LogLines<W> {
    /// Lines of `agent` into what `writer` makes.
    pub fn new(format: LogFormat, agent: &str, writer: W) -> Self {
        Self {
            json: Arc::new(AtomicBool::new(is_json(format))),
            agent: agent.to_owned(),
            writer,
            tells_priority: false,
        }
    }
}

impl<S, W> Layer<S> for LogLines<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        // A thread that ends may log from its last destructors, when nothing is kept for it any more.
        let mut scratch = SCRATCH.try_with(Cell::take).unwrap_or_default();
        let Scratch { fields, line } = &mut scratch;
        let scope = context.event_scope(event).map(Scope::from_root);
        for span in scope.into_iter().flatten() {
            if let Some(outer) = span.extensions().get::<Fields>() {
                fields.extend(outer);
            }
        }
        event.record(fields);
        let level = *event.metadata().level();
        let other = fields.take("agent").filter(|other| other.is_text);
        let Fields { values, texts } = fields;
        let agent = other.map_or(self.agent.as_str(), |other| other.of(texts));
        if self.tells_priority {
            line.push_str(priority(level));
        }
        let head = Head { level, agent };
        match self.json.load(Ordering::Relaxed) {
            false => head.text(values, texts, line),
            true => head.json(values, texts, line),
        }
        // A process that cannot log goes on: mail matters more.
        let _ = self.writer.make_writer().write_all(line.as_bytes());
        if scratch.is_small() {
            scratch.clear();
            let _ = SCRATCH.try_with(|kept| kept.set(scratch));
        }
    }
}

/// What a line is made in, used again by the next one of the same thread: there are several lines for each mail.
#[derive(Default)]
struct Scratch {
    fields: Fields,
    line: String,
}

thread_local! {
    static SCRATCH: Cell<Scratch> = Cell::default();
}

impl Scratch {
    fn is_small(&self) -> bool {
        const MOST: usize = 16 << 10;
        self.line.capacity() <= MOST && self.fields.texts.capacity() <= MOST
    }

    fn clear(&mut self) {
        self.fields.values.clear();
        self.fields.texts.clear();
        self.line.clear();
    }
}

/// RFC 5424 §6.2.1. NOTICE stands between WARN and INFO there; we have no such level.
const fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        _ => "<7>",
    }
}

/// The fields of an event or span in the order they were written.
#[derive(Clone, Default)]
struct Fields {
    values: Vec<(&'static str, Value)>,
    /// All values, one after the other.
    texts: String,
}

/// Where in the texts a value stands.
#[derive(Clone, Copy)]
struct Value {
    from: usize,
    to: usize,
    /// Else it is a number or a truth, which is never quoted.
    is_text: bool,
}

impl Value {
    fn of(self, texts: &str) -> &str {
        texts.get(self.from..self.to).unwrap_or_default()
    }
}

impl Fields {
    fn set(&mut self, name: &'static str, is_text: bool, value: fmt::Arguments<'_>) {
        let from = self.texts.len();
        // Only a value that fails to show itself can fail here; it stands as far as it came.
        let _ = self.texts.write_fmt(value);
        let to = self.texts.len();
        let value = Value { from, to, is_text };
        match self.values.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value,
            None => self.values.push((name, value)),
        }
    }

    fn extend(&mut self, outer: &Self) {
        for (name, value) in &outer.values {
            let text = value.of(&outer.texts);
            self.set(name, value.is_text, format_args!("{text}"));
        }
    }

    fn take(&mut self, name: &str) -> Option<Value> {
        take(&mut self.values, name)
    }
}

fn take(values: &mut Vec<(&'static str, Value)>, name: &str) -> Option<Value> {
    let at = values.iter().position(|(known, _)| *known == name)?;
    Some(values.remove(at).1)
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field.name(), true, format_args!("{value:?}"));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field.name(), true, format_args!("{value}"));
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field.name(), false, format_args!("{value}"));
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field.name(), false, format_args!("{value}"));
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        match value.is_finite() {
            true => self.set(field.name(), false, format_args!("{value:?}")),
            // JSON has no other word for it.
            false => self.set(field.name(), false, format_args!("null")),
        }
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field.name(), false, format_args!("{value}"));
    }
}

/// What each line begins with.
struct Head<'a> {
    level: Level,
    agent: &'a str,
}

impl Head<'_> {
    /// `2026-01-02T03:04:05.678Z INFO msa accepted queue_id=… size=512 some words`.
    fn text(&self, values: &mut Vec<(&'static str, Value)>, texts: &str, line: &mut String) {
        let event = take(values, "event");
        let message = take(values, "message");
        // Writing to a String cannot fail, here and below.
        let _ = write!(line, "{:.3} {} ", jiff::Timestamp::now(), self.level);
        escape(self.agent, line);
        if let Some(event) = event {
            line.push(' ');
            push_value(event, texts, line);
        }
        for (name, value) in values.iter() {
            line.push(' ');
            line.push_str(name);
            line.push('=');
            push_value(*value, texts, line);
        }
        if let Some(message) = message {
            line.push(' ');
            escape(message.of(texts), line);
        }
        line.push('\n');
    }

    /// One flat object.
    fn json(&self, values: &[(&'static str, Value)], texts: &str, line: &mut String) {
        let _ = write!(line, "{{\"ts\":\"{:.3}\"", jiff::Timestamp::now());
        for (name, text) in [("level", self.level.as_str()), ("agent", self.agent)] {
            // An object has each name once (RFC 8259 §4), and what an event says goes first.
            if values.iter().all(|(field, _)| *field != name) {
                line.push(',');
                push_json(name, line);
                line.push(':');
                push_json(text, line);
            }
        }
        for (name, value) in values.iter().filter(|(name, _)| *name != "ts") {
            line.push(',');
            push_json(name, line);
            line.push(':');
            match value.is_text {
                true => push_json(value.of(texts), line),
                false => line.push_str(value.of(texts)),
            }
        }
        line.push_str("}\n");
    }
}

/// RFC 8259 §7, with all escaped that is hostile.
fn push_json(text: &str, line: &mut String) {
    line.push('"');
    if text.bytes().all(is_plain) {
        line.push_str(text);
    } else {
        for c in text.chars() {
            match c {
                '"' | '\\' => line.extend(['\\', c]),
                c if is_hostile(c) => _ = write!(line, "\\u{:04x}", u32::from(c)),
                c => line.push(c),
            }
        }
    }
    line.push('"');
}

/// Needs no escape in either form.
const fn is_plain(octet: u8) -> bool {
    matches!(octet, b' '..=b'~') && !matches!(octet, b'"' | b'\\')
}

/// Words stand bare; whatever a reader could take for two fields is quoted.
fn push_value(value: Value, texts: &str, line: &mut String) {
    let text = value.of(texts);
    let bare =
        !text.is_empty() && !text.contains([' ', '"', '=', '\\']) && !text.chars().any(is_hostile);
    if bare || !value.is_text {
        line.push_str(text);
    } else {
        line.push('"');
        escape(text, line);
        line.push('"');
    }
}

fn escape(text: &str, line: &mut String) {
    if text.bytes().all(is_plain) {
        line.push_str(text);
        return;
    }
    for c in text.chars() {
        match c {
            '"' | '\\' => line.extend(['\\', c]),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            c if is_hostile(c) => {
                let _ = write!(line, "\\u{{{:x}}}", u32::from(c));
            }
            c => line.push(c),
        }
    }
}

/// Control characters, line separators, and those that turn the direction of what follows.
fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests;
