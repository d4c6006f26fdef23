//! Rules of every worker.

use std::time::Duration;

use bytes::Bytes;
use postroad_proto::queue::v1::{RouteClass, WorkDown, work_down};
use prost::Message as _;
use tonic::Code;

use super::{
    Role,
    stage::{Stage, outcomes, reference},
};
use crate::{
    Problem,
    played::{Content, End},
    raw::{LATER, as_first_field},
    rules::{Outcome, rules},
};

/// Leases at one time, if there is room.
const MANY: u64 = 20;
/// How long a lease lasts that must be extended: time enough on a busy machine.
const SHORT: Duration = Duration::from_secs(3);
/// The same where it must not be.
const SHORTER: Duration = Duration::from_millis(900);

rules![Stage;
    "work.hello": "`agent` is the name that all copies of an agent share (`mda@store.example.net`), `host` the machine, `classes` what it carries out." => hello,
    "work.credits": "**Credits** add up: each message says for how many *more* leases there is room." => credits,
    "work.class": "A lease of a class that `Hello` did not name is handed back." => class,
    "work.unknown_message": "unknown messages of a `oneof` are passed over" => unknown_message,
    "work.unknown_field": "Unknown fields are ignored" => unknown_field,
    "work.read": "if `content` is absent, `Read` gives it, in chunks, from any offset." => read,
    "work.broken_read": "A reading that broke off, or brought fewer octets than `envelope.size`, is no mail to deliver" => broken_read,
    "work.short_read": "A reading that broke off, or brought fewer octets than `envelope.size`, is no mail to deliver" => short_read,
    "settle.each": "It has an outcome for each recipient" => each,
    "settle.reference": "whatever a worker says of a lease repeats all of them unchanged" => same_reference,
    "settle.status": "`status` is an enhanced status code (`2.1.5`, `4.2.2`, `5.1.1`: RFC 3463) of the same class as the action, `text` one line for a person" => status,
    "settle.late": "`Settled` says that the queue has it on its disk; until then keep the result" => late,
    "extend.in_time": "`extend` prolongs it by its full duration and is needed only if work takes that long; send it at a third of the time." => extend,
    "extend.revoked": "`Revoked` lists leases that ended already: stop, if that is possible" => revoked,
];

async fn hello(stage: &mut Stage) -> Outcome {
    let (role, class) = (stage.target.role, stage.class());
    let hello = &stage.session().await?.hello;
    let named: Vec<RouteClass> = hello.classes().collect();
    let allowed: &[RouteClass] = match role {
        Role::Mta => &[RouteClass::Relay, RouteClass::Lmtp],
        Role::Mda | Role::Msa => &[RouteClass::Local],
    };
    if hello.agent.is_empty() || hello.host.is_empty() {
        return Problem::broken(format!(
            "agent {:?}, host {:?}: one is empty",
            hello.agent, hello.host
        ));
    }
    match named.contains(&class) && named.iter().all(|class| allowed.contains(class)) {
        true => Ok(()),
        false => Problem::broken(format!("classes {named:?}; its role has {allowed:?}")),
    }
}

async fn credits(stage: &mut Stage) -> Outcome {
    let quiet = stage.target.quiet;
    let session = stage.session().await?;
    session
        .hear_until("a credit", |session| session.credits > 0)
        .await?;
    session.listen(quiet).await?;
    let room = session.credits;
    let count = room.min(MANY);
    let mut leases = Vec::new();
    for number in 0..count {
        let mail = stage.mail(&format!("{number} of {count}"));
        leases.push(stage.lease(&mail));
    }
    for lease in &leases {
        stage.session().await?.lease(lease).await?;
    }
    for lease in &leases {
        let reference = reference(lease)?;
        let session = stage.session().await?;
        let settlement = session.settlement_of(&reference).await?;
        session.settled(&reference, false).await?;
        stage.went_well(lease, &outcomes(lease, &settlement)?)?;
    }
    let session = stage.session().await?;
    let wanted = room.min(count);
    let back = session.hear_until("room for as many leases again", |session| {
        session.credits >= wanted
    });
    back.await?;
    session.listen(quiet).await?;
    match session.credits <= room * 2 {
        true => Ok(()),
        false => Problem::broken(format!(
            "{room} credits were {} after {count} leases",
            session.credits
        )),
    }
}

