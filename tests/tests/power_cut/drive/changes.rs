//! What a program changed on a disk, and what a power cut may leave of one change.

use std::{collections::BTreeMap, sync::Arc};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

pub(super) type Octets = Arc<Vec<u8>>;
/// A folder and a name in it.
pub(super) type Place = (usize, String);
pub(super) type Names = BTreeMap<Place, Node>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Node {
    File(usize),
    Folder(usize),
}

#[derive(Debug, Clone)]
pub(super) enum Change {
    Write {
        file: usize,
        at: u64,
        octets: Arc<[u8]>,
    },
    Resize {
        file: usize,
        size: u64,
    },
    Add {
        place: Place,
        node: Node,
    },
    Remove {
        place: Place,
        node: Node,
    },
    Rename {
        from: Place,
        to: Place,
        node: Node,
    },
}

impl Change {
    pub fn file(&self) -> Option<usize> {
        match self {
            Self::Write { file, .. } | Self::Resize { file, .. } => Some(*file),
            _ => None,
        }
    }

    pub fn places(&self) -> Vec<&Place> {
        match self {
            Self::Write { .. } | Self::Resize { .. } => Vec::new(),
            Self::Add { place, .. } | Self::Remove { place, .. } => vec![place],
            Self::Rename { from, to, .. } => vec![from, to],
        }
    }

    /// Whether it renames a file that an earlier rename, which was lost, would have had to bring to where this one takes it from.
    pub fn overtakes(&self, names: &Names) -> bool {
        match self {
            Self::Rename { from, node, .. } => {
                names.get(from) != Some(node) && names.values().any(|other| other == node)
            }
            _ => false,
        }
    }

    pub fn rename(&self, names: &mut Names) {
        match self {
            Self::Write { .. } | Self::Resize { .. } => {}
            Self::Add { place, node } => drop(names.insert(place.clone(), *node)),
            Self::Remove { place, node } => {
                if names.get(place) == Some(node) {
                    names.remove(place);
                }
            }
            Self::Rename { from, to, node } => {
                if names.get(from) == Some(node) {
                    names.remove(from);
                }
                names.insert(to.clone(), *node);
            }
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Pending {
    pub stamp: u64,
    pub change: Change,
}

/// What became of a change that was pending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fate {
    Lost,
    Kept,
    /// Of a write only some sectors of this size were written, chosen by a seed. `sized`: the file has the new length.
    Torn {
        sector: usize,
        seed: u64,
        sized: bool,
    },
}

pub(super) fn write(file: &mut Vec<u8>, change: &Change, fate: Fate) {
    match change {
        Change::Resize { size, .. } => {
            file.resize(usize::try_from(*size).unwrap_or(usize::MAX), 0);
        }
        Change::Write { at, octets, .. } => {
            let at = usize::try_from(*at).unwrap_or(usize::MAX);
            match fate {
                Fate::Lost => {}
                Fate::Kept => overwrite(file, at, octets),
                Fate::Torn {
                    sector,
                    seed,
                    sized,
                } => {
                    tear(file, at, octets, (sector, seed));
                    if sized && file.len() < at + octets.len() {
                        file.resize(at + octets.len(), 0);
                    }
                }
            }
        }
        _ => {}
    }
}

fn overwrite(file: &mut Vec<u8>, at: usize, octets: &[u8]) {
    let end = at + octets.len();
    if file.len() < end {
        file.resize(end, 0);
    }
    file[at..end].copy_from_slice(octets);
}

/// Every other seed keeps a beginning only, the others any sectors.
fn tear(file: &mut Vec<u8>, at: usize, octets: &[u8], (sector, seed): (usize, u64)) {
    let mut random = StdRng::seed_from_u64(seed);
    let sectors = (at + octets.len()).div_ceil(sector) - at / sector;
    let kept = random.random_range(0..=sectors);
    let (mut done, mut number) = (0, 0);
    while done < octets.len() {
        let end = octets.len().min(((at + done) / sector + 1) * sector - at);
        let keeps = match seed.is_multiple_of(2) {
            true => number < kept,
            false => random.random_bool(0.5),
        };
        if keeps {
            overwrite(file, at + done, &octets[done..end]);
        }
        (done, number) = (end, number + 1);
    }
}
