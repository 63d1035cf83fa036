//! `cairn heap info`, `roots` and `dump`: what is in a heap.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use bytesize::ByteSize;
use cairnlog::heap::{Block, Error, Heap, PolicyId, ROOTS};
use cairnlog::stack::EndState;
use serde::Serialize;

use super::look::look;
use crate::json;
use crate::report::{self, Outcome, Status, count};
use crate::stack::{state, to_hex};

/// Show the policy, how full the heap is, and which roots are in use
#[derive(Debug, clap::Args)]
#[command(after_help = INFO_HELP)]
pub(super) struct InfoArgs {
    /// File of the heap's stack
    pub(super) file: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

const INFO_HELP: &str = "\
Examples:
  cairn heap info ./heap
  cairn heap info ./heap --json | jq .live_bytes

Words:
  policy         how blocks are placed; custom if a program brought a policy of its own
  state          closed; unclosed (in use, or its user was killed); torn (its newest commit is
                 unfinished, nothing acknowledged is lost)
  length         of the stack: live, free and overhead add up to it
  overhead       headers, and what blocks have beyond what was asked for
  fragmentation  part of the free bytes that are not in the longest free run

Exit codes:
  0  closed, unclosed or torn
  1  could not be read
  4  corrupt, no heap, or too new";

/// Show the roots in use: number, handle, and where the block is
#[derive(Debug, clap::Args)]
#[command(after_help = ROOTS_HELP)]
pub(super) struct RootsArgs {
    /// File of the heap's stack
    pub(super) file: PathBuf,
    /// Print {"root", "handle", "start", "len"} for each, one a line
    #[arg(long)]
    json: bool,
}

const ROOTS_HELP: &str = "\
Examples:
  cairn heap roots ./heap
  cairn heap roots ./heap --json | jq -r .handle

The handle is the integer that a program stores: the block's tag and where it starts, 8 bytes each.

Exit codes:
  0  shown, also when no root is in use
  1  could not be read
  4  corrupt, also when a root names a block that does not live; no heap; or too new";

/// Print live blocks by their places, one a line: where it starts, length, tag, first bytes
#[derive(Debug, clap::Args)]
#[command(after_help = DUMP_HELP)]
pub(super) struct DumpArgs {
    /// File of the heap's stack
    pub(super) file: PathBuf,
    /// At most so many blocks
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Print {"start", "len", "tag", "first_hex"} for each, one a line
    #[arg(long)]
    json: bool,
}

const DUMP_HELP: &str = "\
Examples:
  cairn heap dump ./heap | wc -l
  cairn heap dump ./heap --limit 20
  cairn heap dump ./heap --json | jq -s 'max_by(.len)'
  cairn stack get ./heap 2336 2436 > block    all bytes of a block that starts at 2336, 100 long

A start is an offset in the stack; the tag tells a block from those that lived there before.

Exit codes:
  0  printed
  1  could not be read
  4  corrupt, no heap, or too new";

/// Everything there is to say.
#[derive(Debug, Serialize)]
struct Info {
    policy: &'static str,
    /// Of a slab.
    #[serde(skip_serializing_if = "Option::is_none")]
    block_size: Option<u64>,
    /// Of a policy that is not one of Cairn's.
    #[serde(skip_serializing_if = "Option::is_none")]
    policy_number: Option<u32>,
    /// Whatever the policy keeps in 64 bits.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "json::hex_if_any")]
    policy_parameter: Option<u64>,
    state: &'static str,
    len: u64,
    live_blocks: u64,
    live_bytes: u64,
    free_runs: u64,
    free_bytes: u64,
    largest_free: u64,
    fragmentation: f64,
    overhead_bytes: u64,
    roots_in_use: Vec<usize>,
    user_area_hex: String,
}

pub(super) fn info(args: &InfoArgs) -> Outcome {
    let info = look(&args.file, Info::of)?;
    if args.json {
        report::print_json(&info)?;
    } else {
        report::print(&format!("heap           {}\n{}", args.file.display(), info.to_text()))?;
    }
    Ok(Status::Done)
}

impl Info {
    fn of(heap: &Heap, end: EndState) -> anyhow::Result<Self> {
        let stats = heap.stats()?;
        let (policy, block_size, custom) = match heap.policy() {
            PolicyId::Slab { block_size } => ("slab", Some(block_size), None),
            PolicyId::Linear => ("linear", None, None),
            PolicyId::SizeClass => ("size-class", None, None),
            PolicyId::Custom { number, parameter } => ("custom", None, Some((number, parameter))),
            _ => ("unknown", None, None),
        };
        Ok(Info {
            policy,
            block_size,
            policy_number: custom.map(|(number, _)| number),
            policy_parameter: custom.map(|(_, parameter)| parameter),
            state: state(end),
            len: stats.len,
            live_blocks: stats.live_blocks,
            live_bytes: stats.live_bytes,
            free_runs: stats.free_runs,
            free_bytes: stats.free_bytes,
            largest_free: stats.largest_free,
            fragmentation: stats.fragmentation(),
            overhead_bytes: stats.overhead_bytes,
            roots_in_use: roots_in_use(heap)?.into_iter().map(|(root, _)| root).collect(),
            user_area_hex: to_hex(&heap.user_area()?),
        })
    }

