//! `cairn truncate`: drops records at the beginning or at the end of a log.

use std::path::PathBuf;

use cairnlog::{Error, Log, Lsn};
use serde::Serialize;

use crate::look;
use crate::report::{self, Outcome, Status, UsageError};

/// Drop records at the beginning or at the end of a log
///
/// Durable on return, and atomic: a crash leaves the log before or after it. Needs the log for itself.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
#[command(group = clap::ArgGroup::new("end").args(["before", "after"]).required(true).multiple(true))]
pub(crate) struct Args {
    /// Directory of the log
    dir: PathBuf,
    /// Drop every record before this LSN, where a record starts or ends
    #[arg(long, value_name = "LSN")]
    before: Option<u64>,
    /// Drop every record after the one that starts at this LSN, which stays as the last one
    #[arg(long, value_name = "LSN")]
    after: Option<u64>,
    /// Print the new range as JSON
    #[arg(long)]
    json: bool,
}

const HELP: &str = "\
Examples:
  cairn truncate ./log --before 81920     what a checkpoint no longer needs
  cairn truncate ./log --after 81920      the record at 81920 stays, later ones go
  cairn cat ./log --json                  shows the LSN of each record

An LSN that names no record is refused with code 2; the message tells the nearest one, and
nothing is dropped. Given both, both are checked before anything is dropped.";

/// What is left.
#[derive(Debug, Serialize)]
struct Range {
    head_lsn: u64,
    end_lsn: u64,
    head_seq: u64,
    next_seq: u64,
}

pub(crate) fn run(args: &Args) -> Outcome {
    // Opening would create a log where there is none.
    drop(look::inspect(&args.dir)?);
    let log = Log::open(&args.dir)?;
    report::opened(&args.dir, log.open_report());
    let (before, after) = (args.before.map(Lsn), args.after.map(Lsn));
    let truncated = truncate(&log, before, after);
    let closed = log.close();
    truncated?;
    closed?;
    let log = look::inspect(&args.dir)?;
    let range = Range {
        head_lsn: log.head_lsn().0,
        end_lsn: log.end_lsn().0,
        head_seq: log.head_seq().0,
        next_seq: log.next_seq().0,
    };
    if args.json {
        report::print_json(&range)?;
    } else {
        let Range { head_lsn, end_lsn, head_seq, next_seq } = range;
        let records = report::count(next_seq - head_seq, "record");
        report::print(&format!("{records} left: LSN {head_lsn}..{end_lsn}, seq {head_seq}..{next_seq}\n"))?;
    }
    Ok(Status::Done)
}

/// Checks both ends, then drops.
fn truncate(log: &Log, before: Option<Lsn>, after: Option<Lsn>) -> anyhow::Result<()> {
    if let Some(before) = before {
        log.reader(before)?;
    }
    if let Some(after) = after {
        check_record_at(log, after)?;
        if before.is_some_and(|before| before > after) {
            let text = "--before is behind --after: nothing would be left; nothing was dropped";
            return Err(UsageError(text.to_owned()).into());
        }
    }
    if let Some(after) = after {
        log.truncate_after(after)?;
    }
    if let Some(before) = before {
        log.truncate_before(before)?;
    }
    Ok(())
}

/// Fails unless a record starts at `lsn`; tells the nearest one before it.
fn check_record_at(log: &Log, lsn: Lsn) -> anyhow::Result<()> {
    let from = match log.reader(lsn) {
        Ok(mut reader) => match reader.next_record()? {
            Some(record) if record.lsn() == lsn => return Ok(()),
            _ => lsn,
        },
        Err(Error::NotARecord { previous, .. }) => previous,
        Err(error) => return Err(error.into()),
    };
    Err(Error::NotARecord { lsn, previous: from }.into())
}
