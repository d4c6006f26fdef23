//! Every write boundary of short lives: for each, disks as a power cut there may leave them, and a look at each.
//!
//! A life is recorded (`recorder.c`), then followed entry by entry. After each one come: nothing of what is pending was
//! written, all of it, all but one change, one change alone, seeded choices, writes torn into sectors. Equal disks are
//! looked at once, and compared with all that was told before any of the boundaries they stand for. The next life goes on
//! from one of these disks.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use tempfile::TempDir;

use crate::{
    drive::{Drive, Fate, Image},
    life::Role,
    recording::{self, Entry},
    told::{self, Mails},
};

/// Seeded choices at each boundary.
const CHOICES: usize = 4;
/// Of so many failures the first ones are shown.
const SHOWN: usize = 5;

/// What lives, and what was seen of it on one disk.
pub trait Subject: Send + Sized {
    /// The role of this program that lives shortly.
    const ROLE: &str;
    /// What is counted of disks where something was not as it should be, and nothing depends on it.
    const FLAW: &str;

    /// Opens what is on a disk; also tells whether there was such a flaw.
    async fn look(mount: &Path) -> Result<(Self, bool)>;

    /// Whether this agrees with what was told before the cut.
    fn judge(&self, told: &Mails) -> Result<()>;
}

/// What to look at.
pub struct Scope {
    pub seed: u64,
    pub lives: u64,
    /// At most so many images of a life, chosen by seed.
    pub images: usize,
    /// Syncs that count for nothing.
    pub deaf_to: Option<Deaf>,
}

/// Which syncs count for nothing.
#[derive(Debug, Clone, Copy)]
pub enum Deaf {
    /// Of files whose names begin so.
    Files(&'static str),
    /// Of the file system as a whole.
    Whole,
}

impl Deaf {
    fn to(self, drive: &Drive, entry: &Entry) -> bool {
        match self {
            Self::Files(names) => drive.syncs(entry, names),
            Self::Whole => matches!(entry, Entry::SyncAll),
        }
    }
}

/// Files live in memory, for there are many.
pub fn in_memory() -> Result<TempDir> {
    let memory = Path::new("/dev/shm");
    match memory.is_dir() {
        true => Ok(tempfile::tempdir_in(memory)?),
        false => Ok(tempfile::tempdir()?),
    }
}

/// Lives, one after the other; tells counts, or what is wrong.
pub fn explore<S: Subject>(
    folder: &Path,
    library: &Path,
    scope: &Scope,
) -> Result<BTreeMap<&'static str, usize>> {
    let mut random = StdRng::seed_from_u64(scope.seed);
    let mut counts = BTreeMap::new();
    let place = in_memory()?;
    let mount = place.path().canonicalize()?.join("disk");
    fs::create_dir(&mount)?;
    let mut mails = Mails::new();
    for number in 0..scope.lives {
        let life = Life::record(S::ROLE, folder, library, &mount, random.random())?;
        let seed = random.random();
        let looked = life.look::<S>(mails, seed, scope);
        let looked = looked.with_context(|| format!("life {}", number + 1))?;
        for (what, count) in looked.counts {
            *counts.entry(what).or_default() += count;
        }
        fs::remove_dir_all(&mount)?;
        fs::create_dir(&mount)?;
        looked.next.0.write_to(&mount)?;
        mails = Mails::clone(&looked.next.1);
        println!("life {} of {}: {counts:?}", number + 1, scope.lives);
    }
    Ok(counts)
}

struct Life {
    before: Drive,
    entries: Vec<Entry>,
}

struct Looked {
    counts: Vec<(&'static str, usize)>,
    /// The disk the next life begins with, and what was told before.
    next: (Image, Arc<Mails>),
}

impl Life {
    fn record(name: &str, folder: &Path, library: &Path, mount: &Path, seed: u64) -> Result<Self> {
        let before = Drive::read(mount)?;
        let log = folder.join("recording");
        if log.exists() {
            fs::remove_file(&log)?;
        }
        let role = Role {
            name,
            mount,
            seed,
            folder,
            preload: Some(library),
        };
        role.run()?;
        let entries = recording::read(&log)?;
        ensure!(entries.len() > 100, "only {} entries", entries.len());
        Ok(Self { before, entries })
    }

