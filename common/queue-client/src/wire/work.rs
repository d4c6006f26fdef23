use std::time::Duration;

use postroad_envelope::{Outcome, RecipientIndex, RouteClass, StoreName, Timestamp};
use postroad_proto::{ConvertError, queue::v1};

use super::tried;
use crate::{
    FormerStream, HandBack, HeldLease, Lease, LeaseRef, Permit, Permitted, SettleResult,
    Settlement, Touch, WorkDown, WorkHello, WorkUp,
};

fn missing(field: &'static str) -> ConvertError {
    ConvertError::new(field, "is missing")
}

fn lease_ref(field: &'static str, wire: Option<v1::LeaseRef>) -> Result<LeaseRef, ConvertError> {
    wire.ok_or_else(|| missing(field))?.try_into()
}

fn lease_refs(wire: v1::LeaseRefs) -> Result<Vec<LeaseRef>, ConvertError> {
    wire.leases.into_iter().map(TryInto::try_into).collect()
}

fn to_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn to_names(stores: &[StoreName]) -> Vec<String> {
    stores
        .iter()
        .map(|store| store.as_str().to_owned())
        .collect()
}

pub(super) fn from_names(names: &[String]) -> Result<Vec<StoreName>, ConvertError> {
    let parsed = names.iter().map(|name| name.parse());
    let parsed: Result<Vec<StoreName>, _> = parsed.collect();
    parsed.map_err(|error| ConvertError::new("stores", error))
}

impl From<&WorkHello> for v1::WorkUp {
    fn from(hello: &WorkHello) -> Self {
        let hello = v1::work_up::Hello {
            agent: hello.agent.clone(),
            version: hello.version.clone(),
            host: hello.host.clone(),
            classes: hello
                .classes
                .iter()
                .map(|&class| v1::RouteClass::from(class).into())
                .collect(),
            held: hello.held.iter().map(|held| held.lease.into()).collect(),
            stores: to_names(&hello.stores),
            former: hello.former.map(|former| v1::work_up::Former {
                epoch: former.epoch,
                stream: former.stream,
            }),
            joins: hello.joins,
        };
        Self {
            message: Some(v1::work_up::Message::Hello(hello)),
        }
    }
}

impl TryFrom<v1::work_up::Hello> for WorkHello {
    type Error = ConvertError;

    fn try_from(wire: v1::work_up::Hello) -> Result<Self, ConvertError> {
        let classes: Result<Vec<RouteClass>, _> = wire.classes().map(TryInto::try_into).collect();
        Ok(Self {
            classes: classes?,
            agent: wire.agent,
            version: wire.version,
            host: wire.host,
            stores: from_names(&wire.stores)?,
            held: wire
                .held
                .into_iter()
                .map(|lease| {
                    Ok(HeldLease {
                        lease: lease.try_into()?,
                    })
                })
                .collect::<Result<_, ConvertError>>()?,
            former: wire.former.map(|former| FormerStream {
                epoch: former.epoch,
                stream: former.stream,
            }),
            joins: wire.joins,
        })
    }
}

impl From<WorkUp> for v1::WorkUp {
    fn from(up: WorkUp) -> Self {
        use v1::work_up::Message;
        let message = match up {
            WorkUp::Credits(count) => Message::Credits(count),
            WorkUp::Settle(settlement) => Message::Settle((&settlement).into()),
            WorkUp::Extend(leases) => Message::Extend(v1::LeaseRefs {
                leases: leases.into_iter().map(Into::into).collect(),
            }),
            WorkUp::HandBack(back) => Message::HandBack(v1::HandBack {
                lease: Some(back.lease.into()),
                delay_ms: to_millis(back.delay),
                reason: back.reason,
                elsewhere: back.touch == Touch::Elsewhere,
                untouched: back.touch == Touch::Untouched,
            }),
            WorkUp::Permit(permit) => Message::Permit(v1::work_up::Permit {
                request: permit.request,
                site: permit.site,
                connections: permit.connections,
                lease: Some(permit.lease.into()),
            }),
            WorkUp::Events(events) => Message::Events(v1::Events {
                events: events.into_iter().map(Into::into).collect(),
            }),
            WorkUp::Drained => Message::Drained(v1::work_up::Drained {}),
        };
        Self {
            message: Some(message),
        }
    }
}

