//! `cairn digest`: one hash of a log's records, whatever segments and groups they are in.

use std::path::PathBuf;

use cairnlog::{EndState, Error, Inspection};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::range::Range;
use crate::report::{self, Outcome, Status};
use crate::stack::to_hex;
use crate::{look, progress, verdict};

/// Print one hash of a log's records
///
/// The hash is SHA-256 over each record in order, as `cat --format framed` writes it: a
/// little-endian u32 length, then the bytes. It depends on the records alone, not on segments,
/// groups or positions. Takes no lock and changes nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// Directory of the log
    dir: PathBuf,
    #[command(flatten)]
    range: Range,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

const HELP: &str = "\
Examples:
  cairn digest ./log
  cairn digest ./replica --from-seq 1000 --to-seq 2000
  cairn digest ./log --json | jq -r .digest
  cairn cat ./log --format framed | sha256sum      the same, by other means

Exit codes:
  0  printed
  1  could not be read
  2  wrong usage, or a range that is not within the log
  4  corruption within the range: no hash is printed";

/// The result as JSON.
#[derive(Debug, Serialize)]
struct Hashed {
    hash: &'static str,
    digest: String,
    records: u64,
    bytes: u64,
    first_seq: Option<u64>,
    last_seq: Option<u64>,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let log = look::inspect(&args.dir)?;
    let hashed = hash(&log, &args.range)?;
    if args.json {
        report::print_json(&hashed)?;
    } else {
        report::print(&hashed.to_text())?;
    }
    Ok(Status::Done)
}

fn hash(log: &Inspection, range: &Range) -> anyhow::Result<Hashed> {
    let mut hasher = Sha256::new();
    let mut hashed = Hashed {
        hash: "sha256",
        digest: String::new(),
        records: 0,
        bytes: 0,
        first_seq: None,
        last_seq: None,
    };
    let span = log.end_lsn().0.saturating_sub(log.head_lsn().0);
    let bar = progress::bytes(Some(span), "hashing");
    let mut reader = log.reader(range.start())?;
    let mut has_ended = false;
    loop {
        let record = match reader.next_record() {
            Err(Error::Gap(gap)) => {
                report::note_lost(&gap);
                continue;
            }
            record => record?,
        };
        let Some(record) = record else { break };
        has_ended = range.ends_before(&record);
        if has_ended {
            break;
        }
        let payload = record.payload();
        hasher.update(u32::try_from(payload.len())?.to_le_bytes());
        hasher.update(payload);
        hashed.records += 1;
        hashed.bytes += payload.len() as u64;
        hashed.first_seq.get_or_insert(record.seq().0);
        hashed.last_seq = Some(record.seq().0);
        if hashed.records.is_multiple_of(4096) {
            bar.set_position(record.end_lsn().0.saturating_sub(log.head_lsn().0));
        }
    }
    bar.finish_and_clear();
    if !has_ended {
        whole(log)?;
    }
    hashed.digest = to_hex(&hasher.finalize());
    Ok(hashed)
}

/// Fails unless what was read to its end is all that the log holds; says so of a torn tail.
pub(crate) fn whole(log: &Inspection) -> anyhow::Result<()> {
    if let Some(problem) = log.problems().first() {
        return Err(problem.clone().into());
    }
    if let EndState::Torn { bytes } = log.end_state() {
        report::note(&format!("{}; they are left out", verdict::torn(bytes)));
    }
    Ok(())
}

impl Hashed {
    fn to_text(&self) -> String {
        let range = match (self.first_seq, self.last_seq) {
            (Some(first), Some(last)) => format!(", seq {first}..{}", last.saturating_add(1)),
            _ => String::new(),
        };
        let (records, bytes) =
            (report::count(self.records, "record"), report::count(self.bytes, "byte"));
        format!("{}:{}\n{records}, {bytes}{range}\n", self.hash, self.digest)
    }
}
