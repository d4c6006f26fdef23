use std::time::Duration;

use postroad_counters::{Ban, Count, Counted, Counter, Full, Key, Limit, Rule};
use postroad_envelope::Timestamp;

use super::{ConvertError, millis, parsed, required};
use crate::queue::v1;

/// Times that are looked back. A shorter one is no limit, a longer one no memory of ours.
const SHORTEST: u64 = 1_000;
const LONGEST: u64 = 31 * 86_400_000;
const LONGEST_BAN: u64 = 366 * 86_400_000;
const MOST_LIMITS: usize = 4;
/// Keys that one call may clear.
const MOST_KEYS: usize = 1_000;

impl From<&Count> for v1::CountRequest {
    fn from(count: &Count) -> Self {
        let (key, add) = (count.key.to_string(), count.add);
        match &count.rule {
            Rule::Ban { limit, ban } => Self {
                key,
                add,
                window_ms: millis_of(limit.window),
                limit: limit.most,
                ban_ms: millis_of(*ban),
                limits: Vec::new(),
            },
            Rule::Within(limits) => Self {
                key,
                add,
                limits: limits.iter().map(Into::into).collect(),
                ..Self::default()
            },
        }
    }
}

impl TryFrom<v1::CountRequest> for Count {
    type Error = ConvertError;

    fn try_from(wire: v1::CountRequest) -> Result<Self, ConvertError> {
        if wire.limits.len() > MOST_LIMITS {
            return Err(ConvertError::new("limits", "are more than 4"));
        }
        let rule = if wire.limits.is_empty() {
            if wire.ban_ms > LONGEST_BAN {
                return Err(ConvertError::new("ban_ms", "is longer than a year"));
            }
            Rule::Ban {
                limit: limit("window_ms", wire.window_ms, wire.limit)?,
                ban: Duration::from_millis(wire.ban_ms),
            }
        } else {
            let limits = wire.limits.into_iter();
            Rule::Within(limits.map(TryInto::try_into).collect::<Result<_, _>>()?)
        };
        Ok(Self {
            key: parsed("key", &wire.key)?,
            add: wire.add,
            rule,
        })
    }
}

impl From<&Limit> for v1::CountLimit {
    fn from(limit: &Limit) -> Self {
        Self {
            window_ms: millis_of(limit.window),
            most: limit.most,
        }
    }
}

impl TryFrom<v1::CountLimit> for Limit {
    type Error = ConvertError;

    fn try_from(wire: v1::CountLimit) -> Result<Self, ConvertError> {
        limit("limits.window_ms", wire.window_ms, wire.most)
    }
}

impl From<&Counted> for v1::CountResponse {
    fn from(counted: &Counted) -> Self {
        Self {
            value: counted.value,
            banned_until_ms: counted.banned_until.map(Timestamp::as_millis),
            full: counted.full.as_ref().map(|full| v1::CountFull {
                limit: Some((&full.limit).into()),
                value: full.value,
                until_ms: full.until.map(Timestamp::as_millis),
            }),
        }
    }
}

impl TryFrom<v1::CountResponse> for Counted {
    type Error = ConvertError;

    fn try_from(wire: v1::CountResponse) -> Result<Self, ConvertError> {
        let full = |full: v1::CountFull| {
            Ok(Full {
                limit: required("full.limit", full.limit)?.try_into()?,
                value: full.value,
                until: millis(full.until_ms),
            })
        };
        Ok(Self {
            value: wire.value,
            banned_until: millis(wire.banned_until_ms),
            full: wire.full.map(full).transpose()?,
        })
    }
}

impl From<&Counter> for v1::CounterDetails {
    fn from(counter: &Counter) -> Self {
        Self {
            key: counter.key.to_string(),
            window_ms: millis_of(counter.window),
            value: counter.value,
        }
    }
}

impl TryFrom<v1::CounterDetails> for Counter {
    type Error = ConvertError;

