//! Medians, ratios, tables.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::cell::{Beside, Key, Mode, PUSHERS, show_bytes};
use crate::device::Facts;
use crate::measure::{Latency, Measurement, Sample};
use crate::proof::Proof;
use crate::subject::{Entry, Side};

/// A subject as the report names it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SubjectFacts {
    /// Its name.
    pub(crate) name: String,
    /// Which side it is on.
    pub(crate) side: Side,
    /// Version of its package.
    pub(crate) version: Option<String>,
    /// How it is used.
    pub(crate) about: String,
    /// Whether it really syncs.
    pub(crate) proof: Proof,
}

impl SubjectFacts {
    /// Facts of an entry.
    pub(crate) fn new(entry: &Entry, proof: Proof) -> Self {
        SubjectFacts {
            name: entry.name.to_owned(),
            side: entry.side,
            version: entry.version().map(str::to_owned),
            about: entry.about.to_owned(),
            proof,
        }
    }
}

/// One measurement as it happened.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Recorded {
    /// Whose.
    pub(crate) subject: String,
    /// In which cell.
    pub(crate) key: Key,
    /// Which repetition, from 0.
    pub(crate) run: usize,
    /// Figures, or why there are none.
    pub(crate) result: Result<Measurement, String>,
}

/// Everything of one run of the harness.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    /// The machine.
    pub(crate) facts: Facts,
    /// Seconds per measurement.
    pub(crate) seconds: f64,
    /// Seconds before each.
    pub(crate) warmup: f64,
    /// Repetitions.
    pub(crate) runs: usize,
    /// Segment size.
    pub(crate) segment_bytes: u64,
    /// Bytes of segments that are kept where old ones are dropped.
    pub(crate) keep_bytes: u64,
    /// Payload prepared for opening.
    pub(crate) open_bytes: u64,
    /// Whether what was prepared had to be read from the device.
    pub(crate) empty_cache: bool,
    /// Free blocks prepared for opening.
    pub(crate) free_blocks: u64,
    /// Who takes part.
    pub(crate) subjects: Vec<SubjectFacts>,
    /// What was measured, in this order.
    pub(crate) measurements: Vec<Recorded>,
}

/// One subject in one cell: medians over the repetitions, each column for itself.
struct Median<'a> {
    subject: &'a SubjectFacts,
    of: Measurement,
    slowest: f64,
    fastest: f64,
}

impl Report {
    /// Keys in the order in which they were measured first.
    fn keys(&self) -> Vec<Key> {
        let mut keys: Vec<Key> = Vec::new();
        for recorded in &self.measurements {
            if !keys.contains(&recorded.key) {
                keys.push(recorded.key);
            }
        }
        keys
    }

