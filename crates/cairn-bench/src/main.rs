//! `cairn-bench`: our log, its peers and hand-written loops, measured in one run on one file
//! system.
//!
//! The unit is a ratio. A *cell* is one subject doing one thing: a mode, a number of threads, a
//! record size. Each measurement of a cell runs in a process of its own, in a directory of its own
//! that is deleted afterwards; repetitions are interleaved, so that a machine that slows down slows
//! everybody down. See the README of this crate for what the columns mean and what they do not
//! show.
//!
//! Where to look: [`subject`] for what a subject has to do, [`structures`] for those that are not
//! logs, `subjects/` for ours and the peers, `raw/` for the loops that show the limit, [`drive`]
//! for what happens inside a measurement, [`prove`] for who really syncs.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that talks to its user")]
#![allow(
    clippy::cast_possible_truncation,
    reason = "sizes and durations of a benchmark fit every type used for them"
)]
#![cfg_attr(
    not(target_os = "linux"),
    allow(dead_code, reason = "only the message that there is nothing to run is of use there")
)]

#[cfg(target_os = "linux")]
mod cell;
mod cli;
#[cfg(target_os = "linux")]
mod device;
#[cfg(target_os = "linux")]
mod drive;
#[cfg(target_os = "linux")]
mod measure;
#[cfg(target_os = "linux")]
mod priority;
#[cfg(target_os = "linux")]
mod proof;
#[cfg(target_os = "linux")]
mod prove;
#[cfg(target_os = "linux")]
mod raw;
#[cfg(target_os = "linux")]
mod report;
#[cfg(target_os = "linux")]
mod run;
#[cfg(target_os = "linux")]
mod structures;
#[cfg(target_os = "linux")]
mod subject;
#[cfg(target_os = "linux")]
mod subjects;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    #[cfg(target_os = "linux")]
    {
        match run::main(cli) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("cairn-bench: {error:#}");
                ExitCode::FAILURE
            }
        }
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = cli;
        println!("skipped: the harness needs Linux");
        ExitCode::SUCCESS
    }
}
