//! What agents count together, and whom they ban.

use clap::{Args, ValueEnum};
use comfy_table::Cell;
use ipnet::IpNet;
use postroad_counters::{Ban, Counter, Key, Kind};
use postroad_queue_client::{CountersQuery, QueueAdmin};
use serde_json::{Value, json};

use crate::fault::Fault;
use crate::terminal::{Terminal, lines, local_time, number, one_line, table, utc_time};

/// What is counted, as it is typed.
#[derive(Debug, Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum KindArgument {
    /// Failed log-ins, by network
    AuthFailed,
    /// Failed log-ins, by the name that was tried
    Guessed,
    /// Log-ins, by account and network
    Home,
    /// Recipients of mail, by account
    Sent,
    /// Mails, by account
    SentMails,
    /// Octets of mail, by account
    SentBytes,
    /// What clients at port 25 should not have done, by network
    Client,
}

impl From<KindArgument> for Kind {
    fn from(kind: KindArgument) -> Self {
        match kind {
            KindArgument::AuthFailed => Self::AuthFailed,
            KindArgument::Guessed => Self::Guessed,
            KindArgument::Home => Self::Home,
            KindArgument::Sent => Self::Sent,
            KindArgument::SentMails => Self::SentMails,
            KindArgument::SentBytes => Self::SentBytes,
            KindArgument::Client => Self::Client,
        }
    }
}

/// What to show.
#[derive(Debug, Args)]
pub struct CountersArguments {
    /// Only of this kind
    kind: Option<KindArgument>,
    /// Most lines; the highest counters and the newest bans come first
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
}

impl CountersArguments {
    fn query(&self, bans: bool) -> CountersQuery {
        CountersQuery {
            kind: self.kind.map(Into::into),
            bans,
            limit: self.limit,
        }
    }
}

/// Which bans to lift.
#[derive(Debug, Args)]
pub struct UnbanArguments {
    /// Networks or addresses: every ban that covers one, or lies in one, is lifted. Or names that log-ins were tried by
    #[arg(required = true, value_name = "NETWORK|NAME", value_parser = banned)]
    whom: Vec<Banned>,
}

/// Of whom a ban is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Banned {
    Network(IpNet),
    Name(Key),
}

/// `postroad queue counters`.
pub async fn counters(
    admin: &dyn QueueAdmin,
    arguments: &CountersArguments,
    terminal: &mut Terminal<'_>,
) -> Result<(), Fault> {
    let list = admin.counters(arguments.query(false)).await?;
    if terminal.wants_json() {
        let counters: Vec<Value> = list.counters.iter().map(counter_json).collect();
        terminal.object(json!({ "counters": counters, "total": list.total }));
        return Ok(());
    }
    if list.counters.is_empty() {
        terminal.say("nothing is counted at the moment");
        return Ok(());
    }
    let mut rows = table(["KIND", "OF", "COUNT", "WITHIN"]);
    for counter in &list.counters {
        rows.add_row([
            Cell::new(counter.key.kind()),
            Cell::new(one_line(counter.key.subject(), 60)),
            number(counter.value),
            Cell::new(span(counter.window.as_secs())),
        ]);
    }
    terminal.line(lines(&rows));
    more(list.total, list.counters.len(), terminal);
    Ok(())
}

/// `postroad queue bans`.
pub async fn bans(
    admin: &dyn QueueAdmin,
    arguments: &CountersArguments,
    terminal: &mut Terminal<'_>,
) -> Result<(), Fault> {
    let list = admin.counters(arguments.query(true)).await?;
    if terminal.wants_json() {
        let bans: Vec<Value> = list.bans.iter().map(ban_json).collect();
        terminal.object(json!({ "bans": bans, "total": list.total }));
        return Ok(());
    }
    if list.bans.is_empty() {
        terminal.say("nobody is banned");
        return Ok(());
    }
    let mut rows = table(["KIND", "OF", "COUNT", "SINCE", "UNTIL"]);
    for ban in &list.bans {
        rows.add_row([
            Cell::new(ban.key.kind()),
            Cell::new(one_line(ban.key.subject(), 60)),
            number(ban.value),
            Cell::new(local_time(ban.since)),
            Cell::new(local_time(ban.until)),
        ]);
    }
    terminal.line(lines(&rows));
    more(list.total, list.bans.len(), terminal);
    Ok(())
}

