//! What operators do to mail, and what they see of the queue.

use std::time::Duration;

use postroad_daemon::Interval;
use postroad_envelope::{Event, EventKind, QueueId, RecipientIndex, RouteClass};
use postroad_queue_client::{
    Change, Changed, Filter, MailState, Order, QueueAdmin, QueueError, QueueService, WorkDown,
    WorkUp,
};
use tokio::time::timeout;

use crate::setup::{PATIENCE, Stack, Worker, change, config, delayed, delivered, mail, submit};

const LOCAL: &[RouteClass] = &[RouteClass::Local];
const RELAY: &[RouteClass] = &[RouteClass::Relay];

async fn slow_stack() -> Stack {
    let mut config = config();
    config.retry.first = Interval::hours(1);
    config.retry.max = Interval::hours(1);
    Stack::with(config).await
}

async fn send(queue: &dyn QueueService, sender: &str, to: &[&str]) -> QueueId {
    let envelope = mail(sender, to);
    submit(queue, &envelope, b"Subject: greetings\r\n\r\nhi\r\n")
        .await
        .unwrap();
    envelope.queue_id
}

fn order(filter: Filter, dry_run: bool) -> Order {
    Order {
        dry_run,
        by: "eve".to_owned(),
        reason: "gone astray".to_owned(),
        ..filter.into()
    }
}

async fn last_admin_event(queue: &dyn QueueAdmin, id: QueueId) -> Event {
    let events = queue.trace(id).await.unwrap();
    let mut admin = events
        .into_iter()
        .filter(|event| event.kind == EventKind::Admin);
    admin.next_back().expect("an operator was here")
}

