//! The model: what may be found after a crash at any point, told by nothing but what callers were
//! told.
//!
//! A [`Driver`] runs a workload on a simulated machine and notes after each call how many system
//! calls had been made and what was promised by then. After a crash at point `p` the log must be as
//! the last call that had returned by `p` left it, or as the call under way would leave it.

use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;

use cairn_io::{FileStore, Store};
use cairn_log::{Inspection, Log, Lsn, Options, Seq, Start};
use cairn_segmented::SegmentedOptions;
use cairn_sim::{FaultPlan, SimFs};

/// What callers know of the log at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    /// Number of the oldest record.
    pub(crate) head: u64,
    /// Records below this number are acknowledged.
    pub(crate) acknowledged: u64,
    /// Payloads by number, appended ones included; `None` below the head.
    pub(crate) records: Vec<Option<Arc<[u8]>>>,
    /// For each record the number of the first record of its batch, and one past the last.
    pub(crate) batches: Vec<(u64, u64)>,
}

impl Model {
    /// Whether `found` (number of the first record, payloads) is a log these callers can live with.
    pub(crate) fn accepts(&self, first: u64, found: &[Vec<u8>]) -> Result<(), String> {
        let end = first + found.len() as u64;
        if found.is_empty() {
            return match self.acknowledged <= self.head {
                true => Ok(()),
                false => Err(format!(
                    "{} records acknowledged, none found",
                    self.acknowledged - self.head
                )),
            };
        }
        if first != self.head {
            return Err(format!("first record is {first}, must be {}", self.head));
        }
        if end < self.acknowledged {
            return Err(format!("acknowledged up to {}, found up to {end}", self.acknowledged));
        }
        if end > self.records.len() as u64 {
            return Err(format!("{end} records found, {} ever appended", self.records.len()));
        }
        for (seq, payload) in (first..).zip(found) {
            if self.records[seq as usize].as_deref() != Some(payload) {
                return Err(format!("record {seq} is not what was appended"));
            }
        }
        match self.batches[end as usize - 1] {
            (start, stop) if stop != end => Err(format!("batch {start}..{stop} cut at {end}")),
            _ => Ok(()),
        }
    }

    /// Whether everything found was appended, whatever is missing of it.
    fn believes(&self, first: u64, found: &[Vec<u8>]) -> bool {
        let end = first + found.len() as u64;
        let known = |(seq, payload): (u64, &Vec<u8>)| {
            self.records[seq as usize].as_deref() == Some(payload)
        };
        end <= self.records.len() as u64
            && (first..).zip(found).all(known)
            && (found.is_empty() || self.batches[end as usize - 1].1 == end)
    }
}

/// The promises as they stood after each system call.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timeline {
    /// For each call: how many system calls had been made when it returned, and the model then; two
    /// of them when it failed without saying which.
    entries: Vec<(usize, Vec<Model>)>,
}

impl Timeline {
    pub(crate) fn note(&mut self, op_count: usize, models: Vec<Model>) {
        // Calls that made no system call change only what may, not what must be found.
        if self.entries.last().is_some_and(|(at, _)| *at == op_count) {
            self.entries.pop();
        }
        self.entries.push((op_count, models));
    }

    /// Whether the contents are right after a crash at `point`.
    pub(crate) fn accepts(
        &self,
        point: usize,
        first: u64,
        found: &[Vec<u8>],
    ) -> Result<(), String> {
        let returned = self.entries.partition_point(|(at, _)| *at <= point);
        let mut why = Vec::new();
        let possible =
            &self.entries[returned.saturating_sub(1)..(returned + 1).min(self.entries.len())];
        for model in possible.iter().flat_map(|(_, models)| models) {
            match model.accepts(first, found) {
                Ok(()) => return Ok(()),
                Err(reason) => why.push(reason),
            }
        }
        Err(why.join("; or "))
    }

    /// Whether all of what was found after damage had been in the log at one moment before `point`,
    /// or is of the call under way there.
    pub(crate) fn knew(&self, point: usize, first: u64, found: &[Vec<u8>]) -> bool {
        let returned = self.entries.partition_point(|(at, _)| *at <= point);
        let possible = &self.entries[..(returned + 1).min(self.entries.len())];
        possible.iter().flat_map(|(_, models)| models).any(|model| model.believes(first, found))
    }
}

