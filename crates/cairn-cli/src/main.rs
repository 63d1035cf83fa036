//! The `cairn` command: append to, read, inspect, verify, truncate and torture durable logs, use stacks, look at heaps, and examine where they are.
//!
//! One module per command; [`report`] decides what is said and with which exit code, [`input`] turns standard input into records.
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

mod append;
mod bench;
mod cat;
mod doctor;
mod heap;
mod info;
mod input;
mod latency;
mod look;
mod problem;
mod progress;
mod report;
mod scratch;
mod signals;
mod sink;
mod stack;
mod torture;
mod truncate;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Durable logs, stacks and heaps in files: what was acknowledged survives a killed process, a power cut and a failed disk flush
#[derive(Debug, Parser)]
#[command(name = "cairn", version, arg_required_else_help = true, after_help = EXAMPLES, max_term_width = 100)]
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
  echo hello | cairn stack push ./stack       a new stack, one file
  cairn heap check ./heap                     prove that a program's heap is whole
  cairn doctor .                              what this disk and file system really do
  cairn bench . --report bench.html           how fast a log is here
  cairn torture ./torture                     kill a writer 100 times, lose nothing

`cairn COMMAND --help` has more of them. What only looks takes no lock and changes nothing, also
while another process writes: cat, info, verify, stack peek|get|info|verify|export, heap.

Exit codes:
  0  done; intact
  1  failed: see the message
  2  wrong usage
  3  torn tail: it ends in an unfinished write; nothing acknowledged is lost
  4  corruption: damaged, missing, foreign or too new files; something acknowledged was lost";

#[derive(Debug, Subcommand)]
enum Command {
    Append(append::Args),
    Cat(cat::Args),
    Info(info::Args),
    Verify(verify::Args),
    Truncate(truncate::Args),
    Stack(stack::Args),
    Heap(heap::Args),
    Bench(bench::Args),
    Doctor(doctor::Args),
    Torture(torture::Args),
    #[command(hide = true)]
    TortureChild(torture::child::Args),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return report::usage(&error),
    };
    let (name, outcome) = match cli.command {
        Command::Append(args) => ("append", append::run(args)),
        Command::Cat(args) => ("cat", cat::run(args)),
        Command::Info(args) => ("info", info::run(&args)),
        Command::Verify(args) => ("verify", verify::run(&args)),
        Command::Truncate(args) => ("truncate", truncate::run(&args)),
        Command::Stack(args) => (args.name(), stack::run(&args)),
        Command::Heap(args) => (args.name(), heap::run(&args)),
        Command::Bench(args) => ("bench", bench::run(&args)),
        Command::Doctor(args) => ("doctor", doctor::run(&args)),
        Command::Torture(args) => ("torture", torture::run(&args)),
        Command::TortureChild(args) => ("torture-child", torture::child::run(&args)),
    };
    report::exit(name, outcome)
}
