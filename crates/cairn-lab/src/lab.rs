//! The laboratory: what is needed for it, and who does what.

mod backend;
mod barrierless;
mod campaign;
mod case;
mod check;
mod child;
mod device;
mod filesystem;
mod history;
mod image;
mod needs;
mod recorder;
mod round;
mod served;
mod slow_disk;
mod trace;
mod workload;

use std::process::ExitCode;

use crate::cli::{Cli, Command};
use check::Verdict;

pub(crate) fn main(cli: Cli) -> ExitCode {
    let outcome = match cli.command {
        Command::Child(child) => child::run(child).map(|()| true),
        Command::Run(run) => match needs::missing(&run.fs, &run.scratch) {
            Some(missing) => Ok(skip(&missing, run.require)),
            None => campaign::run(&run),
        },
        Command::SlowDisk(disk) => match needs::missing(&[disk.fs], &disk.scratch) {
            Some(missing) => Err(anyhow::anyhow!(missing)),
            None => slow_disk::run(&disk),
        },
        Command::Replay(replay) => match needs::missing(&[], &replay.scratch) {
            Some(missing) => Ok(skip(&missing, replay.require)),
            None => case::replay(&replay.case, &replay.scratch).map(show),
        },
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("cairn-lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn skip(missing: &str, require: bool) -> bool {
    println!("skipped: {missing}");
    !require
}

fn show(verdict: Verdict) -> bool {
    println!("{verdict:?}");
    verdict == Verdict::Sound
}
