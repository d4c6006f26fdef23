//! How many recipients an account may write to in an hour and in a day.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use postroad_address::Mailbox;
use postroad_counters::{Count, Full, Key, Kind, Limit, Rule};
use postroad_envelope::{Recipient, Timestamp};
use postroad_metrics::Counter;
use postroad_reply::{
    LIMIT_REACHED_4_7_1, MAILBOX_BUSY_450, MAILBOX_UNAVAILABLE_550, NOT_AUTHORIZED_5_7_1, Reply,
};
use serde::{Deserialize, Serialize};

use crate::together::Together;
use crate::words::in_words;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// `[msa.sending]`: 0 is no limit. What is counted are recipients as the client named them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SendingConfig {
    /// Recipients of each account in any hour.
    pub recipients_per_hour: u64,
    /// Recipients of each account in any day.
    pub recipients_per_day: u64,
    /// Accounts with limits of their own.
    pub accounts: Vec<NamedLimit>,
}

/// `[[msa.sending.accounts]]`. What is not given is as for all others.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedLimit {
    /// The account's address.
    pub name: String,
    /// Recipients in any hour; 0: any number.
    #[serde(default)]
    pub recipients_per_hour: Option<u64>,
    /// Recipients in any day; 0: any number.
    #[serde(default)]
    pub recipients_per_day: Option<u64>,
}

/// Recipients in an hour and a day; 0: any number.
type Terms = (u64, u64);

impl SendingConfig {
    /// Limits by account, and what cannot be followed of them.
    pub(crate) fn named(&self) -> Result<HashMap<String, Terms>, String> {
        let mut named = HashMap::new();
        for one in &self.accounts {
            let name = &one.name;
            let account = Mailbox::parse(name);
            let account = account.map_err(|_| format!("{name:?} is no account"))?;
            if one.recipients_per_hour.is_none() && one.recipients_per_day.is_none() {
                return Err(format!("{name:?} has no limit of its own"));
            }
            let terms = (
                one.recipients_per_hour.unwrap_or(self.recipients_per_hour),
                one.recipients_per_day.unwrap_or(self.recipients_per_day),
            );
            if named.insert(account.folded(), terms).is_some() {
                return Err(format!("{name:?} is there twice"));
            }
        }
        Ok(named)
    }
}

/// Sending limits, counted by all copies together.
pub struct Sending {
    together: Arc<Together>,
    refused: Counter,
    of_all: Terms,
    named: HashMap<String, Terms>,
}

impl Sending {
    /// By a configuration that was checked.
    pub fn new(together: Arc<Together>, refused: Counter, config: &SendingConfig) -> Self {
        Self {
            together,
            refused,
            of_all: (config.recipients_per_hour, config.recipients_per_day),
            named: config.named().unwrap_or_default(),
        }
    }

    /// Counts a mail's recipients if there is room for all of them; else says when there will be.
    pub async fn send(&self, account: &str, recipients: &[Recipient]) -> Result<(), Reply> {
        let limits = self.limits(account);
        let Ok(key) = Key::new(Kind::Sent, account) else {
            return Ok(());
        };
        if limits.is_empty() {
            return Ok(());
        }
        let add = named_by_client(recipients);
        let rule = Rule::Within(limits);
        let counted = self.together.count(&Count { key, add, rule }).await;
        match counted.full {
            None => Ok(()),
            Some(full) => {
                self.refused.count();
                Err(refusal(account, add, &full, SystemTime::now().into()))
            }
        }
    }

    fn limits(&self, account: &str) -> Vec<Limit> {
        let named = || {
            let account = Mailbox::parse(account).ok()?;
            self.named.get(&account.folded()).copied()
        };
        let (hour, day) = match self.named.is_empty() {
            true => self.of_all,
            false => named().unwrap_or(self.of_all),
        };
        let limits = [(HOUR, hour), (DAY, day)].into_iter();
        let limits = limits.filter(|(_, most)| *most > 0);
        limits
            .map(|(window, most)| Limit { window, most })
            .collect()
    }
}

