//! Finished mails on their way out: what it takes to retire them stays until that is done.

use postroad_envelope::{QueueId, Timestamp};
use postroad_journal::{ContentRef, Lsn};
use prost::Message;

use super::{Index, MailPlace, Tree, Trees, keys, location_to_wire, mail_place};
use crate::{
    QueueError,
    error::unreadable,
    record::{EncodedState, Finished, digest_to_wire, file_to_wire, wire},
};

const NO_ID: [u8; 16] = [0; 16];

/// A finished mail that is not retired yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeavingMail {
    /// Where its record lies.
    pub mail: MailPlace,
    /// When it finished.
    pub at: Timestamp,
    /// The last state of each of its jobs.
    pub jobs: Vec<EncodedState>,
}

impl Index {
    /// Tells whether the mail waits to be retired. One that is not known any more was retired before: a replay met its end
    /// once more.
    pub(super) fn put_leaving(
        &self,
        finished: &Finished,
        lsn: Lsn,
        mail: Option<&MailPlace>,
    ) -> Result<bool, QueueError> {
        let Some(mail) = mail else {
            return self.is_leaving(finished.queue_id);
        };
        let leaving = wire::Leaving {
            mail: Some(wire::MailEntry {
                location: Some(location_to_wire(mail.location)),
                sender: mail.sender.clone(),
                received_at: mail.received_at.as_millis(),
                digest: Some(digest_to_wire(mail.digest)),
                file: mail.file.map(file_to_wire),
                recipients: mail.recipients,
                ..wire::MailEntry::default()
            }),
            at: finished.at.as_millis(),
            lsn: lsn.0,
        };
        let key = finished.queue_id.to_bytes();
        self.trees.leaving.insert(key, leaving.encode_to_vec())?;
        Ok(true)
    }

    pub(super) fn is_leaving(&self, id: QueueId) -> Result<bool, QueueError> {
        Ok(self.trees.leaving.contains_key(id.to_bytes())?)
    }

    /// At most `limit`, by ascending id behind `after`. One whose end is being applied at this moment is left to the next
    /// time.
    pub fn leaving(
        &self,
        after: Option<QueueId>,
        limit: usize,
    ) -> Result<Vec<LeavingMail>, QueueError> {
        let mut found = Vec::new();
        for item in self.entries(after) {
            let (mail, at, _) = item?;
            if self.trees.mail.contains_key(mail.queue_id.to_bytes())? {
                continue;
            }
            let jobs = self.encoded_jobs(mail.queue_id)?;
            found.push(LeavingMail { mail, at, jobs });
            if found.len() >= limit {
                break;
            }
        }
        Ok(found)
    }

    /// Content files of finished mails that are not retired yet.
    pub fn leaving_files(&self) -> impl Iterator<Item = Result<ContentRef, QueueError>> + '_ {
        let entries = self.entries(None);
        entries.filter_map(|entry| entry.map(|(mail, ..)| mail.file).transpose())
    }

    /// A mail that is retired, or that nobody wants to be.
    pub fn forget_leaving(&self, id: QueueId) -> Result<(), QueueError> {
        let Trees {
            mail, job, leaving, ..
        } = &*self.trees;
        // In this order: half of it done is done again.
        let trees = match mail.contains_key(id.to_bytes())? {
            true => &[leaving][..],
            false => &[job, leaving],
        };
        Ok(Tree::forget(trees, id)?)
    }

    /// In a replay: its record came again, so its end will.
    pub fn lives_again(&self, id: QueueId) -> Result<(), QueueError> {
        self.trees.leaving.remove(id.to_bytes())?;
        Ok(())
    }

    /// In a replay: whatever finished before this number was retired.
    pub fn forget_left_before(&self, lsn: Lsn) -> Result<(), QueueError> {
        for entry in self.entries(None) {
            let (mail, _, ended) = entry?;
            if ended < lsn {
                self.forget_leaving(mail.queue_id)?;
            }
        }
        Ok(())
    }

    fn entries(
        &self,
        after: Option<QueueId>,
    ) -> impl Iterator<Item = Result<(MailPlace, Timestamp, Lsn), QueueError>> + use<> {
        let first = after.map_or(NO_ID, QueueId::to_bytes);
        let range = self.trees.leaving.range(first..);
        let read = range.map(|item| {
            let (key, value) = item?;
            let id = keys::parse_id(&key).ok_or_else(|| unreadable("leaving key", "length"))?;
            let entry =
                wire::Leaving::decode(&*value).map_err(|e| unreadable("leaving mail", e))?;
            let mail = entry.mail.unwrap_or_default().encode_to_vec();
            let at = Timestamp::from_millis(entry.at);
            Ok((mail_place(id, &mail)?, at, Lsn(entry.lsn)))
        });
        read.filter(move |entry: &Result<(MailPlace, _, _), _>| {
            entry
                .as_ref()
                .map_or(true, |(mail, ..)| Some(mail.queue_id) != after)
        })
    }
}
