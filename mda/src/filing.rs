//! One content into several mailboxes, on a blocking thread.

use bytes::Bytes;
use postroad_envelope::{HeaderEdit, RecipientIndex};
use postroad_maildir::{Begin, Delivered, Delivery, DeliveryId, MaildirError, Store, Target};
use postroad_message::{HeaderSplitter, HeaderTooLong, Split, apply_edits};
use tokio::sync::mpsc;

/// Far above what any listener of ours accepts, so that only damaged content exceeds it.
const HEADER_LIMIT: usize = 4 << 20;

/// One recipient's copy.
#[derive(Debug, Clone)]
pub struct Copy {
    pub index: RecipientIndex,
    pub id: DeliveryId,
    pub target: Target,
    /// All edits of this copy, in order.
    pub edits: Vec<HeaderEdit>,
}

/// What arrives on the channel. A channel that closes without `End` lost the content.
#[derive(Debug)]
pub enum Piece {
    Octets(Bytes),
    End,
}

/// Why a copy was not filed.
#[derive(Debug, thiserror::Error)]
pub enum FilingError {
    #[error(transparent)]
    Store(#[from] MaildirError),
    #[error(transparent)]
    Header(#[from] HeaderTooLong),
    /// The queue went away while it sent: nothing happened, and the next attempt starts anew.
    #[error("the content could not be read to its end")]
    ContentLost,
    /// The queue is there and has no such content, or another than it said.
    #[error("the content of the mail is not what the queue says it is")]
    ContentDamaged,
    /// Our own fault.
    #[error("filing ended by a fault of ours: {0}")]
    Fault(String),
}

pub type Filed = (RecipientIndex, Result<Delivered, FilingError>);

/// What all copies have in common.
#[derive(Debug, Clone, Copy)]
pub struct Mail {
    /// When it was received (Unix time).
    pub received_sec: u64,
    /// Its content need not be made of lines.
    pub is_binary: bool,
}

/// Files all copies; blocks. Reads the content once, however many there are, and not at all if none needs it.
pub fn file(
    store: &Store,
    copies: Vec<Copy>,
    mail: &Mail,
    mut content: mpsc::Receiver<Piece>,
) -> Vec<Filed> {
    let mut filing = Filing::default();
    for copy in copies {
        filing.begin(store, copy, mail);
    }
    let mut header = Some(HeaderSplitter::new(HEADER_LIMIT));
    while !filing.open.is_empty() {
        match content.blocking_recv() {
            None => filing.each(|_| Err(FilingError::ContentLost)),
            Some(Piece::Octets(octets)) => filing.write(&mut header, &octets),
            Some(Piece::End) => {
                if let Some(mut splitter) = header.take() {
                    let (header, rest) = splitter.finish();
                    filing.write_header(&header, &rest);
                }
                filing.commit(store);
            }
        }
    }
    filing.done
}

/// All of a copy whose content is at hand.
pub fn write_whole(
    delivery: &mut Delivery,
    copy: &Copy,
    mail: &Mail,
    content: &[u8],
) -> Result<(), FilingError> {
    if mail.is_binary {
        delivery.keep_octets();
    }
    let mut splitter = HeaderSplitter::new(HEADER_LIMIT);
    let (header, rest) = match splitter.push(content)? {
        Split::Complete { header, rest } => (header, rest),
        Split::Incomplete => splitter.finish(),
    };
    write_edited(delivery, copy, &header, &rest)
}

fn write_edited(
    delivery: &mut Delivery,
    copy: &Copy,
    header: &[u8],
    rest: &[u8],
) -> Result<(), FilingError> {
    delivery.write(&apply_edits(header, &copy.edits))?;
    Ok(delivery.write(rest)?)
}

#[derive(Default)]
struct Filing {
    open: Vec<(Copy, Delivery)>,
    done: Vec<Filed>,
}

impl Filing {
    fn begin(&mut self, store: &Store, copy: Copy, mail: &Mail) {
        match store.begin(&copy.target, copy.id.clone(), mail.received_sec) {
            Ok(Begin::Write(mut delivery)) => {
                if mail.is_binary {
                    delivery.keep_octets();
                }
                self.open.push((copy, delivery));
            }
            Ok(Begin::Already(delivered)) => self.done.push((copy.index, Ok(delivered))),
            Err(error) => self.done.push((copy.index, Err(error.into()))),
        }
    }

    fn write(&mut self, header: &mut Option<HeaderSplitter>, octets: &[u8]) {
        let Some(splitter) = header else {
            return self.each(|(_, delivery)| Ok(delivery.write(octets)?));
        };
        match splitter.push(octets) {
            Ok(Split::Incomplete) => {}
            Ok(Split::Complete {
                header: found,
                rest,
            }) => {
                *header = None;
                self.write_header(&found, &rest);
            }
            Err(too_long) => self.each(|_| Err(too_long.into())),
        }
    }

    fn write_header(&mut self, header: &[u8], rest: &[u8]) {
        self.each(|(copy, delivery)| write_edited(delivery, copy, header, rest));
    }

    /// One copy's failure does not concern the others.
    fn each(&mut self, mut step: impl FnMut(&mut (Copy, Delivery)) -> Result<(), FilingError>) {
        for mut open in std::mem::take(&mut self.open) {
            match step(&mut open) {
                Ok(()) => self.open.push(open),
                Err(error) => self.done.push((open.0.index, Err(error))),
            }
        }
    }

    fn commit(&mut self, store: &Store) {
        let open = std::mem::take(&mut self.open);
        let (copies, deliveries): (Vec<Copy>, Vec<Delivery>) = open.into_iter().unzip();
        for (copy, filed) in copies.into_iter().zip(store.commit_all(deliveries)) {
            let filed = filed.map_err(FilingError::from);
            self.done.push((copy.index, filed));
        }
    }
}
