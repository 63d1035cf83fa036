//! `cairn repair`: makes a damaged log one that opens, without losing a record that verifies.

mod cut;

use std::fmt::Write as _;
use std::path::PathBuf;

use cairnlog::Repair;
use serde::Serialize;

use crate::problem::Problem;
use crate::report::{self, LostError, Outcome, Status};
use crate::salvage::Lost;
use crate::{look, progress};

/// Make a damaged log one that opens, and lose nothing that verifies
///
/// Without --apply, reads everything, says what is kept and what is lost, and changes nothing. A
/// repair changes no byte of a segment: it writes a file `GAPS` that lists what is lost. All other
/// records keep their positions and numbers. Readers say once where records are lost, and go on
/// behind.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// Directory of the log
    dir: PathBuf,
    /// Carry it out; needs the log for itself
    #[arg(long)]
    apply: bool,
    /// End the log in front of the first loss, instead of going on behind it
    ///
    /// Also where an earlier repair recorded the loss. The files of what follows are kept beside
    /// the log, under names with .kept-1 behind them.
    #[arg(long)]
    cut: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

const HELP: &str = "\
Examples:
  cairn repair ./log              what is lost, and what would be done
  cairn repair ./log --apply      do it
  cairn repair ./log --cut        what would be left if the log ended before the first loss
  cairn verify ./log              then lists the gaps

Copy the directory first if you can: other ways out of the damage may then be tried, too. A file
that is no part of the log gets the name it has with .kept-1 behind it. To undo a repair, remove
GAPS and give such files their names back.

Exit codes:
  0  there is nothing to repair; with --apply: the log opens
  1  could not be read or written
  4  there is something to repair, or it cannot be repaired; nothing was changed";

/// The plan as JSON.
#[derive(Serialize)]
struct Plan {
    applied: bool,
    needed: bool,
    records_kept: u64,
    bytes: u64,
    problems: Vec<Problem>,
    lost: Vec<Lost>,
    lost_before: Vec<Lost>,
    renamed: Vec<Renamed>,
    cut: Option<Cut>,
}

#[derive(Serialize)]
struct Renamed {
    file: String,
    to: String,
}

/// Where the log ends, or is to end.
#[derive(Serialize)]
struct Cut {
    /// Nothing at or behind this stays.
    lsn: u64,
    /// Number of the first record that is not in the log any more, lost or not.
    seq: u64,
    /// Copies of the files of what follows.
    kept: Vec<String>,
}

impl Plan {
    fn of(repair: &Repair, applied: bool, cut: Option<Cut>) -> Self {
        let renamed = repair.kept().iter().map(|kept| Renamed {
            file: kept.path.display().to_string(),
            to: kept.to.display().to_string(),
        });
        Plan {
            applied,
            needed: repair.is_needed(),
            records_kept: repair.records(),
            bytes: repair.bytes(),
            problems: repair.problems().iter().map(Problem::of).collect(),
            lost: repair.gaps().iter().map(Lost::of_gap).collect(),
            lost_before: repair.known_gaps().iter().map(Lost::of_gap).collect(),
            renamed: renamed.collect(),
            cut,
        }
    }

    /// Whether something is to be done, and was not.
    fn is_open(&self) -> bool {
        (self.needed || self.cut.is_some()) && !self.applied
    }

    fn to_text(&self) -> String {
        let mut text = String::new();
        let mut line = |what: &str, value: &dyn std::fmt::Display| {
            let _ = writeln!(text, "{what:<8} {value}");
        };
        let kept = report::count(self.records_kept, "record");
        line("kept", &format_args!("{kept}, at their positions and with their numbers"));
        for lost in &self.lost {
            line("lost", &lost.message());
        }
        for lost in &self.lost_before {
            line("gap", &format_args!("{}, by an earlier repair", lost.message()));
        }
        for Renamed { file, to } in &self.renamed {
            line("renamed", &format_args!("{file} to {to}"));
        }
        for problem in &self.problems {
            line("found", &problem.to_line().trim());
        }
        if let Some(Cut { lsn, seq, kept }) = &self.cut {
            line("cut", &format_args!("at LSN {lsn}: record number {seq} and all behind it"));
            for file in kept {
                line("copy", &file);
            }
        }
        match (self.needed || self.cut.is_some(), self.applied) {
            (false, _) => text.push_str("there is nothing to repair\n"),
            (true, true) => text.push_str("repaired: the log opens\n"),
            (true, false) => text.push_str("nothing was changed; --apply carries this out\n"),
        }
        text
    }
}

pub(crate) fn run(args: &Args) -> Outcome {
    let bar = progress::bytes(None, "reading");
    let planned = Repair::plan(&args.dir, |bytes| bar.inc(bytes));
    bar.finish_and_clear();
    let mut repair = planned.map_err(|error| look::missing(&args.dir, error))?;
    let loss = if args.cut { cut::first_loss(&repair) } else { None };
    if let Some(loss) = &loss {
        cut::check(&args.dir, loss)?;
    }
    let applied = args.apply && (repair.is_needed() || loss.is_some());
    if args.apply && repair.is_needed() {
        let bar = progress::bytes(None, "reading");
        let applied = repair.apply(|bytes| bar.inc(bytes));
        bar.finish_and_clear();
        repair = applied?;
    }
    let kept = match &loss {
        Some(loss) if args.apply => cut::cut(&args.dir, loss)?,
        _ => Vec::new(),
    };
    let kept = kept.iter().map(|path| path.display().to_string()).collect();
    let cut = loss.map(|loss| Cut { lsn: loss.from.0, seq: loss.first_seq.0, kept });
    let plan = Plan::of(&repair, applied, cut);
    if args.json {
        report::print_json(&plan)?;
    } else {
        report::print(&plan.to_text())?;
    }
    let text = match plan.needed {
        true => "the log is damaged and can be repaired",
        false => "records are lost, as an earlier repair recorded; the log can be cut before them",
    };
    match plan.is_open() {
        true => Err(LostError(text.to_owned()).into()),
        false => Ok(Status::Done),
    }
}
