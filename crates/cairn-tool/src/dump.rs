//! `cairn dump`: the bytes of one segment's file, explained.

use std::fmt::Write as _;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use cairnlog::{Dissection, GroupPart, HeadState, Part, PartKind, SegmentHead};
use serde::Serialize;

use crate::info::utc;
use crate::json;
use crate::report::{self, Outcome, Status};
use crate::stack::to_hex;

/// Explain the bytes of one segment's file
///
/// Shows the superblock, groups with their watermarks, frames, the seal, and in hexadecimal what
/// verifies as nothing. Reads this one file, whatever state it or its log is in, and changes
/// nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// File of a segment, *.cairn
    file: PathBuf,
    /// Take it for a segment of this log, if its superblock is damaged
    #[arg(long, value_name = "UUID")]
    uuid: Option<uuid::Uuid>,
    /// Show at most so many parts
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Bytes of a record, or of what does not verify, that are shown at most
    #[arg(long, value_name = "N", default_value_t = 16)]
    bytes: usize,
    /// Leave records out
    #[arg(long)]
    no_records: bool,
    /// Print one JSON object a line: the superblock, then each part
    #[arg(long)]
    json: bool,
}

const HELP: &str = "\
Examples:
  cairn dump ./log/00000000000000000000-0000000001.cairn
  cairn dump ./log/00000000000000000000-0000000001.cairn --no-records
  cairn dump FILE --json | jq -c 'select(.part == \"unverified\")'
  cairn dump FILE --uuid 0b5ee1a6-3f0a-4c7a-9d6c-1f6f3f0f9a11 --bytes 64

Each line is a part: its offset in the file, its position in the log, its length, and what it is.

Words:
  group       the header of what one write brought; durable is the watermark: everything below that
              LSN was durable by then. `does not follow` means that it was not written behind the
              group before it
  record      a frame that verifies, with the record's number, length and first bytes
  index       the index of a sealed segment; a trailer ends its file
  head, cut   notes of truncations
  padding     zeros between groups; zeros are space where no group is
  unverified  verifies as nothing: damage, or what the file held before
  unreadable  the device cannot read it

Without the log's identity, which the superblock holds, nothing verifies. If that is damaged, give
the uuid of the log as `cairn info` shows it.

Whether damage matters is for `cairn verify` to say: behind the last group of a log there may be an
unfinished write, or what the file held before.

Exit codes:
  0  shown, whatever it is
  1  the file could not be read, or a frame is larger than the memory this process may have
  2  wrong usage";

/// Between the beginning of a record's frame and its first byte.
const FRAME_HEADER_BYTES: u64 = 12;
/// What `--bytes` shows of one part at most.
const BYTES_MAX: usize = 1 << 20;
/// Below what a part is; and digits in a line, so that it fits.
const INDENT: &str = "            ";
const HEX_WIDTH: usize = 64;

/// The superblock as JSON.
#[derive(Serialize)]
struct Head {
    part: &'static str,
    state: &'static str,
    version: Option<u32>,
    uuid: String,
    generation: u32,
    base_lsn: u64,
    base_seq: Option<u64>,
    head_lsn: u64,
    head_seq: u64,
    segment_size: u64,
    created: String,
    recycled_bytes: u64,
    #[serde(serialize_with = "json::hex")]
    epoch: u64,
    cut_lsn: Option<u64>,
    file_bytes: u64,
}

/// A part as JSON.
#[derive(Serialize)]
struct Shown {
    part: &'static str,
    offset: u64,
    lsn: u64,
    len: u64,
    #[serde(flatten)]
    group: Option<Group>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_len: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entries: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    names_lsn: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_hex: Option<String>,
}

#[derive(Serialize)]
struct Group {
    holds: &'static str,
    group_len: u64,
    padding: u64,
    generation: u32,
    durable_lsn: u64,
    first_seq: u64,
    #[serde(serialize_with = "json::hex")]
    epoch: u64,
    previous: u32,
    chain: u32,
    follows: Option<bool>,
}

