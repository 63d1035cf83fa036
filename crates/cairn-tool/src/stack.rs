//! `cairn stack`: the byte stack in one file.

mod change;
mod import;
mod input;
mod look;
mod opening;
mod read;
mod repair;

use std::io;

use anyhow::{Context as _, anyhow};
use cairnlog::stack::{Error, ErrorKind};
use clap::Subcommand;

use crate::report::{LostError, Outcome, UsageError};
use crate::signals;
pub(crate) use input::to_hex;
pub(crate) use look::{look, state};

/// Keep bytes in a stack: one file, every change atomic and durable
#[derive(Debug, clap::Args)]
#[command(after_help = HELP, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

const HELP: &str = "\
Examples:
  echo hello | cairn stack push ./stack       prints the offset, once it is durable
  cairn stack peek ./stack                    everything; nothing is changed
  cairn stack pop ./stack 6                   takes the last 6 bytes off
  cairn stack get ./stack 0 5 --json          a range, its end excluded
  echo -n HELLO | cairn stack set ./stack 0   over what is there
  cairn stack verify ./stack
  cairn stack repair ./stack                  a way out of damage; changes nothing by itself

Exit codes:
  0  done; intact
  1  failed: see the message
  2  wrong usage, also a range that is not within the stack
  3  torn tail: the newest commit is unfinished; nothing acknowledged is lost
  4  corruption: a damaged or foreign file, or one of another version";

#[derive(Debug, Subcommand)]
enum Command {
    Push(change::PushArgs),
    Pop(change::PopArgs),
    Peek(read::PeekArgs),
    Get(read::GetArgs),
    Set(change::SetArgs),
    Info(look::InfoArgs),
    Verify(look::VerifyArgs),
    Repair(repair::Args),
    Export(read::ExportArgs),
    Import(import::Args),
}

impl Args {
    /// What errors call the command.
    pub(crate) fn name(&self) -> &'static str {
        match self.command {
            Command::Push(_) => "stack push",
            Command::Pop(_) => "stack pop",
            Command::Peek(_) => "stack peek",
            Command::Get(_) => "stack get",
            Command::Set(_) => "stack set",
            Command::Info(_) => "stack info",
            Command::Verify(_) => "stack verify",
            Command::Repair(_) => "stack repair",
            Command::Export(_) => "stack export",
            Command::Import(_) => "stack import",
        }
    }
}

pub(crate) fn run(args: &Args) -> Outcome {
    signals::survive_file_size_limit().context("cannot handle signals")?;
    match &args.command {
        Command::Push(args) => change::push(args),
        Command::Pop(args) => change::pop(args),
        Command::Peek(args) => read::peek(args),
        Command::Get(args) => read::get(args),
        Command::Set(args) => change::set(args),
        Command::Info(args) => look::info(args),
        Command::Verify(args) => look::verify(args),
        Command::Repair(args) => repair::run(args),
        Command::Export(args) => read::export(args),
        Command::Import(args) => import::run(args),
    }
    .map_err(|error| told(error, "check the path, or create a stack with `cairn stack push`"))
}

/// Gives an error of the stack its exit code, and says what to do about it; `no_file` when there is
/// none.
pub(crate) fn told(error: anyhow::Error, no_file: &str) -> anyhow::Error {
    let Some(cause) = error.chain().find_map(|cause| cause.downcast_ref::<Error>()) else {
        return error;
    };
    let hint = match cause {
        Error::Locked { .. } => "wait until that one ends, or stop it",
        Error::Foreign { .. } => "name another file",
        Error::UnsupportedVersion { found, supported, .. } if found < supported => {
            "read it with the cairn that wrote it, and push the bytes to a new stack"
        }
        Error::UnsupportedVersion { .. } => "use a newer cairn",
        Error::Corrupt { .. } | Error::OtherHistory { .. } => {
            "copy the file, then `cairn stack repair` shows a way out"
        }
        Error::InDoubt { .. } | Error::Poisoned { .. } => {
            "check the disk, then look with `cairn stack info`"
        }
        Error::Io { source, .. } => match source.kind() {
            io::ErrorKind::NotFound => no_file,
            io::ErrorKind::PermissionDenied => "check who owns it and its permissions",
            io::ErrorKind::ReadOnlyFilesystem => "mount it for writing, or use another directory",
            io::ErrorKind::IsADirectory => "name a file, not a directory",
            _ => "",
        },
        _ => "",
    };
    let hint = if hint.is_empty() { String::new() } else { format!("; {hint}") };
    let text = format!("{error:#}{hint}");
    match cause.kind() {
        ErrorKind::Usage => UsageError(text).into(),
        ErrorKind::Repair => LostError(text).into(),
        _ => anyhow!(text),
    }
}
