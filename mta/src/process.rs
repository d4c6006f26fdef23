//! The agent as a process of its own: what it leans on, made from the configuration.

use std::sync::Arc;

use postroad_accounts::Accounts;
use postroad_daemon::{DaemonError, Start};
use postroad_dns::ResolverOptions;
use postroad_queue_client::QueueNodes;

use crate::{Config, Dependencies, Mta};

/// Connects to the queue, reads and watches the directory, sets up the resolver, serves.
pub async fn run(start: Start<Config>) -> Result<(), DaemonError> {
    let Start {
        common,
        config,
        file,
        shutdown,
        health,
        metrics,
        reload,
    } = start;
    if let Some(problem) = config.check(&file).into_iter().next() {
        return Err(problem.into());
    }
    config.warn_of_sources(&file);
    let ready = health.check("mta");
    let stop = shutdown.token().clone();
    let queue = Arc::new(QueueNodes::configured(&common).map_err(DaemonError::config)?);
    queue.count_certificate(&metrics);
    let asking = queue.keep_check(health.dependency("queue"), &metrics, stop.clone());
    let accounts = Accounts::configured(&common, &metrics).map_err(DaemonError::config)?;
    let dependencies = Dependencies {
        queue: Arc::clone(&queue) as _,
        accounts: accounts.clone(),
        resolver: ResolverOptions::from(&common.dns)
            .open()
            .map_err(DaemonError::config)?,
        metrics,
    };
    let mta = Mta::bind(config, &common, dependencies)?;
    ready.ready();
    let reloads = vec![mta.reload_part()];
    tokio::join!(
        mta.run(stop.clone()),
        reload.serve(reloads, stop.clone()),
        queue.watch_certificates(stop.clone()),
        accounts.keep(stop),
        asking
    );
    Ok(())
}