    fn to_text(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: String| {
            let _ = writeln!(text, "{name:<14} {value}");
        };
        let bytes = |n: u64| format!("{} ({})", count(n, "byte"), ByteSize(n));
        let block_size =
            self.block_size.map_or(String::new(), |size| format!(", blocks of {size} bytes"));
        let custom = self.policy_number.zip(self.policy_parameter);
        let custom = custom.map_or(String::new(), |(number, parameter)| {
            format!(", number {number:#x}, parameter {parameter}")
        });
        line("policy", format!("{}{block_size}{custom}", self.policy));
        line("state", self.state.to_owned());
        line("length", bytes(self.len));
        line("live", format!("{}, {}", count(self.live_blocks, "block"), bytes(self.live_bytes)));
        let longest = format!("the longest has {}", self.largest_free);
        line(
            "free",
            format!("{}, {}; {longest}", count(self.free_runs, "run"), bytes(self.free_bytes)),
        );
        line("fragmentation", format!("{:.1} %", self.fragmentation * 100.0));
        line("overhead", bytes(self.overhead_bytes));
        let roots: Vec<_> = self.roots_in_use.iter().map(ToString::to_string).collect();
        let which =
            if roots.is_empty() { String::new() } else { format!(": {}", roots.join(", ")) };
        line("roots", format!("{} of {ROOTS} in use{which}", roots.len()));
        line("user area", self.user_area_hex.clone());
        text
    }
}

/// Roots that name a block.
fn roots_in_use(heap: &Heap) -> anyhow::Result<Vec<(usize, Block)>> {
    let mut found = Vec::new();
    for root in 0..ROOTS {
        let block = heap.root(root).with_context(|| format!("root {root}"))?;
        if !block.is_empty() {
            found.push((root, block));
        }
    }
    Ok(found)
}

/// A root as JSON.
#[derive(Debug, Serialize)]
struct Root {
    root: usize,
    handle: String,
    start: u64,
    len: u64,
}

pub(super) fn roots(args: &RootsArgs) -> Outcome {
    let mut text = String::new();
    for (root, block) in look(&args.file, |heap, _| roots_in_use(heap))? {
        let shown = Root {
            root,
            handle: format!("{:#034x}", block.to_raw()),
            start: block.start(),
            len: block.len(),
        };
        if args.json {
            text.push_str(&serde_json::to_string(&shown)?);
        } else {
            let Root { root, handle, start, len } = shown;
            let _ = write!(text, "root {root:<2}  {handle}  start {start}  {}", count(len, "byte"));
        }
        text.push('\n');
    }
    report::print(&text)?;
    Ok(Status::Done)
}

/// A block as JSON.
#[derive(Debug, Serialize)]
struct Shown {
    start: u64,
    len: u64,
    #[serde(serialize_with = "json::hex")]
    tag: u64,
    first_hex: String,
}

/// So many bytes of a block are shown.
const FIRST: u64 = 16;

impl Shown {
    fn of(heap: &Heap, block: Block) -> Result<Self, Error> {
        let first = heap.read(block.subslice(0..block.len().min(FIRST))?)?;
        // The upper half of a handle.
        let tag = u64::try_from(block.to_raw() >> 64).unwrap_or(u64::MAX);
        Ok(Shown { start: block.start(), len: block.len(), tag, first_hex: to_hex(&first) })
    }
}

pub(super) fn dump(args: &DumpArgs) -> Outcome {
    // As text at once: what is printed is of one moment, and that is known at its end.
    let text = look(&args.file, |heap, _| {
        let mut text = String::new();
        for block in heap.blocks()?.take(args.limit.unwrap_or(usize::MAX)) {
            let shown = Shown::of(heap, block)?;
            if args.json {
                text.push_str(&serde_json::to_string(&shown)?);
            } else {
                let Shown { start, len, tag, first_hex } = shown;
                let more = if len > FIRST { "..." } else { "" };
                let _ = write!(text, "{start} {len} {tag} {first_hex}{more}");
            }
            text.push('\n');
        }
        Ok(text)
    })?;
    report::print(&text)?;
    Ok(Status::Done)
}
