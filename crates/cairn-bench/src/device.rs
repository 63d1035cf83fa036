//! Facts about the machine, the device and the file system that figures mean nothing without.
//!
//! No host name and no path of the machine gets into a report.

use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result};
use rustix::fs::{major, minor};
use serde::{Deserialize, Serialize};

use crate::priority::{Scheduling, stat_field};
use crate::raw::file::{AlignedBuf, open_direct};

/// The header of a report.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Facts {
    /// Day of the run, UTC.
    pub(crate) date: String,
    /// Kernel name and release.
    pub(crate) kernel: String,
    /// CPU model.
    pub(crate) cpu: String,
    /// CPUs that this process may run on.
    pub(crate) cores: usize,
    /// Which they are, which are online, and which of those the device interrupts:
    /// `1 of 0-1, interrupted on 1`.
    pub(crate) cpus: String,
    /// Memory in MiB.
    pub(crate) memory_mib: u64,
    /// File system type.
    pub(crate) file_system: String,
    /// Mount options.
    pub(crate) mount_options: String,
    /// Block device: name, model when it says one.
    pub(crate) device: String,
    /// Its size in GiB.
    pub(crate) device_gib: u64,
    /// `rotational`, `scheduler`, `write_cache`, `fua`, `logical_block_size`,
    /// `physical_block_size`.
    pub(crate) queue: Vec<(String, String)>,
    /// Scheduling policy of this process.
    pub(crate) scheduling: String,
    /// A 4 KiB write, O_DIRECT|O_DSYNC, over zeros: microseconds at p50 and p99.
    pub(crate) raw_write_us: Option<(f64, f64)>,
    /// Load average when the run began: who else was there.
    pub(crate) load: String,
}

