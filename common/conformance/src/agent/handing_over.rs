//! Rules of agents that take mail from clients and hand it to the queue.

use std::time::{Duration, SystemTime};

use postroad_proto::queue::v1::{Completion, Reply};
use tokio::sync::watch;
use tonic::Code;

use super::{Role, mails::LARGE, stage::Stage};
use crate::{
    Problem,
    played::{Answer, Form, Submitted},
    queue::caller::{completion, now_ms},
    rules::{Outcome, rules},
};

/// The largest chunk, and the largest mail of `SubmitMany`.
const CHUNK: usize = 64 << 10;
const SMALL: usize = 256 << 10;
/// How far the time in a queue id may be off.
const A_DAY_MS: u64 = 86_400_000;

rules![Stage;
    "over.admit": "`Admit` asks beforehand for room and quota, so that a client hears 452 before it sends ten megabytes." => admit,
    "over.not_admitted": "| `RESOURCE_EXHAUSTED` | full: disk, memory, quota. The details may hold a `postroad.queue.v1.Reply` | that reply, else 452 4.3.1 |" => not_admitted,
    "over.accepted": "**Nobody may say 250 before the queue has said `Accepted`.**" => accepted,
    "over.form": "one `begin`, chunks of at most 64 KiB each, one `end`" => form,
    "over.envelope": "An envelope needs `queue_id`, at least one recipient (with indices that differ), `origin` with a `protocol`" => envelope,
    "over.id": "The **queue id** is made by the agent: 16 octets, a UUID of version 7." => id,
    "over.content": "The content is what the client sent: lines end with CRLF, dots unstuffed." => content,
    "over.completion": "`Completion.size` and `crc32c` (Castagnoli, of the content as sent) are checked" => sums,
    "over.cut": "A stream that breaks before `end` stores nothing." => cut,
    "over.unknown_outcome": "**submit the same mail under the same id to the same queue** until it answers, or tell the client to come again (451)" => unknown_outcome,
    "over.unavailable": "| `UNAVAILABLE`, and every code not listed here | nobody knows, or not now; try again | 451 4.3.0 |" => unavailable,
    "over.full": "| that reply, else 452 4.3.1 |" => full,
    "over.refused": "| `ABORTED` with a `Reply` in the details | refused, for good if the reply says 5xx | that reply |" => refused,
    "over.id_taken": "| `ALREADY_EXISTS` | this queue id belongs to another mail | 451; then make a new id |" => id_taken,
    "over.invalid": "| `INVALID_ARGUMENT` | a message that cannot be; the text names the field | 451, and a bug to mend |" => invalid,
    "over.not_allowed": "| `PERMISSION_DENIED`, `UNAUTHENTICATED` | the role does not allow it | 451, and a configuration to mend |" => not_allowed,
    "over.unknown_message": "unknown messages of a `oneof` are passed over" => unknown_message,
    "over.away": "An answer that never came is not an error but an unknown" => away,
];

/// A mail program's mail, from the account where it is of one.
fn small(stage: &Stage) -> Vec<u8> {
    let from = addresses(stage).0;
    let marker = rand::random::<u64>();
    format!("Subject: over\r\nMessage-ID: <{marker:x}@conformance.test>\r\nDate: Thu, 01 Jan 2026 00:00:00 +0000\r\nFrom: {from}\r\n\r\n.a line with a dot\r\n..\r\nlast\r\n")
        .into_bytes()
}

fn large(stage: &Stage) -> Vec<u8> {
    let line = format!("{}\r\n", "y".repeat(70));
    let mut mail = small(stage);
    mail.extend(line.repeat(LARGE / line.len()).into_bytes());
    mail
}

/// Who sends, and to whom.
fn addresses(stage: &Stage) -> (String, String) {
    let account = stage.target.account.clone();
    match stage.target.role {
        Role::Msa => (account.clone(), account),
        Role::Mta | Role::Mda => ("sender@conformance.test".to_owned(), account),
    }
}

/// A whole conversation; the reply that decided it.
async fn send(stage: &Stage, content: &[u8]) -> Result<String, Problem> {
    let (from, to) = addresses(stage);
    let mut client = stage.client().await?;
    client.send(&from, &[&to], content).await
}

/// A mail that was taken, as the queue got it.
async fn taken(stage: &Stage, content: &[u8]) -> Result<Submitted, Problem> {
    stage.queue.desk.reset();
    let reply = send(stage, content).await?;
    must_begin(&reply, "250")?;
    let mut arrived = arrived(stage, content).await;
    match (arrived.pop(), arrived.len()) {
        (Some(one), 0) => Ok(one),
        (last, rest) => Problem::broken(format!(
            "the queue was given {} mails instead of one",
            rest + usize::from(last.is_some())
        )),
    }
}

