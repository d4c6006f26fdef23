//! Several queues used as one: where a mail goes, and that it never is at two of them.

use std::{
    io::Read as _,
    os::unix::net::UnixListener,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use postroad_daemon::{CommonConfig, HealthState, QueueAddresses};
use postroad_envelope::{Envelope, Outcome, QueueId, RouteClass, StatusReport};
use postroad_metrics::{Metrics, list};
use postroad_queue_client::{
    AdmitRequest, Completion, Lease, ListQuery, QueueAdmin as _, QueueError, QueueNodes,
    QueueService, Settlement,
    worker::{self, Handler, Verdict, WorkerOptions},
};
use postroad_queued::serve_rpc;
use postroad_reply::DELIVERED_2_6_0;
use postroad_rpc::{Endpoint, dial, serves};
use tempfile::TempDir;
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::setup::{self, PATIENCE, Stack, common, config, submit};

fn mail(to: &[&str]) -> Envelope {
    setup::mail("alice@local.test", to)
}

/// A queue behind its socket.
pub struct Node {
    stack: Stack,
    common: CommonConfig,
    stop: CancellationToken,
    served: JoinHandle<()>,
}

impl Node {
    pub async fn start() -> Self {
        Self::in_folder(Arc::new(tempfile::tempdir().unwrap())).await
    }

    async fn in_folder(folder: Arc<TempDir>) -> Self {
        let stack = Stack::in_folder(folder, config()).await;
        let common = common(stack.folder.path());
        let stop = CancellationToken::new();
        let (queue, own, stopping) = (stack.queue.clone(), common.clone(), stop.clone());
        let served = tokio::spawn(async move {
            serve_rpc(&queue, &own, stopping).await.unwrap();
        });
        let endpoint: Endpoint = common.queue.only().unwrap().parse().unwrap();
        let channel = dial(&endpoint, None).unwrap();
        let up = async {
            while serves(channel.clone()).await.is_err() {
                sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, up).await.expect("serves in time");
        Self {
            stack,
            common,
            stop,
            served,
        }
    }

    pub async fn stop(self) -> Arc<TempDir> {
        self.stop.cancel();
        self.served.await.unwrap();
        self.stack.stop().await
    }

    async fn mails(&self) -> Vec<QueueId> {
        let page = self.stack.queue.list(ListQuery::default()).await.unwrap();
        page.mails.iter().map(|mail| mail.queue_id).collect()
    }
}

/// All of them, in this order.
pub fn as_one(nodes: &[Node]) -> Arc<QueueNodes> {
    let listed = nodes.iter().map(|node| node.common.queue.to_string());
    at(listed.collect())
}

fn at(addresses: Vec<String>) -> Arc<QueueNodes> {
    with_retiring(addresses, Vec::new())
}

fn with_retiring(addresses: Vec<String>, retiring: Vec<String>) -> Arc<QueueNodes> {
    let common = CommonConfig {
        queue: QueueAddresses::several(addresses).unwrap(),
        retiring,
        ..CommonConfig::default()
    };
    Arc::new(QueueNodes::configured(&common).unwrap())
}

fn socket(folder: &Path) -> String {
    format!("unix:{}", folder.join("queue.sock").display())
}

#[tokio::test(flavor = "multi_thread")]
async fn mails_are_spread_and_go_to_the_rest_while_one_is_away() {
    let nodes = [Node::start().await, Node::start().await];
    let queue = as_one(&nodes);
    let mut envelopes = Vec::new();
    for _ in 0..4 {
        let envelope = mail(&["bob@local.test"]);
        submit(&*queue, &envelope, b"\r\nhi").await.unwrap();
        envelopes.push(envelope);
    }
    assert_eq!(nodes[0].mails().await.len(), 2);
    assert_eq!(nodes[1].mails().await.len(), 2);
    let [first, second] = nodes;
    let held = first.mails().await;
    let folder = first.stop().await;

    for _ in 0..4 {
        let envelope = mail(&["bob@local.test"]);
        submit(&*queue, &envelope, b"\r\nhi").await.unwrap();
        let large = vec![b'x'; 600_000];
        submit(&*queue, &mail(&["bob@local.test"]), &large)
            .await
            .unwrap();
        let admitted = queue.admit(AdmitRequest {
            tenant: "default".into(),
            account: None,
            size: None,
            recipients: Vec::new(),
        });
        assert_eq!(admitted.await, Ok(()));
    }
    assert_eq!(second.mails().await.len(), 10);

    // What is at the one that is away may be there: nobody may conclude that it is gone.
    let stranger = at(vec![socket(folder.path()), second.common.queue.to_string()]);
    for id in [held[0], envelopes[0].queue_id] {
        let read = queue.read(id, 0).await.map(drop);
        let known = second.mails().await.contains(&id);
        match known {
            true => assert_eq!(read, Ok(())),
            false => assert!(matches!(read, Err(QueueError::Unavailable(_))), "{read:?}"),
        }
    }
    let unknown = stranger.read(mail(&[]).queue_id, 0).await.map(drop);
    assert!(
        matches!(unknown, Err(QueueError::Unavailable(_))),
        "{unknown:?}"
    );

    let first = Node::in_folder(folder).await;
    assert_eq!(first.mails().await, held, "it comes back with its mail");
    assert_eq!(
        queue.read(mail(&[]).queue_id, 0).await.map(drop),
        Err(QueueError::NotFound),
        "all nodes say so"
    );
    first.stop().await;
    second.stop().await;
}

/// A node that reads a mail to its end and dies: it may have it, so no other node gets it.
#[tokio::test(flavor = "multi_thread")]
async fn a_mail_that_may_be_at_one_node_goes_to_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join("queue.sock")).unwrap();
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, mut octets, mut piece) = (stream.unwrap(), Vec::new(), [0; 4096]);
            while let Ok(length @ 1..) = stream.read(&mut piece) {
                octets.extend_from_slice(&piece[..length]);
                if octets.windows(6).any(|found| found == b"marker") {
                    count.fetch_add(1, Ordering::SeqCst);
                    break;
                }
            }
        }
    });
    let real = Node::start().await;
    let queue = at(vec![socket(folder.path()), real.common.queue.to_string()]);
    let envelope = mail(&["bob@local.test"]);
    let result = submit(&*queue, &envelope, b"\r\nmarker").await;
    assert!(
        matches!(result, Err(QueueError::Unavailable(_))),
        "{result:?}"
    );
    assert!(seen.load(Ordering::SeqCst) > 1, "it is tried there again");
    assert_eq!(real.mails().await, []);
    // The next one goes where somebody answers.
    submit(&*queue, &mail(&["bob@local.test"]), b"\r\nhi")
        .await
        .unwrap();
    assert_eq!(real.mails().await.len(), 1);
    real.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_that_follows_from_another_goes_to_its_node_and_to_no_other() {
    let nodes = [Node::start().await, Node::start().await];
    let (queue, later) = (as_one(&nodes), as_one(&nodes));
    let first = mail(&["bob@local.test"]);
    submit(&*queue, &first, b"\r\nhi").await.unwrap();
    let follows = mail(&["carol@local.test"]);
    // Also by an agent that has not seen where it is, and again after a crash.
    for (queue, known) in [(&queue, false), (&later, true), (&queue, true)] {
        let mut submission = queue
            .submit_beside(first.queue_id, follows.clone())
            .await
            .unwrap();
        submission
            .chunk(Bytes::from_static(b"\r\nx"))
            .await
            .unwrap();
        let size = 3;
        let end = Completion {
            size,
            ..Completion::default()
        };
        assert_eq!(submission.finish(end).await.unwrap().duplicate, known);
    }
    let mails = [nodes[0].mails().await.len(), nodes[1].mails().await.len()];
    assert_eq!(mails, [2, 0]);
    let lonely = queue.submit_beside(mail(&[]).queue_id, follows).await.err();
    assert_eq!(lonely, Some(QueueError::NotFound));
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_retires_gets_only_what_follows_from_its_own() {
    let nodes = [Node::start().await, Node::start().await];
    let first = mail(&["bob@local.test"]);
    submit(&*as_one(&nodes), &first, b"\r\nhi").await.unwrap();
    let addresses = nodes.each_ref().map(|node| node.common.queue.to_string());
    let queue = with_retiring(addresses.to_vec(), addresses[..1].to_vec());
    for size in [3, 600_000, 3] {
        let octets = vec![b'x'; size];
        submit(&*queue, &mail(&["bob@local.test"]), &octets)
            .await
            .unwrap();
    }
    let follows = mail(&["carol@local.test"]);
    let mut submission = queue.submit_beside(first.queue_id, follows).await.unwrap();
    submission
        .chunk(Bytes::from_static(b"\r\nx"))
        .await
        .unwrap();
    let end = Completion {
        size: 3,
        ..Completion::default()
    };
    submission.finish(end).await.unwrap();
    let mails = [nodes[0].mails().await.len(), nodes[1].mails().await.len()];
    assert_eq!(mails, [2, 3]);
    for node in nodes {
        node.stop().await;
    }
}

/// Tells of each lease, delivers it, and lets nobody else at it meanwhile.
struct Deliverer {
    told: mpsc::UnboundedSender<(QueueId, usize)>,
    at_work: AtomicUsize,
}

#[async_trait]
impl Handler for Deliverer {
    async fn handle(&self, lease: Lease) -> Verdict {
        let now = self.at_work.fetch_add(1, Ordering::SeqCst) + 1;
        tokio::task::yield_now().await;
        let report = StatusReport::local(DELIVERED_2_6_0, "delivered");
        let outcomes = lease.envelope.recipients.iter();
        let outcomes = outcomes.map(|to| (to.index, Outcome::Delivered(report.clone())));
        self.at_work.fetch_sub(1, Ordering::SeqCst);
        let _ = self.told.send((lease.envelope.queue_id, now));
        Verdict::Settle(Settlement {
            elsewhere: Vec::new(),
            timed: Vec::new(),
            reporting: Vec::new(),
            lease: lease.lease,
            outcomes: outcomes.collect(),
            sites: Vec::new(),
            started_at: lease.envelope.received_at,
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_takes_from_all_and_goes_on_while_one_is_away() {
    const CONCURRENCY: u32 = 3;
    let nodes = [Node::start().await, Node::start().await];
    let queue = as_one(&nodes);
    let (stop, health, metrics) = (
        CancellationToken::new(),
        HealthState::new(),
        Metrics::new("mda"),
    );
    let check = health.dependency("queue");
    let asking = tokio::spawn(queue.keep_check(check, &metrics, stop.clone()));
    let (told, mut done) = mpsc::unbounded_channel();
    let at_work = AtomicUsize::new(0);
    let handler = Arc::new(Deliverer { told, at_work });
    let options = WorkerOptions {
        stores: Vec::new(),
        agent: "mda@localhost".to_owned(),
        host: "localhost".to_owned(),
        classes: vec![RouteClass::Local],
        concurrency: CONCURRENCY,
        grace: PATIENCE,
    };
    let work = worker::run(Arc::clone(&queue) as _, options, handler, stop.clone());
    let working = tokio::spawn(work);

    let mut sent = Vec::new();
    for _ in 0..40 {
        let envelope = mail(&["bob@local.test"]);
        submit(&*queue, &envelope, b"\r\nhi").await.unwrap();
        sent.push(envelope.queue_id);
    }
    let mut delivered = Vec::new();
    for _ in 0..sent.len() {
        let (id, at_work) = timeout(PATIENCE, done.recv()).await.unwrap().unwrap();
        assert!(at_work <= CONCURRENCY as usize, "{at_work} at once");
        delivered.push(id);
    }
    delivered.sort();
    sent.sort();
    assert_eq!(delivered, sent, "each once");

    // One goes; its mail waits for it, all else goes on, and the agent is ready.
    let [first, second] = nodes;
    let name = first.common.queue.to_string();
    let up = metrics.gauge(&list::QUEUE_NODE_UP, &[name.trim_start_matches("unix:")]);
    let folder = first.stop().await;
    let gone = async {
        while up.value() == 1 {
            sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, gone).await.expect("it is told");
    assert!(health.is_ready());
    let reason = health.snapshot("mda").checks["queue"].reason.clone();
    assert!(reason.unwrap().starts_with("a node of the queue is away: "));
    for _ in 0..6 {
        let envelope = mail(&["bob@local.test"]);
        submit(&*queue, &envelope, b"\r\nhi").await.unwrap();
        let (id, _) = timeout(PATIENCE, done.recv()).await.unwrap().unwrap();
        assert_eq!(id, envelope.queue_id);
    }
    let waiting = mail(&["bob@local.test"]);
    let first = Node::in_folder(folder).await;
    submit(&first.stack.queue, &waiting, b"\r\nhi")
        .await
        .unwrap();
    let (id, _) = timeout(PATIENCE, done.recv()).await.unwrap().unwrap();
    assert_eq!(id, waiting.queue_id, "and is worked for when it is back");

    stop.cancel();
    working.await.unwrap();
    asking.await.unwrap();
    first.stop().await;
    second.stop().await;
}
