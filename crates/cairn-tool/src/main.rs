//! The `cairn` command: append to, read, inspect, verify, truncate and torture durable logs, use
//! stacks, look at heaps, and examine where they are.
//!
//! One module per command; [`report`] decides what is said and with which exit code, [`input`]
//! turns standard input into records.
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

mod append;
mod backup;
mod bench;
mod cat;
mod completions;
mod diff;
mod digest;
mod doctor;
mod dump;
mod heap;
mod help;
mod info;
mod input;
mod json;
mod latency;
mod look;
mod manual;
mod problem;
mod progress;
mod range;
mod repair;
mod report;
mod salvage;
mod scratch;
mod signals;
mod sink;
mod stack;
mod text;
mod torture;
mod truncate;
mod verdict;
mod verify;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

/// Durable logs, stacks and heaps in files: what was acknowledged survives a killed process, a
/// power cut and a failed disk flush
#[derive(Debug, Parser)]
#[command(name = "cairn", version, arg_required_else_help = true)]
#[command(after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  seq 1 1000000 | cairn append ./demo-log     a new log, a directory, with a million records
  cairn cat ./demo-log | tail -1              read them back
  cairn cat ./demo-log --follow               and go on as others are appended
  cairn verify ./demo-log                     check every byte
  cairn repair ./demo-log                     what a damaged log has lost, and what would mend it
  cairn backup ./demo-log ./demo-copy         copy it, also while a program writes to it
  echo hello | cairn stack push ./stack       a new stack, one file
  cairn heap check ./heap                     prove that a program's heap is whole
  cairn diff ./demo-log ./replica             do two logs hold the same records?
  cairn doctor .                              what this disk and file system really do
  cairn bench . --report bench.html           how fast a log is here
  cairn torture ./torture                     kill a writer 100 times, lose nothing

`cairn COMMAND --help` has more of them. What only looks takes no lock and changes nothing, also
while another process writes: cat, info, verify, salvage, dump, digest, diff, backup, \
stack peek|get|info|verify|export, heap.

Exit codes:
  0  done; intact
  1  failed: see the message
  2  wrong usage
  3  torn tail: its last bytes do not verify; nothing proves that they had been acknowledged
  4  corruption: damaged, missing, foreign or too new files; something acknowledged was lost
  5  the answer is no: two logs differ (diff), something recommended is missing (doctor --strict)

With --json an error is a JSON object on standard error; docs/json.md has the vocabulary.";

#[derive(Debug, Subcommand)]
enum Command {
    Append(append::Args),
    Cat(cat::Args),
    Info(info::Args),
    Verify(verify::Args),
    Repair(repair::Args),
    Salvage(salvage::Args),
    Truncate(truncate::Args),
    Backup(backup::BackupArgs),
    Restore(backup::RestoreArgs),
    Stack(stack::Args),
    Heap(heap::Args),
    Dump(dump::Args),
    Digest(digest::Args),
    Diff(diff::Args),
    Bench(bench::Args),
    Doctor(doctor::Args),
    Torture(torture::Args),
    Completions(completions::Args),
    Man(manual::Args),
    #[command(hide = true)]
    TortureChild(torture::child::Args),
}

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    json::choose(&args);
    let parsed = command().try_get_matches_from(&args);
    let cli = match parsed.and_then(|found| Cli::from_arg_matches(&found)) {
        Ok(cli) => cli,
        Err(error) => return report::usage(&named(&args), &error),
    };
    let (name, outcome) = match cli.command {
        Command::Append(args) => ("append", append::run(args)),
        Command::Cat(args) => ("cat", cat::run(args)),
        Command::Info(args) => ("info", info::run(&args)),
        Command::Verify(args) => ("verify", verify::run(&args)),
        Command::Repair(args) => ("repair", repair::run(&args)),
        Command::Salvage(args) => ("salvage", salvage::run(&args)),
        Command::Truncate(args) => ("truncate", truncate::run(&args)),
        Command::Backup(args) => ("backup", backup::backup(&args)),
        Command::Restore(args) => ("restore", backup::restore(&args)),
        Command::Stack(args) => (args.name(), stack::run(&args)),
        Command::Heap(args) => (args.name(), heap::run(&args)),
        Command::Dump(args) => ("dump", dump::run(&args)),
        Command::Digest(args) => ("digest", digest::run(&args)),
        Command::Diff(args) => ("diff", diff::run(&args)),
        Command::Bench(args) => ("bench", bench::run(&args)),
        Command::Doctor(args) => ("doctor", doctor::run(&args)),
        Command::Torture(args) => ("torture", torture::run(&args)),
        Command::Completions(args) => ("completions", completions::run(&args, &command())),
        Command::Man(args) => ("man", manual::run(&args, &command())),
        Command::TortureChild(args) => ("torture-child", torture::child::run(&args)),
    };
    report::exit(name, outcome)
}

/// The whole command line, as it is parsed, shown as help, completed and put into the manual.
fn command() -> clap::Command {
    help::fit(Cli::command())
}

/// The command that these arguments name, such as `stack push`, whatever else is wrong with them.
fn named(args: &[OsString]) -> String {
    let mut found = command();
    let mut names = Vec::new();
    for arg in args.iter().skip(1).filter_map(|arg| arg.to_str()) {
        match found.find_subcommand(arg) {
            Some(next) => {
                names.push(next.get_name().to_owned());
                found = next.clone();
            }
            None if arg.starts_with('-') => {}
            None => break,
        }
    }
    names.join(" ")
}
