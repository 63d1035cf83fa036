//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Measures Cairn's log beside its peers and beside hand-written loops.
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
    Run(RunArgs),
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
    /// durable, batch:K, tickets:K, nosync, replay, open (both), open-clean, open-crashed.
    #[arg(long, value_delimiter = ',', default_value = "durable")]
    pub(crate) modes: Vec<String>,
    /// Numbers of threads; tickets, replay and open always have one.
    #[arg(long, value_delimiter = ',', default_value = "1,8,64")]
    pub(crate) threads: Vec<usize>,
    /// Payload sizes in bytes.
    #[arg(long, value_delimiter = ',', default_value = "100,1024,16384")]
    pub(crate) sizes: Vec<usize>,
    /// Subjects by name, as `list` shows them; `all`, `raw` and `peers` stand for several. Default: all.
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
    #[arg(long, default_value_t = 4 << 30)]
    pub(crate) max_bytes: u64,
    /// Bytes of payload prepared for replay.
    #[arg(long, default_value_t = 256 << 20)]
    pub(crate) replay_bytes: u64,
    /// Bytes of payload prepared for open.
    #[arg(long, default_value_t = 1 << 30)]
    pub(crate) open_bytes: u64,
    /// Segment size of the subjects that have segments.
    #[arg(long, default_value_t = 64 << 20)]
    pub(crate) segment_bytes: u64,
    /// Sleep this long after every barrier, as on a slow device: `100us`, `1ms`, `5ms`. Only ours and the raw loops can; several are several cells.
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
