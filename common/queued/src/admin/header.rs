//! The header of a mail as it would leave.

use postroad_message::{apply_edits, split};
use postroad_queue::MailPlace;
use postroad_queue_client::QueueError;

use crate::core::Core;

/// A longer header is cut.
const LONGEST: usize = 64 << 10;

/// With what agents add and remove; and whether that is not all of it. Blocks.
pub(super) fn of(core: &Core, mail: &MailPlace) -> Result<(Vec<u8>, bool), QueueError> {
    let record = core.record_of(mail)?;
    let limit = u64::try_from(LONGEST).unwrap_or(u64::MAX);
    let begin = core.content_of(&record.content, limit)?;
    let (header, body) = split(&begin);
    let goes_on = body.is_empty() && record.content.len() > limit;
    let mut header = apply_edits(header, &record.envelope.header_edits);
    let cut = goes_on || header.len() > LONGEST;
    header.truncate(LONGEST);
    Ok((header, cut))
}
