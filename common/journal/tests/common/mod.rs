//! What the tests share.
#![allow(dead_code)] // each test file uses its part

use postroad_journal::{Damage, Entropy, Journal, Lsn, Options, Recovery, SegmentNumber};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

pub fn small() -> Options {
    Options {
        segment_bytes: 4096,
        prepare_ahead: 2,
        open_files: 3,
        ..Options::default()
    }
}

pub fn entropy(seed: u64) -> Entropy {
    let random = Mutex::new(StdRng::seed_from_u64(seed));
    Arc::new(move |bytes| random.lock().unwrap().fill(bytes))
}

pub fn open(folder: &Path, options: Options) -> (Journal, Recovery) {
    // Seeds differ from one opening to the next, as real salts would.
    static OPENED: AtomicU64 = AtomicU64::new(0);
    Journal::open(
        folder,
        options,
        entropy(OPENED.fetch_add(1, Ordering::Relaxed)),
    )
    .unwrap()
}

pub fn payload(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    StdRng::seed_from_u64(seed).fill(&mut bytes[..]);
    bytes
}

/// All payloads that can be read, and the damage met on the way.
pub fn all(journal: &Journal) -> (Vec<Vec<u8>>, Vec<Damage>) {
    let mut payloads = Vec::new();
    let replay = journal
        .replay(Lsn(0), |record| {
            payloads.push(record.payload.to_vec());
            ControlFlow::Continue(())
        })
        .unwrap();
    (payloads, replay.damage)
}

pub fn segment_path(folder: &Path, number: SegmentNumber) -> PathBuf {
    folder.join("segments").join(format!("{number}.seg"))
}
