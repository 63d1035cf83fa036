//! `cairn doctor`: what a directory's device and file system really do, and what that means for a
//! log.

pub(crate) mod device;
mod probe;

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use bytesize::ByteSize;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::progress::{short_count, short_us};
use crate::report::{self, Outcome, Status};
use crate::text::shown;
use crate::{progress, scratch, signals};
use device::{Class, Facts};
use probe::{Ability, Cost, Probes};

/// Find out what a directory's device and file system really do
///
/// Writes, syncs and locks files in a directory of its own inside DIR for a few seconds, and
/// removes it. What else is in DIR is not touched.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// Directory to examine: where a log is, or will be
    dir: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Exit with code 5 if there is a warning, or something recommended is not there
    #[arg(long)]
    strict: bool,
}

const HELP: &str = "\
Examples:
  cairn doctor .
  cairn doctor /var/lib/app --json | jq '.warnings[].message'
  cairn doctor /var/lib/app --strict && start-the-service

What is found out:
  What a barrier costs after bytes were overwritten, after a file grew, and for a directory; whether
  files can be written past the page cache, and with which alignment; whether space can be
  reserved; whether locks keep others out; what the mount table and the block device say.

What is recommended:
  Direct I/O, reserving space, locks, and nothing to warn of. What is missing of it is listed by the
  name that --json gives it.

What no program can find out:
  Whether a device that says \"flushed\" tells the truth. One that is too fast to do so is
  suspected.

Exit codes:
  0  examined; without --strict also when there are warnings
  1  failed: see the message
  2  wrong usage
  5  with --strict: something recommended is missing";

/// Below this no medium that survives a power cut answers, unless it has a cache with a battery.
const SUSPICIOUS_US: f64 = 5.0;
/// From here on single commits are slow enough that one should know.
const SLOW_US: f64 = 2_000.0;
/// Room that a log should have: a few segments.
const FREE_MIN: u64 = 1 << 30;

/// All there is to say.
#[derive(Debug, Serialize)]
struct Diagnosis {
    dir: PathBuf,
    #[serde(flatten)]
    facts: Facts,
    #[serde(flatten)]
    probes: Probes,
    warnings: Vec<Warning>,
    /// What is recommended and not there: the kinds of the warnings, and abilities.
    missing: Vec<&'static str>,
    advice: Vec<String>,
}

/// Something that endangers what is kept here.
#[derive(Debug, Serialize)]
struct Warning {
    kind: &'static str,
    message: String,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let stop = signals::stop_flag().context("cannot handle signals")?;
    signals::survive_file_size_limit().context("cannot handle signals")?;
    let scratch = scratch::create(&args.dir, "cairn-doctor")?;
    let spinner = progress::count(None, "examining");
    let probes = probe::probe(scratch.path(), &stop);
    spinner.finish_and_clear();
    let probes = probes?;
    scratch::remove(scratch)?;
    let facts = Facts::of(&args.dir);
    let (warnings, advice) = (warnings(&facts, &probes), advice(&facts, &probes));
    let missing = missing(&warnings, &probes);
    let diagnosis = Diagnosis { dir: args.dir.clone(), facts, probes, warnings, missing, advice };
    if args.json {
        report::print_json(&diagnosis)?;
    } else {
        report::print(&diagnosis.to_text())?;
    }
    let is_fine = diagnosis.missing.is_empty() || !args.strict;
    Ok(if is_fine { Status::Done } else { Status::No })
}

/// What is recommended and not there.
fn missing(warnings: &[Warning], probes: &Probes) -> Vec<&'static str> {
    let abilities = [("direct-io", &probes.direct_io), ("preallocation", &probes.preallocation)];
    let without = abilities.into_iter().filter(|(_, ability)| ability.works != Some(true));
    let mut missing: Vec<_> = warnings.iter().map(|warning| warning.kind).collect();
    missing.extend(without.map(|(name, _)| name));
    missing
}

fn warnings(facts: &Facts, probes: &Probes) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let mut warn = |kind, message: String| warnings.push(Warning { kind, message });
    if let Some((kind, message)) = class_warning(facts.file_system.class) {
        warn(kind, format!("{} is {message}", facts.file_system.kind));
    }
    for option in ["nobarrier", "barrier=0", "volatile"] {
        if facts.file_system.has_option(option) {
            warn(
                "no-barriers",
                format!(
                    "mounted with {option}: barriers do not reach the device; mount it without"
                ),
            );
        }
    }
    let fastest = probes.barriers.overwrite.p50_us.min(probes.barriers.append.p50_us);
    if fastest < SUSPICIOUS_US {
        let cost = short_us(fastest);
        warn(
            "fast-barrier",
            format!(
                "a barrier in {cost} is faster than a device can make anything durable: either \
                 nothing is written before it returns, and a power cut loses what was \
                 acknowledged, or a cache with a battery answers"
            ),
        );
    }
    if probes.locks.works == Some(false) {
        let why = probes.locks.why.as_deref().unwrap_or("unknown");
        warn(
            "locks",
            format!(
                "locks do not keep others out ({why}): never let two processes open one log here"
            ),
        );
    }
    if let Some(free) = facts.file_system.free_bytes.filter(|free| *free < FREE_MIN) {
        warn(
            "space",
            format!(
                "{} are free: a log that cannot grow refuses to append; make room",
                ByteSize(free)
            ),
        );
    }
    warnings
}

