//! A disk whose power can be cut: ext4 in an image on a loop device.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

const SIZE: u64 = 768 << 20;
/// Ways in which more, or other, of what was not synced survives.
pub const MANNERS: [&str; 4] = ["defaults", "commit=1", "nodelalloc", "data=writeback"];

/// The image and where it is mounted. The mounts are in a namespace of this process and its children, so they end
/// with them.
pub struct Disk {
    image: PathBuf,
    mount: PathBuf,
    mounted: bool,
}

impl Disk {
    /// A fresh one, not mounted.
    pub fn new(folder: &Path, name: &str) -> Result<Self> {
        let disk = Self {
            image: folder.join(format!("{name}.ext4")),
            mount: folder.join(name),
            mounted: false,
        };
        fs::create_dir_all(&disk.mount)?;
        File::create(&disk.image)?.set_len(SIZE)?;
        run(Command::new("mkfs.ext4").arg("-qF").arg(&disk.image))?;
        Ok(disk)
    }

    /// Where it is mounted.
    pub fn folder(&self) -> &Path {
        &self.mount
    }

    pub fn mount(&mut self, manner: &str) -> Result<&Path> {
        let options = format!("loop,{manner}");
        run(Command::new("mount")
            .args(["-t", "ext4", "-o", &options])
            .args([&self.image, &self.mount]))?;
        self.mounted = true;
        Ok(&self.mount)
    }

    /// The kernel closes the files of a killed process a moment after it is gone.
    pub fn unmount(&mut self) -> Result<()> {
        let mut tries = 0;
        while let Err(error) = run(Command::new("umount").arg(&self.mount)) {
            tries += 1;
            ensure!(tries < 50, "{error:#}");
            thread::sleep(Duration::from_millis(50));
        }
        self.mounted = false;
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted {
            let _ = run(Command::new("umount").arg("--lazy").arg(&self.mount));
        }
    }
}

/// The hand at the switch, already there when the moment comes.
pub struct Switch {
    hand: Child,
    answers: BufReader<ChildStdout>,
}

impl Switch {
    pub fn at(mount: &Path) -> Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/power_cut.py");
        let mut hand = Command::new(crate::needs::python())
            .args([&script, mount])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let answers = BufReader::new(hand.stdout.take().context("no output")?);
        let mut switch = Self { hand, answers };
        switch.hear("ready")?;
        Ok(switch)
    }

    pub fn cut(mut self) -> Result<()> {
        let mut orders = self.hand.stdin.take().context("no input")?;
        orders.write_all(b"now\n")?;
        self.hear("cut")?;
        ensure!(self.hand.wait()?.success(), "the switch failed");
        Ok(())
    }

    fn hear(&mut self, word: &str) -> Result<()> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        ensure!(line.trim_end() == word, "the switch said {line:?}");
        Ok(())
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        let _ = self.hand.kill();
        let _ = self.hand.wait();
    }
}

pub fn run(command: &mut Command) -> Result<()> {
    let output = command
        .env("PATH", crate::needs::search_path())
        .stdin(Stdio::null())
        .output();
    let output = output.with_context(|| format!("{command:?}"))?;
    let why = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}", why.trim());
    Ok(())
}
