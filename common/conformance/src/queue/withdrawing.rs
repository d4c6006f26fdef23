//! Rules of mail that its account takes back.

use postroad_proto::queue::v1::{
    Action, WithdrawRequest, queue_client::QueueClient, withdraw_response::Result as Answer,
};
use tonic::{Code, Status, transport::Channel};

use super::{
    Outcome, Target,
    caller::{content, envelope, new_id, now_ms, refused, submit},
    worker::Worker,
    working::{leased_simply, must_go_on, single_roles},
};
use crate::Problem;

/// Long enough for what a rule does meanwhile.
const REST_MS: u64 = 600_000;

async fn withdraw(channel: &Channel, request: WithdrawRequest) -> Result<Answer, Status> {
    let answer = QueueClient::new(channel.clone()).withdraw(request).await?;
    Ok(answer.into_inner().result())
}

fn must_be(answer: Answer, wanted: Answer) -> Outcome {
    match answer == wanted {
        true => Ok(()),
        false => Problem::broken(format!("{answer:?} instead of {wanted:?}")),
    }
}

pub async fn untried(target: &Target) -> Outcome {
    let mut mail = envelope(target);
    mail.not_before_ms = Some(now_ms() + REST_MS);
    submit(target, &mail, &content("taken back")).await?;
    let request = WithdrawRequest {
        queue_id: mail.queue_id.clone(),
        account: target.account.clone(),
    };
    must_be(
        withdraw(&target.msa, request.clone()).await?,
        Answer::Withdrawn,
    )?;
    let mut worker = Worker::open(target).await?;
    worker.credits(1).await?;
    worker.hears_nothing().await?;
    worker.drain().await?;
    // Its id is not free again.
    must_be(withdraw(&target.msa, request).await?, Answer::Unknown)?;
    let again = submit(target, &mail, &content("taken back")).await?;
    match again.duplicate {
        true => Ok(()),
        false => Problem::broken("the same mail was taken once more"),
    }
}

pub async fn leased(target: &Target) -> Outcome {
    let (mut worker, lease) = leased_simply(target, "with a worker").await?;
    let queue_id = lease.envelope.as_ref().map(|mail| mail.queue_id.clone());
    let request = WithdrawRequest {
        queue_id: queue_id.unwrap_or_default(),
        account: target.account.clone(),
    };
    must_be(
        withdraw(&target.msa, request.clone()).await?,
        Answer::TooLate,
    )?;
    // It goes on unchanged.
    must_go_on(worker.settle(&lease, Action::Delivered).await?)?;
    worker.drain().await?;
    must_be(withdraw(&target.msa, request).await?, Answer::Unknown)
}

pub async fn unknown(target: &Target) -> Outcome {
    let mut mail = envelope(target);
    mail.not_before_ms = Some(now_ms() + REST_MS);
    submit(target, &mail, &content("of somebody else")).await?;
    let own = WithdrawRequest {
        queue_id: mail.queue_id,
        account: target.account.clone(),
    };
    let others = WithdrawRequest {
        account: format!("not-{}", target.account),
        ..own.clone()
    };
    let none = WithdrawRequest {
        queue_id: new_id(),
        ..own.clone()
    };
    for request in [others, none] {
        match withdraw(&target.msa, request).await {
            Ok(answer) => must_be(answer, Answer::Unknown)?,
            // A program may ask for its own accounts alone.
            Err(status) if status.code() == Code::PermissionDenied => {}
            Err(status) => return Err(status.into()),
        }
    }
    must_be(withdraw(&target.msa, own).await?, Answer::Withdrawn)
}

pub async fn role(target: &Target) -> Outcome {
    single_roles(target)?;
    let request = WithdrawRequest {
        queue_id: new_id(),
        account: target.account.clone(),
    };
    let answer = withdraw(&target.mda, request).await;
    refused(answer, &[Code::PermissionDenied])
}