/// Number of the first record, and all payloads.
pub(crate) fn contents(log: &Log) -> Result<(u64, Vec<Vec<u8>>), String> {
    let mut first = None;
    let mut found = Vec::new();
    let mut reader = log.reader(Lsn::START).map_err(|e| format!("reader: {e}"))?;
    while let Some(record) = reader.next_record().map_err(|e| format!("reading: {e}"))? {
        let expected = *first.get_or_insert(record.seq().0) + found.len() as u64;
        if record.seq() != Seq(expected) {
            return Err(format!("record {} follows {}", record.seq(), expected - 1));
        }
        found.push(record.payload().to_vec());
    }
    Ok((first.unwrap_or(log.next_seq().0), found))
}

/// What the log under test lives in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Medium {
    /// A directory of segments.
    Directory,
    /// One file, through the store seam: it keeps its beginning.
    File,
    /// Many small files as one store, which drops its beginning file by file.
    Files,
}

impl Medium {
    pub(crate) fn open(self, sim: &SimFs, options: &Options) -> cairn_log::Result<Log> {
        let options = options.clone().fs(Arc::new(sim.clone()));
        let failed = |source: std::io::Error| cairn_log::Error::Io {
            op: "open",
            path: STORE.into(),
            source: Arc::new(source),
        };
        let store: Arc<dyn Store> = match self {
            Medium::Directory => return options.open(DIR),
            Medium::File => Arc::new(
                FileStore::open(sim, Path::new(STORE))
                    .map_err(|e| failed(std::io::Error::other(e)))?,
            ),
            Medium::Files => Arc::new(
                SegmentedOptions::new()
                    .segment_size_bytes(64 << 10)
                    .open(Arc::new(sim.clone()), Path::new(STORE))
                    .map_err(|e| failed(std::io::Error::other(e)))?,
            ),
        };
        Log::with_store(store, options)
    }
}

/// Runs a workload and keeps the books.
pub(crate) struct Driver {
    pub(crate) sim: SimFs,
    pub(crate) medium: Medium,
    pub(crate) options: Options,
    pub(crate) log: Option<Log>,
    pub(crate) model: Model,
    /// What the log may be instead, after a call that failed without saying.
    pub(crate) other: Option<Model>,
    pub(crate) timeline: Timeline,
    /// Segments that were begun in the file of a dropped one, by all handles there were.
    pub(crate) recycled: u64,
    recycled_before: u64,
    lsns: Vec<Lsn>,
    counter: u64,
    /// In force whenever the log is not being checked.
    pub(crate) faults: FaultPlan,
    /// Whether the plan ends with the first fault.
    pub(crate) once: bool,
}

pub(crate) const DIR: &str = "/log";
pub(crate) const STORE: &str = "/store";

impl Driver {
    /// On a fresh machine; the log is not open yet.
    pub(crate) fn new(sim: SimFs, options: Options) -> Self {
        let mut timeline = Timeline::default();
        timeline.note(0, vec![Model::default()]);
        Driver {
            sim,
            medium: Medium::Directory,
            options,
            log: None,
            model: Model::default(),
            other: None,
            timeline,
            recycled: 0,
            recycled_before: 0,
            lsns: Vec::new(),
            counter: 0,
            faults: FaultPlan::new(),
            once: false,
        }
    }

    pub(crate) fn log(&self) -> &Log {
        self.log.as_ref().expect("the log is open")
    }

    /// Counts what the handle says it recycled.
    pub(crate) fn note_recycled(&mut self) {
        let recycled = self.log().stats().recycled;
        // Another handle counts anew.
        self.recycled += recycled.checked_sub(self.recycled_before).unwrap_or(recycled);
        self.recycled_before = recycled;
    }

    pub(crate) fn noted(&mut self) {
        let models = std::iter::once(self.model.clone()).chain(self.other.clone()).collect();
        self.timeline.note(self.sim.op_count(), models);
    }

    /// A payload that no other record has, at least 8 bytes long.
    fn payload(&mut self, len: usize) -> Vec<u8> {
        self.counter += 1;
        let mut payload = self.counter.to_le_bytes().to_vec();
        payload.resize(len.max(8), self.counter as u8);
        payload
    }

