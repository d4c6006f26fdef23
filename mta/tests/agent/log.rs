//! What is logged stands on the closed list of events and fields.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex};

use postroad_daemon::{LogFormat, LogLines, events};
use tracing_subscriber::layer::SubscriberExt as _;

use crate::host::{Host, Script, StartTls};
use crate::outbound;

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn an_attempt_is_logged_for_each_recipient_in_listed_words() {
    let lines = Lines::default();
    let writer = lines.clone();
    let layer = LogLines::new(LogFormat::Json, "mta", move || writer.clone());
    // With one subscriber alone, tracing asks the thread that comes first by a line whether anybody wants it, and that may be
    // another test's: then nobody ever does. With two it asks both of them.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    // This test's tasks all run on this thread.
    let guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));
    let host = Host::start(Script {
        ehlo: Some(vec!["STARTTLS"]),
        starttls: StartTls::Breaks,
        rcpt: vec![("never", "550 5.1.1 no\u{7} such user")],
        ..Script::default()
    })
    .await;
    outbound::send(&host, &["bob", "never"]).await;
    drop(guard);

    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let known: BTreeSet<&str> = events::FIELDS.iter().map(|(name, _)| *name).collect();
    let mut seen = Vec::new();
    for line in text.lines() {
        let line: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line).unwrap();
        let own = |name: &str| !["ts", "level", "agent", "event", "message"].contains(&name);
        for field in line.keys().filter(|name| own(name)) {
            assert!(known.contains(field.as_str()), "{field} is not listed");
        }
        if line["level"] == "INFO" {
            let event = line["event"].as_str().expect("an INFO line has its event");
            assert!(
                events::EVENTS.iter().any(|(name, _)| *name == event),
                "{event} is not listed"
            );
            seen.push(format!(
                "{event} {} {}",
                line.get("rcpt_to").unwrap_or(&"".into()),
                line.get("code").unwrap_or(&0.into())
            ));
        }
    }
    let expected = [
        "queue_connected \"\" 0",
        "tls_failed \"\" 0",
        "attempt \"bob@example.test\" 250",
        "attempt \"never@example.test\" 550",
    ];
    assert_eq!(seen, expected, "{text}");
}
