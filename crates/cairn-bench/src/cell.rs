//! What is measured: a subject, a mode, threads, a size; and how a child process is told.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use crate::subject::{Ability, Setup};

/// What the threads of a measurement do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(crate) enum Mode {
    /// Each thread commits one record and waits, again and again.
    Durable,
    /// Each thread appends this many records, then waits for one barrier.
    Batch(usize),
    /// One thread keeps this many commits in flight.
    Tickets(usize),
    /// Each thread appends; everything is handed to the operating system at the end.
    NoSync,
    /// Everything is read back, from the page cache.
    Replay,
    /// A log that was closed is opened.
    OpenClean,
    /// A log whose process was killed is opened.
    OpenCrashed,
}

impl Mode {
    /// What a subject needs to be able to do for it.
    pub(crate) fn ability(self) -> Ability {
        match self {
            Mode::Durable => Ability::Durable,
            Mode::Batch(_) => Ability::Batch,
            Mode::Tickets(_) => Ability::Tickets,
            Mode::NoSync => Ability::NoSync,
            Mode::Replay => Ability::Replay,
            Mode::OpenClean | Mode::OpenCrashed => Ability::Open,
        }
    }

    /// Whether one thread is all there is.
    pub(crate) fn single_threaded(self) -> bool {
        matches!(self, Mode::Tickets(_) | Mode::Replay | Mode::OpenClean | Mode::OpenCrashed)
    }

    /// Whether records have to be written by another process first.
    pub(crate) fn prepared(self) -> bool {
        matches!(self, Mode::Replay | Mode::OpenClean | Mode::OpenCrashed)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mode::Durable => f.write_str("durable"),
            Mode::Batch(k) => write!(f, "batch:{k}"),
            Mode::Tickets(k) => write!(f, "tickets:{k}"),
            Mode::NoSync => f.write_str("nosync"),
            Mode::Replay => f.write_str("replay"),
            Mode::OpenClean => f.write_str("open-clean"),
            Mode::OpenCrashed => f.write_str("open-crashed"),
        }
    }
}

impl FromStr for Mode {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (name, number) = match text.split_once(':') {
            Some((name, k)) => {
                (name, Some(k.parse().with_context(|| format!("{text}: not a number after the colon"))?))
            }
            None => (text, None),
        };
        Ok(match (name, number) {
            ("durable", None) => Mode::Durable,
            ("batch", Some(k)) if k > 0 => Mode::Batch(k),
            ("tickets", Some(k)) if k > 0 => Mode::Tickets(k),
            ("nosync", None) => Mode::NoSync,
            ("replay", None) => Mode::Replay,
            ("open-clean", None) => Mode::OpenClean,
            ("open-crashed", None) => Mode::OpenCrashed,
            _ => bail!(
                "unknown mode {text}: durable, batch:K, tickets:K, nosync, replay, open, open-clean or open-crashed"
            ),
        })
    }
}

impl From<Mode> for String {
    fn from(mode: Mode) -> Self {
        mode.to_string()
    }
}

impl TryFrom<String> for Mode {
    type Error = anyhow::Error;

    fn try_from(text: String) -> anyhow::Result<Self> {
        text.parse()
    }
}

/// Which part of a measurement a child process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Phase {
    /// Writes what a later process reads or opens.
    Prepare,
    /// Measures.
    Measure,
    /// Commits this many records in one thread, each followed by a mark that a tracer sees.
    Prove(usize),
}

/// Everything a child process has to know.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Cell {
    /// Name of the subject.
    pub(crate) subject: String,
    /// What is done.
    pub(crate) mode: Mode,
    /// By how many threads.
    pub(crate) threads: usize,
    /// With payloads of how many bytes.
    pub(crate) size: usize,
    /// Microseconds slept after every barrier.
    pub(crate) barrier_latency_us: u64,
    /// Seconds before measuring.
    pub(crate) warmup: f64,
    /// Seconds measured.
    pub(crate) seconds: f64,
    /// Payload bytes after which a measurement ends early, or that are prepared.
    pub(crate) max_bytes: u64,
    /// Segment size.
    pub(crate) segment_bytes: u64,
    /// Records that a prepared log has at least.
    pub(crate) expected_records: u64,
    /// The fresh directory.
    pub(crate) dir: PathBuf,
    /// Which part.
    pub(crate) phase: Phase,
}

impl Cell {
    /// How the subject is to be opened.
    pub(crate) fn setup(&self) -> Setup {
        Setup {
            dir: self.dir.clone(),
            size: self.size,
            segment_bytes: self.segment_bytes,
            barrier_latency: Duration::from_micros(self.barrier_latency_us),
            mode: self.mode,
            fresh: !(self.mode.prepared() && self.phase == Phase::Measure),
        }
    }
}

/// A cell without its subject: what subjects are compared in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Key {
    /// What is done.
    pub(crate) mode: Mode,
    /// By how many threads.
    pub(crate) threads: usize,
    /// With payloads of how many bytes.
    pub(crate) size: usize,
    /// Microseconds slept after every barrier.
    pub(crate) barrier_latency_us: u64,
}

/// `100us`, `1ms`, `0`.
pub(crate) fn parse_latency(text: &str) -> anyhow::Result<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "us" => 1,
        "ms" => 1000,
        "" if digits == "0" => 1,
        _ => bail!("{text}: not a latency; write 100us or 1ms"),
    };
    Ok(digits.parse::<u64>().with_context(|| format!("{text}: not a latency"))? * factor)
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.mode)?;
        if !self.mode.single_threaded() {
            write!(f, ", {} thread{}", self.threads, if self.threads == 1 { "" } else { "s" })?;
        }
        match self.size {
            size if size >= 1024 && size.is_multiple_of(1024) => write!(f, ", {} KiB", size / 1024)?,
            size => write!(f, ", {size} B")?,
        }
        match self.barrier_latency_us {
            0 => Ok(()),
            us if us.is_multiple_of(1000) => write!(f, ", barrier +{} ms", us / 1000),
            us => write!(f, ", barrier +{us} µs"),
        }
    }
}
