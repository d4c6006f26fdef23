//! An account that is of another store than the agent's.

use bytes::Bytes;
use postroad_envelope::{Outcome, RecipientIndex};
use postroad_maildir::{Begin, DeliveryId, Store, Target};
use postroad_queue_client::{Touch, WorkUp};
use tempfile::TempDir;

use super::{Agent, envelope, mails};

#[tokio::test]
async fn of_an_account_of_another_store_nothing_is_filed_and_its_mail_goes_back() {
    let root = TempDir::new().unwrap();
    let mut agent = Agent::start(root.path()).await;
    let mail = envelope(&["moved@example.org"]);
    agent.session.lease(&mail, Some(Bytes::new())).await;
    match agent.session.result().await {
        WorkUp::HandBack(back) => assert_eq!(back.touch, Touch::Elsewhere),
        other => panic!("{other:?}"),
    }
    let both = envelope(&["bob@example.org", "moved@example.org"]);
    agent.session.lease(&both, Some(Bytes::new())).await;
    let settlement = agent.session.settlement().await;
    agent.session.keep(&settlement).await;
    assert_eq!(settlement.elsewhere, [RecipientIndex(1)]);
    let indices = settlement.outcomes.iter().map(|(index, _)| *index);
    assert_eq!(indices.collect::<Vec<_>>(), [RecipientIndex(0)]);
    assert_eq!(mails(root.path(), "moved"), []);
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn what_was_filed_before_its_account_moved_is_settled_and_not_given_away() {
    let root = TempDir::new().unwrap();
    let mail = envelope(&["moved@example.org"]);
    let (store, _) = Store::open(root.path(), "here").unwrap();
    let target = Target::new("example.org", "moved", None).unwrap();
    let id = DeliveryId::new(&mail.queue_id.to_string(), 0).unwrap();
    match store.begin(&target, id, 1_700_000_000).unwrap() {
        Begin::Write(delivery) => drop(delivery.commit().unwrap()),
        other @ Begin::Already(_) => panic!("{other:?}"),
    }
    drop(store);
    // The settlement was lost with the process.
    let mut agent = Agent::start(root.path()).await;
    agent
        .queue
        .contents
        .lock()
        .unwrap()
        .insert(mail.queue_id, Bytes::new());
    agent.session.lease(&mail, Some(Bytes::new())).await;
    let settlement = agent.session.settlement().await;
    agent.session.keep(&settlement).await;
    assert!(settlement.elsewhere.is_empty());
    assert!(
        matches!(settlement.outcomes[..], [(_, Outcome::Delivered(_))]),
        "{settlement:?}"
    );
    assert_eq!(mails(root.path(), "moved").len(), 1);
    agent.stop().await.unwrap();
}
