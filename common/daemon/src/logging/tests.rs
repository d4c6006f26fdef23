use std::io;
use std::sync::{Arc, Mutex};

use tracing::{debug, info, info_span};

use serde_json::{Map, Value};

use super::*;
use crate::common::LogLevel;

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn logged(format: LogFormat, work: impl FnOnce()) -> String {
    logged_to(format, false, work)
}

fn logged_to(format: LogFormat, tells_priority: bool, work: impl FnOnce()) -> String {
    let sink = Sink::default();
    let writer = sink.clone();
    let mut lines = LogLines::new(format, "msa", move || writer.clone());
    lines.tells_priority = tells_priority;
    let filter = filter(&LogConfig::default(), None).unwrap();
    tracing::subscriber::with_default(
        tracing_subscriber::registry().with(filter).with(lines),
        work,
    );
    String::from_utf8(sink.0.lock().unwrap().clone()).unwrap()
}

fn without_time(line: &str) -> &str {
    let (ts, rest) = line.split_once(' ').unwrap();
    assert_timestamp(ts);
    rest
}

/// `2026-01-02T03:04:05.678Z`
fn assert_timestamp(ts: &str) {
    let shape: String = ts
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    assert_eq!(shape, "0000-00-00T00:00:00.000Z");
}

#[test]
fn the_journal_is_told_how_much_a_line_matters() {
    for format in [LogFormat::Text, LogFormat::Json] {
        let out = logged_to(format, true, || {
            tracing::error!(event = "fault");
            tracing::warn!(event = "fault", reason = "<3>");
            info!(event = "ready");
        });
        let begins: Vec<&str> = out.lines().map(|line| &line[..3]).collect();
        assert_eq!(begins, ["<3>", "<4>", "<6>"], "{out}");
    }
    let stderr = rustix::fs::fstat(io::stderr()).unwrap();
    let stream = format!("{}:{}", stderr.st_dev, stderr.st_ino);
    assert!(goes_to_the_journal(Some(&stream)));
    for other in [None, Some("0:0"), Some(""), Some("x")] {
        assert!(!goes_to_the_journal(other), "{other:?}");
    }
}

const HOSTILE: &str = "mx\r\nINFO forged\u{1b}[2J\u{7f}\u{9b}\u{202e}\u{2028}\0\"end\\";

#[test]
fn a_line_of_json_is_one_flat_object_that_nothing_can_break() {
    let out = logged(LogFormat::Json, || {
        let _session = info_span!("session", session_id = "s1", peer = "[::1]:25").entered();
        info!(
            event = "rejected",
            helo = HOSTILE,
            code = 550,
            delay_ms = 7u64,
            peer = "[::2]:25"
        );
    });
    assert!(out.ends_with("}\n"));
    let line = out.trim_end_matches('\n');
    assert!(!line.chars().any(is_hostile), "{line:?}");
    let object: Map<String, Value> = serde_json::from_str(line).unwrap();
    assert_timestamp(object["ts"].as_str().unwrap());
    assert_eq!(object["level"], "INFO");
    assert_eq!(object["agent"], "msa");
    assert_eq!(object["event"], "rejected");
    assert_eq!(object["session_id"], "s1");
    assert_eq!(object["peer"], "[::2]:25");
    assert_eq!(object["helo"], HOSTILE);
    assert_eq!(object["code"], 550);
    assert_eq!(object["delay_ms"], 7);
    assert_eq!(object.len(), 9);
}

#[test]
fn a_name_stands_once_in_an_object() {
    let out = logged(LogFormat::Json, || {
        info!(
            level = "verify",
            ts = 7,
            ratio = 0.5,
            nothing = f64::NAN,
            is_ok = true
        );
    });
    let begin = out.split_inclusive(',').next().unwrap();
    assert!(begin.starts_with("{\"ts\":\"2"), "{out}");
    let rest = out.strip_prefix(begin).unwrap();
    let expected =
        "\"agent\":\"msa\",\"level\":\"verify\",\"ratio\":0.5,\"nothing\":null,\"is_ok\":true}\n";
    assert_eq!(rest, expected);
}

#[test]
fn a_line_of_text_is_one_line_that_nothing_can_break() {
    let out = logged(LogFormat::Text, || {
        let _session = info_span!("session", session_id = "s1").entered();
        info!(
            event = "accepted",
            queue_id = "q",
            helo = HOSTILE,
            reply = "",
            size = 5,
            "it's\nin"
        );
    });
    assert_eq!(
        without_time(&out),
        "INFO msa accepted session_id=s1 queue_id=q \
         helo=\"mx\\r\\nINFO forged\\u{1b}[2J\\u{7f}\\u{9b}\\u{202e}\\u{2028}\\u{0}\\\"end\\\\\" \
         reply=\"\" size=5 it's\\nin\n"
    );
}

#[test]
fn a_span_can_speak_for_another_agent_and_learn_fields_later() {
    let out = logged(LogFormat::Text, || {
        let span = info_span!("mta", agent = "mta", helo = tracing::field::Empty);
        span.record("helo", "mx");
        span.in_scope(|| info!(event = "attempt", code = ?Some(1)));
        info!("plain words");
    });
    let mut lines = out.lines().map(without_time);
    assert_eq!(lines.next(), Some("INFO mta attempt helo=mx code=Some(1)"));
    assert_eq!(lines.next(), Some("INFO msa plain words"));
    assert_eq!(lines.next(), None);
}

#[test]
fn the_level_is_for_our_targets_and_libraries_are_quiet() {
    let out = logged(LogFormat::Text, || {
        debug!("ours, too fine");
        info!("ours");
        info!(target: "h2::proto", "theirs");
        tracing::warn!(target: "h2::proto", "their warning");
        tracing::error!(target: "hickory_net::dnssec", "exceeded max validation depth");
    });
    let lines: Vec<&str> = out.lines().map(without_time).collect();
    assert_eq!(lines, ["INFO msa ours", "WARN msa their warning"]);
    let fine = LogConfig {
        level: LogLevel::Trace,
        ..LogConfig::default()
    };
    assert_eq!(
        filter(&fine, None).unwrap().to_string(),
        "postroad=trace,hickory=off,warn"
    );
    assert!(filter(&fine, Some("postroad=loud")).is_err());
}
