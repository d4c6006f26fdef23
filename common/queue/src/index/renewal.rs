//! An index made anew of what it holds, while it is used: sled keeps octets of what was removed until it happens to write
//! over them; a new one never had them.

use std::{
    fs::{self, File},
    path::Path,
    sync::{Arc, PoisonError},
};

use sled::IVec;

use super::{Index, Raw, open};
use crate::QueueError;

pub(super) const NEW: &str = "index.new";
pub(super) const OLD: &str = "index.old";
/// Entries copied while writers wait.
const AT_ONCE: usize = 500;

/// A copy under way. It must come to an end by [`Index::end_renewal`] or [`Index::give_up_renewal`].
pub struct Renewal {
    new: Raw,
    tree: usize,
    after: Option<IVec>,
}

fn io_error(doing: &'static str) -> impl FnOnce(std::io::Error) -> QueueError {
    move |source| QueueError::Io { doing, source }
}

impl Index {
    /// Octets of its file.
    pub fn file_len(&self) -> Result<u64, QueueError> {
        let file = Arc::clone(&self.db_file.lock().unwrap_or_else(PoisonError::into_inner));
        let metadata = file.metadata().map_err(io_error("look at the index"))?;
        Ok(metadata.len())
    }

    /// Begins a copy beside the index.
    pub fn begin_renewal(&self) -> Result<Renewal, QueueError> {
        // So that what has gone by now is not copied.
        self.trees.recent.store_all()?;
        let path = self.folder.join(NEW);
        open::remove_if_there(&path).map_err(io_error("remove an unfinished index"))?;
        let new = Raw::open(&path, self.cache_capacity, open::SEGMENT_SIZE)?;
        for (tree, next) in self.trees.all().iter().zip(&new.trees) {
            tree.store.begin_copy(next.clone());
        }
        Ok(Renewal {
            new,
            tree: 0,
            after: None,
        })
    }

    /// Copies some more; tells whether that was all.
    pub fn renew_some(&self, renewal: &mut Renewal) -> Result<bool, QueueError> {
        let trees = self.trees.all();
        let Some(tree) = trees.get(renewal.tree) else {
            return Ok(true);
        };
        renewal.after = tree.store.copy_some(renewal.after.as_ref(), AT_ONCE)?;
        if renewal.after.is_none() {
            renewal.tree += 1;
        }
        Ok(renewal.tree >= trees.len())
    }

    /// The copy takes the place of the index. No checkpoint may be made meanwhile: what the copy holds must be durable
    /// before the journal is given up any further. A crash in the middle leaves either one, or none: then the next start
    /// makes it of the journal.
    pub fn end_renewal(&self, renewal: Renewal) -> Result<(), QueueError> {
        let file = match self.put_in_place(&renewal) {
            Ok(file) => file,
            Err(failed) => {
                self.give_up_renewal(renewal);
                return Err(failed);
            }
        };
        // From the moment it has the name, it is the one that checkpoints must make durable.
        for tree in self.trees.all() {
            tree.store.take_copy();
        }
        self.trees.set_db(renewal.new.db);
        *self.db_file.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(file);
        open::sync_folder(&self.folder).map_err(|source| QueueError::Unsynced {
            doing: "make the name of the new index durable",
            source,
        })?;
        open::remove_if_there(&self.folder.join(OLD)).map_err(io_error("remove the old index"))
    }

    fn put_in_place(&self, renewal: &Renewal) -> Result<File, QueueError> {
        let (new, old) = (self.folder.join(NEW), self.folder.join(OLD));
        let index = self.folder.join("index");
        let file = File::open(new.join("db")).map_err(io_error("open the new index"))?;
        renewal.new.db.flush()?;
        file.sync_data().map_err(io_error("sync the new index"))?;
        open::sync_folder(&new).map_err(io_error("sync the new index"))?;
        open::remove_if_there(&old).map_err(io_error("remove an old index"))?;
        swap(&index, &new, &old).map_err(io_error("put the new index in place"))?;
        Ok(file)
    }

    /// All stays as it is.
    pub fn give_up_renewal(&self, renewal: Renewal) {
        for tree in self.trees.all() {
            tree.store.give_up_copy();
        }
        drop(renewal);
        // What stays is removed by the next start, or the next copy.
        let _ = open::remove_if_there(&self.folder.join(NEW));
    }
}

