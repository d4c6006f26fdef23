//! Leases that come again, and streams that break: whatever the queue hears of it, there is one mail.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use postroad_address::Mailbox;
use postroad_envelope::EventKind;
use postroad_queue_client::WorkUp;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::timeout;

use super::queue::{FakeQueue, PATIENCE};
use super::{Agent, envelope, is_delivered, mails};

#[tokio::test]
async fn a_job_leased_anew_waits_for_the_attempt_that_goes_on() {
    let root = TempDir::new().unwrap();
    let mut agent = Agent::start(root.path()).await;
    let mut mail = envelope(&["bob@example.org"]);
    let content = Bytes::from_static(b"Subject: slow\r\n\r\n");
    mail.size = content.len() as u64;
    agent
        .queue
        .contents
        .lock()
        .unwrap()
        .insert(mail.queue_id, content);
    // The agent's upkeep reads too, whenever it comes to that: so the gate stays open once it is.
    let (gate, closed) = watch::channel(false);
    *agent.queue.read_gate.lock().unwrap() = Some(closed);
    agent.session.lease(&mail, None).await;
    agent.session.lease(&mail, None).await;
    assert!(matches!(agent.session.result().await, WorkUp::HandBack(_)));
    gate.send_replace(true);
    assert!(is_delivered(&agent.session.settled().await[0].1));
    assert_eq!(mails(root.path(), "bob").len(), 1);
    // And then it may come.
    agent.session.lease(&mail, None).await;
    assert!(is_delivered(&agent.session.settled().await[0].1));
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn a_lease_that_comes_again_gives_no_second_mail_even_after_a_restart() {
    let root = TempDir::new().unwrap();
    let mut mail = envelope(&["bob@example.org"]);
    // As the queue does with what is leased; the agent asks at a time of its own and forgets what the queue does not know.
    let knowing = || {
        let queue = FakeQueue::new();
        let mut contents = queue.contents.lock().unwrap();
        contents.insert(mail.queue_id, Bytes::new());
        drop(contents);
        queue
    };
    let mut agent = Agent::with_queue(root.path(), knowing()).await;
    let content = Some(Bytes::from_static(b"Subject: once\r\n\r\n"));
    for _ in 0..2 {
        agent.session.lease(&mail, content.clone()).await;
        // Never made durable: the queue leases it again.
        assert!(is_delivered(
            &agent.session.settlement().await.outcomes[0].1
        ));
    }
    // A reader takes it away; the agent dies without a settlement.
    let taken = &mails(root.path(), "bob")[0].path;
    fs::remove_file(taken).unwrap();
    agent.running.abort();
    let _ = agent.running.await;
    drop(agent.session);

    let mut agent = reopened(root.path(), knowing()).await;
    agent.session.lease(&mail, content.clone()).await;
    assert!(is_delivered(
        &agent.session.settlement().await.outcomes[0].1
    ));
    assert!(mails(root.path(), "bob").is_empty());

    // The account is gone meanwhile; that changes nothing for a mail that it got.
    mail.recipients[0].address = Mailbox::parse("gone@example.org").unwrap();
    agent.session.lease(&mail, content).await;
    assert!(is_delivered(&agent.session.settled().await[0].1));
    agent.stop().await.unwrap();
}

/// The store is locked until the threads of the aborted agent have ended.
async fn reopened(root: &Path, queue: Arc<FakeQueue>) -> Agent {
    let opened = async {
        loop {
            match postroad_maildir::Store::open(root, "probe") {
                Ok(_) => return,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    timeout(PATIENCE, opened).await.unwrap();
    Agent::with_queue(root, queue).await
}

#[tokio::test]
async fn a_queue_that_goes_away_is_connected_to_again_and_told_what_was_filed() {
    let root = TempDir::new().unwrap();
    let mut agent = Agent::start(root.path()).await;
    let mail = envelope(&["bob@example.org"]);
    agent.session.lease(&mail, Some(Bytes::new())).await;
    let unanswered = agent.session.settlement().await;
    drop(agent.session);
    let mut session = timeout(PATIENCE, agent.sessions.recv())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(session.settled().await, unanswered.outcomes);
    assert_eq!(mails(root.path(), "bob").len(), 1);
    agent.stop.cancel();
    timeout(PATIENCE, agent.running)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn a_stream_that_breaks_between_events_and_settlement_costs_neither() {
    let root = TempDir::new().unwrap();
    let queue = FakeQueue::new();
    queue.cut_behind_events.store(true, Ordering::Relaxed);
    let mut agent = Agent::with_queue(root.path(), queue).await;
    let mail = envelope(&["bob@example.org"]);
    let content = Bytes::from_static(b"Subject: once\r\n\r\n");
    agent.session.lease(&mail, Some(content)).await;
    agent.session = timeout(PATIENCE, agent.sessions.recv())
        .await
        .unwrap()
        .unwrap();
    assert!(is_delivered(&agent.session.settled().await[0].1));
    assert_eq!(mails(root.path(), "bob").len(), 1);
    let events = agent.queue.events.lock().unwrap().clone();
    let delivered = events
        .iter()
        .filter(|event| event.kind == EventKind::Delivered);
    assert_eq!(delivered.count(), 1, "{events:?}");
    agent.stop().await.unwrap();
}
