//! Power cuts under load: what was acknowledged is there after the file system came back, whole and once.
//!
//! A child process runs the real queue, or the real mail store, on an ext4 of its own and tells what was acknowledged.
//! At a random moment the file system is shut down without flushing its log; the child is killed, the file system
//! mounted again, and a fresh process compares. What the parent reads after the cut does not count.
//!
//! `POSTROAD_POWER_CUTS` asks for another number of cuts, `POSTROAD_SEED` repeats the choices of a run. It needs root and
//! loop devices: with `CI=true` their absence is a failure, elsewhere NOT RUN.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a program for a terminal")]

mod boundaries;
mod disk;
mod drive;
mod life;
mod maildir;
mod needs;
mod phases;
mod queue;
mod recording;
mod seen;
mod short_life;
mod short_store;
mod told;

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tempfile::TempDir;

use self::{
    boundaries::{Deaf, Scope, Subject},
    disk::{Disk, MANNERS, Switch},
    life::{Life, Role},
    seen::Seen,
    short_store::{Filed, FiledTogether},
    told::Mails,
};

const CUTS: u64 = 20;
/// So many cuts hit one disk, then all that is left is given out. Lives are too short to give up as many segments as they begin.
const CUTS_OF_A_DISK: u64 = 100;
/// Short lives whose every write boundary is looked at, and images of each.
const LIVES: u64 = 2;
const IMAGES: u64 = 120;
/// A queue or store that does not sync is found out within so many cuts.
const LIES: u64 = 5;
/// Before any library that is preloaded.
const RAW_CALLS: &[u8] = include_bytes!("raw_calls.c");
/// Syncs that do nothing. sled asks for a range.
const LYING_SYNCS: &[u8] = b"int fsync(int f) { return 0; }
int fdatasync(int f) { return 0; }
int syncfs(int f) { return 0; }
int sync_file_range(int f, long long o, long long n, unsigned w) { return 0; }
";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let [word, role, mount, told, seed] = &arguments[..]
        && word == "role"
    {
        return report(play(role, mount.as_ref(), told.as_ref(), seed));
    }
    if arguments.iter().any(|argument| argument == "--list") {
        for (name, _) in SCENARIOS {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    let folder = match needs::enter() {
        Some(missing) => return not_run(&missing),
        None => tempfile::tempdir(),
    };
    let Ok(folder) = folder else {
        return not_run("a temporary folder");
    };
    match needs::no_loop_device(folder.path()) {
        Some(missing) => not_run(&missing),
        None => run_all(folder, &arguments),
    }
}

fn report(outcome: Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn not_run(missing: &str) -> ExitCode {
    if env::var("CI").is_ok_and(|value| value == "true") {
        println!("power cuts FAILED: needs {missing}");
        return ExitCode::FAILURE;
    }
    println!("NOT RUN: power cuts: needs {missing}");
    ExitCode::SUCCESS
}

/// What this program does as somebody's child.
fn play(role: &str, mount: &Path, told: &Path, seed: &str) -> Result<()> {
    let seed = seed.parse()?;
    let runtime = tokio::runtime::Runtime::new()?;
    match role {
        "queue" => runtime.block_on(queue::live(mount, seed)),
        "queue-check" => runtime.block_on(queue::check(mount, told, seed)),
        "queue-drain" => runtime.block_on(queue::drain(mount)),
        "short-life" => runtime.block_on(short_life::live(mount, seed)),
        "short-store" => short_store::live_alone(mount, seed),
        "short-store-together" => short_store::live_together(mount, seed),
        "maildir" => maildir::live(mount, seed),
        "maildir-check" => maildir::check(mount, told, seed),
        _ => bail!("no role {role:?}"),
    }
}

type Scenario = (&'static str, fn(&Path, u64) -> Result<String>);

const SCENARIOS: [Scenario; 9] = [
    ("queue_loses_nothing_and_nothing_comes_back", queue_cuts),
    ("maildir_files_exactly_once", maildir_cuts),
    ("lying_syncs_are_found_out", lies),
    ("every_write_boundary_of_a_short_life", every_boundary),
    ("a_journal_that_is_not_synced_is_found_out", deaf),
    (
        "every_write_boundary_of_deliveries",
        every_boundary_of_deliveries,
    ),
    ("a_ledger_that_is_not_synced_is_found_out", deaf_deliveries),
    (
        "every_write_boundary_of_deliveries_synced_together",
        every_boundary_of_groups,
    ),
    ("a_group_that_is_not_synced_is_found_out", deaf_groups),
];

fn run_all(folder: TempDir, wanted: &[String]) -> ExitCode {
    let seed = number("POSTROAD_SEED").unwrap_or_else(rand::random);
    println!("POSTROAD_SEED={seed} POSTROAD_POWER_CUTS={}", cuts());
    let mut failed = 0;
    let wanted: Vec<&String> = wanted
        .iter()
        .filter(|word| !word.starts_with("--"))
        .collect();
    let is_wanted =
        |name: &str| wanted.is_empty() || wanted.iter().any(|word| name.contains(*word));
    for (name, run) in SCENARIOS.into_iter().filter(|(name, _)| is_wanted(name)) {
        let begun = Instant::now();
        let outcome = run(folder.path(), seed);
        let took = begun.elapsed().as_secs();
        match outcome {
            Ok(figures) => println!("test {name} ... ok ({took} s; {figures})"),
            Err(error) => {
                failed += 1;
                println!("test {name} ... FAILED ({took} s)\n{error:#}");
            }
        }
    }
    if failed == 0 {
        return ExitCode::SUCCESS;
    }
    println!(
        "POSTROAD_SEED={seed}; the disks are in {}",
        folder.keep().display()
    );
    ExitCode::FAILURE
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok()?.parse().ok()
}

fn cuts() -> u64 {
    number("POSTROAD_POWER_CUTS").unwrap_or(CUTS)
}

fn queue_cuts(folder: &Path, seed: u64) -> Result<String> {
    let mut test = Test::new(folder, "queue", seed)?;
    for number in 1..=cuts() {
        let cut = test.cut(None).with_context(|| format!("cut {number}"))?;
        println!("cut {number} of {}: {cut}", cuts());
        if number == cuts() {
            test.drain()?;
        } else if number.is_multiple_of(CUTS_OF_A_DISK) {
            test.drain()?;
            test = test.on_a_new_disk()?;
        }
    }
    test.sums()
}

fn maildir_cuts(folder: &Path, seed: u64) -> Result<String> {
    let mut test = Test::new(folder, "maildir", seed)?;
    for number in 1..=cuts() {
        let cut = test.cut(None).with_context(|| format!("cut {number}"))?;
        println!("cut {number} of {}: {cut}", cuts());
        test.mails.clear();
    }
    test.sums()
}

/// Proves that the other scenarios can fail: the same with syncs that do nothing.
fn lies(folder: &Path, seed: u64) -> Result<String> {
    let library = compile(folder, "lying_syncs", LYING_SYNCS)?;
    let mut found = Vec::new();
    for subject in ["queue", "maildir"] {
        let mut test = Test::new(folder, subject, seed)?;
        let loss = (1..=LIES).find_map(|_| test.cut(Some(&library)).err());
        let loss =
            loss.with_context(|| format!("{subject} without syncs lost nothing in {LIES} cuts"))?;
        let loss = format!("{loss:#}");
        // Or so much is gone that the queue does not take the folder for one of its own.
        let is_loss = [
            "is lost",
            "is half visible",
            "came back",
            "cannot be opened",
        ]
        .iter()
        .any(|words| loss.contains(words));
        ensure!(is_loss, "{subject}: not a loss: {loss}");
        found.push(subject);
    }
    Ok(format!("losses seen: {}", found.join(", ")))
}

fn compile(folder: &Path, name: &str, text: &[u8]) -> Result<PathBuf> {
    let library = folder.join(format!("{name}.so"));
    let mut compiler = Command::new("cc")
        .args(["-shared", "-fPIC", "-x", "c", "-", "-o"])
        .arg(&library)
        .stdin(Stdio::piped())
        .spawn()?;
    let mut source = compiler.stdin.take().context("no input")?;
    source.write_all(RAW_CALLS)?;
    source.write_all(text)?;
    drop(source);
    ensure!(compiler.wait()?.success(), "cc failed");
    Ok(library)
}

/// `POSTROAD_POWER_CUT_LIVES` and `POSTROAD_POWER_CUT_IMAGES` ask for more lives, and more images of each.
fn every_boundary(folder: &Path, seed: u64) -> Result<String> {
    all_boundaries::<Seen>(folder, seed)
}

fn every_boundary_of_deliveries(folder: &Path, seed: u64) -> Result<String> {
    all_boundaries::<Filed>(folder, seed)
}

fn every_boundary_of_groups(folder: &Path, seed: u64) -> Result<String> {
    all_boundaries::<FiledTogether>(folder, seed)
}

fn all_boundaries<S: Subject>(folder: &Path, seed: u64) -> Result<String> {
    let library = compile(folder, "recorder", recording::LIBRARY)?;
    let images = number("POSTROAD_POWER_CUT_IMAGES").unwrap_or(IMAGES);
    let scope = Scope {
        seed,
        lives: number("POSTROAD_POWER_CUT_LIVES").unwrap_or(LIVES),
        images: usize::try_from(images)?,
        deaf_to: None,
    };
    Ok(list(&boundaries::explore::<S>(folder, &library, &scope)?))
}

/// Proves that the scenario before can fail: the same, but the syncs of segments make nothing durable.
fn deaf(folder: &Path, seed: u64) -> Result<String> {
    // The names of segments.
    is_found_out::<Seen>(folder, seed, Deaf::Files("0"))
}

fn deaf_deliveries(folder: &Path, seed: u64) -> Result<String> {
    is_found_out::<Filed>(folder, seed, Deaf::Files("segment-"))
}

fn deaf_groups(folder: &Path, seed: u64) -> Result<String> {
    is_found_out::<FiledTogether>(folder, seed, Deaf::Whole)
}

fn is_found_out<S: Subject>(folder: &Path, seed: u64, deaf_to: Deaf) -> Result<String> {
    let library = compile(folder, "recorder", recording::LIBRARY)?;
    let scope = Scope {
        seed,
        lives: 1,
        images: 100,
        deaf_to: Some(deaf_to),
    };
    let loss = boundaries::explore::<S>(folder, &library, &scope).err();
    let loss = format!("{:#}", loss.context("what does not sync lost nothing")?);
    // What is missing between two parts that reached the disk is damage; what is missing at the end is a loss.
    let words = [
        "is lost",
        "is half visible",
        "is called damaged",
        "would be filed twice",
    ];
    let is_loss = words.iter().any(|words| loss.contains(words));
    ensure!(is_loss, "not a loss: {loss}");
    let first = loss.lines().next().unwrap_or_default();
    Ok(first.trim_end_matches(':').to_owned())
}

/// One disk, and all that was told about it.
struct Test {
    subject: &'static str,
    folder: PathBuf,
    disk: Disk,
    chance: StdRng,
    mails: Mails,
    sums: BTreeMap<&'static str, usize>,
}

impl Test {
    fn new(folder: &Path, subject: &'static str, seed: u64) -> Result<Self> {
        Ok(Self {
            subject,
            folder: folder.to_owned(),
            disk: Disk::new(folder, subject)?,
            chance: StdRng::seed_from_u64(seed),
            mails: Mails::new(),
            sums: BTreeMap::new(),
        })
    }

    /// One life, its end, and the look afterwards.
    fn cut(&mut self, preload: Option<&Path>) -> Result<String> {
        let manner = MANNERS[self.chance.random_range(0..MANNERS.len())];
        let is_opening = self.chance.random_range(0..5) == 0;
        let moment = match is_opening {
            true => self.chance.random_range(0..250),
            // Long enough for the checkpoints of the queue, which are made every second.
            false => self.chance.random_range(5..1500),
        };
        let mut cut = BTreeMap::new();
        let rebuilds = self.mount(manner)?;
        cut.insert("lives with a rebuild", rebuilds);
        let life = Life::start(&self.role(self.subject, preload))?;
        let switch = Switch::at(self.disk.folder())?;
        if !is_opening {
            life.ready()?;
        }
        thread::sleep(Duration::from_millis(moment));
        let heard = life.cut(switch)?;
        for (word, id, recipients) in heard.told {
            self.mails.entry(id).or_default().add(word, recipients);
            *cut.entry(word.as_str()).or_default() += 1;
        }
        cut.insert("cuts before it was open", usize::from(!heard.was_ready));
        let in_rebuild = usize::from(!heard.was_ready) * rebuilds;
        cut.insert("cuts during a rebuild", in_rebuild);
        cut.extend(heard.phases.iter().map(|phase| (*phase, 1)));
        self.disk.unmount()?;

        told::write(&self.mails, &self.folder.join("told"))?;
        cut.insert("checks of a rebuild", self.mount("defaults")?);
        let check = format!("{}-check", self.subject);
        let found = self.role(&check, None).run();
        for line in found.with_context(|| format!("{manner}, {moment} ms, {}", list(&cut)))? {
            let (word, count) = line.split_once(' ').context("a check tells a count")?;
            let word = told::FOUND.iter().find(|known| **known == word);
            *cut.entry(word.context("what is counted?")?).or_default() += count.parse::<usize>()?;
        }
        self.disk.unmount()?;
        for (&word, count) in &cut {
            *self.sums.entry(word).or_default() += count;
        }
        Ok(format!("{manner}, {moment} ms, {}", list(&cut)))
    }

    /// Sometimes without the queue's index, which is then made anew; says so.
    fn mount(&mut self, manner: &str) -> Result<usize> {
        let mount = self.disk.mount(manner)?;
        let index = queue::folder(mount).join("index");
        let removed = self.chance.random_range(0..4) == 0 && index.exists();
        if removed {
            fs::remove_dir_all(index)?;
        }
        Ok(usize::from(removed))
    }

    fn role<'a>(&'a mut self, name: &'a str, preload: Option<&'a Path>) -> Role<'a> {
        Role {
            name,
            mount: self.disk.folder(),
            seed: self.chance.random(),
            folder: &self.folder,
            preload,
        }
    }

    /// What is given out in the end is the same with the index and with one made from the journal alone.
    fn drain(&mut self) -> Result<()> {
        let mount = self.disk.mount("defaults")?.to_owned();
        let kept = self.folder.join("kept");
        disk::run(Command::new("cp").arg("-a").args([&mount, &kept]))?;
        let with_index = self.role("queue-drain", None).run()?;
        self.disk.unmount()?;
        fs::remove_dir_all(queue::folder(&kept).join("index"))?;
        let role = Role {
            mount: &kept,
            ..self.role("queue-drain", None)
        };
        let rebuilt = role.run()?;
        *self.sums.entry("segments given up").or_default() += queue::segments_given_up(&kept)?;
        let jobs = |lines: Vec<String>| lines.into_iter().collect::<BTreeSet<_>>();
        let (with_index, rebuilt) = (jobs(with_index), jobs(rebuilt));
        let differ: Vec<_> = with_index.symmetric_difference(&rebuilt).collect();
        ensure!(differ.is_empty(), "index and journal differ: {differ:?}");
        *self.sums.entry("jobs left").or_default() += rebuilt.len();
        Ok(fs::remove_dir_all(kept)?)
    }

    fn on_a_new_disk(self) -> Result<Self> {
        let disk = Disk::new(&self.folder, self.subject)?;
        Ok(Self {
            disk,
            mails: Mails::new(),
            ..self
        })
    }

    fn sums(&self) -> Result<String> {
        let acknowledged = self.sums.get("acknowledged").copied().unwrap_or_default();
        let enough = usize::try_from(cuts())?;
        ensure!(acknowledged > enough, "only {acknowledged} were tried");
        Ok(list(&self.sums))
    }
}

fn list(counts: &BTreeMap<&str, usize>) -> String {
    let words = counts.iter().filter(|(_, count)| **count > 0);
    let words: Vec<_> = words
        .map(|(word, count)| format!("{word}: {count}"))
        .collect();
    words.join(", ")
}
