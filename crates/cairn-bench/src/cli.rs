//! The command line.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::{Args, Parser, Subcommand};

/// Measures Cairn's log, stack and heap beside their peers and beside hand-written loops.
#[derive(Debug, Parser)]
#[command(version, about)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Measure cells, interleaved, and report medians and ratios.
    ///
    /// Under load or with blocking modes: `chrt -f 10 cairn-bench run …`.
    Run(Box<RunArgs>),
    /// Show which subjects issue a covering barrier before they acknowledge.
    Prove(ProveArgs),
    /// List the subjects of this build and what they can do.
    List,
    /// One phase of one measurement, in this process. For the harness itself.
    #[command(hide = true)]
    Cell {
        /// The cell, as JSON.
        cell: String,
    },
}

/// Which cells, how often, and where the results go.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Directory on the file system to measure; every measurement gets a fresh one inside.
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// For logs: durable, rotations, batch:K, tickets:K, nosync, replay, open (both), open-clean,
    /// open-crashed, soak. For stacks: stack-push, stack-set, stack-set-inside, stack-set-across,
    /// stack-get, stack-get-busy, stack-open, stack-open-crashed. For heaps: heap-pair, heap-open.
    #[arg(long, value_delimiter = ',', default_value = "durable")]
    pub(crate) modes: Vec<String>,
    /// Numbers of threads; tickets, rotations, replay, soak and opening always have one.
    #[arg(long, value_delimiter = ',', default_value = "1,8,64")]
    pub(crate) threads: Vec<usize>,
    /// Payload sizes in bytes; in a heap, those of blocks.
    #[arg(long, value_delimiter = ',', default_value = "100,1024,16384")]
    pub(crate) sizes: Vec<usize>,
    /// Subjects by name, as `list` shows them; `all`, `raw` and `peers` stand for several. Default:
    /// all.
    #[arg(long, value_delimiter = ',', default_value = "all")]
    pub(crate) subjects: Vec<String>,
    /// Seconds each measurement lasts.
    #[arg(long, default_value_t = 1.0)]
    pub(crate) seconds: f64,
    /// Seconds before measuring.
    #[arg(long, default_value_t = 0.2)]
    pub(crate) warmup: f64,
    /// Interleaved repetitions; the report has their medians.
    #[arg(long, default_value_t = 5)]
    pub(crate) runs: usize,
    /// A measurement ends early when it has written this many bytes of payload.
    #[arg(long, value_parser = parse_bytes, default_value = "4GiB")]
    pub(crate) max_bytes: u64,
    /// Bytes of payload prepared for replay.
    #[arg(long, value_parser = parse_bytes, default_value = "256MiB")]
    pub(crate) replay_bytes: u64,
    /// Bytes of payload prepared for open, of logs and stacks.
    #[arg(long, value_parser = parse_bytes, default_value = "1GiB")]
    pub(crate) open_bytes: u64,
    /// Drop what the page cache holds of a log, a stack or a heap before it is opened, as a reboot
    /// does.
    #[arg(long)]
    pub(crate) empty_cache: bool,
    /// Free blocks prepared for heap-open.
    #[arg(long, default_value_t = 1_000_000)]
    pub(crate) free_blocks: u64,
    /// Bytes of payload appended in soak.
    #[arg(long, value_parser = parse_bytes, default_value = "20GiB")]
    pub(crate) soak_bytes: u64,
    /// Segment size of the subjects that have segments.
    #[arg(long, value_parser = parse_bytes, default_value = "64MiB")]
    pub(crate) segment_bytes: u64,
    /// Bytes of segments that cairn-retain keeps. Default: four segments.
    #[arg(long, value_parser = parse_bytes)]
    pub(crate) keep_bytes: Option<u64>,
    /// Sleep this long after every barrier, as on a slow device: `100us`, `1ms`, `5ms`. Only ours
    /// and the raw loops can; several are several cells.
    #[arg(long, value_delimiter = ',', default_value = "0")]
    pub(crate) barrier_latency: Vec<String>,
    /// Do not look first whether the subjects sync.
    #[arg(long)]
    pub(crate) no_prove: bool,
    /// Write everything measured here.
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    /// Write the tables here; they go to stdout otherwise.
    #[arg(long)]
    pub(crate) markdown: Option<PathBuf>,
}

/// Whom to look at.
#[derive(Debug, Args)]
pub(crate) struct ProveArgs {
    /// Directory on the file system to use.
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// Subjects by name, as `list` shows them.
    #[arg(long, value_delimiter = ',', default_value = "all")]
    pub(crate) subjects: Vec<String>,
    /// Commits to look at.
    #[arg(long, default_value_t = 200)]
    pub(crate) commits: usize,
    /// Keep the system-call traces here, one file per subject.
    #[arg(long)]
    pub(crate) traces: Option<PathBuf>,
}

/// `256KiB`, `1GiB`, `4096`; `K`, `M` and `G` stand for the same powers of two.
fn parse_bytes(text: &str) -> anyhow::Result<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &text[digits.len()..] {
        "" => 0,
        "K" | "KiB" => 10,
        "M" | "MiB" => 20,
        "G" | "GiB" => 30,
        _ => bail!("not a number of bytes; write 256KiB, 64MiB or 1GiB"),
    };
    digits.parse::<u64>()?.checked_mul(1 << shift).context("too many bytes")
}
