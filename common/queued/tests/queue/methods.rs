//! Every method of every service, tried by every role and by none, over Unix sockets and over mutual TLS. The methods come
//! from the contract: a new one fails here until it has its line in [`ALLOWED`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::path::Path;

use futures::stream;
use jiff::Timestamp;
use postroad_daemon::{CommonConfig, TlsFiles};
use postroad_net::{PeerRole, Roles, UnixRole};
use postroad_pki::{AuthorityTerms, Holder, Kind, Permits, Pki, Request as Wanted};
use postroad_proto::FILE_DESCRIPTOR_SET;
use postroad_queued::serve_rpc;
use postroad_rpc::{Endpoint, dial, serves};
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Code, Request};
use tonic_prost::ProstCodec;

use crate::setup::{PATIENCE, Stack, common, config};

use PeerRole::{Admin, Mda, Msa, Mta, Queued};

const SUBMITTERS: &[PeerRole] = &[Msa, Mta, Mda];
const AGENTS: &[PeerRole] = &[Msa, Mta, Mda, Queued];
const OPERATORS: &[PeerRole] = &[Admin];

/// Who may call what.
const ALLOWED: &[(&str, &[PeerRole])] = &[
    ("postroad.queue.v1.Queue/Submit", SUBMITTERS),
    ("postroad.queue.v1.Queue/SubmitMany", SUBMITTERS),
    ("postroad.queue.v1.Queue/Admit", SUBMITTERS),
    ("postroad.queue.v1.Queue/Work", &[Mta, Mda]),
    ("postroad.queue.v1.Queue/Read", &[Mta, Mda, Admin]),
    ("postroad.queue.v1.Queue/Record", AGENTS),
    ("postroad.queue.v1.Queue/Count", &[Msa, Mta]),
    ("postroad.queue.v1.Queue/Withdraw", &[Msa]),
    ("postroad.queue.v1.QueueAdmin/List", OPERATORS),
    ("postroad.queue.v1.QueueAdmin/Find", OPERATORS),
    ("postroad.queue.v1.QueueAdmin/Show", OPERATORS),
    ("postroad.queue.v1.QueueAdmin/Hold", OPERATORS),
    ("postroad.queue.v1.QueueAdmin/Release", OPERATORS),
    ("postroad.queue.v1.QueueAdmin/PutHoldRule", OPERATORS),
    ("postroad.queue.v1.QueueAdmin/RemoveHoldRule", OPERATORS),
    ("postroad.queue.v1.QueueAdmin/ListHoldRules", OPERATORS),
    ("postroad.queue.v1.QueueAdmin/PutSuppression", OPERATORS),
    ("postroad.queue.v1.QueueAdmin/ReleaseSuppression", OPERATORS),
    ("postroad.queue.v1.QueueAdmin/ListSuppressions", OPERATORS),
    ("postroad.queue.v1.QueueAdmin/Usage", OPERATORS),
    ("postroad.queue.v1.QueueAdmin/Counters", OPERATORS),
    ("postroad.queue.v1.QueueAdmin/ClearCounters", OPERATORS),
    ("postroad.queue.v1.QueueAdmin/Retry", OPERATORS),
    ("postroad.queue.v1.QueueAdmin/Fail", OPERATORS),
    ("postroad.queue.v1.QueueAdmin/Drop", OPERATORS),
    ("postroad.queue.v1.QueueAdmin/Reroute", OPERATORS),
    ("postroad.queue.v1.QueueAdmin/Expire", OPERATORS),
    ("postroad.queue.v1.QueueAdmin/Priority", OPERATORS),
    ("postroad.queue.v1.QueueAdmin/Purge", OPERATORS),
    ("postroad.queue.v1.QueueAdmin/Resend", OPERATORS),
    ("postroad.queue.v1.QueueAdmin/Stats", OPERATORS),
    ("postroad.queue.v1.QueueAdmin/Trace", OPERATORS),
    ("postroad.queue.v1.QueueAdmin/Agents", OPERATORS),
    ("postroad.queue.v1.QueueAdmin/DrainAgent", OPERATORS),
    ("postroad.queue.v1.QueueAdmin/Verify", OPERATORS),
    ("postroad.queue.v1.QueueAdmin/Backup", OPERATORS),
    ("postroad.queue.v1.QueueAdmin/Import", OPERATORS),
    ("postroad.queue.v1.QueueAdmin/Watch", OPERATORS),
    ("postroad.queue.v1.QueueAdmin/Sites", OPERATORS),
    ("postroad.queue.v1.QueueAdmin/LiftSite", OPERATORS),
    ("postroad.directory.v1.Directory/Resolve", SUBMITTERS),
    ("postroad.directory.v1.Directory/Sender", &[Msa]),
    ("postroad.directory.v1.Directory/Verifier", &[Msa]),
    ("postroad.directory.v1.Directory/Watch", SUBMITTERS),
];

/// `package.Service/Method` of the whole contract.
fn methods() -> BTreeSet<String> {
    let contract = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    let mut methods = BTreeSet::new();
    for file in &contract.file {
        for service in &file.service {
            for method in &service.method {
                let (service, method) = (service.name(), method.name());
                methods.insert(format!("{}.{service}/{method}", file.package()));
            }
        }
    }
    methods
}

fn allowed(method: &str) -> &'static [PeerRole] {
    let line = ALLOWED.iter().find(|(name, _)| *name == method);
    line.unwrap_or_else(|| panic!("{method}: say who may call it"))
        .1
}

