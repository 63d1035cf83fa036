//! What `cairn torture` is asked.

use std::path::PathBuf;

use bytesize::ByteSize;

/// Kill a writing process again and again, and prove that nothing acknowledged was lost
///
/// Starts a child that writes to the log in DIR with everything a log can do, kills it with SIGKILL
/// at a random moment, checks every record, and starts the next one.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// Directory for the log: new, empty, or left by an earlier torture
    pub(super) dir: PathBuf,
    /// End after this many kills [default: 100, or no limit with --seconds]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) runs: Option<u64>,
    /// End after this many seconds
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) seconds: Option<u64>,
    /// Choose contents, calls and moments by this number [default: the clock]
    #[arg(long, value_name = "X")]
    pub(super) seed: Option<u64>,
    /// Threads that append
    #[arg(long, value_name = "N", default_value_t = 4)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub(super) writers: u64,
    /// Size at which a segment is sealed, 8KiB or more; small ones make more of what can go wrong
    #[arg(long, value_name = "SIZE", default_value = "32KiB")]
    pub(super) segment_size: ByteSize,
    /// Print the summary as JSON
    #[arg(long)]
    pub(super) json: bool,
}

const HELP: &str = "\
Examples:
  cairn torture ./torture                          100 kills
  cairn torture ./torture --runs 10000 --json
  cairn torture ./torture --seconds 3600 --writers 16
  cairn verify ./torture                           the log stays, to be looked at

What it does:
  Writers commit, append and sync, append batches, submit tickets and flush; a follower follows,
  one thread truncates at both ends; segments rotate; some children close the log, or drop it, and
  open it again. A child says what was acknowledged after the log said so. It is killed while it
  opens or recovers (1 in 4), while it works, or while it closes (1 in 8).

What is checked after every kill:
  All segments verify, with a torn tail at most; every acknowledged record is there, with its
  bytes, in order, once; batches are whole; what an acknowledged truncation dropped is gone, and
  one that was under way happened as a whole or not at all; whatever was there after one kill is
  there after the next; the next child opens the log without help.

What it does not show:
  A kill leaves the page cache alive: what a process had written is there, synced or not. So this
  proves nothing about power cuts, nor that barriers are where they must be. The seed fixes what
  is written and which moments are asked for, but not what the scheduler makes of them: the same
  seed does not give the same run.

Exit codes:
  0  nothing was lost, also when SIGINT ended it early
  1  it could not go on: see the message
  2  wrong usage, or DIR is something else's
  4  something acknowledged was lost: DIR is kept, the evidence is printed and in DIR/TORTURE";
