//! `cairn verify`: reads every byte of a log and changes none.

use std::io;
use std::path::{Path, PathBuf};

use cairnlog::{EndState, Error, Inspection, Verification};
use serde::Serialize;

use crate::problem::Problem;
use crate::report::{self, Outcome, Status};
use crate::{info, look, progress};

/// Check every byte of a log
///
/// Reads all segments, and lists all damage. Takes no lock and changes nothing, also while another process appends.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// Directory of the log
    dir: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

const HELP: &str = "\
Examples:
  cairn verify ./log && echo intact
  cairn verify ./log --json | jq '.problems[].lsn'

Exit codes:
  0  intact, closed or not
  1  could not be read
  3  torn tail: the log ends in an unfinished write; nothing acknowledged is lost, and the next
     append cuts it
  4  corruption: acknowledged bytes are damaged or missing, or files are foreign or too new";

/// The result as JSON.
#[derive(Debug, Serialize)]
struct Found {
    state: &'static str,
    /// Records of the log, by their numbers.
    records: u64,
    /// Records that verify; dropped ones that are still in a segment included.
    records_verified: u64,
    bytes: u64,
    torn_bytes: u64,
    problems: Vec<Problem>,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let (log, found) = scrub(&args.dir)?;
    let torn_bytes = match found.end_state {
        EndState::Torn { bytes } => bytes,
        _ => 0,
    };
    let problems: Vec<_> = found.problems.iter().map(Problem::of).collect();
    let state = info::state(found.end_state, problems.is_empty());
    let records = log.next_seq().0.saturating_sub(log.head_seq().0);
    if args.json {
        let (records_verified, bytes) = (found.records, found.bytes);
        report::print_json(&Found { state, records, records_verified, bytes, torn_bytes, problems })?;
    } else {
        let range = format!(
            "{}, {}, {}, LSN {}..{}",
            report::count(if problems.is_empty() { records } else { found.records }, "record"),
            report::count(found.bytes, "byte"),
            report::count(log.segments().len() as u64, "segment"),
            log.head_lsn(),
            log.end_lsn()
        );
        let mut text = match state {
            "corrupt" => format!("corrupt: {range}; {}:\n", report::count(problems.len() as u64, "problem")),
            "torn" => {
                format!("torn tail: {range}; the last {torn_bytes} bytes are an unfinished write, never acknowledged\n")
            }
            state => format!("intact: {range}, {state}\n"),
        };
        text.extend(problems.iter().map(Problem::to_line));
        report::print(&text)?;
    }
    match (found.problems.into_iter().next(), found.end_state) {
        // The list is on standard output; the first problem also decides the code.
        (Some(problem), _) => Err(problem.into()),
        (None, EndState::Torn { .. }) => Ok(Status::Torn),
        _ => Ok(Status::Done),
    }
}

/// Checks the log, again from the start when a writer removed a segment meanwhile.
fn scrub(dir: &Path) -> anyhow::Result<(Inspection, Verification)> {
    const ATTEMPTS: u32 = 5;
    for attempt in 1.. {
        let log = look::inspect(dir)?;
        let total = log.segments().iter().map(|segment| segment.end_lsn.0 - segment.base_lsn.0).sum();
        let bar = progress::bytes(Some(total), "verifying");
        let verified = log.verify(|bytes| bar.inc(bytes));
        bar.finish_and_clear();
        match verified {
            Err(Error::Io { ref source, .. }) if source.kind() == io::ErrorKind::NotFound && attempt < ATTEMPTS => {}
            Err(error) => return Err(error.into()),
            Ok(found) => return Ok((log, found)),
        }
    }
    unreachable!("the last attempt returns")
}
