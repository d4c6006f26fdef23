//! Mail hosts, as an operator sees them and has them tried.

use futures::StreamExt as _;
use postroad_envelope::{Outcome, RecipientIndex, RouteClass, StatusReport, Timestamp};
use postroad_queue_client::{Lease, Settlement, SiteTry, WorkChannel, WorkDown, WorkUp};
use postroad_reply::{NO_ANSWER_4_4_1, SUCCESS_2_0_0};

use crate::site::Site;

const HOST: &str = "mx.host.example";

async fn next_lease(worker: &mut WorkChannel) -> Lease {
    worker.up.send(WorkUp::Credits(1)).await.unwrap();
    loop {
        match worker.down.next().await {
            Some(Ok(WorkDown::Lease(lease))) => return *lease,
            Some(Ok(WorkDown::Welcome { .. })) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// What came of it at this site.
async fn settle(worker: &mut WorkChannel, lease: &Lease, at: &str, outcome: Outcome) {
    let settlement = Settlement {
        lease: lease.lease,
        outcomes: vec![(RecipientIndex(0), outcome)],
        sites: vec![SiteTry {
            site: at.to_owned(),
            result: None,
        }],
        started_at: Timestamp::from(std::time::SystemTime::now()),
        elsewhere: Vec::new(),
        reporting: Vec::new(),
        timed: Vec::new(),
    };
    worker.up.send(WorkUp::Settle(settlement)).await.unwrap();
    let settled = worker.down.next().await;
    assert!(
        matches!(settled, Some(Ok(WorkDown::Settled { .. }))),
        "{settled:?}"
    );
}

#[test]
fn all_mail_for_a_site_is_tried_now_whatever_its_domain() {
    let site = Site::new();
    let mut worker = site.worker_for("mta@here", RouteClass::Relay);
    let mut ids = [
        site.send(&["x@far.example"]),
        site.send(&["y@near.example"]),
    ];
    // Nobody is there; the mails wait for their next attempts, in minutes.
    let silent = StatusReport::local(NO_ANSWER_4_4_1, "nobody answers at the door");
    site.runtime.block_on(async {
        for _ in &ids {
            let lease = next_lease(&mut worker).await;
            settle(&mut worker, &lease, HOST, Outcome::Delayed(silent.clone())).await;
        }
    });
    let known = site.json(&["queue", "sites"]);
    assert_eq!(known["total"], 1, "{known}");
    assert_eq!(known["sites"][0]["domain_count"], 2, "{known}");

    let (status, _, talk) = site.run(&["queue", "retry", "--site", "mx.other.example"]);
    assert_eq!(status, 3, "{talk}");
    let would = site.done(&["queue", "retry", "--site", HOST, "--dry-run"]);
    assert!(would.starts_with("2 mails would be"), "{would}");
    let done = site.done(&["queue", "retry", "--site", HOST]);
    assert!(done.starts_with("2 mails "), "{done}");
    // One of them looks whether the host is back, and the other follows.
    let mut tried = Vec::new();
    site.runtime.block_on(async {
        for _ in &ids {
            let lease = next_lease(&mut worker).await;
            tried.push(lease.lease.job.queue_id.to_string());
            let taken = StatusReport::local(SUCCESS_2_0_0, "taken");
            settle(&mut worker, &lease, HOST, Outcome::Relayed(taken)).await;
        }
    });
    ids.sort_unstable();
    tried.sort_unstable();
    assert_eq!(tried[..], ids);
    drop(worker);
    site.end();
}
