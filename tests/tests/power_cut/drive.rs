//! A disk as it may be found after a power cut, following what was recorded.
//!
//! Durable is what a sync has made so: the octets and the length of a file by a sync of the file, a name (new, changed or
//! gone) by a sync of its folder. All else is pending: each change may have reached the disk or not, whatever became of the
//! others, and of a write any sectors. A rename is one change, and durable once either folder is synced.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::{self, File},
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result, bail};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::recording::Entry;

type Octets = Arc<Vec<u8>>;
/// A folder and a name in it.
type Place = (usize, String);
type Names = BTreeMap<Place, Node>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    File(usize),
    Folder(usize),
}

#[derive(Debug, Clone)]
enum Change {
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
    fn file(&self) -> Option<usize> {
        match self {
            Self::Write { file, .. } | Self::Resize { file, .. } => Some(*file),
            _ => None,
        }
    }

    fn places(&self) -> Vec<&Place> {
        match self {
            Self::Write { .. } | Self::Resize { .. } => Vec::new(),
            Self::Add { place, .. } | Self::Remove { place, .. } => vec![place],
            Self::Rename { from, to, .. } => vec![from, to],
        }
    }

    fn rename(&self, names: &mut Names) {
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
struct Pending {
    stamp: u64,
    change: Change,
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

/// The state after some entries.
#[derive(Clone)]
pub struct Drive {
    files: Vec<Octets>,
    folders: usize,
    /// What a power cut leaves at least.
    durable: Names,
    /// What processes see.
    current: Names,
    inodes: HashMap<u64, usize>,
    pending: Vec<Pending>,
    /// Stands for all changes that are durable.
    stamp: u64,
    /// How many changes there were.
    changes: u64,
}

/// Files and folders to be written out.
pub struct Image {
    folders: Vec<PathBuf>,
    files: Vec<(PathBuf, Octets)>,
}

const ROOT: usize = 0;

impl Drive {
    /// What is in a folder, all of it durable.
    pub fn read(folder: &Path) -> Result<Self> {
        let mut drive = Self {
            files: Vec::new(),
            folders: 1,
            durable: Names::new(),
            current: Names::new(),
            inodes: HashMap::new(),
            pending: Vec::new(),
            stamp: 0,
            changes: 0,
        };
        drive.read_folder(folder, ROOT)?;
        drive.durable.clone_from(&drive.current);
        Ok(drive)
    }

    fn read_folder(&mut self, path: &Path, folder: usize) -> Result<()> {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let about = entry.metadata()?;
            let node = match about.is_dir() {
                true => {
                    let inside = self.new_folder();
                    self.read_folder(&entry.path(), inside)?;
                    Node::Folder(inside)
                }
                false => {
                    let file = self.new_file(about.ino());
                    self.files[file] = Arc::new(fs::read(entry.path())?);
                    Node::File(file)
                }
            };
            self.current.insert((folder, name), node);
        }
        Ok(())
    }

    fn new_folder(&mut self) -> usize {
        self.folders += 1;
        self.folders - 1
    }

    fn new_file(&mut self, inode: u64) -> usize {
        let file = self.files.len();
        self.files.push(Octets::default());
        self.inodes.insert(inode, file);
        file
    }

    /// Goes on by one entry.
    pub fn follow(&mut self, entry: &Entry) -> Result<()> {
        let change = match entry {
            Entry::Create { inode, name } => {
                let place = self.place(name)?;
                let node = Node::File(self.new_file(*inode));
                Change::Add { place, node }
            }
            Entry::MakeFolder { name } => {
                let place = self.place(name)?;
                let node = Node::Folder(self.new_folder());
                Change::Add { place, node }
            }
            Entry::Link { from, to } => {
                let node = self.node(&self.place(from)?)?;
                Change::Add {
                    place: self.place(to)?,
                    node,
                }
            }
            Entry::Remove { name } => {
                let place = self.place(name)?;
                let node = self.node(&place)?;
                Change::Remove { place, node }
            }
            Entry::Rename { from, to } => {
                let from = self.place(from)?;
                let node = self.node(&from)?;
                Change::Rename {
                    from,
                    to: self.place(to)?,
                    node,
                }
            }
            Entry::Write { inode, at, octets } => {
                let file = self.file(*inode)?;
                Change::Write {
                    file,
                    at: *at,
                    octets: Arc::clone(octets),
                }
            }
            Entry::Resize { inode, size } => {
                let file = self.file(*inode)?;
                Change::Resize { file, size: *size }
            }
            Entry::SyncFile { inode } => {
                let file = self.file(*inode)?;
                self.settle(|change| change.file() == Some(file));
                return Ok(());
            }
            Entry::SyncFolder { name } => {
                self.sync_folder(name)?;
                return Ok(());
            }
            Entry::SyncAll => {
                self.settle(|_| true);
                return Ok(());
            }
            Entry::Told { .. } => return Ok(()),
        };
        change.rename(&mut self.current);
        self.changes += 1;
        let stamp = StdRng::seed_from_u64(self.changes).random();
        self.pending.push(Pending { stamp, change });
        Ok(())
    }

    fn place(&self, name: &str) -> Result<Place> {
        let (folder, last) = name.rsplit_once('/').unwrap_or(("", name));
        Ok((self.folder(folder)?, last.to_owned()))
    }

    fn folder(&self, name: &str) -> Result<usize> {
        let mut folder = ROOT;
        for part in name.split('/').filter(|part| !part.is_empty()) {
            let node = self.current.get(&(folder, part.to_owned()));
            let Some(Node::Folder(inside)) = node else {
                bail!("no folder {name:?}");
            };
            folder = *inside;
        }
        Ok(folder)
    }

    fn node(&self, place: &Place) -> Result<Node> {
        let node = self.current.get(place).copied();
        node.with_context(|| format!("nothing is called {place:?}"))
    }

    fn file(&self, inode: u64) -> Result<usize> {
        let file = self.inodes.get(&inode).copied();
        file.with_context(|| format!("no file with inode {inode}"))
    }

    /// What was done before to the same names is durable too; nothing else is.
    fn sync_folder(&mut self, name: &str) -> Result<()> {
        let folder = self.folder(name)?;
        let mut touched = BTreeSet::<Place>::new();
        let mut stamps = BTreeSet::new();
        for pending in self.pending.iter().rev() {
            let places = pending.change.places();
            if places
                .iter()
                .any(|place| place.0 == folder || touched.contains(*place))
            {
                touched.extend(places.into_iter().cloned());
                stamps.insert(pending.stamp);
            }
        }
        let (durable, pending) = (self.pending.drain(..))
            .partition::<Vec<_>, _>(|pending| stamps.contains(&pending.stamp));
        self.pending = pending;
        self.make_durable(durable);
        Ok(())
    }

    fn settle(&mut self, which: impl Fn(&Change) -> bool) {
        let (durable, pending) =
            (self.pending.drain(..)).partition::<Vec<_>, _>(|pending| which(&pending.change));
        self.pending = pending;
        self.make_durable(durable);
    }

    fn make_durable(&mut self, changes: Vec<Pending>) {
        for Pending { stamp, change } in changes {
            self.stamp ^= stamp;
            if let Some(file) = change.file() {
                write(Arc::make_mut(&mut self.files[file]), &change, Fate::Kept);
            }
            change.rename(&mut self.durable);
        }
    }

    /// Whether an entry is the sync of a file whose name begins so.
    pub fn syncs(&self, entry: &Entry, name: &str) -> bool {
        let Entry::SyncFile { inode } = entry else {
            return false;
        };
        let file = self.inodes.get(inode);
        file.is_some_and(|file| self.name_of(*file).starts_with(name))
    }

    /// How many changes are pending.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// The last of the pending changes that is a write.
    pub fn last_write(&self) -> Option<usize> {
        let is_write = |pending: &Pending| matches!(pending.change, Change::Write { .. });
        self.pending.iter().rposition(is_write)
    }

    /// The same for the same disk, whenever the power was cut. Stands for what is on it.
    pub fn stamp(&self, fates: &[Fate]) -> u64 {
        let pending = self.pending.iter().zip(fates);
        pending.fold(self.stamp, |stamp, (pending, fate)| match fate {
            Fate::Lost => stamp,
            Fate::Torn {
                sector,
                seed,
                sized,
            } if pending.change.file().is_some() => {
                let torn = seed ^ ((*sector as u64) << 1) ^ u64::from(*sized);
                stamp ^ pending.stamp.wrapping_mul(torn | 1).rotate_left(17)
            }
            Fate::Torn { .. } | Fate::Kept => stamp ^ pending.stamp,
        })
    }

    /// The disk after a power cut now.
    pub fn image(&self, fates: &[Fate]) -> Image {
        let mut names = self.durable.clone();
        let mut files = HashMap::<usize, Octets>::new();
        for (pending, fate) in self.pending.iter().zip(fates) {
            if *fate == Fate::Lost {
                continue;
            }
            if let Some(file) = pending.change.file() {
                let octets = files
                    .entry(file)
                    .or_insert_with(|| Arc::clone(&self.files[file]));
                write(Arc::make_mut(octets), &pending.change, *fate);
            }
            pending.change.rename(&mut names);
        }
        let mut image = Image {
            folders: Vec::new(),
            files: Vec::new(),
        };
        let octets = |file: usize| Arc::clone(files.get(&file).unwrap_or(&self.files[file]));
        collect(&names, ROOT, Path::new(""), &octets, &mut image);
        image
    }

    /// For a person: the changes that did not all reach the disk.
    pub fn describe(&self, fates: &[Fate]) -> String {
        let name = |change: &Change| match change {
            Change::Write { file, at, octets } => {
                format!("{} octets at {at} of {}", octets.len(), self.name_of(*file))
            }
            Change::Resize { file, size } => format!("size {size} of {}", self.name_of(*file)),
            Change::Add { place, .. } => format!("new name {}", place.1),
            Change::Remove { place, .. } => format!("removal of {}", place.1),
            Change::Rename { from, to, .. } => format!("rename of {} to {}", from.1, to.1),
        };
        let pending = self.pending.iter().zip(fates);
        let all: Vec<_> = pending
            .map(|(pending, fate)| format!("{fate:?} {}", name(&pending.change)))
            .collect();
        all.join("; ")
    }

    fn name_of(&self, file: usize) -> &str {
        let found = self
            .current
            .iter()
            .find(|(_, node)| **node == Node::File(file));
        found.map_or("a file without a name", |(place, _)| &place.1)
    }
}

fn collect(
    names: &Names,
    folder: usize,
    path: &Path,
    octets: &impl Fn(usize) -> Octets,
    image: &mut Image,
) {
    let inside = names.range((folder, String::new())..(folder + 1, String::new()));
    for ((_, name), node) in inside {
        let path = path.join(name);
        match node {
            Node::File(file) => image.files.push((path, octets(*file))),
            Node::Folder(inside) => {
                image.folders.push(path.clone());
                collect(names, *inside, &path, octets, image);
            }
        }
    }
}

fn write(file: &mut Vec<u8>, change: &Change, fate: Fate) {
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

impl Image {
    /// Writes it into an empty folder; what is zero stays a hole.
    pub fn write_to(&self, folder: &Path) -> Result<()> {
        const PAGE: usize = 4096;
        for name in &self.folders {
            fs::create_dir(folder.join(name))?;
        }
        for (name, octets) in &self.files {
            let file = File::create(folder.join(name))?;
            file.set_len(octets.len() as u64)?;
            let mut begin = 0;
            while begin < octets.len() {
                let end = octets.len().min(begin + PAGE);
                let page = &octets[begin..end];
                if page != &[0; PAGE][..page.len()] {
                    file.write_all_at(page, begin as u64)?;
                }
                begin = end;
            }
        }
        Ok(())
    }
}
