//! The way of a mail as a table: a line per stop, with the milliseconds since the first.

use comfy_table::Cell;
use postroad_envelope::{Event, Timestamp};
use serde_json::{Value, json};

use crate::terminal::{lines, local_clock, number, one_line, table, utc_time};

/// One line.
#[derive(Debug, Clone)]
pub struct Stop {
    /// When.
    pub at: Timestamp,
    /// Who saw it.
    pub who: String,
    /// What happened, in one word.
    pub what: String,
    /// The same in a sentence.
    pub text: String,
}

impl Stop {
    /// `mda` instead of `mda@host`, where there is one host.
    pub fn without_host(mut self) -> Self {
        if let Some(at) = self.who.find('@') {
            self.who.truncate(at);
        }
        self
    }
}

impl From<&Event> for Stop {
    fn from(event: &Event) -> Self {
        Self {
            at: event.at,
            who: event.agent.clone(),
            what: event.kind.as_str().to_owned(),
            text: event.text.clone(),
        }
    }
}

/// The table of a timeline.
pub fn of_events(events: &[Event]) -> String {
    let stops: Vec<Stop> = events.iter().map(Stop::from).collect();
    of_stops(&stops)
}

/// The table of stops in their order.
pub fn of_stops(stops: &[Stop]) -> String {
    let mut rows = table(["TIME", "MS", "WHO", "STOP", ""]);
    let Some(begin) = stops.first().map(|stop| stop.at) else {
        return String::new();
    };
    for stop in stops {
        rows.add_row([
            Cell::new(local_clock(stop.at)),
            number(format!("+{}", stop.at.since(begin).as_millis())),
            Cell::new(one_line(&stop.who, 30)),
            Cell::new(&stop.what),
            Cell::new(one_line(&stop.text, 90)),
        ]);
    }
    lines(&rows)
}

/// An event for `--json`.
pub fn event_json(event: &Event) -> Value {
    json!({
        "queue_id": event.queue_id.to_string(),
        "at": utc_time(event.at),
        "agent": event.agent,
        "event": event.kind.as_str(),
        "recipients": event.recipients.iter().map(|index| index.0).collect::<Vec<_>>(),
        "text": event.text,
        "fields": event.fields,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_milliseconds_since_the_first() {
        let stop = |at, what: &str| Stop {
            at: Timestamp::from_millis(at),
            who: "msa".to_owned(),
            what: what.to_owned(),
            text: "a\nb".to_owned(),
        };
        let told = of_stops(&[
            stop(1_700_000_000_000, "accepted"),
            stop(1_700_000_000_012, "leased"),
        ]);
        let rows: Vec<Vec<&str>> = told
            .lines()
            .map(|line| line.split_whitespace().skip(1).collect())
            .collect();
        assert_eq!(rows[1], ["+0", "msa", "accepted", "a", "b"]);
        assert_eq!(rows[2], ["+12", "msa", "leased", "a", "b"]);
    }
}
