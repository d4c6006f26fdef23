//! What is counted of the way out.

use postroad_envelope::RouteClass;
use postroad_metrics::labels::{Connect, Protection, Unusable};
use postroad_metrics::{Counter, Gauge, Metrics, Table, list};
use postroad_queue_client::AttemptCounts;

/// The classes this agent takes.
pub const CLASSES: [RouteClass; 2] = [RouteClass::Relay, RouteClass::Lmtp];

/// The numbers of the outbound half.
pub struct Counts {
    pub attempts: AttemptCounts,
    /// Handed back, since the destination had its share.
    pub limited: Counter,
    /// Went in the transactions of another job of their mail.
    pub joined: Counter,
    pub connections: ConnectionCounts,
}

/// Of connections to other hosts.
pub struct ConnectionCounts {
    pub tried: Table<Connect, Counter>,
    pub open: Gauge,
    /// Open, and waiting for the next mail.
    pub idle: Gauge,
    /// Taken for another job.
    pub reused: Counter,
    /// Closed by the host before another mail could be begun.
    pub lost_idle: Counter,
    pub tls_failures: Counter,
    /// Set up, by how they were protected.
    pub protected: Table<Protection, Counter>,
    pub unusable: Table<Unusable, Counter>,
}

impl Counts {
    pub fn new(metrics: &Metrics) -> Self {
        Self {
            attempts: AttemptCounts::new(metrics, &CLASSES),
            limited: metrics.counter(&list::LIMITED, &[]),
            joined: metrics.counter(&list::JOINED, &[]),
            connections: ConnectionCounts {
                tried: metrics.counters(&list::OUTBOUND, &[]),
                open: metrics.gauge(&list::OUTBOUND_OPEN, &[]),
                idle: metrics.gauge(&list::OUTBOUND_IDLE, &[]),
                reused: metrics.counter(&list::OUTBOUND_REUSED, &[]),
                lost_idle: metrics.counter(&list::OUTBOUND_LOST_IDLE, &[]),
                tls_failures: metrics.counter(&list::OUTBOUND_TLS_FAILURES, &[]),
                protected: metrics.counters(&list::OUTBOUND_PROTECTED, &[]),
                unusable: metrics.counters(&list::OUTBOUND_UNUSABLE, &[]),
            },
        }
    }
}
