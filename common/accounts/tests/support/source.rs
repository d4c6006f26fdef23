//! Accounts of a directory as a test wants them: from it, or, if the test's name says so, asked for over a socket.

use std::time::Duration;

use postroad_accounts::{Accounts, DirectoryService, RemoteAccounts, ServiceTerms};
use postroad_daemon::AccountsConfig;
use postroad_directory::{DecoyKey, DirectoryHandle};
use postroad_metrics::Metrics;
use postroad_rpc::{Endpoint, ServeOptions, Server};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

/// Nobody listens to changes, so whatever is remembered is asked again, and a change holds at once as it does with a file.
pub async fn accounts(directory: &DirectoryHandle, metrics: &Metrics) -> Accounts {
    if !env!("CARGO_CRATE_NAME").ends_with("from_queue") {
        return Accounts::of_file(directory.clone(), metrics);
    }
    let folder = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::Unix(folder.path().join("queue.sock"));
    let server = Server::bind(&endpoint, None, ServeOptions::default());
    let server = server.await.unwrap();
    let stop = CancellationToken::new();
    let terms = || ServiceTerms {
        max_age: Duration::from_secs(600),
        verifiers_per_minute: 600,
    };
    let key = DecoyKey::new([9; 32]);
    let service = DirectoryService::new(directory.clone(), key, terms, stop.clone());
    tokio::spawn(async move {
        let routes = Routes::new(service.into_server());
        server.serve(routes, stop).await.unwrap();
        drop(folder);
    });
    let config = AccountsConfig::default();
    Accounts::of_queue(RemoteAccounts::connect(&[endpoint], None, &config, metrics).unwrap())
}
