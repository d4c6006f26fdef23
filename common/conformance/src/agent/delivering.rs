//! Rules of a worker for local mail.

use std::{fs, io, path::Path};

use postroad_proto::queue::v1::{Action, Lease};

use super::{
    mails::{Mail, at_bottom, on_top, without},
    stage::{Stage, became, outcomes, reference},
};
use crate::{
    Problem,
    played::End,
    rules::{Outcome, rules},
};

rules![Stage;
    "deliver.delivered": "| `DELIVERED` | it is in the mailbox, durably | is done with this recipient |" => delivered,
    "deliver.edits": "Apply `envelope.header_edits` to the header when you deliver." => edits,
    "deliver.order": "Final order in a mailbox: Return-Path, Delivered-To, then what the edits put on top, then what the client sent." => order,
    "deliver.content": "the content stays as it is" => content,
    "deliver.failed": "| `FAILED` | never (5xx) | reports to the sender |" => failed,
    "deliver.once": "when a lease names one that is there already, settle it as delivered" => once,
    "deliver.restart": "note them where the mail is kept, durably" => after_a_restart,
    "deliver.elsewhere": "If not it files nothing: it gives the lease back with `elsewhere` set" => elsewhere,
];

/// The mails of a Maildir with that word in them.
fn copies(maildir: &Path, marker: &str) -> io::Result<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    for folder in ["new", "cur"] {
        let entries = match fs::read_dir(maildir.join(folder)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for entry in entries {
            let mail = fs::read(entry?.path())?;
            let has_it = mail.windows(marker.len()).any(|at| at == marker.as_bytes());
            if has_it {
                found.push(mail);
            }
        }
    }
    Ok(found)
}

/// How often the mail lies in the mailbox, if that can be seen.
fn must_be_there(stage: &Stage, mail: &Mail, count: usize) -> Result<Option<Vec<u8>>, Problem> {
    let Some(mailbox) = &stage.target.mailbox else {
        return Ok(None);
    };
    if !["new", "cur"]
        .iter()
        .any(|part| mailbox.join(part).is_dir())
    {
        return Err(Problem::NotTried(format!(
            "{} is no Maildir: it has neither new nor cur",
            mailbox.display()
        )));
    }
    let copies = copies(mailbox, &mail.marker);
    let mut copies = copies.map_err(|error| {
        Problem::NotTried(format!("{} cannot be read: {error}", mailbox.display()))
    })?;
    match copies.len() == count {
        true => Ok(copies.pop()),
        false => Problem::broken(format!("it is {} times in the mailbox", copies.len())),
    }
}

/// The one copy of a mail, with lines that end as in transit.
async fn filed(stage: &mut Stage, mail: &Mail) -> Result<String, Problem> {
    if stage.target.mailbox.is_none() {
        return Err(Problem::NotTried("it takes --mailbox".to_owned()));
    }
    let lease = stage.lease(mail);
    stage.carry_well(&lease).await?;
    let copy = must_be_there(stage, mail, 1)?.unwrap_or_default();
    let text = String::from_utf8_lossy(&copy).into_owned();
    Ok(text.replace("\r\n", "\n").replace('\n', "\r\n"))
}

async fn delivered(stage: &mut Stage) -> Outcome {
    let mail = stage.mail("into the mailbox");
    let lease = stage.lease(&mail);
    stage.carry_well(&lease).await?;
    must_be_there(stage, &mail, 1).map(drop)
}

async fn edits(stage: &mut Stage) -> Outcome {
    let mut mail = stage.mail("with edits");
    mail.envelope.header_edits = vec![
        on_top("X-Above: first\r\n"),
        on_top("X-Above: second\r\n"),
        at_bottom("X-Below: 1\r\n"),
        without("subject"),
    ];
    let filed = filed(stage, &mail).await?;
    let (header, _) = filed.split_once("\r\n\r\n").unwrap_or((&filed, ""));
    let fields: Vec<&str> = header.lines().collect();
    let wanted = [
        "X-Above: second".to_owned(),
        "X-Above: first".to_owned(),
        format!("X-Marker: {}", mail.marker),
        "X-Below: 1".to_owned(),
    ];
    let ends = fields.ends_with(&wanted.each_ref().map(String::as_str));
    let has_subject = fields.iter().any(|field| field.starts_with("Subject"));
    match ends && !has_subject {
        true => Ok(()),
        false => Problem::broken(format!("the header is {fields:?}")),
    }
}