    fn look<S: Subject>(self, mails: Mails, seed: u64, scope: &Scope) -> Result<Looked> {
        let mut random = StdRng::seed_from_u64(seed);
        let (mut stamps, mut known, mut boundaries) = (Vec::new(), HashSet::new(), 0);
        let walk = Walk {
            life: &self,
            seed,
            deaf_to: scope.deaf_to,
        };
        walk.each(mails.clone(), |boundary| {
            boundaries += 1;
            for fates in &boundary.choices {
                let stamp = boundary.drive.stamp(fates);
                if known.insert(stamp) {
                    stamps.push(stamp);
                }
            }
            Ok(())
        })?;
        let last = boundaries;
        let wanted: HashSet<u64> = match stamps.len() > scope.images {
            true => stamps.sample(&mut random, scope.images).copied().collect(),
            false => stamps.iter().copied().collect(),
        };
        let next_at = random.random_range(last / 2..last);
        let mut cases = Cases::default();
        let mut next = None;
        let seen = looking::<S>(|looker| {
            walk.each(mails, |boundary| {
                for fates in &boundary.choices {
                    let stamp = boundary.drive.stamp(fates);
                    if wanted.contains(&stamp) {
                        cases.add(stamp, boundary, fates, looker)?;
                    }
                }
                if boundary.number == next_at {
                    let fates = boundary.choices.choose(&mut random);
                    let fates = fates.context("no image at all")?;
                    let image = boundary.drive.image(fates);
                    next = Some((image, Arc::clone(boundary.told)));
                }
                Ok(())
            })
        })?;
        cases.judge(&seen)?;
        let acknowledged = self.entries.iter();
        let acknowledged = acknowledged.filter(
            |entry| matches!(entry, Entry::Told { line } if line.starts_with("acknowledged")),
        );
        let flaws = seen.values().filter(|seen| matches!(seen, Ok((_, true))));
        let flaws = flaws.count();
        let counts = vec![
            ("boundaries", boundaries),
            ("different images", stamps.len()),
            ("images looked at", seen.len()),
            (S::FLAW, flaws),
            ("compared", cases.all.len()),
            ("acknowledged", acknowledged.count()),
        ];
        Ok(Looked {
            counts,
            next: next.context("no image for the next life")?,
        })
    }
}

/// A moment between two entries.
struct Boundary<'a> {
    number: usize,
    drive: &'a Drive,
    choices: Vec<Vec<Fate>>,
    told: &'a Arc<Mails>,
    after: &'a Entry,
}

struct Walk<'a> {
    life: &'a Life,
    seed: u64,
    deaf_to: Option<Deaf>,
}

impl Walk<'_> {
    fn each(&self, mails: Mails, mut at: impl FnMut(&Boundary<'_>) -> Result<()>) -> Result<()> {
        let mut drive = self.life.before.clone();
        let mut told = Arc::new(mails);
        // The same choices before and after something is told.
        let mut changes = 0_u64;
        for (number, entry) in self.life.entries.iter().enumerate() {
            if let Entry::Told { line } = entry {
                let Some((word, id, recipients)) = told::hear(line.trim_end()) else {
                    continue;
                };
                let told = Arc::make_mut(&mut told);
                told.entry(id).or_default().add(word, recipients);
            } else {
                changes += 1;
                if !self.deaf_to.is_some_and(|deaf| deaf.to(&drive, entry)) {
                    let followed = drive.follow(entry);
                    followed.with_context(|| format!("entry {number}: {}", entry.describe()))?;
                }
            }
            let random = StdRng::seed_from_u64(self.seed ^ changes);
            at(&Boundary {
                number,
                choices: choices(&drive, random),
                drive: &drive,
                told: &told,
                after: entry,
            })?;
        }
        Ok(())
    }
}

