//! `cairn info`: what is in a log.

use std::fmt::Write as _;
use std::path::PathBuf;

use bytesize::ByteSize;
use cairnlog::{EndState, Inspection, SegmentInfo};
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::look;
use crate::problem::Problem;
use crate::report::{self, Outcome, Status};

/// Show a log's segments, ranges and state
///
/// Reads the segments' first blocks and the last segment; takes no lock and changes nothing.
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
  cairn info ./log
  cairn info ./log --json | jq .durable_lsn

Fields:
  state        closed; unclosed (in use, or its writer was killed); torn (it ends in an unfinished
               write, nothing acknowledged is lost); corrupt
  durable LSN  exclusive; everything below is proven durable by the files, more may be

Exit codes:
  0  closed, unclosed or torn
  4  corrupt; what can be read is shown first";

/// Everything there is to say.
#[derive(Debug, Serialize)]
struct Info {
    dir: String,
    uuid: String,
    state: &'static str,
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
    let info = Info::of(&log, &args.dir);
    if args.json {
        report::print_json(&info)?;
    } else {
        report::print(&info.to_text())?;
    }
    match log.problems().first() {
        Some(problem) => Err(problem.clone().into()),
        None => Ok(Status::Done),
    }
}

/// A log's end in one word.
pub(crate) fn state(end: EndState, intact: bool) -> &'static str {
    match end {
        _ if !intact => "corrupt",
        EndState::Closed => "closed",
        EndState::Unclosed => "unclosed",
        EndState::Torn { .. } => "torn",
        _ => "unknown",
    }
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
            state: state(log.end_state(), log.problems().is_empty()),
            torn_bytes,
            head_lsn: log.head_lsn().0,
            head_seq: log.head_seq().0,
            end_lsn: log.end_lsn().0,
            durable_lsn: log.durable_lsn().0,
            next_seq: log.next_seq().0,
            records: log.next_seq().0.saturating_sub(log.head_seq().0),
            file_bytes: segments.iter().map(|segment| segment.file_bytes).sum(),
            segments: segments.iter().map(Segment::of).collect(),
            strays: names(log.strays()),
            obsolete: names(log.obsolete()),
            problems: log.problems().iter().map(Problem::of).collect(),
        }
    }

    fn to_text(&self) -> String {
        let mut text = String::new();
        let state = match self.state {
            "torn" => format!("torn: {} bytes of an unfinished write at the end", self.torn_bytes),
            "unclosed" => "unclosed: in use, or its writer was killed".to_owned(),
            state => state.to_owned(),
        };
        let segments = report::count(self.segments.len() as u64, "segment");
        let mut line = |name: &str, value: &dyn std::fmt::Display| {
            let _ = writeln!(text, "{name:<12} {value}");
        };
        line("log", &self.dir);
        line("uuid", &self.uuid);
        line("state", &state);
        line("records", &self.records);
        line("seq", &format_args!("{}..{}", self.head_seq, self.next_seq));
        line("LSN", &format_args!("{}..{}", self.head_lsn, self.end_lsn));
        line("durable LSN", &self.durable_lsn);
        line("size", &format_args!("{} in {}", ByteSize(self.file_bytes), segments));
        for stray in &self.strays {
            line("not ours", stray);
        }
        for obsolete in &self.obsolete {
            line("obsolete", obsolete);
        }
        let mut table = Table::new();
        table.load_preset(presets::NOTHING);
        table.set_header(["SEGMENT", "LSN", "SEQ", "SIZE", "GENERATION", "CREATED", "STATE"]);
        for segment in &self.segments {
            table.add_row([
                segment.file.clone(),
                format!("{}..{}", segment.base_lsn, segment.end_lsn),
                format!("{}..{}", segment.base_seq, segment.end_seq),
                ByteSize(segment.file_bytes).to_string(),
                segment.generation.to_string(),
                segment.created.clone(),
                segment.state.to_owned(),
            ]);
        }
        for numbers in 1..=4 {
            if let Some(column) = table.column_mut(numbers) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let _ = writeln!(text, "\n{}", table.trim_fmt());
        if !self.problems.is_empty() {
            text.push_str("\nproblems:\n");
            text.extend(self.problems.iter().map(Problem::to_line));
        }
        text
    }
}

impl Segment {
    fn of(info: &SegmentInfo) -> Self {
        let created = jiff::Timestamp::from_nanosecond(info.created_unix_ns.into());
        Segment {
            file: name(&info.path),
            base_lsn: info.base_lsn.0,
            end_lsn: info.end_lsn.0,
            base_seq: info.base_seq.0,
            end_seq: info.end_seq.0,
            file_bytes: info.file_bytes,
            generation: info.generation,
            created: created.map_or_else(|_| "-".to_owned(), |at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
            state: if info.sealed { "sealed" } else { "active" },
        }
    }
}
