//! What is there, compared with what was told.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    path::{Path, PathBuf},
    time::Duration,
};

use postroad_envelope::{Envelope, QueueId, Timestamp};
use postroad_queue_client::{
    Change, Filter, Lease, ListQuery, MailDetails, MailState, QueueAdmin, QueueError, QueueService,
    RecipientDetails, WorkUp, collect_content,
};
use postroad_queued::{LocalQueue, ServeError};
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    kill_config,
    load::{ADDRESSES, CLASSES, RULED},
    retired,
    told::{Told, content_of, say},
};
use crate::setup::{Worker, change, common, delivered, mail, start_when_free, submit};

pub const LARGEST: usize = 1 << 20;

pub fn queue_folder(folder: &Path) -> PathBuf {
    kill_config().folder(&common(folder))
}

pub fn open_recipients(details: &MailDetails) -> u32 {
    let open = details.recipients.iter().filter(|to| to.state.is_some());
    open.fold(0, |set, to| set | 1 << to.index.0)
}

/// Which mail a report is about, and which of its recipients; none if it tells of no end.
fn reported(envelope: &Envelope, content: &[u8]) -> Option<(QueueId, u32)> {
    let to = envelope.recipients.first()?.address.to_string();
    let (about, _) = to.split_once('@')?;
    let text = String::from_utf8_lossy(content);
    let set = (0..).zip(ADDRESSES).fold(0, |set, (slot, address)| {
        let is_told = text.contains(&format!("Final-Recipient: rfc822;{address}"))
            || text.contains(&format!("Final-Recipient: rfc822; {address}"));
        set | u32::from(is_told) << slot
    });
    let tells = ["Action: failed", "Action: relayed"];
    tells
        .iter()
        .any(|action| text.contains(action))
        .then_some((about.parse().ok()?, set))
}

/// See [`reported`]. Reports name the mail they are about in the address they go to.
pub async fn report_in(queue: &LocalQueue, lease: &Lease) -> Option<(QueueId, u32)> {
    if lease.envelope.listener != "report" {
        return None;
    }
    let content = match &lease.content {
        Some(content) => content.clone(),
        None => {
            let content = queue.read(lease.lease.job.queue_id, 0).await.ok()?;
            collect_content(content, LARGEST).await.ok()?
        }
    };
    reported(&lease.envelope, &content)
}

/// Mails with their open recipients, but for those minted since.
pub async fn present(
    queue: &LocalQueue,
    told: &Told,
    since: Timestamp,
) -> Result<BTreeMap<QueueId, u32>, String> {
    let mut present = BTreeMap::new();
    let mut states = BTreeSet::new();
    let mut query = ListQuery {
        limit: 1000,
        ..ListQuery::default()
    };
    loop {
        let page = queue.list(query.clone()).await.map_err(|e| e.to_string())?;
        for found in &page.mails {
            if found.queue_id.minted_at() >= since {
                continue;
            }
            // A report that was owed may end a mail while we look.
            if let Ok(details) = queue.show(found.queue_id).await
                && details.summary.retired.is_none()
            {
                present.insert(found.queue_id, open_recipients(&details));
                states.extend(details.recipients.iter().map(state_of));
                let is_owed = details.recipients.iter().all(|to| to.state.is_none());
                states.extend(is_owed.then_some(Some("owing")));
                check_mail(queue, &details, told).await?;
            }
        }
        query.after = page.next;
        if query.after.is_none() {
            break;
        }
    }
    for state in states.into_iter().flatten() {
        say(format_args!("met killed-{state}"));
    }
    for (id, mail) in &told.mails {
        let open = present.get(id).copied().unwrap_or_default();
        let lost = mail.acknowledged & !mail.trying & !open;
        if lost != 0 {
            return Err(format!(
                "{id} was acknowledged and is lost: {mail:?}, open {open:b}"
            ));
        }
        let mut all = 0;
        for set in mail.reports.values() {
            if all & set != 0 {
                return Err(format!("{id} was reported on twice: {mail:?}"));
            }
            all |= set;
        }
    }
    Ok(present)
}

/// The line of the table of states that a recipient was in when its queue was killed, if that can be told now.
fn state_of(recipient: &RecipientDetails) -> Option<&'static str> {
    match recipient.state {
        Some(MailState::Due | MailState::Delayed) => Some("due"),
        Some(MailState::Held) => Some("held"),
        _ => None,
    }
}

async fn check_mail(queue: &LocalQueue, details: &MailDetails, told: &Told) -> Result<(), String> {
    let id = details.summary.queue_id;
    // Reports are made by the queue itself.
    if details.envelope.listener == "report" {
        return Ok(());
    }
    let Some(mail) = told.mails.get(&id) else {
        return Err(format!("{id} is there and nobody sent it: {details:?}"));
    };
    let back = open_recipients(details) & mail.ended;
    if back != 0 {
        return Err(format!("{id} came back: {mail:?}, recipients {back:b}"));
    }
    for recipient in &details.recipients {
        let ended = recipient.outcome.as_ref().is_some_and(|o| o.is_final());
        let may_be_dropped = (mail.excused || mail.regretted) && recipient.outcome.is_none();
        if ended == recipient.state.is_some() && !may_be_dropped {
            return Err(format!(
                "{id} has a recipient neither scheduled nor done: {recipient:?}"
            ));
        }
        // Delayed: the job waits for a report first.
        if mail.held && matches!(recipient.state, Some(MailState::Due | MailState::Leased)) {
            return Err(format!("{id} is held no more: {recipient:?}"));
        }
        let is_ruled = mail.ruled && 1 << recipient.index.0 == RULED;
        if is_ruled && matches!(recipient.state, Some(MailState::Due | MailState::Leased)) {
            return Err(format!("{id} is not held by its rule: {recipient:?}"));
        }
    }
    whole(queue, id).await
}

