//! Connections to hosts: how often one is used, and how long each step may take.

use postroad_daemon::Interval;
use postroad_smtp_session::ClientTimeouts;
use serde::{Deserialize, Serialize};

/// `[mta.outbound.reuse]`: connections that stay open for the next mail to their host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReuseConfig {
    /// How long a connection waits for the next mail; `"0s"`: not at all. Hosts count idle connections as well, and a busy one
    /// hangs up after 10 seconds.
    pub idle: Interval,
    /// Transactions of one connection, fewer if the host says so (`MAILMAX`, RFC 9422); 1: a new one for each.
    pub mails: usize,
    /// How old a connection may be when a mail is begun, so that what changed in the DNS counts in time.
    pub lifetime: Interval,
    /// Connections that wait at once, to all hosts.
    pub most_idle: usize,
}

impl Default for ReuseConfig {
    fn default() -> Self {
        Self {
            idle: Interval::seconds(5),
            mails: 100,
            lifetime: Interval::minutes(5),
            most_idle: 100,
        }
    }
}

/// `[mta.outbound.timeouts]`: RFC 5321 §4.5.3.2 where it has a word on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Timeouts {
    /// For the connection to be made.
    pub connect: Interval,
    /// For the TLS handshake.
    pub tls: Interval,
    /// For the greeting (§4.5.3.2.1).
    pub greeting: Interval,
    /// For the reply to EHLO, STARTTLS, MAIL and RCPT (§4.5.3.2.2 and .3).
    pub command: Interval,
    /// For the reply to DATA (§4.5.3.2.4).
    pub data: Interval,
    /// For the host to take each block of content (§4.5.3.2.5).
    pub block: Interval,
    /// For the reply to the final dot (§4.5.3.2.6).
    pub end: Interval,
    /// For the reply to QUIT, which nothing depends on.
    pub quit: Interval,
    /// For all that is said for one mail, so that a host that drips its replies does not keep us for days.
    pub conversation: Interval,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Interval::seconds(30),
            tls: Interval::minutes(1),
            greeting: Interval::minutes(5),
            command: Interval::minutes(5),
            data: Interval::minutes(2),
            block: Interval::minutes(3),
            end: Interval::minutes(10),
            quit: Interval::seconds(10),
            conversation: Interval::hours(3),
        }
    }
}

impl From<&Timeouts> for ClientTimeouts {
    fn from(timeouts: &Timeouts) -> Self {
        Self {
            greeting: timeouts.greeting.into(),
            command: timeouts.command.into(),
            data: timeouts.data.into(),
            block: timeouts.block.into(),
            end: timeouts.end.into(),
            quit: timeouts.quit.into(),
        }
    }
}
