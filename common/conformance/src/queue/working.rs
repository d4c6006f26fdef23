//! Rules of workers.

use bytes::{Bytes, BytesMut};
use futures::stream;
use postroad_proto::queue::v1::{
    Action, Envelope, Lease, ReadRequest, RouteClass, WorkDown, queue_client::QueueClient,
    work_down, work_up,
};
use prost::Message as _;
use tokio::time::timeout;
use tonic::Code;

use super::{
    Outcome, Target,
    caller::{self, completion, envelope, envelope_to, parts, submit, submit_parts},
    worker::{MAIL_OF_OTHERS, Worker, hello, is_ours, name, reference, refused, with_other_fence},
};
use crate::{
    Problem,
    raw::{self, LATER},
};

/// Too much for a lease.
const LARGE: usize = 700_000;
/// Mails for a worker that does not listen.
const FLOOD: usize = 400;

/// Roles can only be tried by agents that have one each.
pub fn single_roles(target: &Target) -> Outcome {
    match target.has_single_roles {
        true => Ok(()),
        false => Err(Problem::NotTried(
            "both agents may have all roles here: try it with a certificate of each role"
                .to_owned(),
        )),
    }
}

pub async fn msa_does_not_work(target: &Target) -> Outcome {
    single_roles(target)?;
    let first = stream::iter([hello(Vec::new(), &[RouteClass::Local])]);
    let mut client = QueueClient::new(target.msa.clone());
    refused(client.work(first).await, &[Code::PermissionDenied]).await
}

pub async fn mda_names_no_account(target: &Target) -> Outcome {
    single_roles(target)?;
    let (envelope, content) = (envelope(target), caller::content("of an account"));
    let all = parts(&envelope, &content, completion(&content));
    let mut client = QueueClient::new(target.mda.clone());
    let answer = client.submit(stream::iter(all)).await;
    caller::refused(answer, &[Code::PermissionDenied])
}

pub async fn mda_leases_local(target: &Target) -> Outcome {
    single_roles(target)?;
    let first = stream::iter([hello(Vec::new(), &[RouteClass::Relay])]);
    let mut client = QueueClient::new(target.mda.clone());
    refused(client.work(first).await, &[Code::PermissionDenied]).await
}

pub async fn hello_first(target: &Target) -> Outcome {
    let credits = postroad_proto::queue::v1::WorkUp {
        message: Some(work_up::Message::Credits(1)),
    };
    let mut client = QueueClient::new(target.mda.clone());
    let opened = client.work(stream::iter([credits])).await;
    refused(opened, &[Code::InvalidArgument]).await?;
    let worker = Worker::open(target).await?;
    match worker.welcome.epoch {
        0 => Problem::broken("the epoch is 0"),
        _ => worker.drain().await,
    }
}

pub async fn no_credits(target: &Target) -> Outcome {
    submit(target, &envelope(target), &caller::content("waits")).await?;
    let mut worker = Worker::open(target).await?;
    worker.hears_nothing().await?;
    worker.credits(1).await?;
    let lease = worker.lease().await?;
    must_go_on(worker.settle(&lease, Action::Delivered).await?)?;
    worker.drain().await
}

pub async fn credits(target: &Target) -> Outcome {
    for number in 0..5 {
        submit(
            target,
            &envelope(target),
            &caller::content(&format!("{number} of 5")),
        )
        .await?;
    }
    let mut worker = Worker::open(target).await?;
    worker.credits(1).await?;
    worker.credits(2).await?;
    let mut leases = Vec::new();
    for _ in 0..3 {
        leases.push(worker.lease().await?);
    }
    worker.hears_nothing().await?;
    for lease in &leases {
        must_go_on(worker.settle(lease, Action::Delivered).await?)?;
    }
    // A settlement brings no credit back.
    worker.hears_nothing().await?;
    worker.drain().await?;
    match Worker::clear_counting(target).await? {
        2 => Ok(()),
        left => Problem::broken(format!("{left} mails are left instead of 2")),
    }
}

