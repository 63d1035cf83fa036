//! `cairn truncate`: drops records at the beginning or at the end of a log.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use cairnlog::{Error, Floor, Inspection, Log, Lsn, Reader, Retention, SegmentInfo, Seq, Start};
use serde::Serialize;

use crate::look;
use crate::report::{self, Outcome, Status, UsageError};

/// Drop records at the beginning or at the end of a log
///
/// Durable on return, and atomic: a crash leaves the log before or after it. Needs the log for
/// itself, but with --dry-run.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
#[command(override_usage = "cairn truncate <DIR> [--before LSN|--before-seq N] [--after LSN]\n\
                          \x20      cairn truncate <DIR> --keep-bytes SIZE\n\
                          \x20      cairn truncate <DIR> --keep-age TIME [--keep-records N]")]
#[command(group = clap::ArgGroup::new("end")
    .args(["before", "before_seq", "after", "keep_bytes", "keep_age"])
    .required(true)
    .multiple(true))]
pub(crate) struct Args {
    /// Directory of the log
    dir: PathBuf,
    /// Drop every record before this LSN, where a record starts or ends
    #[arg(long, value_name = "LSN", conflicts_with_all = ["before_seq", "keep_bytes", "keep_age"])]
    before: Option<u64>,
    /// Drop every record before the one with this number
    #[arg(long, value_name = "N", conflicts_with_all = ["keep_bytes", "keep_age"])]
    before_seq: Option<u64>,
    /// Drop every record after the one that starts at this LSN, which stays as the last one
    #[arg(long, value_name = "LSN", conflicts_with_all = ["keep_bytes", "keep_age"])]
    after: Option<u64>,
    /// Drop the oldest segments until the others have at most this size; the last one stays
    #[arg(long, value_name = "SIZE", conflicts_with = "keep_age")]
    keep_bytes: Option<ByteSize>,
    /// Drop records that are older than this for certain, such as 36h or 7d
    #[arg(long, value_name = "TIME", value_parser = age)]
    keep_age: Option<Duration>,
    /// With --keep-age: the newest N records stay, whatever the clock says
    #[arg(long, value_name = "N", requires = "keep_age")]
    keep_records: Option<u64>,
    /// Say what would be dropped, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Print the new range as JSON
    #[arg(long)]
    json: bool,
}

const HELP: &str = "\
Examples:
  cairn truncate ./log --before 81920     what a checkpoint no longer needs
  cairn truncate ./log --before-seq 5000  the same by number
  cairn truncate ./log --after 81920      the record at 81920 stays, later ones go
  cairn truncate ./log --keep-bytes 1GiB --dry-run
  cairn truncate ./log --keep-age 7d --keep-records 1000
  cairn cat ./log --json                  shows the LSN of each record

An LSN or a number that names no record is refused with code 2; the message tells the nearest one,
and nothing is dropped. Given both ends, both are checked before anything is dropped.

Age:
  How old records are is known where segments begin. What is not known is taken for younger, and
  stays. A last segment that was begun longer ago than that is ended, and dropped. A clock that is
  wrong now, and was when the log was written to, may drop everything: --keep-records is the floor.

With --dry-run the log is only looked at, also while another process has it: what is freed is then
an estimate, the size of the files that would go.

Exit codes:
  0  dropped, or with --dry-run shown
  1  failed: see the message
  2  wrong usage, or an LSN or number that names no record
  4  corruption: nothing was changed";

/// What is left.
#[derive(Debug, Serialize)]
struct Range {
    head_lsn: u64,
    end_lsn: u64,
    head_seq: u64,
    next_seq: u64,
    dropped_records: u64,
    /// Bytes of disk space that the log takes less than before.
    freed_bytes: u64,
    dry_run: bool,
    /// The first segment is the one that it was.
    #[serde(skip)]
    keeps_first: bool,
}

/// Where the log's first segment starts.
fn first_base(log: &Inspection) -> Option<Lsn> {
    log.segments().first().map(|segment| segment.base_lsn)
}

