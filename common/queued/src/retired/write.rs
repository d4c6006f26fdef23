//! What has ended goes to the segments of retired mails: the contents that are kept, then the mails that name them.

use std::{collections::HashSet, sync::atomic::Ordering};

use bytes::Bytes;
use postroad_envelope::{Ending, QueueId};
use postroad_journal::{ContentRef, Location, RecordDraft};
use postroad_queue::{
    LeavingMail, QueueError, RetiredContent, RetiredMail,
    record::{content_draft, ending_of, split_content},
};
use tracing::{error, warn};

use super::{Kept, Writer, files::Files, store::Store};
use crate::{KeptContent, core::Core};

/// Octets of mails in memory at one time.
const OCTETS: usize = 4 << 20;
/// Why contents are lost where no segment can be written.
const NOT_OPEN: &str = "the segments of contents cannot be written";

/// What is to be written of some mails.
#[derive(Default)]
struct Batch {
    mails: Vec<(LeavingMail, Bytes)>,
    octets: usize,
}

impl Kept {
    /// Durable when this returns, or lost where it cannot be. Blocks.
    pub(super) fn retire(&self, core: &Core, page: Vec<LeavingMail>) -> Result<(), QueueError> {
        let mut writer = self.writer();
        let known = match writer.first {
            true => self.retired_since(&page),
            false => HashSet::new(),
        };
        let mut batch = Batch::default();
        for mail in page {
            if known.contains(&mail.mail.queue_id) {
                batch.mails.push((mail, Bytes::new()));
                continue;
            }
            match core.reader.read(&mail.mail.location) {
                Ok(payload) => {
                    batch.octets += payload.len();
                    batch.mails.push((mail, payload));
                }
                Err(error) => {
                    error!(event = "corruption", queue_id = %mail.mail.queue_id, error = %error, "a finished mail cannot be read and is not retired");
                    self.lost.fetch_add(1, Ordering::Relaxed);
                    batch.mails.push((mail, Bytes::new()));
                }
            }
            if batch.octets >= OCTETS {
                self.write(core, &mut writer, std::mem::take(&mut batch))?;
            }
        }
        self.write(core, &mut writer, batch)
    }

    /// Contents first, then the mails that name them; both are durable before the mails are forgotten.
    fn write(&self, core: &Core, writer: &mut Writer, batch: Batch) -> Result<(), QueueError> {
        let places = self.write_contents(core, writer, &batch);
        let (mut drafts, mut times, mut unwanted) = (Vec::new(), Vec::new(), Vec::new());
        let mut lost = 0;
        for ((mail, payload), content) in batch.mails.iter().zip(&places) {
            let stays =
                matches!(content, RetiredContent::File(file) if Some(*file) == mail.mail.file);
            unwanted.extend(mail.mail.file.filter(|_| !stays));
            if payload.is_empty() {
                continue;
            }
            let id = mail.mail.queue_id;
            match RetiredMail::draft(id, mail.at, payload, &mail.jobs, *content) {
                Ok(draft) if draft.payload_len() <= writer.mails.longest() => {
                    drafts.push(draft);
                    times.push(mail.at);
                }
                // Without a segment nothing is short enough.
                _ => lost += 1,
            }
        }
        let is_written = writer.mails.append(&drafts, &times).is_some();
        if !is_written {
            lost += drafts.len();
        }
        self.lose_mails(&mut writer.told, lost, is_written && !drafts.is_empty());
        let mails: Vec<QueueId> = batch
            .mails
            .iter()
            .map(|(mail, _)| mail.mail.queue_id)
            .collect();
        core.queue.forget_leaving(&mails)?;
        core.trash.add(unwanted.into_iter().map(|file| file.nonce));
        Ok(())
    }

    /// Where the content of each mail is now.
    fn write_contents(
        &self,
        core: &Core,
        writer: &mut Writer,
        batch: &Batch,
    ) -> Vec<RetiredContent> {
        let mut places = vec![RetiredContent::None; batch.mails.len()];
        let Some((store, files)) = &mut writer.contents else {
            return places;
        };
        let (mut drafts, mut times, mut of) = (Vec::new(), Vec::new(), Vec::new());
        let (mut lost, mut why) = (0, None);
        for (place, (mail, payload)) in places.iter_mut().zip(&batch.mails) {
            if payload.is_empty() || !self.wants_content(mail) {
                continue;
            }
            match keep_content(core, store, files, mail, payload) {
                Ok(Content::Record(draft)) => {
                    drafts.push(draft);
                    times.push(mail.at);
                    of.push(place);
                }
                Ok(Content::File(file)) => *place = RetiredContent::File(file),
                Err(error) => {
                    lost += 1;
                    why.get_or_insert(error);
                }
            }
        }
        let locations: Vec<Location> = store.append(&drafts, &times).unwrap_or_default();
        lost += drafts.len().saturating_sub(locations.len());
        for (place, location) in of.into_iter().zip(locations) {
            *place = RetiredContent::Record(location);
        }
        self.lose_contents(&mut writer.told_of_contents, lost, why);
        places
    }

    /// Tells a person, once for each time that it begins.
    fn lose_mails(&self, told: &mut bool, lost: usize, some_were_written: bool) {
        let count = u64::try_from(lost).unwrap_or(u64::MAX);
        self.lost.fetch_add(count, Ordering::Relaxed);
        if count > 0 && !*told {
            warn!(
                event = "fault",
                count, "finished mails are not retired; they are gone"
            );
        }
        *told = count > 0 || *told && !some_were_written;
    }

    /// Tells a person, once for each time that it begins.
    fn lose_contents(&self, told: &mut bool, lost: usize, why: Option<String>) {
        let count = u64::try_from(lost).unwrap_or(u64::MAX);
        self.lost_contents.fetch_add(count, Ordering::Relaxed);
        if count > 0 && !*told {
            let error = why.unwrap_or_else(|| NOT_OPEN.to_owned());
            warn!(
                event = "fault",
                count, error, "contents of finished mails are not kept"
            );
        }
        *told = count > 0;
    }

    fn wants_content(&self, mail: &LeavingMail) -> bool {
        match self.much().content {
            KeptContent::All => true,
            KeptContent::Failed => ending_of(&mail.jobs) != Ending::Delivered,
            KeptContent::None => false,
        }
    }
}

enum Content {
    Record(RecordDraft),
    File(ContentRef),
}

/// An error says why it cannot be kept.
fn keep_content(
    core: &Core,
    store: &mut Store,
    files: &mut Files,
    mail: &LeavingMail,
    payload: &Bytes,
) -> Result<Content, String> {
    if let Some(file) = mail.mail.file {
        let adopted = files.adopt(&core.contents, file, mail.at);
        return adopted
            .map(|()| Content::File(file))
            .map_err(|error| error.to_string());
    }
    let content = split_content(payload).map_err(|error| error.to_string())?;
    let draft = content_draft(mail.mail.queue_id, mail.at, content.clone());
    match store.longest() {
        0 => Err(NOT_OPEN.to_owned()),
        longest if draft.payload_len() <= longest => Ok(Content::Record(draft)),
        _ => {
            let written = files.write(&content, mail.at);
            written
                .map(Content::File)
                .map_err(|error| error.to_string())
        }
    }
}
