//! `cairn heap check`: the proof that a heap is whole, or all that is wrong with it.

use std::path::PathBuf;

use cairnlog::heap::{self, Error, Report};
use cairnlog::stack::{self, EndState};
use serde::Serialize;

use super::look::look_below;
use crate::problem::Problem;
use crate::progress;
use crate::report::{self, LostError, Outcome, Status, count};
use crate::stack::state;

/// Prove that every byte is header, free, or allocated, and that all metadata agree
///
/// Lists everything that is wrong, with its offset in the stack. Reads all headers. What is in the
/// blocks has no checksum.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct Args {
    /// File of the heap's stack
    pub(super) file: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

const HELP: &str = "\
Examples:
  cairn heap check ./heap && echo intact
  cairn heap check ./heap --json | jq '.violations[].offset'
  cairn stack get ./heap 2304 2336 --form hex    what is at an offset that was listed

Exit codes:
  0  intact, closed or not
  1  could not be looked at
  3  torn tail: the newest commit is unfinished; nothing acknowledged is lost, and the next opening
     drops it; the heap without it is intact
  4  corruption: the heap or its stack is damaged, or too new, or the file is none of Cairn's";

/// The result as JSON.
#[derive(Debug, Default, Serialize)]
struct Found {
    state: &'static str,
    /// These four add up to it.
    len: u64,
    header_bytes: u64,
    allocated_bytes: u64,
    free_bytes: u64,
    lost_bytes: u64,
    live_blocks: u64,
    live_bytes: u64,
    free_runs: u64,
    largest_free: u64,
    violations: Vec<Wrong>,
    /// What kept the heap from being checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<Problem>,
}

#[derive(Debug, Serialize)]
struct Wrong {
    offset: u64,
    what: &'static str,
}

pub(super) fn run(args: &Args) -> Outcome {
    let bar = progress::count(None, "checking");
    let checked = look_below(&args.file, |stack, end| Ok((heap::check(&stack)?, end)));
    bar.finish_and_clear();
    let (report, end) = match checked {
        Ok(checked) => checked,
        Err(error) => return Err(refuse(args, error)?),
    };
    let whole = report.is_sound();
    let found = Found::of(&report, if whole { state(end) } else { "corrupt" });
    if args.json {
        report::print_json(&found)?;
    } else {
        report::print(&found.to_text())?;
    }
    match (found.violations.first(), end) {
        (Some(Wrong { offset, what }), _) => {
            let all = count(found.violations.len() as u64, "violation");
            let text =
                format!("{}: {all}, the first at offset {offset}: {what}", args.file.display());
            Err(LostError(format!(
                "{text}; copy the file, then `cairn heap repair` shows a way out"
            ))
            .into())
        }
        (None, EndState::Torn) => Ok(Status::Torn),
        _ => Ok(Status::Done),
    }
}

/// Says that a heap is too damaged to be walked; returns the error that says why.
fn refuse(args: &Args, error: anyhow::Error) -> anyhow::Result<anyhow::Error> {
    let kind = match (error.downcast_ref::<Error>(), error.downcast_ref::<stack::Error>()) {
        (Some(error), _) => error.kind(),
        (_, Some(error)) => error.kind(),
        _ => return Ok(error),
    };
    if kind != stack::ErrorKind::Repair {
        return Ok(error);
    }
    let violations = match error.downcast_ref() {
        Some(&Error::Corrupt { offset, what }) => vec![Wrong { offset, what }],
        _ => Vec::new(),
    };
    let problem = Some(Problem::corrupt(format!("{error:#}")));
    if args.json {
        report::print_json(&Found { state: "corrupt", violations, problem, ..Found::default() })?;
    } else {
        report::print("corrupt\n")?;
    }
    Ok(error)
}

impl Found {
    fn of(report: &Report, state: &'static str) -> Self {
        let mut violations: Vec<_> = report
            .violations
            .iter()
            .map(|found| Wrong { offset: found.offset, what: found.what })
            .collect();
        violations.sort_by_key(|wrong| wrong.offset);
        Found {
            state,
            len: report.len,
            header_bytes: report.header_bytes,
            allocated_bytes: report.allocated_bytes,
            free_bytes: report.free_bytes,
            lost_bytes: report.lost_bytes,
            live_blocks: report.live_blocks,
            live_bytes: report.live_bytes,
            free_runs: report.free_runs,
            largest_free: report.largest_free,
            violations,
            problem: None,
        }
    }

    fn to_text(&self) -> String {
        let Found { state, len, header_bytes, allocated_bytes, free_bytes, lost_bytes, .. } = self;
        let parts =
            format!("{header_bytes} of headers, {allocated_bytes} allocated, {free_bytes} free");
        let sum = format!("{}, {}: {parts}", count(self.live_blocks, "block"), count(*len, "byte"));
        let mut text = match *state {
            "corrupt" => {
                let all = count(self.violations.len() as u64, "violation");
                format!("corrupt: {sum}, {lost_bytes} lost; {all}:\n")
            }
            "torn" => {
                format!("torn tail: {sum}; the newest commit is unfinished, never acknowledged\n")
            }
            state => format!("intact: {sum}; {state}\n"),
        };
        text.extend(
            self.violations
                .iter()
                .map(|Wrong { offset, what }| format!("  offset {offset}: {what}\n")),
        );
        text
    }
}