/// What was found, as the last line.
#[derive(Default, Serialize)]
struct Found {
    part: &'static str,
    groups: u64,
    records: u64,
    unverified_bytes: u64,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let mut parts = Dissection::open(&args.file)?;
    if let Some(uuid) = args.uuid {
        parts = parts.of_log(uuid);
    }
    let mut out = BufWriter::new(io::stdout().lock());
    match show(args, &mut parts, &mut out).and_then(|()| Ok(out.flush()?)) {
        Err(error) if report::is_broken_pipe(&error) => {
            // Dropping a buffer that could not be written would try again.
            drop(out.into_parts());
            Ok(Status::Done)
        }
        shown => shown.map(|()| Status::Done),
    }
}

fn show(args: &Args, parts: &mut Dissection, out: &mut impl Write) -> anyhow::Result<()> {
    let head = Head::of(parts.head(), parts.file_len());
    write_line(args, out, &head, Head::to_text)?;
    let mut found = Found { part: "end", ..Found::default() };
    let mut left = args.limit.unwrap_or(u64::MAX);
    while let Some(part) = parts.next_part()? {
        let is_record = matches!(part.kind, PartKind::Record { .. });
        found.records += u64::from(is_record);
        match part.kind {
            PartKind::Group(_) => found.groups += 1,
            PartKind::Unverified | PartKind::Unreadable => found.unverified_bytes += part.len,
            _ => {}
        }
        if left > 0 && !(is_record && args.no_records) {
            left -= 1;
            let shown = Shown::of(&part, parts, args.bytes)?;
            write_line(args, out, &shown, Shown::to_text)?;
        }
    }
    write_line(args, out, &found, Found::to_text)
}

fn write_line<T: Serialize>(
    args: &Args,
    out: &mut impl Write,
    value: &T,
    to_text: impl Fn(&T) -> String,
) -> anyhow::Result<()> {
    if args.json {
        serde_json::to_writer(&mut *out, value).map_err(io::Error::from)?;
        Ok(out.write_all(b"\n")?)
    } else {
        Ok(out.write_all(report::for_people(&to_text(value), &io::stdout()).as_bytes())?)
    }
}

impl Head {
    fn of(head: &SegmentHead, file_bytes: u64) -> Self {
        let (state, version) = match head.state {
            HeadState::Valid => ("valid", None),
            HeadState::Damaged => ("damaged", None),
            HeadState::Version(version) => ("of another version", Some(version)),
            HeadState::Unreadable => ("unreadable", None),
            _ => ("foreign", None),
        };
        Head {
            part: "superblock",
            state,
            version,
            uuid: head.uuid.to_string(),
            generation: head.generation,
            base_lsn: head.base_lsn.0,
            base_seq: head.base_seq.map(|seq| seq.0),
            head_lsn: head.head_lsn.0,
            head_seq: head.head_seq.0,
            segment_size: head.segment_size,
            created: utc(head.created_unix_ns),
            recycled_bytes: head.recycled_len,
            epoch: head.epoch,
            cut_lsn: head.cut_lsn.map(|lsn| lsn.0),
            file_bytes,
        }
    }

    fn to_text(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: String| {
            let _ = writeln!(text, "{name:<11} {value}");
        };
        line(
            "superblock",
            match self.version {
                Some(version) => format!("{} ({version})", self.state),
                None => self.state.to_owned(),
            },
        );
        if self.state != "foreign" {
            line("uuid", self.uuid.clone());
            line("base", format!("LSN {}, generation {}", self.base_lsn, self.generation));
        }
        if self.state == "valid" {
            let open = "told by the first group".to_owned();
            line("first seq", self.base_seq.map_or(open, |seq| seq.to_string()));
            line("head", format!("LSN {}, seq {}", self.head_lsn, self.head_seq));
            line("created", format!("{}, epoch {:#018x}", self.created, self.epoch));
            line("size", format!("{} bytes to be sealed at", self.segment_size));
        }
        if self.recycled_bytes > 0 {
            line("recycled", format!("made in a file of {} bytes", self.recycled_bytes));
        }
        if let Some(lsn) = self.cut_lsn {
            line("cut", format!("made by a cut at LSN {lsn}"));
        }
        line("file", report::count(self.file_bytes, "byte"));
        text.push('\n');
        text
    }
}

