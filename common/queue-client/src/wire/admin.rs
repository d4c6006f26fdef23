use postroad_envelope::{Ending, RecipientIndex, Timestamp};
use postroad_proto::{ConvertError, convert, queue::v1};

use crate::{
    AgentDetails, Changed, DestinationStats, ListPage, ListQuery, MailDetails, MailSummary, Order,
    QueueStats, RecipientDetails, RetiredFacts, SiteStats,
};

use super::filter;

fn missing(field: &'static str) -> ConvertError {
    ConvertError::new(field, "is missing")
}

impl From<&ListQuery> for v1::ListRequest {
    fn from(query: &ListQuery) -> Self {
        Self {
            filter: Some(filter::to_wire(&query.filter)),
            after: query.after.map(convert::queue_id_bytes),
            limit: query.limit,
            newest_first: query.newest_first,
        }
    }
}

impl TryFrom<v1::ListRequest> for ListQuery {
    type Error = ConvertError;

    fn try_from(wire: v1::ListRequest) -> Result<Self, ConvertError> {
        Ok(Self {
            filter: filter::from_wire(wire.filter.unwrap_or_default())?,
            after: wire
                .after
                .map(|id| convert::queue_id("after", &id))
                .transpose()?,
            limit: wire.limit,
            newest_first: wire.newest_first,
        })
    }
}

impl From<&Order> for v1::ChangeRequest {
    fn from(order: &Order) -> Self {
        Self {
            filter: Some(filter::to_wire(&order.filter)),
            dry_run: order.dry_run,
            by: order.by.clone(),
            reason: order.reason.clone(),
        }
    }
}

impl TryFrom<v1::ChangeRequest> for Order {
    type Error = ConvertError;

    fn try_from(wire: v1::ChangeRequest) -> Result<Self, ConvertError> {
        Ok(Self {
            filter: filter::from_wire(wire.filter.unwrap_or_default())?,
            dry_run: wire.dry_run,
            by: wire.by,
            reason: wire.reason,
        })
    }
}

impl From<Changed> for v1::ChangeResponse {
    fn from(changed: Changed) -> Self {
        let Changed { mails, busy } = changed;
        Self { mails, busy }
    }
}

impl From<v1::ChangeResponse> for Changed {
    fn from(wire: v1::ChangeResponse) -> Self {
        let v1::ChangeResponse { mails, busy } = wire;
        Self { mails, busy }
    }
}

impl From<&MailSummary> for v1::MailSummary {
    fn from(summary: &MailSummary) -> Self {
        Self {
            queue_id: convert::queue_id_bytes(summary.queue_id),
            received_at_ms: summary.received_at.as_millis(),
            size: summary.size,
            sender: summary.sender.clone(),
            open_recipients: summary.open_recipients.clone(),
            state: filter::state_to_wire(summary.state).into(),
            next_attempt_ms: summary.next_attempt.map(Timestamp::as_millis),
            reason: summary.reason.clone(),
            tenant: summary.tenant.clone(),
            account: summary.account.clone(),
            tags: summary.tags.clone(),
            retired_at_ms: summary.retired.map(|retired| retired.at.as_millis()),
            outcome: summary
                .retired
                .map_or_else(String::new, |retired| retired.ending.to_string()),
            has_content: summary.retired.is_some_and(|retired| retired.has_content),
        }
    }
}

impl TryFrom<v1::MailSummary> for MailSummary {
    type Error = ConvertError;

    fn try_from(wire: v1::MailSummary) -> Result<Self, ConvertError> {
        Ok(Self {
            retired: retired(&wire),
            queue_id: convert::queue_id("queue_id", &wire.queue_id)?,
            received_at: Timestamp::from_millis(wire.received_at_ms),
            size: wire.size,
            state: filter::state_from_wire(wire.state()).ok_or_else(|| missing("state"))?,
            sender: wire.sender,
            open_recipients: wire.open_recipients,
            next_attempt: wire.next_attempt_ms.map(Timestamp::from_millis),
            reason: wire.reason,
            tenant: wire.tenant,
            account: wire.account,
            tags: wire.tags,
        })
    }
}

/// None of a living mail, or one whose end has a name of a later release.
fn retired(wire: &v1::MailSummary) -> Option<RetiredFacts> {
    let named = |ending: &Ending| ending.as_str() == wire.outcome;
    Some(RetiredFacts {
        at: Timestamp::from_millis(wire.retired_at_ms?),
        ending: Ending::ALL.into_iter().find(named)?,
        has_content: wire.has_content,
    })
}

impl From<&ListPage> for v1::ListResponse {
    fn from(page: &ListPage) -> Self {
        Self {
            mails: page.mails.iter().map(Into::into).collect(),
            next: page.next.map(convert::queue_id_bytes),
            scanned: page.scanned,
        }
    }
}

impl TryFrom<v1::ListResponse> for ListPage {
    type Error = ConvertError;

    fn try_from(wire: v1::ListResponse) -> Result<Self, ConvertError> {
        Ok(Self {
            mails: wire
                .mails
                .into_iter()
                .map(TryInto::try_into)
                .collect::<Result<_, _>>()?,
            next: wire
                .next
                .map(|id| convert::queue_id("next", &id))
                .transpose()?,
            scanned: wire.scanned,
        })
    }
}

