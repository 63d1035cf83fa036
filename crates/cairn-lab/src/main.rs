//! `cairn-lab`: power cuts on real kernels and file systems.
//!
//! A file system lives on a block device that remembers every write and every flush. A workload runs on it, and what it acknowledges is
//! noted next to the operations recorded by then. Afterwards the device is put into states that a power cut could have left, the file system is
//! mounted again, recovers in its own way, and the log must hold everything acknowledged by then, in order, once, and nothing else.
//!
//! ```text
//!  workload ── ext4 │ xfs │ btrfs ── loop device ── FUSE: records ──► trace + acknowledgements
//!                                                                        │ a crash point, a subset of the unsynced writes
//!  Log::open ── ext4 │ xfs │ btrfs ── loop device ── image in memory ◄───┘
//! ```
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
