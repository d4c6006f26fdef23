//! The header of a mail as it would leave.

use postroad_envelope::Envelope;
use postroad_message::{apply_edits, split};
use postroad_queue::{MailRecord, RetiredMail};
use postroad_queue_client::QueueError;

use crate::{core::Core, retired::KeptBytes};

/// A longer header is cut.
const LONGEST: u64 = 64 << 10;

/// With what agents add and remove; and whether that is not all of it. Blocks.
pub(super) fn of(core: &Core, record: &MailRecord) -> Result<(Vec<u8>, bool), QueueError> {
    let begin = core.content_of(&record.content, LONGEST)?;
    Ok(edited(&begin, record.content.len(), &record.envelope))
}

/// Of a retired mail; nothing where its content is not kept. Blocks.
pub(crate) fn of_retired(core: &Core, mail: &RetiredMail) -> (Vec<u8>, bool) {
    let begin = match core.retired.content(mail) {
        Some(KeptBytes::Record(bytes)) => Some(bytes),
        Some(KeptBytes::File(reader)) => reader.read_range(0..LONGEST).ok(),
        None => None,
    };
    begin.map_or_else(Default::default, |begin| {
        edited(&begin, mail.digest.len, &mail.envelope)
    })
}

fn edited(begin: &[u8], len: u64, envelope: &Envelope) -> (Vec<u8>, bool) {
    let longest = usize::try_from(LONGEST).unwrap_or(usize::MAX);
    let begin = begin.get(..longest).unwrap_or(begin);
    let (header, body) = split(begin);
    let goes_on = body.is_empty() && len > LONGEST;
    let mut header = apply_edits(header, &envelope.header_edits);
    let cut = goes_on || header.len() > longest;
    header.truncate(longest);
    (header, cut)
}