async fn order(stage: &mut Stage) -> Outcome {
    let mail = stage.mail("in order");
    let filed = filed(stage, &mail).await?;
    let names = filed.lines().map(|line| line.split(':').next());
    let names: Vec<&str> = names.take(5).flatten().collect();
    let wanted = [
        "Return-Path",
        "Delivered-To",
        "X-Above",
        "X-Above",
        "Subject",
    ];
    match names == wanted && filed.starts_with("Return-Path: <sender@conformance.test>\r\n") {
        true => Ok(()),
        false => Problem::broken(format!("the first fields are {names:?}")),
    }
}

async fn content(stage: &mut Stage) -> Outcome {
    let mail = stage.mail("as it was");
    let filed = filed(stage, &mail).await?;
    match filed.as_bytes().ends_with(&mail.content) {
        true => Ok(()),
        false => Problem::broken("it is not the content that was sent".to_owned()),
    }
}

async fn failed(stage: &mut Stage) -> Outcome {
    let account = stage.target.account.clone();
    let domain = account.rsplit_once('@').map_or("", |(_, domain)| domain);
    let nobody = format!("nobody-{:08x}@{domain}", rand::random::<u32>());
    let mail = Mail::new(&[account, nobody], "to somebody and nobody");
    let lease = stage.lease(&mail);
    let outcomes = stage.carry(&lease).await?;
    let [somebody, nobody] = [0, 1].map(|at| mail.envelope.recipients.get(at).map(|to| to.index));
    became(&outcomes, somebody.unwrap_or_default(), Action::Delivered)?;
    let nobody = nobody.unwrap_or_default();
    became(&outcomes, nobody, Action::Failed)?;
    match outcomes.get(&nobody) {
        Some(outcome) if outcome.status.starts_with("5.") => Ok(()),
        other => Problem::broken(format!("{other:?}")),
    }
}

/// The same mail and recipient under another lease.
fn another(stage: &mut Stage, mail: &Mail) -> Lease {
    let mut lease = stage.lease(mail);
    lease.attempt = 2;
    lease
}

/// Delivers a mail, and hears that.
async fn delivered_once(stage: &mut Stage, mail: &Mail) -> Result<Lease, Problem> {
    let lease = stage.lease(mail);
    let reference = reference(&lease)?;
    let session = stage.session().await?;
    session.lease(&lease).await?;
    let settlement = session.settlement_of(&reference).await?;
    stage.went_well(&lease, &outcomes(&lease, &settlement)?)?;
    Ok(lease)
}

async fn once(stage: &mut Stage) -> Outcome {
    let mail = stage.mail("leased twice");
    let lease = delivered_once(stage, &mail).await?;
    let session = stage.session().await?;
    session.settled(&reference(&lease)?, true).await?;
    let again = another(stage, &mail);
    stage.carry_well(&again).await?;
    must_be_there(stage, &mail, 1).map(drop)
}

async fn after_a_restart(stage: &mut Stage) -> Outcome {
    let Some(restart) = stage.target.restart.clone() else {
        return Err(Problem::NotTried("it takes --restart".to_owned()));
    };
    if stage.target.mailbox.is_none() {
        return Err(Problem::NotTried("it takes --mailbox".to_owned()));
    }
    let mail = stage.mail("before it died");
    delivered_once(stage, &mail).await?;
    drop(stage.take_session());
    restart().await.map_err(Problem::NotTried)?;
    let again = another(stage, &mail);
    stage.carry_well(&again).await?;
    must_be_there(stage, &mail, 1).map(drop)
}

async fn elsewhere(stage: &mut Stage) -> Outcome {
    let Some(moved) = stage.target.moved.clone() else {
        return Err(Problem::NotTried("it takes --moved".to_owned()));
    };
    let mail = Mail::new(&[moved], "to another store");
    let lease = stage.lease(&mail);
    let reference = reference(&lease)?;
    let session = stage.session().await?;
    session.lease(&lease).await?;
    match session.end_of(&reference).await? {
        End::Back(back) if back.elsewhere => Ok(()),
        End::Back(back) => Problem::broken(format!("handed back without it: {:?}", back.reason)),
        End::Settled(settlement) => {
            session.settled(&reference, false).await?;
            let outcomes = outcomes(&lease, &settlement)?;
            Problem::broken(format!("settled: {:?}", outcomes.into_values().next()))
        }
    }
}