/// The same, once there is one; who says 250 too early is slower than his word.
async fn arrived(stage: &Stage, content: &[u8]) -> Vec<Submitted> {
    let desk = &stage.queue.desk;
    let arrives = desk.wait(stage.target.quiet, |state| {
        let mut submitted = state.submitted.iter();
        submitted.any(|mail| is_whole(mail, content)).then_some(())
    });
    arrives.await;
    whole(stage, content)
}

/// How often this mail came to its end. Others may come late, from before: an agent that said 250 too early hands them over when
/// the next rule is at work.
fn whole(stage: &Stage, content: &[u8]) -> Vec<Submitted> {
    let state = stage.queue.desk.state();
    let submitted = state.submitted.iter();
    let whole = submitted.filter(|mail| is_whole(mail, content));
    whole.cloned().collect()
}

/// Whether it is this mail, whatever else an agent made of it, and came to its end.
fn is_whole(mail: &Submitted, content: &[u8]) -> bool {
    let id = message_id(content);
    mail.end.is_some() && id.is_some() && message_id(&mail.content) == id
}

fn message_id(content: &[u8]) -> Option<&[u8]> {
    let mut lines = content.split(|octet| *octet == b'\n');
    lines.find(|line| line.starts_with(b"Message-ID:"))
}

fn must_begin(reply: &str, wanted: &str) -> Outcome {
    match reply.starts_with(wanted) {
        true => Ok(()),
        false => Problem::broken(format!("the client heard {reply:?} instead of {wanted}")),
    }
}

async fn admit(stage: &mut Stage) -> Outcome {
    stage.queue.desk.reset();
    let (from, to) = addresses(stage);
    let mut client = stage.client().await?;
    must_begin(&client.announce(&from, &[&to]).await?, "354")?;
    let admitted = stage.queue.desk.state().admitted.clone();
    client.hand_over(&small(stage)).await?;
    must_begin(&client.reply().await?, "250")?;
    let Some(asked) = admitted.first() else {
        return Problem::broken("the client was told to send, and the queue was not asked");
    };
    match asked.recipients.contains(&to) {
        true => Ok(()),
        false => Problem::broken(format!("it was asked for {:?}", asked.recipients)),
    }
}

async fn not_admitted(stage: &mut Stage) -> Outcome {
    let own = Reply {
        code: 452,
        enhanced: Some("4.2.2".to_owned()),
        text: "the quota is used up".to_owned(),
    };
    for (reply, wanted) in [(None, "452 4.3.1"), (Some(own), "452 4.2.2")] {
        stage.queue.desk.reset();
        stage
            .queue
            .desk
            .change(|state| state.no_admission = Some((Code::ResourceExhausted, reply)));
        let (from, to) = addresses(stage);
        let answer = stage.client().await?.announce(&from, &[&to]).await;
        stage.queue.desk.reset();
        must_begin(&answer?, wanted)?;
    }
    Ok(())
}

async fn accepted(stage: &mut Stage) -> Outcome {
    for content in [small(stage), large(stage)] {
        stage.queue.desk.reset();
        let (gate, opened) = watch::channel(false);
        let answer = Answer::AcceptedWhen(opened);
        stage
            .queue
            .desk
            .change(|state| state.answers.push_back(answer));
        let (from, to) = addresses(stage);
        let mut client = stage.client().await?;
        must_begin(&client.announce(&from, &[&to]).await?, "354")?;
        client.hand_over(&content).await?;
        let come = stage.queue.desk.wait(stage.target.patience, |state| {
            (!state.submitted.is_empty()).then_some(())
        });
        if come.await.is_none() {
            return Problem::broken("the queue was given nothing");
        }
        let early = client.reply_within(stage.target.quiet).await?;
        gate.send_replace(true);
        if let Some(early) = early {
            return Problem::broken(format!("the client heard {early:?} before Accepted"));
        }
        must_begin(&client.reply().await?, "250")?;
    }
    Ok(())
}