/// What is wrong with a kind of file system, however it behaves.
fn class_warning(class: Class) -> Option<(&'static str, &'static str)> {
    Some(match class {
        Class::Memory => {
            ("memory", "memory: nothing here survives a power cut or a restart; use a disk")
        }
        Class::Network => (
            "network",
            "on another machine, which decides what a barrier means and whether locks work; use a \
             local disk for a log",
        ),
        Class::Shared => (
            "shared",
            "the host's, which decides what a barrier means; use a disk of this machine for a log",
        ),
        Class::Overlay => (
            "overlay",
            "a container's layer, which goes when the container goes; put the log on a volume",
        ),
        Class::Fuse => (
            "fuse",
            "served by a process (FUSE), which decides what a barrier means; ask its makers",
        ),
        Class::Local | Class::Unknown => return None,
    })
}

fn advice(facts: &Facts, probes: &Probes) -> Vec<String> {
    let mut advice = vec![backend_advice(probes)];
    let barriers = &probes.barriers;
    let commit =
        barriers.direct.filter(|_| probes.backend == "direct").unwrap_or(barriers.overwrite);
    if commit.p50_us >= SUSPICIOUS_US {
        advice.push(format!(
            "one thread that waits for each commit gets to about {} records/s, because that is \
             what a barrier takes; for more, commit from several threads, in batches or with \
             tickets",
            short_count(1e6 / commit.p50_us)
        ));
    }
    if commit.p50_us >= SLOW_US {
        let slow = short_us(commit.p50_us);
        advice.push(format!(
            "a barrier takes {slow}: do not let anything wait for single commits that can share one"
        ));
    }
    let growth = barriers.append.p50_us / barriers.overwrite.p50_us.max(0.001);
    if growth >= 1.5 {
        advice.push(format!(
            "a barrier after growth costs {growth:.1} times one after overwriting: the log fills \
             its files with zeros ahead of time, so leave some space"
        ));
    }
    if probes.preallocation.works == Some(false) {
        advice.push("space cannot be reserved here: leave more free than the log needs".to_owned());
    }
    if facts.device.as_ref().is_some_and(device::Device::is_virtual) {
        advice.push(
            "the disk is a virtual one: barriers are as true as the host makes them; see that its \
             cache mode honours flushes"
                .to_owned(),
        );
    }
    if facts.is_busy() {
        advice.push(
            "the machine is busy: what is measured now is slower than what the device can do"
                .to_owned(),
        );
    }
    advice.push("measure it with `cairn bench`".to_owned());
    advice
}

fn backend_advice(probes: &Probes) -> String {
    match (probes.backend.as_str(), &probes.direct_io.why) {
        ("direct", _) => {
            "a log here writes past the page cache, each commit one write that is its own barrier"
                .to_owned()
        }
        ("buffered", Some(why)) => {
            format!(
                "a log here writes through the page cache, then syncs, because there are no direct \
                 writes: {why}"
            )
        }
        (backend, _) => format!("a log here commits this way: {backend}"),
    }
}

impl Ability {
    fn to_text(&self) -> String {
        match (self.works, &self.why) {
            (Some(true), _) => "works".to_owned(),
            (Some(false), Some(why)) => format!("does not work: {why}"),
            (Some(false), None) => "does not work".to_owned(),
            (None, why) => why.clone().unwrap_or_else(|| "unknown".to_owned()),
        }
    }
}

impl Diagnosis {
    fn to_text(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: &str| {
            let _ = writeln!(text, "{name:<13} {value}");
        };
        line("directory", &shown(&self.dir));
        for (name, value) in self.facts.lines() {
            line(name, &value);
        }
        let probes = &self.probes;
        let blocks = probes
            .direct_block_size
            .map(|size| format!(", in blocks of {size} bytes"))
            .unwrap_or_default();
        line("direct I/O", &(probes.direct_io.to_text() + &blocks));
        line("io_uring", &probes.io_uring.to_text());
        line("preallocation", &probes.preallocation.to_text());
        line("locks", &probes.locks.to_text());
        line("log backend", &probes.backend);
        let missing =
            if self.missing.is_empty() { "nothing".into() } else { self.missing.join(", ") };
        line("missing", &missing);
        let _ = writeln!(text, "\n{}\n", self.probes.barriers.to_table().trim_fmt());
        for warning in &self.warnings {
            let _ = writeln!(text, "\x1b[1;33mwarning\x1b[0m: {}", warning.message);
        }
        for advice in &self.advice {
            let _ = writeln!(text, "- {advice}");
        }
        text
    }
}