impl WorkUp {
    /// `None` for messages this version does not act on (`Hello` after the first, a `Permit` for no lease).
    pub fn from_wire(wire: v1::WorkUp) -> Result<Option<Self>, ConvertError> {
        use v1::work_up::Message;
        Ok(Some(match wire.message {
            None | Some(Message::Hello(_)) => return Ok(None),
            Some(Message::Permit(permit)) => match permit.lease {
                None => return Ok(None),
                Some(lease) => WorkUp::Permit(Permit {
                    request: permit.request,
                    site: permit.site,
                    connections: permit.connections,
                    lease: lease.try_into()?,
                }),
            },
            Some(Message::Drained(_)) => WorkUp::Drained,
            Some(Message::Credits(count)) => WorkUp::Credits(count),
            Some(Message::Settle(settlement)) => WorkUp::Settle(settlement.try_into()?),
            Some(Message::Extend(leases)) => WorkUp::Extend(lease_refs(leases)?),
            Some(Message::HandBack(back)) => WorkUp::HandBack(HandBack {
                lease: lease_ref("lease", back.lease)?,
                delay: Duration::from_millis(back.delay_ms),
                reason: back.reason,
                touch: match (back.elsewhere, back.untouched) {
                    (true, _) => Touch::Elsewhere,
                    (false, true) => Touch::Untouched,
                    (false, false) => Touch::Unclear,
                },
            }),
            Some(Message::Events(events)) => WorkUp::Events(
                events
                    .events
                    .into_iter()
                    .map(TryInto::try_into)
                    .collect::<Result<_, _>>()?,
            ),
        }))
    }
}

impl From<&Settlement> for v1::Settlement {
    fn from(settlement: &Settlement) -> Self {
        let (site, site_result) = tried::last(&settlement.sites);
        Self {
            lease: Some(settlement.lease.into()),
            outcomes: settlement
                .outcomes
                .iter()
                .map(|one| outcome_to_wire(one, settlement))
                .collect(),
            site,
            started_at_ms: settlement.started_at.as_millis(),
            elsewhere: settlement.elsewhere.iter().map(|index| index.0).collect(),
            site_result,
            tried: settlement.sites.iter().map(Into::into).collect(),
        }
    }
}

fn outcome_to_wire(
    one: &(RecipientIndex, Outcome),
    settlement: &Settlement,
) -> v1::RecipientOutcome {
    let mut wire = v1::RecipientOutcome::from(one);
    if let Some(outcome) = &mut wire.outcome {
        outcome.reports = settlement.reporting.contains(&one.0);
        outcome.timed = settlement.timed.contains(&one.0);
    }
    wire
}

/// Those of which the far side was told this.
fn those(outcomes: &[v1::RecipientOutcome], told: fn(&v1::Outcome) -> bool) -> Vec<RecipientIndex> {
    let was_told = |one: &&v1::RecipientOutcome| one.outcome.as_ref().is_some_and(told);
    let these = outcomes.iter().filter(was_told);
    these.map(|one| RecipientIndex(one.index)).collect()
}

impl TryFrom<v1::Settlement> for Settlement {
    type Error = ConvertError;

    fn try_from(wire: v1::Settlement) -> Result<Self, ConvertError> {
        Ok(Self {
            reporting: those(&wire.outcomes, |outcome| outcome.reports),
            timed: those(&wire.outcomes, |outcome| outcome.timed),
            lease: lease_ref("lease", wire.lease)?,
            outcomes: wire
                .outcomes
                .into_iter()
                .map(TryInto::try_into)
                .collect::<Result<_, _>>()?,
            sites: tried::all(wire.tried, wire.site, wire.site_result)?,
            started_at: Timestamp::from_millis(wire.started_at_ms),
            elsewhere: wire.elsewhere.into_iter().map(RecipientIndex).collect(),
        })
    }
}

