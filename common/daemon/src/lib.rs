//! What every process does before and after the work: config, logs, shutdown.
#![forbid(unsafe_code)]

mod common;
mod config;
mod secret;
mod units;

pub use common::{
    AddressFamily, CommonConfig, DnsConfig, LogConfig, LogFormat, LogLevel, NameServer, TlsFiles,
};
pub use config::{
    ConfigError, ConfigFile, DEFAULT_CONFIG_FILE, ENVIRONMENT_PREFIX, EffectiveValue, Place,
    SECTIONS, effective, text,
};
pub use secret::{SecretError, SecretFile};
pub use units::{ByteSize, Interval, UnitError};
