//! What lies in the folder, looked at while no queue has it.

use std::{ops::ControlFlow, path::Path, sync::Arc};

use postroad_envelope::{QueueId, Timestamp};
use postroad_journal::{Inspection, Journal, Lsn};
use postroad_queue::{
    JobState, JobSummary, Ledger, Listing, MailPlace, Options, Part, Phase, Queue, record::FORMATS,
};
use postroad_queue_client::Filter;

use super::{
    check::queue_folder,
    kill_config,
    told::{Told, say},
};

/// All that an index says of mails.
#[derive(Debug, PartialEq)]
struct View {
    mails: Vec<(MailPlace, Vec<JobState>)>,
    finished: Vec<QueueId>,
}

/// The index and one made from the journal alone say the same, and each living job is due once or held.
pub fn compare(folder: &Path, told: &Told) -> Result<(), String> {
    let folder = queue_folder(folder);
    count(&folder)?;
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

/// As many jobs live as the last checkpoint counted, with what came and ended since: no false alarm after a crash.
fn count(folder: &Path) -> Result<(), String> {
    let journal = Inspection::open(folder, FORMATS).map_err(|error| error.to_string())?;
    let mut ledger = Ledger::new(Part::default());
    let mut refused = None;
    let walked = journal.reader().replay(Lsn(0), |record| {
        refused = refused.take().or(ledger.see(record).err());
        ControlFlow::Continue(())
    });
    match (walked, refused, ledger.miscounted()) {
        (Ok(_), None, None) => Ok(()),
        other => Err(format!("the journal counts otherwise: {other:?}")),
    }
}

fn look(folder: &Path, told: &Told) -> Result<(View, u64), String> {
    let bad = |error: &dyn std::fmt::Debug| format!("the queue does not open: {error:?}");
    let entropy = Arc::new(|bytes: &mut [u8]| bytes.fill_with(rand::random));
    let now = Timestamp::from(std::time::SystemTime::now());
    let options = postroad_journal::Options {
        segment_bytes: u32::try_from(kill_config().disk.segment.as_u64()).unwrap(),
        ..Default::default()
    };
    let (mut journal, recovery) =
        Journal::open_in(folder, FORMATS, options, entropy).map_err(|e| bad(&e))?;
    if !recovery.missing.is_empty() || !recovery.unreadable.is_empty() {
        return Err(format!("segments are missing: {recovery:?}"));
    }
    // As the queue itself does: what ended since the last checkpoint is still to be retired.
    let options = Options {
        retire: true,
        ..Options::default()
    };
    let (queue, report) = Queue::open(folder, options, now).map_err(|e| bad(&e))?;
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
    let leaving = queue.leaving(None, 1).map_err(|e| bad(&e))?;
    let mut living = 0;
    let owes = |job: &JobSummary| matches!(job.phase, Some((Phase::Owing | Phase::HeldOwing, _)));
    if page.mails.iter().flat_map(|mail| &mail.jobs).any(owes) {
        say(format_args!("met killed-owing"));
    }
    if !leaving.is_empty() {
        say(format_args!("met killed-leaving"));
    }
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

/// How many are gone from the front of the journal.
pub fn segments_given_up(folder: &Path) -> u64 {
    let segments = std::fs::read_dir(queue_folder(folder).join("segments")).unwrap();
    let names = segments.map(|file| file.unwrap().file_name().to_string_lossy().into_owned());
    let numbers = names.filter_map(|name| name.strip_suffix(".seg")?.parse::<u64>().ok());
    numbers.min().unwrap_or(1) - 1
}
