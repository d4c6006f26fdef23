//! The words of a backup.

use bytes::Bytes;
use futures::stream::BoxStream;
use postroad_proto::queue::v1;

use crate::QueueError;

/// Octets of one file of a backup. Files come one after the other, each in order; the last one is the manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupPiece {
    /// Which file, below the folder of the backup.
    pub path: String,
    /// At most 64 KiB; none in the only piece of an empty file.
    pub octets: Bytes,
    /// Of the whole backup, as far as known.
    pub total: u64,
}

/// Ends after the manifest; an end without it means that the backup is not whole.
pub type BackupStream = BoxStream<'static, Result<BackupPiece, QueueError>>;

impl From<BackupPiece> for v1::BackupChunk {
    fn from(piece: BackupPiece) -> Self {
        Self {
            path: piece.path,
            chunk: piece.octets,
            total_bytes: piece.total,
        }
    }
}

impl From<v1::BackupChunk> for BackupPiece {
    fn from(chunk: v1::BackupChunk) -> Self {
        Self {
            path: chunk.path,
            octets: chunk.chunk,
            total: chunk.total_bytes,
        }
    }
}
