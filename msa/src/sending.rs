//! How much an account may send in an hour and in a day: mails, recipients, octets.
//!
//! Before content comes it is asked whether there is room; what was taken is counted, right before it is committed.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use postroad_address::Mailbox;
use postroad_counters::{Count, Full, Key, Kind, Limit, Rule};
use postroad_daemon::ByteSize;
use postroad_envelope::{Recipient, Timestamp};
use postroad_metrics::Counter;
use postroad_reply::{
    EXCEEDED_STORAGE_552, LIMIT_REACHED_4_7_1, MAILBOX_BUSY_450, MAILBOX_UNAVAILABLE_550,
    NOT_AUTHORIZED_5_7_1, Reply, TOO_LARGE_5_3_4,
};
use serde::{Deserialize, Serialize};

use crate::together::Together;
use crate::words::{in_words, octets};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// `[msa.sending]`: 0 is no limit. Recipients are counted as the client named them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SendingConfig {
    /// Mails of each account in any hour.
    pub mails_per_hour: u64,
    /// Mails of each account in any day.
    pub mails_per_day: u64,
    /// Recipients of each account in any hour.
    pub recipients_per_hour: u64,
    /// Recipients of each account in any day.
    pub recipients_per_day: u64,
    /// Octets of content of each account in any hour.
    pub bytes_per_hour: ByteSize,
    /// Octets of content of each account in any day.
    pub bytes_per_day: ByteSize,
    /// Accounts with limits of their own.
    pub accounts: Vec<NamedLimit>,
}

/// `[[msa.sending.accounts]]`. What is not given is as for all others; 0: any number.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedLimit {
    /// The account's address.
    pub name: String,
    /// Mails in any hour.
    #[serde(default)]
    pub mails_per_hour: Option<u64>,
    /// Mails in any day.
    #[serde(default)]
    pub mails_per_day: Option<u64>,
    /// Recipients in any hour.
    #[serde(default)]
    pub recipients_per_hour: Option<u64>,
    /// Recipients in any day.
    #[serde(default)]
    pub recipients_per_day: Option<u64>,
    /// Octets in any hour.
    #[serde(default)]
    pub bytes_per_hour: Option<ByteSize>,
    /// Octets in any day.
    #[serde(default)]
    pub bytes_per_day: Option<ByteSize>,
    /// Octets of one mail, in place of `msa.size_limit`.
    #[serde(default)]
    pub size_limit: Option<ByteSize>,
}

/// Most of one kind in an hour and a day; 0: any number.
type Terms = (u64, u64);

/// What an account may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Allowance {
    mails: Terms,
    recipients: Terms,
    bytes: Terms,
    size_limit: Option<u64>,
}

impl SendingConfig {
    fn of_all(&self) -> Allowance {
        Allowance {
            mails: (self.mails_per_hour, self.mails_per_day),
            recipients: (self.recipients_per_hour, self.recipients_per_day),
            bytes: (self.bytes_per_hour.as_u64(), self.bytes_per_day.as_u64()),
            size_limit: None,
        }
    }

    /// Limits by account, and what cannot be followed of them.
    pub(crate) fn named(&self) -> Result<HashMap<String, Allowance>, String> {
        let mut named = HashMap::new();
        for one in &self.accounts {
            let name = &one.name;
            let account = Mailbox::parse(name);
            let account = account.map_err(|_| format!("{name:?} is no account"))?;
            let Some(own) = one.within(self.of_all()) else {
                return Err(format!("{name:?} has no limit of its own"));
            };
            if own.size_limit == Some(0) {
                return Err(format!("{name:?} could send no mail at all"));
            }
            if named.insert(account.folded(), own).is_some() {
                return Err(format!("{name:?} is there twice"));
            }
        }
        Ok(named)
    }
}

impl NamedLimit {
    /// What it says, and what is said of all; none: it says nothing.
    fn within(&self, all: Allowance) -> Option<Allowance> {
        let bytes = |limit: Option<ByteSize>| limit.map(ByteSize::as_u64);
        let own = |said: (Option<u64>, Option<u64>), all: Terms| {
            (said.0.unwrap_or(all.0), said.1.unwrap_or(all.1))
        };
        let mails = (self.mails_per_hour, self.mails_per_day);
        let recipients = (self.recipients_per_hour, self.recipients_per_day);
        let octets = (bytes(self.bytes_per_hour), bytes(self.bytes_per_day));
        let said = [mails, recipients, octets];
        let says_something =
            self.size_limit.is_some() || said.iter().any(|(hour, day)| hour.or(*day).is_some());
        says_something.then(|| Allowance {
            mails: own(mails, all.mails),
            recipients: own(recipients, all.recipients),
            bytes: own(octets, all.bytes),
            size_limit: bytes(self.size_limit),
        })
    }
}

