//! What `cairn info --stats` counts, by reading all segments.

use std::time::UNIX_EPOCH;

use anyhow::Context as _;
use bytesize::ByteSize;
use cairnlog::{Dissection, Inspection, PartKind, SegmentInfo};
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::progress::{self, short_count};
use crate::report::count;

/// What precedes the log in each segment.
const SUPERBLOCK_BYTES: u64 = 4096;

/// Counts over all segments.
#[derive(Debug, Serialize)]
pub(super) struct Stats {
    records: u64,
    payload_bytes: u64,
    /// Of a record, in bytes; none where there is no record.
    record_bytes: Option<Sizes>,
    /// Groups with records.
    groups: u64,
    records_per_group: Option<Spread>,
    marks: u64,
    seals: u64,
    /// Notes of truncations.
    notes: u64,
    /// Bytes of log, from the first position that is there to the last.
    log_bytes: u64,
    /// Part of them that is not in records, from 0 to 1.
    overhead: f64,
    /// Bytes behind the log's end, or of no segment: reserved ahead.
    reserved_bytes: u64,
    /// Over this many seconds the rates are taken; none if nothing tells.
    seconds: Option<f64>,
    records_per_second: Option<f64>,
    bytes_per_second: Option<f64>,
}

/// How long records are, to three digits.
#[derive(Debug, Serialize)]
struct Sizes {
    min: u64,
    p50: u64,
    p99: u64,
    max: u64,
}

/// How many records groups have.
#[derive(Debug, Serialize)]
struct Spread {
    mean: f64,
    max: u64,
}

/// What is counted on the way.
struct Tally {
    sizes: Histogram<u64>,
    payload_bytes: u64,
    groups: u64,
    in_group: u64,
    most_in_group: u64,
    marks: u64,
    seals: u64,
    notes: u64,
}

impl Stats {
    /// Reads all segments of a log.
    pub(super) fn of(log: &Inspection) -> anyhow::Result<Self> {
        let segments = log.segments();
        let mut tally = Tally::new()?;
        let total = segments.iter().map(|segment| segment.end_lsn.0 - segment.base_lsn.0).sum();
        let bar = progress::bytes(Some(total), "reading");
        for segment in &segments {
            tally.add(segment)?;
            bar.inc(segment.end_lsn.0.saturating_sub(segment.base_lsn.0));
        }
        bar.finish_and_clear();
        Ok(tally.finish(total, &segments))
    }

    /// For people: what, and what it is.
    pub(super) fn lines(&self) -> Vec<(&'static str, String)> {
        let mut lines = Vec::new();
        if let Some(Sizes { min, p50, p99, max }) = &self.record_bytes {
            lines.push((
                "record bytes",
                format!("least {min}, median {p50}, p99 {p99}, most {max}"),
            ));
        }
        let (marks, seals) = (count(self.marks, "mark"), count(self.seals, "seal"));
        let notes = count(self.notes, "note");
        lines.push(("groups", format!("{} with records; {marks}, {seals}, {notes}", self.groups)));
        if let Some(Spread { mean, max }) = &self.records_per_group {
            lines.push(("in a group", format!("{mean:.1} records, at most {max}")));
        }
        let payload = ByteSize(self.payload_bytes);
        lines.push((
            "overhead",
            format!(
                "{:.1} %: {payload} of records in {} of log",
                self.overhead * 100.0,
                ByteSize(self.log_bytes)
            ),
        ));
        lines.push(("reserved", ByteSize(self.reserved_bytes).to_string()));
        if let (Some(seconds), Some(records), Some(bytes)) =
            (self.seconds, self.records_per_second, self.bytes_per_second)
        {
            let (records, bytes) = (short_count(records), short_count(bytes));
            lines.push(("rate", format!("{records} records/s, {bytes}B/s, over {seconds:.1} s")));
        }
        lines
    }
}

impl Tally {
    fn new() -> anyhow::Result<Self> {
        Ok(Tally {
            sizes: Histogram::new(3).context("cannot count sizes")?,
            payload_bytes: 0,
            groups: 0,
            in_group: 0,
            most_in_group: 0,
            marks: 0,
            seals: 0,
            notes: 0,
        })
    }

    /// Counts what verifies in one segment.
    fn add(&mut self, segment: &SegmentInfo) -> anyhow::Result<()> {
        let mut parts = Dissection::open(&segment.path)?;
        while let Some(part) = parts.next_part()? {
            // What lies behind its end is of no log any more, or of none yet.
            if part.lsn >= segment.end_lsn {
                break;
            }
            match part.kind {
                PartKind::Record { payload_len, .. } => {
                    self.sizes.saturating_record(payload_len);
                    self.payload_bytes += payload_len;
                    self.groups += u64::from(self.in_group == 0);
                    self.in_group += 1;
                    self.most_in_group = self.most_in_group.max(self.in_group);
                }
                PartKind::Group(group) => {
                    self.in_group = 0;
                    match group.holds {
                        "mark" => self.marks += 1,
                        "seal" => self.seals += 1,
                        "head" | "cut" => self.notes += 1,
                        _ => {}
                    }
                }
                _ => {}
            }
        }
        self.in_group = 0;
        Ok(())
    }

    fn finish(self, log_bytes: u64, segments: &[SegmentInfo]) -> Stats {
        let sizes = &self.sizes;
        let records = sizes.len();
        let quantile = |part| sizes.value_at_quantile(part);
        let seconds = seconds(segments);
        let per_second = |n: u64| seconds.map(|seconds| n as f64 / seconds);
        let file_bytes: u64 = segments.iter().map(|segment| segment.file_bytes).sum();
        let taken = log_bytes + SUPERBLOCK_BYTES * segments.len() as u64;
        Stats {
            records,
            payload_bytes: self.payload_bytes,
            record_bytes: (records > 0).then(|| Sizes {
                min: sizes.min(),
                p50: quantile(0.5),
                p99: quantile(0.99),
                max: sizes.max(),
            }),
            groups: self.groups,
            records_per_group: (self.groups > 0).then(|| Spread {
                mean: records as f64 / self.groups as f64,
                max: self.most_in_group,
            }),
            marks: self.marks,
            seals: self.seals,
            notes: self.notes,
            log_bytes,
            overhead: if log_bytes == 0 {
                0.0
            } else {
                1.0 - self.payload_bytes as f64 / log_bytes as f64
            },
            reserved_bytes: file_bytes.saturating_sub(taken),
            seconds,
            records_per_second: per_second(records),
            bytes_per_second: per_second(self.payload_bytes),
        }
    }
}

/// From the time at which the first segment was made to that of the last write; none if the clock
/// went backwards.
fn seconds(segments: &[SegmentInfo]) -> Option<f64> {
    let (first, last) = (segments.first()?, segments.last()?);
    let written = std::fs::metadata(&last.path).ok()?.modified().ok()?;
    let until = written.duration_since(UNIX_EPOCH).ok()?.as_nanos();
    let spent = until.checked_sub(u128::from(first.created_unix_ns))?;
    (spent > 0).then(|| spent as f64 / 1e9)
}
