//! Retired mails that are to be forgotten for good.

use std::{collections::HashSet, ops::ControlFlow, sync::Arc};

use postroad_envelope::{Filter, QueueId};
use postroad_journal::{ContentNonce, JournalError};
use postroad_queue::RetiredContent;

use super::{
    Retired,
    log::Log,
    view::{matches, summary},
};

/// What is to be forgotten.
#[derive(Debug, Default)]
pub(crate) struct Chosen {
    pub ids: HashSet<QueueId>,
    files: HashSet<ContentNonce>,
}

impl Retired {
    /// The mails that fit a folded filter, also those that are too old to be shown. Blocks.
    pub fn choose(&self, filter: &Filter) -> Chosen {
        let mut chosen = Chosen::default();
        let Some(kept) = &self.kept else {
            return chosen;
        };
        for segment in kept.mails.segments() {
            kept.mails.each(segment.number, |seen, id, _| {
                let mail = kept.decode(seen.payload, segment.number);
                let mail = mail.filter(|mail| matches(filter, mail, &summary(self, mail)));
                if let Some(mail) = mail {
                    chosen.ids.insert(id);
                    if let RetiredContent::File(file) = mail.content {
                        chosen.files.insert(file.nonce);
                    }
                }
                ControlFlow::Continue(())
            });
        }
        chosen
    }

    /// A purge begins, or has ended; false: the segments cannot be written now. Blocks.
    pub fn clean(&self, begins: bool) -> bool {
        let Some(kept) = &self.kept else {
            return true;
        };
        let mut writer = kept.writer();
        let contents = writer.contents.as_mut();
        let contents = contents.is_none_or(|(store, _)| store.clean(begins));
        writer.mails.clean(begins) && contents
    }

    /// Removes the content files of what was chosen. Durable when this returns. Blocks.
    pub fn remove_files(&self, chosen: &Chosen) -> Result<(), JournalError> {
        let Some(kept) = &self.kept else {
            return Ok(());
        };
        match &mut kept.writer().contents {
            Some((_, files)) => files.remove(&chosen.files),
            None => Ok(()),
        }
    }

    /// The segments of contents, and those of mails.
    pub fn logs(&self) -> (Option<Arc<Log>>, Option<Arc<Log>>) {
        let kept = self.kept.as_ref();
        (
            kept.and_then(|kept| kept.contents.clone()),
            kept.map(|kept| Arc::clone(&kept.mails)),
        )
    }
}