impl Facts {
    /// Looks at everything. Writes, and removes, one file in `dir`.
    pub(crate) fn gather(dir: &Path) -> Result<Self> {
        let uname = rustix::system::uname();
        let cpuinfo = read("/proc/cpuinfo");
        let cpu = cpuinfo
            .lines()
            .find_map(|l| l.strip_prefix("model name"))
            .map(|l| l.trim_start_matches([' ', '\t', ':']));
        let meminfo = read("/proc/meminfo");
        let memory = meminfo
            .lines()
            .find_map(|l| l.strip_prefix("MemTotal:"))
            .and_then(|l| l.trim().strip_suffix(" kB"));
        let (file_system, mount_options) = mount(dir)?;
        let block = block_dir(dir);
        let attribute = |name: &str| {
            block.as_ref().map(|b| read(b.join(name)).trim().to_owned()).filter(|t| !t.is_empty())
        };
        let name =
            block.as_ref().and_then(|b| b.file_name()).map(|n| n.to_string_lossy().into_owned());
        let model = attribute("device/model");
        let sectors = attribute("size").and_then(|s| s.parse::<u64>().ok()).unwrap_or(0);
        let queue = [
            "rotational",
            "scheduler",
            "write_cache",
            "fua",
            "logical_block_size",
            "physical_block_size",
        ];
        let queue = queue
            .iter()
            .filter_map(|q| Some((q.to_string(), attribute(&format!("queue/{q}"))?)))
            .collect();
        Ok(Facts {
            date: today(),
            kernel: format!(
                "{} {}",
                uname.sysname().to_string_lossy(),
                uname.release().to_string_lossy()
            ),
            cpu: cpu.unwrap_or("unknown").to_owned(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            cpus: cpus(block.as_deref()),
            memory_mib: memory.and_then(|m| m.trim().parse::<u64>().ok()).unwrap_or(0) / 1024,
            file_system,
            mount_options,
            device: [name, model].into_iter().flatten().collect::<Vec<_>>().join(" "),
            device_gib: sectors / 2 / 1024 / 1024,
            queue,
            scheduling: scheduling(),
            raw_write_us: raw_write(dir).ok(),
            load: read("/proc/loadavg").split_whitespace().take(3).collect::<Vec<_>>().join(" "),
        })
    }
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn today() -> String {
    let seconds = rustix::time::clock_gettime(rustix::time::ClockId::Realtime).tv_sec;
    let (mut year, mut days) = (1970, seconds / 86400);
    let leap = |y: i64| y % 4 == 0 && (y % 100 != 0 || y % 400 == 0);
    while days >= 365 + i64::from(leap(year)) {
        days -= 365 + i64::from(leap(year));
        year += 1;
    }
    let february = 28 + i64::from(leap(year));
    let mut month = 1;
    for len in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < len {
            break;
        }
        days -= len;
        month += 1;
    }
    format!("{year:04}-{month:02}-{:02}", days + 1)
}

/// Type and options of the mount that `dir` is on.
fn mount(dir: &Path) -> Result<(String, String)> {
    let dir = dir.canonicalize().context("the directory to measure in")?;
    let mounts = read("/proc/self/mounts");
    let mut best: Option<(usize, String, String)> = None;
    for line in mounts.lines() {
        let fields: Vec<_> = line.split(' ').collect();
        if let [_, point, kind, options, ..] = fields[..]
            && dir.starts_with(point)
            && best.as_ref().is_none_or(|(len, ..)| point.len() >= *len)
        {
            best = Some((point.len(), kind.to_owned(), options.to_owned()));
        }
    }
    let (_, kind, options) = best.context("no mount point found")?;
    Ok((kind, options))
}

/// `/sys/block/NAME` of the whole device below `dir`, when there is one.
fn block_dir(dir: &Path) -> Option<PathBuf> {
    let file = File::open(dir).ok()?;
    let device = rustix::fs::fstat(file.as_fd()).ok()?.st_dev;
    let link = format!("/sys/dev/block/{}:{}", major(device), minor(device));
    let path = Path::new(&link).canonicalize().ok()?;
    // A partition has its device as its parent.
    let whole = if path.join("partition").exists() { path.parent()?.to_owned() } else { path };
    Some(whole)
}

fn cpus(block: Option<&Path>) -> String {
    let status = read("/proc/self/status");
    let allowed = status
        .lines()
        .find_map(|l| l.strip_prefix("Cpus_allowed_list:"))
        .unwrap_or_default()
        .trim();
    let online = read("/sys/devices/system/cpu/online");
    let mut cpus = format!("{allowed} of {}", online.trim());
    if let Some(interrupted) = block.and_then(interrupted).filter(|i| !i.is_empty()) {
        let interrupted: Vec<_> = interrupted.iter().map(usize::to_string).collect();
        cpus += &format!(", interrupted on {}", interrupted.join(", "));
    }
    cpus
}

/// The CPUs that serve the device's interrupts. Who waits for the device on another one is woken by
/// a further interrupt.
fn interrupted(block: &Path) -> Option<Vec<usize>> {
    let device = block.join("device").canonicalize().ok()?;
    let device = device.file_name()?.to_str()?;
    let mut counts = Vec::new();
    for line in read("/proc/interrupts").lines() {
        // `virtio1-req.0` and `nvme0q1`, but not `virtio10-req.0`.
        let Some(rest) = line.split_whitespace().last().and_then(|name| name.strip_prefix(device))
        else {
            continue;
        };
        if rest.starts_with(|c: char| c.is_ascii_digit()) {
            continue;
        }
        for (cpu, count) in
            line.split_whitespace().skip(1).map_while(|n| n.parse::<u64>().ok()).enumerate()
        {
            counts.resize(counts.len().max(cpu + 1), 0);
            counts[cpu] += count;
        }
    }
    let all: u64 = counts.iter().sum();
    Some(
        counts
            .iter()
            .enumerate()
            .filter(|(_, count)| **count > all / 100)
            .map(|(cpu, _)| cpu)
            .collect(),
    )
}

/// The counters of the device below `dir`.
pub(crate) fn stat_file(dir: &Path) -> Option<PathBuf> {
    block_dir(dir).map(|b| b.join("stat")).filter(|s| s.exists())
}

/// Policy and priority of this process.
fn scheduling() -> String {
    match Scheduling::current() {
        Scheduling::RealTime { option: "-f", priority } => {
            format!("SCHED_FIFO, priority {priority}")
        }
        Scheduling::RealTime { priority, .. } => format!("SCHED_RR, priority {priority}"),
        Scheduling::Normal => format!("normal, nice {}", stat_field(19)),
    }
}

/// Latency of 4 KiB O_DIRECT|O_DSYNC writes over zeros.
fn raw_write(dir: &Path) -> Result<(f64, f64)> {
    const WRITES: u64 = 2000;
    let dir = tempfile::Builder::new().prefix("cairn-bench-").tempdir_in(dir)?;
    let file = open_direct(&dir.path().join("raw"), 4 << 20)?;
    let mut block = AlignedBuf::new(4096);
    block.push(&[0xA5; 4096])?;
    let mut histogram = crate::measure::histogram();
    for i in 0..WRITES {
        let begin = Instant::now();
        crate::raw::file::write_all_at(&file, block.filled(), i * 4096 % (4 << 20))?;
        histogram.saturating_record(begin.elapsed().as_nanos() as u64);
    }
    let at = |q| histogram.value_at_quantile(q) as f64 / 1000.0;
    Ok((at(0.5), at(0.99)))
}
