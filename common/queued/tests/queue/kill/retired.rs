//! Mails after their end: each is retired once, is shown whole, and stays.

use std::{collections::BTreeMap, path::Path};

use postroad_envelope::{Ending, QueueId};
use postroad_queue_client::{
    ListQuery, MailDetails, QueueAdmin, QueueError, QueueService, collect_content,
};
use postroad_queued::LocalQueue;

use super::{
    check::{LARGEST, Opened},
    told::{Mail, Told, content_of, say},
};
use crate::retired::retired;

/// Of those seen before so many are looked at again by each life.
const AGAIN: usize = 20;
/// Rounds for which they stay at least, in the room that [`super::kill_config`] leaves them.
const STAY: u64 = 6;

/// What ended is retired sooner or later, and what was seen retired stays so.
pub async fn look(queue: &LocalQueue, told: &Told) -> Result<(), String> {
    let ended = told.mails.iter().filter(|(_, mail)| has_ended(mail));
    let ended = ended.filter(|(_, mail)| mail.round + STAY > told.round);
    let (seen, new): (Vec<_>, Vec<_>) = ended.partition(|(_, mail)| mail.retired);
    let again = seen.len().saturating_sub(AGAIN);
    for (id, mail) in new.into_iter().chain(seen.into_iter().skip(again)) {
        match queue.show(*id).await {
            Ok(details) if details.summary.retired.is_some() => {
                check(queue, *id, mail, &details).await?;
                say(format_args!("retired {id} 0"));
                if mail.retired {
                    say(format_args!("met killed-retired"));
                }
            }
            // It owes a report, or waits for a checkpoint.
            Ok(_) | Err(QueueError::NotFound) if !mail.retired => {}
            other => return Err(format!("{id} was retired and is gone: {other:?}")),
        }
    }
    Ok(())
}

fn has_ended(mail: &Mail) -> bool {
    mail.all != 0 && mail.acknowledged == mail.all && mail.ended == mail.all
}

async fn check(
    queue: &LocalQueue,
    id: QueueId,
    mail: &Mail,
    details: &MailDetails,
) -> Result<(), String> {
    let of = |indices: Vec<u32>| {
        indices
            .into_iter()
            .fold(0, |set, index| set | 1_u32 << index)
    };
    let addressed = details.envelope.recipients.iter();
    let addressed = of(addressed.map(|to| to.index.0).collect());
    let told = of(details.recipients.iter().map(|to| to.index.0).collect());
    if (addressed, told) != (mail.all, mail.all) {
        return Err(format!("{id} was retired in part: {mail:?}, {details:?}"));
    }
    let undone = details.recipients.iter().find(|to| {
        let is_done = to.outcome.as_ref().is_some_and(|o| o.is_final());
        to.state.is_some() || !is_done && !mail.excused && !mail.regretted
    });
    if let Some(undone) = undone {
        return Err(format!("{id} was retired before its end: {undone:?}"));
    }
    let facts = details.summary.retired;
    if facts.is_some_and(|facts| facts.ending != Ending::Delivered) {
        let content = queue.read_any(id, 0).await;
        let content = content.map_err(|error| format!("{id} failed, no content: {error}"))?;
        let content = collect_content(content, LARGEST).await;
        let content = content.map_err(|error| format!("{id} cannot be read: {error}"))?;
        if content != content_of(id) {
            return Err(format!("{id} failed and its content is not whole"));
        }
        say(format_args!("met retired-content"));
    }
    Ok(())
}

/// After an orderly stop every mail is retired, once.
pub async fn all_are_there(folder: &Path, told: &Told) -> Result<(), String> {
    let opened = Opened::of(folder).await?;
    let listed = listed(&opened.queue).await?;
    let acknowledged = told
        .mails
        .iter()
        .filter(|(_, mail)| mail.acknowledged != 0 && mail.round + STAY > told.round);
    for (id, mail) in acknowledged {
        if listed.get(id) != Some(&1) {
            let times = listed.get(id).copied().unwrap_or_default();
            return Err(format!("{id} was retired {times} times: {mail:?}"));
        }
    }
    if let Some((id, times)) = listed.iter().find(|(_, times)| **times != 1) {
        return Err(format!("{id} was retired {times} times"));
    }
    opened.stop().await
}

async fn listed(queue: &LocalQueue) -> Result<BTreeMap<QueueId, u32>, String> {
    let mut times = BTreeMap::new();
    let mut query = ListQuery {
        limit: 1000,
        ..retired()
    };
    loop {
        let page = queue.list(query.clone()).await.map_err(|e| e.to_string())?;
        for mail in &page.mails {
            *times.entry(mail.queue_id).or_default() += 1;
        }
        query.after = page.next;
        if query.after.is_none() {
            return Ok(times);
        }
    }
}
