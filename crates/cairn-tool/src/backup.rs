//! `cairn backup` and `cairn restore`: copies of a log that is written to, and logs of such copies.

use std::path::{Path, PathBuf};

use cairnlog::CopyReport;
use serde::Serialize;

use crate::report::{self, Outcome, Status};
use crate::{look, progress};

/// Copy a log, also while a program writes to it
///
/// The copy is verified and durable, and holds everything that was acknowledged before the command
/// began. If DST has an earlier copy of this log, only what that one lacks is copied.
#[derive(Debug, clap::Args)]
#[command(after_help = BACKUP_HELP)]
pub(crate) struct BackupArgs {
    /// Directory of the log
    src: PathBuf,
    /// Directory of the copy: a new or empty one, or one that a backup of this log made
    dst: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

const BACKUP_HELP: &str = "\
Examples:
  cairn backup ./log /backup/log            a first copy, or only what is new since the last one
  cairn verify /backup/log                  read every byte of it again
  cairn restore /backup/log ./log           after a disaster

Takes no lock of the log and changes nothing of it. The copy is a closed log: info, cat and verify
look at it. Do not append to it: then it is a log of its own, and no backup goes there any more.

Interrupted, a first copy is refused by whatever opens it. One that is brought up to date stays what
it was until everything new is there. Run the command again: it goes on with what was done.

Exit codes:
  0  done: the copy is whole
  1  failed: could not be read or written, or DST holds something else
  4  corruption: the log is damaged, and was not copied";

/// Copy a backup to where its log is to live on
///
/// Positions and numbers are those of the original.
#[derive(Debug, clap::Args)]
#[command(after_help = RESTORE_HELP)]
pub(crate) struct RestoreArgs {
    /// Directory of the backup
    src: PathBuf,
    /// Directory of the log: a new or empty one
    dst: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

const RESTORE_HELP: &str = "\
Examples:
  mv ./log ./log.damaged && cairn restore /backup/log ./log
  cairn cat ./log | tail -1

Refuses a directory in which anything is, a log above all. Interrupted, what is there is no log yet,
and is refused by whatever opens it: run the command again.

Exit codes:
  0  done: the log is whole
  1  failed: could not be read or written, or DST is not empty
  4  corruption: the backup is damaged, or not whole";

/// What was copied, as JSON.
#[derive(Debug, Serialize)]
struct Copied {
    uuid: String,
    head_lsn: u64,
    end_lsn: u64,
    head_seq: u64,
    next_seq: u64,
    segments: usize,
    segments_copied: usize,
    bytes_copied: u64,
    restarts: u32,
}

pub(crate) fn backup(args: &BackupArgs) -> Outcome {
    copy(&args.src, args.json, "backing up", |tell| cairnlog::backup(&args.src, &args.dst, tell))
}

pub(crate) fn restore(args: &RestoreArgs) -> Outcome {
    copy(&args.src, args.json, "restoring", |tell| cairnlog::restore(&args.src, &args.dst, tell))
}

fn copy(
    src: &Path,
    json: bool,
    what: &'static str,
    copy: impl FnOnce(&dyn Fn(u64)) -> cairnlog::Result<CopyReport>,
) -> Outcome {
    // For the message, if there is no log.
    drop(look::inspect(src)?);
    let bar = progress::bytes(None, what);
    let copied = copy(&|bytes| bar.inc(bytes));
    bar.finish_and_clear();
    let copied = copied?;
    if json {
        report::print_json(&Copied {
            uuid: copied.uuid.to_string(),
            head_lsn: copied.head_lsn.0,
            end_lsn: copied.end_lsn.0,
            head_seq: copied.head_seq.0,
            next_seq: copied.next_seq.0,
            segments: copied.segments,
            segments_copied: copied.copied,
            bytes_copied: copied.bytes_copied,
            restarts: copied.restarts,
        })?;
    } else {
        report::print(&format!(
            "{}, LSN {}..{}, seq {}..{}; {} of {} copied, {}\n",
            report::count(copied.records, "record"),
            copied.head_lsn,
            copied.end_lsn,
            copied.head_seq,
            copied.next_seq,
            copied.copied,
            report::count(copied.segments as u64, "segment"),
            report::count(copied.bytes_copied, "byte"),
        ))?;
    }
    Ok(Status::Done)
}
