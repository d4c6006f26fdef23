//! Giving up segments.
use crate::{error::Result, pool::Shelf, reader::Shared, record::SegmentNumber};
use std::sync::Arc;

/// Gives up the segments of a journal, from any thread, while others append and read. Cheap to clone; once the journal is
/// closed it gives up nothing more.
#[derive(Clone, Debug)]
pub struct Reclaimer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) shelf: Arc<Shelf>,
}

impl Reclaimer {
    /// Whether a segment was asked for that could not be had, or had to be left to others
    /// ([`Journal::append_sparing`](crate::Journal::append_sparing)), and there has been none more since: to give up the oldest
    /// helps. Asking lets the disk be tried again.
    pub fn is_short(&self) -> bool {
        self.shelf.is_short()
    }

    /// Gives up the oldest segment and names it; none if only the newest is left, which always stays.
    /// What still lives in it must have been copied forward and committed before.
    pub fn reclaim_oldest(&self) -> Result<Option<SegmentNumber>> {
        let _turn = self.shared.changing()?;
        let oldest = {
            let table = self.shared.table();
            table
                .first_key_value()
                .filter(|_| table.len() > 1)
                .map(|(number, _)| *number)
        };
        let Some(number) = oldest else {
            return Ok(None);
        };
        let path = self.shared.folder.segment(number);
        self.shared.forget(number);
        self.shelf.recycle(&path)?;
        Ok(Some(number))
    }
}