/// The report in the sender's mailbox queue, as text.
async fn report(worker: &mut Worker) -> String {
    let lease = timeout(PATIENCE, worker.lease())
        .await
        .expect("a report comes");
    assert!(lease.envelope.reverse_path.is_null());
    String::from_utf8(lease.content.expect("small").to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_by_an_operator_is_told_to_its_sender() {
    let stack = Stack::new().await;
    let queue = &stack.queue;
    let id = send(queue, "alice@local.test", &["x@far.test"]).await;
    let one = || Filter::of_ids(vec![id]);
    assert_eq!(change(queue, Change::Hold, one()).await, Ok(1));
    let tried = queue.change(Change::Fail, order(one(), true)).await;
    assert_eq!(tried, Ok(Changed { mails: 1, busy: 0 }));
    let state = queue.show(id).await.unwrap().summary.state;
    assert_eq!(state, MailState::Held, "a dry run changes nothing");

    let failed = queue.change(Change::Fail, order(one(), false)).await;
    assert_eq!(failed, Ok(Changed { mails: 1, busy: 0 }));
    let event = last_admin_event(queue, id).await;
    assert_eq!(event.text, "fail, by eve: gone astray");
    assert_eq!(event.fields["by"], "eve");
    let content = report(&mut Worker::connect(queue, LOCAL).await).await;
    for expected in ["Action: failed", "Status: 5.0.0", "gone astray"] {
        assert!(content.contains(expected), "{expected} in\n{content}");
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_expires_by_an_operator_says_so_to_its_sender() {
    let stack = slow_stack().await;
    let queue = &stack.queue;
    let id = send(queue, "alice@local.test", &["x@far.test"]).await;
    let mut worker = Worker::connect(queue, RELAY).await;
    let lease = worker.lease().await;
    let far = || Filter::to("far.test".to_owned());
    let busy = Changed { mails: 0, busy: 1 };
    assert_eq!(
        queue.change(Change::Expire, order(far(), true)).await,
        Ok(busy)
    );
    assert_eq!(
        queue.change(Change::Expire, order(far(), false)).await,
        Ok(busy)
    );
    worker.settle(&lease, &delayed()).await;
    assert_eq!(change(queue, Change::Expire, far()).await, Ok(1));
    let content = report(&mut Worker::connect(queue, LOCAL).await).await;
    for expected in ["Action: failed", "Status: 5.4.7"] {
        assert!(content.contains(expected), "{expected} in\n{content}");
    }
    assert_eq!(
        queue.show(id).await.unwrap().summary.state,
        MailState::Retired
    );
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_of_every_verb_changes_nothing() {
    let stack = slow_stack().await;
    let queue = &stack.queue;
    send(queue, "", &["x@far.test"]).await;
    send(queue, "", &["y@far.test", "z@other.test"]).await;
    let before = queue.list(Default::default()).await.unwrap();
    let verbs = [
        Change::Hold,
        Change::Fail,
        Change::Expire,
        Change::Drop,
        Change::Priority(3),
    ];
    for verb in verbs {
        let all = queue.change(verb.clone(), order(Filter::all(), true)).await;
        assert_eq!(all, Ok(Changed { mails: 2, busy: 0 }), "{verb:?}");
    }
    let none = queue
        .change(Change::Release, order(Filter::all(), true))
        .await;
    assert_eq!(none, Ok(Changed::default()));
    assert_eq!(queue.list(Default::default()).await.unwrap(), before);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rerouted_mail_goes_the_new_way_also_after_a_restart() {
    let stack = slow_stack().await;
    let id = send(&stack.queue, "", &["x@far.test"]).await;
    let to = |class, next_hop: Option<&str>| Change::Reroute {
        class,
        next_hop: next_hop.map(|text| text.parse().unwrap()),
    };
    let queue = &stack.queue;
    for wrong in [
        to(RouteClass::Lmtp, None),
        to(RouteClass::Hold, None),
        to(RouteClass::Discard, None),
        to(RouteClass::Relay, Some("unix:/run/lmtp")),
    ] {
        let refused = change(queue, wrong, Filter::all()).await;
        assert!(
            matches!(refused, Err(QueueError::Invalid(_))),
            "{refused:?}"
        );
    }
    let there = to(RouteClass::Lmtp, Some("unix:/run/dovecot/lmtp"));
    assert_eq!(change(queue, there, Filter::all()).await, Ok(1));
    let stack = stack.restart().await;
    let mut worker = Worker::connect(&stack.queue, &[RouteClass::Lmtp]).await;
    let lease = worker.lease().await;
    assert_eq!(lease.lease.job.queue_id, id);
    assert_eq!(
        lease.route.next_hop,
        Some("unix:/run/dovecot/lmtp".parse().unwrap())
    );
    assert_eq!(lease.route.rule, "rerouted");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_of_greater_priority_goes_first() {
    let stack = Stack::new().await;
    let queue = &stack.queue;
    let first = send(queue, "", &["bob@local.test"]).await;
    let second = send(queue, "", &["bob@local.test"]).await;
    let urgent = Filter::of_ids(vec![second]);
    let too_much = change(queue, Change::Priority(10), urgent.clone()).await;
    assert!(
        matches!(too_much, Err(QueueError::Invalid(_))),
        "{too_much:?}"
    );
    assert_eq!(change(queue, Change::Priority(9), urgent).await, Ok(1));
    let mut worker = Worker::connect(queue, LOCAL).await;
    let ids = [worker.lease().await, worker.lease().await].map(|lease| lease.lease.job.queue_id);
    assert_eq!(ids, [second, first]);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stats_tell_what_waits_for_each_destination() {
    let stack = slow_stack().await;
    let queue = &stack.queue;
    let tried = send(queue, "", &["x@far.test"]).await;
    let mut worker = Worker::connect(queue, RELAY).await;
    let lease = worker.lease().await;
    let outcomes = vec![(RecipientIndex(0), delayed())];
    worker.settle_at("mx.far.test", lease.lease, outcomes).await;
    send(queue, "", &["y@far.test"]).await;
    let held = send(queue, "", &["z@far.test"]).await;
    change(queue, Change::Hold, Filter::of_ids(vec![held]))
        .await
        .unwrap();
    send(queue, "", &["bob@local.test"]).await;
    let all = queue.stats(0).await.unwrap();
    assert_eq!(all.total, 2);
    let [far, local] = &all.destinations[..] else {
        panic!("{all:?}")
    };
    assert_eq!(far.destination, "far.test");
    assert_eq!((far.due, far.delayed, far.leased, far.held), (1, 1, 0, 1));
    assert_eq!(far.oldest, Some(tried.minted_at()));
    assert!(far.last_reply.contains("nobody answers"), "{far:?}");
    assert_eq!((local.due, local.last_reply.as_str()), (1, ""));
    assert_eq!(far.site.as_deref(), Some("mx.far.test"));
    let [site] = &all.sites[..] else {
        panic!("{all:?}")
    };
    assert_eq!((site.site.as_str(), site.destinations), ("mx.far.test", 1));
    let jobs = (site.due, site.delayed, site.leased, site.held);
    assert_eq!((jobs, site.oldest), ((1, 1, 0, 1), far.oldest));
    assert_eq!(site.last_reply, far.last_reply);
    let most = queue.stats(1).await.unwrap();
    assert_eq!((most.destinations.len(), most.total), (1, 2));
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_agent_finishes_what_it_holds_and_gets_no_more() {
    let stack = slow_stack().await;
    let queue = &stack.queue;
    let name = "test@localhost";
    assert_eq!(
        queue.drain_agent(name, "eve").await,
        Err(QueueError::NotFound)
    );
    send(queue, "", &["bob@local.test"]).await;
    let mut worker = Worker::connect(queue, LOCAL).await;
    let lease = worker.lease().await;
    let only = async || queue.agents().await.unwrap().pop().expect("one agent");
    let agent = only().await;
    assert_eq!((agent.name.as_str(), agent.leases), (name, 1));
    assert_eq!((agent.classes.as_slice(), agent.draining), (LOCAL, false));

    assert_eq!(queue.drain_agent(name, "eve").await, Ok(1));
    assert_eq!(worker.hear().await, WorkDown::Drain);
    worker.settle(&lease, &delivered()).await;
    send(queue, "", &["bob@local.test"]).await;
    worker.say(WorkUp::Credits(5)).await;
    let mut other = Worker::connect(queue, LOCAL).await;
    // All get their turn in one go, so what another worker gets now the drained one was not given.
    other.lease().await;
    worker.expect_nothing(Duration::from_millis(200)).await;
    let agents = queue.agents().await.unwrap();
    let seen: Vec<_> = agents
        .iter()
        .map(|agent| (agent.leases, agent.settled, agent.draining))
        .collect();
    assert_eq!(seen, [(0, 1, true), (1, 0, false)]);
    stack.stop().await;
}