pub(crate) fn run(args: &Args) -> Outcome {
    // Opening would create a log where there is none.
    let before = look::inspect(&args.dir)?;
    let records = before.next_seq().0.saturating_sub(before.head_seq().0);
    if args.dry_run {
        args.show(&args.plan(&before)?, None)?;
        return Ok(Status::Done);
    }
    let first = first_base(&before);
    drop(before);
    let taken = look::disk_bytes(&args.dir);
    let log = Log::open(&args.dir)?;
    let opened = report::found(&args.dir, log.open_report());
    if args.json {
        opened.iter().for_each(|text| report::note(text));
    }
    let truncated = args.truncate(&log);
    let closed = log.close();
    truncated?;
    closed?;
    let log = look::inspect(&args.dir)?;
    let range = Range {
        head_lsn: log.head_lsn().0,
        end_lsn: log.end_lsn().0,
        head_seq: log.head_seq().0,
        next_seq: log.next_seq().0,
        dropped_records: records.saturating_sub(log.next_seq().0.saturating_sub(log.head_seq().0)),
        freed_bytes: taken.saturating_sub(look::disk_bytes(&args.dir)),
        dry_run: false,
        keeps_first: first_base(&log) == first,
    };
    args.show(&range, opened.as_deref())?;
    Ok(Status::Done)
}

impl Args {
    /// What is to be kept of the beginning, if that is what is asked for.
    fn retention(&self) -> Option<Retention> {
        let bytes = self.keep_bytes.map(|size| Retention::Bytes(size.as_u64()));
        let floor = Floor::Records(self.keep_records.unwrap_or(0));
        bytes.or(self.keep_age.map(|age| Retention::AgeAbove { age, floor }))
    }

    /// Checks both ends, then drops.
    fn truncate(&self, log: &Log) -> anyhow::Result<()> {
        if let Some(keep) = self.retention() {
            log.retain(keep)?;
            return Ok(());
        }
        let (before, after) = self.ends(&|start| log.reader(start), log.appended_lsn())?;
        if let Some(after) = after {
            log.truncate_after(after)?;
        }
        if let Some(before) = before {
            log.truncate_before(before)?;
        }
        Ok(())
    }

    /// The positions to drop before and after, checked.
    fn ends(
        &self,
        read: &dyn Fn(Start) -> Result<Reader, Error>,
        end: Lsn,
    ) -> anyhow::Result<(Option<Lsn>, Option<Lsn>)> {
        let mut before = self.before.map(Lsn);
        if let Some(before) = before {
            read(before.into())?;
        }
        if let Some(seq) = self.before_seq {
            let first = read(Seq(seq).into())?.next_record()?.map(|record| record.lsn());
            before = Some(first.unwrap_or(end));
        }
        let after = self.after.map(Lsn);
        if let Some(after) = after {
            check_record_at(read, after)?;
            if before.is_some_and(|before| before > after) {
                let text = "--before is behind --after: nothing would be left; nothing was dropped";
                return Err(UsageError(text.to_owned()).into());
            }
        }
        Ok((before, after))
    }

