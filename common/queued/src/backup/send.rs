//! The sending side: what a backup is made of, and its way to the caller.

use std::{
    collections::HashSet,
    fs::File,
    io,
    os::unix::fs::FileExt,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use postroad_journal::{ContentNonce, JournalError, Lsn, Reader, SegmentNumber};
use postroad_queue_client::{BackupPiece, BackupStream, QueueError};
use tokio::{
    sync::{mpsc, oneshot},
    task::spawn_blocking,
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tracing::{error, info, warn};

use super::{
    manifest::{ListedFile, MANIFEST, Manifest},
    pins::Pin,
};
use crate::{
    clock,
    core::{Core, to_client_error},
};

const PIECE: u32 = 64 << 10;
/// Pieces on their way.
const PIECES: usize = 16;
/// Problems that are told one by one.
const MOST_PROBLEMS: usize = 100;

/// A file of the backup.
struct Source {
    path: String,
    len: u64,
    what: What,
}

#[derive(Clone)]
enum What {
    Octets(Bytes),
    Segment {
        reader: Reader,
        number: SegmentNumber,
    },
    /// With the checksum that its mail says, if that is known.
    Content {
        nonce: ContentNonce,
        crc: Option<u32>,
    },
}

/// All that is to be sent, and what is said of it.
struct Plan {
    sources: Vec<Source>,
    manifest: Manifest,
}

/// Begins a backup. Everything it needs stays until it is sent, or until the caller does not take it.
pub(crate) async fn send(core: Arc<Core>) -> Result<BackupStream, QueueError> {
    let Some(pin) = core.pins.begin().await else {
        return Err(QueueError::Conflict(
            "another backup is running, or a purge; one at a time".to_owned(),
        ));
    };
    let (pieces, taken) = mpsc::channel(PIECES);
    let (ended, end) = oneshot::channel();
    let tasks = core.tasks.clone();
    tasks.spawn(async move {
        let begun = Instant::now();
        let outcome = run(&core, &pin, &pieces).await;
        drop(pin);
        match &outcome {
            Ok(manifest) => info!(
                event = "admin",
                verb = "backup",
                count = manifest.mails,
                size = manifest.octets(),
                duration_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
                "a backup was made"
            ),
            Err(why) => warn!(event = "fault", error = %why, "a backup was not finished"),
        }
        let _ = ended.send(outcome.map(drop));
    });
    let end = stream::once(end).filter_map(|ended| async {
        let failed = ended.unwrap_or_else(|_| Err(stopping())).err();
        failed.map(Err)
    });
    Ok(ReceiverStream::new(taken).map(Ok).chain(end).boxed())
}

async fn run(
    core: &Arc<Core>,
    pin: &Pin,
    pieces: &mpsc::Sender<BackupPiece>,
) -> Result<Manifest, QueueError> {
    let Plan {
        sources,
        mut manifest,
    } = plan(core, pin).await?;
    let sender = Sender {
        core,
        pieces,
        total: sources.iter().map(|source| source.len).sum(),
        begun: Instant::now(),
        was_short: core.admission.borrow().is_some(),
    };
    for source in sources {
        if let Some(sent) = sender.file(&source, &mut manifest.problems).await? {
            manifest.files.push(sent);
        }
        match source.what {
            What::Segment { number, .. } if source.path.starts_with("segments/") => {
                pin.segments_from(Some(SegmentNumber(number.0.saturating_add(1))));
            }
            What::Content { nonce, .. } => pin.read(nonce),
            _ => {}
        }
    }
    let text = Source {
        path: MANIFEST.to_owned(),
        len: 0,
        what: What::Octets(manifest.to_text().into()),
    };
    sender.file(&text, &mut Vec::new()).await?;
    Ok(manifest)
}

/// Where the log ends now, and which files the mails up to there name.
async fn plan(core: &Arc<Core>, pin: &Pin) -> Result<Plan, QueueError> {
    let made_at = clock::now();
    let reader = core.reader.clone();
    // Between two groups: all that is there is whole, durable, and known to the index.
    let segments = core
        .committer
        .commit(move |_, _| Ok((None, reader.segments())))
        .await
        .map_err(to_client_error)?
        .value;
    let last = segments.last().map_or(Lsn(0), |segment| segment.last_lsn);
    let looking = Arc::clone(core);
    let (mails, mut contents) = blocking(move || living(&looking, last)).await??;
    // Mails that have ended since the log was measured lived in it.
    let ended = core.pins.allow(core.trash.take());
    debug_assert!(ended.is_empty(), "all is pinned");
    contents.extend(pin.waiting().into_iter().map(|nonce| (nonce, 0, None)));
    pin.choose(contents.iter().map(|(nonce, ..)| *nonce).collect());

    let mut sources = vec![octets_of(core, "FORMAT").await?];
    sources.extend(segments.iter().map(|segment| Source {
        path: format!("segments/{}.seg", segment.number),
        len: segment.bytes_used.into(),
        what: What::Segment {
            reader: core.reader.clone(),
            number: segment.number,
        },
    }));
    sources.extend(contents.into_iter().map(|(nonce, len, crc)| Source {
        path: format!("content/{nonce}"),
        len,
        what: What::Content { nonce, crc },
    }));
    sources.extend(timeline(core).await);
    let manifest = Manifest {
        made_at,
        last_record: last,
        mails,
        problems: Vec::new(),
        files: Vec::new(),
    };
    Ok(Plan { sources, manifest })
}

type Living = (u64, Vec<(ContentNonce, u64, Option<u32>)>);

/// How many mails live of those in the log up to a record, and the content files of all. Blocks.
fn living(core: &Core, last: Lsn) -> Result<Living, QueueError> {
    let (mut count, mut files, mut seen) = (0, Vec::new(), HashSet::new());
    for mail in core.queue.places() {
        let mail = mail.map_err(|error| to_client_error(error.into()))?;
        // Nothing is copied forward while all segments are pinned: what lies behind came later.
        if mail.location.lsn > last {
            continue;
        }
        count += 1;
        if let Some(file) = mail.file.filter(|file| seen.insert(file.nonce)) {
            files.push((file.nonce, file.len, Some(file.crc)));
        }
    }
    Ok((count, files))
}

async fn octets_of(core: &Arc<Core>, path: &str) -> Result<Source, QueueError> {
    let full = core.folder.join(path);
    let read = blocking(move || std::fs::read(full)).await?;
    let octets = Bytes::from(read.map_err(|error| unreadable(path, &error))?);
    Ok(Source {
        path: path.to_owned(),
        len: u64::try_from(octets.len()).unwrap_or(u64::MAX),
        what: What::Octets(octets),
    })
}

/// What happened to the mails, as far as it can be had: nothing of it is pinned.
async fn timeline(core: &Arc<Core>) -> Vec<Source> {
    let flushed = Arc::clone(core);
    // What was told of the mails before belongs to them. Only a panic there could fail, and the log has that.
    let _ = blocking(move || flushed.timeline.flush()).await;
    let Some(reader) = core.timeline.reader() else {
        return Vec::new();
    };
    let Ok(format) = octets_of(core, "timeline/FORMAT").await else {
        return Vec::new();
    };
    let segments = reader.segments().into_iter().map(|segment| Source {
        path: format!("timeline/segments/{}.seg", segment.number),
        len: segment.bytes_used.into(),
        what: What::Segment {
            reader: reader.clone(),
            number: segment.number,
        },
    });
    std::iter::once(format).chain(segments).collect()
}

struct Sender<'a> {
    core: &'a Arc<Core>,
    pieces: &'a mpsc::Sender<BackupPiece>,
    total: u64,
    begun: Instant,
    was_short: bool,
}

impl Sender<'_> {
    /// None: it is not there any more; what the caller has got of it does not count.
    async fn file(
        &self,
        source: &Source,
        problems: &mut Vec<String>,
    ) -> Result<Option<ListedFile>, QueueError> {
        let mut problem = |path: &str, why: &str| {
            if problems.len() < MOST_PROBLEMS {
                problems.push(format!("{path} {why}"));
            }
        };
        let opened = self.open(source).await?;
        let Some((open, len)) = opened else {
            error!(event = "corruption", path = %source.path, "a content file is missing");
            problem(&source.path, "is missing");
            return Ok(None);
        };
        let (mut at, mut crc) = (0, 0);
        loop {
            let reading = open.clone();
            let piece = match blocking(move || reading.read(at, len)).await? {
                Ok(piece) => piece,
                // Of the timeline; the oldest segments go when their time has come.
                Err(JournalError::Gone) => return Ok(None),
                Err(failed) => return Err(unreadable(&source.path, &failed)),
            };
            crc = crc32c::crc32c_append(crc, &piece);
            at += u64::try_from(piece.len()).unwrap_or(u64::MAX);
            let is_last = piece.is_empty() || at >= len;
            self.piece(&source.path, piece).await?;
            if is_last {
                break;
            }
        }
        if let What::Content {
            crc: Some(wanted), ..
        } = source.what
            && (crc != wanted || at != source.len)
        {
            error!(event = "corruption", path = %source.path, "a content file is not what its mail says");
            problem(&source.path, "is not what its mail says");
        }
        Ok(Some(ListedFile {
            path: source.path.clone(),
            len: at,
            crc,
        }))
    }

    async fn open(&self, source: &Source) -> Result<Option<(Open, u64)>, QueueError> {
        let nonce = match &source.what {
            What::Octets(octets) => {
                let len = u64::try_from(octets.len()).unwrap_or(u64::MAX);
                return Ok(Some((Open::Octets(octets.clone()), len)));
            }
            What::Segment { reader, number } => {
                let open = Open::Segment(reader.clone(), *number);
                return Ok(Some((open, source.len)));
            }
            What::Content { nonce, .. } => *nonce,
        };
        let folder = self.core.folder.clone();
        let opened = blocking(move || {
            // The content of a mail that has ended meanwhile may have moved on.
            let places = ["content", "retired/content"];
            let files = places
                .iter()
                .map(|place| File::open(folder.join(place).join(nonce.to_string())));
            let file = files.into_iter().find(
                |file| !matches!(file, Err(error) if error.kind() == io::ErrorKind::NotFound),
            );
            let Some(file) = file.transpose()? else {
                return Ok(None);
            };
            let len = file.metadata()?.len();
            Ok(Some((Open::File(Arc::new(file)), len)))
        });
        opened
            .await?
            .map_err(|error: io::Error| unreadable(&source.path, &error))
    }

    async fn piece(&self, path: &str, octets: Bytes) -> Result<(), QueueError> {
        let patience: Duration = self.core.config().backup.patience.into();
        let room = tokio::select! {
            room = timeout(patience, self.pieces.reserve()) => room,
            () = self.core.stopping.cancelled() => return Err(stopping()),
        };
        let Ok(room) = room else {
            return Err(QueueError::Conflict(format!(
                "the backup was given up: nothing was taken for {} s (queued.backup.patience), and what it needs must \
                 not stay for ever",
                patience.as_secs()
            )));
        };
        let room = room.map_err(|_| QueueError::Conflict("its caller has gone away".to_owned()))?;
        if self.begun.elapsed() > Duration::from(self.core.config().backup.longest) {
            return Err(QueueError::Conflict(
                "the backup was given up: it took longer than queued.backup.longest".to_owned(),
            ));
        }
        if !self.was_short && self.core.admission.borrow().is_some() {
            return Err(QueueError::Full(
                "the backup was given up: the disk fell below its reserve while it ran".to_owned(),
            ));
        }
        room.send(BackupPiece {
            path: path.to_owned(),
            octets,
            total: self.total,
        });
        Ok(())
    }
}

