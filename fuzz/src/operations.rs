//! Any sequence of operations on a log, with process deaths, power cuts, failing system calls and
//! lost write-backs in between, against a model that knows only what callers were told.
//!
//! What was acknowledged is there after whatever happened, what was appended reads as it was
//! appended, batches are whole, what was dropped stays dropped, positions do not change.

use std::path::Path;
use std::sync::Arc;

use arbitrary::{Arbitrary, Unstructured};
use cairn_io::FileStore;
use cairn_log::{ErrorKind, Log, Lsn, Options};
use cairn_sim::{
    Call, Chooser, Errno, FailedSync, Fault, FaultPlan, MetadataOrder, SectorSize, SimFs,
    SimOptions, Torn,
};

use crate::logs::{DIR, segmented};

#[derive(Arbitrary, Debug)]
struct Input {
    home: Home,
    persisted: bool,
    large_sectors: bool,
    seed: u64,
    operations: Vec<Operation>,
}

#[derive(Arbitrary, Clone, Copy, Debug, PartialEq)]
enum Home {
    Directory,
    File,
    Segments,
}

#[derive(Arbitrary, Debug)]
enum Operation {
    Append(u16),
    Batch([u8; 3], u8),
    Sync,
    Flush,
    SyncTo(u8),
    TruncateBefore(u8),
    TruncateAfter(u8),
    CloseAndOpen {
        segment_kib: u8,
        buffer_kib: u8,
    },
    /// The log is dropped and opened again by the same process.
    DropAndOpen,
    Read,
    Kill {
        evict: bool,
    },
    PowerCut {
        seed: u64,
        garbage: bool,
        ordered: bool,
    },
    /// The process dies some system calls later, in the middle of something.
    Doom(u8),
    Fail {
        call: u8,
        nth: u8,
        kind: u8,
    },
    LoseWriteBack(u8),
    Evict,
}

/// What callers know: records by number, and what of them is promised.
#[derive(Clone, Debug, Default)]
struct Model {
    head: u64,
    acknowledged: u64,
    /// Payload, position, and the end of the batch it is in; `None` below the head.
    records: Vec<Option<Known>>,
}

#[derive(Clone, Debug)]
struct Known {
    payload: Arc<[u8]>,
    /// Unknown for records whose append was interrupted.
    lsn: Lsn,
    batch_end: u64,
}

type Found = Vec<(u64, Lsn, Vec<u8>)>;

impl Model {
    fn end(&self) -> u64 {
        self.records.len() as u64
    }

    /// Whether a log that shows these records, and calls `next` the number of the next one, is this
    /// one. An empty log tells by that number alone where it begins.
    fn accepts(&self, found: &Found, next: u64) -> Result<(), String> {
        let first = found.first().map_or(next, |(first, ..)| *first);
        let end = first + found.len() as u64;
        if first != self.head {
            return Err(format!("begins with {first}, not with {}", self.head));
        }
        if end != next {
            return Err(format!("ends at {end}, and the next is {next}"));
        }
        if end < self.acknowledged || end > self.end() {
            return Err(format!(
                "ends at {end}, acknowledged {}, appended {}",
                self.acknowledged,
                self.end()
            ));
        }
        for (seq, lsn, payload) in found {
            let Some(Some(known)) =
                self.records.get(usize::try_from(*seq).map_err(|e| e.to_string())?)
            else {
                return Err(format!("{seq} was dropped"));
            };
            if *known.payload != **payload || known.lsn != *lsn {
                return Err(format!("{seq} is another record, or elsewhere"));
            }
        }
        match self.records.last_chunk_at(end) {
            Some(known) if known.batch_end != end => {
                Err(format!("a batch up to {} cut at {end}", known.batch_end))
            }
            _ => Ok(()),
        }
    }
}

trait At {
    fn last_chunk_at(&self, end: u64) -> Option<&Known>;
}

impl At for Vec<Option<Known>> {
    fn last_chunk_at(&self, end: u64) -> Option<&Known> {
        self.get(usize::try_from(end.checked_sub(1)?).ok()?)?.as_ref()
    }
}

struct Run {
    sim: SimFs,
    home: Home,
    options: Options,
    log: Option<Log>,
    model: Model,
    /// What the log may be instead, after a truncation that failed without saying.
    other: Option<Model>,
    counter: u64,
    /// System calls may fail, or have.
    faulty: bool,
}

/// Runs one input.
pub fn run(data: &[u8]) {
    let Ok(input) = Input::arbitrary_take_rest(Unstructured::new(data)) else {
        return;
    };
    crate::trace(&(input.home, input.persisted, input.large_sectors, input.seed));
    let failed = if input.persisted { FailedSync::Persisted } else { FailedSync::Old };
    let sectors = if input.large_sectors { SectorSize::Bytes4096 } else { SectorSize::Bytes512 };
    let options = SimOptions::new().seed(input.seed).failed_sync(failed).sector_size(sectors);
    let mut run = Run {
        sim: SimFs::with_options(options),
        home: input.home,
        options: Log::options().segment_size(8 << 10).buffer_size(4 << 10),
        log: None,
        model: Model::default(),
        other: None,
        counter: 0,
        faulty: false,
    };
    run.open();
    for operation in input.operations.iter().take(64) {
        crate::trace(operation);
        run.step(operation);
        crate::trace(&(
            run.sim.op_count(),
            run.model.head,
            run.model.acknowledged,
            run.model.end(),
            run.faulty,
        ));
    }
    run.healthy();
    run.settle();
    let log = run.log.take().expect("the log is open");
    log.close().expect("closes");
    run.model.acknowledged = run.model.end();
    run.sim = run.sim.power_cut(&mut Chooser::nothing());
    run.open();
}

