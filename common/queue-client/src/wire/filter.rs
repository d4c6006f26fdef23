//! Filters on the wire.

use postroad_envelope::{Filter, MailState, Timestamp};
use postroad_proto::{ConvertError, convert, queue::v1};

/// Most ids that a filter may name.
pub const MOST_IDS: usize = 1000;
/// Most octets of one text of a filter; nothing that is compared is longer.
const LONGEST: usize = 1024;

/// A state on the wire.
pub fn state_to_wire(state: MailState) -> v1::MailState {
    match state {
        MailState::Due => v1::MailState::Due,
        MailState::Leased => v1::MailState::Leased,
        MailState::Delayed => v1::MailState::Delayed,
        MailState::Held => v1::MailState::Held,
        MailState::Retired => v1::MailState::Retired,
    }
}

/// None: unspecified.
pub fn state_from_wire(state: v1::MailState) -> Option<MailState> {
    MailState::ALL
        .into_iter()
        .find(|&known| state_to_wire(known) == state)
}

/// A filter on the wire.
pub fn to_wire(filter: &Filter) -> v1::Filter {
    let ids = filter.ids.iter();
    let unspecified = v1::MailState::Unspecified;
    v1::Filter {
        queue_ids: ids.map(|&id| convert::queue_id_bytes(id)).collect(),
        destination: filter.destination.clone(),
        sender: filter.sender.clone(),
        state: filter.state.map_or(unspecified, state_to_wire).into(),
        recipient_domain: filter.recipient_domain.clone(),
        received_after_ms: filter.received_after.map(Timestamp::as_millis),
        received_before_ms: filter.received_before.map(Timestamp::as_millis),
        size_at_least: filter.size_at_least,
        size_at_most: filter.size_at_most,
        reason_contains: filter.reason_contains.clone(),
        tag: filter.tag.clone(),
        account: filter.account.clone(),
        tenant: filter.tenant.clone(),
        all: filter.all,
        hold_rule: filter.hold_rule.clone(),
        site: filter.site.clone(),
    }
}

/// A filter that is not understood must not select more than was meant.
pub fn from_wire(wire: v1::Filter) -> Result<Filter, ConvertError> {
    let refused = |why: &'static str| Err(ConvertError::new("filter", why));
    if wire.queue_ids.len() > MOST_IDS {
        return refused("names more than 1,000 mails");
    }
    let state = wire.state();
    if state_to_wire_of(wire.state).is_none() {
        return refused("asks for a state that is not known here");
    }
    let texts = [
        &wire.destination,
        &wire.sender,
        &wire.recipient_domain,
        &wire.reason_contains,
        &wire.tag,
        &wire.account,
        &wire.tenant,
        &wire.hold_rule,
        &wire.site,
    ];
    if texts.into_iter().flatten().any(|text| text.len() > LONGEST) {
        return refused("has a text that is too long");
    }
    let ids = wire.queue_ids.iter();
    let ids = ids.map(|id| convert::queue_id("queue_ids", id));
    Ok(Filter {
        ids: ids.collect::<Result<_, _>>()?,
        sender: wire.sender,
        received_after: wire.received_after_ms.map(Timestamp::from_millis),
        received_before: wire.received_before_ms.map(Timestamp::from_millis),
        size_at_least: wire.size_at_least,
        size_at_most: wire.size_at_most,
        tag: wire.tag,
        account: wire.account,
        tenant: wire.tenant,
        destination: wire.destination,
        recipient_domain: wire.recipient_domain,
        state: state_from_wire(state),
        reason_contains: wire.reason_contains,
        hold_rule: wire.hold_rule,
        site: wire.site,
        destinations: None,
        all: wire.all,
    })
}

/// None: a state of a later release, or one that cannot be selected by.
fn state_to_wire_of(state: i32) -> Option<v1::MailState> {
    let known = v1::MailState::try_from(state).ok()?;
    let selects = known == v1::MailState::Unspecified || state_from_wire(known).is_some();
    selects.then_some(known)
}

#[cfg(test)]
mod tests {
    use postroad_envelope::QueueId;

    use super::*;

    #[test]
    fn every_part_comes_back_as_it_was() {
        let text = |text: &str| Some(text.to_owned());
        let full = Filter {
            ids: vec![QueueId::from_bytes([7; 16])],
            sender: text(""),
            received_after: Some(Timestamp::from_millis(1)),
            received_before: Some(Timestamp::from_millis(2)),
            size_at_least: Some(3),
            size_at_most: Some(4),
            tag: text("t"),
            account: text("a"),
            tenant: text("n"),
            destination: text("d"),
            recipient_domain: text("r"),
            state: Some(MailState::Held),
            reason_contains: text("c"),
            hold_rule: text("h"),
            site: text("s"),
            destinations: None,
            all: true,
        };
        assert_eq!(from_wire(to_wire(&full)), Ok(full));
        assert_eq!(from_wire(v1::Filter::default()), Ok(Filter::default()));
    }

    #[test]
    fn what_is_too_much_or_not_known_is_refused() {
        for wrong in [
            v1::Filter {
                queue_ids: vec![vec![0; 16].into(); MOST_IDS + 1],
                ..v1::Filter::default()
            },
            v1::Filter {
                queue_ids: vec![vec![0; 15].into()],
                ..v1::Filter::default()
            },
            v1::Filter {
                state: 77,
                ..v1::Filter::default()
            },
            v1::Filter {
                tag: Some("x".repeat(LONGEST + 1)),
                ..v1::Filter::default()
            },
        ] {
            assert!(from_wire(wrong).is_err());
        }
    }
}