fn choices(drive: &Drive, mut random: StdRng) -> Vec<Vec<Fate>> {
    let count = drive.pending();
    let all = |fate| vec![fate; count];
    let mut choices = vec![all(Fate::Lost), all(Fate::Kept)];
    for one in 0..count {
        for (most, other) in [(Fate::Kept, Fate::Lost), (Fate::Lost, Fate::Kept)] {
            let mut fates = all(most);
            fates[one] = other;
            choices.push(fates);
        }
    }
    let torn = |random: &mut StdRng| Fate::Torn {
        sector: if random.random_bool(0.5) { 512 } else { 4096 },
        seed: random.random(),
        sized: random.random(),
    };
    for _ in 0..CHOICES {
        let fates = (0..count).map(|_| match random.random_range(0..5) {
            0 | 1 => Fate::Lost,
            2 | 3 => Fate::Kept,
            _ => torn(&mut random),
        });
        choices.push(fates.collect());
    }
    if let Some(last) = drive.last_write() {
        for most in [Fate::Kept, Fate::Lost, Fate::Kept] {
            let mut fates = all(most);
            fates[last] = torn(&mut random);
            choices.push(fates);
        }
    }
    choices
}

/// Which image is to be compared with what.
#[derive(Default)]
struct Cases {
    all: HashSet<(u64, usize)>,
    /// Each state of what was told, once; by address of its entry in `told`.
    told: Vec<Arc<Mails>>,
    /// Where an image was met first, for a person.
    met: HashMap<u64, String>,
}

impl Cases {
    fn add(
        &mut self,
        stamp: u64,
        boundary: &Boundary<'_>,
        fates: &[Fate],
        looker: &SyncSender<(u64, Image)>,
    ) -> Result<()> {
        if self.told.last().is_none_or(|told| told != boundary.told) {
            self.told.push(Arc::clone(boundary.told));
        }
        self.all.insert((stamp, self.told.len() - 1));
        if self.met.contains_key(&stamp) {
            return Ok(());
        }
        let met = format!(
            "boundary {} (after {}): {}",
            boundary.number,
            boundary.after.describe(),
            boundary.drive.describe(fates)
        );
        self.met.insert(stamp, met);
        let image = boundary.drive.image(fates);
        looker
            .send((stamp, image))
            .map_err(|_| anyhow!("nobody looks any more"))
    }

    fn judge<S: Subject>(&self, seen: &Observations<S>) -> Result<()> {
        let mut wrong = Vec::new();
        let mut cases: Vec<_> = self.all.iter().collect();
        cases.sort_by_key(|(stamp, told)| (*told, *stamp));
        let mut failed = HashSet::new();
        for (stamp, told) in cases {
            let outcome = match seen.get(stamp) {
                Some(Ok((seen, _))) => seen.judge(&self.told[*told]),
                Some(Err(error)) => Err(anyhow!("{error}")),
                None => Err(anyhow!("was not looked at")),
            };
            if let Err(error) = outcome
                && failed.insert(*stamp)
            {
                wrong.push(format!("{error:#}\n  {}", self.met[stamp]));
            }
        }
        if wrong.is_empty() {
            return Ok(());
        }
        let shown = wrong[..wrong.len().min(SHOWN)].join("\n");
        bail!(
            "{} of {} images are wrong:\n{shown}",
            wrong.len(),
            seen.len()
        )
    }
}

/// What was seen, and whether there was a flaw; or what was wrong.
type Observations<S> = HashMap<u64, Result<(S, bool), String>>;

/// Looks at what is sent, on all processors.
fn looking<S: Subject>(
    send: impl FnOnce(&SyncSender<(u64, Image)>) -> Result<()>,
) -> Result<Observations<S>> {
    let count = thread::available_parallelism()?.get();
    let (sender, receiver) = sync_channel(2 * count);
    let receiver = Mutex::new(receiver);
    let seen = Mutex::new(Observations::<S>::new());
    thread::scope(|all| {
        let lookers: Vec<_> = (0..count)
            .map(|_| all.spawn(|| look(&receiver, &seen)))
            .collect();
        let sent = send(&sender);
        drop(sender);
        for looker in lookers {
            looker.join().map_err(|_| anyhow!("a look panicked"))??;
        }
        sent
    })?;
    Ok(seen.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn look<S: Subject>(
    images: &Mutex<Receiver<(u64, Image)>>,
    seen: &Mutex<Observations<S>>,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    loop {
        let next = images.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((stamp, image)) = next else {
            return Ok(());
        };
        let looked = runtime.block_on(look_at::<S>(&image));
        let looked = looked.map_err(|error| format!("{error:#}"));
        seen.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(stamp, looked);
    }
}

async fn look_at<S: Subject>(image: &Image) -> Result<(S, bool)> {
    let disk = in_memory()?;
    image.write_to(disk.path())?;
    S::look(disk.path()).await
}