impl Run {
    fn try_open(&self) -> Result<Log, String> {
        let options = self.options.clone().fs(Arc::new(self.sim.clone()));
        let opened = match self.home {
            Home::Directory => options.open(DIR),
            Home::File => {
                let store = FileStore::open(&self.sim, Path::new("/store"))
                    .map_err(|e| format!("{e:?}"))?;
                Log::with_store(Arc::new(store), options)
            }
            Home::Segments => {
                Log::with_store(segmented(&self.sim).map_err(|e| format!("{e:?}"))?, options)
            }
        };
        opened.map_err(|e| format!("{e:?}"))
    }

    /// Opens the log, which must succeed when nothing fails; what it shows then is known, and
    /// durable.
    fn open(&mut self) {
        self.log = None;
        if self.faulty {
            if let Ok(log) = self.try_open() {
                // Whatever it does, it is not asked: reading may fail by plan as well.
                drop(log);
            }
            self.healthy();
        }
        let log = self.try_open().expect("opens");
        let found = contents(&log).expect("an opened log is read");
        let end = log.next_seq().0;
        if let Err(why) = self.model.accepts(&found, end) {
            let other = self.other.take().unwrap_or_else(|| panic!("{why}"));
            if let Err(also) = other.accepts(&found, end) {
                panic!("{why}; and {also}");
            }
            self.model = other;
        }
        self.other = None;
        self.model.records.truncate(usize::try_from(end).expect("a small log"));
        self.model.acknowledged = end;
        self.log = Some(log);
    }

    /// Ends faults; a process that is to die does so.
    fn healthy(&mut self) {
        if self.faulty {
            // The process dies first: the drop of its log must not write.
            let next = self.sim.restart();
            self.log = None;
            self.sim = next;
            self.faulty = false;
        }
    }

    /// Has an open log again.
    fn settle(&mut self) {
        if self.log.is_none() {
            self.open();
        }
    }

    fn payload(&mut self, len: usize) -> Vec<u8> {
        self.counter += 1;
        let mut payload = self.counter.to_le_bytes().to_vec();
        payload.resize(len.max(8), self.counter as u8);
        payload
    }

    fn log(&self) -> &Log {
        self.log.as_ref().expect("the log is open")
    }

    /// A call failed: only faults are an excuse, and the log is opened again.
    fn failed(&mut self, error: &cairn_log::Error) {
        assert!(self.faulty, "nothing fails, and still: {error:?}");
        self.log = None;
        self.open();
    }

    fn append(&mut self, payloads: &[Vec<u8>]) {
        let batch_end = self.model.end() + payloads.len() as u64;
        let first = match payloads {
            [one] => self.log().append(one),
            all => self.log().append_batch(all).map(|range| *range.start()),
        };
        let mut lsn = match first {
            Ok(lsn) => lsn,
            // Refused, and the handle goes on.
            Err(error) if self.faulty && error.kind() != ErrorKind::Reopen => return,
            Err(error) => return self.failed(&error),
        };
        for payload in payloads {
            self.model.records.push(Some(Known {
                payload: payload.as_slice().into(),
                lsn,
                batch_end,
            }));
            lsn = Lsn((lsn.0 + 12 + payload.len() as u64).next_multiple_of(8));
        }
    }

    /// A record that exists, picked by number.
    fn pick(&self, n: u8) -> Option<(u64, Lsn)> {
        let count = self.model.end() - self.model.head;
        let seq = self.model.head + u64::from(n).checked_rem(count)?;
        let known = self.model.records[usize::try_from(seq).ok()?].as_ref()?;
        Some((seq, known.lsn))
    }

    fn acknowledge(&mut self, result: cairn_log::Result<()>, below: u64) {
        match result {
            Ok(()) => self.model.acknowledged = self.model.acknowledged.max(below),
            Err(error) => self.failed(&error),
        }
    }

    fn decide(&mut self, result: cairn_log::Result<()>, mut after: Model) {
        match result {
            Ok(()) => {
                after.acknowledged = after.end();
                self.model = after;
            }
            Err(error) => {
                self.other = Some(after);
                self.failed(&error);
            }
        }
    }

