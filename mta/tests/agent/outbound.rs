//! Leases in, outcomes back, and what the hosts heard in between.

mod content;
mod explain;
mod families;
mod guards;
mod hosts;
mod joined;
mod limits;
mod recipients;
mod reuse;
mod security;
mod several;
mod smarthost;
mod tls;
mod tlsrpt;

use std::time::Duration;

use bytes::Bytes;
use postroad_address::ReversePath;
use postroad_daemon::CommonConfig;
use postroad_envelope::{
    BodyKind, DeliverBy, EditPlace, Envelope, Event, Fence, HeaderEdit, JobKey, LeaseRef, Notify,
    Outcome, QueueId, Recipient, RecipientIndex, Ret, Route, RouteClass, Timestamp,
};
use postroad_mta::{Config, TlsPolicy};
use postroad_net::ServerTls;
use postroad_queue_client::{HandBack, Lease, QueueError, Settlement};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::fake_queue::FakeQueue;
use crate::host::{Host, Script, StartTls};
use crate::setup::{certificate, common, config, deps};

const PATIENCE: Duration = Duration::from_secs(60);
const ZONE: &str = "\
example.test.  MX 10 mx.test.
mx.test.       A  127.0.0.1
two.test.      MX 10 mx.test.
two.test.      MX 20 backup.test.
backup.test.   A  127.0.0.2
both.test.     MX 10 mx.both.test.
mx.both.test.  A  127.0.0.1
mx.both.test.  A  127.0.0.2
null.test.     MX 0 .
";
const CONTENT: &[u8] = b"Subject: hi\r\n\r\nhello\r\n.dot\r\n";

fn lease(destination: &str, local_parts: &[&str]) -> Lease {
    let queue_id = QueueId::from_bytes([7; 16]);
    let now = Timestamp::from(std::time::SystemTime::now());
    let sender = ReversePath::parse("alice@ours.test").unwrap();
    let mut envelope = Envelope::new(queue_id, sender, now);
    envelope.recipients = (0..)
        .zip(local_parts)
        .map(|(index, local)| {
            let address = format!("{local}@{destination}").parse().unwrap();
            Recipient::new(RecipientIndex(index), address)
        })
        .collect();
    envelope.size = CONTENT.len() as u64;
    Lease {
        lease: LeaseRef {
            job: JobKey {
                queue_id,
                number: 0,
            },
            revision: 1,
            fence: Fence {
                epoch: 1,
                counter: 1,
            },
        },
        duration: Duration::from_secs(60),
        route: Route::new(RouteClass::Relay, destination, "mx"),
        attempt: 1,
        envelope,
        content: Some(Bytes::from_static(CONTENT)),
        site: None,
        followed_by: 0,
    }
}

/// What came of a lease.
struct Done {
    settled: Option<Settlement>,
    handed_back: Option<HandBack>,
    events: Vec<Event>,
}

impl Done {
    /// `0 delayed 4.4.1` for each recipient.
    fn outcomes(&self) -> Vec<String> {
        let settled = self.settled.as_ref().expect("settled");
        let one = |(index, outcome): &(RecipientIndex, Outcome)| {
            format!("{index} {} {}", outcome.action(), outcome.report().status)
        };
        settled.outcomes.iter().map(one).collect()
    }

    fn text(&self) -> &str {
        &self.settled.as_ref().expect("settled").outcomes[0]
            .1
            .report()
            .text
    }
}

/// Gives the lease to an agent and waits for what comes of it.
async fn run(config: Config, lease: Lease) -> Done {
    run_with(config, lease, &FakeQueue::default()).await
}

async fn run_with(config: Config, lease: Lease, queue: &FakeQueue) -> Done {
    run_in(ZONE, &common(), config, lease, queue).await
}

async fn run_in(
    zone: &str,
    common: &CommonConfig,
    config: Config,
    lease: Lease,
    queue: &FakeQueue,
) -> Done {
    let (told, mut tells) = mpsc::unbounded_channel();
    queue.with(|data| {
        data.leases.push(lease);
        data.told = Some(told);
    });
    let shutdown = CancellationToken::new();
    let deps = deps(queue, zone).await;
    let agent = postroad_mta::serve(config, common, deps, shutdown.clone());
    let wait = async {
        timeout(PATIENCE, tells.recv())
            .await
            .expect("the lease ends in time");
        shutdown.cancel();
    };
    let (served, ()) = tokio::join!(agent, wait);
    served.unwrap();
    queue.with(|data| Done {
        settled: data.settled.pop(),
        handed_back: data.handed_back.pop(),
        events: std::mem::take(&mut data.events),
    })
}

fn to_port(port: u16) -> Config {
    let mut config = config();
    config.outbound.port = port;
    config
}

/// Sends a mail to `local_parts` at this host, whatever comes of it.
pub async fn send(host: &Host, local_parts: &[&str]) {
    run(
        to_port(host.address.port()),
        lease("example.test", local_parts),
    )
    .await;
}

/// A mail to `local_parts` at a host with this script.
async fn sent(script: Script, local_parts: &[&str]) -> (Done, Host) {
    let host = Host::start(script).await;
    let done = run(
        to_port(host.address.port()),
        lease("example.test", local_parts),
    )
    .await;
    (done, host)
}

/// Two hosts at the same port of two addresses, as `two.test` has them.
async fn two_hosts(first: Script, second: Script) -> (Host, Host) {
    loop {
        let host = Host::start(first.clone()).await;
        let address = format!("127.0.0.2:{}", host.address.port());
        let free = std::net::TcpListener::bind(&address).is_ok();
        if free {
            return (host, Host::start_at(address.parse().unwrap(), second).await);
        }
    }
}

fn server_tls(folder: &tempfile::TempDir) -> ServerTls {
    ServerTls::load(&[certificate(folder)]).unwrap()
}