/// `postroad queue unban`.
pub async fn unban(
    admin: &dyn QueueAdmin,
    arguments: &UnbanArguments,
    terminal: &mut Terminal<'_>,
) -> Result<(), Fault> {
    let query = CountersQuery {
        kind: None,
        bans: true,
        limit: 10_000,
    };
    let bans = admin.counters(query).await?.bans;
    let wanted = |key: &Key| arguments.whom.iter().any(|one| touches(key, one));
    let keys: Vec<Key> = bans.into_iter().map(|ban| ban.key).filter(wanted).collect();
    if keys.is_empty() {
        return Err(Fault::NoMatch("there is no such ban".to_owned()));
    }
    clear(admin, keys, "bans", terminal).await
}

/// `postroad queue clear-counter`.
pub async fn clear_counters(
    admin: &dyn QueueAdmin,
    keys: Vec<Key>,
    terminal: &mut Terminal<'_>,
) -> Result<(), Fault> {
    clear(admin, keys, "counters", terminal).await
}

async fn clear(
    admin: &dyn QueueAdmin,
    keys: Vec<Key>,
    what: &str,
    terminal: &mut Terminal<'_>,
) -> Result<(), Fault> {
    let mut cleared = 0;
    for keys in keys.chunks(1_000) {
        cleared += admin.clear_counters(keys.to_vec(), "").await?;
    }
    if cleared == 0 {
        return Err(Fault::NoMatch("there is nothing to clear".to_owned()));
    }
    let told: Vec<_> = keys.iter().map(ToString::to_string).collect();
    match terminal.wants_json() {
        true => terminal.object(json!({ "cleared": cleared, "keys": told })),
        false => terminal.line(format_args!("{what} cleared: {}", told.join(", "))),
    }
    Ok(())
}

/// Whether the ban is of this name, or of a network that covers this one, or lies in it.
fn touches(key: &Key, whom: &Banned) -> bool {
    match whom {
        Banned::Name(name) => key == name,
        Banned::Network(network) => {
            let banned = key.subject().parse::<IpNet>();
            banned.is_ok_and(|banned| banned.contains(network) || network.contains(&banned))
        }
    }
}

fn banned(text: &str) -> Result<Banned, String> {
    if let Ok(name) = Key::new(Kind::Guessed, text) {
        return Ok(Banned::Name(name));
    }
    let key = Key::new(Kind::AuthFailed, text).ok();
    let network = key.and_then(|key| key.subject().parse().ok());
    let network = network.map(Banned::Network);
    network.ok_or_else(|| "is no network, and no address of an account".to_owned())
}

fn more(total: u64, shown: usize, terminal: &mut Terminal<'_>) {
    let left = total.saturating_sub(u64::try_from(shown).unwrap_or(u64::MAX));
    if left > 0 {
        terminal.say(format_args!("{left} more; see --limit"));
    }
}

/// `10m`, `1h`, `1d`: as the configuration says it.
fn span(seconds: u64) -> String {
    for (unit, name) in [(86_400, "d"), (3_600, "h"), (60, "m")] {
        if seconds >= unit && seconds.is_multiple_of(unit) {
            return format!("{}{name}", seconds / unit);
        }
    }
    format!("{seconds}s")
}

fn counter_json(counter: &Counter) -> Value {
    json!({
        "key": counter.key.to_string(),
        "kind": counter.key.kind().as_str(),
        "of": counter.key.subject(),
        "count": counter.value,
        "window_s": counter.window.as_secs(),
    })
}

fn ban_json(ban: &Ban) -> Value {
    json!({
        "key": ban.key.to_string(),
        "kind": ban.key.kind().as_str(),
        "of": ban.key.subject(),
        "count": ban.value,
        "since": utc_time(ban.since),
        "until": utc_time(ban.until),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ban_is_found_by_an_address_in_it_and_by_a_network_around_it() {
        let key: Key = "auth_failed/2001:db8::/64".parse().unwrap();
        for (text, fits) in [
            ("2001:db8::5", true),
            ("2001:db8::/64", true),
            ("2001:db8::/32", true),
            ("2001:db8:0:1::5", false),
            ("192.0.2.7", false),
        ] {
            assert_eq!(touches(&key, &banned(text).unwrap()), fits, "{text}");
        }
        assert!(banned("example.org").is_err());
        let name: Key = "guessed/alice@demo.test".parse().unwrap();
        assert!(touches(&name, &banned("Alice@demo.test").unwrap()));
        assert!(!touches(&name, &banned("bob@demo.test").unwrap()));
        let account: Key = "sent/alice@demo.test".parse().unwrap();
        assert!(!touches(&account, &banned("::/0").unwrap()));
    }

    #[test]
    fn windows_are_told_as_the_configuration_says_them() {
        for (seconds, told) in [(600, "10m"), (3_600, "1h"), (86_400, "1d"), (90, "90s")] {
            assert_eq!(span(seconds), told);
        }
    }
}
