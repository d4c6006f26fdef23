//! Who may do what over a socket: roles by uid, which here is ours.

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use postroad_daemon::CommonConfig;
use postroad_envelope::{Envelope, Protocol, QueueId, RouteClass, TlsFacts};
use postroad_net::{Networks, OnlyAccounts, PeerRole, Roles, UnixRole};
use postroad_queue_client::{
    Accepted, AdmitRequest, Change, Changed, Filter, ImportedMail, ListQuery, Order, QueueAdmin,
    QueueError, QueueService, RemoteAdmin, RemoteQueue, WorkHello,
};
use postroad_queued::{Config, serve_rpc};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{
    retired::finish,
    setup::{Stack, change, common, config, failed, mail, submit},
};

/// A queue behind sockets where whoever calls has this one role.
pub struct Served {
    pub stack: Stack,
    pub remote: RemoteQueue,
    pub admin: RemoteAdmin,
    stop: CancellationToken,
    served: JoinHandle<()>,
}

impl Served {
    async fn to(role: PeerRole) -> Self {
        Self::with(role, config()).await
    }

    pub async fn with(role: PeerRole, config: Config) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        Self::in_folder(role, folder, config).await
    }

    pub async fn in_folder(role: PeerRole, folder: Arc<TempDir>, mut config: Config) -> Self {
        let uid = Some(rustix::process::geteuid().as_raw());
        let roles = Roles::from(vec![role]);
        if config.listen.unix_roles.is_empty() {
            config.listen.unix_roles = vec![UnixRole {
                uid,
                gid: None,
                roles,
                accounts: OnlyAccounts::default(),
            }];
        }
        let stack = Stack::in_folder(folder, config).await;
        let common: CommonConfig = common(stack.folder.path());
        let stop = CancellationToken::new();
        let agents = stack.config.agents_endpoint(&common);
        let operators = stack.config.admin_endpoint(&common);
        let (queue, stopping) = (stack.queue.clone(), stop.clone());
        let served = tokio::spawn(async move {
            serve_rpc(&queue, &common, stopping).await.unwrap();
        });
        let remote = RemoteQueue::connect(&agents, None).unwrap();
        let admin = RemoteAdmin::connect(&operators, None, "a test").unwrap();
        let up = async {
            while let Err(QueueError::Unavailable(_)) = admin.list(ListQuery::default()).await {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(crate::setup::PATIENCE, up)
            .await
            .expect("serves in time");
        Self {
            stack,
            remote,
            admin,
            stop,
            served,
        }
    }

    pub async fn submit(&self, envelope: &Envelope) -> Result<Accepted, QueueError> {
        submit(&self.remote, envelope, b"\r\nhi").await
    }

    async fn works(&self, classes: &[RouteClass]) -> bool {
        let hello = WorkHello {
            stores: Vec::new(),
            agent: "test".into(),
            version: "0".into(),
            host: "here".into(),
            classes: classes.to_vec(),
            held: Vec::new(),
            former: None,
            joins: false,
        };
        match self.remote.work(hello).await {
            Ok(mut channel) => {
                matches!(
                    futures::StreamExt::next(&mut channel.down).await,
                    Some(Ok(_))
                )
            }
            Err(_) => false,
        }
    }

    pub async fn end(self) {
        drop((self.remote, self.admin));
        self.stop.cancel();
        self.served.await.unwrap();
        Arc::new(self.stack.stop().await);
    }
}

fn refused(result: &Result<Accepted, QueueError>) -> bool {
    matches!(result, Err(QueueError::NotAllowed(_)))
}

fn by_account(mut envelope: Envelope) -> Envelope {
    envelope.account = Some("alice@local.test".to_owned());
    envelope
}

#[tokio::test(flavor = "multi_thread")]
async fn an_msa_submits_for_accounts_and_leases_nothing() {
    let served = Served::to(PeerRole::Msa).await;
    let far = || mail("alice@local.test", &["x@far.test"]);
    assert!(served.submit(&by_account(far())).await.is_ok());
    assert!(refused(&served.submit(&far()).await));
    // A host may be named, a socket of the MTA's host may not.
    for (hop, is_refused) in [("store.test:24", false), ("unix:/run/docker.sock", true)] {
        let mut steered = by_account(far());
        let hop = Some(hop.parse().unwrap());
        steered.recipients[0].route_override = Some((RouteClass::Lmtp, hop));
        assert_eq!(refused(&served.submit(&steered).await), is_refused);
    }
    assert!(!served.works(&[RouteClass::Local]).await);
    let all = change(&served.admin, Change::Retry, Filter::all()).await;
    assert!(matches!(all, Err(QueueError::NotAllowed(_))), "{all:?}");
    served.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_submits_what_its_accounts_may_send_and_does_nothing_else() {
    let mut config = config();
    config.listen.unix_roles = vec![UnixRole {
        uid: Some(rustix::process::geteuid().as_raw()),
        gid: None,
        roles: Roles::from(vec![PeerRole::Msa]),
        accounts: OnlyAccounts::from(vec!["alice@local.test".to_owned()]),
    }];
    let served = Served::with(PeerRole::Msa, config).await;
    let from = |sender: &str| by_account(mail(sender, &["x@far.test"]));
    assert!(served.submit(&from("alice@local.test")).await.is_ok());
    assert!(
        refused(&served.submit(&from("bob@local.test")).await),
        "not its sender"
    );
    let mut other = from("bob@local.test");
    other.account = Some("bob@local.test".to_owned());
    assert!(refused(&served.submit(&other).await), "not its account");
    let mut tenant = from("alice@local.test");
    tenant.tenant = "acme".to_owned();
    assert!(refused(&served.submit(&tenant).await), "not its tenant");
    let mut routed = from("alice@local.test");
    routed.recipients[0].route_override = Some((RouteClass::Discard, None));
    assert!(refused(&served.submit(&routed).await), "not its choice");
    let asked = |account: &str| AdmitRequest {
        tenant: "default".to_owned(),
        account: Some(account.to_owned()),
        size: None,
        recipients: Vec::new(),
    };
    assert!(served.remote.admit(asked("alice@local.test")).await.is_ok());
    let other = served.remote.admit(asked("bob@local.test")).await;
    assert!(matches!(other, Err(QueueError::NotAllowed(_))), "{other:?}");
    let told = served.remote.record(Vec::new()).await;
    assert!(matches!(told, Err(QueueError::NotAllowed(_))), "{told:?}");
    served.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_mta_brings_mail_for_us_and_for_whom_our_aliases_name() {
    let served = Served::to(PeerRole::Mta).await;
    let ours = mail("x@far.test", &["bob@local.test"]);
    assert!(served.submit(&ours).await.is_ok());
    assert!(refused(
        &served
            .submit(&by_account(mail("", &["bob@local.test"])))
            .await
    ));
    let mut far = mail("x@far.test", &["carol@far.test"]);
    assert!(refused(&served.submit(&far).await), "no open relay");
    far.recipients[0].original = Some("bob@local.test".parse().unwrap());
    assert!(
        refused(&served.submit(&far).await),
        "bob does not stand for carol"
    );
    far.recipients[0].original = Some("team@local.test".parse().unwrap());
    assert!(served.submit(&far).await.is_ok());
    // RFC 8460: a report of its own, and nothing that only looks like one.
    let report = || mail("", &["tls@far.test"]);
    assert!(served.submit(&report()).await.is_ok());
    let mut received = report();
    received.origin.client = Some("192.0.2.9:2525".parse().unwrap());
    assert!(refused(&served.submit(&received).await), "no open relay");
    let two = mail("", &["tls@far.test", "x@far.test"]);
    assert!(refused(&served.submit(&two).await));
    assert!(served.works(&[RouteClass::Relay, RouteClass::Lmtp]).await);
    assert!(!served.works(&[RouteClass::Relay, RouteClass::Local]).await);
    served.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_mta_brings_mail_for_anyone_from_relay_networks() {
    let mut config = config();
    config.relay_networks = Networks::parse(["192.0.2.0/24"]).unwrap();
    let served = Served::with(PeerRole::Mta, config).await;
    let from = |client: Option<&str>| {
        let mut envelope = mail("x@far.test", &["carol@far.test"]);
        envelope.origin.client = client.map(|client| client.parse().unwrap());
        envelope
    };
    assert!(served.submit(&from(Some("192.0.2.9:2525"))).await.is_ok());
    assert!(
        served
            .submit(&from(Some("[::ffff:192.0.2.9]:2525")))
            .await
            .is_ok()
    );
    assert!(refused(&served.submit(&from(Some("192.0.3.9:2525"))).await));
    assert!(refused(&served.submit(&from(None)).await));
    // A client that a neighbour told of is hearsay: the neighbour counts.
    let through = |client: &str, peer: &str| {
        let mut envelope = from(Some(client));
        envelope.origin.peer = Some(peer.parse().unwrap());
        envelope
    };
    let inside = through("192.0.3.9:2525", "192.0.2.9:2525");
    assert!(served.submit(&inside).await.is_ok());
    let outside = through("192.0.2.9:2525", "192.0.3.9:2525");
    assert!(refused(&served.submit(&outside).await));
    let claims = by_account(from(Some("192.0.2.9:2525")));
    assert!(refused(&served.submit(&claims).await));
    served.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_mta_brings_mail_for_anyone_of_a_client_known_by_its_certificate() {
    let mut config = config();
    config.relay_certificates = vec!["submission.example.net".parse().unwrap()];
    let served = Served::with(PeerRole::Mta, config).await;
    let by = |verified: Option<&str>| {
        let mut envelope = mail("x@far.test", &["carol@far.test"]);
        envelope.origin.tls = Some(TlsFacts {
            version: "TLS1.3".to_owned(),
            cipher: "TLS_AES_256_GCM_SHA384".to_owned(),
            verified: verified.map(str::to_owned),
        });
        envelope
    };
    assert!(
        served
            .submit(&by(Some("Submission.example.net")))
            .await
            .is_ok()
    );
    assert!(refused(
        &served.submit(&by(Some("other.example.net"))).await
    ));
    assert!(refused(&served.submit(&by(None)).await));
    let claims = by_account(by(Some("submission.example.net")));
    assert!(refused(&served.submit(&claims).await));
    served.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_agent_may_say_of_the_client_follows_from_its_role() {
    let (logged_in, not) = (esmtp(true), esmtp(false));
    // Account of the mail, account and protocol of its origin, and whether it is taken.
    let alice = Some("alice@local.test");
    let of_msa = [
        (alice, alice, logged_in, true),
        (alice, None, logged_in, true),
        (alice, Some("bob@local.test"), logged_in, false),
        (None, alice, logged_in, false),
    ];
    let of_mta = [
        (None, None, not, true),
        (None, None, Protocol::Smtp, true),
        (None, None, logged_in, false),
        (None, alice, not, false),
        (alice, None, not, false),
    ];
    // It hands on what came by a log-in.
    let of_mda = [
        (None, None, logged_in, true),
        (None, None, Protocol::Internal, true),
        (None, alice, logged_in, false),
        (alice, None, logged_in, false),
    ];
    for (role, cases) in [
        (PeerRole::Msa, &of_msa[..]),
        (PeerRole::Mta, &of_mta),
        (PeerRole::Mda, &of_mda),
    ] {
        let served = Served::to(role).await;
        for &(account, origin, protocol, taken) in cases {
            let mut envelope = mail("x@far.test", &["bob@local.test"]);
            envelope.account = account.map(str::to_owned);
            envelope.origin.account = origin.map(str::to_owned);
            envelope.origin.protocol = protocol;
            let answer = served.submit(&envelope).await;
            let case = format!("{role}: {account:?} {origin:?} {protocol}");
            assert_eq!(answer.is_ok(), taken, "{case}: {answer:?}");
            assert!(taken || refused(&answer), "{case}: {answer:?}");
        }
        served.end().await;
    }
}

fn esmtp(auth: bool) -> Protocol {
    Protocol::Esmtp {
        tls: true,
        auth,
        utf8: false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_mda_submits_reports_and_redirected_mail_and_leases_what_stays() {
    let served = Served::to(PeerRole::Mda).await;
    assert!(served.submit(&mail("", &["x@far.test"])).await.is_ok());
    let mut redirected = mail("x@far.test", &["y@far.test"]);
    assert!(refused(&served.submit(&redirected).await));
    redirected.recipients[0].original = Some("bob@local.test".parse().unwrap());
    assert!(served.submit(&redirected).await.is_ok());
    assert!(served.works(&[RouteClass::Local]).await);
    assert!(!served.works(&[RouteClass::Relay]).await);
    served.end().await;
}

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
