//! `cairn heap repair`: lists, counters and lengths anew, from the runs that verify.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use cairnlog::heap::RepairPlan;
use cairnlog::io::{Fs as _, NativeFs};
use cairnlog::stack::Stack;
use serde::Serialize;

use super::look::look_below;
use crate::report::{self, LostError, Outcome, Status};

/// Rebuild free lists and counters from the blocks whose headers verify
///
/// Prints what would be done and changes nothing, unless --apply is given. Blocks whose headers
/// verify keep their places, handles and bytes. Other bytes become free space, and roots that name
/// no live block are cleared.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct Args {
    /// File of the heap's stack
    pub(super) file: PathBuf,
    /// Do it, after a copy of all that is changed was made beside FILE: FILE.before-repair
    #[arg(long)]
    apply: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

const HELP: &str = "\
Examples:
  cairn heap repair ./heap                 what is wrong, and what would be done
  cairn heap repair ./heap --apply         do it
  cairn heap repair ./heap --json | jq '.lost, .cleared_roots'
  cairn heap check ./heap && echo intact   afterwards

FILE.before-repair has each byte that is changed, given up or cut off at its offset in the stack;
the rest of it is a hole. `changed` in the JSON lists these ranges.

Exit codes:
  0  nothing to repair, or repaired
  1  failed, or in use: see the message
  2  wrong usage
  4  damaged: without --apply, the plan is printed; or nothing can be repaired, because the stack
     is damaged (see `cairn stack repair`), or the first 64 bytes of the heap are";

/// The plan, and what was done, as JSON.
#[derive(Debug, Serialize)]
struct Found {
    file: String,
    needed: bool,
    applied: bool,
    live_blocks: u64,
    live_bytes: u64,
    free_runs: u64,
    lost: Vec<Extent>,
    cleared_roots: Vec<Root>,
    header_damaged: bool,
    /// Length of the stack before and after.
    old_len: u64,
    len: u64,
    changed: Vec<Extent>,
    /// Where the bytes of these ranges are kept.
    copy: Option<String>,
}

#[derive(Debug, Serialize)]
struct Extent {
    start: u64,
    end: u64,
}

#[derive(Debug, Serialize)]
struct Root {
    root: usize,
    handle: String,
}

pub(super) fn run(args: &Args) -> Outcome {
    let plan = look_below(&args.file, |stack, _| Ok(RepairPlan::of(&stack)?))?;
    let copy = match plan.is_needed() && args.apply {
        true => Some(apply(&args.file, &plan)?),
        false => None,
    };
    let applied = copy.is_some();
    if args.json {
        let copy = copy.map(|copy| copy.display().to_string());
        report::print_json(&Found::of(args, &plan, copy))?;
    } else {
        let done = copy.map_or_else(String::new, |copy| {
            format!("repaired; what was changed is in {}\n", copy.display())
        });
        report::print(&format!("{plan}{done}"))?;
    }
    match plan.is_needed() && !applied {
        true => {
            let file = args.file.display();
            Err(LostError(format!("{file} is damaged; repeat with --apply to repair it")).into())
        }
        false => Ok(Status::Done),
    }
}

/// Copies what is to be changed, then does what the plan says. Returns the copy.
fn apply(path: &Path, plan: &RepairPlan) -> anyhow::Result<PathBuf> {
    let stack = Stack::options().reserve(0).open(path)?;
    let (copy, mut file) = create_copy(path)
        .with_context(|| format!("cannot create a copy beside {}", path.display()))?;
    keep(&stack, plan, &mut file)
        .and_then(|()| {
            let dir = copy.parent().filter(|dir| !dir.as_os_str().is_empty());
            Ok(NativeFs.sync_dir(dir.unwrap_or(Path::new(".")))?)
        })
        .inspect_err(|_| drop(fs::remove_file(&copy)))
        .with_context(|| format!("cannot copy to {}; nothing was changed", copy.display()))?;
    plan.apply(&stack)?;
    stack.close()?;
    Ok(copy)
}

/// A new file beside the stack's.
fn create_copy(path: &Path) -> io::Result<(PathBuf, File)> {
    let mut nth = 1u32;
    loop {
        let mut name = path.as_os_str().to_owned();
        name.push(".before-repair");
        if nth > 1 {
            name.push(format!(".{nth}"));
        }
        match OpenOptions::new().write(true).create_new(true).open(&name) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && nth < 1000 => nth += 1,
            created => return Ok((name.into(), created?)),
        }
    }
}

/// Writes each range that is to be changed where it is in the stack.
fn keep(stack: &Stack, plan: &RepairPlan, file: &mut File) -> anyhow::Result<()> {
    const PART: u64 = 1 << 20;
    let mut buf = Vec::new();
    for range in plan.changed() {
        let mut at = range.start;
        file.seek(SeekFrom::Start(at))?;
        while at < range.end {
            let part = PART.min(range.end - at);
            buf.resize(usize::try_from(part)?, 0);
            stack.get_into(at, &mut buf)?;
            file.write_all(&buf)?;
            at += part;
        }
    }
    Ok(file.sync_all()?)
}

impl Found {
    fn of(args: &Args, plan: &RepairPlan, copy: Option<String>) -> Self {
        let extents = |ranges: &[std::ops::Range<u64>]| {
            ranges.iter().map(|range| Extent { start: range.start, end: range.end }).collect()
        };
        let roots = plan.cleared_roots.iter();
        Found {
            file: args.file.display().to_string(),
            needed: plan.is_needed(),
            applied: copy.is_some(),
            live_blocks: plan.live_blocks,
            live_bytes: plan.live_bytes,
            free_runs: plan.free_runs,
            lost: extents(&plan.lost),
            cleared_roots: roots
                .map(|(root, raw)| Root { root: *root, handle: format!("{raw:#034x}") })
                .collect(),
            header_damaged: plan.header_damaged,
            old_len: plan.old_len,
            len: plan.len,
            changed: extents(&plan.changed()),
            copy,
        }
    }
}