/// Sending limits, counted by all copies together.
pub struct Sending {
    together: Arc<Together>,
    refused: Counter,
    of_all: Allowance,
    named: HashMap<String, Allowance>,
}

impl Sending {
    /// By a configuration that was checked.
    pub fn new(together: Arc<Together>, refused: Counter, config: &SendingConfig) -> Self {
        Self {
            together,
            refused,
            of_all: config.of_all(),
            named: config.named().unwrap_or_default(),
        }
    }

    /// Octets of the largest mail of this account, if that is special about it.
    pub fn size_limit(&self, account: &str) -> Option<u64> {
        self.allowance(account).size_limit
    }

    /// Whether a mail is not larger than this account's may be.
    ///
    /// # Errors
    ///
    /// 552 5.3.4.
    pub fn fits(&self, account: &str, size: u64) -> Result<(), Reply> {
        match self.size_limit(account) {
            Some(most) if size > most => {
                let (size, most) = (octets(size), octets(most));
                let text = format!("mails of {account} may have {most}, and this one has {size}");
                Err(Reply::new(EXCEEDED_STORAGE_552, TOO_LARGE_5_3_4, text))
            }
            _ => Ok(()),
        }
    }

    /// Whether there is room for a mail to these recipients, of so many octets as far as was announced; else says when there will
    /// be. Counts nothing: the mail may yet come to nothing.
    pub async fn ask(
        &self,
        account: &str,
        recipients: &[Recipient],
        announced: Option<u64>,
    ) -> Result<(), Reply> {
        let mail = self.amounts(account, recipients, announced.unwrap_or(0));
        let [a, b, c] = mail.map(|amount| self.room(account, amount));
        let (a, b, c) = tokio::join!(a, b, c);
        a.and(b).and(c)
    }

    /// Counts a mail that is there, if there is room for it.
    pub async fn count(
        &self,
        account: &str,
        recipients: &[Recipient],
        size: u64,
    ) -> Result<(), Reply> {
        self.fits(account, size)?;
        for amount in self.amounts(account, recipients, size) {
            let limits = amount.limits(0);
            self.tell(account, &amount, amount.add, limits).await?;
        }
        Ok(())
    }

    async fn room(&self, account: &str, amount: Amount) -> Result<(), Reply> {
        let limits = amount.limits(amount.add);
        // More than a limit is never taken, so nobody need be asked.
        let never = amount
            .limits(0)
            .into_iter()
            .find(|limit| limit.most < amount.add);
        if let Some(limit) = never {
            self.refused.count();
            let full = Full {
                limit,
                value: 0,
                until: None,
            };
            return Err(refusal(account, &amount, &full, SystemTime::now().into()));
        }
        self.tell(account, &amount, 0, limits).await
    }

    async fn tell(
        &self,
        account: &str,
        amount: &Amount,
        add: u64,
        limits: Vec<Limit>,
    ) -> Result<(), Reply> {
        let Ok(key) = Key::new(amount.kind, account) else {
            return Ok(());
        };
        if limits.is_empty() {
            return Ok(());
        }
        let rule = Rule::Within(limits);
        let counted = self.together.count(&Count { key, add, rule }).await;
        match counted.full {
            None => Ok(()),
            Some(full) => {
                self.refused.count();
                Err(refusal(account, amount, &full, SystemTime::now().into()))
            }
        }
    }

    /// What a mail takes of each kind, the one that may be more than was announced first.
    fn amounts(&self, account: &str, recipients: &[Recipient], size: u64) -> [Amount; 3] {
        let terms = self.allowance(account);
        let amount = |kind, add, most| Amount { kind, add, most };
        [
            amount(Kind::SentBytes, size, terms.bytes),
            amount(Kind::Sent, named_by_client(recipients), terms.recipients),
            amount(Kind::SentMails, 1, terms.mails),
        ]
    }

    fn allowance(&self, account: &str) -> Allowance {
        if self.named.is_empty() {
            return self.of_all;
        }
        let named = Mailbox::parse(account).ok();
        let named = named.and_then(|account| self.named.get(&account.folded()));
        named.copied().unwrap_or(self.of_all)
    }
}

/// What one mail takes of one kind, and how much there may be.
struct Amount {
    kind: Kind,
    add: u64,
    most: Terms,
}

