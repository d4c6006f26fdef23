//! Copies of segments, for backups: what is read of a log that goes on, and how a copy becomes a segment again.
use crate::{
    error::{JournalError, Result, failed},
    format::{SEGMENT_HEADER, SegmentHeader},
    reader::{BLOCK, Reader},
    record::SegmentNumber,
};
use bytes::Bytes;
use std::{
    fs::{File, OpenOptions},
    ops::Range,
    os::unix::fs::FileExt,
    path::Path,
};

impl Reader {
    /// Octets of a segment as they lie on the disk, its header first, cut to where its log ends now. Nothing is checked, so
    /// that damage is copied too; what the disk cannot read is zeros. `Gone` if the segment has been reclaimed: what was
    /// read of it before may not be trusted then, unless the caller kept it from being reclaimed.
    pub fn segment_octets(&self, number: SegmentNumber, range: Range<u32>) -> Result<Bytes> {
        let segment = self.segment(number).ok_or(JournalError::Gone)?;
        let end = range.end.min(segment.end.offset);
        let len = end.saturating_sub(range.start);
        let mut octets = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        let file = self.shared.file(number)?;
        read_what_can_be(&file, &mut octets, range.start.into());
        if self.segment(number).is_none() {
            return Err(JournalError::Gone);
        }
        // The copy of the header may be the one that is readable; we know what both should say.
        let header = segment.header.encode();
        let at = usize::try_from(range.start).unwrap_or(usize::MAX);
        for (octet, wanted) in octets.iter_mut().zip(header.iter().skip(at)) {
            *octet = *wanted;
        }
        Ok(octets.into())
    }
}

fn read_what_can_be(file: &File, octets: &mut [u8], at: u64) {
    if file.read_exact_at(octets, at).is_ok() {
        return;
    }
    let mut at = at;
    for block in octets.chunks_mut(BLOCK) {
        if file.read_exact_at(block, at).is_err() {
            block.fill(0);
        }
        at += BLOCK as u64;
    }
}

/// Makes a segment again of a copy that ends where its log ended: the full length, and the second header. Synced. The copy
/// must begin with a readable header.
pub fn complete_segment(path: &Path) -> Result<()> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map_err(failed("open", path))?;
    let mut bytes = [0; SEGMENT_HEADER as usize];
    file.read_exact_at(&mut bytes, 0)
        .map_err(failed("read", path))?;
    let header = SegmentHeader::decode(&bytes).ok_or_else(|| JournalError::Format {
        folder: path.to_owned(),
        found: "no header of a segment".to_owned(),
    })?;
    let length = file.metadata().map_err(failed("read", path))?.len();
    file.set_len(length.max(header.size.into()))
        .and_then(|()| file.write_all_at(&bytes, header.records_end().into()))
        .and_then(|()| file.sync_all())
        .map_err(failed("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Entropy, Journal, Lsn, Options, RecordDraft, RecordKind};
    use std::{fs, ops::ControlFlow, sync::Arc};

    fn open(folder: &Path) -> Journal {
        let options = Options {
            segment_bytes: 4096,
            prepare_ahead: 0,
            open_files: 2,
            ..Options::default()
        };
        let entropy: Entropy = Arc::new(|bytes| bytes.fill(0x5a));
        Journal::open(folder, options, entropy).unwrap().0
    }

    fn numbers(journal: &Journal) -> Vec<u64> {
        let mut seen = Vec::new();
        let replayed = journal.replay(Lsn(0), |record| {
            seen.push(record.lsn.0);
            ControlFlow::Continue(())
        });
        assert_eq!(replayed.unwrap().damage, []);
        seen
    }

    #[test]
    fn a_copy_of_a_log_that_went_on_is_its_beginning() {
        let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut journal = open(old.path());
        let draft = RecordDraft::new(RecordKind(1), vec![7; 1000]);
        for _ in 0..8 {
            journal.append_group(std::slice::from_ref(&draft)).unwrap();
        }
        let (segments, reader) = (journal.segments(), journal.reader());
        let before = numbers(&journal);
        journal.append_group(&[draft.clone(), draft]).unwrap();

        fs::create_dir(new.path().join("segments")).unwrap();
        fs::copy(old.path().join("FORMAT"), new.path().join("FORMAT")).unwrap();
        for segment in segments {
            let name = format!("segments/{}.seg", segment.number);
            let octets = reader
                .segment_octets(segment.number, 0..segment.bytes_used)
                .unwrap();
            let path = new.path().join(name);
            fs::write(&path, &octets).unwrap();
            complete_segment(&path).unwrap();
        }
        assert_eq!(numbers(&open(new.path())), before);
        assert_eq!(numbers(&journal).len(), before.len() + 2);
    }

    #[test]
    fn what_is_no_segment_is_not_made_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("1.seg");
        fs::write(&path, [0; 500]).unwrap();
        assert!(matches!(
            complete_segment(&path),
            Err(JournalError::Format { .. })
        ));
        assert_eq!(fs::read(&path).unwrap().len(), 500);
    }
}
