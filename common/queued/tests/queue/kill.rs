//! `kill -9` at random moments: a child submits, settles and changes mail, and tells what it was told; the next child
//! compares what is there with that, goes on from there, and is killed in turn.
//!
//! The child is this test binary again. Several chains of lives run side by side, each in a folder of its own. Choices
//! follow from the seed, the chain and the number of the round alone.
//!
//! | variable | what |
//! |---|---|
//! | `POSTROAD_KILL_ROUNDS` | rounds of all chains together; 100 |
//! | `POSTROAD_KILL_CHAINS` | chains side by side; 4 |
//! | `POSTROAD_KILL_SEED` | repeats the choices of a run |
//! | `POSTROAD_KILL_FOLDER` | a folder that stays: a run that was broken off goes on there |

mod check;
mod life;
mod load;
mod offline;
mod operator;
mod retired;
mod starts;
mod told;

use std::{
    collections::BTreeMap,
    env,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rand::{RngExt, SeedableRng, rngs::StdRng};

use self::told::Told;
use crate::setup::{config, prepare};

const CHILD: &str = "POSTROAD_KILL_CHILD";
const SEED: &str = "POSTROAD_KILL_SEED";
const CHAINS: &str = "POSTROAD_KILL_CHAINS";
const ROUNDS: u64 = 100;
/// For the next word of a child, on a machine that has much else to do.
const PATIENCE: Duration = Duration::from_secs(180);
/// What a run of [`ROUNDS`] must have met, or it proves less than it says.
const MET: [&str; 41] = [
    "acknowledged",
    "ended",
    "failed",
    "held",
    "released",
    "rerouted",
    "priority",
    "operator-fail",
    "operator-expire",
    "operator-drop",
    "withdrawn",
    "handed-back",
    "stream-lost",
    "resumed",
    "late",
    "large",
    "report",
    "rebuilt",
    "compared",
    "checkpoint-used",
    "retired",
    "retired-content",
    "rule-put",
    "rule-removed",
    "ruled",
    "accepted-early",
    "again-early",
    "again-across",
    // The queue was killed while it was at this …
    "killed-opening",
    "killed-catching-up",
    "killed-rebuilding",
    // … or while mail was in this line of the table of states (../../../queue/README.md).
    "killed-receiving",
    "killed-accepted",
    "killed-due",
    "killed-held",
    "killed-leased",
    "killed-settling",
    "killed-settled",
    "killed-owing",
    "killed-leaving",
    "killed-retired",
];

fn number(name: &str, otherwise: u64) -> u64 {
    env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(otherwise)
}

fn kill_config() -> postroad_queued::Config {
    use postroad_daemon::{ByteSize, Interval};
    use postroad_envelope::RouteClass;
    let mut config = config();
    // Small, so that segments are given up all the time.
    config.disk.segment = ByteSize::mib(2);
    config.disk.journal_target = ByteSize::mib(4);
    // Each start begins a segment of 4 MiB of each of these.
    config.retired.max_size = ByteSize::mib(64);
    config.retired.content_max_size = ByteSize::mib(64);
    config.timeline.max_size = ByteSize::mib(256);
    // So is the index, which is made anew again and again.
    config.disk.index_spare = ByteSize::kib(512);
    config.retry.first = Interval::millis(50);
    config.retry.max = Interval::millis(200);
    config.lease.duration = Interval::millis(400);
    config.lease.resume_grace = Interval::millis(300);
    config.dsn.gather = Interval::millis(50);
    let rule = postroad_queued::RouteRule::new;
    config.routes = vec![
        rule("kept.test", RouteClass::Hold),
        rule("gone.test", RouteClass::Discard),
    ];
    config
}

/// Not a test of its own: what the parent kills.
#[test]
fn child() {
    if let Some(folder) = env::var_os(CHILD) {
        match env::var("POSTROAD_KILL_KIND").as_deref() {
            Ok("start") => starts::start(Path::new(&folder)),
            _ => life::live(Path::new(&folder), number(SEED, 0)),
        }
    }
}

#[test]
fn every_line_of_the_table_of_states_is_counted() {
    let table = include_str!("../../../queue/README.md");
    let lines = table
        .lines()
        .skip_while(|line| !line.starts_with("| state |"));
    let states: Vec<&str> = lines
        .skip(2)
        .map_while(|line| line.strip_prefix("| ")?.split([' ', '|']).next())
        .collect();
    assert_eq!((states.len(), states.last()), (11, Some(&"gone")));
    for state in states.iter().filter(|state| **state != "gone") {
        let counter = format!("killed-{state}");
        assert!(MET.contains(&counter.as_str()), "{counter}");
        assert!(table.contains(&format!("`{counter}`")), "{counter}");
    }
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_ended_comes_back() {
    if env::var_os(CHILD).is_some() {
        return;
    }
    let rounds = number("POSTROAD_KILL_ROUNDS", ROUNDS);
    let seed = number(SEED, rand::random());
    let folder = env::var_os("POSTROAD_KILL_FOLDER").map(PathBuf::from);
    let temporary = folder.is_none().then(temporary);
    let folder = folder.unwrap_or_else(|| temporary.as_ref().unwrap().path().to_owned());
    tell(&format!("{SEED}={seed} POSTROAD_KILL_ROUNDS={rounds}"));
    let chains = number(CHAINS, 4).max(1);
    let each = rounds.div_ceil(chains);
    let met: Vec<BTreeMap<String, u64>> = thread::scope(|all| {
        let chains: Vec<_> = (0..chains)
            .map(|number| {
                let mut chain = Chain::open(&folder, number, seed);
                all.spawn(move || chain.run(each))
            })
            .collect();
        // All of them, before the first failure is told.
        let ended = chains.into_iter().map(thread::ScopedJoinHandle::join);
        let ended: Vec<_> = ended.collect();
        ended.into_iter().collect::<Result<_, _>>()
    })
    .unwrap_or_else(|_| {
        let kept = temporary.map(tempfile::TempDir::keep);
        panic!("{SEED}={seed}; the folders are in {kept:?}")
    });
    let mut sums = BTreeMap::<String, u64>::new();
    for (what, count) in met.into_iter().flatten() {
        *sums.entry(what).or_default() += count;
    }
    let words: Vec<_> = sums.iter().map(|(what, n)| format!("{what} {n}")).collect();
    tell(&format!("{} rounds: {}", each * chains, words.join(", ")));
    for what in MET {
        assert!(
            rounds < ROUNDS || sums.contains_key(what),
            "{what} was never met"
        );
    }
}

/// In memory where that can be: what a process has written survives its kill on any file system.
fn temporary() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

fn tell(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// A queue that lives again and again.
struct Chain {
    folder: PathBuf,
    number: u64,
    seed: u64,
    told: Told,
}

impl Chain {
    fn open(folder: &Path, number: u64, seed: u64) -> Self {
        let folder = folder.join(format!("chain-{number}"));
        fs::create_dir_all(&folder).unwrap();
        prepare(&folder);
        let told = Told::read(&folder);
        Self {
            folder,
            number,
            seed,
            told,
        }
    }

    /// Tells what was met.
    fn run(&mut self, rounds: u64) -> BTreeMap<String, u64> {
        // What a parent that was killed itself did not read.
        self.hear();
        while self.told.round < rounds {
            let round = self.told.round;
            let random = StdRng::seed_from_u64(self.seed ^ (self.number << 56) ^ (round << 20));
            if let Err(why) = self.live_and_die(random) {
                panic!(
                    "chain {}, round {round}: {why}\nin {}",
                    self.number,
                    self.folder.display()
                );
            }
            self.told.round += 1;
            self.hear();
        }
        if let Err(why) = check::drain(&self.folder, &self.told) {
            panic!(
                "chain {}, at the end: {why}\nin {}",
                self.number,
                self.folder.display()
            );
        }
        let given_up = offline::segments_given_up(&self.folder);
        *self
            .told
            .met
            .entry("segments-given-up".to_owned())
            .or_default() = given_up;
        self.told.met.clone()
    }

    fn hear(&mut self) {
        let log = self.folder.join("life.log");
        if let Ok(text) = fs::read(&log) {
            self.told.hear(&String::from_utf8_lossy(&text));
            self.told.forget_the_old();
        }
        self.told.write(&self.folder);
        let _ = fs::remove_file(log);
    }

    fn live_and_die(&mut self, mut random: StdRng) -> Result<(), String> {
        let plan = Plan::of(self.told.round, &mut random);
        let mut child = spawn_child(&self.folder, plan.kind, random.random());
        if let Some(line) = plan.from {
            wait_for(&self.folder, &mut child, line)?;
        }
        thread::sleep(plan.pause);
        let ended = child.try_wait().unwrap();
        let _ = child.kill();
        child.wait().unwrap();
        if ended.is_some() {
            return Err(complaints(&self.folder));
        }
        let heard = heard(&self.folder);
        let was_at = match (heard.contains("\nopen\n"), heard.contains("\nlevel\n")) {
            (_, true) => return Ok(()),
            (false, _) => "killed-opening",
            (true, _) if plan.kind == "rebuild" => "killed-rebuilding",
            (true, _) => "killed-catching-up",
        };
        *self.told.met.entry(was_at.to_owned()).or_default() += 1;
        Ok(())
    }
}

/// How a life begins, and when it ends.
struct Plan {
    kind: &'static str,
    /// The line of the child from which on its time is counted; none: from its first moment.
    from: Option<&'static str>,
    pause: Duration,
}

impl Plan {
    fn of(round: u64, random: &mut StdRng) -> Self {
        let round = round % 8;
        let kind = match round {
            3 => "compare",
            6 | 7 => "rebuild",
            _ => "plain",
        };
        let (from, pause) = match (round, random.random_range(0..10)) {
            // Reclaim and checkpoints come with the seconds.
            (2, _) => (Some("ready"), random.random_range(700..1200)),
            // While mail is accepted and the index is not there yet.
            (5 | 7, _) => (Some("open"), random.random_range(0..40)),
            (_, 0..2) => (None, random.random_range(0..80)),
            _ => (Some("ready"), random.random_range(5..120)),
        };
        Self {
            kind,
            from,
            pause: Duration::from_millis(pause),
        }
    }
}

fn spawn_child(folder: &Path, kind: &str, seed: u64) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", "kill::child", "--nocapture", "--test-threads=1"])
        .env(CHILD, folder)
        .env(SEED, seed.to_string())
        .env("POSTROAD_KILL_KIND", kind)
        // Its end is the child's end, whatever becomes of us.
        .stdin(Stdio::piped())
        .stdout(File::create(folder.join("life.log")).unwrap())
        .stderr(File::create(folder.join("complaints")).unwrap())
        .spawn()
        .unwrap()
}

/// Waits until the child tells this.
fn wait_for(folder: &Path, child: &mut Child, line: &str) -> Result<(), String> {
    let deadline = Instant::now() + PATIENCE;
    let line = format!("\n{line}\n");
    while !heard(folder).contains(&line) {
        if child.try_wait().unwrap().is_some() {
            return Err(complaints(folder));
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            return Err(format!("the child does not come to {line:?}"));
        }
        thread::sleep(Duration::from_millis(8));
    }
    Ok(())
}

fn heard(folder: &Path) -> String {
    let heard = fs::read(folder.join("life.log")).unwrap_or_default();
    String::from_utf8_lossy(&heard).into_owned()
}

fn complaints(folder: &Path) -> String {
    fs::read_to_string(folder.join("complaints")).unwrap_or_default()
}
