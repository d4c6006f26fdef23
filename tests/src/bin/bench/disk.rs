//! The disk: what kind it is, and what it gives a plain writer that syncs each write.

use std::{
    env, fs,
    fs::File,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use serde_json::{Map, Value, json};

use crate::figures::{Figure, table};

/// Written before anything is measured, and then again and again.
const FILE: u64 = 256 << 20;

#[derive(Args)]
pub struct Options {
    /// Octets of a write, each followed by fdatasync.
    #[arg(long, value_delimiter = ',', default_values_t = [5_120, 102_400, 5_242_880])]
    size: Vec<u64>,
    /// Rounds of each size, in turn.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of a round.
    #[arg(long, default_value_t = 1)]
    seconds: u64,
    /// Print the figures as JSON too.
    #[arg(long)]
    pub json: bool,
}

pub fn run(options: &Options) -> Result<Value> {
    ensure!(
        options.size.iter().all(|size| (1..=FILE).contains(size)),
        "a write is of 1 to {FILE} octets"
    );
    let folder = tempfile::Builder::new().prefix("postroad-").tempdir()?;
    let file = File::create_new(folder.path().join("written"))?;
    let block = vec![b'x'; 1 << 20];
    for at in (0..FILE).step_by(block.len()) {
        file.write_all_at(&block, at)?;
    }
    file.sync_all()?;
    let mut rates = vec![Vec::new(); options.size.len()];
    for _ in 0..options.rounds {
        for (size, rates) in options.size.iter().zip(&mut rates) {
            rates.push(rate(&file, *size, Duration::from_secs(options.seconds))?);
        }
    }
    let mut lines = vec![
        ["octets", "written and synced/s", "MB/s"]
            .map(str::to_owned)
            .into(),
    ];
    let mut result = Map::new();
    for (size, rates) in options.size.iter().zip(rates) {
        let rate = Figure::of(rates).context("nothing was measured")?;
        let megabytes = rate.median * *size as f64 / 1e6;
        lines.push(vec![
            size.to_string(),
            rate.to_string(),
            format!("{megabytes:.0}"),
        ]);
        result.insert(size.to_string(), rate.json());
    }
    print!("{}", table(&lines));
    Ok(json!({ "bench": "disk", "rates": result }))
}

/// Writes a second, one after the other over what is there already: no block is allocated, so the sync is of data alone.
fn rate(file: &File, size: u64, time: Duration) -> Result<f64> {
    let block = vec![b'y'; usize::try_from(size)?];
    let places = FILE / size;
    let (mut written, began) = (0_u64, Instant::now());
    while began.elapsed() < time {
        file.write_all_at(&block, written % places * size)?;
        file.sync_data()?;
        written += 1;
    }
    Ok(written as f64 / began.elapsed().as_secs_f64())
}

/// The file system that everything measured lies on.
pub struct FileSystem {
    kind: String,
    /// Only ext4 may have none.
    has_journal: bool,
}

impl FileSystem {
    /// Of the folder for temporary files.
    pub fn look() -> Result<Self> {
        let device = fs::metadata(env::temp_dir())?.dev();
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        // The last one lies over the others.
        let found = mounts.lines().rev().find_map(|line| {
            let mut words = line.split(' ');
            let (source, place, kind) = (words.next()?, words.next()?, words.next()?);
            (fs::metadata(place).ok()?.dev() == device).then_some((source, kind))
        });
        let (source, kind) = found.context("the folder for temporary files is on no mount")?;
        let name = Path::new(source).file_name().unwrap_or_default();
        let journal = format!("{}-", name.to_string_lossy());
        let journals = fs::read_dir("/proc/fs/jbd2").into_iter().flatten();
        let has_journal = kind != "ext4"
            || journals
                .flatten()
                .any(|entry| entry.file_name().to_string_lossy().starts_with(&journal));
        Ok(Self {
            kind: kind.to_owned(),
            has_journal,
        })
    }

    /// Tells of what makes figures unlike those of other machines.
    pub fn warn(&self) {
        if !self.has_journal {
            eprintln!(
                "bench: this ext4 has no journal, so it takes no inode anew for minutes after its file was removed, and passes over \
                 each of them for each new file: what makes and removes many files gets ever slower here"
            );
        }
    }
}

impl std::fmt::Display for FileSystem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let journal = if self.has_journal {
            ""
        } else {
            " without a journal"
        };
        write!(f, "{}{journal}", self.kind)
    }
}