/// Both ways in are right for a small mail, one of them for a large one.
async fn form(stage: &mut Stage) -> Outcome {
    for content in [small(stage), large(stage)] {
        let submitted = taken(stage, &content).await?;
        match submitted.form {
            Form::Parts { largest, .. } if largest <= CHUNK => {}
            Form::Parts { largest, .. } => {
                return Problem::broken(format!("a chunk of {largest} octets"));
            }
            Form::OneOfMany if submitted.content.len() <= SMALL => {}
            Form::OneOfMany => {
                let size = submitted.content.len();
                return Problem::broken(format!("SubmitMany with {size} octets"));
            }
        }
    }
    Ok(())
}

async fn envelope(stage: &mut Stage) -> Outcome {
    let (from, to) = addresses(stage);
    let submitted = taken(stage, &small(stage)).await?.envelope;
    let protocol = submitted.origin.map(|origin| origin.protocol);
    let recipients: Vec<_> = submitted.recipients.iter().map(|to| &to.address).collect();
    if submitted.reverse_path != from || recipients != [&to] {
        return Problem::broken(format!(
            "from {:?} to {recipients:?} instead of {from} to {to}",
            submitted.reverse_path
        ));
    }
    if protocol.as_ref().is_none_or(String::is_empty) || submitted.tenant.is_empty() {
        let tenant = submitted.tenant;
        return Problem::broken(format!("protocol {protocol:?}, tenant {tenant:?}"));
    }
    match submitted.received_at_ms.abs_diff(now_ms()) < A_DAY_MS {
        true => Ok(()),
        false => Problem::broken(format!("received_at_ms {}", submitted.received_at_ms)),
    }
}

/// Only who takes mail of our own users names an account.
pub async fn role(stage: &mut Stage) -> Outcome {
    let submitted = taken(stage, &small(stage)).await?.envelope;
    let (account, origin) = (
        submitted.account,
        submitted.origin.and_then(|origin| origin.account),
    );
    let is_right = match stage.target.role {
        Role::Msa => {
            let ours = |one: &String| one.eq_ignore_ascii_case(&stage.target.account);
            account.as_ref().is_some_and(ours) && origin.as_ref().is_none_or(ours)
        }
        Role::Mta | Role::Mda => account.is_none() && origin.is_none(),
    };
    match is_right {
        true => Ok(()),
        false => Problem::broken(format!("account {account:?}, origin.account {origin:?}")),
    }
}

async fn id(stage: &mut Stage) -> Outcome {
    let mut seen = Vec::new();
    for _ in 0..2 {
        let id = taken(stage, &small(stage)).await?.envelope.queue_id;
        let is_seven = id.len() == 16
            && id.get(6).is_some_and(|octet| octet >> 4 == 7)
            && id.get(8).is_some_and(|octet| octet >> 6 == 2);
        let time = id
            .iter()
            .take(6)
            .fold(0, |time, octet| time << 8 | u64::from(*octet));
        if !is_seven || time.abs_diff(now_ms()) > A_DAY_MS {
            return Problem::broken(format!("{id:02x?} is no UUID of version 7 of now"));
        }
        if seen.contains(&id) {
            return Problem::broken("two mails have the same id");
        }
        seen.push(id);
    }
    Ok(())
}

async fn content(stage: &mut Stage) -> Outcome {
    for content in [small(stage), large(stage)] {
        let submitted = taken(stage, &content).await?;
        if submitted.content != content {
            return Problem::broken(format!(
                "{} octets, or others, of {}",
                submitted.content.len(),
                content.len()
            ));
        }
    }
    Ok(())
}

async fn sums(stage: &mut Stage) -> Outcome {
    for content in [small(stage), large(stage)] {
        let submitted = taken(stage, &content).await?;
        let Completion { size, crc32c, .. } = submitted.end.unwrap_or_default();
        let wanted = completion(&submitted.content);
        if (size, crc32c) != (wanted.size, wanted.crc32c) {
            return Problem::broken(format!(
                "size {size} crc32c {crc32c:08x} instead of {} {:08x}",
                wanted.size, wanted.crc32c
            ));
        }
    }
    Ok(())
}

/// A client that goes in the middle of the content has sent no mail.
async fn cut(stage: &mut Stage) -> Outcome {
    stage.queue.desk.reset();
    let (from, to) = addresses(stage);
    let mut client = stage.client().await?;
    must_begin(&client.announce(&from, &[&to]).await?, "354")?;
    let (unfinished, sent) = (large(stage), small(stage));
    client.write(&unfinished).await?;
    drop(client);
    // What the agent makes of it is known once it has given up or has sent an end; one that waits for the end begins nothing.
    let desk = &stage.queue.desk;
    let begun = desk.wait(stage.target.quiet * 4, |state| {
        state.submitted.first().map(drop)
    });
    begun.await;
    must_begin(&send(stage, &sent).await?, "250")?;
    let has_come = desk.wait(stage.target.patience, |state| {
        let mut submitted = state.submitted.iter();
        submitted.any(|mail| is_whole(mail, &sent)).then_some(())
    });
    has_come.await;
    match whole(stage, &unfinished).len() + whole(stage, &sent).len() {
        1 => Ok(()),
        count => Problem::broken(format!("{count} mails came to their end instead of one")),
    }
}

