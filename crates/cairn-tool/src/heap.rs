//! `cairn heap`: looking at the heap in a stack's file.

mod check;
mod look;
mod repair;
mod shadow;
mod show;

use std::path::Path;

use cairnlog::heap::Error;
use clap::Subcommand;

use crate::report::{LostError, Outcome};
use crate::stack::told as told_of_stack;

/// Look at a heap, and repair it: blocks of a stack's file that a program allocated
///
/// All commands but `repair --apply` take no lock and change nothing, also while another process
/// uses the heap: what they show is of one moment, and is what the next opening finds.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

const HELP: &str = "\
Examples:
  cairn heap info ./heap                      policy, how full it is, roots in use
  cairn heap check ./heap && echo intact      prove that no byte is lost, and no block dangles
  cairn heap roots ./heap                     which blocks a program finds its data by
  cairn heap dump ./heap --limit 20           live blocks, one a line
  cairn heap repair ./heap                    a way out of damage; changes nothing by itself

Exit codes:
  0  done; intact
  1  failed: see the message
  2  wrong usage
  3  torn tail (check): the newest commit is unfinished; nothing acknowledged is lost
  4  corruption: a damaged or too new heap or file, or none of Cairn's";

#[derive(Debug, Subcommand)]
enum Command {
    Info(show::InfoArgs),
    Check(check::Args),
    Repair(repair::Args),
    Roots(show::RootsArgs),
    Dump(show::DumpArgs),
}

impl Args {
    /// What errors call the command.
    pub(crate) fn name(&self) -> &'static str {
        match self.command {
            Command::Info(_) => "heap info",
            Command::Check(_) => "heap check",
            Command::Repair(_) => "heap repair",
            Command::Roots(_) => "heap roots",
            Command::Dump(_) => "heap dump",
        }
    }
}

pub(crate) fn run(args: &Args) -> Outcome {
    let (file, outcome) = match &args.command {
        Command::Info(args) => (&args.file, show::info(args)),
        Command::Check(args) => (&args.file, check::run(args)),
        Command::Repair(args) => (&args.file, repair::run(args)),
        Command::Roots(args) => (&args.file, show::roots(args)),
        Command::Dump(args) => (&args.file, show::dump(args)),
    };
    outcome.map_err(|error| told(file, error))
}

/// Gives an error of the heap, or of the stack below it, its exit code, and says what to do about
/// it.
fn told(path: &Path, error: anyhow::Error) -> anyhow::Error {
    let hint = match error.downcast_ref::<Error>() {
        None => return told_of_stack(error, NO_FILE),
        Some(Error::Stack(cause)) => return told_of_stack(cause.clone().into(), NO_FILE),
        Some(Error::Outdated) => return error.context(path.display().to_string()),
        Some(Error::NotAHeap { .. }) => {
            "name another file; `cairn stack info` says more about this one".to_owned()
        }
        Some(Error::UnsupportedVersion { .. }) => "use a newer cairn".to_owned(),
        Some(Error::StrayBytes { len, .. }) => {
            format!("copy the file, then remove them: `cairn stack pop {} {len}`", path.display())
        }
        Some(_) => "copy the file, then `cairn heap repair` shows a way out".to_owned(),
    };
    LostError(format!("{}: {error:#}; {hint}", path.display())).into()
}

const NO_FILE: &str = "check the path";