async fn class(stage: &mut Stage) -> Outcome {
    let mail = stage.mail("for another worker");
    let mut lease = stage.lease(&mail);
    let other = match stage.class() {
        RouteClass::Local => RouteClass::Relay,
        _ => RouteClass::Local,
    };
    if let Some(route) = &mut lease.route {
        route.class = other.into();
    }
    let session = stage.session().await?;
    session.lease(&lease).await?;
    let reference = reference(&lease)?;
    match session.end_of(&reference).await? {
        End::Back(_) => Ok(()),
        End::Settled(_) => {
            session.settled(&reference, false).await?;
            Problem::broken(format!("a lease of class {other:?} was settled"))
        }
    }
}

async fn unknown_message(stage: &mut Stage) -> Outcome {
    let session = stage.session().await?;
    session.say_octets(Bytes::from_static(LATER)).await?;
    let mail = stage.mail("after an unknown message");
    let lease = stage.lease(&mail);
    stage.carry_well(&lease).await
}

/// A field that does not exist yet in the message, in the lease and in its reference.
async fn unknown_field(stage: &mut Stage) -> Outcome {
    let mail = stage.mail("with unknown fields");
    let lease = stage.lease(&mail);
    let reference = reference(&lease)?;
    let inner = [as_first_field(&with_later(&reference.encode_to_vec())).to_vec()];
    let mut rest = lease.clone();
    rest.lease = None;
    let octets = [&inner.concat()[..], &with_later(&rest.encode_to_vec())].concat();
    // The lease is the second field of its message.
    let whole = WorkDown {
        message: Some(work_down::Message::Lease(Default::default())),
    };
    let mut message = whole.encode_to_vec();
    message.truncate(1);
    prost::encoding::encode_varint(u64::try_from(octets.len()).unwrap_or(0), &mut message);
    message.extend_from_slice(&octets);
    let session = stage.session().await?;
    session
        .hear_until("a credit", |session| session.credits > 0)
        .await?;
    session.credits -= 1;
    session.say_octets(with_later(&message).into()).await?;
    let settlement = session.settlement_of(&reference).await?;
    session.settled(&reference, false).await?;
    stage.went_well(&lease, &outcomes(&lease, &settlement)?)
}

fn with_later(message: &[u8]) -> Vec<u8> {
    [message, LATER].concat()
}

async fn read(stage: &mut Stage) -> Outcome {
    let mail = stage.large_mail("to be read");
    let lease = stage.lease_to_read(&mail, Content::whole(mail.content.clone()));
    stage.carry_well(&lease).await
}

async fn broken_read(stage: &mut Stage) -> Outcome {
    cut_read(stage, Some(Code::Unavailable)).await
}

async fn short_read(stage: &mut Stage) -> Outcome {
    cut_read(stage, None).await
}

/// Only what was read can have been delivered: a second reading is whole.
async fn cut_read(stage: &mut Stage, code: Option<Code>) -> Outcome {
    let mail = stage.large_mail("cut off");
    let content = Content {
        cut: Some((100_000, code)),
        ..Content::whole(mail.content.clone())
    };
    let lease = stage.lease_to_read(&mail, content);
    let reference = reference(&lease)?;
    let done = stage.done();
    let session = stage.session().await?;
    session.lease(&lease).await?;
    let End::Settled(settlement) = session.end_of(&reference).await? else {
        return Ok(());
    };
    session.settled(&reference, false).await?;
    let outcomes = outcomes(&lease, &settlement)?;
    let is_done = outcomes.values().any(|outcome| outcome.action() == done);
    let id = &mail.envelope.queue_id;
    let reads = stage.queue.desk.state().reads.clone();
    let again = reads.iter().filter(|(read, _)| read == id).count() > 1;
    match is_done && !again {
        true => Problem::broken(format!(
            "{done:?}, with 100000 octets of {}",
            mail.content.len()
        )),
        false => Ok(()),
    }
}

