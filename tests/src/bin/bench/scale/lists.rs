//! How long lists take.

use std::time::{Duration, Instant, SystemTime};

use anyhow::Result;
use postroad_envelope::{Filter, MailState, QueueId, Timestamp};
use postroad_queue_client::{ListPage, ListQuery, QueueAdmin, RemoteAdmin};
use serde_json::{Value, json};

use super::Queued;
use crate::figures::table;

/// First page of each kind of list, and whole scans for what nobody has.
pub async fn measure(queued: &Queued) -> Result<Value> {
    let admin = queued.admin()?;
    let middle = middle(&admin).await?;
    let by = |change: fn(&mut Filter)| {
        let mut filter = Filter::default();
        change(&mut filter);
        filter
    };
    let by_id = Filter {
        ids: middle.into_iter().collect(),
        ..Filter::default()
    };
    let by_time = Filter {
        received_after: middle.map(QueueId::minted_at),
        ..Filter::default()
    };
    let second_ago = Timestamp::from(SystemTime::now() - Duration::from_secs(1));
    let by_age = Filter {
        received_before: Some(second_ago),
        ..Filter::default()
    };
    let kinds = [
        ("all", Filter::all()),
        ("id", by_id),
        ("time", by_time),
        (
            "state due",
            by(|filter| filter.state = Some(MailState::Due)),
        ),
        (
            "state held",
            by(|filter| filter.state = Some(MailState::Held)),
        ),
        (
            "destination",
            by(|filter| filter.destination = Some("world77.test".to_owned())),
        ),
        (
            "recipient domain",
            by(|filter| filter.recipient_domain = Some("world78.test".to_owned())),
        ),
        (
            "sender",
            by(|filter| filter.sender = Some("sender79@client.test".to_owned())),
        ),
        ("age", by_age),
        ("size", by(|filter| filter.size_at_least = Some(1 << 30))),
        ("tag", by(|filter| filter.tag = Some("nobody".to_owned()))),
        (
            "account",
            by(|filter| filter.account = Some("nobody@client.test".to_owned())),
        ),
        (
            "tenant",
            by(|filter| filter.tenant = Some("nobody".to_owned())),
        ),
        (
            "reason",
            by(|filter| filter.reason_contains = Some("nobody says this".to_owned())),
        ),
    ];
    let head = [
        "filter",
        "first page ms",
        "mails on it",
        "pages",
        "all: looked at",
        "all: seconds",
        "looked at/s",
    ];
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    let mut results = Vec::new();
    for (name, filter) in kinds {
        let listed = Listed::measure(&admin, filter).await?;
        let rate = listed.scanned as f64 / listed.whole.as_secs_f64();
        lines.push(vec![
            name.to_owned(),
            format!("{:.1}", listed.first.as_secs_f64() * 1000.0),
            listed.mails.to_string(),
            listed.pages.to_string(),
            listed.scanned.to_string(),
            format!("{:.2}", listed.whole.as_secs_f64()),
            format!("{rate:.0}"),
        ]);
        results.push(
            json!({ "filter": name, "first_page_ms": listed.first.as_secs_f64() * 1000.0,
            "pages": listed.pages, "scanned": listed.scanned, "scanned_per_s": rate }),
        );
    }
    println!("\n{}", table(&lines));
    Ok(json!(results))
}

struct Listed {
    first: Duration,
    mails: usize,
    /// Until the end of the list, or until enough was seen.
    whole: Duration,
    pages: usize,
    scanned: u64,
}

/// Pages of a list that goes on and on.
const PAGES: usize = 200;

impl Listed {
    async fn measure(admin: &RemoteAdmin, filter: Filter) -> Result<Self> {
        let began = Instant::now();
        let mut query = ListQuery::from(filter);
        let page = admin.list(query.clone()).await?;
        let mut listed = Self {
            first: began.elapsed(),
            mails: page.mails.len(),
            whole: Duration::ZERO,
            pages: 1,
            scanned: page.scanned,
        };
        query.limit = 1000;
        let mut next = page.next;
        while let Some(after) = next.filter(|_| listed.pages < PAGES) {
            query.after = Some(after);
            let page: ListPage = admin.list(query.clone()).await?;
            listed.scanned += page.scanned;
            listed.pages += 1;
            next = page.next;
        }
        listed.whole = began.elapsed();
        Ok(listed)
    }
}

/// An id from the middle of the queue.
async fn middle(admin: &RemoteAdmin) -> Result<Option<QueueId>> {
    let mut ends = Vec::new();
    for newest_first in [false, true] {
        let query = ListQuery {
            newest_first,
            limit: 1,
            ..ListQuery::default()
        };
        ends.extend(
            admin
                .list(query)
                .await?
                .mails
                .first()
                .map(|mail| mail.queue_id),
        );
    }
    let times: Vec<u64> = ends.iter().map(|id| id.minted_at().as_millis()).collect();
    let middle = times.iter().sum::<u64>() / times.len().max(1) as u64;
    let mut query = ListQuery::default();
    query.filter.all = false;
    query.filter.received_after = Some(Timestamp::from_millis(middle));
    query.limit = 1;
    let page = admin.list(query).await?;
    Ok(page.mails.first().map(|mail| mail.queue_id))
}

/// Jobs in the queue; each mail here has one.
pub async fn living(admin: &RemoteAdmin) -> Result<usize> {
    let stats = admin.stats(10_000).await?;
    let each = stats.destinations.iter();
    let sum: u64 = each
        .map(|one| one.due + one.delayed + one.leased + one.held)
        .sum();
    Ok(usize::try_from(sum)?)
}
