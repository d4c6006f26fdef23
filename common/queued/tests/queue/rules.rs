//! Standing rules that hold mail as it comes.

use postroad_envelope::{EventKind, QueueId, RouteClass};
use postroad_queue_client::{
    Filter, HoldOrder, HoldRuleDetails, MailState, QueueAdmin, QueueError, Removal,
};

use crate::setup::{Stack, Worker, mail, submit};

const RELAY: &[RouteClass] = &[RouteClass::Relay];

fn rule(name: &str, filter: Filter) -> HoldOrder {
    HoldOrder {
        name: name.to_owned(),
        filter,
        by: "eve".to_owned(),
        reason: "looks odd".to_owned(),
        ..HoldOrder::default()
    }
}

async fn send(stack: &Stack, sender: &str, to: &[&str]) -> QueueId {
    let envelope = mail(sender, to);
    submit(&stack.queue, &envelope, b"\r\nhi").await.unwrap();
    envelope.queue_id
}

async fn state(stack: &Stack, id: QueueId) -> (MailState, String) {
    let shown = stack.queue.show(id).await.unwrap().summary;
    (shown.state, shown.reason)
}

async fn only_rule(stack: &Stack) -> HoldRuleDetails {
    let rules = stack.queue.hold_rules().await.unwrap();
    assert_eq!(rules.len(), 1, "{rules:?}");
    rules.into_iter().next().unwrap()
}

fn held_by(name: &str) -> (MailState, String) {
    (MailState::Held, format!("rule {name}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_holds_what_comes_also_after_a_restart_and_with_a_new_index() {
    let stack = Stack::new().await;
    let before = send(&stack, "a@local.test", &["x@Odd.test"]).await;
    let order = rule("odd", Filter::to("ODD.test"));
    stack.queue.put_hold_rule(order).await.unwrap();
    assert_eq!(state(&stack, before).await.0, MailState::Due);
    // Of a mail with two destinations only the one that fits is held.
    let both = send(&stack, "a@local.test", &["x@odd.test", "y@far.test"]).await;
    let mut worker = Worker::connect(&stack.queue, RELAY).await;
    let leased = [worker.lease().await, worker.lease().await];
    let mut leased = leased.map(|lease| (lease.envelope.queue_id, lease.route.destination));
    leased.sort();
    let mut expected = [
        (before, "odd.test".to_owned()),
        (both, "far.test".to_owned()),
    ];
    expected.sort();
    assert_eq!(leased, expected);
    let events = stack.queue.trace(both).await.unwrap();
    let held = events.iter().find(|event| event.kind == EventKind::Held);
    assert_eq!(held.expect("it is told").text, "held: rule odd");
    drop(worker);

    let stack = stack.restart().await;
    let kept = only_rule(&stack).await;
    assert_eq!((kept.by.as_str(), kept.held), ("eve", 1));
    let again = send(&stack, "a@local.test", &["x@odd.test"]).await;
    assert_eq!(state(&stack, again).await, held_by("odd"));

    let (config, folder) = (stack.config.clone(), stack.stop().await);
    std::fs::remove_dir_all(folder.path().join("state/queue/index")).unwrap();
    let stack = Stack::in_folder(folder, config).await;
    assert_eq!(only_rule(&stack).await.held, 2);
    let third = send(&stack, "a@local.test", &["x@odd.test"]).await;
    assert_eq!(state(&stack, third).await, held_by("odd"));

    // What it holds goes with it, if that is wanted; and what comes is free.
    let removal = Removal {
        name: "odd".to_owned(),
        release: true,
        dry_run: true,
        ..Removal::default()
    };
    let would = stack.queue.remove_hold_rule(removal.clone()).await.unwrap();
    assert_eq!(would.mails, 3);
    assert_eq!(only_rule(&stack).await.held, 3);
    let removal = Removal {
        dry_run: false,
        ..removal
    };
    let released = stack.queue.remove_hold_rule(removal.clone()).await.unwrap();
    assert_eq!(released.mails, 3);
    assert_eq!(state(&stack, third).await.0, MailState::Due);
    let free = send(&stack, "a@local.test", &["x@odd.test"]).await;
    assert_eq!(state(&stack, free).await.0, MailState::Due);
    assert_eq!(
        stack.queue.remove_hold_rule(removal).await,
        Err(QueueError::NotFound)
    );
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_can_hold_what_is_there_and_be_tried_first() {
    let stack = Stack::new().await;
    let there = send(&stack, "spam@far.test", &["b@local.test"]).await;
    let other = send(&stack, "ham@far.test", &["b@local.test"]).await;
    let filter = Filter {
        sender: Some("spam@far.test".to_owned()),
        ..Filter::default()
    };
    let order = HoldOrder {
        also_present: true,
        dry_run: true,
        ..rule("spam", filter)
    };
    let would = stack.queue.put_hold_rule(order.clone()).await.unwrap();
    assert_eq!(would.mails, 1);
    assert_eq!(stack.queue.hold_rules().await.unwrap(), []);
    let order = HoldOrder {
        dry_run: false,
        ..order
    };
    let done = stack.queue.put_hold_rule(order.clone()).await.unwrap();
    assert_eq!(done.mails, 1);
    assert_eq!(state(&stack, there).await, held_by("spam"));
    assert_eq!(state(&stack, other).await.0, MailState::Due);
    // The same name again is the same rule, changed.
    let changed = HoldOrder {
        reason: "still odd".to_owned(),
        ..order
    };
    stack.queue.put_hold_rule(changed).await.unwrap();
    let kept = only_rule(&stack).await;
    assert_eq!((kept.reason.as_str(), kept.held), ("still odd", 1));
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_that_cannot_be_are_refused_with_the_reason() {
    let stack = Stack::new().await;
    let state = Filter {
        state: Some(MailState::Due),
        ..Filter::default()
    };
    for (name, filter, says) in [
        ("", Filter::all(), "1 to 64"),
        ("with space", Filter::all(), "1 to 64"),
        ("empty", Filter::default(), "means no mail"),
        ("state", state, "as it comes"),
        (
            "ids",
            Filter::of_ids(vec![QueueId::from_bytes([1; 16])]),
            "as it comes",
        ),
    ] {
        let refused = stack.queue.put_hold_rule(rule(name, filter)).await;
        let Err(QueueError::Invalid(why)) = &refused else {
            panic!("{name}: {refused:?}");
        };
        assert!(why.contains(says), "{name}: {why}");
    }
    assert_eq!(stack.queue.hold_rules().await.unwrap(), []);
    stack.stop().await;
}
