//! `cairn-lab`: power cuts on real kernels and file systems.
//!
//! A file system lives on a block device that remembers every write and every flush. A workload
//! runs on it, and what it acknowledges is noted next to the operations recorded by then.
//! Afterwards the device is put into states that a power cut could have left, the file system is
//! mounted again, recovers in its own way, and the log must hold everything acknowledged by then,
//! in order, once, and nothing else.
//!
//! ```text
//!  workload ── ext4 │ xfs │ btrfs ── loop device ── FUSE: records ──► trace + acknowledgements
//!                                                                        │ a crash point and
//!                                                                        │ a subset of the
//!                                                                        │ unsynced writes
//!  Log::open ── ext4 │ xfs │ btrfs ── loop device ── image in memory ◄───┘
//! ```
//!
//! The log writes as it chooses, which is past the page cache where the file system can do that, or
//! as `--backend` says: `buffered`, `direct`, or, in a build with the feature `io-uring`,
//! `io-uring`. In that way it also recovers, and a run in which it falls back to another one fails.
//! `--control` takes the barriers away, those of direct writes included, and must be caught.
//!
//! ```sh
//! cargo build --release -p cairn-lab -p cairn-tool --features cairn-lab/io-uring
//! # As the log chooses, with the library and the `cairn` command:
//! cairn-lab run --states 20000
//! # btrfs, with its checksums, has no direct writes:
//! cairn-lab run --states 20000 --fs ext4,xfs --backend io-uring
//! cairn-lab run --states 500 --fs ext4,xfs --backend direct --control
//! ```
//!
//! # A slow disk
//!
//! `slow-disk` runs a command on a file system whose device takes so much time for each flush, for
//! anything that is to be compared on such a device:
//!
//! ```sh
//! cairn-lab slow-disk --fs ext4 --flush-latency 1ms --size 8GiB -- cairn-bench run --dir {}
//! ```
//!
//! The device itself runs any number of flushes at once, and holds nobody up meanwhile. Linux does:
//!
//! * At most one flush of a loop device is under way, as of any disk with one queue; those that
//!   come meanwhile share the next one.
//! * One thread does the flushes of a loop device, together with the reads and writes of the root
//!   control group, one after the other: these wait for a flush that is under way. What runs in
//!   another control group of the blkio controller (`io`, in version 2) does not wait.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that talks to its user")]
#![allow(
    clippy::cast_possible_truncation,
    reason = "positions on devices of a few hundred MiB fit every type used for them"
)]
#![cfg_attr(
    not(target_os = "linux"),
    allow(dead_code, reason = "only the message that this is skipped is of use there")
)]

mod cli;
#[cfg(target_os = "linux")]
mod lab;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    #[cfg(target_os = "linux")]
    return lab::main(cli);
    #[cfg(not(target_os = "linux"))]
    {
        println!("skipped: the laboratory needs Linux, with root, FUSE and loop devices");
        if cli.requires() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}
