//! Guessing passwords is made slow, and then stopped: the answer to a failed log-in waits, longer with each failure of one
//! network, and a network with too many is refused for a time.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use postroad_counters::{Count, Key, Kind, Limit, Rule};
use postroad_envelope::Timestamp;
use postroad_metrics::Counter;
use postroad_net::Networks;
use postroad_reply::{POLICY_4_7_0, Reply, SERVICE_NOT_AVAILABLE_421};

use crate::Config;
use crate::together::Together;
use crate::words::in_words;

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
    except: [Networks; 2],
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
            // A balancer that is banned takes all of its clients with it, and its own looks at us.
            except: [auth.ban_except.clone(), config.proxy_networks.clone()],
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

    /// Counts a failure and says how long its answer waits.
    pub async fn failed(&self, client: IpAddr) -> Duration {
        let Some(count) = self.of(client, 1) else {
            return self.terms.delay;
        };
        let counted = self.together.count(&count).await;
        self.terms.delay_of(counted.value)
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
        let excepted = self.terms.except.iter().any(|all| all.contains(client));
        !self.terms.ban.is_zero() && !excepted
    }

    fn refusal(&self, client: IpAddr, until: Timestamp) -> Reply {
        self.refused.count();
        let left = until.since(Timestamp::from(SystemTime::now()));
        let text = format!(
            "too many failed log-ins from {}, try again in {}",
            client.to_canonical(),
            in_words(left)
        );
        Reply::new(SERVICE_NOT_AVAILABLE_421, POLICY_4_7_0, text)
    }
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
