//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

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
    /// Where randomness starts: workloads and states follow from it, the order of threads and of the kernel's writes does not
    #[arg(long, value_name = "X", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Do without barriers instead, and expect to be caught: exit 0 only if the laboratory sees lost records
    #[arg(long, value_enum, num_args = 0..=1, default_missing_value = "all")]
    pub(crate) control: Option<Control>,
    /// What runs on the file system
    #[arg(long, value_enum, value_delimiter = ',', default_value = "tool,library")]
    pub(crate) workload: Vec<Workload>,
    /// States to check of each recorded workload
    #[arg(long, value_name = "N", default_value_t = 1500)]
    pub(crate) states_per_round: u64,
    /// Recorded workloads that are checked at the same time; mounting waits more than it works [default: 2 per processor]
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
}

/// Which barriers do nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Control {
    /// All; for the `cairn` command with `libeatmydata`
    All,
    /// Every eighth; with the library only
    Some,
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
            Command::Child(_) => true,
        }
    }
}
