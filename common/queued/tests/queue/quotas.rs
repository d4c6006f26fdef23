//! Quotas: asked before content is taken, kept when it has come.

use postroad_daemon::ByteSize;
use postroad_envelope::{Envelope, RouteClass};
use postroad_net::PeerRole;
use postroad_proto::queue::v1::{
    Admission, queue_client::QueueClient, submit_many_response::Message,
};
use postroad_queue_client::{
    AdmitRequest, Change, Filter, QueueAdmin, QueueError, QueueService, SettleResult, Usage,
    UsageQuery, UsageScope,
};
use postroad_queued::{Config, NamedQuota};
use postroad_rpc::dial;
use tokio::time::timeout;
use tonic::Streaming;

use crate::{
    roles::Served,
    setup::{PATIENCE, Stack, Worker, change, common, config, delivered, failed, mail, submit},
};

const FAR: &str = "x@far.test";

fn limited(limit: impl FnOnce(&mut postroad_queued::QuotaConfig)) -> Config {
    let mut config = config();
    limit(&mut config.quota);
    config
}

fn of_alice() -> Envelope {
    let mut envelope = mail("alice@local.test", &[FAR]);
    envelope.account = Some("alice@local.test".to_owned());
    envelope
}

async fn admit(queue: &dyn QueueService, size: Option<u64>) -> Result<(), QueueError> {
    let request = AdmitRequest {
        tenant: "default".to_owned(),
        account: Some("alice@local.test".to_owned()),
        size,
        recipients: vec![FAR.parse().unwrap()],
    };
    queue.admit(request).await
}

fn reply<T: std::fmt::Debug>(result: Result<T, QueueError>) -> String {
    match result {
        Err(error @ QueueError::OverQuota(_)) => error.to_reply().to_string(),
        other => panic!("{other:?}"),
    }
}