impl Shown {
    fn of(part: &Part, parts: &Dissection, bytes: usize) -> anyhow::Result<Self> {
        let mut shown = Shown {
            part: "zeros",
            offset: part.offset,
            lsn: part.lsn.0,
            len: part.len,
            group: None,
            seq: None,
            payload_len: None,
            entries: None,
            names_lsn: None,
            first_hex: None,
        };
        let first = |offset: u64, len: u64| {
            let len = usize::try_from(len).unwrap_or(usize::MAX).min(bytes).min(BYTES_MAX);
            let mut buf = vec![0; len];
            let read = parts.read_at(offset, &mut buf)?;
            Ok::<_, anyhow::Error>(Some(to_hex(buf.get(..read).unwrap_or_default())))
        };
        match &part.kind {
            PartKind::Group(group) => {
                (shown.part, shown.group) = ("group", Some(Group::of(group)));
            }
            PartKind::Record { seq, payload_len } => {
                shown.part = "record";
                shown.seq = seq.map(|seq| seq.0);
                shown.payload_len = Some(*payload_len);
                shown.first_hex = first(part.offset + FRAME_HEADER_BYTES, *payload_len)?;
            }
            PartKind::Index { entries } => {
                (shown.part, shown.entries) = ("index", Some(*entries));
            }
            PartKind::Head { lsn, seq } => {
                (shown.part, shown.names_lsn, shown.seq) = ("head", Some(lsn.0), Some(seq.0));
            }
            PartKind::Cut { lsn, seq } => {
                (shown.part, shown.names_lsn, shown.seq) = ("cut", Some(lsn.0), Some(seq.0));
            }
            PartKind::Trailer => shown.part = "trailer",
            PartKind::Padding => shown.part = "padding",
            PartKind::Zeros => {}
            PartKind::Unreadable => shown.part = "unreadable",
            _ => {
                shown.part = "unverified";
                shown.first_hex = first(part.offset, part.len)?;
            }
        }
        Ok(shown)
    }

    fn to_text(&self) -> String {
        let mut text =
            format!("{:>10}  LSN {:<12} {:>9}  {}", self.offset, self.lsn, self.len, self.part);
        if let Some(group) = &self.group {
            let Group { holds, generation, durable_lsn, first_seq, epoch, .. } = group;
            let follows = if group.follows == Some(false) { ", does not follow" } else { "" };
            let _ = write!(
                text,
                " of {holds}{follows}\n{INDENT}seq {first_seq}.., durable {durable_lsn}, \
                 generation {generation}\n{INDENT}{} long, padding {}, epoch {epoch:#018x}",
                group.group_len, group.padding
            );
        }
        if let Some(seq) = self.seq {
            let _ = write!(text, " seq {seq}");
        }
        if let Some(lsn) = self.names_lsn {
            let _ = write!(text, " at LSN {lsn}");
        }
        if let Some(len) = self.payload_len {
            let _ = write!(text, ", {}", report::count(len, "byte"));
        }
        if let Some(entries) = self.entries {
            let groups = if entries == 1 { "1 group" } else { "groups" };
            let number = if entries == 1 { String::new() } else { format!("{entries} ") };
            let _ = write!(text, " of {number}{groups}");
        }
        if let Some(hex) = self.first_hex.as_ref().filter(|hex| !hex.is_empty()) {
            for piece in hex.as_bytes().chunks(HEX_WIDTH) {
                let _ = write!(text, "\n{INDENT}{}", String::from_utf8_lossy(piece));
            }
        }
        text.push('\n');
        text
    }
}

impl Group {
    fn of(group: &GroupPart) -> Self {
        Group {
            holds: group.holds,
            group_len: group.len,
            padding: group.padding,
            generation: group.generation,
            durable_lsn: group.durable_lsn.0,
            first_seq: group.first_seq.0,
            epoch: group.epoch,
            previous: group.previous,
            chain: group.chain,
            follows: group.follows,
        }
    }
}

impl Found {
    fn to_text(&self) -> String {
        format!(
            "\n{}, {}, {} that verify as nothing\n",
            report::count(self.groups, "group"),
            report::count(self.records, "record"),
            report::count(self.unverified_bytes, "byte")
        )
    }
}
