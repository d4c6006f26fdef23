//! Jobs of one mail, given in a row to a worker that sends them together.

use std::time::Duration;

use postroad_envelope::{LeaseRef, Outcome, QueueId, RecipientIndex, RouteClass};
use postroad_queue_client::{
    Change, Filter, HandBack, Lease, Permit, QueueAdmin as _, SettleResult, Settlement, SiteResult,
    SiteTry, Touch, WorkDown, WorkUp,
};

use crate::setup::{Stack, Worker, change, config, delayed, mail, relayed, submit};

const RELAY: &[RouteClass] = &[RouteClass::Relay];
const CONTENT: &[u8] = b"\r\nhi";

async fn send(stack: &Stack, to: &[&str]) -> QueueId {
    let envelope = mail("alice@local.test", to);
    submit(&stack.queue, &envelope, CONTENT).await.unwrap();
    envelope.queue_id
}

/// What comes in a row, with credits for more than that.
async fn row(worker: &mut Worker) -> Vec<Lease> {
    worker.say(WorkUp::Credits(20)).await;
    next_row(worker).await
}

async fn next_row(worker: &mut Worker) -> Vec<Lease> {
    let mut row = vec![worker.next_lease().await];
    while row.last().is_some_and(|last| last.followed_by > 0) {
        let next = worker.next_lease().await;
        assert_eq!(next.lease.job.queue_id, row[0].lease.job.queue_id);
        assert_eq!(next.followed_by + 1, row.last().unwrap().followed_by);
        row.push(next);
    }
    row
}

fn destinations(row: &[Lease]) -> Vec<&str> {
    let mut all: Vec<&str> = row
        .iter()
        .map(|one| one.route.destination.as_str())
        .collect();
    all.sort_unstable();
    all
}

fn first_index(lease: &Lease) -> RecipientIndex {
    lease.envelope.recipients[0].index
}

fn outcome(lease: &Lease, outcome: Outcome) -> Vec<(RecipientIndex, Outcome)> {
    vec![(first_index(lease), outcome)]
}

