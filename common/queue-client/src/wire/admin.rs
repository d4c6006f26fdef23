use postroad_envelope::{RecipientIndex, Timestamp};
use postroad_proto::{ConvertError, convert, queue::v1};

use crate::{
    AgentDetails, Changed, DestinationStats, ListPage, ListQuery, MailDetails, MailState,
    MailSummary, Order, QueueStats, RecipientDetails, Selection,
};

fn missing(field: &'static str) -> ConvertError {
    ConvertError::new(field, "is missing")
}

impl From<MailState> for v1::MailState {
    fn from(state: MailState) -> Self {
        match state {
            MailState::Due => Self::Due,
            MailState::Leased => Self::Leased,
            MailState::Delayed => Self::Delayed,
            MailState::Held => Self::Held,
        }
    }
}

fn state_from_wire(state: v1::MailState) -> Option<MailState> {
    MailState::ALL
        .into_iter()
        .find(|&known| v1::MailState::from(known) == state)
}

impl From<&ListQuery> for v1::ListRequest {
    fn from(query: &ListQuery) -> Self {
        let filter = v1::Filter {
            destination: query.destination.clone(),
            sender: query.sender.clone(),
            state: query
                .state
                .map_or(v1::MailState::Unspecified, Into::into)
                .into(),
            all: true,
            ..v1::Filter::default()
        };
        Self {
            filter: Some(filter),
            after: query.after.map(convert::queue_id_bytes),
            limit: query.limit,
            newest_first: false,
        }
    }
}

impl TryFrom<v1::ListRequest> for ListQuery {
    type Error = ConvertError;

    fn try_from(wire: v1::ListRequest) -> Result<Self, ConvertError> {
        let filter = wire.filter.unwrap_or_default();
        refuse_unbuilt_filters(&filter)?;
        Ok(Self {
            state: state_from_wire(filter.state()),
            destination: filter.destination,
            sender: filter.sender,
            after: wire
                .after
                .map(|id| convert::queue_id("after", &id))
                .transpose()?,
            limit: wire.limit,
        })
    }
}

/// A filter that is not understood must not select more than was meant.
fn refuse_unbuilt_filters(filter: &v1::Filter) -> Result<(), ConvertError> {
    let unbuilt = filter.recipient_domain.is_some()
        || filter.received_after_ms.is_some()
        || filter.received_before_ms.is_some()
        || filter.size_at_least.is_some()
        || filter.size_at_most.is_some()
        || filter.reason_contains.is_some()
        || filter.tag.is_some()
        || filter.account.is_some()
        || filter.tenant.is_some()
        || filter.hold_rule.is_some();
    if unbuilt {
        return Err(ConvertError::new(
            "filter",
            "uses a part that this queue cannot filter by yet",
        ));
    }
    Ok(())
}

impl From<&Order> for v1::ChangeRequest {
    fn from(order: &Order) -> Self {
        Self {
            filter: Some((&order.selection).into()),
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
            selection: wire.filter.unwrap_or_default().try_into()?,
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

impl From<&Selection> for v1::Filter {
    fn from(selection: &Selection) -> Self {
        let mut filter = Self::default();
        match selection {
            Selection::Ids(ids) => {
                filter.queue_ids = ids.iter().map(|&id| convert::queue_id_bytes(id)).collect();
            }
            Selection::Destination(name) => filter.destination = Some(name.clone()),
            Selection::All => filter.all = true,
        }
        filter
    }
}

impl TryFrom<v1::Filter> for Selection {
    type Error = ConvertError;

    fn try_from(wire: v1::Filter) -> Result<Self, ConvertError> {
        refuse_unbuilt_filters(&wire)?;
        if wire.sender.is_some() || state_from_wire(wire.state()).is_some() {
            return Err(ConvertError::new(
                "filter",
                "a change selects by ids, by destination or all",
            ));
        }
        match (wire.queue_ids.is_empty(), wire.destination, wire.all) {
            (false, None, false) => Ok(Self::Ids(
                wire.queue_ids
                    .iter()
                    .map(|id| convert::queue_id("queue_ids", id))
                    .collect::<Result<_, _>>()?,
            )),
            (true, Some(destination), false) => Ok(Self::Destination(destination)),
            (true, None, true) => Ok(Self::All),
            _ => Err(ConvertError::new(
                "filter",
                "name ids, or a destination, or all",
            )),
        }
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
            state: v1::MailState::from(summary.state).into(),
            next_attempt_ms: summary.next_attempt.map(Timestamp::as_millis),
            reason: summary.reason.clone(),
            ..Self::default()
        }
    }
}

impl TryFrom<v1::MailSummary> for MailSummary {
    type Error = ConvertError;

    fn try_from(wire: v1::MailSummary) -> Result<Self, ConvertError> {
        Ok(Self {
            queue_id: convert::queue_id("queue_id", &wire.queue_id)?,
            received_at: Timestamp::from_millis(wire.received_at_ms),
            size: wire.size,
            state: state_from_wire(wire.state()).ok_or_else(|| missing("state"))?,
            sender: wire.sender,
            open_recipients: wire.open_recipients,
            next_attempt: wire.next_attempt_ms.map(Timestamp::from_millis),
            reason: wire.reason,
        })
    }
}

impl From<&ListPage> for v1::ListResponse {
    fn from(page: &ListPage) -> Self {
        Self {
            mails: page.mails.iter().map(Into::into).collect(),
            next: page.next.map(convert::queue_id_bytes),
            ..Self::default()
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
                    .map_or(v1::MailState::Unspecified, Into::into)
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
                state: state_from_wire(recipient.state()),
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
            site: None,
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
            ..Self::default()
        }
    }
}

impl From<v1::StatsResponse> for QueueStats {
    fn from(wire: v1::StatsResponse) -> Self {
        let destinations = wire.destinations.into_iter().map(|one| DestinationStats {
            destination: one.destination,
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
