use std::convert::Infallible;
use std::fs;
use std::future::{Ready, ready};
use std::path::Path;
use std::task::{Context, Poll};

use postroad_net::{PeerRole, Roles, UnixRole, UnixRoles};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::metadata::MetadataMap;
use tonic::server::NamedService;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_health::pb::health_check_response::ServingStatus as Answer;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use tonic_prost::ProstCodec;
use tower::Service;

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

    fn issue(&self, name: &str, roles: &[PeerRole]) -> TlsFiles {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        for role in roles {
            params.subject_alt_names.push(SanType::URI(
                format!("postroad://role/{role}").try_into().unwrap(),
            ));
        }
        let key = KeyPair::generate().unwrap();
        let file = |end: &str| self.dir.path().join(format!("{name}{end}"));
        let tls = TlsFiles {
            ca_file: self.dir.path().join("ca.pem"),
            cert_file: file(".pem"),
            key_file: file(".key"),
            revoked: None,
            warning: None,
        };
        fs::write(
            &tls.cert_file,
            params.signed_by(&key, &self.issuer).unwrap().pem(),
        )
        .unwrap();
        fs::write(&tls.key_file, key.serialize_pem()).unwrap();
        fs::set_permissions(
            &tls.key_file,
            std::os::unix::fs::PermissionsExt::from_mode(0o600),
        )
        .unwrap();
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
        tls: Option<&TlsFiles>,
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

/// A service that answers with its caller, to MTAs alone. The answer travels as a status: no contract is needed.
#[derive(Clone)]
struct WhoAmI;

impl NamedService for WhoAmI {
    const NAME: &'static str = "test.WhoAmI";
}

impl Service<http::Request<Body>> for WhoAmI {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let extensions = request.into_parts().0.extensions;
        let request = Request::from_parts(MetadataMap::new(), extensions, ());
        let answer =
            require_role(&request, &[PeerRole::Mta]).and_then(|()| peer_identity(&request));
        let status = match answer {
            Ok(peer) => {
                Status::already_exists(format!("{} {} {:?}", peer.name, peer.roles, peer.transport))
            }
            Err(status) => status,
        };
        ready(Ok(status.into_http()))
    }
}

async fn who_am_i(channel: Channel) -> Status {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static("/test.WhoAmI/Ask");
    let codec = ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
    let call = client.unary(Request::new(HealthCheckRequest::default()), path, codec);
    timeout(SOON, call)
        .await
        .expect("no answer in time")
        .expect_err("it answers by a status")
}

fn who_routes() -> Routes {
    Routes::new(WhoAmI)
}

#[tokio::test]
async fn health_and_identity_over_a_unix_socket() {
    let dir = tempfile::tempdir().unwrap();
    let server = Running::start(
        socket_in(dir.path()),
        None,
        ServeOptions::default(),
        who_routes(),
    )
    .await;
    let channel = dial(&server.endpoint, None).unwrap();
    assert_eq!(check(channel.clone(), "").await.unwrap(), Answer::Serving);
    assert_eq!(
        check(channel.clone(), "no.such.Service")
            .await
            .unwrap_err()
            .code(),
        Code::NotFound
    );
    server
        .health
        .set_service_status("queue", ServingStatus::NotServing)
        .await;
    assert_eq!(
        check(channel.clone(), "queue").await.unwrap(),
        Answer::NotServing
    );

    let answer = who_am_i(channel).await;
    assert_eq!(answer.code(), Code::AlreadyExists, "{answer}");
    assert!(
        answer
            .message()
            .ends_with(&format!("{} Unix", Roles::all())),
        "{answer}"
    );
    server.stop().await;
    assert!(!dir.path().join("queue.sock").exists());
}