    fn try_from(wire: v1::CounterDetails) -> Result<Self, ConvertError> {
        Ok(Self {
            key: parsed("key", &wire.key)?,
            window: Duration::from_millis(wire.window_ms),
            value: wire.value,
        })
    }
}

impl From<&Ban> for v1::BanDetails {
    fn from(ban: &Ban) -> Self {
        Self {
            key: ban.key.to_string(),
            since_ms: ban.since.as_millis(),
            until_ms: ban.until.as_millis(),
            value: ban.value,
        }
    }
}

impl TryFrom<v1::BanDetails> for Ban {
    type Error = ConvertError;

    fn try_from(wire: v1::BanDetails) -> Result<Self, ConvertError> {
        Ok(Self {
            key: parsed("key", &wire.key)?,
            since: Timestamp::from_millis(wire.since_ms),
            until: Timestamp::from_millis(wire.until_ms),
            value: wire.value,
        })
    }
}

/// The keys of a call that clears them.
pub fn counter_keys(wire: &[String]) -> Result<Vec<Key>, ConvertError> {
    if wire.len() > MOST_KEYS {
        return Err(ConvertError::new("keys", "are more than 1,000"));
    }
    wire.iter().map(|text| parsed("keys", text)).collect()
}

fn limit(field: &'static str, window: u64, most: u64) -> Result<Limit, ConvertError> {
    if !(SHORTEST..=LONGEST).contains(&window) {
        return Err(ConvertError::new(field, "is not from 1 s to 31 days"));
    }
    Ok(Limit {
        window: Duration::from_millis(window),
        most,
    })
}

fn millis_of(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn counts() -> [Count; 2] {
        let limit = Limit {
            window: HOUR,
            most: 3,
        };
        let ban = Duration::from_secs(60);
        [
            Count {
                key: "auth_failed/192.0.2.7/32".parse().unwrap(),
                add: 1,
                rule: Rule::Ban { limit, ban },
            },
            Count {
                key: "sent/alice@demo.test".parse().unwrap(),
                add: 7,
                rule: Rule::Within(vec![limit; 4]),
            },
        ]
    }

    #[test]
    fn it_is_the_same_on_the_other_side() {
        for count in counts() {
            let wire = v1::CountRequest::from(&count);
            assert_eq!(Count::try_from(wire), Ok(count));
        }
        let at = Timestamp::from_millis(7);
        let full = Full {
            limit: Limit {
                window: HOUR,
                most: 2,
            },
            value: 2,
            until: Some(at),
        };
        for counted in [
            Counted::default(),
            Counted {
                value: 3,
                banned_until: Some(at),
                full: Some(full),
            },
        ] {
            let wire = v1::CountResponse::from(&counted);
            assert_eq!(Counted::try_from(wire), Ok(counted));
        }
    }

    #[test]
    fn what_has_no_bounds_is_refused() {
        let [ban, sent] = counts().map(|count| v1::CountRequest::from(&count));
        let changed = |wire: &v1::CountRequest, change: fn(&mut v1::CountRequest)| {
            let mut wire = wire.clone();
            change(&mut wire);
            Count::try_from(wire)
        };
        let changes: [fn(&mut v1::CountRequest); 5] = [
            |wire| wire.key = "sent".to_owned(),
            |wire| wire.window_ms = 0,
            |wire| wire.window_ms = 999,
            |wire| wire.window_ms = LONGEST + 1,
            |wire| wire.ban_ms = LONGEST_BAN + 1,
        ];
        for change in changes {
            assert!(changed(&ban, change).is_err());
        }
        let changes: [fn(&mut v1::CountRequest); 2] = [
            |wire| wire.limits.push(wire.limits[0]),
            |wire| wire.limits[3].window_ms = u64::MAX,
        ];
        for change in changes {
            assert!(changed(&sent, change).is_err());
        }
        assert!(counter_keys(&vec!["sent/alice@demo.test".to_owned(); 1_001]).is_err());
    }
}
