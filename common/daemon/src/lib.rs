//! What every process does before and after the work: config, logs, shutdown, health.
//!
//! **Purpose.** An agent's `main` is one call of [`run_main`]; the agent's `serve` gets a [`Start`]
//! and holds nothing but the work.
//!
//! **Configuration.** `/etc/postroad/postroad.toml` (or `--config FILE`), then `conf.d/*.toml` beside
//! it in the order of their names, then environment variables (`POSTROAD__MSA__SIZE_LIMIT=30MiB` is
//! `size_limit` in `[msa]`): later wins key by key, tables are merged, arrays replaced. Each crate
//! owns the serde struct of its section and reads it by [`ConfigFile::section`]; `[common]` is
//! [`CommonConfig`]. Every binary accepts the whole file and looks into its own sections only. A
//! struct needs no `deny_unknown_fields`: the reader refuses unknown keys itself, and each
//! [`ConfigError`] names file, line, key and remedy. Values with units are [`Interval`] and
//! [`ByteSize`]; secrets are [`SecretFile`]s; other values with a text form use
//! `#[serde(with = "postroad_daemon::text")]`.
//!
//! **Reload.** On SIGHUP [`Reload`] reads it all again; a bad one changes nothing, of a good one each agent's
//! [`ReloadPart`] puts the live keys into force, and the log names those that need a restart.
//!
//! **Logs.** [`init_logging`]: one line per fact on standard error, text or JSON; the names of events
//! and fields are the closed list of [`events`].
//!
//! **Tasks.** [`Daemon`] is the parent of the main tasks. SIGTERM, SIGINT or the end of any main task
//! stops all of them - first the work, then what it leans on - within a grace period; a second signal
//! ends it at once.
//!
//! **Health.** [`HealthState`] holds named checks; [`serve_health`] answers at
//! `<run_dir>/<agent>.health`, [`query_health`] asks; systemd hears `READY=1` and `STOPPING=1`.
//!
//! **HTTP.** [`HttpServer`] answers `/healthz`, `/readyz` and `/metrics` where `http.listen` of the
//! agent's section says; what is counted is the closed list of `postroad-metrics`.
//!
//! **Memory.** Whatever links this crate allocates with mimalloc; [`prepare_process`] switches huge pages off.
//!
//! **What can fail.** [`DaemonError`] says whose fault it is and with it the exit status: 78 the
//! configuration, 75 the surroundings (try again), 70 ours.
#![forbid(unsafe_code)]

pub mod events;

mod allocator;
mod common;
mod config;
mod daemon;
mod error;
mod health;
mod http;
mod logging;
mod process;
mod queue_addresses;
mod reload;
mod run;
mod runtime;
mod secret;
mod shutdown;
mod units;

pub use common::{
    AccountsConfig, AccountsFrom, AddressFamily, CommonConfig, DnsConfig, LogConfig, LogFormat,
    LogLevel, NameServer, QueueAddresses, TlsFiles, machine_name,
};
pub use config::{
    ConfigError, ConfigFile, DEFAULT_CONFIG_FILE, ENVIRONMENT_PREFIX, EffectiveValue, Place,
    SECTIONS, effective, text,
};
pub use daemon::Daemon;
pub use error::DaemonError;
pub use events::log_reference;
pub use health::{
    Check, CheckState, Health, HealthState, health_socket, query_health, serve_health,
};
pub use http::{AgentConfig, HttpAddr, HttpConfig, HttpServer, Observed};
pub use logging::{LOG_VARIABLE, LogControl, LogLines, init_logging};
pub use process::{notify_supervisor, prepare_process, refuse_root};
pub use reload::{Apply, Reload, ReloadPart};
pub use run::{Start, command, counted, run_main};
pub use runtime::{Share, Threads, runtime};
pub use secret::{SecretError, SecretFile};
pub use shutdown::Shutdown;
pub use units::{ByteSize, Interval, UnitError};
