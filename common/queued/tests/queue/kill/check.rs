//! What is there, compared with what was told.

use std::{
    collections::{BTreeMap, HashSet},
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use postroad_envelope::{Envelope, QueueId, Timestamp};
use postroad_journal::Journal;
use postroad_queue::{JobState, Listing, MailPlace, Options, Queue};
use postroad_queue_client::{
    Change, Filter, Lease, ListQuery, MailDetails, MailState, QueueAdmin, QueueError, QueueService,
    WorkUp, collect_content,
};
use postroad_queued::LocalQueue;
use tokio::time::timeout;

use super::{
    kill_config,
    life::{ADDRESSES, CLASSES},
    told::{Told, content_of, say},
};
use crate::setup::{Worker, change, common, delivered, mail, submit};

const LARGEST: usize = 1 << 20;

pub fn queue_folder(folder: &Path) -> PathBuf {
    kill_config().folder(&common(folder))
}

pub fn open_recipients(details: &MailDetails) -> u32 {
    let open = details.recipients.iter().filter(|to| to.state.is_some());
    open.fold(0, |set, to| set | 1 << to.index.0)
}

/// Which mail a report is about, and which of its recipients; none if it tells of no failure.
fn reported(envelope: &Envelope, content: &[u8]) -> Option<(QueueId, u32)> {
    let to = envelope.recipients.first()?.address.to_string();
    let (about, _) = to.split_once('@')?;
    let text = String::from_utf8_lossy(content);
    let set = (0..).zip(ADDRESSES).fold(0, |set, (slot, address)| {
        let is_told = text.contains(&format!("Final-Recipient: rfc822;{address}"))
            || text.contains(&format!("Final-Recipient: rfc822; {address}"));
        set | u32::from(is_told) << slot
    });
    text.contains("Action: failed")
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

/// Mails with their open recipients.
pub async fn present(queue: &LocalQueue, told: &Told) -> Result<BTreeMap<QueueId, u32>, String> {
    let mut present = BTreeMap::new();
    let mut query = ListQuery {
        limit: 1000,
        ..ListQuery::default()
    };
    loop {
        let page = queue.list(query.clone()).await.map_err(|e| e.to_string())?;
        for found in &page.mails {
            // A report that was owed may end a mail while we look.
            if let Ok(details) = queue.show(found.queue_id).await {
                present.insert(found.queue_id, open_recipients(&details));
                check_mail(queue, &details, told).await?;
            }
        }
        query.after = page.next;
        if query.after.is_none() {
            break;
        }
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
        let may_be_dropped = mail.excused && recipient.outcome.is_none();
        if ended == recipient.state.is_some() && !may_be_dropped {
            return Err(format!(
                "{id} has a recipient neither scheduled nor done: {recipient:?}"
            ));
        }
        // Delayed: the job waits for a report first.
        if mail.held && matches!(recipient.state, Some(MailState::Due | MailState::Leased)) {
            return Err(format!("{id} is held no more: {recipient:?}"));
        }
    }
    if let Ok(content) = queue.read(id, 0).await {
        let content = collect_content(content, LARGEST).await;
        let content = content.map_err(|error| format!("{id} cannot be read: {error}"))?;
        if content != content_of(id) {
            return Err(format!("{id} is half visible"));
        }
    }
    Ok(())
}

/// All that an index says.
#[derive(Debug, PartialEq)]
struct View {
    mails: Vec<(MailPlace, Vec<JobState>)>,
    finished: Vec<QueueId>,
}

/// The index and one made from the journal alone say the same, and each living job is due once or held.
pub fn compare(folder: &Path, told: &Told) -> Result<(), String> {
    let folder = queue_folder(folder);
    let (with_index, from) = look(&folder, told)?;
    if from > 0 {
        say(format_args!("met checkpoint-used"));
    }
    let index = folder.join("index");
    if index.exists() {
        std::fs::remove_dir_all(index).map_err(|error| error.to_string())?;
    }
    let (rebuilt, _) = look(&folder, told)?;
    if with_index != rebuilt {
        let differ = with_index
            .mails
            .iter()
            .filter(|mail| !rebuilt.mails.contains(mail));
        let missing = rebuilt
            .mails
            .iter()
            .filter(|mail| !with_index.mails.contains(mail));
        return Err(format!(
            "index and journal differ\nindex: {:#?}\njournal: {:#?}\nfinished: {} and {}",
            differ.collect::<Vec<_>>(),
            missing.collect::<Vec<_>>(),
            with_index.finished.len(),
            rebuilt.finished.len(),
        ));
    }
    say(format_args!("met compared"));
    Ok(())
}

fn look(folder: &Path, told: &Told) -> Result<(View, u64), String> {
    let bad = |error: &dyn std::fmt::Debug| format!("the queue does not open: {error:?}");
    let entropy = Arc::new(|bytes: &mut [u8]| bytes.fill_with(rand::random));
    let now = Timestamp::from(std::time::SystemTime::now());
    let options = postroad_journal::Options {
        segment_bytes: u32::try_from(kill_config().disk.segment.as_u64()).unwrap(),
        ..Default::default()
    };
    let (mut journal, recovery) = Journal::open(folder, options, entropy).map_err(|e| bad(&e))?;
    if !recovery.missing.is_empty() || !recovery.unreadable.is_empty() {
        return Err(format!("segments are missing: {recovery:?}"));
    }
    let (queue, report) = Queue::open(folder, Options::default(), now).map_err(|e| bad(&e))?;
    let mut refused = None;
    let replayed = journal.replay(report.needs_replay_from, |record| {
        match queue.replay(record) {
            Ok(_) => ControlFlow::Continue(()),
            Err(error) => {
                refused = Some(error);
                ControlFlow::Break(())
            }
        }
    });
    let replayed = replayed.map_err(|e| bad(&e))?;
    if refused.is_some() || !replayed.damage.is_empty() {
        return Err(format!("damage: {refused:?}, {replayed:?}"));
    }
    let jobs = queue.finish_replay(now).map_err(|e| bad(&e))?;
    let all = Filter::all();
    let page = queue.list(&Listing::oldest(&all, None, usize::MAX), now, &|| true);
    let page = page.map_err(|e| bad(&e))?;
    let mut living = 0;
    for job in page.mails.iter().flat_map(|mail| &mail.jobs) {
        living += usize::from(!job.state.has_ended());
        if job.phase.is_none() != job.state.has_ended() {
            return Err(format!("a living job without a place: {job:?}"));
        }
    }
    if jobs != living {
        return Err(format!(
            "{jobs} jobs are scheduled and {living} are to be done"
        ));
    }
    let mails = page.mails.into_iter();
    let mails = mails.map(|mail| {
        let jobs = mail.jobs.into_iter().map(|job| job.state);
        (mail.mail, jobs.collect())
    });
    let finished = told.mails.keys().copied();
    let finished = finished.filter(|id| queue.finished(*id).is_ok_and(|known| known.is_some()));
    let view = View {
        mails: mails.collect(),
        finished: finished.collect(),
    };
    // Leases what the next start will not know of: whoever opens it next commits its own epoch.
    let epoch = queue.prepare_epoch().map_err(|e| bad(&e))?;
    let places = journal.append_group(epoch.records()).map_err(|e| bad(&e))?;
    queue.apply(epoch, &places).map_err(|e| bad(&e))?;
    Ok((view, report.needs_replay_from.0))
}

/// Every job that lives is given out once, then nothing is left; ids of finished mails are known; whoever was to hear of
/// a failure has heard of it.
pub fn drain(folder: &Path, told: &Told) -> Result<(), String> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(drain_queue(folder, told))
}

async fn drain_queue(folder: &Path, told: &Told) -> Result<(), String> {
    let common = common(folder);
    let directory = postroad_directory::DirectoryHandle::open(&common.directory).unwrap();
    let started = postroad_queued::start(kill_config(), &common, directory).await;
    let (queue, running) = started.map_err(|error| error.to_string())?;
    let stop = tokio_util::sync::CancellationToken::new();
    let running = tokio::spawn(running.run(stop.clone(), Duration::ZERO));
    present(&queue, told).await?;
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
    stop.cancel();
    let ended = running.await.map_err(|error| error.to_string())?;
    ended.map_err(|error| error.to_string())
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

/// How many are gone from the front of the journal.
pub fn segments_given_up(folder: &Path) -> u64 {
    let segments = std::fs::read_dir(queue_folder(folder).join("segments")).unwrap();
    let names = segments.map(|file| file.unwrap().file_name().to_string_lossy().into_owned());
    let numbers = names.filter_map(|name| name.strip_suffix(".seg")?.parse::<u64>().ok());
    numbers.min().unwrap_or(1) - 1
}