#[derive(Clone)]
enum Open {
    Octets(Bytes),
    Segment(Reader, SegmentNumber),
    File(Arc<File>),
}

impl Open {
    /// Blocks.
    fn read(&self, at: u64, len: u64) -> Result<Bytes, JournalError> {
        let end = len.min(at.saturating_add(PIECE.into()));
        let cut = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
        match self {
            Self::Octets(octets) => Ok(octets.slice(cut(at)..cut(end))),
            Self::Segment(reader, number) => {
                let cut = |at: u64| u32::try_from(at).unwrap_or(u32::MAX);
                reader.segment_octets(*number, cut(at)..cut(end))
            }
            Self::File(file) => {
                let mut octets = vec![0; cut(end - at)];
                file.read_exact_at(&mut octets, at)
                    .map_err(|source| JournalError::Io {
                        doing: "read",
                        path: "content".into(),
                        source,
                    })?;
                Ok(octets.into())
            }
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, QueueError> {
    spawn_blocking(work)
        .await
        .map_err(|error| QueueError::Unavailable(error.to_string()))
}

fn unreadable(path: &str, error: &dyn std::error::Error) -> QueueError {
    error!(event = "fault", path, error = %error, "a file cannot be read for a backup");
    QueueError::Unavailable(format!("{path} cannot be read: {error}"))
}

fn stopping() -> QueueError {
    QueueError::Unavailable("the queue is stopping".to_owned())
}
