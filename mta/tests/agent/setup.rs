//! An agent with its surroundings, ready to be started.

use std::path::Path;
use std::sync::Arc;

use postroad_daemon::CommonConfig;
use postroad_directory::{Directory, DirectoryHandle};
use postroad_dns::FixedZone;
use postroad_metrics::Metrics;
use postroad_mta::{Config, Dependencies};
use postroad_net::{CertFiles, Networks};

use crate::fake_queue::FakeQueue;
use crate::source::accounts;

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
        // Nothing can be kept there.
        state_dir: "/dev/null/postroad".into(),
        ..CommonConfig::default()
    }
}

pub async fn deps(queue: &FakeQueue, zone: &str) -> Dependencies {
    let directory = Directory::parse(Path::new("directory.toml"), DIRECTORY).unwrap();
    let (directory, metrics) = (
        DirectoryHandle::from_directory(directory),
        Metrics::new("mta"),
    );
    Dependencies {
        queue: Arc::new(queue.clone()),
        accounts: accounts(&directory, &metrics).await,
        resolver: Arc::new(FixedZone::parse(Path::new("zone"), zone).unwrap()),
        metrics,
    }
}

pub fn certificate(folder: &tempfile::TempDir) -> CertFiles {
    let made = rcgen::generate_simple_self_signed(["mx.test".to_owned()]).unwrap();
    let files = CertFiles {
        cert_file: folder.path().join("cert.pem"),
        key_file: folder.path().join("key.pem"),
    };
    std::fs::write(&files.cert_file, made.cert.pem()).unwrap();
    std::fs::write(&files.key_file, made.signing_key.serialize_pem()).unwrap();
    std::fs::set_permissions(
        &files.key_file,
        std::os::unix::fs::PermissionsExt::from_mode(0o600),
    )
    .unwrap();
    files
}