    /// Opens the log; what it shows then is durable, and known.
    pub(crate) fn open(&mut self) -> cairn_log::Result<()> {
        let log = match self.medium.open(&self.sim, &self.options) {
            Ok(log) => log,
            Err(error) => {
                self.noted();
                return Err(error);
            }
        };
        // From here on a reader's system calls may fail by plan too, which is not the point.
        self.sim.set_faults(FaultPlan::new());
        let (first, found) = match contents(&log) {
            Err(_) if self.sim.is_dead() => {
                self.noted();
                return Err(cairn_log::Error::Closed);
            }
            read => read.expect("an opened log can be read"),
        };
        if let Err(why) = self.model.accepts(first, &found) {
            let other = self
                .other
                .take()
                .unwrap_or_else(|| panic!("an opened log shows what was appended: {why}"));
            other.accepts(first, &found).expect("an opened log is one of two");
            self.model = other;
        }
        self.other = None;
        self.arm();
        let end = first + found.len() as u64;
        self.model.records.truncate(end as usize);
        self.model.batches.truncate(end as usize);
        self.lsns.truncate(end as usize);
        self.model.acknowledged = end;
        self.log = Some(log);
        self.noted();
        Ok(())
    }

    /// Somebody else opens the log, and is told that it is in use. Stores have no lock.
    pub(crate) fn open_another(&mut self) {
        if let Medium::Directory = self.medium {
            let options = self.options.clone().fs(Arc::new(self.sim.second_process()));
            let refused = options.open(DIR);
            let failed = self.sim.counters().faults > 0 || self.sim.is_dead();
            assert!(
                failed || matches!(refused, Err(cairn_log::Error::Locked { .. })),
                "{refused:?}"
            );
        }
    }

    pub(crate) fn append(&mut self, len: usize) -> cairn_log::Result<()> {
        let payload = self.payload(len);
        self.promise(std::slice::from_ref(&payload));
        let lsn = self.log().append(&payload);
        self.settle(1, lsn.map(|lsn| vec![lsn]))
    }

    /// Appends a record so long that a mark behind its group ends with a sector: what follows
    /// writes no sector again by the way.
    pub(crate) fn append_before_sector_end(&mut self) -> cairn_log::Result<()> {
        let frame_at = self.log().appended_lsn().0 + 56;
        let end = (frame_at + 12 + 8 + 56).next_multiple_of(512) - 56;
        self.append((end - frame_at - 12) as usize)
    }

    pub(crate) fn batch(&mut self, lens: &[usize]) -> cairn_log::Result<()> {
        let payloads: Vec<_> = lens.iter().map(|len| self.payload(*len)).collect();
        self.promise(&payloads);
        let range = self.log().append_batch(&payloads);
        let lsns = range.map(|range| {
            let mut lsn = range.start().0;
            let next = |payload: &Vec<u8>| {
                let start = lsn;
                lsn = lsn_after(start, payload.len());
                Lsn(start)
            };
            payloads.iter().map(next).collect()
        });
        self.settle(payloads.len(), lsns)
    }

    /// From now on these records may be found.
    fn promise(&mut self, payloads: &[Vec<u8>]) {
        let start = self.model.records.len() as u64;
        let stop = start + payloads.len() as u64;
        for payload in payloads {
            self.model.records.push(Some(payload.as_slice().into()));
            self.model.batches.push((start, stop));
        }
    }

    /// Enters a record that was appended beside the books.
    pub(crate) fn adopt(&mut self, payload: &[u8], lsn: Lsn) {
        self.promise(&[payload.to_vec()]);
        self.lsns.push(lsn);
        self.noted();
    }

    fn settle(&mut self, count: usize, lsns: cairn_log::Result<Vec<Lsn>>) -> cairn_log::Result<()> {
        match lsns {
            Ok(lsns) => {
                assert_eq!(lsns.len(), count);
                self.lsns.extend(lsns);
                self.noted();
                Ok(())
            }
            Err(error) => {
                // Refused: nothing of it is in the log.
                let kept = self.model.records.len() - count;
                self.model.records.truncate(kept);
                self.model.batches.truncate(kept);
                self.noted();
                Err(error)
            }
        }
    }

    pub(crate) fn sync(&mut self) -> cairn_log::Result<()> {
        let before = self.model.clone();
        let result = self.log().sync();
        if result.is_ok() {
            self.model = Model { acknowledged: before.records.len() as u64, ..before };
        }
        self.noted();
        result
    }

    pub(crate) fn flush(&mut self) -> cairn_log::Result<()> {
        let result = self.log().flush();
        self.noted();
        result
    }

    /// Syncs up to a record in the middle of what is not acknowledged yet.
    pub(crate) fn sync_to(&mut self, seq: u64) -> cairn_log::Result<()> {
        let result = self.log().sync_to(self.lsns[seq as usize]);
        if result.is_ok() {
            self.model.acknowledged = self.model.acknowledged.max(seq + 1);
        }
        self.noted();
        result
    }

