//! Rules of what all copies of an agent count together.

use postroad_proto::queue::v1::{
    CountLimit, CountRequest, CountResponse, queue_client::QueueClient,
};
use tonic::{Code, Status, transport::Channel};

use super::{Outcome, Target, caller::refused, working::single_roles};
use crate::Problem;

const MINUTE_MS: u64 = 60_000;
const DAY_MS: u64 = 86_400_000;

async fn count(channel: &Channel, request: CountRequest) -> Result<CountResponse, Status> {
    let answer = QueueClient::new(channel.clone()).count(request).await?;
    Ok(answer.into_inner())
}

/// A network that nobody counts for.
fn failures(add: u64) -> CountRequest {
    CountRequest {
        key: format!("auth_failed/2001:db8:{:x}::/64", rand::random::<u16>()),
        add,
        window_ms: MINUTE_MS,
        limit: 2,
        ban_ms: MINUTE_MS,
        ..CountRequest::default()
    }
}

/// An account that nobody counts for.
fn sent(add: u64, most: &[u64]) -> CountRequest {
    let limits = most.iter().map(|&most| CountLimit {
        window_ms: MINUTE_MS,
        most,
    });
    CountRequest {
        key: format!("sent/conformance-{:x}@example.org", rand::random::<u64>()),
        add,
        limits: limits.collect(),
        ..CountRequest::default()
    }
}

pub async fn ban(target: &Target) -> Outcome {
    let one = failures(1);
    for value in 1..=2 {
        let counted = count(&target.msa, one.clone()).await?;
        if counted.value != value || counted.banned_until_ms.is_some() {
            return Problem::broken(format!("{counted:?} after {value} of 2"));
        }
    }
    let asked = CountRequest {
        add: 0,
        ..one.clone()
    };
    for request in [one, asked] {
        let counted = count(&target.msa, request).await?;
        if counted.banned_until_ms.is_none() {
            return Problem::broken(format!("{counted:?} after 3 of 2"));
        }
    }
    Ok(())
}

pub async fn limits(target: &Target) -> Outcome {
    let three = sent(3, &[10, 4]);
    let first = count(&target.msa, three.clone()).await?;
    if first.value != 3 || first.full.is_some() {
        return Problem::broken(format!("{first:?} after 3 of 4"));
    }
    let second = count(&target.msa, three.clone()).await?;
    let full = second.full.and_then(|full| full.limit);
    if full.is_none_or(|full| full.most != 4) {
        return Problem::broken(format!("{second:?} instead of a limit that is full"));
    }
    // Nothing of it was added.
    let one = CountRequest { add: 1, ..three };
    match count(&target.msa, one).await? {
        CountResponse {
            value: 4,
            full: None,
            ..
        } => Ok(()),
        third => Problem::broken(format!("{third:?} instead of 4 of 4")),
    }
}

pub async fn windows(target: &Target) -> Outcome {
    let short = CountRequest {
        window_ms: 500,
        ..failures(1)
    };
    let long = CountRequest {
        window_ms: 32 * DAY_MS,
        ..failures(1)
    };
    for request in [short, long, sent(1, &[1, 2, 3, 4, 5])] {
        refused(count(&target.msa, request).await, &[Code::InvalidArgument])?;
    }
    Ok(())
}

pub async fn role(target: &Target) -> Outcome {
    single_roles(target)?;
    let answer = count(&target.mda, failures(1)).await;
    refused(answer, &[Code::PermissionDenied])
}
