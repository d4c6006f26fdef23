//! Guessing passwords is made slow, and then stopped: the answer to a failed log-in waits, longer with each failure of one
//! network and of one name. A network with too many is refused for a time, and so is a name that too many tried, but for networks
//! from which its account logged in before: its owner is not to be locked out by strangers. A name counts whether it is an account
//! or not, so that nobody learns which are.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use postroad_counters::{Count, Key, Kind, Limit, Rule};
use postroad_envelope::Timestamp;
use postroad_metrics::Counter;
use postroad_net::Networks;
use postroad_reply::{POLICY_4_7_0, Reply, SERVICE_NOT_AVAILABLE_421, TEMPORARY_AUTH_FAILURE_454};

use crate::Config;
use crate::together::Together;
use crate::words::in_words;

/// How long a network is where the owner of an account is at home, and how often that is told anew.
const AT_HOME: Duration = Duration::from_secs(31 * 86_400);
const TELL_AGAIN: Duration = Duration::from_secs(86_400);

/// Failed log-ins and what follows from them.
pub struct Bans {
    together: Arc<Together>,
    refused: Counter,
    terms: Terms,
}

struct Terms {
    delay: Duration,
    max_delay: Duration,
    limit: Limit,
    ban: Duration,
    name_limit: Limit,
    name_ban: Duration,
    except: [Networks; 3],
    ipv6_prefix: u8,
}

impl Bans {
    pub fn new(together: Arc<Together>, refused: Counter, config: &Config) -> Self {
        let auth = &config.auth;
        let terms = Terms {
            delay: auth.delay.into(),
            max_delay: auth.max_delay.into(),
            limit: Limit {
                window: auth.ban_window.into(),
                most: u64::from(auth.ban_after).saturating_sub(1),
            },
            ban: match auth.ban_after {
                0 => Duration::ZERO,
                _ => auth.ban_for.into(),
            },
            name_limit: Limit {
                window: auth.ban_window.into(),
                most: u64::from(auth.name_ban_after).saturating_sub(1),
            },
            name_ban: match auth.name_ban_after {
                0 => Duration::ZERO,
                _ => auth.ban_for.into(),
            },
            // A balancer that is banned takes all of its clients with it, and its own looks at us.
            except: [
                auth.ban_except.clone(),
                config.proxy_networks.clone(),
                config.xclient_networks.clone(),
            ],
            ipv6_prefix: config.limits.ipv6_prefix,
        };
        Self {
            together,
            refused,
            terms,
        }
    }

    /// Whether a client that connects is refused: what all copies know of it.
    pub async fn refuse(&self, client: IpAddr) -> Option<Reply> {
        let count = self.of(client, 0).filter(|_| self.may_ban(client))?;
        let counted = self.together.count(&count).await;
        Some(self.refusal(client, counted.banned_until?))
    }

    /// The same for one that is connected already: what this copy knows, for nobody is to be asked twice.
    pub fn refuse_known(&self, client: IpAddr) -> Option<Reply> {
        let count = self.of(client, 0).filter(|_| self.may_ban(client))?;
        let until = self.together.known_ban(&count.key)?;
        Some(self.refusal(client, until))
    }

    /// Whether log-ins by this name are refused now, from where this client is. To be counted as a failure if they are.
    pub async fn refuse_name(&self, client: IpAddr, name: &str) -> Option<Reply> {
        if self.is_excepted(client) || self.terms.name_ban.is_zero() {
            return None;
        }
        let count = self.of_name(name, 0)?;
        let until = self.together.count(&count).await.banned_until?;
        if self.is_home(client, name).await {
            return None;
        }
        self.refused.count();
        let text = format!(
            "too many failed log-ins by this name, try again in {}",
            left_until(until)
        );
        Some(Reply::new(TEMPORARY_AUTH_FAILURE_454, POLICY_4_7_0, text))
    }

