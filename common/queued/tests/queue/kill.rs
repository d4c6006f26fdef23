//! `kill -9` at random moments: a child submits, settles and changes mail, and tells what it was told; the next child
//! compares what is there with that, goes on from there, and is killed in turn.
//!
//! The child is this test binary again. Several chains of lives run side by side, each in a folder of its own. Choices
//! follow from the seed, the chain and the number of the round alone.
//!
//! | variable | what |
//! |---|---|
//! | `POSTROAD_KILL_ROUNDS` | rounds of all chains together; 100 |
//! | `POSTROAD_KILL_SEED` | repeats the choices of a run |
//! | `POSTROAD_KILL_FOLDER` | a folder that stays: a run that was broken off goes on there |

mod check;
mod life;
mod operator;
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
use crate::setup::{PATIENCE, config, prepare};

const CHILD: &str = "POSTROAD_KILL_CHILD";
const SEED: &str = "POSTROAD_KILL_SEED";
const CHAINS: u64 = 4;
const ROUNDS: u64 = 100;
/// What a run of [`ROUNDS`] must have met, or it proves less than it says.
const MET: [&str; 18] = [
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
    "handed-back",
    "stream-lost",
    "resumed",
    "late",
    "large",
    "report",
    "rebuilt",
    "checkpoint-used",
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
    config.retry.first = Interval::millis(50);
    config.retry.max = Interval::millis(200);
    config.lease.duration = Interval::millis(400);
    config.lease.resume_grace = Interval::millis(300);
    config.dsn.gather = Interval::millis(20);
    let rule = |domain: &str, class| postroad_queued::RouteRule {
        domain: domain.to_owned(),
        class,
        next_hop: None,
        max_leases: None,
    };
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
        life::live(Path::new(&folder), number(SEED, 0));
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
    let each = rounds.div_ceil(CHAINS);
    let met: Vec<BTreeMap<String, u64>> = thread::scope(|all| {
        let chains: Vec<_> = (0..CHAINS)
            .map(|number| {
                let mut chain = Chain::open(&folder, number, seed);
                all.spawn(move || chain.run(each))
            })
            .collect();
        let ended = chains.into_iter().map(thread::ScopedJoinHandle::join);
        ended.collect::<Result<_, _>>()
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
    tell(&format!("{} rounds: {}", each * CHAINS, words.join(", ")));
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
        let given_up = check::segments_given_up(&self.folder);
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
        let round = self.told.round % 8;
        let life = match random.random_range(0..10) {
            // Reclaim and checkpoints come with the seconds.
            _ if round == 2 => random.random_range(700..1200),
            0 => random.random_range(500..1200),
            _ => random.random_range(5..120),
        };
        let opening = round != 2 && random.random_range(0..8) == 0;
        let kind = match round {
            3 => "compare",
            6 => "rebuild",
            _ => "plain",
        };
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "kill::child", "--nocapture", "--test-threads=1"])
            .env(CHILD, &self.folder)
            .env(SEED, random.random::<u64>().to_string())
            .env("POSTROAD_KILL_KIND", kind)
            // Its end is the child's end, whatever becomes of us.
            .stdin(Stdio::piped())
            .stdout(File::create(self.folder.join("life.log")).unwrap())
            .stderr(File::create(self.folder.join("complaints")).unwrap())
            .spawn()
            .unwrap();
        if !opening {
            self.wait_until_ready(&mut child)?;
        }
        thread::sleep(Duration::from_millis(match opening {
            true => life % 100,
            false => life,
        }));
        let ended = child.try_wait().unwrap();
        let _ = child.kill();
        child.wait().unwrap();
        match ended {
            Some(_) => Err(self.complaints()),
            None => Ok(()),
        }
    }

    fn wait_until_ready(&self, child: &mut Child) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let heard = fs::read(self.folder.join("life.log")).unwrap_or_default();
            if String::from_utf8_lossy(&heard).contains("\nready\n") {
                return Ok(());
            }
            if child.try_wait().unwrap().is_some() {
                return Err(self.complaints());
            }
            if Instant::now() > deadline {
                let _ = child.kill();
                return Err("the child does not get ready".to_owned());
            }
            thread::sleep(Duration::from_millis(3));
        }
    }

    fn complaints(&self) -> String {
        fs::read_to_string(self.folder.join("complaints")).unwrap_or_default()
    }
}
