//! How long a wrong log-in takes, by whom it is for: `cargo run -p postroad-accounts --example medians -- [TRIES] [SEED]`.
//!
//! The kinds take turns in a random order, so that whatever else the machine does meets all of them.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant, SystemTime};

use postroad_accounts::{Accounts, LogIn};
use postroad_directory::{AuthGate, AuthVerdict, DirectoryHandle, Purpose, Scope, hash_password};
use postroad_metrics::Metrics;

const KINDS: [(&str, &str); 5] = [
    ("an account", "alice@a.example"),
    ("no account", "nobody@a.example"),
    ("a foreign domain", "nobody@elsewhere.example"),
    ("a disabled account", "gone@a.example"),
    ("an account without a password", "bare@a.example"),
];

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut out = std::io::stdout();
    let mut arguments = std::env::args().skip(1);
    let tries = arguments.next().map_or(Ok(1000), |text| text.parse())?;
    let mut seed = arguments.next().map_or(Ok(1), |text| text.parse())?;
    writeln!(out, "{tries} tries of each kind, seed {seed}\n")?;
    let accounts = accounts()?;
    let gate = AuthGate::default();
    let mut times: [Vec<Duration>; KINDS.len()] = Default::default();
    let mut left: Vec<usize> = (0..KINDS.len() * tries)
        .map(|at| at % KINDS.len())
        .collect();
    while !left.is_empty() {
        let at = usize::try_from(next(&mut seed))? % left.len();
        let kind = left.swap_remove(at);
        let log_in = LogIn {
            name: KINDS[kind].1,
            mechanism: "PLAIN",
            password: b"wrong",
            purpose: Purpose {
                scope: Scope::Submission,
                client: None,
                now: SystemTime::now().into(),
            },
        };
        let begin = Instant::now();
        let verdict = accounts.log_in(&gate, &log_in).await?;
        times[kind].push(begin.elapsed());
        assert_eq!(verdict, AuthVerdict::Refused);
    }
    writeln!(
        out,
        "{:<32} {:>9} {:>9} {:>9}",
        "a wrong password for", "quarter", "median", "quarter"
    )?;
    for ((kind, _), times) in KINDS.iter().zip(&mut times) {
        times.sort_unstable();
        let [low, median, high] = [1, 2, 3].map(|part| times[times.len() * part / 4]);
        writeln!(out, "{kind:<32} {low:>9.2?} {median:>9.2?} {high:>9.2?}")?;
    }
    Ok(())
}

/// SplitMix64.
fn next(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *seed;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn accounts() -> Result<Accounts, Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("directory.toml");
    let hash = hash_password(b"sesame", [1; 16])?;
    let text = format!(
        "[[domain]]\nname = \"a.example\"\npostmaster = \"alice@a.example\"\n\
         [[account]]\naddress = \"alice@a.example\"\npassword_hash = \"{hash}\"\n\
         [[account]]\naddress = \"gone@a.example\"\npassword_hash = \"{hash}\"\ndisabled = true\n\
         [[account]]\naddress = \"bare@a.example\"\n"
    );
    fs::write(&file, text)?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
    let directory = DirectoryHandle::open(&file)?;
    Ok(Accounts::of_file(directory, &Metrics::new("medians")))
}