/// The stream breaks behind the end of a mail: the same id comes again, or the client keeps the mail.
async fn unknown_outcome(stage: &mut Stage) -> Outcome {
    for content in [small(stage), large(stage)] {
        stage.queue.desk.reset();
        stage
            .queue
            .desk
            .change(|state| state.answers.push_back(Answer::Silence));
        let reply = send(stage, &content).await?;
        let submitted = whole(stage, &content);
        let mut ids = submitted.iter().map(|mail| &mail.envelope.queue_id);
        let first = ids.next();
        if ids.any(|id| Some(id) != first) {
            return Problem::broken("the same mail came again under another id");
        }
        match (reply.starts_with("250"), submitted.len()) {
            (true, 0 | 1) => {
                return Problem::broken("the client heard 250, and the queue was not asked again");
            }
            (true, _) => {}
            (false, _) => must_begin(&reply, "451")?,
        }
    }
    Ok(())
}

/// What the client hears if the queue answers so, both of a small mail and of a large one.
async fn with_refusal(
    stage: &mut Stage,
    code: Code,
    reply: Option<Reply>,
    wanted: &str,
) -> Outcome {
    for content in [small(stage), large(stage)] {
        stage.queue.desk.reset();
        let answer = Answer::Refused(code, reply.clone());
        // Who tries again is refused again.
        stage
            .queue
            .desk
            .change(|state| state.answers.extend(vec![answer; 20]));
        let heard = send(stage, &content).await;
        stage.queue.desk.reset();
        must_begin(&heard?, wanted)?;
    }
    Ok(())
}

async fn unavailable(stage: &mut Stage) -> Outcome {
    with_refusal(stage, Code::Unavailable, None, "451 4.3.0").await?;
    with_refusal(stage, Code::Internal, None, "451 4.3.0").await
}

async fn full(stage: &mut Stage) -> Outcome {
    let own = Reply {
        code: 452,
        enhanced: Some("4.2.2".to_owned()),
        text: "the quota is used up".to_owned(),
    };
    let code = Code::ResourceExhausted;
    with_refusal(stage, code, None, "452 4.3.1").await?;
    with_refusal(stage, code, Some(own), "452 4.2.2 the quota is used up").await
}

async fn refused(stage: &mut Stage) -> Outcome {
    let own = Reply {
        code: 550,
        enhanced: Some("5.7.1".to_owned()),
        text: "this is not wanted".to_owned(),
    };
    with_refusal(
        stage,
        Code::Aborted,
        Some(own),
        "550 5.7.1 this is not wanted",
    )
    .await
}

async fn id_taken(stage: &mut Stage) -> Outcome {
    with_refusal(stage, Code::AlreadyExists, None, "451").await
}

async fn invalid(stage: &mut Stage) -> Outcome {
    with_refusal(stage, Code::InvalidArgument, None, "451").await
}

async fn not_allowed(stage: &mut Stage) -> Outcome {
    with_refusal(stage, Code::PermissionDenied, None, "451").await
}

async fn unknown_message(stage: &mut Stage) -> Outcome {
    stage.queue.desk.reset();
    stage.queue.desk.change(|state| state.says_unknown = true);
    let reply = send(stage, &small(stage)).await;
    stage.queue.desk.reset();
    must_begin(&reply?, "250")
}

/// The queue is away: the client keeps its mail; it is back: the client is served.
async fn away(stage: &mut Stage) -> Outcome {
    stage.queue.desk.reset();
    drop(stage.take_session());
    stage.queue.go_down().await;
    let reply = send(stage, &small(stage)).await;
    stage.restart_queue().await?;
    must_begin(&reply?, "451")?;
    let end = SystemTime::now() + stage.target.patience;
    loop {
        let reply = send(stage, &small(stage)).await?;
        if reply.starts_with("250") {
            return Ok(());
        }
        if SystemTime::now() > end {
            return Problem::broken(format!("the queue is back, and the client hears {reply:?}"));
        }
        // An agent may look for its queue in its own time.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
