//! How much a listener takes on.

use std::time::Duration;

use jiff::fmt::serde::unsigned_duration::friendly::compact::required as duration;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// The bounds of one listener. Keys absent from the configuration have the default values.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Connections at a time. Default 1000.
    pub max_connections: usize,
    /// Connections at a time from one IPv4 address or one IPv6 network. Default 50.
    pub max_connections_per_ip: usize,
    /// How many leading bits of an IPv6 address count as one peer. Default 64: one customer's network.
    pub ipv6_prefix: u8,
    /// How long a refused peer may take to read why. Default `"2s"`.
    #[serde(with = "duration")]
    pub farewell_timeout: Duration,
    /// How long connections may take to end after shutdown began. Default `"30s"`.
    #[serde(with = "duration")]
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 1000,
            max_connections_per_ip: 50,
            ipv6_prefix: 64,
            farewell_timeout: Duration::from_secs(2),
            grace: Duration::from_secs(30),
        }
    }
}

/// Bounds that can change while a listener serves. Clones share them.
#[derive(Clone, Debug)]
pub struct LiveLimits(watch::Sender<Limits>);

impl LiveLimits {
    /// These, for now.
    pub fn new(limits: Limits) -> Self {
        Self(watch::Sender::new(limits))
    }

    /// For what begins from now on: connections over a smaller bound stay.
    pub fn set(&self, limits: Limits) {
        self.0.send_replace(limits);
    }

    /// Those of this moment.
    pub fn current(&self) -> Limits {
        self.0.borrow().clone()
    }

    /// To hear of changes.
    pub fn subscribe(&self) -> watch::Receiver<Limits> {
        self.0.subscribe()
    }
}

impl From<&Limits> for LiveLimits {
    fn from(limits: &Limits) -> Self {
        Self::new(limits.clone())
    }
}

impl From<&LiveLimits> for LiveLimits {
    fn from(limits: &LiveLimits) -> Self {
        limits.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_carry_their_unit_and_absent_keys_their_default() {
        let limits: Limits =
            serde_json::from_str(r#"{"max_connections": 7, "grace": "1m 30s"}"#).unwrap();
        assert_eq!(limits.max_connections, 7);
        assert_eq!(limits.grace, Duration::from_secs(90));
        assert_eq!(
            limits.max_connections_per_ip,
            Limits::default().max_connections_per_ip
        );
        assert!(serde_json::from_str::<Limits>(r#"{"max-connections": 7}"#).is_err());
    }
}
