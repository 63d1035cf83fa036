//! `cairn diff`: whether two logs hold the same records.

use std::ops::Range;
use std::path::PathBuf;

use cairnlog::{Inspection, Reader, Seq};
use serde::Serialize;

use crate::digest::whole;
use crate::report::{self, Outcome, Status};
use crate::{look, progress};

/// Compare the records of two logs by their numbers
///
/// Tells the first record in which the logs differ, and which records only one of them has, because
/// the other one does not reach so far, or lost them, as a repair recorded. Segments, groups and
/// positions are not compared. Takes no lock and changes nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// Directory of the first log
    a: PathBuf,
    /// Directory of the second log
    b: PathBuf,
    /// Compare only records that both logs have, by number
    #[arg(long)]
    common: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

const HELP: &str = "\
Examples:
  cairn diff ./log ./replica && echo the same
  cairn diff ./log ./replica --common        a replica that is behind, or cut earlier
  cairn diff ./log ./copy --json | jq .first_difference.seq

Exit codes:
  0  the same records
  1  a log could not be read
  2  wrong usage
  4  corruption: a log is damaged before a difference was found
  5  the logs differ";

/// The result as JSON.
#[derive(Debug, Serialize)]
struct Compared {
    same: bool,
    records_compared: u64,
    first_difference: Option<Difference>,
    only_a: Vec<Only>,
    only_b: Vec<Only>,
}

/// A record that is not the same in both.
#[derive(Debug, Serialize)]
struct Difference {
    seq: u64,
    a_lsn: u64,
    b_lsn: u64,
    a_len: u64,
    b_len: u64,
    /// Offset in the record of the first byte that differs, or where the shorter one ends.
    byte: u64,
}

/// Numbers of records that only one log has.
#[derive(Debug, Serialize)]
struct Only {
    first_seq: u64,
    /// Exclusive.
    end_seq: u64,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let (a, b) = (look::inspect(&args.a)?, look::inspect(&args.b)?);
    let compared = compare(&a, &b, args.common)?;
    if args.json {
        report::print_json(&compared)?;
    } else {
        report::print(&compared.to_text())?;
    }
    Ok(if compared.same { Status::Done } else { Status::No })
}

fn compare(a: &Inspection, b: &Inspection, only_common: bool) -> anyhow::Result<Compared> {
    let (in_a, in_b) = (numbers(a), numbers(b));
    let (only_a, only_b) = (without(&in_a, &in_b), without(&in_b, &in_a));
    let common = without(&in_a, &only_a);
    let only = |parts: &[Range<u64>]| match only_common {
        true => Vec::new(),
        false => parts.iter().map(Only::of).collect(),
    };
    let mut compared = Compared {
        same: false,
        records_compared: 0,
        first_difference: None,
        only_a: only(&only_a),
        only_b: only(&only_b),
    };
    let bar =
        progress::count(Some(common.iter().map(|part| part.end - part.start).sum()), "comparing");
    for part in common {
        let (mut in_a, mut in_b) = (a.reader(Seq(part.start))?, b.reader(Seq(part.start))?);
        for _ in part {
            compared.first_difference = step(&mut in_a, &mut in_b)?;
            if compared.first_difference.is_some() {
                return Ok(compared);
            }
            compared.records_compared += 1;
            if compared.records_compared.is_multiple_of(4096) {
                bar.set_position(compared.records_compared);
            }
        }
    }
    bar.finish_and_clear();
    whole(a)?;
    whole(b)?;
    compared.same = compared.only_a.is_empty() && compared.only_b.is_empty();
    Ok(compared)
}

/// Numbers of the records that a log has: ranges that rise and do not touch.
fn numbers(log: &Inspection) -> Vec<Range<u64>> {
    let lost: Vec<_> = log.gaps().iter().map(|gap| gap.first_seq.0..gap.end_seq.0).collect();
    let all = log.head_seq().0..log.next_seq().0;
    without(std::slice::from_ref(&all), &lost)
}

/// The parts of `ranges` that are in none of `others`; both rise.
fn without(ranges: &[Range<u64>], others: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut parts = Vec::new();
    for range in ranges {
        let mut start = range.start;
        for other in others.iter().filter(|o| o.start < range.end && o.end > range.start) {
            parts.push(start..other.start.max(start));
            start = start.max(other.end);
        }
        parts.push(start.min(range.end)..range.end);
    }
    parts.retain(|part| !part.is_empty());
    parts
}

impl Only {
    fn of(part: &Range<u64>) -> Self {
        Only { first_seq: part.start, end_seq: part.end }
    }
}

/// Compares the next record of both.
fn step(a: &mut Reader, b: &mut Reader) -> anyhow::Result<Option<Difference>> {
    let (Some(a), Some(b)) = (a.next_record()?, b.next_record()?) else {
        anyhow::bail!("a log was cut while it was compared; run the command again");
    };
    if a.seq() != b.seq() {
        anyhow::bail!("a log was cut while it was compared; run the command again");
    }
    let (in_a, in_b) = (a.payload(), b.payload());
    if in_a == in_b {
        return Ok(None);
    }
    let shorter = in_a.len().min(in_b.len());
    let byte = in_a.iter().zip(in_b).position(|(a, b)| a != b).unwrap_or(shorter);
    Ok(Some(Difference {
        seq: a.seq().0,
        a_lsn: a.lsn().0,
        b_lsn: b.lsn().0,
        a_len: in_a.len() as u64,
        b_len: in_b.len() as u64,
        byte: byte as u64,
    }))
}

impl Compared {
    fn to_text(&self) -> String {
        let records = report::count(self.records_compared, "record");
        if self.same {
            return format!("the same: {records}\n");
        }
        let mut text = format!("the logs differ: {records} the same\n");
        if let Some(Difference { seq, a_lsn, b_lsn, a_len, b_len, byte }) = &self.first_difference {
            text += &format!(
                "seq {seq} is the first that differs, in byte {byte}: LSN {a_lsn}, {} in A; LSN \
                 {b_lsn}, {} in B\n",
                report::count(*a_len, "byte"),
                report::count(*b_len, "byte"),
            );
        }
        for (log, parts) in [("A", &self.only_a), ("B", &self.only_b)] {
            for Only { first_seq, end_seq } in parts {
                text += &format!("only in {log}: seq {first_seq}..{end_seq}\n");
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::single_range_in_vec_init, reason = "a list of ranges, some of one")]
    fn parts_that_others_have_are_taken_out() {
        let cases: [(&[_], &[_], &[_]); 6] = [
            (&[0..10], &[], &[0..10]),
            (&[0..10], &[3..4, 7..20], &[0..3, 4..7]),
            (&[5..10], &[0..20], &[]),
            (&[0..3, 4..7], &[2..5], &[0..2, 5..7]),
            (&[0..3, 4..7], &[0..3, 4..7], &[]),
            (&[5..10], &[0..5, 10..12], &[5..10]),
        ];
        for (ranges, others, left) in cases {
            assert_eq!(without(ranges, others), left, "{ranges:?} without {others:?}");
        }
    }
}
