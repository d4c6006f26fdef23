//! The agent as a process of its own: the queue and its sockets.

use std::{sync::Arc, time::Duration};

use postroad_accounts::DirectoryService;
use postroad_daemon::{CommonConfig, DaemonError, HealthState, Reload, Shutdown, Start};
use postroad_directory::DirectoryHandle;
use postroad_metrics::Metrics;
use postroad_net::UnixRoles;
use postroad_proto::{
    FILE_DESCRIPTOR_SET,
    queue::v1::{queue_admin_server::QueueAdminServer, queue_server::QueueServer},
};
use postroad_rpc::{ServeOptions, Server, UnixOptions};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::{
    Config, ConfigError, LocalQueue, ServeError,
    reload::reload_part,
    rpc::{AdminRpc, Admission, AgentsRpc, Gate},
    start,
};

/// How often the directory file is looked at: agents of other hosts learn of a change only after this.
const DIRECTORY_WATCH: Duration = Duration::from_millis(500);

/// The whole of a process of its own.
pub async fn run(start: Start<Config>) -> Result<(), DaemonError> {
    let directory = DirectoryHandle::open(&start.common.directory).map_err(DaemonError::config)?;
    let served = serve_with(
        start.config,
        &start.common,
        directory,
        &start.health,
        &start.metrics,
        start.shutdown,
        Some(start.reload),
    );
    served.await.map_err(ServeError::into_daemon_error)
}

/// Runs the queue and its sockets until `shutdown`, or until the disk fails.
pub async fn serve(
    config: Config,
    common: &CommonConfig,
    directory: DirectoryHandle,
    health: &HealthState,
    metrics: &Metrics,
    shutdown: Shutdown,
) -> Result<(), ServeError> {
    serve_with(config, common, directory, health, metrics, shutdown, None).await
}

async fn serve_with(
    config: Config,
    common: &CommonConfig,
    directory: DirectoryHandle,
    health: &HealthState,
    metrics: &Metrics,
    shutdown: Shutdown,
    reload: Option<Reload>,
) -> Result<(), ServeError> {
    let (ready, listening) = (health.check("queue"), health.check("sockets"));
    let sockets_config = config.clone();
    let grace = common.shutdown_grace.as_duration();
    let (queue, running) = start(config, common, directory.clone(), metrics).await?;
    // The sockets outlive the leases: workers must be able to settle while the queue drains.
    let (stop_queue, stop_sockets) = (CancellationToken::new(), CancellationToken::new());
    let watch = directory.watch(DIRECTORY_WATCH, shutdown.token().clone());
    let sockets = bind(&queue, &sockets_config, common, grace / 4).await;
    let mut sockets = match sockets {
        Ok(sockets) => sockets,
        Err(failed) => {
            stop_queue.cancel();
            running.run(stop_queue, Duration::ZERO).await?;
            return Err(failed);
        }
    };
    listening.ready();
    let health = queue.keep_check(&ready);
    let mut serving = sockets.serve(&stop_sockets);
    let queue_runs = running.run(stop_queue.clone(), grace / 2);
    let reloading = async {
        if let Some(reload) = reload {
            let current = queue.clone();
            let part = reload_part(move || Some(current.clone()), |_| ());
            reload.serve(vec![part], shutdown.token().clone()).await;
        }
    };
    let health = async {
        tokio::join!(health, reloading);
        std::future::pending::<()>().await;
    };
    tokio::pin!(queue_runs, watch, health);
    let failed_socket = tokio::select! {
        biased;
        () = &mut health => None,
        ended = &mut queue_runs => {
            stop_sockets.cancel();
            while serving.join_next().await.is_some() {}
            return ended;
        }
        () = shutdown.requested() => None,
        ended = serving.join_next() => ended,
        () = &mut watch => None,
    };
    stop_queue.cancel();
    let ended = queue_runs.await;
    stop_sockets.cancel();
    while serving.join_next().await.is_some() {}
    match failed_socket {
        Some(Ok(Err(failed))) => ended.and(Err(failed.into())),
        Some(Err(panicked)) => ended.and(Err(ServeError::Task(panicked.to_string()))),
        _ => ended,
    }
}

