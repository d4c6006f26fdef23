//! Segments prepared ahead: written with zeros and synced by a helper thread, so that appending to them
//! later changes nothing but their bytes, and `fdatasync` has no sizes or extents to write.
use crate::{
    blank::DRAFT,
    error::{Result, failed},
    folder::{free_space, sync_folder},
    journal::Options,
};
use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
};

const CHUNK: usize = 1 << 20;
/// Segments that are left to what must be written on a full disk.
pub(crate) const SPARE: usize = 1;

/// The prepared segments and the thread that prepares them.
#[derive(Debug)]
pub(crate) struct Pool {
    shelf: Arc<Shelf>,
    helper: Option<JoinHandle<()>>,
}

/// Where prepared segments lie.
#[derive(Debug)]
pub(crate) struct Shelf {
    folder: PathBuf,
    size: u32,
    ahead: usize,
    keep_free: u64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    ready: VecDeque<PathBuf>,
    wanted: usize,
    preparing: bool,
    failed: Option<io::Error>,
    /// Someone could not have what was asked for, and there has been none more since.
    short: bool,
    stop: bool,
    /// Segments that are given up go, instead of being prepared again.
    spare_none: bool,
    names: u64,
}

impl Pool {
    /// Takes over what an earlier run left ready and starts the helper.
    pub(crate) fn open(folder: &Path, size: u32, options: &Options) -> Result<Self> {
        let ahead = options.prepare_ahead;
        let mut state = State {
            wanted: ahead,
            ..State::default()
        };
        let listed = fs::read_dir(folder).map_err(failed("read folder", folder))?;
        for entry in listed {
            let path = entry.map_err(failed("read folder", folder))?.path();
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            let number = name
                .strip_prefix("ready-")
                .and_then(|rest| rest.strip_suffix(".seg"));
            let number: Option<u64> = number.and_then(|number| number.parse().ok());
            if number.is_none() && !["preparing.tmp", DRAFT].contains(&name) {
                continue;
            }
            state.names = state.names.max(number.map_or(0, |number| number + 1));
            let whole = path
                .metadata()
                .is_ok_and(|found| found.len() == u64::from(size));
            if number.is_some() && whole && state.ready.len() < 2 * ahead {
                state.ready.push_back(path);
            } else {
                fs::remove_file(&path).map_err(failed("remove", &path))?;
            }
        }
        let changed = Condvar::new();
        let shelf = Arc::new(Shelf {
            folder: folder.to_owned(),
            size,
            ahead,
            keep_free: options.keep_free,
            state: Mutex::new(state),
            changed,
        });
        let helper = std::thread::Builder::new()
            .name("journal-prepare".to_owned())
            .spawn({
                let shelf = Arc::clone(&shelf);
                move || shelf.prepare_until_stopped()
            })
            .map_err(failed("start a thread for", folder))?;
        Ok(Self {
            shelf,
            helper: Some(helper),
        })
    }

