//! What a process can say about itself: time, CPU, context switches, bytes, memory.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result};
use hdrhistogram::Histogram;
use nix::sys::resource::{UsageWho, getrusage};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::subject::Subject;

/// Counters at one moment. Differences of two are what a measurement reports.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Snapshot {
    /// When.
    pub(crate) at: Instant,
    /// Records acknowledged by then.
    pub(crate) records: u64,
    cpu_ns: u64,
    switches: u64,
    write_bytes: u64,
    device: DeviceCounters,
    /// Barriers, from the subject itself.
    barriers: Option<u64>,
    /// Segments sealed, from the subject itself.
    rotations: Option<u64>,
}

impl Snapshot {
    /// Looks now, and asks the subject if it is one that counts. `device` is the `stat` file of the
    /// block device below the directory, when there is one.
    pub(crate) fn take(
        records: impl FnOnce() -> u64,
        subject: Option<&dyn Subject>,
        device: Option<&Path>,
    ) -> Result<Self> {
        let device = device.map(DeviceCounters::read).transpose()?.unwrap_or_default();
        let usage = getrusage(UsageWho::RUSAGE_SELF).context("getrusage")?;
        let switches = usage.voluntary_context_switches() + usage.involuntary_context_switches();
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        Ok(Snapshot {
            write_bytes: write_bytes()?,
            cpu_ns: cpu.tv_sec as u64 * 1_000_000_000 + cpu.tv_nsec as u64,
            switches: switches as u64,
            device,
            barriers: subject.and_then(Subject::barriers),
            rotations: subject.and_then(Subject::rotations),
            records: records(),
            at: Instant::now(),
        })
    }
}

/// Counters of the block device: of everybody on the machine, not only of this process.
#[derive(Clone, Copy, Debug, Default)]
struct DeviceCounters {
    writes: u64,
    sectors: u64,
    flushes: u64,
}

impl DeviceCounters {
    /// Fields 5, 7 and 16 of `/sys/block/*/stat`, counted from 1.
    fn read(stat: &Path) -> Result<Self> {
        let text = fs::read_to_string(stat).context("the counters of the block device")?;
        let field =
            |i: usize| text.split_whitespace().nth(i).and_then(|f| f.parse().ok()).unwrap_or(0);
        Ok(DeviceCounters { writes: field(4), sectors: field(6), flushes: field(15) })
    }
}

/// Bytes this process caused to be sent to the storage layer.
fn write_bytes() -> Result<u64> {
    let text = fs::read_to_string("/proc/self/io").context("/proc/self/io")?;
    let value = text.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    Ok(value.and_then(|v| v.trim().parse().ok()).unwrap_or(0))
}

/// Peak resident memory of this process in bytes.
pub(crate) fn rss_peak() -> Result<u64> {
    status("VmHWM:")
}

/// A line in KiB of what the kernel knows of this process, in bytes.
fn status(name: &str) -> Result<u64> {
    let text = fs::read_to_string("/proc/self/status").context("/proc/self/status")?;
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    let kib =
        value.and_then(|v| v.trim().strip_suffix(" kB")).and_then(|v| v.trim().parse::<u64>().ok());
    Ok(kib.unwrap_or(0) * 1024)
}

/// What a process uses at one moment of a long run.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// Payload appended by then, in bytes.
    pub(crate) payload_bytes: u64,
    /// Seconds since the run began.
    pub(crate) seconds: f64,
    /// Resident memory in bytes.
    pub(crate) rss_bytes: u64,
    /// Open descriptors.
    pub(crate) descriptors: u64,
    /// Bytes allocated for the files in its directory.
    pub(crate) disk_bytes: u64,
}

impl Sample {
    /// Looks now.
    pub(crate) fn take(payload_bytes: u64, begin: Instant, dir: &Path) -> Result<Self> {
        Ok(Sample {
            payload_bytes,
            seconds: begin.elapsed().as_secs_f64(),
            rss_bytes: status("VmRSS:")?,
            descriptors: fs::read_dir("/proc/self/fd").context("/proc/self/fd")?.count() as u64,
            disk_bytes: disk_bytes(dir)?,
        })
    }
}

/// Bytes allocated for everything in a directory. What is removed meanwhile does not count.
fn disk_bytes(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir).context("the directory of the measurement")? {
        let path = entry?.path();
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_dir() => bytes += disk_bytes(&path)?,
            Ok(metadata) => bytes += metadata.blocks() * 512,
            Err(_) => {}
        }
    }
    Ok(bytes)
}