/// A mail that was submitted, and its lease at a worker with one credit.
async fn leased(
    target: &Target,
    envelope: &Envelope,
    content: &Bytes,
) -> Result<(Worker, Lease), Problem> {
    submit(target, envelope, content).await?;
    let mut worker = Worker::open(target).await?;
    worker.credits(1).await?;
    loop {
        let lease = worker.lease().await?;
        let of = lease.envelope.as_ref();
        if of.is_some_and(|of| of.queue_id == envelope.queue_id) {
            return Ok((worker, lease));
        }
        if !is_ours(target, &lease) {
            worker.hand_back(&lease).await?;
            return Err(Problem::NotTried(MAIL_OF_OTHERS.to_owned()));
        }
        // Left by a rule that did not hold.
        worker.settle(&lease, Action::Delivered).await?;
        worker.credits(1).await?;
    }
}

pub async fn leased_simply(target: &Target, subject: &str) -> Result<(Worker, Lease), Problem> {
    leased(target, &envelope(target), &caller::content(subject)).await
}

pub fn must_go_on(stale: bool) -> Outcome {
    match stale {
        false => Ok(()),
        true => Problem::broken("the settlement of a lease that goes on is stale"),
    }
}

pub fn must_be_stale(stale: bool) -> Outcome {
    match stale {
        true => Ok(()),
        false => Problem::broken("the settlement was taken"),
    }
}

pub async fn recipients(target: &Target) -> Outcome {
    let two = envelope_to(target, &[&target.recipient, &target.account]);
    submit(target, &two, &caller::content("to two")).await?;
    let mut worker = Worker::open(target).await?;
    worker.credits(2).await?;
    let (mut found, mut leases) = (Vec::new(), Vec::new());
    while found.len() < 2 {
        let lease = worker.lease().await?;
        let of = lease.envelope.clone().unwrap_or_default();
        found.extend(of.recipients.into_iter().map(|to| (to.index, to.address)));
        leases.push(lease);
    }
    found.sort();
    let wanted = two.recipients.iter();
    let wanted: Vec<_> = wanted.map(|to| (to.index, to.address.clone())).collect();
    if found != wanted {
        return Problem::broken(format!("{found:?} instead of {wanted:?}"));
    }
    for lease in &leases {
        must_go_on(worker.settle(lease, Action::Delivered).await?)?;
    }
    worker.drain().await
}

pub async fn content_of(target: &Target, id: &Bytes, offset: u64) -> Result<Bytes, Problem> {
    let request = ReadRequest {
        queue_id: id.clone(),
        offset,
        ..ReadRequest::default()
    };
    let mut client = QueueClient::new(target.mda.clone());
    let mut chunks = client.read(request).await?.into_inner();
    let mut whole = BytesMut::new();
    while let Some(part) = chunks.message().await? {
        if part.chunk.len() > 64 << 10 {
            return Problem::broken(format!("a chunk of {} octets", part.chunk.len()));
        }
        whole.extend_from_slice(&part.chunk);
    }
    Ok(whole.freeze())
}

pub async fn content(target: &Target) -> Outcome {
    for size in [10, LARGE] {
        let filler = vec![b'x'; size];
        let sent = Bytes::from([&content_line(size)[..], &filler].concat());
        let envelope = envelope(target);
        let (mut worker, lease) = leased(target, &envelope, &sent).await?;
        if lease.content.as_ref().is_some_and(|inside| *inside != sent) {
            return Problem::broken("the content in the lease is another one");
        }
        for offset in [0, 7] {
            let read = content_of(target, &envelope.queue_id, offset).await?;
            let rest = usize::try_from(offset).unwrap_or_default();
            if read != sent.slice(rest..) {
                return Problem::broken(format!(
                    "{} octets from {offset} of {}, or others",
                    read.len(),
                    sent.len()
                ));
            }
        }
        must_go_on(worker.settle(&lease, Action::Delivered).await?)?;
        worker.drain().await?;
    }
    Ok(())
}

