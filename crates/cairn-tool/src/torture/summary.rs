//! What is said at the end: counts, and the evidence when something was lost.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use bytesize::ByteSize;
use serde::Serialize;

use super::ledger::{Finding, Tally};
use super::marker::MARKER_NAME;
use crate::json;
use crate::report::{self, LostError, Outcome, Status};
use crate::text::shown;

/// What is shown of the evidence at most.
const FINDINGS_MAX: usize = 20;

/// Something acknowledged is not there: the evidence.
#[derive(Debug, Serialize)]
pub(super) struct Lost {
    pub(super) kill: u64,
    pub(super) moment: String,
    pub(super) findings: Vec<Finding>,
}

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "kill {} ({}): {}",
            self.kill,
            self.moment,
            report::count(self.findings.len() as u64, "finding")
        )?;
        self.findings
            .iter()
            .take(FINDINGS_MAX)
            .try_for_each(|finding| writeln!(f, "  {finding}"))?;
        if self.findings.len() > FINDINGS_MAX {
            writeln!(f, "  and {} more", self.findings.len() - FINDINGS_MAX)?;
        }
        Ok(())
    }
}

impl std::error::Error for Lost {}

/// What is printed at the end.
#[derive(Debug, Default, Serialize)]
pub(super) struct Summary {
    pub(super) dir: PathBuf,
    #[serde(serialize_with = "json::decimal")]
    pub(super) seed: u64,
    pub(super) kills: u64,
    pub(super) kills_opening: u64,
    pub(super) kills_working: u64,
    pub(super) kills_closing: u64,
    #[serde(flatten)]
    pub(super) tally: Tally,
    pub(super) torn_tails: u64,
    /// Openings that found the log not closed.
    pub(super) recoveries: u64,
    /// Closes that returned.
    pub(super) closes: u64,
    pub(super) seconds: f64,
    pub(super) ended_by: &'static str,
}

impl Summary {
    /// Counts so far, for a line.
    pub(super) fn progress(&self) -> String {
        format!(
            "{}, {} acknowledged, {}",
            report::count(self.kills, "kill"),
            report::count(self.tally.acknowledged_records, "record"),
            report::count(self.torn_tails, "torn tail"),
        )
    }

    fn to_text(&self, result: &str) -> String {
        let Summary { tally, .. } = self;
        let mut text = format!("{result}: {} in {:.1} s", self.progress(), self.seconds);
        if !matches!(self.ended_by, "runs" | "seconds" | "") {
            let _ = write!(text, ", ended by {}", self.ended_by);
        }
        text.push('\n');
        let mut line = |name: &str, value: String| {
            let _ = writeln!(text, "{name:<12} {value}");
        };
        let Summary { kills_opening, kills_working, kills_closing, .. } = self;
        line(
            "killed",
            format!("{kills_opening} opening, {kills_working} working, {kills_closing} closing"),
        );
        line(
            "records",
            format!(
                "{} acknowledged ({}), {} found that were not",
                tally.acknowledged_records,
                ByteSize(tally.acknowledged_bytes),
                tally.unacknowledged_records
            ),
        );
        line(
            "truncations",
            format!(
                "{} acknowledged, {} under way when killed",
                tally.truncations, tally.truncations_interrupted
            ),
        );
        line(
            "openings",
            format!("{} recovered; {} clean", self.recoveries, report::count(self.closes, "close")),
        );
        line("seed", self.seed.to_string());
        line("log", format!("kept in {}", shown(&self.dir)));
        text
    }

    /// Prints it, with the evidence if there is any, which is also left in the directory. That is
    /// then the error.
    pub(super) fn report(&self, lost: Option<Lost>, json: bool) -> Outcome {
        let result = if lost.is_some() { "LOST" } else { "nothing acknowledged was lost" };
        let text = self.to_text(result);
        let Some(lost) = lost else {
            if json {
                report::print_json(&Reported {
                    result: "nothing lost",
                    summary: self,
                    lost: None,
                })?;
            } else {
                let limits =
                    "a kill leaves the page cache alive: this says nothing about power cuts";
                report::print(&format!("{text}{:<12} {limits}\n", "not shown"))?;
            }
            return Ok(Status::Done);
        };
        let path = self.dir.join(MARKER_NAME);
        let written = File::options()
            .append(true)
            .open(&path)
            .and_then(|mut file| write!(file, "\n{text}\n{lost}"));
        written.with_context(|| format!("cannot write the evidence to {}", path.display()))?;
        if json {
            report::print_json(&Reported { result: "lost", summary: self, lost: Some(&lost) })?;
        } else {
            report::print(&format!("{text}{lost}"))?;
        }
        let first = lost.findings.first().map_or_else(String::new, ToString::to_string);
        let (kill, seed) = (lost.kill, self.seed);
        let kept =
            format!("{} is kept, with the evidence in {}", self.dir.display(), path.display());
        Err(LostError(format!("kill {kill}, seed {seed}: {first}; {kept}")).into())
    }
}

/// The summary as JSON.
#[derive(Serialize)]
struct Reported<'a> {
    result: &'static str,
    #[serde(flatten)]
    summary: &'a Summary,
    #[serde(skip_serializing_if = "Option::is_none")]
    lost: Option<&'a Lost>,
}
