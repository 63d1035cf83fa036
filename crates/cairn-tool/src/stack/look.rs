//! `cairn stack info` and `verify`: looking at a stack that somebody may be writing to.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use cairnlog::stack::{EndState, Error, Inspection};
use serde::Serialize;

use crate::problem::Problem;
use crate::progress;
use crate::report::{self, LostError, Outcome, Status};

/// Show length and state
///
/// Reads the headers and the newest commit; takes no lock and changes nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = INFO_HELP)]
pub(super) struct InfoArgs {
    /// File of the stack
    file: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

const INFO_HELP: &str = "\
Examples:
  cairn stack info ./stack
  cairn stack info ./stack --json | jq .len

State:
  closed; unclosed (in use, or its user was killed); torn (its newest commit is unfinished, nothing
  acknowledged is lost). `found` says what the headers and the newest commits look like, in the
  words of the table in docs/format/stack.md

Exit codes:
  0  closed, unclosed or torn
  1  could not be read
  4  corrupt, foreign, or of another version";

/// Check headers, the newest commit, and that every byte can be read
///
/// Takes no lock and changes nothing, also while another process writes. Bytes that later commits
/// built on have no checksum of their own: what the device returns for them is what there is.
#[derive(Debug, clap::Args)]
#[command(after_help = VERIFY_HELP)]
pub(super) struct VerifyArgs {
    /// File of the stack
    file: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

const VERIFY_HELP: &str = "\
Examples:
  cairn stack verify ./stack && echo intact
  cairn stack verify ./stack --json | jq .state

Exit codes:
  0  intact, closed or not
  1  could not be looked at
  3  torn tail: the newest commit is unfinished; nothing acknowledged is lost, and the next push,
     pop or set drops it
  4  corruption: headers, the newest commit or the file's length are wrong, or bytes cannot be read;
     or the file is foreign or of another version";

/// How often a look is repeated, and the pause before each: long enough for a write that is under
/// way to end.
const LOOKS_MAX: u32 = 50;
const PAUSE: Duration = Duration::from_millis(5);

/// Looks at a stack. A commit that is just being written looks torn, and the one before it may: so
/// that is believed only when it stays as it is for a while.
pub(crate) fn look(path: &Path) -> Result<Inspection, Error> {
    let mut stack = Inspection::open(path);
    for _ in 1..LOOKS_MAX {
        let before = match &stack {
            Ok(stack) if stack.end_state() == EndState::Torn => Some(stack.sequence()),
            Err(Error::Corrupt { .. } | Error::OtherHistory { .. }) => None,
            _ => break,
        };
        std::thread::sleep(PAUSE);
        stack = Inspection::open(path);
        let now = match &stack {
            Ok(stack) => Some(stack.sequence()),
            Err(_) => None,
        };
        if now == before {
            break;
        }
    }
    stack
}

pub(crate) fn state(end: EndState) -> &'static str {
    match end {
        EndState::Closed => "closed",
        EndState::Unclosed => "unclosed",
        EndState::Torn => "torn",
        _ => "unknown",
    }
}

/// Everything there is to say.
#[derive(Debug, Serialize)]
struct Info {
    file: String,
    uuid: String,
    state: &'static str,
    found: &'static str,
    len: u64,
    sequence: u64,
    file_bytes: u64,
    created: String,
}

pub(super) fn info(args: &InfoArgs) -> Outcome {
    let stack = look(&args.file)?;
    let created = jiff::Timestamp::try_from(stack.created());
    let info = Info {
        file: args.file.display().to_string(),
        uuid: stack.uuid().to_string(),
        state: state(stack.end_state()),
        found: stack.found(),
        len: stack.len(),
        sequence: stack.sequence(),
        file_bytes: stack.file_len(),
        created: created
            .map_or_else(|_| "-".to_owned(), |at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
    };
    if args.json {
        report::print_json(&info)?;
    } else {
        let Info { file, uuid, state, found, len, sequence, file_bytes, created } = info;
        report::print(&format!(
            "stack     {file}\nuuid      {uuid}\nstate     {state}\nfound     {found}\n\
             length    {len} bytes ({})\nnewest    commit {sequence}\n\
             file      {file_bytes} bytes ({})\ncreated   {created}\n",
            ByteSize(len),
            ByteSize(file_bytes)
        ))?;
    }
    Ok(Status::Done)
}

/// The result as JSON.
#[derive(Debug, Serialize)]
struct Found {
    state: &'static str,
    /// What the headers and the newest commits look like; nothing when the file is not a stack of
    /// this version.
    #[serde(skip_serializing_if = "Option::is_none")]
    found: Option<&'static str>,
    len: u64,
    /// Ranges that cannot be read.
    unreadable: Vec<Extent>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<Problem>,
}

#[derive(Debug, Serialize)]
pub(super) struct Extent {
    pub(super) start: u64,
    pub(super) end: u64,
}

pub(super) fn verify(args: &VerifyArgs) -> Outcome {
    let stack = match look(&args.file) {
        Ok(stack) => stack,
        Err(
            error @ (Error::Corrupt { .. }
            | Error::OtherHistory { .. }
            | Error::Foreign { .. }
            | Error::UnsupportedVersion { .. }),
        ) => {
            let found = match &error {
                Error::Corrupt { what, .. } => Some(*what),
                Error::OtherHistory { .. } => Some("the headers are of two histories of one stack"),
                _ => None,
            };
            let found = Found {
                state: "corrupt",
                found,
                len: 0,
                unreadable: Vec::new(),
                problem: Some(Problem::corrupt(error.to_string())),
            };
            if args.json {
                report::print_json(&found)?;
            } else {
                report::print("corrupt\n")?;
            }
            return Err(error.into());
        }
        Err(error) => return Err(error.into()),
    };
    let bar = progress::bytes(Some(stack.len()), "verifying");
    let unreadable = scrub(&stack, |bytes| bar.inc(bytes));
    bar.finish_and_clear();
    let (len, found) = (stack.len(), stack.found());
    let state = if unreadable.is_empty() { state(stack.end_state()) } else { "corrupt" };
    if args.json {
        let unreadable =
            unreadable.iter().map(|range| Extent { start: range.start, end: range.end }).collect();
        report::print_json(&Found { state, found: Some(found), len, unreadable, problem: None })?;
    } else {
        let range = report::count(len, "byte");
        let mut text = match state {
            "corrupt" => format!("corrupt: {range}; cannot be read:\n"),
            "torn" => {
                format!("torn tail: {range}; a commit was cut off, never acknowledged: {found}\n")
            }
            state => format!("intact: {range}, {state}\n"),
        };
        text.extend(unreadable.iter().map(|range| format!("  {}..{}\n", range.start, range.end)));
        report::print(&text)?;
    }
    match (unreadable.first(), stack.end_state()) {
        (Some(range), _) => {
            let place = format!("from offset {} on", range.start);
            Err(LostError(format!("{} cannot be read {place}; copy what can", args.file.display()))
                .into())
        }
        (None, EndState::Torn) => Ok(Status::Torn),
        _ => Ok(Status::Done),
    }
}

/// Reads every byte; returns the ranges that the system cannot read.
fn scrub(stack: &Inspection, progress: impl Fn(u64)) -> Vec<Range<u64>> {
    const CHUNK: u64 = 1 << 20;
    const BLOCK: u64 = 4096;
    let mut buf = vec![0; 1 << 20];
    let mut reads = |range: Range<u64>| {
        let len = usize::try_from(range.end - range.start).unwrap_or(buf.len());
        stack.get_into(range.start, &mut buf[..len]).is_ok()
    };
    let parts = |range: Range<u64>, step: u64| {
        let end = range.end;
        (range.start..end)
            .step_by(usize::try_from(step).unwrap_or(1))
            .map(move |at| at..(at + step).min(end))
    };
    let mut unreadable: Vec<Range<u64>> = Vec::new();
    for chunk in parts(0..stack.len(), CHUNK) {
        if !reads(chunk.clone()) {
            for block in parts(chunk.clone(), BLOCK).filter(|block| !reads(block.clone())) {
                match unreadable.last_mut().filter(|last| last.end == block.start) {
                    Some(last) => last.end = block.end,
                    None => unreadable.push(block),
                }
            }
        }
        progress(chunk.end - chunk.start);
    }
    unreadable
}