    /// All subjects that have figures in a cell, in the order of the list.
    fn medians(&self, key: Key) -> Vec<Median<'_>> {
        let of = |subject: &String| {
            let all =
                self.measurements.iter().filter(move |r| r.key == key && r.subject == *subject);
            all.filter_map(|r| r.result.as_ref().ok()).collect::<Vec<_>>()
        };
        self.subjects.iter().filter_map(|s| Median::new(s, &of(&s.name))).collect()
    }

    /// The report for people.
    pub(crate) fn markdown(&self) -> String {
        let mut out = String::new();
        // Writing to a String does not fail.
        let _ = self.write_markdown(&mut out);
        out
    }

    fn write_markdown(&self, out: &mut String) -> std::fmt::Result {
        let f = &self.facts;
        writeln!(out, "# Benchmark of {}\n", f.date)?;
        writeln!(out, "| | |\n|---|---|")?;
        writeln!(
            out,
            "| kernel | {} |\n| CPU | {}, {} cores ({}), {} MiB of memory |",
            f.kernel, f.cpu, f.cores, f.cpus, f.memory_mib
        )?;
        writeln!(out, "| file system | {} ({}) |", f.file_system, f.mount_options)?;
        let queue = f.queue.iter().map(|(k, v)| format!("{k} {v}")).collect::<Vec<_>>().join(", ");
        writeln!(out, "| device | {}, {} GiB; {queue} |", f.device, f.device_gib)?;
        if let Some((p50, p99)) = f.raw_write_us {
            writeln!(
                out,
                "| 4 KiB write, O_DIRECT\\|O_DSYNC, over zeros | p50 {p50:.1} µs, p99 {p99:.1} µs |"
            )?;
        }
        writeln!(out, "| scheduling | {} |\n| load before | {} |", f.scheduling, f.load)?;
        writeln!(
            out,
            "| each measurement | {} s after {} s, in a process and a directory of its own; \
             medians of {} interleaved runs; segments of {}, {} kept where old ones are \
             dropped |\n",
            self.seconds,
            self.warmup,
            self.measurements.iter().map(|r| r.run + 1).max().unwrap_or(0),
            show_bytes(self.segment_bytes),
            show_bytes(self.keep_bytes),
        )?;
        self.write_ratios(out)?;
        self.write_readers(out)?;
        self.write_openings(out)?;
        self.write_rotations(out)?;
        self.write_soak(out)?;
        self.write_subjects(out)?;
        for key in self.keys() {
            self.write_cell(out, key)?;
        }
        self.write_failures(out)
    }

    fn write_subjects(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "## Subjects\n\n| subject | version | covering barrier | how it is used |\n\
             |---|---|---|---|"
        )?;
        for s in &self.subjects {
            let version = s.version.as_deref().unwrap_or("");
            writeln!(out, "| {} | {version} | {} | {} |", s.name, s.proof.short(), s.about)?;
        }
        writeln!(out)
    }

    fn write_ratios(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "## Ratios\n\nRecords (or opens) per second. A peer without a covering barrier is left \
             out where durability is the point.\n"
        )?;
        writeln!(
            out,
            "| cell | ours | per second | best peer | ratio | best loop | ratio |\n\
             |---|---|---:|---:|---:|---:|---:|"
        )?;
        for key in self.keys() {
            let medians = self.medians(key);
            let best = |side| {
                let all = medians.iter().filter(|m| m.subject.side == side && m.counts(key.mode));
                all.max_by(|a, b| a.of.per_second.total_cmp(&b.of.per_second))
            };
            let figure = |m: &Median<'_>| (m.subject.name.clone(), m.of.per_second);
            let mut peer = best(Side::Peer).map(figure);
            if let (Mode::Tickets(_), None) = (key.mode, &peer) {
                peer = self.best_blocking(key.size);
            }
            let raw = best(Side::Raw).map(figure);
            let mut ours: Vec<_> = medians
                .iter()
                .filter(|m| m.subject.side == Side::Ours)
                .map(|m| Some(figure(m)))
                .collect();
            if ours.is_empty() {
                ours.push(None);
            }
            for ours in ours {
                let versus = |other: &Option<(String, f64)>| match (&ours, other) {
                    (_, None) => ("–".to_owned(), "–".to_owned()),
                    (None, Some((name, rate))) => {
                        (format!("{} {name}", count(*rate)), "–".to_owned())
                    }
                    (Some((_, ours)), Some((name, rate))) => {
                        (format!("{} {name}", count(*rate)), times(*ours, *rate))
                    }
                };
                let (peer, over_peer) = versus(&peer);
                let (raw, over_raw) = versus(&raw);
                let (name, rate) = ours
                    .as_ref()
                    .map_or(("–", "–".to_owned()), |(name, rate)| (name, count(*rate)));
                writeln!(
                    out,
                    "| {key} | {name} | {rate} | {peer} | {over_peer} | {raw} | {over_raw} |"
                )?;
            }
        }
        writeln!(out)
    }

    /// The best figure of any peer that waits for each record, for tickets to be compared with.
    fn best_blocking(&self, size: usize) -> Option<(String, f64)> {
        let keys = self
            .keys()
            .into_iter()
            .filter(|k| k.mode == Mode::Durable && k.size == size && k.barrier_latency_us == 0);
        let all = keys.flat_map(|key| self.medians(key).into_iter().map(move |m| (key, m)));
        let peers = all.filter(|(key, m)| m.subject.side == Side::Peer && m.counts(key.mode));
        let best = peers.max_by(|a, b| a.1.of.per_second.total_cmp(&b.1.of.per_second))?;
        Some((
            format!("{} (blocking, {} threads)", best.1.subject.name, best.0.threads),
            best.1.of.per_second,
        ))
    }

    /// Readers with and without others that push.
    fn write_readers(&self, out: &mut String) -> std::fmt::Result {
        let mut rows = String::new();
        for busy in self.keys().into_iter().filter(|k| k.mode == Mode::StackGet(Beside::Pushes)) {
            let idle = self.medians(Key { mode: Mode::StackGet(Beside::Idle), ..busy });
            for b in self.medians(busy) {
                if let Some(i) = idle.iter().find(|i| i.subject.name == b.subject.name) {
                    let ratio = b.of.per_second / i.of.per_second;
                    let (idle, under) = (count(i.of.per_second), count(b.of.per_second));
                    let note = b.of.note.as_deref().unwrap_or_default();
                    writeln!(
                        rows,
                        "| {busy} | {} | {idle} | {under} | {ratio:.2} | {note} |",
                        b.subject.name
                    )?;
                }
            }
        }
        if rows.is_empty() {
            return Ok(());
        }
        writeln!(out, "## Readers beside {PUSHERS} threads that push\n")?;
        writeln!(
            out,
            "| cell | subject | alone, per second | beside them | busy/idle | |\n\
             |---|---|---:|---:|---:|---|\n{rows}"
        )
    }

    /// Openings in milliseconds.
    fn write_openings(&self, out: &mut String) -> std::fmt::Result {
        let keys: Vec<_> = self.keys().into_iter().filter(|k| k.mode.opens()).collect();
        if keys.is_empty() {
            return Ok(());
        }
        let (bytes, blocks) = (show_bytes(self.open_bytes), self.free_blocks);
        let cache = if self.empty_cache {
            "is empty of it, as after a reboot"
        } else {
            "holds what the writer left in it"
        };
        writeln!(
            out,
            "## Opening\n\nLogs and stacks with {bytes} of payload, heaps with {blocks} free \
             blocks. The page cache {cache}.\n"
        )?;
        writeln!(
            out,
            "| cell | subject | ms | fastest–slowest | records or blocks | RSS MiB | times ours |"
        )?;
        writeln!(out, "|---|---|---:|---:|---:|---:|---:|")?;
        for key in keys {
            let medians = self.medians(key);
            let ours = medians.iter().find(|m| m.subject.side == Side::Ours).map(|m| m.of.seconds);
            for m in &medians {
                let times =
                    ours.map_or("–".to_owned(), |ours| format!("{:.1}×", m.of.seconds / ours));
                writeln!(
                    out,
                    "| {key} | {} | {:.2} | {:.2}–{:.2} | {} | {:.0} | {times} |",
                    m.subject.name,
                    m.of.seconds * 1e3,
                    1e3 / m.fastest,
                    1e3 / m.slowest,
                    m.of.records,
                    m.of.rss_peak as f64 / 1048576.0,
                )?;
            }
        }
        writeln!(out)
    }

    /// What changing segments does to latency and to space. The loops change none, and show the
    /// device's own tail.
    fn write_rotations(&self, out: &mut String) -> std::fmt::Result {
        let rotated = |m: &Median<'_>| m.of.rotations.is_some_and(|r| r > 0.0);
        let keys: Vec<_> =
            self.keys().into_iter().filter(|k| self.medians(*k).iter().any(rotated)).collect();
        if keys.is_empty() {
            return Ok(());
        }
        writeln!(
            out,
            "## Rotations\n\n| cell | subject | rotations | p50 µs | p99.9 | p99.9/p50 | max | \
             commits at a rotation: p50 µs | p99 | max | disk bytes per frame byte |"
        )?;
        writeln!(out, "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|")?;
        for key in keys {
            for m in self.medians(key) {
                let Latency { p50, p999, max, .. } = m.of.latency_us;
                let rotations = m.of.rotations.map_or("–".to_owned(), |r| format!("{r:.0}"));
                let at = m.of.at_rotation_us;
                let at = at.map_or("– | – | –".to_owned(), |l| {
                    format!("{:.1} | {:.1} | {:.0}", l.p50, l.p99, l.max)
                });
                let disk = m.of.disk_per_frame_byte.map_or("–".to_owned(), |d| format!("{d:.3}"));
                writeln!(
                    out,
                    "| {key} | {} | {rotations} | {p50:.1} | {p999:.1} | {:.2} | {max:.0} | {at} | \
                     {disk} |",
                    m.subject.name,
                    p999 / p50,
                )?;
            }
        }
        writeln!(out)
    }

    /// The series of long runs, and their ends.
    fn write_soak(&self, out: &mut String) -> std::fmt::Result {
        const MIB: f64 = 1048576.0;
        for recorded in &self.measurements {
            let Ok(m) = &recorded.result else { continue };
            let (Some(first), Some(last)) = (m.series.first(), m.series.last()) else { continue };
            writeln!(out, "## {}, {}, run {}\n", recorded.key, recorded.subject, recorded.run + 1)?;
            writeln!(
                out,
                "| payload GiB | seconds | RSS MiB | descriptors | disk MiB |\n\
                 |---|---:|---:|---:|---:|"
            )?;
            let row = |name: String, s: &Sample| {
                let (rss, disk) = (s.rss_bytes as f64 / MIB, s.disk_bytes as f64 / MIB);
                format!("| {name} | {:.1} | {rss:.1} | {} | {disk:.1} |", s.seconds, s.descriptors)
            };
            for sample in &m.series {
                writeln!(
                    out,
                    "{}",
                    row(format!("{:.2}", sample.payload_bytes as f64 / MIB / 1024.0), sample)
                )?;
            }
            let most = m.series.iter().copied().reduce(|a, b| Sample {
                rss_bytes: a.rss_bytes.max(b.rss_bytes),
                descriptors: a.descriptors.max(b.descriptors),
                disk_bytes: a.disk_bytes.max(b.disk_bytes),
                ..b
            });
            let rows =
                [("**first**", Some(first)), ("**last**", Some(last)), ("**most**", most.as_ref())];
            for (name, sample) in rows {
                sample
                    .map_or(Ok(()), |sample| writeln!(out, "{}", row(name.to_owned(), sample)))?;
            }
            writeln!(out)?;
        }
        Ok(())
    }

    fn write_cell(&self, out: &mut String, key: Key) -> std::fmt::Result {
        writeln!(out, "## {key}\n")?;
        writeln!(
            out,
            "| subject | per second | slowest–fastest run | MB/s | p50 µs | p99 | p99.9 | max | \
             CPU µs/record | switches/record | barriers/record | device flushes/record | bytes \
             written/record | device bytes/record | rotations | RSS MiB | note |"
        )?;
        writeln!(
            out,
            "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|"
        )?;
        for m in self.medians(key) {
            let Latency { p50, p99, p999, max } = m.of.latency_us;
            let barriers = m.of.barriers.map_or("–".to_owned(), |b| format!("{b:.3}"));
            let rotations = m.of.rotations.map_or("–".to_owned(), |r| format!("{r:.0}"));
            let mut notes: Vec<String> = m.of.note.iter().cloned().collect();
            if !m.counts(key.mode) && m.subject.side == Side::Peer {
                notes.insert(0, "**no covering barrier**".to_owned());
            }
            writeln!(
                out,
                "| {} | {} | {}–{} | {:.0} | {p50:.1} | {p99:.1} | {p999:.1} | {max:.0} | {:.2} | \
                 {:.2} | {barriers} | {:.3} | {:.0} | {:.0} | {rotations} | {:.0} | {} |",
                m.subject.name,
                count(m.of.per_second),
                count(m.slowest),
                count(m.fastest),
                m.of.mb_per_second,
                m.of.cpu_us,
                m.of.switches,
                m.of.device_flushes,
                m.of.write_bytes,
                m.of.device_bytes,
                m.of.rss_peak as f64 / 1048576.0,
                notes.join("; "),
            )?;
        }
        writeln!(out)
    }

    fn write_failures(&self, out: &mut String) -> std::fmt::Result {
        let failures: Vec<_> =
            self.measurements.iter().filter_map(|r| Some((r, r.result.as_ref().err()?))).collect();
        if failures.is_empty() {
            return Ok(());
        }
        writeln!(out, "## No figures\n\n| cell | subject | run | why |\n|---|---|---:|---|")?;
        for (r, why) in failures {
            writeln!(
                out,
                "| {} | {} | {} | {} |",
                r.key,
                r.subject,
                r.run + 1,
                why.replace('|', "\\|").replace('\n', " ")
            )?;
        }
        writeln!(out)
    }
}

