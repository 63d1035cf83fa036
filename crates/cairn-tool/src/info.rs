//! `cairn info`: what is in a log.

mod stats;

use std::fmt::Write as _;
use std::path::PathBuf;

use bytesize::ByteSize;
use cairnlog::{EndState, Inspection, SegmentInfo};
use serde::Serialize;

use self::stats::Stats;
use crate::look;
use crate::problem::Problem;
use crate::report::{self, Outcome, Status};
use crate::salvage::Lost;
use crate::text::shown;
use crate::verdict;

/// Show a log's segments, ranges and state
///
/// Reads the segments' first blocks and the last segment, with --stats all of them. Takes no lock
/// and changes nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// Directory of the log
    dir: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Also read all segments: sizes of records, groups, records a group, overhead, rates
    #[arg(long)]
    stats: bool,
    /// Print one line: state, records, numbers, positions, size
    #[arg(long, conflicts_with_all = ["json", "stats"])]
    brief: bool,
}

const HELP: &str = "\
Examples:
  cairn info ./log
  cairn info ./log --brief
  cairn info ./log --stats
  for log in ./logs/*; do cairn info \"$log\" --brief; done
  cairn info ./log --json | jq .durable_lsn

Fields:
  state        closed; unclosed (in use, or its writer was killed); torn (its last bytes do not
               verify, and nothing proves that they had been acknowledged); corrupt
  end          the same in more detail: the row of the table in docs/format/log.md by which the
               next writer decides what to do
  durable LSN  exclusive; everything below is proven durable by the files, more may be

Statistics (--stats), of all that verifies in the segments:
  record bytes  least, median, 99th percentile and most bytes of a record
  groups        what one write brought; marks, seals and notes are groups without records
  overhead      bytes of log that are not records: headers, padding, indexes
  rate          records and bytes a second, between the times at which the first and the last
                segment were made, or the last one was written to

Exit codes:
  0  closed, unclosed or torn
  4  corrupt; what can be read is shown first";

/// Everything there is to say.
#[derive(Debug, Serialize)]
struct Info {
    dir: String,
    uuid: String,
    state: &'static str,
    end: &'static str,
    torn_bytes: u64,
    head_lsn: u64,
    head_seq: u64,
    end_lsn: u64,
    durable_lsn: u64,
    next_seq: u64,
    records: u64,
    file_bytes: u64,
    segments: Vec<Segment>,
    strays: Vec<String>,
    obsolete: Vec<String>,
    problems: Vec<Problem>,
    /// Where records are lost, as a repair recorded it.
    gaps: Vec<Lost>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stats: Option<Stats>,
}

#[derive(Debug, Serialize)]
struct Segment {
    file: String,
    base_lsn: u64,
    end_lsn: u64,
    base_seq: u64,
    end_seq: u64,
    file_bytes: u64,
    generation: u32,
    created: String,
    state: &'static str,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let log = look::inspect(&args.dir)?;
    let mut info = Info::of(&log, &args.dir);
    if args.stats {
        info.stats = Some(Stats::of(&log)?);
    }
    if args.json {
        report::print_json(&info)?;
    } else if args.brief {
        report::print(&info.to_line())?;
    } else {
        report::print(&info.to_text())?;
    }
    match log.problems().first() {
        Some(problem) => Err(problem.clone().into()),
        None => Ok(Status::Done),
    }
}

/// A time for people and programs, to the second.
pub(crate) fn utc(unix_ns: u64) -> String {
    jiff::Timestamp::from_nanosecond(unix_ns.into())
        .map_or_else(|_| "-".to_owned(), |at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

fn names(paths: &[PathBuf]) -> Vec<String> {
    paths.iter().map(|path| name(path)).collect()
}

fn name(path: &std::path::Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

impl Info {
    fn of(log: &Inspection, dir: &std::path::Path) -> Self {
        let segments = log.segments();
        let torn_bytes = match log.end_state() {
            EndState::Torn { bytes } => bytes,
            _ => 0,
        };
        Info {
            dir: dir.display().to_string(),
            uuid: log.uuid().to_string(),
            state: verdict::word(log.end_state(), log.problems().is_empty()),
            end: log.end_case().label(),
            torn_bytes,
            head_lsn: log.head_lsn().0,
            head_seq: log.head_seq().0,
            end_lsn: log.end_lsn().0,
            durable_lsn: log.durable_lsn().0,
            next_seq: log.next_seq().0,
            records: log.records(),
            file_bytes: segments.iter().map(|segment| segment.file_bytes).sum(),
            segments: segments.iter().map(Segment::of).collect(),
            strays: names(log.strays()),
            obsolete: names(log.obsolete()),
            problems: log.problems().iter().map(Problem::of).collect(),
            gaps: log.gaps().iter().map(Lost::of_gap).collect(),
            stats: None,
        }
    }

    fn to_line(&self) -> String {
        format!(
            "{}: {}, {}, seq {}..{}, LSN {}..{}, {}\n",
            shown(self.dir.as_ref()),
            self.state,
            report::count(self.records, "record"),
            self.head_seq,
            self.next_seq,
            self.head_lsn,
            self.end_lsn,
            ByteSize(self.file_bytes)
        )
    }

    fn to_text(&self) -> String {
        let mut text = String::new();
        let state = match self.state {
            "torn" => format!("torn: {}", verdict::torn(self.torn_bytes)),
            "unclosed" => "unclosed: in use, or its writer was killed".to_owned(),
            state => state.to_owned(),
        };
        let segments = report::count(self.segments.len() as u64, "segment");
        let mut line = |name: &str, value: &dyn std::fmt::Display| {
            let _ = writeln!(text, "{name:<12} {value}");
        };
        line("log", &shown(self.dir.as_ref()));
        line("uuid", &self.uuid);
        line("state", &state);
        line("end", &self.end);
        line("records", &self.records);
        line("seq", &format_args!("{}..{}", self.head_seq, self.next_seq));
        line("LSN", &format_args!("{}..{}", self.head_lsn, self.end_lsn));
        line("durable LSN", &self.durable_lsn);
        line("size", &format_args!("{} in {}", ByteSize(self.file_bytes), segments));
        for gap in &self.gaps {
            line("lost", &gap.message());
        }
        for stray in &self.strays {
            line("not ours", &shown(stray.as_ref()));
        }
        for obsolete in &self.obsolete {
            line("obsolete", &shown(obsolete.as_ref()));
        }
        if let Some(stats) = &self.stats {
            stats.lines().into_iter().for_each(|(name, value)| line(name, &value));
        }
        for segment in &self.segments {
            let _ = write!(text, "\n{}", segment.to_text());
        }
        if !self.problems.is_empty() {
            text.push_str("\nproblems:\n");
            text.extend(self.problems.iter().map(Problem::to_line));
        }
        text
    }
}

impl Segment {
    fn of(info: &SegmentInfo) -> Self {
        Segment {
            file: name(&info.path),
            base_lsn: info.base_lsn.0,
            end_lsn: info.end_lsn.0,
            base_seq: info.base_seq.0,
            end_seq: info.end_seq.0,
            file_bytes: info.file_bytes,
            generation: info.generation,
            created: utc(info.created_unix_ns),
            state: if info.sealed { "sealed" } else { "active" },
        }
    }

    /// Two lines, so that a long position fits.
    fn to_text(&self) -> String {
        let Segment { file, base_lsn, end_lsn, base_seq, end_seq, generation, .. } = self;
        let size = ByteSize(self.file_bytes).to_string();
        format!(
            "{file}  {size:>9}  {}  {}\n  LSN {base_lsn}..{end_lsn}, seq {base_seq}..{end_seq}, \
             generation {generation}\n",
            self.state, self.created
        )
    }
}
