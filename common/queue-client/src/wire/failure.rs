use postroad_proto::{ConvertError, queue::v1};
use postroad_reply::Reply;
use postroad_rpc::with_cause;
use prost::Message as _;
use tonic::{Code, Status};

use crate::QueueError;

impl From<ConvertError> for QueueError {
    fn from(error: ConvertError) -> Self {
        Self::Invalid(error.to_string())
    }
}

/// The small alphabet of statuses the contract uses; a refusal's reply travels in the details.
pub fn to_status(error: &QueueError) -> Status {
    let code = match error {
        QueueError::Unavailable(_) => Code::Unavailable,
        QueueError::Full(_) => Code::ResourceExhausted,
        QueueError::Refused(reply) => return with_reply(Code::Aborted, error, reply),
        QueueError::OverQuota(reply) => return with_reply(Code::ResourceExhausted, error, reply),
        QueueError::IdTaken => Code::AlreadyExists,
        QueueError::NotFound => Code::NotFound,
        QueueError::Conflict(_) => Code::FailedPrecondition,
        QueueError::NotAllowed(_) => Code::PermissionDenied,
        QueueError::Invalid(_) => Code::InvalidArgument,
        QueueError::Unsupported(_) => Code::Unimplemented,
    };
    Status::new(code, text_of(error))
}

fn with_reply(code: Code, error: &QueueError, reply: &Reply) -> Status {
    let details = v1::Reply::from(reply).encode_to_vec();
    Status::with_details(code, error.to_string(), details.into())
}

/// What a status means to a caller. Anything unknown is transient: the queue is not available.
pub fn from_status(status: &Status) -> QueueError {
    let text = status.message().to_owned();
    match status.code() {
        Code::ResourceExhausted => match reply_of(status) {
            Some(reply) => QueueError::OverQuota(reply),
            None => QueueError::Full(text),
        },
        Code::Aborted => match reply_of(status) {
            Some(reply) => QueueError::Refused(reply),
            None => QueueError::Unavailable(text),
        },
        Code::AlreadyExists => QueueError::IdTaken,
        Code::NotFound => QueueError::NotFound,
        Code::FailedPrecondition => QueueError::Conflict(text),
        Code::PermissionDenied | Code::Unauthenticated => QueueError::NotAllowed(text),
        Code::InvalidArgument | Code::OutOfRange => QueueError::Invalid(text),
        Code::Unimplemented => QueueError::Unsupported(text),
        _ => QueueError::Unavailable(with_cause(status)),
    }
}

/// An empty one has no code, and is none.
fn reply_of(status: &Status) -> Option<Reply> {
    v1::Reply::decode(status.details()).ok()?.try_into().ok()
}

/// The variant's own text, without the words this crate puts around it.
fn text_of(error: &QueueError) -> String {
    match error {
        QueueError::Unavailable(text)
        | QueueError::Full(text)
        | QueueError::Conflict(text)
        | QueueError::NotAllowed(text)
        | QueueError::Invalid(text)
        | QueueError::Unsupported(text) => text.clone(),
        QueueError::Refused(_)
        | QueueError::OverQuota(_)
        | QueueError::IdTaken
        | QueueError::NotFound => error.to_string(),
    }
}

/// Why one mail of a stream was not taken.
pub fn refusal_from_error(error: &QueueError) -> v1::Refusal {
    use v1::refusal::Reason;
    let (reason, reply) = match error {
        QueueError::Full(_) => (Reason::Full, None),
        QueueError::OverQuota(reply) => (Reason::Full, Some(reply.into())),
        QueueError::Refused(reply) => (Reason::Refused, Some(reply.into())),
        QueueError::IdTaken => (Reason::IdTaken, None),
        QueueError::Invalid(_) => (Reason::Invalid, None),
        QueueError::NotAllowed(_) => (Reason::NotAllowed, None),
        QueueError::Unavailable(_)
        | QueueError::NotFound
        | QueueError::Conflict(_)
        | QueueError::Unsupported(_) => (Reason::Unspecified, None),
    };
    v1::Refusal {
        reason: reason.into(),
        text: text_of(error),
        reply,
    }
}

/// The other way round.
pub fn refusal_into_error(refusal: v1::Refusal) -> QueueError {
    use v1::refusal::Reason;
    let reason = refusal.reason();
    match (reason, refusal.reply.map(TryInto::try_into)) {
        (Reason::Refused, Some(Ok(reply))) => QueueError::Refused(reply),
        (Reason::Full, Some(Ok(reply))) => QueueError::OverQuota(reply),
        (Reason::Full, _) => QueueError::Full(refusal.text),
        (Reason::IdTaken, _) => QueueError::IdTaken,
        (Reason::Invalid, _) => QueueError::Invalid(refusal.text),
        (Reason::NotAllowed, _) => QueueError::NotAllowed(refusal.text),
        _ => QueueError::Unavailable(refusal.text),
    }
}

#[cfg(test)]
mod tests {
    use postroad_reply::{
        INSUFFICIENT_STORAGE_452, MAILBOX_FULL_4_2_2, MAILBOX_UNAVAILABLE_550, NOT_AUTHORIZED_5_7_1,
    };

    use super::*;

    #[test]
    fn each_error_survives_both_ways_of_travelling() {
        let reply = Reply::new(MAILBOX_UNAVAILABLE_550, NOT_AUTHORIZED_5_7_1, "not that");
        let full = Reply::new(INSUFFICIENT_STORAGE_452, MAILBOX_FULL_4_2_2, "not now");
        for error in [
            QueueError::OverQuota(full),
            QueueError::Unavailable("a".into()),
            QueueError::Full("b".into()),
            QueueError::Refused(reply),
            QueueError::IdTaken,
            QueueError::Invalid("c".into()),
            QueueError::NotAllowed("d".into()),
        ] {
            assert_eq!(from_status(&to_status(&error)), error);
            assert_eq!(refusal_into_error(refusal_from_error(&error)), error);
        }
        for error in [
            QueueError::NotFound,
            QueueError::Conflict("e".into()),
            QueueError::Unsupported("f".into()),
        ] {
            assert_eq!(from_status(&to_status(&error)), error);
        }
    }
}