#[tokio::test]
async fn a_user_without_the_role_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let rule = |uid| UnixRole {
        uid: Some(uid),
        gid: None,
        roles: Roles::from(vec![PeerRole::Msa]),
        accounts: Default::default(),
    };
    let own_uid = std::os::unix::fs::MetadataExt::uid(&fs::metadata(dir.path()).unwrap());
    let unix = UnixOptions {
        roles: UnixRoles(vec![rule(own_uid)]),
        ..UnixOptions::default()
    };
    let options = ServeOptions {
        unix,
        ..ServeOptions::default()
    };
    let server = Running::start(socket_in(dir.path()), None, options, who_routes()).await;
    let answer = who_am_i(dial(&server.endpoint, None).unwrap()).await;
    assert_eq!(answer.code(), Code::PermissionDenied, "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn health_and_identity_over_mutual_tls() {
    let authority = Authority::new();
    let queued = authority.issue("queued", &[PeerRole::Queued]);
    let server = Running::start(
        localhost(),
        Some(&queued),
        ServeOptions::default(),
        who_routes(),
    )
    .await;

    let edge = dial(
        &server.endpoint,
        Some(&authority.issue("edge", &[PeerRole::Mta, PeerRole::Msa])),
    )
    .unwrap();
    assert_eq!(check(edge.clone(), "").await.unwrap(), Answer::Serving);
    assert_eq!(who_am_i(edge).await.message(), "edge msa,mta MutualTls");

    let store = dial(
        &server.endpoint,
        Some(&authority.issue("store", &[PeerRole::Mda])),
    )
    .unwrap();
    assert_eq!(who_am_i(store).await.code(), Code::PermissionDenied);
    server.stop().await;
}

/// Who has some agent's certificate, and gets calls led to itself, is handed no mail.
#[tokio::test]
async fn an_agent_that_is_no_queue_is_not_called() {
    let authority = Authority::new();
    let own = authority.issue("msa", &[PeerRole::Msa]);
    let server = Running::start(
        localhost(),
        Some(&own),
        ServeOptions::default(),
        Routes::default(),
    )
    .await;
    let edge = authority.issue("edge", &[PeerRole::Mta]);
    let why = crate::serves(dial(&server.endpoint, Some(&edge)).unwrap()).await;
    let why = why.unwrap_err();
    assert!(
        why.contains("does not name the role queued, but msa"),
        "{why}"
    );
    server.stop().await;
}

#[tokio::test]
async fn strangers_do_not_get_as_far_as_a_call() {
    let (ours, foreign) = (Authority::new(), Authority::new());
    let queued = ours.issue("queued", &[PeerRole::Queued]);
    let server = Running::start(
        localhost(),
        Some(&queued),
        ServeOptions::default(),
        Routes::default(),
    )
    .await;

    let theirs = foreign.issue("edge", &[PeerRole::Admin]);
    let believing_us = TlsFiles {
        ca_file: queued.ca_file.clone(),
        ..theirs.clone()
    };
    for tls in [theirs, believing_us] {
        let refused = check(dial(&server.endpoint, Some(&tls)).unwrap(), "")
            .await
            .unwrap_err();
        assert_ne!(refused.code(), Code::NotFound, "{refused}");
        assert!(
            matches!(
                refused.code(),
                Code::Unavailable | Code::Unknown | Code::Internal
            ),
            "{refused}"
        );
    }
    let plain = tonic::transport::Endpoint::from_shared(
        server.endpoint.to_string().replace("tcp:", "http://"),
    );
    assert!(
        check(plain.unwrap().connect_lazy(), "").await.is_err(),
        "plain text over TCP"
    );
    server.stop().await;
}

#[tokio::test]
async fn tcp_without_certificates_does_not_exist() {
    let bound = Server::bind(&localhost(), None, ServeOptions::default()).await;
    assert!(matches!(bound.err(), Some(Error::TlsMissing(_))));
    assert!(matches!(
        dial(&localhost(), None).err(),
        Some(Error::TlsMissing(_))
    ));
}