/// What an alias stands for is one, as the client wrote it.
fn named_by_client(recipients: &[Recipient]) -> u64 {
    let named: HashSet<String> = recipients
        .iter()
        .map(|recipient| recipient.original.as_ref().unwrap_or(&recipient.address))
        .map(Mailbox::folded)
        .collect();
    u64::try_from(named.len()).unwrap_or(u64::MAX)
}

fn refusal(account: &str, add: u64, full: &Full, now: Timestamp) -> Reply {
    let (time, most) = (span(full.limit.window), full.limit.most);
    match full.until {
        Some(until) => {
            let text = format!(
                "{account} has written to {} of {most} recipients in {time}, and this mail has {add}; try again in {}",
                full.value,
                in_words(until.since(now))
            );
            Reply::new(MAILBOX_BUSY_450, LIMIT_REACHED_4_7_1, text)
        }
        None => {
            let text = format!(
                "{account} may write to {most} recipients in {time}, and this mail has {add}; send it to fewer at one time"
            );
            Reply::new(MAILBOX_UNAVAILABLE_550, NOT_AUTHORIZED_5_7_1, text)
        }
    }
}

fn span(window: Duration) -> &'static str {
    match window {
        HOUR => "an hour",
        _ => "a day",
    }
}

#[cfg(test)]
mod tests {
    use postroad_envelope::RecipientIndex;

    use super::*;

    fn recipient(address: &str, original: Option<&str>) -> Recipient {
        Recipient {
            original: original.map(|original| original.parse().unwrap()),
            ..Recipient::new(RecipientIndex(0), address.parse().unwrap())
        }
    }

    #[test]
    fn an_alias_is_one_recipient() {
        let recipients = [
            recipient("a@far.test", None),
            recipient("b@demo.test", Some("team@demo.test")),
            recipient("c@demo.test", Some("Team@demo.test")),
            recipient("d@demo.test", Some("d+list@demo.test")),
        ];
        assert_eq!(named_by_client(&recipients), 3);
    }

    #[test]
    fn a_person_learns_which_limit_and_when_there_is_room() {
        let now = Timestamp::from_millis(1_700_000_000_000);
        let full = |until| Full {
            limit: Limit {
                window: DAY,
                most: 10,
            },
            value: 9,
            until,
        };
        let reply = |add, until| refusal("alice@demo.test", add, &full(until), now).to_string();
        let soon = now.plus(Duration::from_secs(601));
        assert_eq!(
            reply(2, Some(soon)),
            "450 4.7.1 alice@demo.test has written to 9 of 10 recipients in a day, and this mail has 2; try again in 11 minutes"
        );
        assert_eq!(
            reply(11, None),
            "550 5.7.1 alice@demo.test may write to 10 recipients in a day, and this mail has 11; send it to fewer at one time"
        );
    }

    #[test]
    fn limits_that_mean_nobody_are_refused() {
        let named = |name: &str, hour, day| NamedLimit {
            name: name.to_owned(),
            recipients_per_hour: hour,
            recipients_per_day: day,
        };
        let of = |accounts| SendingConfig {
            recipients_per_hour: 5,
            accounts,
            ..SendingConfig::default()
        };
        let good = of(vec![named("Bulk@demo.test", None, Some(9))]);
        assert_eq!(good.named().unwrap()["bulk@demo.test"], (5, 9));
        for (accounts, says) in [
            (vec![named("bulk", Some(1), None)], "no account"),
            (vec![named("bulk@demo.test", None, None)], "no limit"),
            (
                vec![
                    named("a@demo.test", Some(1), None),
                    named("A@demo.test", Some(2), None),
                ],
                "twice",
            ),
        ] {
            let problem = of(accounts).named().unwrap_err();
            assert!(problem.contains(says), "{problem}");
        }
    }
}
