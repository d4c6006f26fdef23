//! Who looks and changes.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_changes_and_does_not_submit() {
    let served = Served::to(PeerRole::Admin).await;
    let envelope = mail("", &["x@far.test"]);
    assert!(refused(&served.submit(&envelope).await));
    submit(&served.stack.queue, &envelope, b"\r\nhi")
        .await
        .unwrap();
    let page = served.admin.list(ListQuery::default()).await.unwrap();
    assert_eq!(page.mails.len(), 1);
    assert_eq!(
        change(&served.admin, Change::Hold, Filter::all()).await,
        Ok(1)
    );
    let prefix = envelope.queue_id.to_string()[..16].parse().unwrap();
    assert_eq!(served.admin.find(prefix).await, Ok(envelope.queue_id));
    let details = served.admin.show(envelope.queue_id).await.unwrap();
    assert_eq!(details.summary.reason, "held by an operator");
    assert!(
        !served
            .admin
            .trace(envelope.queue_id)
            .await
            .unwrap()
            .is_empty()
    );
    served.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_over_a_socket_are_recorded_with_who_asked() {
    let served = Served::to(PeerRole::Admin).await;
    let envelope = mail("", &["x@far.test", "y@other.test"]);
    let submitted = submit(&served.stack.queue, &envelope, b"\r\nhi").await;
    submitted.unwrap();
    let admin = &served.admin;
    let reroute = Change::Reroute {
        class: RouteClass::Lmtp,
        next_hop: Some("store.test:24".parse().unwrap()),
    };
    let order = |dry_run| Order {
        dry_run,
        reason: "a move".to_owned(),
        ..Filter::to("far.test".to_owned()).into()
    };
    let one = Ok(Changed { mails: 1, busy: 0 });
    assert_eq!(admin.change(reroute.clone(), order(true)).await, one);
    assert_eq!(admin.change(reroute, order(false)).await, one);
    assert_eq!(
        change(admin, Change::Priority(-9), Filter::all()).await,
        Ok(1)
    );
    let details = admin.show(envelope.queue_id).await.unwrap();
    let classes: Vec<_> = details
        .recipients
        .iter()
        .map(|recipient| recipient.route.class)
        .collect();
    assert_eq!(classes, [RouteClass::Lmtp, RouteClass::Relay]);
    let events = admin.trace(envelope.queue_id).await.unwrap();
    let told: Vec<_> = events
        .iter()
        .filter(|event| event.kind.as_str() == "admin")
        .map(|event| event.fields["by"].clone())
        .collect();
    let uid = rustix::process::geteuid().as_raw();
    let by = format!("a test (uid={uid})");
    assert_eq!(told, [by.clone(), by]);

    let stats = admin.stats(0).await.unwrap();
    let due: Vec<_> = stats
        .destinations
        .iter()
        .map(|one| (one.destination.as_str(), one.due))
        .collect();
    assert_eq!(due, [("far.test", 1), ("other.test", 1)]);
    assert_eq!(admin.agents().await, Ok(Vec::new()));
    let nobody = admin.drain_agent("mta@nowhere", "").await;
    assert_eq!(nobody, Err(QueueError::NotFound));
    served.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_content_of_retired_mail_is_for_admins_alone() {
    for (role, may) in [
        (PeerRole::Mta, false),
        (PeerRole::Mda, false),
        (PeerRole::Admin, true),
    ] {
        let served = Served::to(role).await;
        let lost = finish(&served.stack, b"Subject: lost\r\n\r\n", &failed()).await;
        let kept = async || {
            while !is_retired(&served.stack, lost.queue_id).await {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(crate::setup::PATIENCE, kept())
            .await
            .unwrap();
        let read = served.remote.read(lost.queue_id, 0).await.map(drop);
        assert!(
            matches!(read, Err(QueueError::NotFound)),
            "{role:?} {read:?}"
        );
        let any = served.remote.read_any(lost.queue_id, 0).await.map(drop);
        assert_eq!(any.is_ok(), may, "{role:?} {any:?}");
        assert!(may || matches!(any, Err(QueueError::NotAllowed(_))));
        let resent = served.admin.resend(lost.queue_id.into()).await;
        assert_eq!(resent.is_ok(), may, "{role:?} {resent:?}");
        let one = Filter::of_ids(vec![lost.queue_id]);
        let purged = served.admin.purge(one.into()).await;
        assert_eq!(purged.is_ok(), may, "{role:?} {purged:?}");
        served.end().await;
    }
}

async fn is_retired(stack: &Stack, id: QueueId) -> bool {
    let shown = stack.queue.show(id).await;
    shown.is_ok_and(|shown| shown.summary.retired.is_some())
}

/// A mail of another queue with a content of some chunks.
fn imported(recipient: &str) -> (ImportedMail, Vec<Result<Bytes, QueueError>>) {
    let chunks = vec![Bytes::from_static(b"\r\n"), Bytes::from(vec![b'x'; 60_000])];
    let content: Vec<u8> = chunks.concat();
    let mut envelope = mail("a@far.test", &[recipient]);
    envelope.size = content.len() as u64;
    let mail = ImportedMail {
        envelope,
        crc32c: crc32c::crc32c(&content),
        recipients: Vec::new(),
        by: String::new(),
        dry_run: false,
    };
    (mail, chunks.into_iter().map(Ok).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_alone_takes_mail_of_another_queue_in() {
    let served = Served::to(PeerRole::Mta).await;
    let (mail, content) = imported("bob@local.test");
    let taken = served
        .admin
        .import(mail, stream::iter(content).boxed())
        .await;
    assert!(matches!(taken, Err(QueueError::NotAllowed(_))), "{taken:?}");
    served.end().await;

    let served = Served::to(PeerRole::Admin).await;
    let (mail, content) = imported("x@elsewhere.test");
    let id = mail.envelope.queue_id;
    let import = async |mail: &ImportedMail, content: &Vec<Result<Bytes, QueueError>>| {
        let content = content
            .iter()
            .map(|chunk| Ok(chunk.as_ref().unwrap().clone()));
        let content: Vec<Result<Bytes, QueueError>> = content.collect();
        served
            .admin
            .import(mail.clone(), stream::iter(content).boxed())
            .await
    };
    assert_eq!(import(&mail, &content).await, Ok(false));
    assert_eq!(import(&mail, &content).await, Ok(true), "known");
    let cut: Vec<_> = content[..1]
        .iter()
        .map(|chunk| Ok(chunk.as_ref().unwrap().clone()))
        .collect();
    let (other, _) = imported("x@elsewhere.test");
    let taken = import(&other, &cut).await;
    assert!(matches!(taken, Err(QueueError::Invalid(_))), "{taken:?}");
    let events = served.admin.trace(id).await.unwrap();
    let by = events.iter().filter_map(|event| event.fields.get("by"));
    let by: Vec<&str> = by.map(String::as_str).collect();
    assert!(by.len() == 1 && by[0].starts_with("a test ("), "{by:?}");
    served.end().await;
}