/// Serves the sockets of a queue that was started with [`start()`], for programs that hold several agents.
pub async fn serve_rpc(
    queue: &LocalQueue,
    common: &CommonConfig,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let grace = common.shutdown_grace.as_duration() / 4;
    let mut sockets = bind(queue, &queue.front.config(), common, grace).await?;
    let mut serving = sockets.serve(&shutdown);
    let mut outcome = Ok(());
    while let Some(ended) = serving.join_next().await {
        let ended = ended.map_err(|error| ServeError::Task(error.to_string()));
        outcome = outcome.and(ended.and_then(|ended| Ok(ended?)));
        // One socket gone: better to end than to serve half.
        shutdown.cancel();
    }
    outcome
}

/// Sockets that are bound and do not accept yet.
struct Sockets(Vec<(Server, Routes)>);

impl Sockets {
    fn serve(&mut self, stop: &CancellationToken) -> JoinSet<Result<(), postroad_rpc::Error>> {
        let mut serving = JoinSet::new();
        for (server, routes) in self.0.drain(..) {
            serving.spawn(server.serve(routes, stop.clone()));
        }
        serving
    }
}

async fn bind(
    queue: &LocalQueue,
    config: &Config,
    common: &CommonConfig,
    grace: Duration,
) -> Result<Sockets, ServeError> {
    let listen = &config.listen;
    let mut options = ServeOptions {
        unix: UnixOptions {
            roles: UnixRoles(listen.unix_roles.clone()),
            ..UnixOptions::default()
        },
        descriptors: vec![FILE_DESCRIPTOR_SET],
        ..ServeOptions::default()
    };
    options.limits.grace = grace;
    let mut sockets = Vec::new();
    let agents = (config.agents_endpoint(common), agent_routes(queue));
    let admin = (config.admin_endpoint(common), admin_routes(queue));
    // Over TCP the certificate says who is an operator.
    let tcp = listen.tcp.clone().map(|endpoint| {
        let admin = AdminRpc {
            queue: Arc::new(queue.clone()),
        };
        (
            endpoint,
            agent_routes(queue).add_service(QueueAdminServer::new(admin)),
        )
    });
    if tcp.is_some() && common.tls.is_none() {
        return Err(ConfigError::NoCertificates.into());
    }
    for (endpoint, routes) in [agents, admin].into_iter().chain(tcp) {
        let server = Server::bind(&endpoint, common.tls.as_ref(), options.clone()).await?;
        // The last one is that over TCP, if there is one.
        server.count_certificate(queue.front.counts.metrics());
        tracing::info!(event = "listening", listener = "queue", address = %server.endpoint());
        sockets.push((server, routes));
    }
    Ok(Sockets(sockets))
}

fn agent_routes(queue: &LocalQueue) -> Routes {
    let front = &queue.front;
    let agents = AgentsRpc {
        queue: Arc::new(queue.clone()),
        gate: Gate::new(Arc::clone(front)),
        admission: Admission {
            closed: front.admission.subscribe(),
            unasked: front.unasked.subscribe(),
        },
        stopping: front.stopping.clone(),
        tasks: front.tasks.clone(),
    };
    let config = Arc::clone(&front.config);
    let terms = move || config.load().accounts.terms();
    let directory = DirectoryService::new(
        front.directory.clone(),
        front.decoys.clone(),
        terms,
        front.stopping.clone(),
    );
    Routes::new(QueueServer::new(agents)).add_service(directory.into_server())
}

fn admin_routes(queue: &LocalQueue) -> Routes {
    Routes::new(QueueAdminServer::new(AdminRpc {
        queue: Arc::new(queue.clone()),
    }))
}
