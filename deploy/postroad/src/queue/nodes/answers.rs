//! Answers of several nodes as one answer. Pure.

use std::{cmp::Reverse, collections::BTreeMap};

use postroad_envelope::{Event, MailState};
use postroad_queue_client::{
    DestinationStats, ListPage, ListQuery, MailSummary, QueueStats, SiteStats,
};

/// Pages in one order. What one node has not looked at yet is left to the next page, for all.
pub(super) fn one_page(mut pages: Vec<ListPage>, query: &ListQuery) -> ListPage {
    if pages.len() == 1 {
        return pages.pop().unwrap_or_default();
    }
    let limit = match query.limit {
        0 => 100,
        limit => usize::try_from(limit).unwrap_or(usize::MAX),
    };
    let scanned = pages.iter().map(|page| page.scanned).sum();
    let nexts = pages.iter().filter_map(|page| page.next);
    let of_retired = query.filter.state == Some(MailState::Retired);
    let horizon = match (of_retired, query.newest_first) {
        // In the order in which they ended, which their ids do not tell: there is one page.
        (true, _) => None,
        (false, true) => nexts.max(),
        (false, false) => nexts.min(),
    };
    let mut mails: Vec<MailSummary> = pages.into_iter().flat_map(|page| page.mails).collect();
    match (of_retired, query.newest_first) {
        (true, true) => mails.sort_by_key(|mail| Reverse(mail.retired.map(|retired| retired.at))),
        (true, false) => mails.sort_by_key(|mail| mail.retired.map(|retired| retired.at)),
        (false, true) => mails.sort_by_key(|mail| Reverse(mail.queue_id)),
        (false, false) => mails.sort_by_key(|mail| mail.queue_id),
    }
    if let Some(horizon) = horizon {
        mails.retain(|mail| match query.newest_first {
            true => mail.queue_id >= horizon,
            false => mail.queue_id <= horizon,
        });
    }
    let mut next = horizon;
    if mails.len() > limit {
        mails.truncate(limit);
        next = mails
            .last()
            .map(|mail| mail.queue_id)
            .filter(|_| !of_retired);
    }
    ListPage {
        mails,
        next,
        scanned,
    }
}

pub(super) fn in_time(mut events: Vec<Event>) -> Vec<Event> {
    // Stable: those of one node keep their order.
    events.sort_by_key(|event| event.at);
    events
}

/// Destinations and sites of the same name counted together, most jobs first.
pub fn sum_of(all: impl Iterator<Item = QueueStats>) -> QueueStats {
    let mut all: Vec<QueueStats> = all.collect();
    if all.len() == 1 {
        return all.pop().unwrap_or_default();
    }
    let mut destinations: BTreeMap<String, DestinationStats> = BTreeMap::new();
    let mut sites: BTreeMap<String, SiteStats> = BTreeMap::new();
    let mut unseen = 0;
    for stats in all {
        let listed = u64::try_from(stats.destinations.len()).unwrap_or(u64::MAX);
        unseen += stats.total.saturating_sub(listed);
        for one in stats.destinations {
            match destinations.get_mut(&one.destination) {
                Some(sum) => {
                    sum.due += one.due;
                    sum.delayed += one.delayed;
                    sum.leased += one.leased;
                    sum.held += one.held;
                    sum.oldest = sum.oldest.into_iter().chain(one.oldest).min();
                    sum.site = sum.site.take().or(one.site);
                    if sum.last_reply.is_empty() {
                        sum.last_reply = one.last_reply;
                    }
                }
                None => drop(destinations.insert(one.destination.clone(), one)),
            }
        }
        for one in stats.sites {
            match sites.get_mut(&one.site) {
                Some(sum) => {
                    sum.destinations = sum.destinations.max(one.destinations);
                    sum.due += one.due;
                    sum.delayed += one.delayed;
                    sum.leased += one.leased;
                    sum.held += one.held;
                    sum.oldest = sum.oldest.into_iter().chain(one.oldest).min();
                    if sum.last_reply.is_empty() {
                        sum.last_reply = one.last_reply;
                    }
                }
                None => drop(sites.insert(one.site.clone(), one)),
            }
        }
    }
    let mut destinations: Vec<_> = destinations.into_values().collect();
    let mut sites: Vec<_> = sites.into_values().collect();
    destinations.sort_by_key(|one| Reverse(one.due + one.delayed + one.leased + one.held));
    sites.sort_by_key(|one| Reverse(one.due + one.delayed + one.leased + one.held));
    let total = u64::try_from(destinations.len()).unwrap_or(u64::MAX) + unseen;
    QueueStats {
        destinations,
        total,
        sites,
    }
}

#[cfg(test)]
mod tests {
    use postroad_envelope::{QueueId, Timestamp};

    use super::*;

    fn mail(number: u8) -> MailSummary {
        MailSummary {
            queue_id: QueueId::from_bytes([number; 16]),
            received_at: Timestamp::from_millis(1_700_000_000_000),
            size: 5,
            sender: String::new(),
            open_recipients: Vec::new(),
            state: MailState::Due,
            next_attempt: None,
            reason: String::new(),
            tenant: "default".to_owned(),
            account: None,
            tags: Vec::new(),
            retired: None,
        }
    }

    fn page(mails: &[u8], next: Option<u8>) -> ListPage {
        ListPage {
            mails: mails.iter().map(|number| mail(*number)).collect(),
            next: next.map(|number| QueueId::from_bytes([number; 16])),
            scanned: 1,
        }
    }

    fn numbers(page: &ListPage) -> Vec<u8> {
        let ids = page.mails.iter().map(|mail| mail.queue_id.to_bytes()[0]);
        ids.collect()
    }

    #[test]
    fn pages_are_merged_as_far_as_every_node_has_looked() {
        let query = ListQuery {
            limit: 4,
            ..ListQuery::default()
        };
        let whole = one_page(vec![page(&[1, 4], None), page(&[2], None)], &query);
        assert_eq!((numbers(&whole), whole.next), (vec![1, 2, 4], None));
        assert_eq!(whole.scanned, 2);

        // The first has looked as far as 3 only: what the second has behind that comes with the next page.
        let part = one_page(vec![page(&[1], Some(3)), page(&[2, 5], None)], &query);
        assert_eq!(numbers(&part), [1, 2]);
        assert_eq!(part.next, page(&[], Some(3)).next);

        let full = one_page(
            vec![page(&[1, 2, 3, 7], Some(7)), page(&[4, 5], None)],
            &query,
        );
        assert_eq!(numbers(&full), [1, 2, 3, 4]);
        assert_eq!(full.next, page(&[], Some(4)).next);

        let newest = ListQuery {
            newest_first: true,
            ..query
        };
        let back = one_page(vec![page(&[9, 6], Some(6)), page(&[8, 2], None)], &newest);
        assert_eq!(numbers(&back), [9, 8, 6]);
        assert_eq!(back.next, page(&[], Some(6)).next);
    }

    #[test]
    fn what_waits_for_a_destination_is_counted_together() {
        let stats = |destination: &str, due| QueueStats {
            destinations: vec![DestinationStats {
                destination: destination.to_owned(),
                due,
                ..DestinationStats::default()
            }],
            total: 1,
            sites: Vec::new(),
        };
        let all = [stats("a.test", 2), stats("b.test", 3), stats("a.test", 2)];
        let sum = sum_of(all.into_iter());
        let told: Vec<_> = sum
            .destinations
            .iter()
            .map(|one| (one.destination.as_str(), one.due))
            .collect();
        assert_eq!(told, [("a.test", 4), ("b.test", 3)]);
        assert_eq!(sum.total, 2);
    }
}
