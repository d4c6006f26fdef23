//! The agent as a process of its own: what it leans on, made from the configuration.

use std::sync::Arc;
use std::time::Duration;

use postroad_daemon::{AddressFamily, CommonConfig, DaemonError, DnsConfig, Start};
use postroad_directory::DirectoryHandle;
use postroad_dns::{Prefer, ResolverOptions};
use postroad_queue_client::RemoteQueue;
use postroad_rpc::{Endpoint, RpcTls};

use crate::{Config, Dependencies, Mta};

/// How often the directory is looked at for changes.
const DIRECTORY_WATCH: Duration = Duration::from_secs(2);

/// Connects to the queue, reads and watches the directory, sets up the resolver, serves.
pub async fn run(start: Start<Config>) -> Result<(), DaemonError> {
    let Start {
        common,
        config,
        file,
        shutdown,
        health,
    } = start;
    if let Some(problem) = config.check(&file).into_iter().next() {
        return Err(problem.into());
    }
    let ready = health.check("mta");
    let directory = DirectoryHandle::open(&common.directory).map_err(DaemonError::config)?;
    let dependencies = Dependencies {
        queue: Arc::new(connect(&common)?),
        directory: directory.clone(),
        resolver: resolver_options(&common.dns)
            .open()
            .map_err(DaemonError::config)?,
    };
    let mta = Mta::bind(config, &common, dependencies)?;
    ready.ready();
    let stop = shutdown.token().clone();
    tokio::join!(
        mta.run(stop.clone()),
        directory.watch(DIRECTORY_WATCH, stop)
    );
    Ok(())
}

fn connect(common: &CommonConfig) -> Result<RemoteQueue, DaemonError> {
    let endpoint: Endpoint = common.queue.parse().map_err(DaemonError::config)?;
    let tls = common.tls.clone().map(|files| RpcTls {
        ca_file: files.ca_file,
        cert_file: files.cert_file,
        key_file: files.key_file,
    });
    RemoteQueue::connect(&endpoint, tls.as_ref()).map_err(DaemonError::config)
}

/// `[common.dns]` in the words of the resolver.
pub fn resolver_options(dns: &DnsConfig) -> ResolverOptions {
    ResolverOptions {
        zone: dns.zone.clone(),
        zone_falls_through: dns.zone_falls_through,
        servers: dns.servers.iter().map(|server| server.0).collect(),
        timeout: dns.timeout.into(),
        attempts: dns.attempts,
        cache_size: dns.cache_size,
        edns: dns.edns,
        prefer: match dns.prefer {
            AddressFamily::Ipv6 => Prefer::Ipv6,
            AddressFamily::Ipv4 => Prefer::Ipv4,
        },
    }
}