/// Calls with an empty message. A refusal comes before anything else; whatever comes after it means that the caller may.
async fn call(channel: Channel, method: &str) -> Code {
    let mut grpc = Grpc::new(channel);
    let path: PathAndQuery = format!("/{method}").parse().unwrap();
    let answer = async {
        if let Err(error) = grpc.ready().await {
            return tonic::Status::from_error(error.into()).code();
        }
        let codec = ProstCodec::<(), ()>::default();
        let request = Request::new(stream::iter([()]));
        match grpc.streaming(request, path, codec).await {
            Ok(_) => Code::Ok,
            Err(status) => status.code(),
        }
    };
    let code = tokio::time::timeout(PATIENCE, answer).await;
    code.unwrap_or_else(|_| panic!("{method} does not answer"))
}

/// A service that nobody serves there answers nobody.
fn judge(who: &str, roles: Roles, codes: &BTreeMap<String, Code>) {
    let service = |method: &str| method.split('/').next().unwrap_or_default().to_owned();
    let served: BTreeSet<String> = codes
        .iter()
        .filter(|(_, code)| **code != Code::Unimplemented)
        .map(|(method, _)| service(method))
        .collect();
    assert!(!served.is_empty(), "{who}: {codes:?}");
    for (method, code) in codes {
        if !served.contains(&service(method)) {
            continue;
        }
        let may = allowed(method).iter().any(|role| roles.contains(*role));
        let refused = matches!(code, Code::PermissionDenied | Code::Unauthenticated);
        assert_eq!(refused, !may, "{who} calls {method}: {code:?}");
        if refused {
            assert_eq!(*code, Code::PermissionDenied, "{who} calls {method}");
        }
    }
}

/// A queue behind all of its sockets.
struct Served {
    stack: Stack,
    common: CommonConfig,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Served {
    /// Whoever comes by a Unix socket has these roles.
    async fn to(roles: Roles) -> Self {
        let mut config = config();
        config.listen.unix_roles = vec![UnixRole {
            uid: Some(rustix::process::geteuid().as_raw()),
            gid: None,
            roles,
            accounts: Default::default(),
        }];
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr();
        let tcp = format!("tcp:localhost:{}", port.unwrap().port());
        config.listen.tcp = Some(tcp.parse().unwrap());
        let stack = Stack::with(config).await;
        let common = CommonConfig {
            tls: Some(certificate(stack.folder.path(), "queued")),
            ..common(stack.folder.path())
        };
        let (queue, stop, terms) = (
            stack.queue.clone(),
            CancellationToken::new(),
            common.clone(),
        );
        let stopping = stop.clone();
        let task = tokio::spawn(async move {
            serve_rpc(&queue, &terms, stopping).await.unwrap();
        });
        Self {
            stack,
            common,
            stop,
            task,
        }
    }

    fn tcp(&self) -> Endpoint {
        self.stack.config.listen.tcp.clone().unwrap()
    }

    async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap();
        self.stack.stop().await;
    }
}

/// That of a role, or the one of a mail host, which has none.
fn certificate(folder: &Path, name: &str) -> TlsFiles {
    let pki = Pki::at(folder.join("pki"));
    let now = Timestamp::now();
    let terms = AuthorityTerms::new("Test authority", Permits::default());
    pki.init(&terms, false, now).unwrap();
    let names = ["localhost"];
    let (kind, wanted) = match name.parse::<PeerRole>() {
        Ok(role) => (Kind::Agent, Wanted::agent(role, &names, 2)),
        Err(_) => (Kind::Server, Wanted::server(&names, 2)),
    };
    let holder = Holder {
        name: name.to_owned(),
        kind,
    };
    pki.issue(&holder, &wanted.unwrap(), None, false, now)
        .unwrap();
    let [_, cert_file, key_file] = kind.files().map(|file| pki.path(name, file));
    TlsFiles {
        ca_file: pki.authority_file(),
        cert_file,
        key_file,
        revoked: None,
        warning: None,
    }
}

async fn is_up(channel: &Channel) {
    let up = async {
        while serves(channel.clone()).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, up).await.expect("in time");
}

async fn call_all(channel: &Channel) -> BTreeMap<String, Code> {
    let mut codes = BTreeMap::new();
    for method in methods() {
        let code = call(channel.clone(), &method).await;
        codes.insert(method, code);
    }
    codes
}

#[test]
fn every_method_says_who_may_call_it() {
    let methods = methods();
    assert!(methods.len() > 30, "{methods:?}");
    for method in &methods {
        assert!(!allowed(method).is_empty(), "{method} is for nobody");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn over_a_unix_socket_each_role_may_call_what_is_its_own() {
    let each = PeerRole::ALL.map(|role| Roles::from(vec![role]));
    for roles in each.into_iter().chain([Roles::NONE]) {
        let served = Served::to(roles).await;
        let config = &served.stack.config;
        for endpoint in [
            config.agents_endpoint(&served.common),
            config.admin_endpoint(&served.common),
        ] {
            let channel = dial(&endpoint, None).unwrap();
            is_up(&channel).await;
            judge(&roles.to_string(), roles, &call_all(&channel).await);
        }
        served.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn over_mutual_tls_each_role_may_call_what_is_its_own_and_nobody_else_anything() {
    // What a user of this host may do is of no account there.
    let served = Served::to(Roles::all()).await;
    let folder = served.stack.folder.path();
    for role in PeerRole::ALL {
        let tls = certificate(folder, role.as_str());
        let channel = dial(&served.tcp(), Some(&tls)).unwrap();
        is_up(&channel).await;
        let roles = Roles::from(vec![role]);
        judge(&format!("{role} by TLS"), roles, &call_all(&channel).await);
    }
    let tls = certificate(folder, "server");
    let channel = dial(&served.tcp(), Some(&tls)).unwrap();
    for (method, code) in call_all(&channel).await {
        let cut_off = matches!(
            code,
            Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled
        );
        assert!(cut_off, "nobody calls {method}: {code:?}");
    }
    served.end().await;
}
