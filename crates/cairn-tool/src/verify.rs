//! `cairn verify`: reads every byte of a log and changes none.

use std::path::{Path, PathBuf};

use cairnlog::{EndState, Inspection, Verification};
use serde::Serialize;

use crate::problem::Problem;
use crate::report::{self, Outcome, Status};
use crate::salvage::Lost;
use crate::{look, progress, verdict};

/// Check every byte of a log
///
/// Reads all segments, and lists all damage. Takes no lock and changes nothing, also while another
/// process appends.
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
  3  torn tail: the last bytes do not verify, and nothing proves that they had been acknowledged;
     the next append keeps every record in front of them and cuts them off
  4  corruption: acknowledged bytes are damaged or missing, or files are foreign or too new";

/// The result as JSON.
#[derive(Debug, Serialize)]
struct Found {
    state: &'static str,
    /// The row of the table in `docs/format/log.md` that the log's end is.
    end: &'static str,
    /// Records of the log, by their numbers.
    records: u64,
    /// Records that verify; dropped ones that are still in a segment included.
    records_verified: u64,
    bytes: u64,
    torn_bytes: u64,
    problems: Vec<Problem>,
    /// Where records are lost, as a repair recorded it.
    gaps: Vec<Lost>,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let (log, found) = scrub(&args.dir)?;
    let torn_bytes = match found.end_state {
        EndState::Torn { bytes } => bytes,
        _ => 0,
    };
    let problems: Vec<_> = found.problems.iter().map(Problem::of).collect();
    let state = verdict::word(found.end_state, problems.is_empty());
    let end = log.end_case().label();
    let records = log.records();
    if args.json {
        let (records_verified, bytes) = (found.records, found.bytes);
        report::print_json(&Found {
            state,
            end,
            records,
            records_verified,
            bytes,
            torn_bytes,
            problems,
            gaps: found.gaps.iter().map(Lost::of_gap).collect(),
        })?;
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
            "corrupt" => {
                let problems = report::count(problems.len() as u64, "problem");
                format!("corrupt: {range}, end: {end}; {problems}:\n")
            }
            "torn" => {
                format!("{end}: {range}; {}; {}\n", verdict::torn(torn_bytes), verdict::TORN_NEXT)
            }
            _ => format!("intact: {range}, {end}\n"),
        };
        text.extend(problems.iter().map(Problem::to_line));
        text.extend(found.gaps.iter().map(|gap| format!("  lost before, by a repair: {gap}\n")));
        report::print(&text)?;
    }
    match (found.problems.into_iter().next(), found.end_state) {
        // The list is on standard output; the first problem also decides the code.
        (Some(problem), _) => Err(problem.into()),
        (None, EndState::Torn { .. }) => Ok(Status::Torn),
        _ => Ok(Status::Done),
    }
}

/// Checks the log. Segments that a writer drops meanwhile are none of its.
fn scrub(dir: &Path) -> anyhow::Result<(Inspection, Verification)> {
    let log = look::inspect(dir)?;
    let total = log.segments().iter().map(|segment| segment.end_lsn.0 - segment.base_lsn.0).sum();
    let bar = progress::bytes(Some(total), "verifying");
    let verified = log.verify(|bytes| bar.inc(bytes));
    bar.finish_and_clear();
    Ok((log, verified?))
}