async fn each(stage: &mut Stage) -> Outcome {
    let recipients = [stage.recipient(), stage.recipient(), stage.recipient()];
    let mail = super::mails::Mail::new(&recipients, "to three");
    let lease = stage.lease(&mail);
    let outcomes = stage.carry(&lease).await?;
    stage.went_well(&lease, &outcomes)
}

/// The job, the revision and the fence are such that a part that is left out or cut is another one.
async fn same_reference(stage: &mut Stage) -> Outcome {
    let mail = stage.mail("with large numbers");
    let mut lease = stage.lease(&mail);
    if let Some(reference) = &mut lease.lease {
        reference.revision = u64::MAX - 1;
        if let Some(fence) = &mut reference.fence {
            fence.counter = u64::MAX - 2;
        }
    }
    stage.carry_well(&lease).await
}

async fn status(stage: &mut Stage) -> Outcome {
    let mail = stage.mail("with a status");
    let lease = stage.lease(&mail);
    for outcome in stage.carry(&lease).await?.values() {
        let class = outcome.status.split('.').next().unwrap_or_default();
        let parts: Vec<_> = outcome.status.split('.').map(str::parse::<u16>).collect();
        if parts.len() != 3 || parts.iter().any(Result::is_err) || class != "2" {
            return Problem::broken(format!("status {:?} of a success", outcome.status));
        }
        if outcome.text.is_empty() || outcome.text.contains(['\r', '\n']) {
            return Problem::broken(format!("text {:?}", outcome.text));
        }
    }
    Ok(())
}

/// Results that wait for the queue's disk keep nobody else waiting.
async fn late(stage: &mut Stage) -> Outcome {
    let (first, second) = (stage.mail("settled late"), stage.mail("not kept waiting"));
    let (first, second) = (stage.lease(&first), stage.lease(&second));
    let of_first = reference(&first)?;
    let session = stage.session().await?;
    session.lease(&first).await?;
    session.settlement_of(&of_first).await?;
    if session.credits == 0 {
        session.settled(&of_first, false).await?;
        return Err(Problem::NotTried("it takes one lease at a time".to_owned()));
    }
    stage.carry_well(&second).await?;
    stage.session().await?.settled(&of_first, false).await
}

async fn extend(stage: &mut Stage) -> Outcome {
    let mail = stage.large_mail("takes long");
    let (reference, gate) = stage.stalled(&mail, Some(SHORT)).await?;
    let session = stage.session().await?;
    session.extended.clear();
    session.listen(SHORT).await?;
    let is_extended = session.extended.contains(&reference);
    gate.send_replace(true);
    session.settlement_of(&reference).await?;
    session.settled(&reference, false).await?;
    match is_extended {
        true => Ok(()),
        false => Problem::broken(format!(
            "nothing was heard for the {} s it lasts",
            SHORT.as_secs()
        )),
    }
}

async fn revoked(stage: &mut Stage) -> Outcome {
    let mail = stage.large_mail("revoked");
    let (reference, gate) = stage.stalled(&mail, Some(SHORTER)).await?;
    let session = stage.session().await?;
    session.revoke(&reference).await?;
    // What was on its way when it heard so.
    session.listen(SHORTER / 3).await?;
    session.extended.clear();
    session.listen(SHORTER).await?;
    let is_extended = session.extended.contains(&reference);
    gate.send_replace(true);
    let mail = stage.mail("after a lease that ended");
    let lease = stage.lease(&mail);
    stage.carry_well(&lease).await?;
    stage.refuse_strays().await?;
    match is_extended {
        true => Problem::broken("it goes on to extend a lease that was revoked"),
        false => Ok(()),
    }
}
