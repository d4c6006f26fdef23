//! The queue agent: keeps every mail between its acceptance and its end.
//!
//! ```text
//! submit ─► Submission ─► Committer ── append_group ◆ ─► apply to index and schedule ─► Accepted
//!                            ▲                                        │
//! worker ◄─ lease ─ Dispatcher ◄──────────────────────────────────────┘ due jobs
//!    └─ settle ──────────────┘        failed ─► reports: DSN as a new mail
//! ```
//!
//! * [`start`] opens a queue and gives the [`LocalQueue`], which implements the traits of `postroad-queue-client`, and
//!   the [`RunningQueue`] its owner runs. [`serve_rpc`] puts it behind sockets; [`serve`] is all of it, and [`run`] a
//!   whole process.
//! * One thread commits, one dispatches; submissions, settlements and reports are tasks. Once about every second the upkeep makes a
//!   checkpoint, gives up old segments, looks at the disk and lets mail expire.
//! * What happens to each mail is kept by a thread of its own, the timeline, for which nobody waits.
//!
//! What can fail: see [`ServeError`]. A failed write or sync ends the queue (status 75) and fails everyone who waits;
//! nothing that was acknowledged is lost by it. Flow, threads and configuration are in `README.md`.
#![forbid(unsafe_code)]

mod accepted;
mod admin;
mod agents;
pub mod backup;
mod catch_up;
mod clock;
mod committer;
mod config;
mod core;
mod counting;
mod counts;
mod decoys;
mod disk;
mod dispatch;
mod error;
pub mod explain;
pub mod export;
mod holds;
mod local;
mod purge;
mod quota;
mod reload;
mod renewal;
mod reports;
mod retention;
mod retired;
mod routing;
mod rpc;
mod sections;
mod serve;
mod sites;
mod small_file;
mod start;
mod store;
mod submission;
mod suppression;
mod timeline;
mod upkeep;
mod waiting;
mod withdraw;
mod words;
mod work;

pub use config::{
    AccountsConfig, BackupConfig, Config, CountersConfig, DiskConfig, DsnConfig, Foreign,
    KeptContent, LeaseConfig, ListenConfig, Meaning, NamedQuota, NextHopRule, QuotaConfig,
    ReplyPattern, RetiredConfig, RetryCase, RetryConfig, RouteProblem, RouteRule, Several,
    SiteLimits, SitesConfig, SuppressionConfig, SuppressionScope, TimelineConfig,
};
pub use error::{ConfigError, ServeError};
pub use local::LocalQueue;
pub use reload::reload_part;
pub use serve::{run, serve, serve_rpc};
pub use start::{RunningQueue, start};
pub use store::{Offline, OfflineError, Rebuilt};