    /// Counts a failure and says how long its answer waits.
    pub async fn failed(&self, client: IpAddr, name: &str) -> Duration {
        let (network, name) = (self.of(client, 1), self.of_name(name, 1));
        let mut failures = 0;
        for count in network.iter().chain(&name) {
            failures = failures.max(self.together.count(count).await.value);
        }
        self.terms.delay_of(failures)
    }

    /// Remembers where the owner of an account is at home; nobody waits for that. Where no name is refused it need not be known.
    pub fn succeeded(&self, client: IpAddr, account: &str) {
        if self.is_excepted(client) || self.terms.name_ban.is_zero() {
            return;
        }
        let Ok(key) = Key::home(account, client, self.terms.ipv6_prefix) else {
            return;
        };
        if self
            .together
            .is_first(&counted_only(key.clone(), TELL_AGAIN, 1))
        {
            let together = Arc::clone(&self.together);
            tokio::spawn(async move {
                together.count(&counted_only(key, AT_HOME, 1)).await;
            });
        }
    }

    async fn is_home(&self, client: IpAddr, name: &str) -> bool {
        let Ok(key) = Key::home(name, client, self.terms.ipv6_prefix) else {
            return false;
        };
        let counted = self.together.count(&counted_only(key, AT_HOME, 0)).await;
        counted.value > 0
    }

    /// None: whatever was typed is no name of an account anywhere.
    fn of_name(&self, name: &str, add: u64) -> Option<Count> {
        let key = Key::new(Kind::Guessed, name).ok()?;
        let (limit, ban) = (self.terms.name_limit, self.terms.name_ban);
        let rule = Rule::Ban { limit, ban };
        Some(Count { key, add, rule })
    }

    fn of(&self, client: IpAddr, add: u64) -> Option<Count> {
        let key = Key::of_client(Kind::AuthFailed, client, self.terms.ipv6_prefix).ok()?;
        let ban = match self.may_ban(client) {
            true => self.terms.ban,
            false => Duration::ZERO,
        };
        let limit = self.terms.limit;
        let rule = Rule::Ban { limit, ban };
        Some(Count { key, add, rule })
    }

    fn may_ban(&self, client: IpAddr) -> bool {
        !self.terms.ban.is_zero() && !self.is_excepted(client)
    }

    fn is_excepted(&self, client: IpAddr) -> bool {
        self.terms.except.iter().any(|all| all.contains(client))
    }

    fn refusal(&self, client: IpAddr, until: Timestamp) -> Reply {
        self.refused.count();
        let text = format!(
            "too many failed log-ins from {}, try again in {}",
            client.to_canonical(),
            left_until(until)
        );
        Reply::new(SERVICE_NOT_AVAILABLE_421, POLICY_4_7_0, text)
    }
}

/// Nothing follows from it.
fn counted_only(key: Key, window: Duration, add: u64) -> Count {
    let limit = Limit {
        window,
        most: u64::MAX,
    };
    let rule = Rule::Ban {
        limit,
        ban: Duration::ZERO,
    };
    Count { key, add, rule }
}

fn left_until(until: Timestamp) -> String {
    in_words(until.since(Timestamp::from(SystemTime::now())))
}

impl Terms {
    /// Doubled with each failure.
    fn delay_of(&self, failures: u64) -> Duration {
        let doublings = u32::try_from(failures.saturating_sub(1)).unwrap_or(u32::MAX);
        let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
        self.delay.saturating_mul(factor).min(self.max_delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_delay_doubles_up_to_the_longest() {
        let terms = Terms {
            delay: SECOND,
            max_delay: 5 * SECOND,
            limit: Limit {
                window: SECOND,
                most: 1,
            },
            ban: SECOND,
            name_limit: Limit {
                window: SECOND,
                most: 1,
            },
            name_ban: SECOND,
            except: Default::default(),
            ipv6_prefix: 64,
        };
        for (failures, seconds) in [
            (0, 1),
            (1, 1),
            (2, 2),
            (3, 4),
            (4, 5),
            (70, 5),
            (u64::MAX, 5),
        ] {
            assert_eq!(terms.delay_of(failures), seconds * SECOND, "{failures}");
        }
    }
}