impl From<WorkDown> for v1::WorkDown {
    fn from(down: WorkDown) -> Self {
        use v1::work_down::{Drain, Message, Resumed, Settled, Welcome};
        let message = match down {
            WorkDown::Welcome {
                epoch,
                stream,
                permits,
                resumed,
            } => Message::Welcome(Welcome {
                epoch,
                stream,
                permits,
                resumed: resumed
                    .into_iter()
                    .map(|(old, new)| Resumed {
                        old: Some(old.into()),
                        new: new.map(Into::into),
                    })
                    .collect(),
            }),
            WorkDown::Lease(lease) => Message::Lease((*lease).into()),
            WorkDown::Settled { lease, result } => Message::Settled(Settled {
                lease: Some(lease.into()),
                stale: result == SettleResult::Stale,
            }),
            WorkDown::Revoked(leases) => Message::Revoked(v1::LeaseRefs {
                leases: leases.into_iter().map(Into::into).collect(),
            }),
            WorkDown::Permitted(permitted) => Message::Permitted(v1::work_down::Permitted {
                request: permitted.request,
                connections: permitted.connections,
                retry_after_ms: to_millis(permitted.retry_after),
            }),
            WorkDown::Drain => Message::Drain(Drain {}),
        };
        Self {
            message: Some(message),
        }
    }
}

impl WorkDown {
    /// `None` for messages this version does not know or act on.
    pub fn from_wire(wire: v1::WorkDown) -> Result<Option<Self>, ConvertError> {
        use v1::work_down::Message;
        Ok(Some(match wire.message {
            None => return Ok(None),
            Some(Message::Permitted(permitted)) => WorkDown::Permitted(Permitted {
                request: permitted.request,
                connections: permitted.connections,
                retry_after: Duration::from_millis(permitted.retry_after_ms),
            }),
            Some(Message::Welcome(welcome)) => {
                let resumed = welcome.resumed.into_iter().map(|resumed| {
                    Ok((
                        lease_ref("old", resumed.old)?,
                        resumed.new.map(TryInto::try_into).transpose()?,
                    ))
                });
                WorkDown::Welcome {
                    epoch: welcome.epoch,
                    stream: welcome.stream,
                    permits: welcome.permits,
                    resumed: resumed.collect::<Result<_, ConvertError>>()?,
                }
            }
            Some(Message::Lease(lease)) => WorkDown::Lease(Box::new(lease.try_into()?)),
            Some(Message::Settled(settled)) => WorkDown::Settled {
                lease: lease_ref("lease", settled.lease)?,
                result: if settled.stale {
                    SettleResult::Stale
                } else {
                    SettleResult::Durable
                },
            },
            Some(Message::Revoked(leases)) => WorkDown::Revoked(lease_refs(leases)?),
            Some(Message::Drain(_)) => WorkDown::Drain,
        }))
    }
}

impl From<Lease> for v1::Lease {
    fn from(lease: Lease) -> Self {
        Self {
            lease: Some(lease.lease.into()),
            duration_ms: to_millis(lease.duration),
            route: Some((&lease.route).into()),
            attempt: lease.attempt,
            envelope: Some((&lease.envelope).into()),
            content: lease.content,
            site: lease.site,
            followed_by: lease.followed_by,
        }
    }
}

impl TryFrom<v1::Lease> for Lease {
    type Error = ConvertError;

    fn try_from(wire: v1::Lease) -> Result<Self, ConvertError> {
        Ok(Self {
            lease: lease_ref("lease", wire.lease)?,
            duration: Duration::from_millis(wire.duration_ms),
            route: wire.route.ok_or_else(|| missing("route"))?.try_into()?,
            attempt: wire.attempt,
            envelope: wire
                .envelope
                .ok_or_else(|| missing("envelope"))?
                .try_into()?,
            content: wire.content,
            site: wire.site,
            followed_by: wire.followed_by,
        })
    }
}