    /// Takes `count` prepared segments and leaves `spare`, waiting for them if need be; takes none if they cannot be had.
    pub(crate) fn take(&self, count: usize, spare: usize) -> io::Result<Vec<PathBuf>> {
        let needed = count.saturating_add(spare);
        let mut state = self.shelf.lock();
        if count == 0 && state.ready.len() >= needed {
            return Ok(Vec::new());
        }
        state.failed = None;
        state.wanted = self.shelf.ahead.max(needed);
        self.shelf.changed.notify_all();
        while state.ready.len() < needed {
            if let Some(error) = state.failed.take() {
                state.short = true;
                return Err(error);
            }
            state = self
                .shelf
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.wanted = self.shelf.ahead;
        self.shelf.changed.notify_all();
        Ok(state.ready.drain(..count).collect())
    }

    /// Whether one can be taken at once.
    pub(crate) fn is_ready(&self) -> bool {
        !self.shelf.lock().ready.is_empty()
    }

    /// For whoever gives up segments on another thread.
    pub(crate) fn shelf(&self) -> Arc<Shelf> {
        Arc::clone(&self.shelf)
    }

    /// Off: what is prepared goes, since it may hold old octets, and is made anew; no segment is recycled.
    pub(crate) fn set_recycling(&self, on: bool) -> Result<()> {
        let mut state = self.shelf.lock();
        state.spare_none = !on;
        if on {
            return Ok(());
        }
        while let Some(path) = state.ready.pop_front() {
            fs::remove_file(&path).map_err(failed("remove", &path))?;
        }
        // A failure before may have stopped the helper.
        state.failed = None;
        self.shelf.changed.notify_all();
        drop(state);
        sync_folder(&self.shelf.folder)
    }
}

impl State {
    fn put(&mut self, ready: PathBuf) {
        self.ready.push_back(ready);
        self.short = false;
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shelf.lock().stop = true;
        self.shelf.changed.notify_all();
        if let Some(helper) = self.helper.take() {
            // A panic of the helper has been printed; there is nothing to add to it here.
            let _ = helper.join();
        }
    }
}

impl Shelf {
    /// Gives up a segment: its file becomes a prepared one if we can use one more, else it goes.
    /// The rename is synced before anyone may take the file: until then a power cut brings the old name
    /// back, and it must find the old bytes.
    pub(crate) fn recycle(&self, segment: &Path) -> Result<()> {
        let mut state = self.lock();
        // The helper fills up to `ahead`; room beyond that lets given-up segments take its work over.
        let room =
            !state.spare_none && state.ready.len() + usize::from(state.preparing) < 2 * self.ahead;
        let fits = segment
            .metadata()
            .is_ok_and(|found| found.len() == u64::from(self.size));
        if !(room && fits) {
            drop(state);
            fs::remove_file(segment).map_err(failed("remove", segment))?;
            return sync_folder(&self.folder);
        }
        let path = self.next_name(&mut state);
        drop(state);
        fs::rename(segment, &path).map_err(failed("recycle", segment))?;
        sync_folder(&self.folder)?;
        self.lock().put(path);
        self.changed.notify_all();
        Ok(())
    }

    /// See [`Reclaimer::is_short`](crate::Reclaimer::is_short).
    pub(crate) fn is_short(&self) -> bool {
        let mut state = self.lock();
        if state.short {
            // There may be room again, and nobody else to ask.
            state.failed = None;
            state.wanted = state.wanted.max(SPARE + 1);
            self.changed.notify_all();
        }
        state.short
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_name(&self, state: &mut State) -> PathBuf {
        let name = self.folder.join(format!("ready-{:010}.seg", state.names));
        state.names += 1;
        name
    }

    fn prepare_until_stopped(&self) {
        let mut state = self.lock();
        while !state.stop {
            // After a failure nothing is tried until someone asks again.
            if state.ready.len() >= state.wanted || state.failed.is_some() {
                state = self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let path = self.next_name(&mut state);
            state.preparing = true;
            drop(state);
            let outcome = self.prepare(&path);
            state = self.lock();
            state.preparing = false;
            match outcome {
                Ok(()) => state.put(path),
                Err(error) => state.failed = Some(error),
            }
            self.changed.notify_all();
        }
    }

    fn prepare(&self, path: &Path) -> io::Result<()> {
        self.room_for(usize::try_from(self.size).unwrap_or(usize::MAX))?;
        let draft = self.folder.join("preparing.tmp");
        let outcome = self
            .write_zeros(&draft)
            .and_then(|()| fs::rename(&draft, path));
        if outcome.is_err() {
            // Best effort: opening the journal removes it too.
            let _ = fs::remove_file(&draft);
        }
        outcome?;
        File::open(&self.folder)?.sync_all()
    }

    fn write_zeros(&self, path: &Path) -> io::Result<()> {
        let mut file = File::create(path)?;
        let zeros = vec![0; CHUNK];
        let mut left = usize::try_from(self.size).unwrap_or(usize::MAX);
        while left > 0 {
            if self.lock().stop {
                return Err(io::ErrorKind::Interrupted.into());
            }
            self.room_for(left)?;
            let now = left.min(CHUNK);
            file.write_all(&zeros[..now])?;
            // In small helpings, so that a commit's own sync never waits behind a whole segment.
            file.sync_data()?;
            left -= now;
        }
        file.sync_all()
    }

    /// Looked at before each helping: others write meanwhile, and what they need most is the last of the room.
    fn room_for(&self, octets: usize) -> io::Result<()> {
        let octets = u64::try_from(octets).unwrap_or(u64::MAX);
        match free_space(&self.folder)?.free < octets.saturating_add(self.keep_free) {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        }
    }
}