/// The content is there and whole, unless the mail has ended meanwhile.
async fn whole(queue: &LocalQueue, id: QueueId) -> Result<(), String> {
    let Ok(content) = queue.read(id, 0).await else {
        return Ok(());
    };
    let content = collect_content(content, LARGEST).await;
    let content = content.map_err(|error| format!("{id} cannot be read: {error}"))?;
    match content == content_of(id) {
        true => Ok(()),
        false => Err(format!("{id} is half visible")),
    }
}

/// Every job that lives is given out once, then nothing is left; ids of finished mails are known; whoever was to hear of
/// a failure has heard of it.
pub fn drain(folder: &Path, told: &Told) -> Result<(), String> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(drain_queue(folder, told))
}

/// A queue of the parent, level with its journal.
pub struct Opened {
    pub queue: LocalQueue,
    stop: CancellationToken,
    running: JoinHandle<Result<(), ServeError>>,
}

impl Opened {
    pub async fn of(folder: &Path) -> Result<Self, String> {
        let common = common(folder);
        let directory = postroad_directory::DirectoryHandle::open(&common.directory).unwrap();
        let started = start_when_free(&kill_config(), &common, &directory).await;
        let (queue, running) = started.map_err(|error| error.to_string())?;
        let stop = CancellationToken::new();
        let running = tokio::spawn(running.run(stop.clone(), Duration::ZERO));
        queue.caught_up().await;
        Ok(Self {
            queue,
            stop,
            running,
        })
    }

    pub async fn stop(self) -> Result<(), String> {
        self.stop.cancel();
        let ended = self.running.await.map_err(|error| error.to_string())?;
        ended.map_err(|error| error.to_string())
    }
}

async fn drain_queue(folder: &Path, told: &Told) -> Result<(), String> {
    let opened = Opened::of(folder).await?;
    let queue = opened.queue.clone();
    let all = Timestamp::from_millis(u64::MAX);
    present(&queue, told, all).await?;
    let mut reports: BTreeMap<QueueId, u32> = BTreeMap::new();
    for (id, mail) in &told.mails {
        *reports.entry(*id).or_default() = mail.reports.values().fold(0, |all, set| all | set);
    }
    let mut worker = Worker::connect(&queue, CLASSES).await;
    let mut seen = HashSet::new();
    for _ in 0..100 {
        // What a rule holds needs a release as well, and a debt is paid before it.
        let released = change(&queue, Change::Release, Filter::all()).await;
        if let Err(error) = released
            && !matches!(error, QueueError::Conflict(_) | QueueError::NotFound)
        {
            return Err(error.to_string());
        }
        worker.say(WorkUp::Credits(1)).await;
        while let Ok(lease) = timeout(Duration::from_millis(500), worker.next_lease()).await {
            if !seen.insert(lease.lease.job) {
                return Err(format!("{} was given out twice", lease.lease.job));
            }
            if let Some((about, set)) = report_in(&queue, &lease).await {
                *reports.entry(about).or_default() |= set;
            }
            worker.settle(&lease, &delivered()).await;
            worker.say(WorkUp::Credits(1)).await;
        }
        let left = queue.list(ListQuery::default()).await;
        if left.is_ok_and(|left| left.mails.is_empty()) {
            break;
        }
    }
    let left = queue.list(ListQuery::default()).await.unwrap().mails;
    if !left.is_empty() {
        return Err(format!("mails that nobody was given: {left:?}"));
    }
    for (id, mail) in &told.mails {
        let unreported = mail.failed & !reports[id];
        if unreported != 0 && !mail.excused {
            return Err(format!("the sender of {id} was never told: {mail:?}"));
        }
    }
    known(&queue, told).await?;
    opened.stop().await?;
    drop(worker);
    drop(queue);
    retired::all_are_there(folder, told).await
}

async fn known(queue: &LocalQueue, told: &Told) -> Result<(), String> {
    let acknowledged = told.mails.iter().filter(|(_, mail)| mail.acknowledged != 0);
    let ids: Vec<QueueId> = acknowledged.map(|(id, _)| *id).collect();
    let mut traced = 0;
    for id in &ids {
        traced += usize::from(!queue.trace(*id).await.unwrap().is_empty());
    }
    // What was told just before each kill may be lost, no more than that.
    if traced * 2 < ids.len() {
        return Err(format!(
            "only {traced} of {} mails have a timeline",
            ids.len()
        ));
    }
    for id in ids.iter().rev().take(100) {
        let mut again = mail("", &["nobody@far.test"]);
        again.queue_id = *id;
        let answer = submit(queue, &again, b"other").await;
        if answer != Err(QueueError::IdTaken) {
            return Err(format!("{id} is forgotten: {answer:?}"));
        }
    }
    Ok(())
}
