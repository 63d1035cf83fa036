//! What is said on standard error and with which code the process ends.

use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::Context as _;
use cairnlog::{Error, ErrorKind};

/// How a command that did its work ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// Done; a log that was looked at is intact.
    Done,
    /// The log ends in bytes of an unfinished write, none of them acknowledged.
    Torn,
}

/// A command's result. What went wrong is one line; which code it gives is found in the chain.
pub(crate) type Outcome = anyhow::Result<Status>;

const FAILED: u8 = 1;
const USAGE: u8 = 2;
const TORN: u8 = 3;
pub(crate) const CORRUPT: u8 = 4;

/// The arguments ask for something that does not exist.
#[derive(Debug)]
pub(crate) struct UsageError(pub(crate) String);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

/// Something that a log had acknowledged is not there any more.
#[derive(Debug)]
pub(crate) struct LostError(pub(crate) String);

impl fmt::Display for LostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for LostError {}

/// Ends a command: prints its error, if it has one, and returns the exit code.
pub(crate) fn exit(command: &str, outcome: Outcome) -> ExitCode {
    match outcome {
        Ok(Status::Done) => ExitCode::SUCCESS,
        Ok(Status::Torn) => ExitCode::from(TORN),
        Err(error) => {
            let mut line = format!("{error:#}");
            if let Some(hint) = hint(&error, command) {
                let _ = write!(line, "; {hint}");
            }
            complain(command, &line);
            ExitCode::from(code(&error))
        }
    }
}

/// Ends the process over arguments that make no sense, or prints the help that was asked for.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    if !error.use_stderr() || error.kind() == DisplayHelpOnMissingArgumentOrSubcommand {
        let _ = error.print();
        return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(USAGE));
    }
    let text = error.render().to_string();
    // The first paragraphs say what is wrong; the usage that follows is in the help.
    let what = text.split("\n\nUsage:").next().unwrap_or_default();
    let what = what.split("\n\nFor more information").next().unwrap_or_default();
    let what = what.trim_start_matches("error:").trim().replace("\n\n", "; ");
    let words: Vec<_> = what.split_whitespace().collect();
    complain("", &format!("{}; see --help", words.join(" ")));
    ExitCode::from(USAGE)
}

/// The exit code for an error.
pub(crate) fn code(error: &anyhow::Error) -> u8 {
    if error.chain().any(|cause| cause.is::<UsageError>()) {
        return USAGE;
    }
    if error.chain().any(|cause| cause.is::<LostError>()) {
        return CORRUPT;
    }
    match log_error(error) {
        // Not the arguments' fault: they were good when the command began.
        Some(Error::Truncated { .. }) | None => FAILED,
        Some(error) => match error.kind() {
            ErrorKind::Usage => USAGE,
            ErrorKind::Repair => CORRUPT,
            _ => FAILED,
        },
    }
}

/// The log's error in a chain.
fn log_error(error: &anyhow::Error) -> Option<&Error> {
    error.chain().find_map(|cause| cause.downcast_ref::<Error>())
}

/// What to do about an error whose text does not say so.
pub(crate) fn hint(error: &anyhow::Error, command: &str) -> Option<&'static str> {
    let system = |source: &io::Error| match source.kind() {
        io::ErrorKind::PermissionDenied => Some("check who owns it and its permissions"),
        io::ErrorKind::ReadOnlyFilesystem => Some("mount it for writing, or use another directory"),
        io::ErrorKind::NotADirectory => Some("name a directory, not a file"),
        _ => None,
    };
    match log_error(error)? {
        Error::Locked { .. } => Some("wait until that one ends, or stop it"),
        Error::Foreign { .. } | Error::WrongLog { .. } => Some("move the file away"),
        Error::UnsupportedVersion { .. } => Some("use a newer cairn"),
        Error::Corrupt(_) if command == "verify" => {
            Some("nothing was changed: copy the directory before you do anything else with it")
        }
        Error::Corrupt(_) => Some("nothing was changed: `cairn verify` lists all damage"),
        Error::InDoubt { .. } | Error::Poisoned { .. } => Some("check the disk, then run the command again"),
        Error::TooLarge { .. } => Some("raise --max-record-size"),
        Error::Truncated { .. } => Some("run the command again"),
        Error::Io { source, .. } => system(source),
        _ => None,
    }
}

fn complain(command: &str, text: &str) {
    let space = if command.is_empty() { "" } else { " " };
    let _ = writeln!(anstream::stderr(), "\x1b[1;31merror\x1b[0m: cairn{space}{command}: {}", one_line(text));
}

/// Says something on standard error that is worth knowing and no failure.
pub(crate) fn note(text: &str) {
    let _ = writeln!(anstream::stderr(), "\x1b[1mnote\x1b[0m: {}", one_line(text));
}

/// Without the line breaks and control characters that paths and system messages may contain.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Prints to standard output, colours only for a terminal. A reader that went away is no error.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = anstream::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to standard output"),
    }
}

/// Prints a value as one line of JSON.
pub(crate) fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    print(&(serde_json::to_string(value)? + "\n"))
}

/// Says what opening a log found, when its last writer did not close it.
pub(crate) fn opened(dir: &std::path::Path, found: &cairnlog::OpenReport) {
    use cairnlog::EndState;
    let cut = match found.end_state {
        EndState::Torn { .. } => format!("a torn tail of {} bytes, never acknowledged, was cut", found.bytes_cut),
        EndState::Unclosed => "its end was whole".to_owned(),
        _ => return,
    };
    note(&format!(
        "{} had not been closed: {cut}; {} bytes were written again and synced, generation {} begins",
        dir.display(),
        found.bytes_carried,
        found.generation,
    ));
}

/// `1 record`, `2 records`.
pub(crate) fn count(n: u64, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}