    fn step(&mut self, operation: &Operation) {
        self.settle();
        match operation {
            Operation::Append(len) => {
                let payload = self.payload(usize::from(len % 12_000));
                self.append(&[payload]);
            }
            Operation::Batch(lens, scale) => {
                let scale = 1 + usize::from(scale % 8);
                let payloads: Vec<_> =
                    lens.iter().map(|len| self.payload(usize::from(*len) * scale)).collect();
                self.append(&payloads);
            }
            Operation::Sync => {
                let result = self.log().sync();
                self.acknowledge(result, self.model.end());
            }
            Operation::Flush => {
                if let Err(error) = self.log().flush() {
                    self.failed(&error);
                }
            }
            Operation::SyncTo(n) => {
                if let Some((seq, lsn)) = self.pick(*n) {
                    let result = self.log().sync_to(lsn);
                    self.acknowledge(result, seq + 1);
                }
            }
            Operation::TruncateBefore(n) => {
                // One more than there are records: everything goes.
                let count = self.model.end() - self.model.head;
                let place = match u64::from(*n) % (count + 1) {
                    k if k == count => (self.model.end(), self.log().appended_lsn()),
                    k => self.pick(k as u8).expect("it exists"),
                };
                let mut after = self.model.clone();
                after.head = place.0;
                after.records[..usize::try_from(place.0).expect("a small log")].fill(None);
                let result = self.log().truncate_before(place.1);
                self.decide(result, after);
            }
            Operation::TruncateAfter(n) => {
                let Some((seq, lsn)) = self.pick(*n) else { return };
                let mut after = self.model.clone();
                after.records.truncate(usize::try_from(seq + 1).expect("a small log"));
                after.acknowledged = seq + 1;
                for known in after.records.iter_mut().flatten() {
                    // A cut inside a batch leaves its beginning: that is what was asked for.
                    known.batch_end = known.batch_end.min(seq + 1);
                }
                let result = self.log().truncate_after(lsn);
                self.decide(result, after);
            }
            Operation::CloseAndOpen { segment_kib, buffer_kib } => {
                match self.log.take().expect("the log is open").close() {
                    Ok(()) => self.model.acknowledged = self.model.end(),
                    Err(error) => self.failed(&error),
                }
                let segment = 8 + u64::from(segment_kib % 64);
                self.options = self
                    .options
                    .clone()
                    .segment_size(segment << 10)
                    .buffer_size((4 + usize::from(buffer_kib % 16)) << 10);
                self.open();
            }
            Operation::DropAndOpen => self.open(),
            Operation::Read => self.read(),
            Operation::Kill { evict } => {
                self.faulty = true;
                self.healthy();
                if *evict {
                    self.sim.evict();
                }
                self.open();
            }
            Operation::PowerCut { seed, garbage, ordered } => {
                // A store cannot tell its own creation, torn inside a sector, from a foreign file,
                // and refuses it.
                let torn = if *garbage && self.home == Home::Directory {
                    Torn::Garbage
                } else {
                    Torn::Versions
                };
                let order = if *ordered { MetadataOrder::Ordered } else { MetadataOrder::Free };
                let mut chooser = Chooser::seeded(*seed).torn(torn).metadata_order(order);
                // The log dies with the machine: its drop must not write.
                let after = self.sim.power_cut(&mut chooser);
                self.log = None;
                self.sim = after;
                self.faulty = false;
                self.open();
            }
            Operation::Doom(calls) => {
                self.sim.kill_at(self.sim.op_count() + usize::from(*calls));
                self.faulty = true;
            }
            Operation::Fail { call, nth, kind } => {
                let call = Call::ALL[usize::from(*call) % Call::ALL.len()];
                let nth = u64::from(*nth % 32);
                let fault = match kind % 6 {
                    0 => Fault::Fail(Errno::Eio),
                    1 => Fault::Fail(Errno::Enospc),
                    2 => Fault::Fail(Errno::Eintr),
                    3 => Fault::FailAfter(0, Errno::Eio),
                    4 => Fault::Short(usize::from(*kind)),
                    _ => Fault::ShortThenFail(usize::from(*kind) * 8, Errno::Enospc),
                };
                self.sim.set_faults(FaultPlan::new().on(call, nth..nth + 1, fault));
                self.faulty = true;
            }
            Operation::LoseWriteBack(n) => {
                let files = self.sim.files();
                if let Some((path, _)) = files.get(usize::from(*n) % files.len().max(1)) {
                    self.sim.fail_write_back(path).expect("the file is there");
                    self.faulty = true;
                }
            }
            Operation::Evict => self.sim.evict(),
        }
    }

    /// A live log shows exactly what was appended.
    fn read(&mut self) {
        let found = match contents(self.log()) {
            Ok(found) => found,
            Err(error) => return self.failed(&error),
        };
        if !self.faulty {
            assert_eq!(
                found.len() as u64,
                self.model.end() - self.model.head,
                "all that was appended, and nothing else"
            );
        }
        let shown = Model { acknowledged: self.model.head, ..self.model.clone() };
        let next = self.model.head + found.len() as u64;
        if let Err(why) = shown.accepts(&found, next) {
            assert!(self.faulty, "{why}");
        }
    }
}

fn contents(log: &Log) -> cairn_log::Result<Found> {
    let mut found = Vec::new();
    let mut reader = log.reader(Lsn::START)?;
    while let Some(record) = reader.next_record()? {
        found.push((record.seq().0, record.lsn(), record.payload().to_vec()));
    }
    Ok(found)
}