fn content_line(size: usize) -> Bytes {
    caller::content(&format!("with {size} octets more"))
}

pub async fn unknown_message(target: &Target) -> Outcome {
    submit(
        target,
        &envelope(target),
        &caller::content("for a later worker"),
    )
    .await?;
    let credits = postroad_proto::queue::v1::WorkUp {
        message: Some(work_up::Message::Credits(1)),
    };
    let first = hello(Vec::new(), &[RouteClass::Local]).encode_to_vec();
    let messages = vec![
        Bytes::from(first),
        Bytes::from_static(LATER),
        Bytes::from(credits.encode_to_vec()),
    ];
    let (hold, messages) = raw::held_open(messages);
    let path = "/postroad.queue.v1.Queue/Work";
    let mut stream = raw::streaming(target.mda.clone(), path, messages).await?;
    loop {
        let octets = timeout(target.patience, stream.message()).await;
        let octets = octets.map_err(|_| Problem::Broken("no lease came".to_owned()))??;
        let octets = octets.ok_or_else(|| Problem::Broken("the stream ended".to_owned()))?;
        let message: WorkDown = raw::decoded(&octets)?;
        match message.message {
            Some(work_down::Message::Lease(lease)) => {
                drop((hold, stream));
                return take_over(target, &lease).await;
            }
            Some(work_down::Message::Welcome(_)) | None => {}
            Some(other) => return Problem::broken(format!("{} came", name(&other))),
        }
    }
}

/// Settles a lease whose stream has gone.
async fn take_over(target: &Target, lease: &Lease) -> Outcome {
    let held = reference(lease)?;
    let mut worker = Worker::resume(target, vec![held]).await?;
    let resumed = worker
        .welcome
        .resumed
        .first()
        .and_then(|one| one.new.clone());
    let Some(new) = resumed else {
        return Problem::broken("a lease whose stream broke a moment ago does not go on");
    };
    must_go_on(worker.settle_as(new, lease, Action::Delivered).await?)?;
    worker.drain().await
}

pub async fn settled(target: &Target) -> Outcome {
    let (mut worker, lease) = leased_simply(target, "settled").await?;
    must_go_on(worker.settle(&lease, Action::Delivered).await?)?;
    worker.credits(1).await?;
    worker.hears_nothing().await?;
    worker.drain().await
}

pub async fn settled_twice(target: &Target) -> Outcome {
    let (mut worker, lease) = leased_simply(target, "settled twice").await?;
    must_go_on(worker.settle(&lease, Action::Delivered).await?)?;
    must_be_stale(worker.settle(&lease, Action::Delivered).await?)?;
    worker.drain().await
}

pub async fn wrong_fence(target: &Target) -> Outcome {
    let (mut worker, lease) = leased_simply(target, "with another fence").await?;
    let other = with_other_fence(&reference(&lease)?);
    must_be_stale(worker.settle_as(other, &lease, Action::Delivered).await?)?;
    must_go_on(worker.settle(&lease, Action::Delivered).await?)?;
    worker.drain().await
}

pub async fn failure_is_reported(target: &Target) -> Outcome {
    let (mut worker, lease) = leased_simply(target, "fails").await?;
    must_go_on(worker.settle(&lease, Action::Failed).await?)?;
    worker.credits(1).await?;
    let report = worker.lease().await?;
    let of = report.envelope.clone().unwrap_or_default();
    let to: Vec<&str> = of.recipients.iter().map(|to| to.address.as_str()).collect();
    if !of.reverse_path.is_empty() || to != [target.account.as_str()] {
        return Problem::broken(format!(
            "a mail from <{}> to {to:?} instead of a report",
            of.reverse_path
        ));
    }
    must_go_on(worker.settle(&report, Action::Delivered).await?)?;
    worker.drain().await
}