/// A histogram of nanoseconds with three significant digits, up to a minute.
pub(crate) fn histogram() -> Histogram<u64> {
    let mut histogram = Histogram::new_with_bounds(1, 60_000_000_000, 3)
        .unwrap_or_else(|_| unreachable!("the bounds are legal"));
    // Slower than a minute is a minute.
    histogram.auto(false);
    histogram
}

/// What one measurement found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Measurement {
    /// Records (or opens) per second.
    pub(crate) per_second: f64,
    /// Payload per second in 10^6 bytes.
    pub(crate) mb_per_second: f64,
    /// Records acknowledged in the window.
    pub(crate) records: u64,
    /// Length of the window.
    pub(crate) seconds: f64,
    /// Latency of one call in microseconds: a commit, a batch, a ticket, a sampled append, an open.
    pub(crate) latency_us: Latency,
    /// CPU time of the whole process per record, in microseconds.
    pub(crate) cpu_us: f64,
    /// Context switches of the whole process per record.
    pub(crate) switches: f64,
    /// Bytes this process sent towards the device, per record.
    pub(crate) write_bytes: f64,
    /// Barriers per record, counted by the subject.
    pub(crate) barriers: Option<f64>,
    /// Flushes the device completed, for everybody, per record.
    pub(crate) device_flushes: f64,
    /// Writes the device completed, for everybody, per record.
    pub(crate) device_writes: f64,
    /// Bytes the device wrote, for everybody, per record.
    pub(crate) device_bytes: f64,
    /// Peak resident memory in bytes.
    pub(crate) rss_peak: u64,
    /// Segments sealed in the window, counted by the subject.
    pub(crate) rotations: Option<f64>,
    /// Latency of the commits during which a segment was sealed.
    pub(crate) at_rotation_us: Option<Latency>,
    /// Bytes allocated on disk for sealed segments, per byte of payload and frame in them.
    pub(crate) disk_per_frame_byte: Option<f64>,
    /// What a long run used as it went on.
    pub(crate) series: Vec<Sample>,
    /// What the subject says it is doing.
    pub(crate) note: Option<String>,
}

/// Latency in microseconds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Latency {
    /// Half are faster.
    pub(crate) p50: f64,
    /// One in a hundred is slower.
    pub(crate) p99: f64,
    /// One in a thousand is slower.
    pub(crate) p999: f64,
    /// None is slower.
    pub(crate) max: f64,
}

impl Latency {
    /// From a histogram of nanoseconds.
    pub(crate) fn of(histogram: &Histogram<u64>) -> Self {
        let at = |q| histogram.value_at_quantile(q) as f64 / 1000.0;
        Latency {
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            max: histogram.max() as f64 / 1000.0,
        }
    }
}

impl Measurement {
    /// What happened between two moments.
    pub(crate) fn between(
        a: &Snapshot,
        b: &Snapshot,
        size: usize,
        histogram: &Histogram<u64>,
        note: Option<String>,
    ) -> Result<Self> {
        let seconds = (b.at - a.at).as_secs_f64();
        let records = b.records - a.records;
        let per_record = |a: u64, b: u64| b.saturating_sub(a) as f64 / records.max(1) as f64;
        let per_second = records as f64 / seconds;
        Ok(Measurement {
            per_second,
            mb_per_second: per_second * size as f64 / 1e6,
            records,
            seconds,
            latency_us: Latency::of(histogram),
            cpu_us: per_record(a.cpu_ns, b.cpu_ns) / 1000.0,
            switches: per_record(a.switches, b.switches),
            write_bytes: per_record(a.write_bytes, b.write_bytes),
            barriers: a.barriers.zip(b.barriers).map(|(a, b)| per_record(a, b)),
            device_flushes: per_record(a.device.flushes, b.device.flushes),
            device_writes: per_record(a.device.writes, b.device.writes),
            device_bytes: per_record(a.device.sectors, b.device.sectors) * 512.0,
            rss_peak: rss_peak()?,
            rotations: a.rotations.zip(b.rotations).map(|(a, b)| (b - a) as f64),
            at_rotation_us: None,
            disk_per_frame_byte: None,
            series: Vec::new(),
            note,
        })
    }
}
