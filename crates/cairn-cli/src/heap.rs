//! `cairn heap`: looking at the heap in a stack's file.

mod check;
mod shadow;
mod show;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use cairnlog::heap::{Error, Heap};
use cairnlog::stack::{self, EndState, Stack};
use clap::Subcommand;

use crate::report::{LostError, Outcome};
use crate::stack::{look as look_at_stack, told as told_of_stack};
use shadow::Shadow;

/// Look at a heap: blocks of a stack's file that a program allocated
///
/// All commands take no lock and change nothing, also while another process uses the heap: what they
/// show is of one moment, and is what the next opening finds.
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
    Roots(show::RootsArgs),
    Dump(show::DumpArgs),
}

impl Args {
    /// What errors call the command.
    pub(crate) fn name(&self) -> &'static str {
        match self.command {
            Command::Info(_) => "heap info",
            Command::Check(_) => "heap check",
            Command::Roots(_) => "heap roots",
            Command::Dump(_) => "heap dump",
        }
    }
}

pub(crate) fn run(args: &Args) -> Outcome {
    let (file, outcome) = match &args.command {
        Command::Info(args) => (&args.file, show::info(args)),
        Command::Check(args) => (&args.file, check::run(args)),
        Command::Roots(args) => (&args.file, show::roots(args)),
        Command::Dump(args) => (&args.file, show::dump(args)),
    };
    outcome.map_err(|error| told(file, error))
}

/// So long a heap that changes all the while is looked at again.
const PATIENCE: Duration = Duration::from_secs(5);

/// Looks at the heap in a file, as the next opening will find it, and at how its stack ends. What `see` returns is of one moment: when somebody changed the heap
/// meanwhile, it is called again.
fn look<T>(path: &Path, see: impl Fn(&Heap, EndState) -> anyhow::Result<T>) -> anyhow::Result<T> {
    let begun = Instant::now();
    loop {
        let moment = look_at_stack(path)?;
        let seen = attach(path).and_then(|heap| see(&heap, moment.end_state()));
        // Damage, too, is believed only when nobody wrote while it was found.
        if moment.is_current()? {
            return seen;
        }
        if begun.elapsed() > PATIENCE {
            bail!("{} changes all the while; stop its writer, or run the command again", path.display());
        }
    }
}

fn attach(path: &Path) -> anyhow::Result<Heap> {
    let shadow = Shadow::of(path).map_err(|source| stack::Error::Io {
        op: "open",
        path: path.to_owned(),
        source: Arc::new(source),
    })?;
    Ok(Heap::attach(Stack::options().fs(Arc::new(shadow)).reserve(0).open(path)?)?)
}

/// Gives an error of the heap, or of the stack below it, its exit code, and says what to do about it.
fn told(path: &Path, error: anyhow::Error) -> anyhow::Error {
    let hint = match error.downcast_ref::<Error>() {
        None => return told_of_stack(error, NO_FILE),
        Some(Error::Stack(cause)) => return told_of_stack(cause.clone().into(), NO_FILE),
        Some(Error::NotAHeap { .. }) => "name another file; `cairn stack info` says more about this one",
        Some(Error::UnsupportedVersion { .. }) => "use a newer cairn",
        Some(_) => "copy the file before you do anything else with it",
    };
    LostError(format!("{}: {error:#}; {hint}", path.display())).into()
}

const NO_FILE: &str = "check the path";