#[tokio::test]
async fn a_lazy_channel_finds_a_server_that_comes_later_and_again_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let endpoint = socket_in(dir.path());
    let pool = dial_pool(&endpoint, None, 2).unwrap();
    assert_eq!(pool.size(), 2);
    assert_eq!(
        check(pool.pick(), "").await.unwrap_err().code(),
        Code::Unavailable
    );
    for _ in 0..2 {
        let server = Running::start(
            endpoint.clone(),
            None,
            ServeOptions::default(),
            Routes::default(),
        )
        .await;
        for _ in 0..2 {
            // A connection the restart closed may fail one call before the channel notices.
            let channel = pool.pick();
            let answer = match check(channel.clone(), "").await {
                Err(_) => check(channel, "").await,
                answer => answer,
            };
            assert_eq!(answer.unwrap(), Answer::Serving);
        }
        server.stop().await;
    }
}

#[tokio::test]
async fn shutdown_ends_health_watches_at_once_and_other_calls_after_the_grace_period() {
    let authority = Authority::new();
    let dir = tempfile::tempdir().unwrap();
    let tls = authority.issue("all", &PeerRole::ALL);
    for endpoint in [socket_in(dir.path()), localhost()] {
        let limits = Limits {
            grace: Duration::from_millis(200),
            ..ServeOptions::default().limits
        };
        let options = ServeOptions {
            limits,
            ..ServeOptions::default()
        };
        let server = Running::start(endpoint, Some(&tls), options, Routes::default()).await;
        server
            .health
            .set_service_status("endless", ServingStatus::Serving)
            .await;
        let mut client = HealthClient::new(dial(&server.endpoint, Some(&tls)).unwrap());
        let watch = |service: &str| HealthCheckRequest {
            service: service.to_owned(),
        };
        let mut whole = client.watch(watch("")).await.unwrap().into_inner();
        let mut endless = client.watch(watch("endless")).await.unwrap().into_inner();
        assert_eq!(
            whole.message().await.unwrap().unwrap().status(),
            Answer::Serving
        );
        assert_eq!(
            endless.message().await.unwrap().unwrap().status(),
            Answer::Serving
        );

        server.shutdown.cancel();
        assert_eq!(
            whole.message().await.unwrap().unwrap().status(),
            Answer::NotServing
        );
        assert!(whole.message().await.unwrap().is_none());
        assert!(
            timeout(SOON, endless.message()).await.unwrap().is_err(),
            "cut at the end of the grace period"
        );
        server.stop().await;
    }
}

#[tokio::test]
async fn connections_over_the_limit_wait_their_turn_on_a_unix_socket() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits {
        max_connections: 1,
        ..ServeOptions::default().limits
    };
    let options = ServeOptions {
        limits,
        ..ServeOptions::default()
    };
    let server = Running::start(socket_in(dir.path()), None, options, Routes::default()).await;
    let first = dial(&server.endpoint, None).unwrap();
    assert_eq!(check(first.clone(), "").await.unwrap(), Answer::Serving);
    let second = dial(&server.endpoint, None).unwrap();
    let waiting = tokio::spawn(check(second, ""));
    assert_eq!(check(first.clone(), "").await.unwrap(), Answer::Serving);
    assert!(!waiting.is_finished());
    drop(first);
    assert_eq!(waiting.await.unwrap().unwrap(), Answer::Serving);
    server.stop().await;
}

#[tokio::test]
async fn reflection_lists_what_is_registered() {
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

    let dir = tempfile::tempdir().unwrap();
    let server = Running::start(
        socket_in(dir.path()),
        None,
        ServeOptions::default(),
        Routes::default(),
    )
    .await;
    let list = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut client = ServerReflectionClient::new(dial(&server.endpoint, None).unwrap());
    let mut answers = client
        .server_reflection_info(tokio_stream::once(list))
        .await
        .unwrap()
        .into_inner();
    let Some(ServerReflectionResponse {
        message_response: Some(MessageResponse::ListServicesResponse(list)),
        ..
    }) = answers.message().await.unwrap()
    else {
        panic!("no list of services");
    };
    let names: Vec<_> = list
        .service
        .into_iter()
        .map(|service| service.name)
        .collect();
    assert_eq!(
        names,
        [
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection"
        ]
    );
    server.stop().await;
}
