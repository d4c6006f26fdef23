//! What every process counts: a closed list of names, and the text Prometheus reads.
//!
//! ```text
//! list: name, kind, labels, meaning ─► Metrics::counter, gauge, histogram, table ─► handles, kept by who counts
//!                                      Metrics::read (asked when somebody looks) ─► page ─► /metrics
//! ```
//!
//! **Counting** is one relaxed addition to an atomic number: no lock, no allocation. Handles are made once, when an agent
//! starts; the same metric with the same labels is the same number, so a part that starts anew counts on.
//!
//! **Labels** have their values from closed sets ([`labels`]), or from the configuration (names of listeners). Never a
//! domain, an address or a mail: what a stranger sends makes no series. Every series has the label `agent`.
//!
//! **What can fail:** nothing at run time. A label that is not in its set is a fault of the program, and stops it at its start.
#![forbid(unsafe_code)]

pub mod labels;
pub mod list;

mod page;
mod reference;
mod registry;

pub use labels::{Key, Label, Word};
pub use list::{Buckets, Kind, METRICS, Metric, Unit};
pub use page::{CONTENT_TYPE, page};
pub use reference::metrics_reference;
pub use registry::{Counter, Gauge, Held, Histogram, Metrics, Table};
