use postroad_envelope::{Attempt, Outcome, RecipientIndex, RemoteHost, StatusReport, Timestamp};
use postroad_reply::{EnhancedStatusCode, Reply, ReplyCode};

use super::{ConvertError, parsed, required};
use crate::queue::v1;

impl From<&Outcome> for v1::Outcome {
    fn from(outcome: &Outcome) -> Self {
        let action = match outcome {
            Outcome::Delivered(_) => v1::Action::Delivered,
            Outcome::Relayed(_) => v1::Action::Relayed,
            Outcome::Delayed(_) => v1::Action::Delayed,
            Outcome::Failed(_) => v1::Action::Failed,
            Outcome::Expanded(_) => v1::Action::Expanded,
        };
        let report = outcome.report();
        Self {
            action: action.into(),
            status: report.status.to_string(),
            text: report.text.clone(),
            remote: report.remote.as_ref().map(|remote| v1::RemoteHost {
                name: remote.name.clone(),
                address: remote.address.map(|address| address.to_string()),
                tls: remote.tls.as_ref().map(Into::into),
                tls_policy: remote.tls_policy.clone(),
            }),
            reply: report.reply.as_ref().map(Into::into),
            reports: false,
            timed: false,
            stage: report.stage.map(|stage| stage.as_str().to_owned()),
            cause: report.cause.map(|cause| cause.as_str().to_owned()),
        }
    }
}

impl TryFrom<v1::Outcome> for Outcome {
    type Error = ConvertError;

    fn try_from(wire: v1::Outcome) -> Result<Self, ConvertError> {
        let action = wire.action();
        let remote = wire
            .remote
            .map(|remote| {
                Ok::<_, ConvertError>(RemoteHost {
                    name: remote.name,
                    address: remote
                        .address
                        .map(|address| parsed("address", &address))
                        .transpose()?,
                    tls: remote.tls.map(Into::into),
                    tls_policy: remote.tls_policy,
                })
            })
            .transpose()?;
        let report = StatusReport {
            status: parsed("status", &wire.status)?,
            text: wire.text,
            remote,
            reply: wire.reply.map(TryInto::try_into).transpose()?,
            // Of a later release, or of nobody's list: as if nothing was said.
            stage: wire.stage.and_then(|stage| stage.parse().ok()),
            cause: wire.cause.and_then(|cause| cause.parse().ok()),
        };
        Ok(match action {
            v1::Action::Unspecified => return Err(ConvertError::new("action", "is missing")),
            v1::Action::Delivered => Self::Delivered(report),
            v1::Action::Relayed => Self::Relayed(report),
            v1::Action::Delayed => Self::Delayed(report),
            v1::Action::Failed => Self::Failed(report),
            v1::Action::Expanded => Self::Expanded(report),
        })
    }
}

impl From<&Reply> for v1::Reply {
    fn from(reply: &Reply) -> Self {
        Self {
            code: reply.code().value().into(),
            enhanced: reply.enhanced().map(|code| code.to_string()),
            text: reply.text().to_owned(),
        }
    }
}

impl TryFrom<v1::Reply> for Reply {
    type Error = ConvertError;

    fn try_from(wire: v1::Reply) -> Result<Self, ConvertError> {
        let code = u16::try_from(wire.code)
            .ok()
            .and_then(|code| ReplyCode::new(code).ok())
            .ok_or_else(|| ConvertError::new("code", "is no reply code"))?;
        Ok(match wire.enhanced {
            None => Self::plain(code, wire.text),
            Some(enhanced) => Self::new(
                code,
                parsed::<EnhancedStatusCode>("enhanced", &enhanced)?,
                wire.text,
            ),
        })
    }
}

impl From<&(RecipientIndex, Outcome)> for v1::RecipientOutcome {
    fn from((index, outcome): &(RecipientIndex, Outcome)) -> Self {
        Self {
            index: index.0,
            outcome: Some(outcome.into()),
        }
    }
}

impl TryFrom<v1::RecipientOutcome> for (RecipientIndex, Outcome) {
    type Error = ConvertError;

    fn try_from(wire: v1::RecipientOutcome) -> Result<Self, ConvertError> {
        Ok((
            RecipientIndex(wire.index),
            required("outcome", wire.outcome)?.try_into()?,
        ))
    }
}

impl From<&Attempt> for v1::Attempt {
    fn from(attempt: &Attempt) -> Self {
        Self {
            number: attempt.number,
            started_at_ms: attempt.started_at.as_millis(),
            ended_at_ms: attempt.ended_at.as_millis(),
            agent: attempt.agent.clone(),
            outcomes: attempt.outcomes.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<v1::Attempt> for Attempt {
    type Error = ConvertError;

    fn try_from(wire: v1::Attempt) -> Result<Self, ConvertError> {
        Ok(Self {
            number: wire.number,
            started_at: Timestamp::from_millis(wire.started_at_ms),
            ended_at: Timestamp::from_millis(wire.ended_at_ms),
            agent: wire.agent,
            outcomes: wire
                .outcomes
                .into_iter()
                .map(TryInto::try_into)
                .collect::<Result<_, _>>()?,
        })
    }
}
