//! `cairn stack`: the byte stack in one file.

mod change;
mod import;
mod look;
mod read;

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use cairnlog::stack::{Error, ErrorKind, Stack};
use clap::{Subcommand, ValueEnum};

use crate::report::{LostError, Outcome, UsageError, note};
use crate::signals;
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

Exit codes:
  0  done; intact
  1  failed: see the message
  2  wrong usage, also a range that is not within the stack
  3  torn tail: the newest commit is unfinished; nothing acknowledged is lost
  4  corruption: a damaged, foreign or too new file";

#[derive(Debug, Subcommand)]
enum Command {
    Push(change::PushArgs),
    Pop(change::PopArgs),
    Peek(read::PeekArgs),
    Get(read::GetArgs),
    Set(change::SetArgs),
    Info(look::InfoArgs),
    Verify(look::VerifyArgs),
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
        Command::Export(args) => read::export(args),
        Command::Import(args) => import::run(args),
    }
    .map_err(|error| told(error, "check the path, or create a stack with `cairn stack push`"))
}

/// How bytes are written and read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// As they are
    Raw,
    /// Hexadecimal digits; white space between them is ignored
    Hex,
}

/// Gives an error of the stack its exit code, and says what to do about it; `no_file` when there is none.
pub(crate) fn told(error: anyhow::Error, no_file: &str) -> anyhow::Error {
    let Some(cause) = error.chain().find_map(|cause| cause.downcast_ref::<Error>()) else { return error };
    let hint = match cause {
        Error::Locked { .. } => "wait until that one ends, or stop it",
        Error::Foreign { .. } => "name another file",
        Error::UnsupportedVersion { .. } => "use a newer cairn",
        Error::Corrupt { .. } => "copy the file before you do anything else with it",
        Error::InDoubt { .. } | Error::Poisoned { .. } => "check the disk, then look with `cairn stack info`",
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

/// Opens a stack, and says so when it had not been closed.
fn open(path: &Path) -> anyhow::Result<Stack> {
    let stack = Stack::open(path)?;
    let report = stack.open_report();
    if report.dropped_torn_commit {
        let cut = "its newest commit was unfinished, never acknowledged, and was dropped";
        note(&format!("{} had not been closed: {cut}", path.display()));
    }
    Ok(stack)
}

/// Opens a stack that has to be there.
fn open_existing(path: &Path) -> anyhow::Result<Stack> {
    fs::metadata(path).map_err(|source| Error::Io { op: "open", path: path.to_owned(), source: source.into() })?;
    open(path)
}

/// What one change may hold: it is made in memory.
const INPUT_MAX: u64 = 256 << 20;

/// All of standard input; `None` when it is longer than one change may be.
fn input(form: Form) -> anyhow::Result<Option<Vec<u8>>> {
    let max = if form == Form::Hex { 3 * INPUT_MAX } else { INPUT_MAX };
    let mut bytes = Vec::new();
    io::stdin().lock().take(max + 1).read_to_end(&mut bytes).context("cannot read standard input")?;
    if bytes.len() as u64 > max {
        return Ok(None);
    }
    if form == Form::Hex { from_hex(&bytes).map(Some) } else { Ok(Some(bytes)) }
}

fn from_hex(text: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 2);
    let mut half = None;
    for (at, c) in text.iter().enumerate().filter(|(_, c)| !c.is_ascii_whitespace()) {
        let digit = match c {
            b'0'..=b'9' => c - b'0',
            b'a'..=b'f' => c - b'a' + 10,
            b'A'..=b'F' => c - b'A' + 10,
            _ => return Err(UsageError(format!("byte {at} of the input is no hexadecimal digit")).into()),
        };
        match half.take() {
            None => half = Some(digit << 4),
            Some(high) => bytes.push(high | digit),
        }
    }
    match half {
        None => Ok(bytes),
        Some(_) => Err(UsageError("the input has an odd number of hexadecimal digits".to_owned()).into()),
    }
}

pub(crate) fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|b| [b >> 4, b & 15]).map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

/// A file beside the stack's, with more at the end of its name.
fn beside(path: &Path, more: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(more);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_digits_go_both_ways() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(from_hex(to_hex(&all).as_bytes()).unwrap(), all);
        assert_eq!(from_hex(b" 0A\nfF ").unwrap(), [10, 255]);
        assert!(from_hex(b"0").is_err() && from_hex(b"0g").is_err());
        assert!(from_hex(b"").unwrap().is_empty());
    }
}