async fn usage(queue: &dyn QueueAdmin, scope: UsageScope) -> Vec<(String, u64, u64)> {
    let scope = Some(scope);
    let usages = queue.usage(UsageQuery { scope, limit: 0 }).await.unwrap();
    let of = |one: Usage| (one.name, one.mails, one.octets);
    usages.into_iter().map(of).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_admitted_before_the_quota_was_used_up_is_refused_all_the_same() {
    let stack = Stack::with(limited(|quota| quota.account_mails = 1)).await;
    let queue = &stack.queue;
    assert_eq!(admit(queue, None).await, Ok(()));
    let (first, second) = (of_alice(), of_alice());
    submit(queue, &first, b"\r\nhi").await.unwrap();
    let full = "452 4.2.2 alice@local.test has 1 of 1 mails in the queue, ";
    assert!(reply(admit(queue, None).await).starts_with(full));
    assert!(reply(submit(queue, &second, b"\r\nhi").await).starts_with(full));
    // It was accepted, so it is acknowledged.
    assert!(submit(queue, &first, b"\r\nhi").await.unwrap().duplicate);

    // Held and after a restart it counts; when it has left it does not.
    let ids = Filter::of_ids(vec![first.queue_id]);
    assert_eq!(change(queue, Change::Hold, ids.clone()).await, Ok(1));
    let stack = stack.restart().await;
    let queue = &stack.queue;
    assert!(reply(admit(queue, None).await).starts_with(full));
    assert_eq!(change(queue, Change::Drop, ids).await, Ok(1));
    assert_eq!(admit(queue, None).await, Ok(()));
    submit(queue, &second, b"\r\nhi").await.unwrap();
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_at_once_as_many_come_in_as_there_is_room_for() {
    let stack = Stack::with(limited(|quota| quota.domain_size = ByteSize::bytes(40))).await;
    let submissions = (0..30).map(|_| {
        let queue = stack.queue.clone();
        tokio::spawn(async move { submit(&queue, &of_alice(), b"\r\n8 octets").await })
    });
    let mut accepted = 0;
    for submission in submissions.collect::<Vec<_>>() {
        match submission.await.unwrap() {
            Ok(_) => accepted += 1,
            refused => assert!(reply(refused).starts_with("452 4.3.1 far.test has ")),
        }
    }
    assert_eq!(accepted, 4);
    let far = vec![("far.test".to_owned(), 4, 40)];
    assert_eq!(usage(&stack.queue, UsageScope::Domain).await, far);
    // Larger than the quota itself: it need not come again.
    let large = admit(&stack.queue, Some(41)).await;
    assert!(matches!(large, Err(QueueError::Refused(_))), "{large:?}");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_is_made_where_the_quotas_are_used_up() {
    let config = limited(|quota| {
        (quota.tenant_mails, quota.domain_mails) = (1, 1);
    });
    let stack = Stack::with(config).await;
    submit(&stack.queue, &of_alice(), b"\r\nhi").await.unwrap();
    let mut worker = Worker::connect(&stack.queue, &[RouteClass::Relay]).await;
    let lease = worker.lease().await;
    assert!(reply(admit(&stack.queue, None).await).starts_with("452 4.3.1 the tenant default "));
    assert_eq!(
        worker.settle(&lease, &failed()).await,
        SettleResult::Durable
    );
    let mut local = Worker::connect(&stack.queue, &[RouteClass::Local]).await;
    let report = local.lease().await;
    assert!(report.envelope.reverse_path.is_null());
    let ours = vec![("local.test".to_owned(), 1)];
    let counted = usage(&stack.queue, UsageScope::Domain).await;
    let counted: Vec<_> = counted
        .into_iter()
        .map(|(name, mails, _)| (name, mails))
        .collect();
    assert_eq!(counted, ours);
    assert_eq!(
        local.settle(&report, &delivered()).await,
        SettleResult::Durable
    );
    assert_eq!(usage(&stack.queue, UsageScope::Domain).await, []);
    assert_eq!(admit(&stack.queue, None).await, Ok(()));
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_a_socket_it_is_the_same() {
    let config = limited(|quota| {
        quota.account_mails = 9;
        quota.accounts = vec![NamedQuota {
            name: "Alice@local.test".to_owned(),
            mails: Some(1),
            size: None,
        }];
    });
    let served = Served::with(PeerRole::Msa, config.clone()).await;
    served.submit(&of_alice()).await.unwrap();
    let full = "452 4.2.2 alice@local.test has 1 of 1 mails in the queue, ";
    assert!(reply(admit(&served.remote, None).await).starts_with(full));
    assert!(reply(served.submit(&of_alice()).await).starts_with(full));
    let mut other = of_alice();
    other.account = Some("bob@local.test".to_owned());
    served.submit(&other).await.unwrap();
    let all = UsageQuery::default();
    let denied = served.admin.usage(all).await;
    assert!(matches!(denied, Err(QueueError::NotAllowed(_))));
    served.end().await;

    let served = Served::with(PeerRole::Admin, config).await;
    for account in ["alice@local.test", "bob@local.test"] {
        let mut envelope = of_alice();
        envelope.account = Some(account.to_owned());
        submit(&served.stack.queue, &envelope, b"\r\nhi")
            .await
            .unwrap();
    }
    let told = served.admin.usage(all).await.unwrap();
    assert_eq!(told, served.stack.queue.usage(all).await.unwrap());
    let names: Vec<_> = told
        .iter()
        .map(|one| (one.scope, &one.name[..], one.percent()))
        .collect();
    let expected = [
        (UsageScope::Tenant, "default", None),
        (UsageScope::Account, "alice@local.test", Some(100)),
        (UsageScope::Account, "bob@local.test", Some(11)),
        (UsageScope::Domain, "far.test", None),
    ];
    assert_eq!(names, expected);
    let one = UsageQuery { limit: 1, ..all };
    assert_eq!(served.admin.usage(one).await.unwrap().len(), 3);
    served.end().await;
}

/// What clients are told on a stream of submissions.
struct Told(Streaming<postroad_proto::queue::v1::SubmitManyResponse>);

impl Told {
    async fn by(served: &Served) -> Self {
        let common = common(served.stack.folder.path());
        let endpoint = served.stack.config.agents_endpoint(&common);
        let mut client = QueueClient::new(dial(&endpoint, None).unwrap());
        let answers = client.submit_many(futures::stream::pending()).await;
        Self(answers.unwrap().into_inner())
    }

    async fn next(&mut self) -> Admission {
        let message = timeout(PATIENCE, self.0.message()).await.unwrap();
        match message.unwrap().unwrap().message {
            Some(Message::Admission(admission)) => admission,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_hear_up_to_which_size_nobody_needs_to_ask() {
    let mut sized = config();
    sized.size_limit = ByteSize::bytes(2_000_000);
    let served = Served::with(PeerRole::Msa, sized.clone()).await;
    let mut told = Told::by(&served).await;
    let first = told.next().await;
    assert_eq!((first.open, first.unasked), (true, 2_000_000));
    sized.size_limit = ByteSize::bytes(1_000_000);
    served.stack.queue.renew(sized);
    assert_eq!(told.next().await.unasked, 1_000_000);

    // Whoever submits has the stream on which it is said; what is larger is asked for, and refused.
    served.submit(&of_alice()).await.unwrap();
    assert_eq!(admit(&served.remote, Some(1_000_000)).await, Ok(()));
    assert_eq!(admit(&served.remote, None).await, Ok(()));
    let large = admit(&served.remote, Some(1_000_001)).await;
    assert!(matches!(large, Err(QueueError::Refused(_))), "{large:?}");
    served.end().await;

    let config = limited(|quota| quota.domain_mails = 1);
    let served = Served::with(PeerRole::Msa, config).await;
    let first = Told::by(&served).await.next().await;
    assert_eq!((first.open, first.unasked), (true, 0));
    served.submit(&of_alice()).await.unwrap();
    reply(admit(&served.remote, Some(1)).await);
    served.end().await;
}
