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
    /// As durable, by one thread that looks after each commit whether a segment was sealed
    /// meanwhile.
    Rotations,
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
    /// This many bytes are appended to a log that keeps the last ones only; what it uses meanwhile
    /// is what counts.
    Soak,
    /// Each thread pushes one record onto a stack and waits.
    StackPush,
    /// Each thread overwrites bytes of a stack and waits.
    StackSet(Place),
    /// Each thread reads bytes of a stack.
    StackGet(Beside),
    /// A stack that was closed is opened.
    StackOpen,
    /// A stack whose process was killed is opened.
    StackOpenCrashed,
    /// Each thread allocates a block of a heap, waits, frees it, and waits.
    HeapPair,
    /// A heap with many free blocks is opened.
    HeapOpen,
}

/// Where a stack is overwritten, always at random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    /// Within 256 aligned bytes of `bstack`'s file: what it takes for atomic.
    Inside,
    /// Across the end of such.
    Across,
    /// Anywhere.
    Anywhere,
}

/// What goes on while a stack is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Beside {
    /// Nothing.
    Idle,
    /// [`PUSHERS`] threads push.
    Pushes,
}

/// Threads that push while a stack is read.
pub(crate) const PUSHERS: usize = 4;

impl Mode {
    /// What a subject needs to be able to do for it.
    pub(crate) fn ability(self) -> Ability {
        match self {
            Mode::Durable | Mode::Rotations => Ability::Durable,
            Mode::Batch(_) => Ability::Batch,
            Mode::Tickets(_) => Ability::Tickets,
            Mode::NoSync => Ability::NoSync,
            Mode::Replay => Ability::Replay,
            Mode::OpenClean | Mode::OpenCrashed => Ability::Open,
            Mode::Soak => Ability::Soak,
            Mode::StackPush => Ability::StackPush,
            Mode::StackSet(_) => Ability::StackSet,
            Mode::StackGet(_) => Ability::StackGet,
            Mode::StackOpen | Mode::StackOpenCrashed => Ability::StackOpen,
            Mode::HeapPair => Ability::HeapPair,
            Mode::HeapOpen => Ability::HeapOpen,
        }
    }

    /// Whether what is measured is opening.
    pub(crate) fn opens(self) -> bool {
        matches!(
            self,
            Mode::OpenClean
                | Mode::OpenCrashed
                | Mode::StackOpen
                | Mode::StackOpenCrashed
                | Mode::HeapOpen
        )
    }

    /// Whether what was prepared is left as a killed process leaves it.
    pub(crate) fn crashed(self) -> bool {
        matches!(self, Mode::OpenCrashed | Mode::StackOpenCrashed)
    }

    /// Whether what is counted was waited for until it was durable.
    pub(crate) fn acknowledges(self) -> bool {
        !matches!(self, Mode::NoSync | Mode::Replay | Mode::StackGet(_)) && !self.opens()
    }

    /// Whether threads never sleep by themselves. With a real-time priority they would let nobody
    /// else in.
    pub(crate) fn spins(self) -> bool {
        matches!(self, Mode::StackGet(_))
    }

    /// Whether one thread is all there is.
    pub(crate) fn single_threaded(self) -> bool {
        matches!(self, Mode::Rotations | Mode::Tickets(_) | Mode::Replay | Mode::Soak)
            || self.opens()
    }

    /// Whether records have to be written by another process first.
    pub(crate) fn prepared(self) -> bool {
        self == Mode::Replay || self.opens()
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mode::Durable => f.write_str("durable"),
            Mode::Rotations => f.write_str("rotations"),
            Mode::Batch(k) => write!(f, "batch:{k}"),
            Mode::Tickets(k) => write!(f, "tickets:{k}"),
            Mode::NoSync => f.write_str("nosync"),
            Mode::Replay => f.write_str("replay"),
            Mode::OpenClean => f.write_str("open-clean"),
            Mode::OpenCrashed => f.write_str("open-crashed"),
            Mode::Soak => f.write_str("soak"),
            Mode::StackPush => f.write_str("stack-push"),
            Mode::StackSet(Place::Inside) => f.write_str("stack-set-inside"),
            Mode::StackSet(Place::Across) => f.write_str("stack-set-across"),
            Mode::StackSet(Place::Anywhere) => f.write_str("stack-set"),
            Mode::StackGet(Beside::Idle) => f.write_str("stack-get"),
            Mode::StackGet(Beside::Pushes) => f.write_str("stack-get-busy"),
            Mode::StackOpen => f.write_str("stack-open"),
            Mode::StackOpenCrashed => f.write_str("stack-open-crashed"),
            Mode::HeapPair => f.write_str("heap-pair"),
            Mode::HeapOpen => f.write_str("heap-open"),
        }
    }
}

impl FromStr for Mode {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (name, number) = match text.split_once(':') {
            Some((name, k)) => (
                name,
                Some(k.parse().with_context(|| format!("{text}: not a number after the colon"))?),
            ),
            None => (text, None),
        };
        Ok(match (name, number) {
            ("durable", None) => Mode::Durable,
            ("rotations", None) => Mode::Rotations,
            ("batch", Some(k)) if k > 0 => Mode::Batch(k),
            ("tickets", Some(k)) if k > 0 => Mode::Tickets(k),
            ("nosync", None) => Mode::NoSync,
            ("replay", None) => Mode::Replay,
            ("open-clean", None) => Mode::OpenClean,
            ("open-crashed", None) => Mode::OpenCrashed,
            ("soak", None) => Mode::Soak,
            ("stack-push", None) => Mode::StackPush,
            ("stack-set-inside", None) => Mode::StackSet(Place::Inside),
            ("stack-set-across", None) => Mode::StackSet(Place::Across),
            ("stack-set", None) => Mode::StackSet(Place::Anywhere),
            ("stack-get", None) => Mode::StackGet(Beside::Idle),
            ("stack-get-busy", None) => Mode::StackGet(Beside::Pushes),
            ("stack-open", None) => Mode::StackOpen,
            ("stack-open-crashed", None) => Mode::StackOpenCrashed,
            ("heap-pair", None) => Mode::HeapPair,
            ("heap-open", None) => Mode::HeapOpen,
            _ => bail!("unknown mode {text}; `run --help` lists them"),
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
    /// What a log with retention keeps.
    pub(crate) keep_bytes: u64,
    /// Records that a prepared log has at least; free blocks that a heap is prepared with.
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
            keep_bytes: self.keep_bytes,
            barrier_latency: Duration::from_micros(self.barrier_latency_us),
            mode: self.mode,
            expected_records: self.expected_records,
            fresh: !(self.mode.prepared() && self.phase == Phase::Measure),
        }
    }
}

/// For people.
pub(crate) fn show_bytes(bytes: u64) -> String {
    match bytes {
        b if b >= 1 << 30 && b.is_multiple_of(1 << 30) => format!("{} GiB", b >> 30),
        b if b >= 1 << 20 && b.is_multiple_of(1 << 20) => format!("{} MiB", b >> 20),
        b if b >= 1 << 10 && b.is_multiple_of(1 << 10) => format!("{} KiB", b >> 10),
        b => format!("{b} B"),
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
        write!(f, ", {}", show_bytes(self.size as u64))?;
        match self.barrier_latency_us {
            0 => Ok(()),
            us if us.is_multiple_of(1000) => write!(f, ", barrier +{} ms", us / 1000),
            us => write!(f, ", barrier +{us} µs"),
        }
    }
}