    /// What would be left, by looking.
    fn plan(&self, log: &Inspection) -> anyhow::Result<Range> {
        if let Some(problem) = log.problems().first() {
            return Err(problem.clone().into());
        }
        let (mut head, mut end) =
            ((log.head_lsn(), log.head_seq()), (log.end_lsn(), log.next_seq()));
        let next = |start: Start| {
            let mut reader = log.reader(start)?;
            let record = reader.next_record()?;
            Ok::<_, Error>(record.map(|record| (record.lsn(), record.seq(), record.end_lsn())))
        };
        if let Some(keep) = self.retention() {
            let seq = log.first_seq_retained(keep);
            head = (next(seq.into())?.map_or(end.0, |(lsn, ..)| lsn), seq);
        } else {
            let (before, after) = self.ends(&|start| log.reader(start), end.0)?;
            if let Some((_, seq, end_lsn)) =
                after.map(|after| next(after.into())).transpose()?.flatten()
            {
                end = (end_lsn, Seq(seq.0 + 1));
            }
            if let Some(before) = before {
                let seq = next(before.into())?.map_or(end.1, |(_, seq, _)| seq);
                head = (before.max(head.0), seq.max(head.1));
            }
        }
        let segments = log.segments();
        let goes = |(i, segment): &(usize, &SegmentInfo)| {
            let is_before = segment.end_lsn <= head.0 && i + 1 < segments.len();
            is_before || (segment.base_lsn >= end.0 && *i > 0)
        };
        let gone: Vec<_> = segments.iter().enumerate().filter(goes).collect();
        Ok(Range {
            head_lsn: head.0.0,
            end_lsn: end.0.0,
            head_seq: head.1.0,
            next_seq: end.1.0,
            dropped_records: (log.next_seq().0 - log.head_seq().0)
                .saturating_sub(end.1.0.saturating_sub(head.1.0)),
            freed_bytes: gone.iter().map(|(_, segment)| look::file_bytes(&segment.path)).sum(),
            dry_run: true,
            keeps_first: gone.first().is_none_or(|(i, _)| *i > 0),
        })
    }

    fn show(&self, range: &Range, opened: Option<&str>) -> anyhow::Result<()> {
        if self.json {
            return report::print_json(range);
        }
        let Range { head_lsn, end_lsn, head_seq, next_seq, dropped_records, freed_bytes, .. } =
            range;
        let records = report::count(next_seq.saturating_sub(*head_seq), "record");
        let dropped = report::count(*dropped_records, "record");
        let freed = match freed_bytes {
            0 if range.keeps_first && self.after.is_none() && *dropped_records > 0 => {
                "no space freed: what was dropped shares a segment with records that stay"
                    .to_owned()
            }
            freed => format!("{} freed", report::count(*freed, "byte")),
        };
        let dry_run = range.dry_run;
        let range = format!("LSN {head_lsn}..{end_lsn}, seq {head_seq}..{next_seq}");
        let opened = opened.map_or_else(String::new, |text| format!("; {text}"));
        let text = if dry_run {
            format!(
                "would drop {dropped} and leave {records}: {range}; {freed}; nothing was changed"
            )
        } else {
            format!("{dropped} dropped, {records} left: {range}; {freed}{opened}")
        };
        report::print(&(text + "\n"))
    }
}

/// Fails unless a record starts at `lsn`; tells the nearest one before it.
fn check_record_at(read: &dyn Fn(Start) -> Result<Reader, Error>, lsn: Lsn) -> anyhow::Result<()> {
    let from = match read(lsn.into()) {
        Ok(mut reader) => match reader.next_record()? {
            Some(record) if record.lsn() == lsn => return Ok(()),
            _ => lsn,
        },
        Err(Error::NotARecord { previous, .. }) => previous,
        Err(error) => return Err(error.into()),
    };
    Err(Error::NotARecord { lsn, previous: from }.into())
}

/// Days and weeks are 24 hours and 7 days; months and years are not the same everywhere.
fn age(text: &str) -> Result<Duration, String> {
    let span: Result<jiff::Span, _> = text.parse();
    let span = span.map_err(|_| "a time is needed, such as 90s, 36h, 7d or 2w".to_owned())?;
    let duration = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours());
    let duration = duration.map_err(|_| "months and years have no fixed length".to_owned())?;
    Duration::try_from(duration).map_err(|_| "a time above 0 is needed".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_read_as_people_write_them() {
        for (text, seconds) in [("90s", 90), ("36h", 129_600), ("7d", 604_800), ("2w", 1_209_600)] {
            assert_eq!(age(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for wrong in ["", "7", "soon", "1y", "2mo", "-3d"] {
            assert!(age(wrong).is_err(), "{wrong}");
        }
    }
}