fn swap(index: &Path, new: &Path, old: &Path) -> std::io::Result<()> {
    fs::rename(index, old)?;
    fs::rename(new, index).inspect_err(|_| {
        // Best effort: without an index the next start makes another.
        let _ = fs::rename(old, index);
    })
}

#[cfg(test)]
mod tests {
    use postroad_envelope::Timestamp;

    use super::*;

    fn index(folder: &Path) -> Index {
        let opened = open::open(folder, 1 << 20, Timestamp::from_millis(1)).unwrap();
        Index::new(opened, true).0
    }

    fn holds(path: &Path, text: &str) -> bool {
        match path.is_dir() {
            true => {
                let mut entries = fs::read_dir(path).unwrap();
                entries.any(|entry| holds(&entry.unwrap().path(), text))
            }
            false => {
                let octets = fs::read(path).unwrap();
                octets
                    .windows(text.len())
                    .any(|part| part == text.as_bytes())
            }
        }
    }

    #[test]
    fn a_new_index_holds_what_the_old_one_held_and_what_changed_meanwhile_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let index = index(folder.path());
        let mail = &index.trees.mail;
        for n in 0..2_000_u32 {
            mail.insert(n.to_be_bytes(), b"kept").unwrap();
        }
        mail.insert(7_u32.to_be_bytes(), b"secret").unwrap();
        index.trees.job.insert(b"secret@far.test", &[]).unwrap();
        index.checkpoint(postroad_journal::Lsn(4)).unwrap();
        mail.remove(7_u32.to_be_bytes()).unwrap();
        index.trees.job.remove(b"secret@far.test").unwrap();
        assert!(holds(folder.path(), "secret"));

        let mut renewal = index.begin_renewal().unwrap();
        assert!(!index.renew_some(&mut renewal).unwrap());
        // Behind and before what is copied already.
        for n in [3_u32, 1_990] {
            mail.insert(n.to_be_bytes(), b"new").unwrap();
            mail.remove((n + 1).to_be_bytes()).unwrap();
        }
        while !index.renew_some(&mut renewal).unwrap() {}
        let before: Vec<_> = mail.iter().map(Result::unwrap).collect();
        index.end_renewal(renewal).unwrap();
        assert_eq!(mail.iter().map(Result::unwrap).collect::<Vec<_>>(), before);
        assert_eq!(before.len(), 1_997);
        assert!(!holds(folder.path(), "secret"));
        mail.insert(b"later", b"kept").unwrap();
        index.checkpoint(postroad_journal::Lsn(5)).unwrap();
        drop(index);

        let again = self::index(folder.path());
        assert_eq!(again.trees.mail.len(), before.len() + 1);
        assert_eq!(
            again.trees.mail.get(3_u32.to_be_bytes()).unwrap().unwrap(),
            "new"
        );
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }

    #[test]
    fn where_a_copy_cannot_be_put_in_place_all_goes_on_as_before() {
        let folder = tempfile::tempdir().unwrap();
        let index = index(folder.path());
        index.trees.mail.insert(b"a", b"kept").unwrap();
        // In the way of the old one.
        fs::write(folder.path().join(OLD), b"").unwrap();
        let mut renewal = index.begin_renewal().unwrap();
        while !index.renew_some(&mut renewal).unwrap() {}
        assert!(index.end_renewal(renewal).is_err());
        assert!(!folder.path().join(NEW).exists());
        index.trees.mail.insert(b"b", b"kept").unwrap();

        fs::remove_file(folder.path().join(OLD)).unwrap();
        let mut renewal = index.begin_renewal().unwrap();
        while !index.renew_some(&mut renewal).unwrap() {}
        index.end_renewal(renewal).unwrap();
        drop(index);
        assert_eq!(self::index(folder.path()).trees.mail.len(), 2);
    }

    #[test]
    fn a_copy_that_was_given_up_or_cut_off_leaves_the_index_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let index = index(folder.path());
        index.trees.mail.insert(b"a", b"kept").unwrap();
        let renewal = index.begin_renewal().unwrap();
        index.give_up_renewal(renewal);
        index.trees.mail.insert(b"b", b"kept").unwrap();
        let cut_off = index.begin_renewal().unwrap();
        index.trees.db().flush().unwrap();
        drop((cut_off, index));
        let again = self::index(folder.path());
        assert_eq!(again.trees.mail.len(), 2);
        assert!(!folder.path().join(NEW).exists());
    }
}