/// As one that went with another.
async fn settle_joined(worker: &mut Worker, lease: &Lease, site: &str) -> SettleResult {
    let settlement = Settlement {
        lease: lease.lease,
        outcomes: outcome(lease, relayed()),
        sites: vec![SiteTry {
            site: site.to_owned(),
            result: Some(SiteResult {
                joined: true,
                ..SiteResult::default()
            }),
        }],
        started_at: lease.envelope.received_at,
        elsewhere: Vec::new(),
        reporting: Vec::new(),
        timed: Vec::new(),
    };
    worker.say(WorkUp::Settle(settlement)).await;
    loop {
        if let WorkDown::Settled {
            lease: settled,
            result,
        } = worker.hear().await
            && settled == lease.lease
        {
            return result;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_jobs_of_a_mail_come_in_a_row_and_each_is_settled_by_itself() {
    let stack = Stack::new().await;
    let id = send(&stack, &["a@one.test", "b@two.test", "c@three.test"]).await;
    let other = send(&stack, &["d@four.test"]).await;
    let mut worker = Worker::joining(&stack.queue, RELAY, &[]).await;
    let row = row(&mut worker).await;
    assert_eq!(destinations(&row), ["one.test", "three.test", "two.test"]);
    assert!(row.iter().all(|one| one.lease.job.queue_id == id));
    // It travels once.
    assert_eq!(row[0].content.as_deref(), Some(CONTENT));
    assert!(row[1..].iter().all(|one| one.content.is_none()));
    let mut fences: Vec<_> = row.iter().map(|one| one.lease.fence).collect();
    fences.dedup();
    assert_eq!(fences.len(), 3, "each has its own");
    let alone = next_row(&mut worker).await;
    assert_eq!(alone.len(), 1);
    assert_eq!(alone[0].lease.job.queue_id, other);
    assert!(alone[0].content.is_some());

    let told = stack.queue.trace(id).await.unwrap();
    let leased = told.iter().filter(|event| event.kind.as_str() == "leased");
    assert_eq!(leased.count(), 3);
    for (one, of_it) in row.iter().zip([relayed(), delayed(), relayed()]) {
        let settled = worker.settle(one, &of_it).await;
        assert_eq!(settled, SettleResult::Durable);
    }
    // What was put off comes alone: the others have ended.
    let again = next_row(&mut worker).await;
    assert_eq!(destinations(&again), [row[1].route.destination.as_str()]);
    assert_eq!((again[0].attempt, again[0].followed_by), (2, 0));
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_delayed_or_with_another_worker_is_not_given_along() {
    let mut config = config();
    config.retry.first = postroad_daemon::Interval::hours(1);
    config.retry.max = postroad_daemon::Interval::hours(1);
    let stack = Stack::with(config).await;
    let to = ["a@one.test", "b@two.test", "c@three.test", "d@four.test"];
    let id = send(
        &stack,
        &[&to[..], &["e@five.test", "bob@local.test"]].concat(),
    )
    .await;
    let held = Filter::to("two.test".to_owned());
    assert_eq!(change(&stack.queue, Change::Hold, held).await, Ok(1));
    let mut others = Worker::connect(&stack.queue, RELAY).await;
    others.say(WorkUp::Credits(4)).await;
    let mut given = Vec::new();
    for _ in 0..4 {
        let lease = others.next_lease().await;
        assert_eq!(
            lease.followed_by, 0,
            "who does not join is given each by itself"
        );
        assert!(lease.content.is_some());
        given.push(lease);
    }
    // One is put off, one stays with its worker, two are due again.
    assert_eq!(
        others.settle(&given[0], &delayed()).await,
        SettleResult::Durable
    );
    for one in &given[2..] {
        let back = HandBack {
            lease: one.lease,
            delay: Duration::ZERO,
            reason: "test".to_owned(),
            touch: Touch::Untouched,
        };
        others.say(WorkUp::HandBack(back)).await;
    }
    let mut worker = Worker::joining(&stack.queue, RELAY, &[]).await;
    let mut came = destinations_of(row(&mut worker).await);
    if came.len() < 2 {
        // The second hand-back came after the first was given out.
        came.extend(destinations_of(next_row(&mut worker).await));
    }
    came.sort();
    assert_eq!(came, destinations(&given[2..]));
    worker.expect_nothing(Duration::from_millis(150)).await;
    assert_eq!(stack.queue.show(id).await.unwrap().recipients.len(), 6);
    stack.stop().await;
}

fn destinations_of(row: Vec<Lease>) -> Vec<String> {
    row.into_iter().map(|one| one.route.destination).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_come_in_a_row_than_there_are_credits_or_than_is_configured() {
    let mut config = config();
    config.lease.together = 3;
    let stack = Stack::with(config).await;
    let to = [
        "a@one.test",
        "b@two.test",
        "c@three.test",
        "d@four.test",
        "e@five.test",
    ];
    send(&stack, &to).await;
    let mut worker = Worker::joining(&stack.queue, RELAY, &[]).await;
    worker.say(WorkUp::Credits(2)).await;
    assert_eq!(next_row(&mut worker).await.len(), 2);
    worker.say(WorkUp::Credits(2)).await;
    assert_eq!(next_row(&mut worker).await.len(), 2);
    worker.say(WorkUp::Credits(9)).await;
    assert_eq!(next_row(&mut worker).await.len(), 1);
    send(
        &stack,
        &["a@six.test", "b@seven.test", "c@eight.test", "d@nine.test"],
    )
    .await;
    assert_eq!(next_row(&mut worker).await.len(), 3);
    assert_eq!(next_row(&mut worker).await.len(), 1);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_in_a_row_is_resumed_after_a_restart() {
    let stack = Stack::new().await;
    send(&stack, &["a@one.test", "b@two.test", "c@three.test"]).await;
    let mut worker = Worker::joining(&stack.queue, RELAY, &[]).await;
    let row = row(&mut worker).await;
    assert_eq!(row.len(), 3);
    // The hints ride with the next write.
    let settled = worker.settle(&row[2], &relayed()).await;
    assert_eq!(settled, SettleResult::Durable);
    let stack = stack.restart().await;
    let mut other = Worker::joining(&stack.queue, RELAY, &[]).await;
    other.say(WorkUp::Credits(9)).await;
    other.expect_nothing(Duration::from_millis(150)).await;
    let held: Vec<LeaseRef> = row.iter().map(|one| one.lease).collect();
    let mut worker = Worker::joining(&stack.queue, RELAY, &held).await;
    let [(_, Some(first)), (_, Some(second)), (_, None)] = worker.resumed[..] else {
        panic!("{:?}", worker.resumed)
    };
    assert_eq!(
        worker.settle(&row[0], &relayed()).await,
        SettleResult::Stale
    );
    for (new, one) in [(first, &row[0]), (second, &row[1])] {
        let settled = worker.settle_each(new, outcome(one, relayed())).await;
        assert_eq!(settled, SettleResult::Durable);
    }
    stack.stop().await;
}

/// A site that takes one connection at a time is behind two of the domains; the queue learns it by what went along.
#[tokio::test(flavor = "multi_thread")]
async fn what_goes_to_the_same_site_takes_one_place_and_what_goes_elsewhere_is_left_out() {
    let mut config = config();
    config.sites.enabled = true;
    config.sites.connections = 1;
    let stack = Stack::with(config).await;
    let to = ["a@one.test", "b@two.test", "c@three.test"];
    send(&stack, &to).await;
    let mut worker = Worker::joining(&stack.queue, RELAY, &[]).await;
    let first = row(&mut worker).await;
    assert_eq!(first.len(), 3, "nothing is known of any");
    assert!(first.iter().all(|one| one.site.is_none()));
    for one in &first {
        let result = match one.route.destination.as_str() {
            "three.test" => {
                worker
                    .settle_at("mx.else.test", one.lease, outcome(one, relayed()))
                    .await
            }
            "one.test" => {
                worker
                    .settle_at("mx.same.test", one.lease, outcome(one, relayed()))
                    .await
            }
            _ => settle_joined(&mut worker, one, "mx.same.test").await,
        };
        assert_eq!(result, SettleResult::Durable);
    }

    send(&stack, &to).await;
    let rows = [next_row(&mut worker).await, next_row(&mut worker).await];
    let (same, other) = match rows[0].len() {
        2 => (&rows[0], &rows[1]),
        _ => (&rows[1], &rows[0]),
    };
    assert_eq!(destinations(same), ["one.test", "two.test"]);
    assert_eq!(destinations(other), ["three.test"]);
    // The first has leave; the second shares it, and is to ask when it is sent alone.
    let sites: Vec<_> = same.iter().map(|one| one.site.as_deref()).collect();
    assert_eq!(sites, [Some("mx.same.test"), None]);
    let permit = Permit {
        request: 3,
        site: "mx.same.test".to_owned(),
        connections: 1,
        lease: same[1].lease,
    };
    worker.say(WorkUp::Permit(permit)).await;
    let answer = loop {
        if let WorkDown::Permitted(answer) = worker.hear().await {
            break answer;
        }
    };
    assert_eq!((answer.request, answer.connections), (3, 0));
    stack.stop().await;
}
