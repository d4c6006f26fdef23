//! Programs that end with the bench, however it ends.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::machine;

/// Ends its program when its standard input ends: also if the bench is killed. `$0` is `-` if all processes of the
/// program's group shall be asked.
const KEEPER: &str = r#"setsid "$@" </dev/null & program=$!; read -r _; kill -s TERM -- "$0$program"; wait "$program""#;
/// What is counted: of a file, or of a file system.
const SYNCS: [&str; 3] = ["fsync", "fdatasync", "syncfs"];
const FAREWELL: Duration = Duration::from_secs(30);

/// Whether the syncs of a program are counted. It costs: each sync is stopped twice by strace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syncs {
    Ignored,
    Counted,
}

/// A program in the foreground, and the shell that keeps it.
pub struct Kept {
    keeper: Child,
    counts: Option<PathBuf>,
}

impl Kept {
    /// Starts a program; what it says goes to `NAME.log` in `folder`.
    pub fn start(folder: &Path, name: &str, command: &[&str], syncs: Syncs) -> Result<Self> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(folder.join(format!("{name}.log")))?;
        let counts = (syncs == Syncs::Counted).then(|| folder.join(format!("{name}.syncs")));
        let mut keeper = Command::new("sh");
        keeper.args(["-c", KEEPER]);
        match &counts {
            // A filter in the kernel lets all other calls pass at full speed.
            Some(counts) => keeper
                .args(["-", "strace", "-f", "-c", "--seccomp-bpf"])
                .args(["-e", &format!("trace={}", SYNCS.join(",")), "-o"])
                .arg(counts),
            None => keeper.arg(""),
        };
        let keeper = keeper
            .args(command)
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("sh")?;
        Ok(Self { keeper, counts })
    }

    /// Asks the program to end and waits until it has; its syncs if they were counted.
    pub fn end(mut self) -> Result<Option<u64>> {
        self.ask()?;
        let counts = self.counts.take();
        counts
            .map(|file| Ok(calls(&fs::read_to_string(file)?)))
            .transpose()
    }

    /// Kills the program and all it has started.
    pub fn kill(mut self) -> Result<()> {
        for pid in machine::descendants(self.keeper.id()) {
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
            kill_process(pid.context("no such process")?, Signal::KILL)?;
        }
        self.ask()
    }

    fn ask(&mut self) -> Result<()> {
        drop(self.keeper.stdin.take());
        let deadline = Instant::now() + FAREWELL;
        while self.keeper.try_wait()?.is_none() {
            ensure!(Instant::now() < deadline, "a program does not end");
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // Nothing more can be done; the keeper waits for the program.
        let _ = self.ask();
    }
}

/// The fourth column of the summary of strace.
fn calls(summary: &str) -> u64 {
    let count = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let named = fields.last().is_some_and(|name| SYNCS.contains(name));
        fields.get(3).filter(|_| named)?.parse::<u64>().ok()
    };
    summary.lines().filter_map(count).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_summed_with_and_without_errors() {
        let summary = "% time     seconds  usecs/call     calls    errors syscall\n\
            ------ ----------- ----------- --------- --------- ----------------\n \
            77.28    0.000609          60        10           fsync\n \
            22.72    0.000179          17         7         1 fdatasync\n \
            0.00    0.000000           0         3           syncfs\n \
            0.00    0.000000           0         5           close\n\
            ------ ----------- ----------- --------- --------- ----------------\n\
            100.00    0.000788          39        17         1 total\n";
        assert_eq!(calls(summary), 20);
    }
}
