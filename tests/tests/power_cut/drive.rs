//! A disk as it may be found after a power cut, following what was recorded.
//!
//! Durable is what a sync has made so: the octets and the length of a file by a sync of the file, a name (new, changed or
//! gone) by a sync of its folder. All else is pending: each change may have reached the disk or not, whatever became of the
//! others, and of a write any sectors. A rename is one change, and durable once either folder is synced; of several of one file none is there
//! without those before it, as with ext4, XFS and btrfs.

mod changes;
mod image;

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::Arc,
};

use anyhow::{Context as _, Result, bail};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

pub use self::{changes::Fate, image::Image};
use self::{
    changes::{Change, Names, Node, Octets, Pending, Place, write},
    image::collect,
};

use crate::recording::Entry;

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
            if !pending.change.overtakes(&names) {
                pending.change.rename(&mut names);
            }
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
