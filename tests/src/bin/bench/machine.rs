//! What the machine and its processes do, from /proc.

use std::{collections::BTreeSet, fmt, fs, process, thread, time::Duration};

use anyhow::{Context as _, Result};

use crate::disk::FileSystem;

/// USER_HZ, which Linux keeps at 100 for everybody who reads /proc.
const TICKS: f64 = 100.0;
/// A load per processor above this is said to be busy.
const CALM: f64 = 0.3;

/// The state of the machine at one moment.
pub struct Machine {
    cores: usize,
    load: String,
    load_of_a_minute: f64,
    kernel: String,
    processor: String,
    disk: FileSystem,
}

impl Machine {
    pub fn look() -> Result<Self> {
        let load = fs::read_to_string("/proc/loadavg")?;
        let first = load.split(' ').next().context("an empty loadavg")?;
        let processors = fs::read_to_string("/proc/cpuinfo")?;
        let processor = processors
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Ok(Self {
            cores: cores(),
            load_of_a_minute: first.parse()?,
            load: load.split(' ').take(3).collect::<Vec<_>>().join(" "),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?
                .trim()
                .to_owned(),
            processor: processor.map_or("unknown", |(_, name)| name).to_owned(),
            disk: FileSystem::look()?,
        })
    }

    fn is_busy(&self) -> bool {
        self.load_of_a_minute > CALM * self.cores as f64
    }

    pub fn warn(&self) {
        if self.is_busy() {
            eprintln!(
                "bench: the machine is busy (load {}), so the figures are too low and scatter",
                self.load
            );
        }
        self.disk.warn();
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let busy = if self.is_busy() { ", BUSY" } else { "" };
        write!(
            f,
            "{} × {}, Linux {}, {}, load {}{busy}",
            self.cores, self.processor, self.kernel, self.disk, self.load
        )
    }
}

pub fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Seconds of processor time used so far.
#[derive(Clone, Copy, Default)]
pub struct Cpu {
    /// By the descendants of this process, those that ended included.
    pub product: f64,
    /// By this process and children that ended: load, sink and measuring.
    pub own: f64,
    /// By everybody, the kernel included.
    pub all: f64,
}

impl Cpu {
    pub fn now() -> Result<Self> {
        let parent = process::id();
        let mut cpu = Self {
            all: busy()?,
            own: Stat::read(parent).context("no /proc of our own")?.whole(),
            product: 0.0,
        };
        for pid in descendants(parent) {
            // It may have ended in between; then its parent has its time.
            cpu.product += Stat::read(pid).map_or(0.0, |stat| stat.whole());
        }
        Ok(cpu)
    }

    pub fn since(self, earlier: Self) -> Self {
        Self {
            product: self.product - earlier.product,
            own: self.own - earlier.own,
            all: self.all - earlier.all,
        }
    }

    /// The share of all processors that neither the product nor the bench used, in percent.
    pub fn foreign_percent(self, elapsed: Duration) -> f64 {
        let whole = elapsed.as_secs_f64() * cores() as f64;
        ((self.all - self.product - self.own) / whole * 100.0).max(0.0)
    }
}

/// What the descendants of this process hold in memory, shared pages by halves (PSS), in MiB.
pub fn product_memory() -> f64 {
    let kib = descendants(process::id()).into_iter().filter_map(|pid| {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        line.split_whitespace().next()?.parse::<f64>().ok()
    });
    kib.sum::<f64>() / 1024.0
}

/// What the descendants of this process hold in memory now (RSS), in MiB.
pub fn product_resident() -> f64 {
    of_product("VmRSS:")
}

/// The most that the descendants of this process have held in memory, in MiB.
pub fn product_peak() -> f64 {
    of_product("VmHWM:")
}

/// What this process holds in memory now (RSS), in octets.
pub fn own_resident() -> Result<f64> {
    of_process(process::id(), "VmRSS:").context("no VmRSS of our own")
}

/// The most that this process has held in memory, in octets.
pub fn own_peak() -> Result<f64> {
    of_process(process::id(), "VmHWM:").context("no VmHWM of our own")
}

/// Processor time that the calling thread has used; finer than that of [`Cpu`].
pub fn own_time() -> Result<Duration> {
    let text = fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanos = text.split(' ').next().context("an empty schedstat")?;
    Ok(Duration::from_nanos(nanos.parse()?))
}

/// What a process holds in memory now (RSS), in octets.
pub fn resident(pid: u32) -> Option<f64> {
    of_process(pid, "VmRSS:")
}

/// The program that a process was started as.
pub fn command(pid: u32) -> Option<String> {
    let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
    Some(line.split('\0').next()?.to_owned())
}

fn of_product(name: &str) -> f64 {
    let descendants = descendants(process::id()).into_iter();
    let octets = descendants.filter_map(|pid| of_process(pid, name));
    octets.sum::<f64>() / 1024.0 / 1024.0
}

/// A line of proc_pid_status(5), in octets; threads are not processes.
fn of_process(pid: u32, name: &str) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024.0)
}

/// The children of a process, and theirs.
pub fn descendants(root: u32) -> BTreeSet<u32> {
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut rest: Vec<(u32, u32)> = pids
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, Stat::read(pid)?.parent)))
        .collect();
    let mut family = BTreeSet::from([root]);
    loop {
        let before = family.len();
        rest.retain(|&(pid, parent)| !(family.contains(&parent) && family.insert(pid)));
        if family.len() == before {
            break;
        }
    }
    family.remove(&root);
    family
}

struct Stat {
    parent: u32,
    own: f64,
    children: f64,
}

impl Stat {
    fn whole(&self) -> f64 {
        self.own + self.children
    }

    /// proc_pid_stat(5), fields 4 and 14 to 17.
    fn read(pid: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may contain anything.
        let fields: Vec<&str> = text.rsplit_once(") ")?.1.split(' ').collect();
        let time = |field: usize| -> Option<f64> { fields.get(field)?.parse().ok() };
        Some(Self {
            parent: fields.get(1)?.parse().ok()?,
            own: (time(11)? + time(12)?) / TICKS,
            children: (time(13)? + time(14)?) / TICKS,
        })
    }
}

/// proc_stat(5): user, nice, system, and behind idle and iowait irq, softirq and steal.
fn busy() -> Result<f64> {
    let stat = fs::read_to_string("/proc/stat")?;
    let fields = stat.lines().next().context("an empty /proc/stat")?;
    let ticks: Vec<f64> = fields
        .split_whitespace()
        .skip(1)
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    let busy = ticks.iter().take(3).chain(ticks.iter().skip(5).take(3));
    Ok(busy.sum::<f64>() / TICKS)
}
