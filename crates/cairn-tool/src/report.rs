//! What is said on standard error and with which code the process ends.

use std::fmt;
use std::io::{self, IsTerminal, Write as _};
use std::process::ExitCode;

use anyhow::Context as _;
use cairnlog::{CorruptionKind, Dropped, Error, ErrorKind, Gap};

use crate::problem::Problem;
use crate::text::one_line;
use crate::{help, json};

/// How a command that did its work ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// Done; a log that was looked at is intact.
    Done,
    /// The log ends in bytes that do not verify, and nothing proves that they had been
    /// acknowledged.
    Torn,
    /// The answer to what was asked is no: two logs differ, something recommended is missing.
    No,
}

/// A command's result. What went wrong is one line; which code it gives is found in the chain.
pub(crate) type Outcome = anyhow::Result<Status>;

const FAILED: u8 = 1;
const USAGE: u8 = 2;
const TORN: u8 = 3;
pub(crate) const CORRUPT: u8 = 4;
const NO: u8 = 5;

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
        Ok(Status::No) => ExitCode::from(NO),
        Err(error) => {
            let code = code(&error);
            complain(command, code, Problem::of_any(&error, kind(code)), hint(&error, command));
            ExitCode::from(code)
        }
    }
}

/// What an error is called that is not the log's.
fn kind(code: u8) -> &'static str {
    match code {
        USAGE => "usage",
        CORRUPT => "corrupt",
        _ => "failed",
    }
}

/// Ends the process over arguments of `command` that make no sense, or prints the help that was
/// asked for.
pub(crate) fn usage(command: &str, error: &clap::Error) -> ExitCode {
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
    let space = if command.is_empty() { "" } else { " " };
    let help = format!("see `cairn{space}{command} --help`");
    complain(command, USAGE, Problem::of_usage(words.join(" ")), Some(&help));
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
        Error::UnsupportedVersion { found, supported, .. } if found < supported => Some(
            "write it anew: `cairn cat` of the version that wrote it, \
             into `cairn append` of this one",
        ),
        Error::UnsupportedVersion { .. } => Some("use a newer cairn"),
        Error::Gap(_) => Some("what is lost stays so: choose another position"),
        Error::Corrupt(damage) if damage.kind == CorruptionKind::State => Some(
            "nothing was changed: put that file back from where the rest came from; without it \
             nobody can tell whether the end is there. `cairn cat` reads what is there; with \
             `cairn repair --apply` the log opens as it is",
        ),
        Error::Corrupt(_) if command == "verify" => {
            Some("nothing was changed: copy the directory, then see what `cairn repair` would do")
        }
        Error::Corrupt(_) => Some(
            "nothing was changed: `cairn verify` lists all damage, and `cairn repair` says what \
             would mend it",
        ),
        Error::InDoubt { .. } | Error::Poisoned { .. } => {
            Some("check the disk, then run the command again")
        }
        Error::TooLarge { .. } => Some("raise --max-record-size"),
        Error::Truncated { dropped: Dropped::Returned, .. } => {
            Some("start again with --from that LSN")
        }
        Error::Truncated { .. } => Some("run the command again"),
        Error::Io { source, .. } => system(source),
        _ => None,
    }
}

/// One line on standard error: which command failed, why, and what to do.
fn complain(command: &str, code: u8, problem: Problem, hint: Option<&str>) {
    let space = if command.is_empty() { "" } else { " " };
    if json::is_on() {
        let line = json::failure(&format!("cairn{space}{command}"), code, problem, hint);
        let _ = writeln!(io::stderr(), "{line}");
        return;
    }
    let hint = hint.map_or_else(String::new, |hint| format!("; {hint}"));
    let _ = writeln!(
        anstream::stderr(),
        "\x1b[1;31merror\x1b[0m: cairn{space}{command}: {}",
        one_line(&format!("{}{hint}", problem.message))
    );
}

/// Says something on standard error that is worth knowing and no failure.
pub(crate) fn note(text: &str) {
    if json::is_on() {
        let _ = writeln!(io::stderr(), "{}", json::note(&one_line(text)));
        return;
    }
    let _ = writeln!(anstream::stderr(), "\x1b[1mnote\x1b[0m: {}", one_line(text));
}

/// Says where records are lost, as a repair recorded it.
pub(crate) fn note_lost(gap: &Gap) {
    note(&format!("records are lost, as a repair recorded: {gap}"));
}

/// Prints to standard output; on a terminal with colours, and lines broken where those of help
/// are. A reader that went away is no error.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    write_out(&for_people(text, &io::stdout()))
}

/// A text as it is printed there: a terminal gets no lines that are too long for it. In a pipe each
/// statement stays one line, for those who look for it.
pub(crate) fn for_people(text: &str, out: &impl IsTerminal) -> String {
    let is_shown = out.is_terminal() && !json::is_on();
    if is_shown { help::break_long(text) } else { text.to_owned() }
}

/// Whether nobody reads standard output any more: that is no failure.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let broken = |e: &io::Error| e.kind() == io::ErrorKind::BrokenPipe;
    error.chain().any(|cause| cause.downcast_ref().is_some_and(broken))
}

/// Prints bytes as they are. A reader that went away is no error.
pub(crate) fn print_bytes(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to standard output"),
    }
}

fn write_out(text: &str) -> anyhow::Result<()> {
    let mut out = anstream::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to standard output"),
    }
}

/// Prints a value as one line of JSON.
pub(crate) fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    write_out(&(serde_json::to_string(value)? + "\n"))
}

/// Says what opening a log found, when its last writer did not close it.
pub(crate) fn opened(dir: &std::path::Path, report: &cairnlog::OpenReport) {
    found(dir, report).iter().for_each(|text| note(text));
}

/// The same as text; `None` if the last writer closed it.
pub(crate) fn found(dir: &std::path::Path, found: &cairnlog::OpenReport) -> Option<String> {
    use cairnlog::EndState;
    let cut = match found.end_state {
        EndState::Torn { .. } => {
            format!(
                "a torn tail of {} bytes was cut; every record in front of it was kept",
                found.bytes_cut
            )
        }
        EndState::Unclosed => "its end was whole".to_owned(),
        _ => return None,
    };
    Some(format!(
        "{} had not been closed: {cut}; {} bytes were written again and synced, generation {} \
         begins",
        dir.display(),
        found.bytes_carried,
        found.generation,
    ))
}

/// `1 record`, `2 records`.
pub(crate) fn count(n: u64, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}
