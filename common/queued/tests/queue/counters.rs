//! What agents count together: who may count what, what operators see and clear, what a restart keeps.

use std::time::Duration;

use postroad_counters::{Count, Counted, Key, Kind, Limit, Rule};
use postroad_net::PeerRole;
use postroad_queue_client::{CountersQuery, QueueAdmin, QueueError, QueueService};

use crate::{
    roles::Served,
    setup::{Stack, config},
};

const CLIENT: &str = "auth_failed/192.0.2.7/32";
const ALICE: &str = "sent/alice@local.test";

fn limit(most: u64) -> Limit {
    Limit {
        window: Duration::from_secs(3600),
        most,
    }
}

/// Two are borne, the third is a ban.
async fn failed(queue: &dyn QueueService, key: &str, add: u64) -> Result<Counted, QueueError> {
    let rule = Rule::Ban {
        limit: limit(2),
        ban: Duration::from_secs(3600),
    };
    let key = key.parse().unwrap();
    queue.count(Count { key, add, rule }).await
}

/// At most ten.
async fn sent(queue: &dyn QueueService, add: u64) -> Result<Counted, QueueError> {
    let (key, rule) = (ALICE.parse().unwrap(), Rule::Within(vec![limit(10)]));
    queue.count(Count { key, add, rule }).await
}

fn keys(texts: &[&str]) -> Vec<Key> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_counts_what_is_its_own_and_looks_at_nothing() {
    for role in PeerRole::ALL {
        let served = Served::with(role, config()).await;
        for (key, whose) in [
            (CLIENT, PeerRole::Msa),
            (ALICE, PeerRole::Msa),
            ("client/192.0.2.7/32", PeerRole::Mta),
        ] {
            let counted = failed(&served.remote, key, 1).await;
            match role == whose {
                true => assert_eq!(counted.unwrap().value, 1, "{role}: {key}"),
                false => assert!(
                    matches!(counted, Err(QueueError::NotAllowed(_))),
                    "{role}: {key}: {counted:?}"
                ),
            }
        }
        let listed = served.admin.counters(CountersQuery::default()).await;
        let cleared = served.admin.clear_counters(keys(&[CLIENT]), "").await;
        if role == PeerRole::Admin {
            assert_eq!((listed.unwrap().total, cleared.unwrap()), (0, 0));
        } else {
            assert!(matches!(listed, Err(QueueError::NotAllowed(_))));
            assert!(matches!(cleared, Err(QueueError::NotAllowed(_))));
        }
        served.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_see_who_is_banned_and_lift_it() {
    let stack = Stack::new().await;
    let queue = &stack.queue;
    assert!(
        failed(queue, CLIENT, 3)
            .await
            .unwrap()
            .banned_until
            .is_some()
    );
    failed(queue, "auth_failed/192.0.2.8", 2).await.unwrap();
    sent(queue, 7).await.unwrap();
    let list = |bans, kind| {
        let query = CountersQuery {
            kind,
            bans,
            ..CountersQuery::default()
        };
        async move { queue.counters(query).await.unwrap() }
    };
    let bans = list(true, None).await;
    assert_eq!((bans.total, bans.bans[0].value), (1, 3));
    assert_eq!(bans.bans[0].key.to_string(), CLIENT);
    let counters = list(false, None).await.counters;
    let told: Vec<_> = counters
        .iter()
        .map(|one| (one.key.to_string(), one.value))
        .collect();
    let other = "auth_failed/192.0.2.8/32".to_owned();
    assert_eq!(told, [(ALICE.to_owned(), 7), (other, 2)]);
    assert_eq!(list(false, Some(Kind::Client)).await.total, 0);
    let wanted = keys(&[CLIENT, "auth_failed/192.0.2.9/32"]);
    assert_eq!(queue.clear_counters(wanted, "a test").await, Ok(1));
    assert_eq!(list(true, None).await.total, 0);
    assert_eq!(failed(queue, CLIENT, 1).await.unwrap().value, 1);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_what_was_sent_and_who_is_banned_and_no_failures() {
    let stack = Stack::new().await;
    sent(&stack.queue, 9).await.unwrap();
    failed(&stack.queue, CLIENT, 3).await.unwrap();
    failed(&stack.queue, "auth_failed/192.0.2.8", 2)
        .await
        .unwrap();
    let folder = stack.stop().await;
    let stack = Stack::in_folder(folder, config()).await;
    let full = sent(&stack.queue, 2).await.unwrap().full.unwrap();
    assert_eq!((full.value, full.limit.most), (9, 10));
    let banned = failed(&stack.queue, CLIENT, 0).await.unwrap();
    assert!(banned.banned_until.is_some());
    let other = failed(&stack.queue, "auth_failed/192.0.2.8", 0).await;
    assert_eq!(other.unwrap().value, 0);
    stack.stop().await;
}
