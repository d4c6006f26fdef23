//! Times and lifetimes.

use super::Work;
use crate::output::quoted;

const DAY: u64 = 86_400;
const HOUR: u64 = 3_600;
const MINUTE: u64 = 60;

impl Work<'_> {
    pub(super) fn times(&mut self) {
        let retry = [
            ("minimal_backoff_time", "first", 1),
            ("maximal_backoff_time", "max", 1),
            ("maximal_queue_lifetime", "give_up_after", DAY),
        ];
        for (name, key, unit) in retry {
            self.time(name, "queued.retry", key, unit);
        }
        // One lifetime holds for reports too.
        let both = ["maximal_queue_lifetime", "bounce_queue_lifetime"]
            .map(|name| seconds(&self.values.value(name), DAY));
        match both {
            [mail, report] if mail == report || report.is_none() => {
                self.needless(
                    "bounce_queue_lifetime",
                    "reports live as long as other mail",
                );
            }
            _ => self.lost(
                "bounce_queue_lifetime",
                "reports live as long as other mail: queued.retry.give_up_after holds for both",
            ),
        }
        let steps = [
            ("smtp_connect_timeout", "connect"),
            ("smtp_starttls_timeout", "tls"),
            ("smtp_helo_timeout", "greeting"),
            ("smtp_mail_timeout", "command"),
            ("smtp_rcpt_timeout", "command"),
            ("smtp_data_init_timeout", "data"),
            ("smtp_data_xfer_timeout", "block"),
            ("smtp_data_done_timeout", "end"),
            ("smtp_quit_timeout", "quit"),
        ];
        for (name, key) in steps {
            self.time(name, "mta.outbound.timeouts", key, 1);
        }
    }

    fn time(&mut self, name: &str, section: &str, key: &str, unit: u64) {
        if !self.is_set(name) {
            return;
        }
        let value = self.values.value(name);
        match seconds(&value, unit) {
            Some(0) if name == "maximal_queue_lifetime" => self.lost(
                name,
                "mail is tried more than once: queued.retry.give_up_after stays as built in",
            ),
            Some(0) => self.needless(
                name,
                "a limit of zero has no meaning here: it stays as built in",
            ),
            Some(seconds) => {
                let from = self.from(name);
                let shown = quoted(&shown(seconds));
                self.config.set(section, key, shown.clone(), &from);
                self.became(name, format!("{section}.{key} = {shown}"));
            }
            None => self.lost(
                name,
                format!("{value} is no time: write {section}.{key} yourself"),
            ),
        }
    }
}

/// postconf(5): a number, and a unit if it is not the parameter's own.
pub(super) fn seconds(text: &str, unit: u64) -> Option<u64> {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, given) = text.split_at(end);
    let unit = match given.trim().to_ascii_lowercase().as_str() {
        "" => unit,
        "s" => 1,
        "m" => MINUTE,
        "h" => HOUR,
        "d" => DAY,
        "w" => 7 * DAY,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

fn shown(seconds: u64) -> String {
    let units = [(DAY, "d"), (HOUR, "h"), (MINUTE, "m")];
    let whole = units
        .into_iter()
        .find(|(unit, _)| seconds.is_multiple_of(*unit));
    match whole {
        Some((unit, name)) => format!("{}{name}", seconds / unit),
        None => format!("{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_keep_their_meaning() {
        assert_eq!(seconds("5", DAY), Some(432_000));
        assert_eq!(seconds("1w", DAY), Some(604_800));
        assert_eq!(seconds("30s", DAY), Some(30));
        assert_eq!(seconds("x", 1), None);
        let all = [(604_800, "7d"), (5_400, "90m"), (3_600, "1h"), (61, "61s")];
        for (seconds, text) in all {
            assert_eq!(shown(seconds), text);
        }
    }
}