impl From<&MailDetails> for v1::ShowResponse {
    fn from(details: &MailDetails) -> Self {
        let recipients = details
            .recipients
            .iter()
            .map(|recipient| v1::RecipientDetails {
                index: recipient.index.0,
                route: Some((&recipient.route).into()),
                state: recipient
                    .state
                    .map_or(v1::MailState::Unspecified, filter::state_to_wire)
                    .into(),
                attempts: recipient.attempts,
                next_attempt_ms: recipient.next_attempt.map(Timestamp::as_millis),
                outcome: recipient.outcome.as_ref().map(Into::into),
            });
        Self {
            summary: Some((&details.summary).into()),
            envelope: Some((&details.envelope).into()),
            recipients: recipients.collect(),
            attempts: details.attempts.iter().map(Into::into).collect(),
            header: details.header.clone().into(),
            header_cut: details.header_cut,
        }
    }
}

impl TryFrom<v1::ShowResponse> for MailDetails {
    type Error = ConvertError;

    fn try_from(wire: v1::ShowResponse) -> Result<Self, ConvertError> {
        let recipients = wire.recipients.into_iter().map(|recipient| {
            Ok(RecipientDetails {
                index: RecipientIndex(recipient.index),
                state: filter::state_from_wire(recipient.state()),
                route: recipient
                    .route
                    .ok_or_else(|| missing("route"))?
                    .try_into()?,
                attempts: recipient.attempts,
                next_attempt: recipient.next_attempt_ms.map(Timestamp::from_millis),
                outcome: recipient.outcome.map(TryInto::try_into).transpose()?,
            })
        });
        Ok(Self {
            summary: wire.summary.ok_or_else(|| missing("summary"))?.try_into()?,
            envelope: wire
                .envelope
                .ok_or_else(|| missing("envelope"))?
                .try_into()?,
            recipients: recipients.collect::<Result<_, ConvertError>>()?,
            attempts: wire
                .attempts
                .into_iter()
                .map(TryInto::try_into)
                .collect::<Result<_, _>>()?,
            header: wire.header.into(),
            header_cut: wire.header_cut,
        })
    }
}

impl From<&QueueStats> for v1::StatsResponse {
    fn from(stats: &QueueStats) -> Self {
        let destinations = stats.destinations.iter().map(|one| v1::DestinationStats {
            destination: one.destination.clone(),
            site: one.site.clone(),
            due: one.due,
            delayed: one.delayed,
            leased: one.leased,
            held: one.held,
            oldest_ms: one.oldest.map(Timestamp::as_millis),
            last_reply: one.last_reply.clone(),
        });
        let sites = stats.sites.iter().map(|one| v1::SiteStats {
            site: one.site.clone(),
            destinations: one.destinations,
            due: one.due,
            delayed: one.delayed,
            leased: one.leased,
            held: one.held,
            oldest_ms: one.oldest.map(Timestamp::as_millis),
            last_reply: one.last_reply.clone(),
        });
        Self {
            destinations: destinations.collect(),
            total: stats.total,
            sites: sites.collect(),
        }
    }
}

impl From<v1::StatsResponse> for QueueStats {
    fn from(wire: v1::StatsResponse) -> Self {
        let destinations = wire.destinations.into_iter().map(|one| DestinationStats {
            destination: one.destination,
            site: one.site,
            due: one.due,
            delayed: one.delayed,
            leased: one.leased,
            held: one.held,
            oldest: one.oldest_ms.map(Timestamp::from_millis),
            last_reply: one.last_reply,
        });
        let sites = wire.sites.into_iter().map(|one| SiteStats {
            site: one.site,
            destinations: one.destinations,
            due: one.due,
            delayed: one.delayed,
            leased: one.leased,
            held: one.held,
            oldest: one.oldest_ms.map(Timestamp::from_millis),
            last_reply: one.last_reply,
        });
        Self {
            destinations: destinations.collect(),
            total: wire.total,
            sites: sites.collect(),
        }
    }
}

impl From<&AgentDetails> for v1::Agent {
    fn from(agent: &AgentDetails) -> Self {
        let classes = agent.classes.iter();
        Self {
            name: agent.name.clone(),
            version: agent.version.clone(),
            host: agent.host.clone(),
            classes: classes
                .map(|&class| v1::RouteClass::from(class).into())
                .collect(),
            stores: super::work::to_names(&agent.stores),
            leases: agent.leases,
            settled: agent.settled,
            connected_at_ms: agent.connected_at.as_millis(),
            draining: agent.draining,
            settled_last_minute: agent.settled_last_minute,
        }
    }
}

impl TryFrom<v1::Agent> for AgentDetails {
    type Error = ConvertError;

    fn try_from(wire: v1::Agent) -> Result<Self, ConvertError> {
        let classes = wire.classes().map(TryInto::try_into);
        Ok(Self {
            classes: classes.collect::<Result<_, _>>()?,
            stores: super::work::from_names(&wire.stores)?,
            name: wire.name,
            version: wire.version,
            host: wire.host,
            leases: wire.leases,
            settled: wire.settled,
            settled_last_minute: wire.settled_last_minute,
            connected_at: Timestamp::from_millis(wire.connected_at_ms),
            draining: wire.draining,
        })
    }
}
