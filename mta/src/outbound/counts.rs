//! What is counted of the way out.

use postroad_envelope::RouteClass;
use postroad_metrics::labels::{Connect, Unusable};
use postroad_metrics::{Counter, Gauge, Metrics, Table, list};
use postroad_queue_client::AttemptCounts;

/// The classes this agent takes.
pub const CLASSES: [RouteClass; 2] = [RouteClass::Relay, RouteClass::Lmtp];

/// The numbers of the outbound half.
pub struct Counts {
    pub attempts: AttemptCounts,
    /// Handed back, since the destination had its share.
    pub limited: Counter,
    pub connections: ConnectionCounts,
}

/// Of connections to other hosts.
pub struct ConnectionCounts {
    pub tried: Table<Connect, Counter>,
    pub open: Gauge,
    pub tls_failures: Counter,
    pub unusable: Table<Unusable, Counter>,
}

impl Counts {
    pub fn new(metrics: &Metrics) -> Self {
        Self {
            attempts: AttemptCounts::new(metrics, &CLASSES),
            limited: metrics.counter(&list::LIMITED, &[]),
            connections: ConnectionCounts {
                tried: metrics.counters(&list::OUTBOUND, &[]),
                open: metrics.gauge(&list::OUTBOUND_OPEN, &[]),
                tls_failures: metrics.counter(&list::OUTBOUND_TLS_FAILURES, &[]),
                unusable: metrics.counters(&list::OUTBOUND_UNUSABLE, &[]),
            },
        }
    }
}
