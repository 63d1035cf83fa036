//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use clap::{Args, Parser, Subcommand, ValueEnum};
use jiff::SignedDuration;

/// Cuts the power under real file systems and looks what the log remembers
#[derive(Debug, Parser)]
#[command(name = "cairn-lab", version, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Run(Run),
    Replay(Replay),
    SlowDisk(SlowDisk),
    #[command(hide = true)]
    Child(Child),
}

/// Record workloads and check the states that power cuts could have left
#[derive(Clone, Debug, Args)]
pub(crate) struct Run {
    /// File systems, one after the other
    #[arg(long, value_enum, value_delimiter = ',', default_value = "ext4,xfs,btrfs")]
    pub(crate) fs: Vec<FileSystem>,
    /// States to check on each file system
    #[arg(long, value_name = "N", default_value_t = 2000)]
    pub(crate) states: u64,
    /// End each file system after this many seconds, whatever was reached
    #[arg(long, value_name = "S")]
    pub(crate) seconds: Option<u64>,
    /// Where randomness starts: workloads and states follow from it, the order of threads and of
    /// the kernel's writes does not
    #[arg(long, value_name = "X", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Do without barriers instead, and expect to be caught: exit 0 only if the laboratory sees
    /// lost records
    #[arg(long, value_enum, num_args = 0..=1, default_missing_value = "all")]
    pub(crate) control: Option<Control>,
    /// What runs on the file system
    #[arg(long, value_enum, value_delimiter = ',', default_value = "tool,library")]
    pub(crate) workload: Vec<Workload>,
    /// Have the log write this way, with the library only, and fail where it does not [default: as
    /// it chooses]
    #[arg(long, value_enum)]
    pub(crate) backend: Option<Backend>,
    /// States to check of each recorded workload
    #[arg(long, value_name = "N", default_value_t = 1500)]
    pub(crate) states_per_round: u64,
    /// Recorded workloads that are checked at the same time; mounting waits more than it works
    /// [default: 2 per processor]
    #[arg(long, value_name = "N")]
    pub(crate) jobs: Option<usize>,
    /// The `cairn` command [default: the one next to this program]
    #[arg(long, value_name = "FILE")]
    pub(crate) cairn: Option<PathBuf>,
    /// Where images are held; a file system in memory
    #[arg(long, value_name = "DIR", default_value = "/dev/shm")]
    pub(crate) scratch: PathBuf,
    /// Where the image of a violation is kept
    #[arg(long, value_name = "DIR", default_value = "cairn-lab-violations")]
    pub(crate) keep: PathBuf,
    /// Fail instead of skipping where something is missing
    #[arg(long)]
    pub(crate) require: bool,
}

/// Check a kept image again
#[derive(Clone, Debug, Args)]
pub(crate) struct Replay {
    /// Folder of one violation
    pub(crate) case: PathBuf,
    /// Where the copy of the image is held; a file system in memory
    #[arg(long, value_name = "DIR", default_value = "/dev/shm")]
    pub(crate) scratch: PathBuf,
    /// Fail instead of skipping where something is missing
    #[arg(long)]
    pub(crate) require: bool,
}

/// Run a command on a file system whose device takes long to flush
///
/// Flushes alone take that time: also those of O_DSYNC writes, since the device has no FUA. The
/// device is there for the command only, and for nothing that is to be kept.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Example: cairn-lab slow-disk --flush-latency 1ms -- cairn-bench run --dir {}"
)]
pub(crate) struct SlowDisk {
    /// The file system
    #[arg(long, value_enum, default_value = "ext4")]
    pub(crate) fs: FileSystem,
    /// How long a flush takes, such as 100us or 5ms
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) flush_latency: Duration,
    /// Size of the device, such as 8GiB
    #[arg(long, value_name = "SIZE", default_value = "8GiB")]
    pub(crate) size: ByteSize,
    /// Where its sparse file is held; it is never synced
    #[arg(long, value_name = "DIR", default_value = "/var/tmp")]
    pub(crate) scratch: PathBuf,
    /// The command, its words `{}` replaced by the place where the file system is mounted; it has
    /// no standard input
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

/// Runs the library's workload; events go to standard output, one per line
#[derive(Clone, Debug, Args)]
pub(crate) struct Child {
    /// Directory of the log
    pub(crate) dir: PathBuf,
    /// Seed of the workload
    #[arg(long)]
    pub(crate) seed: u64,
    /// What its payloads start with
    #[arg(long)]
    pub(crate) salt: u64,
    /// Id of the first record
    #[arg(long)]
    pub(crate) first_id: u64,
    /// Barriers do nothing
    #[arg(long, value_enum)]
    pub(crate) control: Option<Control>,
    /// How the log writes
    #[arg(long, value_enum)]
    pub(crate) backend: Option<Backend>,
}

fn duration(text: &str) -> Result<Duration, jiff::Error> {
    Duration::try_from(text.parse::<SignedDuration>()?)
}

/// Which barriers do nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Control {
    /// All; for the `cairn` command with `libeatmydata`
    All,
    /// Every eighth; with the library only
    Some,
}

/// How the log writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[cfg_attr(target_os = "linux", derive(serde::Serialize, serde::Deserialize))]
pub(crate) enum Backend {
    /// Through the page cache, then a barrier
    Buffered,
    /// Past the page cache, each write its own barrier
    Direct,
    /// As direct, through an io_uring; needs the feature `io-uring`
    IoUring,
}

/// A file system to cut the power under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[cfg_attr(target_os = "linux", derive(serde::Serialize, serde::Deserialize))]
pub(crate) enum FileSystem {
    /// ext4 with its default journal
    Ext4,
    /// XFS
    Xfs,
    /// Btrfs
    Btrfs,
}

/// Who writes to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Workload {
    /// The `cairn` command, one process after the other
    Tool,
    /// The library, with several threads in one process
    Library,
}

#[cfg(not(target_os = "linux"))]
impl Cli {
    pub(crate) fn requires(&self) -> bool {
        match &self.command {
            Command::Run(run) => run.require,
            Command::Replay(replay) => replay.require,
            Command::SlowDisk(_) | Command::Child(_) => true,
        }
    }
}