impl<'a> Median<'a> {
    fn new(subject: &'a SubjectFacts, all: &[&Measurement]) -> Option<Self> {
        let first = *all.first()?;
        // A run may lack what others have: no segment was sealed in it.
        let sorted = |of: &dyn Fn(&Measurement) -> Option<f64>| {
            let mut values: Vec<f64> = all.iter().filter_map(|m| of(m)).collect();
            values.sort_by(f64::total_cmp);
            values
        };
        let middle = |of: &dyn Fn(&Measurement) -> Option<f64>| {
            let values = sorted(of);
            let last = values.len().checked_sub(1)?;
            Some((values[last / 2] + values[values.len() / 2]) / 2.0)
        };
        let median =
            |of: &dyn Fn(&Measurement) -> f64| middle(&|m| Some(of(m))).unwrap_or_default();
        let latency = |of: &dyn Fn(&Measurement) -> Option<Latency>| {
            Some(Latency {
                p50: middle(&|m| of(m).map(|l| l.p50))?,
                p99: middle(&|m| of(m).map(|l| l.p99))?,
                p999: middle(&|m| of(m).map(|l| l.p999))?,
                max: middle(&|m| of(m).map(|l| l.max))?,
            })
        };
        let rates = sorted(&|m| Some(m.per_second));
        let of = Measurement {
            per_second: median(&|m| m.per_second),
            mb_per_second: median(&|m| m.mb_per_second),
            records: median(&|m| m.records as f64) as u64,
            seconds: median(&|m| m.seconds),
            latency_us: latency(&|m| Some(m.latency_us)).unwrap_or_default(),
            cpu_us: median(&|m| m.cpu_us),
            switches: median(&|m| m.switches),
            write_bytes: median(&|m| m.write_bytes),
            barriers: middle(&|m| m.barriers),
            device_flushes: median(&|m| m.device_flushes),
            device_writes: median(&|m| m.device_writes),
            device_bytes: median(&|m| m.device_bytes),
            rss_peak: median(&|m| m.rss_peak as f64) as u64,
            rotations: middle(&|m| m.rotations),
            at_rotation_us: latency(&|m| m.at_rotation_us),
            disk_per_frame_byte: middle(&|m| m.disk_per_frame_byte),
            series: Vec::new(),
            note: first.note.clone(),
        };
        let (slowest, fastest) = (*rates.first()?, *rates.last()?);
        Some(Median { subject, of, slowest, fastest })
    }

    /// Whether the figure may be compared with ours in this mode.
    fn counts(&self, mode: Mode) -> bool {
        // A loop without I/O shows what waking costs; it makes nothing durable.
        if self.subject.name == "raw-wake" {
            return false;
        }
        !mode.acknowledges() || self.subject.proof.syncs_or_unknown()
    }
}

/// How many times as fast.
fn times(ours: f64, theirs: f64) -> String {
    if theirs == 0.0 { "∞".to_owned() } else { format!("{:.2}×", ours / theirs) }
}

/// A rate with three significant digits or so.
fn count(rate: f64) -> String {
    match rate {
        r if r >= 1e7 => format!("{:.1} M", r / 1e6),
        r if r >= 1e6 => format!("{:.2} M", r / 1e6),
        r if r >= 1e4 => format!("{:.1} k", r / 1e3),
        r if r >= 1e3 => format!("{:.2} k", r / 1e3),
        r if r >= 100.0 => format!("{r:.0}"),
        r => format!("{r:.2}"),
    }
}
