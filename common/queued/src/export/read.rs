//! An export, read again.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Read as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use postroad_queue_client::{ContentStream, QueueError};
use tokio::task::spawn_blocking;

use super::{
    Mail,
    form::{MailContent, SCHEMA},
    mbox::Unquoter,
    output::{ENVELOPES, MBOX, SUMMARY, Summary},
};

/// Octets of a line at most: an envelope with more recipients than any mail has.
const LONGEST_LINE: u64 = 64 << 20;
const LONGEST_SUMMARY: u64 = 4 << 20;
/// Octets of an mbox read at one time; twice as many may come of them.
const PIECE: u64 = 32 << 10;

/// Why an export cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// Operator: it is none, or one that was not finished, or of a later release, or cut.
    #[error("{}: {why}", path.display())]
    NoExport {
        /// Which file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// Resource: a file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The files of an export.
#[derive(Debug)]
pub struct Export {
    envelopes: BufReader<File>,
    path: PathBuf,
    mbox: Arc<File>,
    /// How many mails there are.
    pub mails: u64,
    /// Octets of their contents.
    pub octets: u64,
    /// What could not be exported.
    pub problem_count: u64,
}

impl Export {
    /// Looks whether the export in this folder is whole.
    pub fn open(folder: &Path) -> Result<Self, ExportError> {
        let path = folder.join(SUMMARY);
        let none = |why: &str| ExportError::NoExport {
            path: path.clone(),
            why: why.to_owned(),
        };
        let file = File::open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                none("it is not there: this is no export, or one that was not finished")
            }
            _ => failed(&path)(error),
        })?;
        let mut text = Vec::new();
        let mut summary = file.take(LONGEST_SUMMARY);
        summary.read_to_end(&mut text).map_err(failed(&path))?;
        let summary: Summary =
            serde_json::from_slice(&text).map_err(|error| none(&error.to_string()))?;
        if summary.schema != SCHEMA {
            return Err(none("a later release made it: import it with that one"));
        }
        let mbox = whole(folder, MBOX, summary.mbox)?;
        Ok(Self {
            envelopes: BufReader::new(whole(folder, ENVELOPES, summary.envelopes)?),
            path: folder.join(ENVELOPES),
            mbox: Arc::new(mbox),
            mails: summary.mails,
            octets: summary.octets,
            problem_count: summary.problem_count,
        })
    }

    /// The next mail; none: that was the last one. An error of the inner kind tells of one that cannot be read.
    pub fn next_mail(&mut self) -> Result<Option<Result<Mail, String>>, ExportError> {
        let mut line = Vec::new();
        let mut bounded = (&mut self.envelopes).take(LONGEST_LINE);
        let read = bounded.read_until(b'\n', &mut line);
        if read.map_err(failed(&self.path))? == 0 {
            return Ok(None);
        }
        if line.last() != Some(&b'\n') {
            return Err(ExportError::NoExport {
                path: self.path.clone(),
                why: "a line is not whole".to_owned(),
            });
        }
        let mail = serde_json::from_slice(&line);
        Ok(Some(mail.map_err(|error| error.to_string())))
    }

    /// The content of a mail as it was received.
    pub fn content(&self, mail: &Mail) -> ContentStream {
        let &MailContent {
            offset,
            length,
            lines,
            ..
        } = &mail.content;
        let state = Content {
            mbox: Arc::clone(&self.mbox),
            at: offset,
            end: offset.saturating_add(length),
            unquoter: Some(Unquoter::new(lines)),
        };
        let pieces = stream::unfold(state, |mut state| async move {
            let read = spawn_blocking(move || {
                let piece = state.next();
                (piece, state)
            });
            match read.await {
                Ok((Ok(piece), state)) => piece.map(|piece| (Ok(piece), state)),
                Ok((Err(error), state)) => {
                    let error = QueueError::Invalid(format!("the mbox cannot be read: {error}"));
                    Some((Err(error), state.ended()))
                }
                Err(_) => None,
            }
        });
        pieces.boxed()
    }
}

struct Content {
    mbox: Arc<File>,
    at: u64,
    end: u64,
    unquoter: Option<Unquoter>,
}

impl Content {
    /// None: that was all.
    fn next(&mut self) -> io::Result<Option<Bytes>> {
        let mut out = Vec::new();
        while out.is_empty() {
            let len = self.end.saturating_sub(self.at).min(PIECE);
            let Some(unquoter) = &mut self.unquoter else {
                return Ok(None);
            };
            if len == 0 {
                let whole = self.unquoter.take();
                whole.into_iter().for_each(|whole| whole.finish(&mut out));
                return Ok((!out.is_empty()).then(|| out.into()));
            }
            let mut octets = vec![0; usize::try_from(len).unwrap_or_default()];
            self.mbox.read_exact_at(&mut octets, self.at)?;
            unquoter.push(&octets, &mut out);
            self.at += len;
        }
        Ok(Some(out.into()))
    }

    fn ended(mut self) -> Self {
        self.unquoter = None;
        self
    }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> ExportError {
    let path = path.to_owned();
    move |source| ExportError::Io { path, source }
}

/// A file of this length.
fn whole(folder: &Path, name: &str, len: u64) -> Result<File, ExportError> {
    let path = folder.join(name);
    let file = File::open(&path).map_err(failed(&path))?;
    let found = file.metadata().map_err(failed(&path))?.len();
    if found == len {
        return Ok(file);
    }
    Err(ExportError::NoExport {
        path,
        why: format!("it has {found} octets, and there should be {len}"),
    })
}
