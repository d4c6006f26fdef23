//! An agent with its surroundings, ready to be started.

use std::path::Path;
use std::sync::Arc;

use postroad_daemon::CommonConfig;
use postroad_directory::{Directory, DirectoryHandle};
use postroad_dns::FixedZone;
use postroad_metrics::Metrics;
use postroad_mta::{Config, Dependencies};
use postroad_net::Networks;

use crate::fake_queue::FakeQueue;

pub const DIRECTORY: &str = r#"
[[domain]]
name = "ours.test"
postmaster = "alice@ours.test"

[[account]]
address = "alice@ours.test"

[[account]]
address = "bob@ours.test"
disabled = true

[[alias]]
address = "team@ours.test"
to = ["alice@ours.test", "carol@elsewhere.test"]

[[alias]]
address = "round@ours.test"
to = ["about@ours.test"]

[[alias]]
address = "about@ours.test"
to = ["round@ours.test"]
"#;

/// Loopback may be sent to; nothing is taken from outside.
pub fn config() -> Config {
    let mut config = Config::default();
    config.inbound.enabled = false;
    config.outbound.allow_networks = Networks::parse(["127.0.0.0/8"]).unwrap();
    config
}

pub fn common() -> CommonConfig {
    CommonConfig {
        hostname: "mta.ours.test".parse().unwrap(),
        ..CommonConfig::default()
    }
}

pub fn deps(queue: &FakeQueue, zone: &str) -> Dependencies {
    let directory = Directory::parse(Path::new("directory.toml"), DIRECTORY).unwrap();
    Dependencies {
        queue: Arc::new(queue.clone()),
        directory: DirectoryHandle::from_directory(directory),
        resolver: Arc::new(FixedZone::parse(Path::new("zone"), zone).unwrap()),
        metrics: Metrics::new("mta"),
    }
}
