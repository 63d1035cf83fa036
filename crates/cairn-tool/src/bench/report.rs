//! What was measured, for JSON and as a table.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use bytesize::ByteSize;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::args::Args;
use super::measure::{Figures, Latency, Mode};
use crate::doctor::device::Facts;
use crate::progress::{short_count, short_us};

/// A whole run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) dir: PathBuf,
    pub(crate) version: &'static str,
    /// When it ended, UTC.
    pub(crate) date: String,
    /// How long each measurement took, as asked for.
    pub(crate) seconds: f64,
    /// `a signal` when it ended early.
    pub(crate) ended_by: &'static str,
    #[serde(flatten)]
    pub(crate) facts: Facts,
    /// How the log committed.
    pub(crate) backend: String,
    pub(crate) cells: Vec<Figures>,
}

impl Report {
    pub(crate) fn new(args: &Args, cells: Vec<Figures>, is_whole: bool) -> Self {
        let durable = cells.iter().find(|figures| figures.mode == Mode::Durable);
        Report {
            dir: args.dir.clone(),
            version: env!("CARGO_PKG_VERSION"),
            date: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            seconds: args.seconds,
            ended_by: if is_whole { "the end" } else { "a signal" },
            facts: Facts::of(&args.dir),
            backend: durable
                .map_or_else(|| "unknown".to_owned(), |figures| figures.backend.clone()),
            cells,
        }
    }

    /// What a reader has to know of the machine: what, and what it is.
    pub(crate) fn facts(&self) -> Vec<(&'static str, String)> {
        let mut lines = vec![("directory", crate::text::shown(&self.dir))];
        lines.extend(self.facts.lines());
        lines.push(("log backend", self.backend.clone()));
        let early = if self.ended_by == "a signal" { ", ended early by a signal" } else { "" };
        lines.push((
            "run",
            format!("cairn {}, {}, {} s each{early}", self.version, self.date, self.seconds),
        ));
        lines
    }

    pub(crate) fn to_text(&self, page: Option<&Path>) -> String {
        let mut text = String::new();
        let page = page.map(|path| ("report", path.display().to_string()));
        for (name, value) in self.facts().into_iter().chain(page) {
            let _ = writeln!(text, "{name:<12} {value}");
        }
        for columns in [&RATES[..], &LATENCIES] {
            let _ = writeln!(text, "\n{}", self.to_table(columns).trim_fmt());
        }
        if self.facts.is_busy() {
            let _ = writeln!(text, "\n{BUSY}");
        }
        text
    }

    /// A table of these columns of [`HEADER`]: all of them are too wide for a terminal.
    fn to_table(&self, columns: &[usize]) -> Table {
        let pick = |cells: [String; HEADER.len()]| columns.iter().map(move |n| cells[*n].clone());
        let mut table = Table::new();
        table.load_preset(presets::NOTHING);
        table.set_header(pick(HEADER.map(str::to_uppercase)));
        self.cells.iter().for_each(|figures| _ = table.add_row(pick(row(figures))));
        for numbers in 1..columns.len() {
            if let Some(column) = table.column_mut(numbers) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table
    }
}

/// What figures of such a run are worth.
pub(crate) const BUSY: &str = "The machine was busy with other things: without them the figures \
                               would be better.";

/// Columns of the two tables for a terminal.
const RATES: [usize; 7] = [0, 1, 2, 3, 4, 9, 10];
const LATENCIES: [usize; 7] = [0, 1, 2, 5, 6, 7, 8];

/// Of the columns of [`row`].
pub(crate) const HEADER: [&str; 11] = [
    "mode",
    "threads",
    "record",
    "records/s",
    "MB/s",
    "p50",
    "p99",
    "p99.9",
    "max",
    "per barrier",
    "vs raw",
];

/// One measurement for people.
pub(crate) fn row(figures: &Figures) -> [String; HEADER.len()] {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let latency = |of: fn(&Latency) -> f64| {
        or_dash(figures.latency_us.as_ref().map(|latency| short_us(of(latency))))
    };
    [
        figures.mode.name().to_owned(),
        figures.threads.to_string(),
        ByteSize(figures.size as u64).to_string(),
        short_count(figures.records_per_second),
        format!("{:.1}", figures.mb_per_second),
        latency(|l| l.p50),
        latency(|l| l.p99),
        latency(|l| l.p999),
        latency(|l| l.max),
        or_dash(figures.records_per_barrier.map(|records| format!("{records:.1}"))),
        or_dash(figures.ratio_to_raw.map(|ratio| format!("{ratio:.2}x"))),
    ]
}