impl probe::Barriers {
    fn to_table(&self) -> Table {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING);
        table.set_header(["BARRIER", "TIMES", "P50", "P99", "MAX"]);
        let mut row = |name: &str, cost: &Cost| {
            let us = [cost.p50_us, cost.p99_us, cost.max_us].map(short_us);
            table.add_row([name.to_owned(), cost.count.to_string()].into_iter().chain(us));
        };
        row("fdatasync after overwriting 4 KiB", &self.overwrite);
        row("fdatasync after appending 4 KiB", &self.append);
        row("fsync of a directory after creating a file", &self.directory);
        if let Some(direct) = &self.direct {
            row("direct write of 4 KiB, its own barrier", direct);
        }
        for numbers in 1..=4 {
            if let Some(column) = table.column_mut(numbers) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use device::{Device, FileSystem};
    use probe::Barriers;

    fn facts(class: Class) -> Facts {
        Facts {
            system: "linux".to_owned(),
            cpus: 2,
            load: None,
            file_system: FileSystem {
                kind: "somefs".to_owned(),
                class,
                mount_point: None,
                options: "rw,noatime".to_owned(),
                total_bytes: Some(1 << 40),
                free_bytes: Some(1 << 39),
            },
            device: None,
        }
    }

    fn cost(us: f64) -> Cost {
        Cost { count: 300, p50_us: us, p99_us: us, max_us: us }
    }

    fn probes(overwrite_us: f64, append_us: f64) -> Probes {
        let (overwrite, append, directory) = (cost(overwrite_us), cost(append_us), cost(append_us));
        Probes {
            barriers: Barriers { overwrite, append, directory, direct: None },
            direct_io: Ability::no("not supported here"),
            direct_block_size: None,
            io_uring: Ability { works: None, why: None },
            preallocation: Ability::yes(),
            locks: Ability::yes(),
            backend: "buffered".to_owned(),
        }
    }

    #[track_caller]
    fn check(facts: &Facts, probes: &Probes, kinds: &[&str]) {
        let found: Vec<_> = warnings(facts, probes).iter().map(|warning| warning.kind).collect();
        assert_eq!(found, kinds);
    }

    #[test]
    fn what_endangers_records_is_warned_of() {
        let disk = probes(30.0, 60.0);
        check(&facts(Class::Local), &disk, &[]);
        check(&facts(Class::Unknown), &disk, &[]);
        check(&facts(Class::Memory), &probes(0.3, 0.3), &["memory", "fast-barrier"]);
        check(&facts(Class::Network), &disk, &["network"]);
        check(&facts(Class::Overlay), &disk, &["overlay"]);
        check(&facts(Class::Fuse), &disk, &["fuse"]);
        check(&facts(Class::Shared), &disk, &["shared"]);
        check(&facts(Class::Local), &probes(4.9, 60.0), &["fast-barrier"]);
        check(
            &facts(Class::Local),
            &Probes { locks: Ability::no("two"), ..probes(30.0, 60.0) },
            &["locks"],
        );
        let mut full = facts(Class::Local);
        full.file_system.free_bytes = Some(1 << 20);
        full.file_system.options = "rw,nobarrier".to_owned();
        check(&full, &disk, &["no-barriers", "space"]);
        full.file_system.free_bytes = None;
        check(&full, &disk, &["no-barriers"]);
    }

    #[test]
    fn what_is_recommended_and_missing_is_named() {
        let named = |class, probes: &Probes| missing(&warnings(&facts(class), probes), probes);
        let direct = Probes { direct_io: Ability::yes(), ..probes(30.0, 60.0) };
        assert!(named(Class::Local, &direct).is_empty());
        assert_eq!(named(Class::Overlay, &direct), ["overlay"]);
        let without = Probes { preallocation: Ability::no("full"), ..probes(30.0, 60.0) };
        assert_eq!(named(Class::Local, &without), ["direct-io", "preallocation"]);
    }

    #[test]
    fn advice_fits_the_device() {
        let all = |facts: &Facts, probes: &Probes| advice(facts, probes).join("\n");
        let slow = all(&facts(Class::Local), &probes(8_000.0, 16_000.0));
        assert!(!slow.contains("busy"), "{slow}");
        for words in ["through the page cache", "about 125 records/s", "8.00 ms", "2.0 times"] {
            assert!(slow.contains(words), "{words:?} is missing: {slow}");
        }
        let virtio = Device {
            name: "vda".to_owned(),
            model: None,
            write_cache: Some("write back".to_owned()),
            rotational: Some(false),
            logical_block_size: Some(512),
            physical_block_size: Some(512),
            below: Vec::new(),
        };
        let facts = Facts { device: Some(virtio), load: Some(2.5), ..facts(Class::Local) };
        let direct = Probes { backend: "direct".to_owned(), ..probes(50.0, 60.0) };
        let direct =
            Probes { barriers: Barriers { direct: Some(cost(20.0)), ..direct.barriers }, ..direct };
        let fast = all(&facts, &direct);
        for words in ["past the page cache", "about 50.0 k records/s", "virtual", "busy"] {
            assert!(fast.contains(words), "{words:?} is missing: {fast}");
        }
        assert!(!fast.contains("times one after"), "{fast}");
    }
}
