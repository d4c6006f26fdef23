//! Rules of a worker that hands mail to other hosts.

use std::collections::BTreeMap;

use postroad_proto::queue::v1::Action;
use tokio::{net::TcpListener, sync::watch};

use super::{
    mails::Mail,
    stage::{Stage, became, outcomes, reference},
};
use crate::{
    Problem,
    played::Content,
    rules::{Outcome, rules},
    smtp::{End, Script},
};

rules![Stage;
    "relay.relayed": "| `RELAYED` | another server has taken it over (250) | is done; a sender that asked for success reports hears so, unless `reports` says that the server will report; of mail with a time to be delivered by (`deliver_by`) every sender does, unless `timed` says that the server was told of it |" => relayed,
    "relay.reply": "`reply` and `remote` what another server said, and which one" => reply,
    "relay.each": "| `DELAYED` | not now (4xx, no connection) | tries again by its schedule, and gives up when the mail's time is over |" => each,
    "relay.refused": "| `FAILED` | never (5xx) | reports to the sender |" => refused,
    "relay.hang_up": "A relay by SMTP cannot know (RFC 1047) and may send twice." => hang_up,
    "relay.nobody": "| `DELAYED` | not now (4xx, no connection) |" => nobody,
    "relay.early": "**Settle only what is true after a power cut**" => early,
    "relay.edits": "They are applied by whoever delivers, and the content stays as it is." => edits,
];

async fn relayed(stage: &mut Stage) -> Outcome {
    let (mail, large) = (stage.mail("relayed"), stage.large_mail("relayed in pieces"));
    let inside = stage.lease(&mail);
    let to_read = stage.lease_to_read(&large, Content::whole(large.content.clone()));
    for (mail, lease) in [(mail, inside), (large, to_read)] {
        stage.carry_well(&lease).await?;
        let to = first_recipient(&mail);
        match stage.host()?.taken(&to).len() {
            1 => {}
            count => return Problem::broken(format!("the host took it {count} times")),
        }
    }
    Ok(())
}

fn first_recipient(mail: &Mail) -> String {
    let first = mail.envelope.recipients.first();
    first.map(|to| to.address.clone()).unwrap_or_default()
}

async fn reply(stage: &mut Stage) -> Outcome {
    let host = stage.host()?.address.to_string();
    let mail = stage.mail("answered");
    let lease = stage.lease(&mail);
    for outcome in stage.carry(&lease).await?.values() {
        let code = outcome.reply.as_ref().map(|reply| reply.code);
        let address = outcome
            .remote
            .as_ref()
            .and_then(|remote| remote.address.clone());
        if code != Some(250) || address.as_deref() != Some(&host) {
            return Problem::broken(format!(
                "reply {code:?} of {address:?} instead of 250 of {host}"
            ));
        }
    }
    Ok(())
}

/// A recipient that is taken, one that is not now, one that never is.
async fn each(stage: &mut Stage) -> Outcome {
    let recipients = [stage.recipient(), stage.recipient(), stage.recipient()];
    let [_, later, never] = recipients.clone();
    let script = Script {
        rcpt: BTreeMap::from([(later, "450 4.2.1 not now"), (never, "550 5.1.1 nobody")]),
        ..Script::default()
    };
    stage.host()?.answer(script);
    let mail = Mail::new(&recipients, "to three, each with an answer");
    let lease = stage.lease(&mail);
    let outcomes = stage.carry(&lease).await?;
    stage.host()?.answer(Script::default());
    let wanted = [Action::Relayed, Action::Delayed, Action::Failed];
    for (to, action) in mail.envelope.recipients.iter().zip(wanted) {
        became(&outcomes, to.index, action)?;
    }
    Ok(())
}

/// What becomes of a mail whose content is answered so.
async fn with_end(stage: &mut Stage, end: End, action: Action) -> Outcome {
    let script = Script {
        end,
        ..Script::default()
    };
    stage.host()?.answer(script);
    let mail = stage.mail("with an answer to the content");
    let lease = stage.lease(&mail);
    let outcomes = stage.carry(&lease).await;
    stage.host()?.answer(Script::default());
    let outcomes = outcomes?;
    for to in &mail.envelope.recipients {
        became(&outcomes, to.index, action)?;
    }
    Ok(())
}

async fn refused(stage: &mut Stage) -> Outcome {
    with_end(stage, End::Reply("554 5.6.0 not this"), Action::Failed).await?;
    with_end(stage, End::Reply("452 4.3.1 not now"), Action::Delayed).await
}

async fn hang_up(stage: &mut Stage) -> Outcome {
    with_end(stage, End::HangUp, Action::Delayed).await
}

async fn nobody(stage: &mut Stage) -> Outcome {
    let ip = stage.host()?.address.ip();
    // A port that was free a moment ago.
    let free = TcpListener::bind((ip, 0))
        .await
        .and_then(|one| one.local_addr());
    let free = free.map_err(|error| Problem::NotTried(error.to_string()))?;
    let mail = stage.mail("to a host that is away");
    let mut lease = stage.lease(&mail);
    if let Some(route) = &mut lease.route {
        route.next_hop = Some(free.to_string());
    }
    let outcomes = stage.carry(&lease).await?;
    for to in &mail.envelope.recipients {
        became(&outcomes, to.index, Action::Delayed)?;
    }
    Ok(())
}

/// It may not be told before the host has said 250.
async fn early(stage: &mut Stage) -> Outcome {
    let (gate, opened) = watch::channel(false);
    let script = Script {
        end: End::When(opened),
        ..Script::default()
    };
    stage.host()?.answer(script);
    let mail = stage.mail("not yet taken");
    let lease = stage.lease(&mail);
    let reference = reference(&lease)?;
    stage.session().await?.lease(&lease).await?;
    let (to, patience, quiet) = (
        first_recipient(&mail),
        stage.target.patience,
        stage.target.quiet,
    );
    let has_come = stage.host()?.comes(&to, patience).await;
    let session = stage.session().await?;
    session.listen(quiet).await?;
    let is_told = session.untold().any(|told| *told == reference);
    gate.send_replace(true);
    let settlement = session.settlement_of(&reference).await?;
    session.settled(&reference, false).await?;
    stage.host()?.answer(Script::default());
    if !has_come || is_told {
        return Problem::broken("it was settled before the host had taken it");
    }
    stage.went_well(&lease, &outcomes(&lease, &settlement)?)
}

async fn edits(stage: &mut Stage) -> Outcome {
    let mail = stage.mail("as it was, with edits");
    let lease = stage.lease(&mail);
    stage.carry_well(&lease).await?;
    let taken = stage.host()?.taken(&first_recipient(&mail));
    let content = taken.first().map(|taken| taken.content.clone());
    let wanted = [b"X-Above: 2\r\nX-Above: 1\r\n", &mail.content[..]].concat();
    match content.as_deref() == Some(&wanted[..]) {
        true => Ok(()),
        false => {
            let begin = content.unwrap_or_default();
            let begin = String::from_utf8_lossy(&begin);
            Problem::broken(format!(
                "the host was given {:?}",
                begin.get(..200).unwrap_or(&begin)
            ))
        }
    }
}
