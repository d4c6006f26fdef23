//! Keeping damaged bytes where a person can look at them.
use crate::{
    folder::sync_folder,
    record::{Damage, SegmentNumber},
    walk::Gap,
};
use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
    time::SystemTime,
};

/// Copies a gap's bytes and writes a report beside them, once; `segment_bytes` is the segment from its start.
pub(crate) fn keep(
    folder: &Path,
    segment: SegmentNumber,
    gap: &Gap,
    segment_bytes: &[u8],
) -> Damage {
    let name = format!("segment-{segment}-{}-{}", gap.bytes.start, gap.bytes.end);
    let (copy, report) = (
        folder.join(format!("{name}.bin")),
        folder.join(format!("{name}.txt")),
    );
    let mut damage = Damage {
        // The report is written last, so it stands for the whole.
        fresh: !report.exists(),
        ..seen(segment, gap)
    };
    let range = gap.bytes.start as usize..(gap.bytes.end as usize).min(segment_bytes.len());
    let bytes = segment_bytes.get(range).unwrap_or_default();
    let outcome = if damage.fresh {
        write(&copy, bytes)
            .and_then(|()| write(&report, describe(&damage).as_bytes()))
            .and_then(|()| sync_folder(folder).map_err(io::Error::other))
    } else {
        Ok(())
    };
    damage.copy = outcome.ok().map(|()| copy);
    damage
}

/// A gap of which nothing is kept.
pub(crate) fn seen(segment: SegmentNumber, gap: &Gap) -> Damage {
    Damage {
        segment,
        start: gap.bytes.start,
        end: gap.bytes.end,
        lsn_before: gap.before,
        lsn_after: gap.after,
        copy: None,
        fresh: true,
    }
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let draft = path.with_extension("tmp");
    let mut file = File::create(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&draft, path)
}

fn describe(damage: &Damage) -> String {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let after = damage
        .lsn_after
        .map_or_else(|| "none in this segment".to_owned(), |lsn| lsn.to_string());
    format!(
        "Records that had been committed cannot be read any more.\n\
         segment        {}\nfirst byte     {}\nbyte after     {}\n\
         record before  {}\nrecord after   {after}\nfound at       {now} (seconds since 1970, UTC)\n\
         The bytes are in the file of the same name ending in .bin.\n",
        damage.segment, damage.start, damage.end, damage.lsn_before,
    )
}