pub async fn extended_too_late(target: &Target) -> Outcome {
    let (mut worker, lease) = leased_simply(target, "extended").await?;
    let held = reference(&lease)?;
    worker.extend(held.clone()).await?;
    worker.hears_nothing().await?;
    must_go_on(worker.settle(&lease, Action::Delivered).await?)?;
    worker.extend(held.clone()).await?;
    match worker.next().await? {
        work_down::Message::Revoked(revoked) if revoked.leases == [held] => worker.drain().await,
        other => Problem::broken(format!("{} instead of Revoked", name(&other))),
    }
}

pub async fn handed_back(target: &Target) -> Outcome {
    let (mut worker, lease) = leased_simply(target, "handed back").await?;
    worker.hand_back(&lease).await?;
    worker.credits(1).await?;
    let again = worker.lease().await?;
    if again.attempt != lease.attempt {
        return Problem::broken(format!("attempt {} after {}", again.attempt, lease.attempt));
    }
    must_be_stale(worker.settle(&lease, Action::Delivered).await?)?;
    must_go_on(worker.settle(&again, Action::Delivered).await?)?;
    worker.drain().await
}

pub async fn resumed(target: &Target) -> Outcome {
    let (worker, lease) = leased_simply(target, "resumed").await?;
    worker.break_off();
    let held = reference(&lease)?;
    let mut worker = Worker::resume(target, vec![held.clone()]).await?;
    let resumed = worker
        .welcome
        .resumed
        .iter()
        .find(|one| one.old.as_ref() == Some(&held));
    let Some(new) = resumed.and_then(|one| one.new.clone()) else {
        return Problem::broken("a lease whose stream broke a moment ago does not go on");
    };
    if new == held {
        return Problem::broken("it goes on under the old reference");
    }
    must_be_stale(worker.settle_as(held, &lease, Action::Delivered).await?)?;
    must_go_on(worker.settle_as(new, &lease, Action::Delivered).await?)?;
    worker.drain().await
}

pub async fn resumed_too_late(target: &Target) -> Outcome {
    let (mut worker, lease) = leased_simply(target, "resumed too late").await?;
    must_go_on(worker.settle(&lease, Action::Delivered).await?)?;
    worker.drain().await?;
    let held = reference(&lease)?;
    let worker = Worker::resume(target, vec![held.clone()]).await?;
    let resumed = worker
        .welcome
        .resumed
        .iter()
        .find(|one| one.old.as_ref() == Some(&held));
    match resumed {
        Some(one) if one.new.is_none() => worker.drain().await,
        Some(_) => Problem::broken("a lease that was settled goes on"),
        None => Problem::broken("nothing is said of a lease that is held"),
    }
}

pub async fn drained(target: &Target) -> Outcome {
    let (worker, lease) = leased_simply(target, "on its way").await?;
    worker.drain().await?;
    let mut other = Worker::open(target).await?;
    other.credits(1).await?;
    let again = other.lease().await?;
    if again.attempt != lease.attempt {
        return Problem::broken(format!("attempt {} after {}", again.attempt, lease.attempt));
    }
    must_go_on(other.settle(&again, Action::Delivered).await?)?;
    other.drain().await
}

pub async fn slow_worker(target: &Target) -> Outcome {
    let slow = Worker::open(target).await?;
    slow.credits(u32::MAX).await?;
    let filler = vec![b'x'; 20_000];
    let mail = Bytes::from([&content_line(filler.len())[..], &filler].concat());
    for _ in 0..FLOOD {
        let envelope = envelope(target);
        submit_parts(target, parts(&envelope, &mail, completion(&mail))).await?;
    }
    let mut other = Worker::open(target).await?;
    other.credits(1).await?;
    let lease = other.lease().await?;
    must_go_on(other.settle(&lease, Action::Delivered).await?)?;
    other.drain().await?;
    slow.drain().await?;
    Worker::clear(target).await
}