    pub(crate) fn truncate_before(&mut self, seq: u64) -> cairn_log::Result<()> {
        let result = self.log().truncate_before(self.lsns[seq as usize]);
        let after = Model { head: self.model.head.max(seq), ..self.model.clone() };
        self.decide(&result, after);
        self.noted();
        result
    }

    pub(crate) fn truncate_after(&mut self, seq: u64) -> cairn_log::Result<()> {
        let result = self.log().truncate_after(self.lsns[seq as usize]);
        let mut after = self.model.clone();
        let kept = seq as usize + 1;
        after.records.truncate(kept);
        after.batches.truncate(kept);
        after.acknowledged = kept as u64;
        if let Some((start, stop)) = after.batches.last().copied() {
            // A cut inside a batch leaves its beginning: that is what was asked for.
            after.batches[start as usize..].fill((start, stop.min(kept as u64)));
        }
        if result.is_ok() {
            self.lsns.truncate(kept);
        }
        self.decide(&result, after);
        self.noted();
        result
    }

    /// A truncation froze the log with everything in it durable, and then happened, or failed
    /// without saying how far it got.
    fn decide(&mut self, result: &cairn_log::Result<()>, after: Model) {
        match result {
            Ok(()) => {
                self.model = after;
                self.model.acknowledged = self.model.records.len() as u64;
            }
            Err(_) => self.other = Some(after),
        }
    }

    pub(crate) fn close(&mut self) -> cairn_log::Result<()> {
        let result = self.log.take().expect("the log is open").close();
        if result.is_ok() {
            self.model.acknowledged = self.model.records.len() as u64;
        }
        self.noted();
        result
    }

    /// The process dies, and another one is started on the same machine.
    pub(crate) fn die(&mut self) {
        self.sim.kill();
        self.log = None;
        self.sim = self.sim.restart();
        self.arm();
        self.noted();
    }

    /// Puts the fault plan in force, calls counted from here.
    fn arm(&self) {
        if !self.once || self.sim.counters().faults == 0 {
            self.sim.set_faults(self.faults.clone());
        }
    }

    /// Ends all faults.
    pub(crate) fn disarm(&mut self) {
        self.faults = FaultPlan::new();
        self.sim.set_faults(FaultPlan::new());
    }

    pub(crate) fn end(&self) -> u64 {
        self.model.records.len() as u64
    }
}

/// Where the next frame of a group starts: a header of twelve bytes, the payload, padding to eight
/// bytes.
fn lsn_after(lsn: u64, payload_len: usize) -> u64 {
    (lsn + 12 + payload_len as u64).next_multiple_of(8)
}

/// Opens what a crash left and compares it with the promises; then goes on with it.
pub(crate) fn check_state(
    driver: &Driver,
    point: usize,
    sim: &SimFs,
) -> Result<Vec<Vec<u8>>, String> {
    let log = driver
        .medium
        .open(sim, &driver.options)
        .map_err(|e| format!("does not open: {}", chain(&e)))?;
    let (first, found) = contents(&log)?;
    driver.timeline.accepts(point, first, &found)?;
    drop(log);
    Ok(found)
}

/// What a recovered log must be able to do: take a record durably, and be opened again with it.
pub(crate) fn check_goes_on(
    driver: &Driver,
    before: &[Vec<u8>],
    sim: &SimFs,
) -> Result<(), String> {
    let open = || {
        driver
            .medium
            .open(sim, &driver.options)
            .map_err(|e| format!("does not open again: {}", chain(&e)))
    };
    let log = open()?;
    let lsn = log.commit(b"one more").map_err(|e| format!("does not go on: {}", chain(&e)))?;
    log.close().map_err(|e| format!("does not close: {}", chain(&e)))?;
    if driver.medium == Medium::Directory {
        let inspection =
            Inspection::open_on(Arc::new(sim.clone()), DIR).map_err(|e| e.to_string())?;
        let verified = inspection.verify(|_| ()).map_err(|e| e.to_string())?;
        if !verified.problems.is_empty() {
            return Err(format!("verify finds {:?}", verified.problems));
        }
    }
    let log = open()?;
    let (_, found) = contents(&log)?;
    if found.len() != before.len() + 1
        || found[..before.len()] != *before
        || found[before.len()] != b"one more"
    {
        return Err(format!("{} records before, {} after one more", before.len(), found.len()));
    }
    let record = log.reader(Start::Lsn(lsn)).map_err(|e| e.to_string())?.next();
    match record {
        Some(Ok(record)) if record.payload() == b"one more" => Ok(()),
        other => Err(format!("the new record reads as {other:?}")),
    }
}

/// An error with its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
