//! What the queue was at while mails were submitted, as its log tells.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Seek as _, SeekFrom},
    path::Path,
    time::Duration,
};

use anyhow::{Result, ensure};
use postroad_envelope::Timestamp;
use serde_json::{Value, json};

use crate::{
    figures::table,
    mails::{Submitted, latencies, percentile_ms},
};

/// The events that end a piece of upkeep, and what they are called here.
const WORK: [(&str, &str); 3] = [
    ("checkpoint", "checkpoint"),
    ("reclaimed", "reclaim"),
    ("index_renewed", "renewal"),
];

/// A piece of upkeep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    name: &'static str,
    began: Timestamp,
    ended: Timestamp,
}

/// What a log tells from this octet on.
pub fn read(log: &Path, from: u64) -> Result<Vec<Done>> {
    let mut log = File::open(log)?;
    log.seek(SeekFrom::Start(from))?;
    let mut done = Vec::new();
    for line in BufReader::new(log).lines() {
        done.extend(parse(&line?));
    }
    ensure!(!done.is_empty(), "the log tells of no upkeep");
    Ok(done)
}

/// A line of JSON.
fn parse(line: &str) -> Option<Done> {
    // Most lines tell of mails, and need not be read.
    let upkeep = line.contains("duration_ms").then_some(line)?;
    let line: Value = serde_json::from_str(upkeep).ok()?;
    let event = line["event"].as_str()?;
    let (_, name) = WORK.into_iter().find(|(known, _)| *known == event)?;
    let ended: Timestamp = line["ts"].as_str()?.parse().ok()?;
    let began = ended
        .as_millis()
        .checked_sub(line["duration_ms"].as_u64()?)?;
    Some(Done {
        name,
        began: Timestamp::from_millis(began),
        ended,
    })
}

impl Done {
    fn overlaps(&self, submitted: &Submitted) -> bool {
        self.began <= submitted.began.plus(submitted.took) && submitted.began <= self.ended
    }
}

/// How long submissions took that met with upkeep of each kind, and with none. One may have met with several kinds.
pub fn report(submitted: &[Submitted], done: &[Done]) -> (String, Value) {
    let meets = |name: &'static str| {
        let done: Vec<&Done> = done.iter().filter(|done| done.name == name).collect();
        let met = move |one: &&Submitted| done.iter().any(|done| done.overlaps(one));
        submitted.iter().filter(met)
    };
    let idle = |one: &&Submitted| !done.iter().any(|done| done.overlaps(one));
    let mut kinds = vec![("all", latencies(submitted), None)];
    kinds.push(("nothing", latencies(submitted.iter().filter(idle)), None));
    for (_, name) in WORK {
        let spans = done.iter().filter(|done| done.name == name);
        let mut spans: Vec<Duration> = spans.map(|done| done.ended.since(done.began)).collect();
        spans.sort_unstable();
        kinds.push((name, latencies(meets(name)), Some(spans)));
    }
    let head = [
        "at",
        "times",
        "median ms",
        "longest ms",
        "submits",
        "submit ms",
        "p99 ms",
        "longest ms",
    ];
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    let mut results = Vec::new();
    let longest = |times: &[Duration]| times.last().map_or(0.0, Duration::as_secs_f64) * 1000.0;
    for (name, times, spans) in kinds {
        let (median, p99) = (percentile_ms(&times, 50), percentile_ms(&times, 99));
        let of_spans =
            |text: fn(&[Duration]) -> String| spans.as_deref().map_or_else(String::new, text);
        lines.push(vec![
            name.to_owned(),
            of_spans(|spans| spans.len().to_string()),
            of_spans(|spans| format!("{:.0}", percentile_ms(spans, 50))),
            of_spans(|spans| {
                format!(
                    "{:.0}",
                    spans.last().map_or(0.0, Duration::as_secs_f64) * 1000.0
                )
            }),
            times.len().to_string(),
            format!("{median:.1}"),
            format!("{p99:.1}"),
            format!("{:.1}", longest(&times)),
        ]);
        results.push(json!({ "at": name, "times": spans.as_ref().map(Vec::len), "submits": times.len(), "median_ms": median,
            "p99_ms": p99, "longest_ms": longest(&times) }));
    }
    (table(&lines), json!(results))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"agent":"queued","duration_ms":78,"event":"reclaimed","segment":"0000000001","ts":"2026-01-02T03:04:05.678Z"}"#;

    #[test]
    fn a_line_of_the_log_tells_when_it_began() {
        let done = parse(LINE).unwrap();
        assert_eq!(done.name, "reclaim");
        assert_eq!(done.began.to_string(), "2026-01-02T03:04:05.600Z");
        assert_eq!(done.ended.to_string(), "2026-01-02T03:04:05.678Z");
        assert_eq!(parse(&LINE.replace("reclaimed", "submitted")), None);
        assert_eq!(parse("an empty line"), None);
    }

    #[test]
    fn submissions_are_told_apart_by_what_they_met_with() {
        let done = parse(LINE).unwrap();
        let at = |began: &str, took| Submitted {
            began: began.parse().unwrap(),
            took: Duration::from_millis(took),
        };
        let submitted = [
            at("2026-01-02T03:04:05.500Z", 99),
            at("2026-01-02T03:04:05.501Z", 100),
            at("2026-01-02T03:04:05.678Z", 1),
            at("2026-01-02T03:04:05.679Z", 1),
        ];
        let (_, results) = report(&submitted, &[done]);
        let count = |name: &str| {
            let all = results.as_array().unwrap();
            let one = all.iter().find(|one| one["at"] == name).unwrap();
            one["submits"].as_u64().unwrap()
        };
        assert_eq!(
            ["all", "nothing", "reclaim", "checkpoint"].map(count),
            [4, 2, 2, 0]
        );
    }
}
