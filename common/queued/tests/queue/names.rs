//! What is logged is what the house's lists say.

use std::path::Path;

use postroad_daemon::events::{EVENTS, FIELDS};

fn sources(folder: &Path, texts: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, texts);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            // Whoever edits them leaves other files beside them.
            texts.push(std::fs::read_to_string(path).unwrap());
        }
    }
}

/// The words that stand between `before` and `after` anywhere in the sources.
fn between<'a>(texts: &'a [String], before: &str, after: &str) -> Vec<&'a str> {
    let mut found = Vec::new();
    for text in texts {
        for rest in text.split(before).skip(1) {
            found.extend(rest.split_once(after).map(|(word, _)| word));
        }
    }
    found
}

#[test]
fn events_are_those_of_the_list() {
    let mut texts = Vec::new();
    sources(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        &mut texts,
    );
    let events = between(&texts, "event = \"", "\"");
    assert!(events.len() > 20, "{events:?}");
    for event in events {
        assert!(
            EVENTS.iter().any(|(known, _)| *known == event),
            "{event} is not in the list"
        );
    }
    for field in [
        "worker",
        "report",
        "by",
        "queue_id",
        "retry_at",
        "destination",
        "enhanced",
    ] {
        assert!(
            FIELDS.iter().any(|(known, _)| *known == field),
            "{field} is not in the list"
        );
    }
}
