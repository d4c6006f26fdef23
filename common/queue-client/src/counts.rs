//! What a worker counts of its attempts.

use std::time::Duration;

use postroad_envelope::{Outcome, RouteClass};
use postroad_metrics::labels::{self, Key as _, Route, Tls};
use postroad_metrics::{Counter, Gauge, Held, Histogram, Metrics, Table, list};

/// The numbers of one worker.
#[derive(Clone, Debug)]
pub struct AttemptCounts {
    leases: Gauge,
    attempts: Table<(Route, labels::Outcome, Tls), Counter>,
    times: Vec<(Route, Histogram)>,
}

impl AttemptCounts {
    /// Of a worker that takes these classes.
    pub fn new(metrics: &Metrics, classes: &[RouteClass]) -> Self {
        let routes: Vec<Route> = classes
            .iter()
            .filter_map(|class| route_of(*class))
            .collect();
        let times = routes.iter().map(|&route| {
            let time = metrics.histogram(&list::ATTEMPT_TIME, &route.texts());
            (route, time)
        });
        Self {
            leases: metrics.gauge(&list::LEASES_WORKED_ON, &[]),
            times: times.collect(),
            attempts: metrics.counters_of(&list::ATTEMPTS, &[], |(route, _, tls)| {
                // Nothing goes anywhere for mail of ours.
                routes.contains(&route) && (route != Route::Local || tls == Tls::None)
            }),
        }
    }

    /// A lease is worked on, until what is returned is dropped.
    pub fn begin(&self) -> Held {
        self.leases.hold()
    }

    /// An attempt came to these outcomes of its recipients.
    pub fn tried<'a>(
        &self,
        class: RouteClass,
        outcomes: impl IntoIterator<Item = &'a Outcome>,
        took: Duration,
    ) {
        let Some(route) = route_of(class) else { return };
        if let Some((_, time)) = self.times.iter().find(|(known, _)| *known == route) {
            time.took(took);
        }
        for outcome in outcomes {
            self.attempts
                .count((route, label_of(outcome), tls_of(outcome)));
        }
    }
}

fn route_of(class: RouteClass) -> Option<Route> {
    match class {
        RouteClass::Local => Some(Route::Local),
        RouteClass::Relay => Some(Route::Relay),
        RouteClass::Lmtp => Some(Route::Lmtp),
        // Nobody works on these.
        RouteClass::Hold | RouteClass::Discard => None,
    }
}

fn label_of(outcome: &Outcome) -> labels::Outcome {
    match outcome {
        Outcome::Delivered(_) => labels::Outcome::Delivered,
        Outcome::Relayed(_) => labels::Outcome::Relayed,
        Outcome::Delayed(_) => labels::Outcome::Delayed,
        Outcome::Failed(_) => labels::Outcome::Failed,
        Outcome::Expanded(_) => labels::Outcome::Expanded,
    }
}

/// How the host was spoken to that had the last word.
fn tls_of(outcome: &Outcome) -> Tls {
    let remote = outcome.report().remote.as_ref();
    match remote.and_then(|remote| remote.tls.as_ref()) {
        None => Tls::None,
        Some(tls) if tls.version == Tls::Tls12.text() => Tls::Tls12,
        Some(_) => Tls::Tls13,
    }
}
