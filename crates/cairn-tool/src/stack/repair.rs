//! `cairn stack repair`: a way out of damage.

use std::path::PathBuf;

use anyhow::Context as _;
use cairnlog::stack::{Error, ErrorKind, Keep, Repair, RepairHeader, RepairPlan};
use clap::ValueEnum;
use serde::Serialize;

use super::look::{Extent, look};
use crate::problem::Problem;
use crate::report::{self, LostError, Outcome, Status, UsageError};

/// Choose the older header where the newer one, or what it announces, is damaged
///
/// Prints what would be done and changes nothing, unless --apply is given. Bytes of the stack stay
/// as they are: a repair writes one block, over the header that is given up.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct Args {
    /// File of the stack
    file: PathBuf,
    /// Do it, after a copy of both headers was made beside FILE: FILE.before-repair
    #[arg(long)]
    apply: bool,
    /// Which header to keep [default: chosen where that is safe]
    #[arg(long, value_name = "HEADER")]
    keep: Option<Which>,
    /// End the stack where the file ends, if bytes are missing; otherwise they become zeros
    #[arg(long)]
    cut: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

const HELP: &str = "\
Examples:
  cairn stack repair ./stack                  what is wrong, and what would be done
  cairn stack repair ./stack --apply          do it
  cairn stack repair ./stack --cut --apply    an interrupted copy: end where the file ends
  cairn stack repair ./stack --keep newer     headers of two copies: this one's bytes are in FILE
  dd if=stack.before-repair of=stack conv=notrunc    undo it, unless the stack was used since

Plan:
  keep, drop   the header that counts, and the one that is overwritten
  missing      bytes behind the end of the file
  unproven     bytes that do not match their checksum, and stay as they are
  lost         changes whose list is damaged: where they were not yet made, old bytes show
  undecided    the headers are of two copies of the stack; --keep says which one counts

Exit codes:
  0  nothing to repair, or repaired
  1  failed, or in use: see the message
  2  wrong usage
  4  damaged: without --apply, the plan is printed; or nothing can be repaired";

/// One of the two headers.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Which {
    /// The one with the higher number
    Newer,
    /// The other one
    Older,
}

/// The plan, and what was done, as JSON.
#[derive(Debug, Serialize)]
struct Found {
    file: String,
    needed: bool,
    applied: bool,
    found: &'static str,
    /// Length of the stack after the repair.
    len: u64,
    kept: Option<Header>,
    dropped: Option<Header>,
    undecided: Vec<Header>,
    missing: Option<Extent>,
    unproven: Vec<Extent>,
    changes_lost: bool,
    /// Where what was overwritten is kept.
    copy: Option<String>,
}

#[derive(Debug, Serialize)]
struct Header {
    offset: u64,
    commit: u64,
    /// As all numbers of 64 bits of which any may be set.
    epoch: String,
    len: u64,
}

impl Header {
    fn of(header: &RepairHeader) -> Self {
        let RepairHeader { offset, commit, epoch, len, .. } = *header;
        Header { offset, commit, epoch: format!("{epoch:#018x}"), len }
    }
}

pub(super) fn run(args: &Args) -> Outcome {
    let file = args.file.display();
    let mut repair = Repair::new().cut(args.cut);
    repair = match args.keep {
        Some(Which::Newer) => repair.keep(Keep::Newer),
        Some(Which::Older) => repair.keep(Keep::Older),
        None => repair,
    };
    // Of a stack in use a look may take a commit that is just written for damage.
    let opens = look(&args.file).is_ok();
    let plan = match repair.plan(&args.file) {
        Err(error @ Error::Corrupt { .. }) => return Err(hopeless(args, &error)),
        Err(error @ Error::InvalidOption { .. }) => {
            return Err(UsageError(format!("{file}: {error}")).into());
        }
        plan => plan?,
    };
    let needed = plan.is_needed() && !opens;
    let undecided = !plan.undecided.is_empty();
    let copy = match needed && args.apply && !undecided {
        true => Some(repair.apply(&args.file, &plan)?),
        false => None,
    };
    let applied = copy.is_some();
    if args.json {
        let found = Found::of(args, &plan, needed, copy.as_ref().map(|c| c.display().to_string()));
        report::print_json(&found)?;
    } else if needed {
        let done = copy.map_or_else(String::new, |copy| {
            format!("repaired; what was overwritten is in {}\n", copy.display())
        });
        report::print(&format!("{plan}{done}"))?;
    } else {
        report::print("nothing to repair: the stack opens as it is\n")?;
    }
    match (needed, applied) {
        (false, _) | (_, true) => Ok(Status::Done),
        _ if undecided => Err(LostError(format!(
            "{file} holds headers of two copies; choose one: --keep newer or --keep older"
        ))
        .into()),
        _ => Err(LostError(format!("{file} is damaged; repeat with --apply to repair it")).into()),
    }
}

/// No header verifies.
fn hopeless(args: &Args, error: &Error) -> anyhow::Error {
    debug_assert_eq!(error.kind(), ErrorKind::Repair);
    let file = args.file.display();
    let way = format!("its bytes start at byte 131072: `tail -c +131073 {file}`");
    let text = format!("{error}; nothing says how long the stack was; {way}");
    let shown = match args.json {
        true => report::print_json(&serde_json::json!({
            "file": file.to_string(), "needed": true, "applied": false,
            "problem": Problem::corrupt(text.clone()),
        })),
        false => report::print("damaged beyond repair\n"),
    };
    match shown.context("cannot print") {
        Ok(()) => LostError(text).into(),
        Err(error) => error,
    }
}

impl Found {
    fn of(args: &Args, plan: &RepairPlan, needed: bool, copy: Option<String>) -> Self {
        let extent = |range: &std::ops::Range<u64>| Extent { start: range.start, end: range.end };
        Found {
            file: args.file.display().to_string(),
            needed,
            applied: copy.is_some(),
            found: plan.found,
            len: plan.len,
            kept: plan.kept.as_ref().map(Header::of),
            dropped: plan.dropped.as_ref().map(Header::of),
            undecided: plan.undecided.iter().map(Header::of).collect(),
            missing: Some(&plan.missing).filter(|range| !range.is_empty()).map(extent),
            unproven: plan.unproven.iter().map(extent).collect(),
            changes_lost: plan.changes_lost,
            copy,
        }
    }
}
