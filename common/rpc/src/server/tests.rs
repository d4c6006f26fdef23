use std::fs;
use std::future::pending;
use std::path::Path;

use postroad_net::{PeerIdentity, PeerRole, Transport, UnixRole, UnixRoles};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus as Answer;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::*;
use crate::{dial, dial_pool, peer_identity, require_role};

const SOON: Duration = Duration::from_secs(10);

struct Authority {
    dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        fs::write(
            dir.path().join("ca.pem"),
            params.self_signed(&key).unwrap().pem(),
        )
        .unwrap();
        Self {
            dir,
            issuer: Issuer::new(params, key),
        }
    }

    fn issue(&self, name: &str, roles: &[PeerRole]) -> RpcTls {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        for role in roles {
            params.subject_alt_names.push(SanType::URI(
                format!("postroad://role/{role}").try_into().unwrap(),
            ));
        }
        let key = KeyPair::generate().unwrap();
        let file = |end: &str| self.dir.path().join(format!("{name}{end}"));
        let tls = RpcTls {
            ca_file: self.dir.path().join("ca.pem"),
            cert_file: file(".pem"),
            key_file: file(".key"),
        };
        fs::write(
            &tls.cert_file,
            params.signed_by(&key, &self.issuer).unwrap().pem(),
        )
        .unwrap();
        fs::write(&tls.key_file, key.serialize_pem()).unwrap();
        tls
    }
}

struct Running {
    endpoint: Endpoint,
    health: HealthReporter,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), Error>>,
}

impl Running {
    async fn start(
        endpoint: Endpoint,
        tls: Option<&RpcTls>,
        options: ServeOptions,
        routes: Routes,
    ) -> Self {
        let server = Server::bind(&endpoint, tls, options).await.unwrap();
        let (endpoint, health) = (server.endpoint().clone(), server.health());
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(server.serve(routes, shutdown.clone()));
        Self {
            endpoint,
            health,
            shutdown,
            task,
        }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        timeout(SOON, self.task)
            .await
            .expect("the server must end")
            .unwrap()
            .unwrap();
    }
}

fn localhost() -> Endpoint {
    "tcp:localhost:0".parse().unwrap()
}

fn socket_in(dir: &Path) -> Endpoint {
    Endpoint::Unix(dir.join("queue.sock"))
}

async fn check(channel: Channel, service: &str) -> Result<Answer, Status> {
    let request = HealthCheckRequest {
        service: service.to_owned(),
    };
    let answer = timeout(SOON, HealthClient::new(channel).check(request))
        .await
        .expect("no answer in time")?;
    Ok(answer.into_inner().status())
}

/// A service of ours that answers with its caller's name, to MTAs alone; built on the health contract, which is
/// at hand. Its watch never ends.
#[derive(Clone)]
struct WhoAmI;

#[tonic::async_trait]
impl Health for WhoAmI {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        require_role(&request, &[PeerRole::Mta])?;
        let PeerIdentity {
            name, transport, ..
        } = peer_identity(&request)?;
        Err(Status::already_exists(format!("{name} {transport:?}")))
    }

    type WatchStream = std::pin::Pin<
        Box<dyn tokio_stream::Stream<Item = Result<HealthCheckResponse, Status>> + Send>,
    >;

    async fn watch(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let first = tokio_stream::once(Ok(HealthCheckResponse::default()));
        let never = tokio_stream::StreamExt::chain(first, tokio_stream::pending());
        Ok(Response::new(Box::pin(never)))
    }
}
