//! What the code logs and what the house says it logs are the same: the list in `postroad_daemon::events`, and the
//! page made from it (`UPDATE_GENERATED=1 cargo test -p postroad-tests --test log_words` writes the page).
//!
//! The sources are read as text: every call of a tracing macro, its field names and the literals of `event`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use postroad_daemon::events::{EVENTS, FIELDS, log_reference};

const PAGE: &str = "deploy/guide/logs.md";
/// Where the program's own sources are.
const FOLDERS: [&str; 5] = ["common", "msa", "mta", "mda", "deploy"];
const MACROS: [&str; 10] = [
    "trace!(",
    "debug!(",
    "info!(",
    "warn!(",
    "error!(",
    "trace_span!(",
    "debug_span!(",
    "info_span!(",
    "warn_span!(",
    "error_span!(",
];
/// Every line has these.
const EVERYWHERE: [&str; 3] = ["agent", "event", "message"];

/// Words with the first place that says them.
type Words = BTreeMap<String, String>;

#[derive(Default)]
struct Said {
    events: Words,
    fields: Words,
}

#[test]
fn what_is_logged_is_listed_and_what_is_listed_is_logged() {
    let said = said();
    assert!(
        said.events.len() > 30,
        "the scan finds little: {:?}",
        said.events
    );
    let mut problems = Vec::new();
    for (what, said, listed) in [
        ("event", &said.events, EVENTS),
        ("field", &said.fields, FIELDS),
    ] {
        let listed: BTreeSet<&str> = listed.iter().map(|(name, _)| *name).collect();
        for (word, place) in said {
            if !listed.contains(word.as_str()) {
                problems.push(format!(
                    "{place}: the {what} {word:?} is not listed; use a word of the list, or add it"
                ));
            }
        }
        for word in listed.iter().filter(|word| !said.contains_key(**word)) {
            problems.push(format!(
                "nobody logs the {what} {word:?}; log it, or take it off the list"
            ));
        }
    }
    assert!(
        problems.is_empty(),
        "the list is in common/daemon/src/events.rs:\n{}",
        problems.join("\n")
    );
}

#[test]
fn the_page_is_fresh() {
    let page = root().join(PAGE);
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        fs::write(&page, log_reference()).expect("the page can be written");
    }
    assert!(
        fs::read_to_string(&page).unwrap_or_default() == log_reference(),
        "{PAGE} is not what the list says; \
         run: UPDATE_GENERATED=1 cargo test -p postroad-tests --test log_words"
    );
}

#[test]
fn the_scan_reads_macros_as_they_are_written() {
    let mut said = Said::default();
    scan(
        r#"tracing::info!(event = if a == b { "x" } else { "y" }, %id, peer = ?f(1, 2), n = v.len(), "a = {b}, {}", c);
           warn!("only text"); // info!(event = "commented")
           let _ = info_span!("name", agent = "mta", verb);"#,
        "here",
        &mut said,
    );
    assert_eq!(said.events.keys().collect::<Vec<_>>(), ["x", "y"]);
    assert_eq!(
        said.fields.keys().collect::<Vec<_>>(),
        ["id", "n", "peer", "verb"]
    );
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn said() -> Said {
    let mut said = Said::default();
    for folder in FOLDERS {
        for file in sources(&root().join(folder)) {
            let text = fs::read_to_string(&file).expect("a source can be read");
            // Tests come last in a file.
            let own = text
                .split("\n#[cfg(test)]\nmod ")
                .next()
                .unwrap_or_default();
            scan(own, &file.display().to_string(), &mut said);
        }
    }
    said
}

/// The Rust files below `src` folders that are no tests.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder can be read") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        match path.is_dir() {
            true if matches!(&*name, "tests" | "target") => {}
            true => found.extend(sources(&path)),
            false if name == "tests.rs" => {}
            false
                if name.ends_with(".rs")
                    && path.components().any(|part| part.as_os_str() == "src") =>
            {
                found.push(path);
            }
            false => {}
        }
    }
    found
}

fn scan(text: &str, file: &str, said: &mut Said) {
    for (number, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        for name in MACROS {
            let Some(at) = code.find(name).filter(|at| is_a_word_start(code, *at)) else {
                continue;
            };
            let start: usize = text.lines().take(number).map(|line| line.len() + 1).sum();
            let place = format!("{file}:{}", number + 1);
            let mut arguments = arguments(&text[start + at + name.len()..]).into_iter();
            // A span begins with its name.
            let span = name.contains("span") && arguments.next().is_some();
            let fields = arguments.map(str::trim);
            // The text of the message is the last; what it is made of is no field.
            let fields: Vec<_> = fields.take_while(|field| !field.starts_with('"')).collect();
            // Lines below INFO without an event are for those who develop.
            let fact = fields.iter().any(|field| field.starts_with("event"));
            if !fact && (name.contains("debug") || name.contains("trace")) {
                continue;
            }
            for field in fields {
                note(field, span, &place, said);
            }
        }
    }
}

fn is_a_word_start(code: &str, at: usize) -> bool {
    !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_')
}

/// Takes down one argument of a macro.
fn note(argument: &str, span: bool, place: &str, said: &mut Said) {
    let is_name = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_lowercase())
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.')
    };
    let (name, value) = match argument.split_once('=') {
        Some((name, value)) if is_name(name.trim()) => (name.trim(), value),
        _ => (argument.trim_start_matches(['%', '?']), ""),
    };
    if name == "event" && !span {
        let literals = value.split('"').skip(1).step_by(2);
        said.events
            .extend(literals.map(|word| (word.to_owned(), place.to_owned())));
    }
    if is_name(name) && !EVERYWHERE.contains(&name) {
        said.fields
            .entry(name.to_owned())
            .or_insert_with(|| place.to_owned());
    }
}

/// The arguments of a call, up to its end.
fn arguments(text: &str) -> Vec<&str> {
    let (mut found, mut begin, mut depth, mut quoted) = (Vec::new(), 0, 0_u32, false);
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' if quoted => drop(chars.next()),
            '"' => quoted = !quoted,
            _ if quoted => {}
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' if depth > 0 => depth -= 1,
            ',' | ')' if depth == 0 => {
                found.push(&text[begin..at]);
                begin = at + 1;
                if c == ')' {
                    break;
                }
            }
            _ => {}
        }
    }
    found
}