impl Amount {
    /// The limits there are, each less by this much.
    fn limits(&self, less: u64) -> Vec<Limit> {
        let limits = [(HOUR, self.most.0), (DAY, self.most.1)].into_iter();
        let limits = limits.filter(|(_, most)| *most > 0);
        limits
            .map(|(window, most)| Limit {
                window,
                most: most.saturating_sub(less),
            })
            .collect()
    }

    fn most(&self, window: Duration) -> u64 {
        match window {
            HOUR => self.most.0,
            _ => self.most.1,
        }
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

fn refusal(account: &str, amount: &Amount, full: &Full, now: Timestamp) -> Reply {
    let window = full.limit.window;
    let (time, value, most, add) = (span(window), full.value, amount.most(window), amount.add);
    let (has_sent, would) = match amount.kind {
        Kind::SentMails => (format!("sent {value} of {most} mails"), String::new()),
        Kind::SentBytes => (
            format!("sent {} of {}", octets(value), octets(most)),
            format!(", and this mail has {}", octets(add)),
        ),
        _ => (
            format!("written to {value} of {most} recipients"),
            format!(", and this mail has {add}"),
        ),
    };
    match (full.until, amount.kind) {
        (Some(until), _) => {
            let wait = in_words(until.since(now));
            let text = format!("{account} has {has_sent} in {time}{would}; try again in {wait}");
            Reply::new(MAILBOX_BUSY_450, LIMIT_REACHED_4_7_1, text)
        }
        (None, Kind::SentBytes) => {
            let text = format!(
                "{account} may send {} in {time}{would}; send less at one time",
                octets(most)
            );
            Reply::new(EXCEEDED_STORAGE_552, TOO_LARGE_5_3_4, text)
        }
        (None, _) => {
            let text = format!(
                "{account} may write to {most} recipients in {time}{would}; send it to fewer at one time"
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
        let soon = now.plus(Duration::from_secs(601));
        for (kind, add, most, value, until, says) in [
            (
                Kind::Sent,
                2,
                10,
                9,
                Some(soon),
                "450 4.7.1 alice@demo.test has written to 9 of 10 recipients in a day, and this mail has 2; try again in 11 minutes",
            ),
            (
                Kind::Sent,
                11,
                10,
                0,
                None,
                "550 5.7.1 alice@demo.test may write to 10 recipients in a day, and this mail has 11; send it to fewer at one time",
            ),
            (
                Kind::SentMails,
                1,
                10,
                10,
                Some(soon),
                "450 4.7.1 alice@demo.test has sent 10 of 10 mails in a day; try again in 11 minutes",
            ),
            (
                Kind::SentBytes,
                3 << 20,
                5 << 20,
                4 << 20,
                Some(soon),
                "450 4.7.1 alice@demo.test has sent 4.0 MiB of 5.0 MiB in a day, and this mail has 3.0 MiB; try again in 11 minutes",
            ),
            (
                Kind::SentBytes,
                6 << 20,
                5 << 20,
                0,
                None,
                "552 5.3.4 alice@demo.test may send 5.0 MiB in a day, and this mail has 6.0 MiB; send less at one time",
            ),
        ] {
            // What was asked for is less by what the mail has; what is told is the limit.
            let limit = Limit {
                window: DAY,
                most: 1,
            };
            let full = Full {
                limit,
                value,
                until,
            };
            let most = (0, most);
            let amount = Amount { kind, add, most };
            let reply = refusal("alice@demo.test", &amount, &full, now);
            assert_eq!(reply.to_string(), says);
        }
    }

    #[test]
    fn limits_that_mean_nobody_are_refused() {
        let named = |name: &str, hour, day| NamedLimit {
            name: name.to_owned(),
            recipients_per_hour: hour,
            recipients_per_day: day,
            ..NamedLimit::default()
        };
        let of = |accounts| SendingConfig {
            recipients_per_hour: 5,
            mails_per_day: 7,
            accounts,
            ..SendingConfig::default()
        };
        let good = of(vec![named("Bulk@demo.test", None, Some(9))]);
        let own = good.named().unwrap()["bulk@demo.test"];
        assert_eq!((own.recipients, own.mails), ((5, 9), (0, 7)));
        let sized = NamedLimit {
            size_limit: Some(ByteSize::mib(1)),
            ..named("big@demo.test", None, None)
        };
        let own = of(vec![sized]).named().unwrap()["big@demo.test"];
        assert_eq!(own.size_limit, Some(1 << 20));
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
