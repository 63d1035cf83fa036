//! guards: L02, L04, L05, L08, L17, L23, L25, L27, L47, L48
//!
//! Power cuts and failing system calls under the segmented store, the direct store and the atomic replace: whatever subset of unsynced sectors, lengths and names
//! survives, what was synced is there, and nothing is there that nobody wrote.

#![expect(clippy::print_stdout, reason = "the number of states says what was covered")]

use std::collections::HashSet;
use std::io::IoSlice;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use cairn_io::{Backend, DirectStore, Fs, ReplaceState, SegmentedOptions, Store, replace_file};
use cairn_sim::{Call, CrashExplorer, Errno, FailedSync, Fault, FaultPlan, MetadataOrder, SimFs, SimOptions, Torn};

/// Payload of a file: as small as it can be, so that few writes fill many files.
const SEGMENT: u64 = 4096;

/// What is under test, and how it opens.
#[derive(Clone, Copy)]
struct Kind {
    open: fn(&SimFs) -> Result<Box<dyn Store>, String>,
    /// Prefixes are dropped in multiples of this; 0 for not at all.
    head_unit: u64,
    steps: &'static [Step],
}

const SEGMENTED: Kind = Kind {
    open: |sim| {
        let options = SegmentedOptions::new().segment_size_bytes(SEGMENT).open_files_max(2);
        let store = options.open(Arc::new(sim.clone()), Path::new("/store"));
        Ok(Box::new(store.map_err(|e| format!("does not open: {e:?}"))?))
    },
    head_unit: SEGMENT,
    steps: SEGMENTED_STEPS,
};

const DIRECT: Kind = Kind {
    open: |sim| {
        let store = DirectStore::open(sim, Path::new("/store")).map_err(|e| format!("does not open: {e:?}"))?;
        Ok(Box::new(store))
    },
    head_unit: 0,
    steps: DIRECT_STEPS,
};

/// The block of a direct handle on the simulated machine.
const BLOCK: usize = 512;

/// Distinct disks to visit, at least.
const STATES: usize = 20_000;

/// A store's bytes at one moment. What lies below the head is nobody's business.
#[derive(Clone, Debug, Default, PartialEq)]
struct Image {
    head: u64,
    bytes: Vec<u8>,
}

impl Image {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// What a store holds, read through its interface.
    fn of(store: &dyn Store) -> Result<Self, String> {
        let (head, len) = (store.head(), store.len().map_err(|e| format!("len: {e}"))?);
        let mut bytes = vec![0; usize::try_from(len).unwrap()];
        let wanted = &mut bytes[usize::try_from(head).unwrap()..];
        let n = store.read_at(head, wanted).map_err(|e| format!("read_at: {e}"))?;
        match n == wanted.len() {
            true => Ok(Self { head, bytes }),
            false => Err(format!("{n} bytes read of {}", wanted.len())),
        }
    }

    fn write(&mut self, offset: usize, bytes: &[u8]) {
        if !bytes.is_empty() {
            let end = offset + bytes.len();
            self.bytes.resize(self.bytes.len().max(end), 0);
            self.bytes[offset..end].copy_from_slice(bytes);
        }
    }

    fn sectors(&self, from: usize) -> &[u8] {
        self.bytes.get(from..self.bytes.len().min(from + 512)).unwrap_or(&[])
    }
}

/// What may be found: each byte as the last barrier covered it or as anything later made it, on its own; so the length and the head.
#[derive(Clone, Debug)]
struct Model {
    /// The contents at the last barrier, and after each change since.
    images: Vec<Image>,
    /// The smallest and largest head.
    heads: (u64, u64),
}

impl Model {
    fn now(&self) -> &Image {
        self.images.last().expect("there is always one")
    }

    fn changed(&mut self, change: impl FnOnce(&mut Image)) {
        let mut next = self.now().clone();
        change(&mut next);
        self.images.push(next);
    }

    fn synced(&mut self) {
        self.images.drain(..self.images.len() - 1);
    }

    fn accepts(&self, found: &Image) -> Result<(), String> {
        let Self { images, heads: (low, high) } = self;
        if found.head < *low || found.head > *high || !found.head.is_multiple_of(SEGMENT) {
            return Err(format!("head {}, must be {low} to {high}", found.head));
        }
        let lens = || images.iter().map(Image::len);
        let (shortest, longest) = (lens().min().unwrap_or(0), lens().max().unwrap_or(0));
        if found.len() < shortest || found.len() > longest {
            return Err(format!("length {}, must be {shortest} to {longest}", found.len()));
        }
        let head = usize::try_from(found.head).unwrap();
        for at in (head..found.bytes.len()).step_by(512) {
            let sector = found.sectors(at);
            if images.iter().any(|image| image.sectors(at) == sector) {
                continue;
            }
            for (i, byte) in sector.iter().enumerate() {
                if images.iter().all(|image| image.bytes.get(at + i).copied().unwrap_or(0) != *byte) {
                    return Err(format!("byte {} is {byte}, which nobody wrote there", at + i));
                }
            }
        }
        Ok(())
    }
}

/// A store under test on a simulated machine, and what callers know of it.
struct Driver {
    kind: Kind,
    sim: SimFs,
    store: Option<Box<dyn Store>>,
    model: Model,
    /// For each call: how many system calls had been made when it returned, what may be found while it runs, and after it.
    timeline: Vec<(usize, Model, Model)>,
    counter: u8,
}

type Outcome = Result<(), String>;

impl Driver {
    fn new(kind: Kind, sim: SimFs) -> Self {
        let model = Model { images: vec![Image::default()], heads: (0, 0) };
        Self { kind, sim, store: None, timeline: vec![(0, model.clone(), model.clone())], model, counter: 0 }
    }

    fn store(&self) -> &dyn Store {
        self.store.as_deref().expect("the store is open")
    }

    /// Bytes that are found nowhere else, nor in other sectors.
    fn payload(&mut self, len: usize) -> Vec<u8> {
        self.counter = self.counter % 250 + 1;
        vec![self.counter; len]
    }

    /// Enters what a call promised: `during` may be found while it runs.
    fn note(&mut self, during: Model) {
        self.timeline.push((self.sim.op_count(), during, self.model.clone()));
    }

    /// A call returned: on `Ok` the model is `after`; on `Err` anything that may be found while it runs may still be found.
    fn settle<T: std::fmt::Debug>(&mut self, result: std::io::Result<T>, during: Model, after: Model) -> Outcome {
        self.model = if result.is_ok() { after } else { during.clone() };
        self.note(during);
        result.map(drop).map_err(|e| e.to_string())
    }

    fn open(&mut self) -> Outcome {
        let opened = (self.kind.open)(&self.sim);
        self.note(self.model.clone());
        self.store = Some(opened?);
        Ok(())
    }

    fn write(&mut self, offset: u64, len: usize) -> Outcome {
        let payload = self.payload(len);
        let mut after = self.model.clone();
        after.changed(|image| image.write(usize::try_from(offset).unwrap(), &payload));
        let result = self.store().write_at(offset, &payload);
        self.settle(result, after.clone(), after)
    }

    fn append(&mut self, len: usize) -> Outcome {
        self.write(self.model.now().len(), len)
    }

    /// On `Ok` these bytes are durable; what else was not yet, still is not.
    fn write_durable(&mut self, offset: u64, len: usize) -> Outcome {
        let payload = self.payload(len);
        let (one, two) = payload.split_at(len / 3);
        self.write_slices(offset, &[one, two])
    }

    /// As [`write_durable`](Self::write_durable), whole blocks: what a direct store can write directly.
    fn write_blocks(&mut self, first: u64, blocks: usize) -> Outcome {
        let payload = self.payload(blocks * BLOCK + BLOCK);
        let start = payload.as_ptr().addr().next_multiple_of(BLOCK) - payload.as_ptr().addr();
        let (one, two) = payload[start..start + blocks * BLOCK].split_at(blocks / 2 * BLOCK);
        self.write_slices(first * BLOCK as u64, &[one, two])
    }

    fn write_slices(&mut self, offset: u64, slices: &[&[u8]]) -> Outcome {
        let at = usize::try_from(offset).unwrap();
        let mut during = self.model.clone();
        during.changed(|image| image.write(at, &slices.concat()));
        let mut after = during.clone();
        after.images.iter_mut().for_each(|image| image.write(at, &slices.concat()));
        let slices: Vec<IoSlice<'_>> = slices.iter().map(|slice| IoSlice::new(slice)).collect();
        let result = self.store().write_durable(offset, &slices);
        self.settle(result, during, after)
    }

    fn sync(&mut self) -> Outcome {
        let during = self.model.clone();
        let mut after = during.clone();
        after.synced();
        let result = self.store().sync();
        self.settle(result, during, after)
    }

    fn truncate(&mut self, len: u64) -> Outcome {
        let mut after = self.model.clone();
        after.changed(|image| image.bytes.truncate(usize::try_from(len).unwrap()));
        let result = self.store().truncate(len);
        self.settle(result, after.clone(), after)
    }

    fn truncate_before(&mut self, offset: u64) -> Outcome {
        let head = offset.checked_div(self.kind.head_unit).map_or(0, |units| units * self.kind.head_unit);
        let mut during = self.model.clone();
        during.heads.1 = during.heads.1.max(head);
        let mut after = during.clone();
        after.changed(|image| image.head = image.head.max(head));
        after.heads.0 = after.heads.1;
        let result = self.store().truncate_before(offset);
        if let Ok(head) = result {
            assert_eq!(head, after.now().head, "the head that was dropped up to");
        }
        self.settle(result, during, after)
    }

    fn preallocate(&mut self, offset: u64, len: u64) -> Outcome {
        let mut after = self.model.clone();
        after.changed(|image| image.bytes.resize(image.bytes.len().max(usize::try_from(offset + len).unwrap()), 0));
        let result = self.store().preallocate(offset, len);
        self.settle(result, after.clone(), after)
    }

    fn close(&mut self) {
        self.store = None;
        self.note(self.model.clone());
    }

    /// The handle reads what was written through it.
    fn check_live(&self) -> Outcome {
        let found = Image::of(self.store())?;
        let now = self.model.now();
        let head = usize::try_from(found.head).unwrap();
        match (found.head, found.len(), &found.bytes[head..]) == (now.head, now.len(), &now.bytes[head..]) {
            true => Ok(()),
            false => Err(format!("reads {}..{}, not what was written", found.head, found.len())),
        }
    }

    /// The process died, or a call failed: opens the store again, takes what is there, writes it again, and so knows it to be durable.
    fn recover(&mut self) -> Outcome {
        self.store = None;
        self.sim = self.sim.restart();
        self.open()?;
        let found = Image::of(self.store())?;
        self.model.accepts(&found)?;
        self.model.images.push(found.clone());
        let during = self.model.clone();
        let head = usize::try_from(found.head).unwrap();
        self.store().write_at(found.head, &found.bytes[head..]).map_err(|e| e.to_string())?;
        self.note(during);
        // One byte more, because a length is under a barrier of the file that has it only when that file was changed.
        self.append(1)?;
        self.sync()?;
        self.model.heads = (found.head, found.head);
        self.note(self.model.clone());
        self.check_live()
    }

    /// Whether this may be found after a power cut at `point`.
    fn accepts(&self, point: usize, found: &Image) -> Outcome {
        let returned = self.timeline.partition_point(|(at, ..)| *at <= point);
        let after = &self.timeline[returned.saturating_sub(1)].2;
        let Err(why) = after.accepts(found) else { return Ok(()) };
        match self.timeline.get(returned) {
            Some((_, during, _)) => during.accepts(found).map_err(|also| format!("{why}; or {also}")),
            None => Err(why),
        }
    }
}

type Step = fn(&mut Driver) -> Outcome;

/// Every operation, in places that matter: over file boundaries, in earlier files, behind the end, around barriers.
const SEGMENTED_STEPS: &[Step] = &[
    |d| d.append(1000),
    |d| d.sync(),
    |d| d.append(6000),
    |d| d.append(700),
    // A late write to the first file, when others were written since (L04).
    |d| d.write(500, 900),
    |d| d.sync(),
    |d| d.write(3000, 2500),
    |d| d.truncate(5000),
    |d| d.append(300),
    |d| d.sync(),
    |d| d.append(9000),
    |d| d.truncate(8192),
    |d| d.sync(),
    |d| d.write(9000, 100),
    |d| d.sync(),
    // Far behind the end: files nobody wrote to.
    |d| d.write(21_000, 700),
    |d| d.write(100, 50),
    |d| d.sync(),
    |d| d.truncate_before(9500),
    |d| d.write(12_000, 600),
    |d| d.write_durable(13_000, 1500),
    |d| d.truncate(17_000),
    |d| d.append(400),
    |d| d.sync(),
    |d| {
        d.close();
        d.open()
    },
    |d| d.append(2000),
    |d| d.recover(),
    |d| d.write_durable(19_000, 2600),
    |d| d.preallocate(24_000, 3000),
    |d| d.write(24_500, 800),
    |d| d.sync(),
    |d| d.truncate_before(20_000),
    |d| d.truncate(16_384),
    |d| d.append(5000),
    |d| d.sync(),
];

/// Both ways of writing, before, after, beside and over each other, with and without a barrier in between.
const DIRECT_STEPS: &[Step] = &[
    |d| d.write_blocks(0, 3),
    |d| d.append(700),
    // Over bytes that no barrier has covered, and bytes that a direct write made durable.
    |d| d.write_blocks(2, 2),
    |d| d.write(100, 900),
    |d| d.write_blocks(1, 1),
    |d| d.sync(),
    |d| d.write(600, 2000),
    |d| d.write_durable(5000, 1500),
    |d| d.truncate(2100),
    // Behind the end that the cut has left, which is not durable.
    |d| d.write_blocks(8, 2),
    |d| d.append(300),
    |d| d.sync(),
    |d| d.write(4000, 3000),
    |d| d.write_blocks(20, 1),
    |d| d.write_blocks(20, 4),
    |d| d.truncate(10_500),
    |d| d.sync(),
    |d| {
        d.close();
        d.open()
    },
    |d| d.append(2000),
    |d| d.recover(),
    |d| d.preallocate(12_000, 6000),
    |d| d.write_blocks(24, 6),
    |d| d.write_blocks(30, 6),
    |d| d.sync(),
    |d| d.write(100, 9000),
    |d| d.write_blocks(0, 2),
    |d| d.truncate_before(5000),
    |d| d.append(100),
    |d| d.sync(),
];

/// Runs the steps, each with its own faults; the opening has those of the first one.
fn run(kind: Kind, faults: impl Fn(usize) -> FaultPlan) -> Driver {
    let mut driver = Driver::new(kind, SimFs::new());
    driver.sim.set_faults(faults(0));
    driver.open().unwrap();
    for (i, step) in kind.steps.iter().enumerate() {
        driver.sim.set_faults(faults(i));
        step(&mut driver).unwrap_or_else(|e| panic!("step {i}: {e}"));
        driver.check_live().unwrap_or_else(|e| panic!("step {i}: {e}"));
    }
    driver
}

fn healthy(_: usize) -> FaultPlan {
    FaultPlan::new()
}

/// The same operations in another order, with other ranges.
fn run_seed(kind: Kind, seed: u64) -> Driver {
    let mut driver = Driver::new(kind, SimFs::with_options(SimOptions::new().seed(seed)));
    driver.open().unwrap();
    let mut dice = seed;
    let mut below = move |bound: u64| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (dice >> 33) % bound.max(1)
    };
    for step in 0..40 {
        let (head, len) = (driver.model.now().head, driver.model.now().len());
        let inside = head + below(len - head);
        let size = usize::try_from(1 + below(3000)).unwrap();
        let done = match below(24) {
            0..4 => driver.append(size),
            4..8 => driver.write(inside, size),
            8..13 => driver.sync(),
            13 => driver.write(len + below(6000), size),
            14 => driver.truncate(inside),
            15 => driver.truncate_before(inside),
            16 => driver.write_durable(inside, size),
            17 => driver.preallocate(inside, below(5000)),
            18..22 => driver.write_blocks(inside / BLOCK as u64, 1 + size % 5),
            22 => driver.sync().and_then(|()| {
                driver.close();
                driver.open()
            }),
            _ => driver.recover(),
        };
        done.and_then(|()| driver.check_live()).unwrap_or_else(|e| panic!("seed {seed}, step {step}: {e}"));
    }
    driver
}

/// Opens what a crash left, compares, goes on with it, and opens it again.
fn check_state(driver: &Driver, point: usize, sim: &SimFs, go_on: bool) -> Outcome {
    let open = driver.kind.open;
    let store = open(sim)?;
    let found = Image::of(&*store)?;
    driver.accepts(point, &found)?;
    if !go_on {
        return Ok(());
    }
    let mut expected = found;
    expected.write(expected.bytes.len(), &[0xEE; 5000]);
    store.write_at(expected.len() - 5000, &[0xEE; 5000]).map_err(|e| format!("does not go on: {e}"))?;
    store.sync().map_err(|e| format!("does not sync: {e}"))?;
    drop(store);
    match Image::of(&*open(sim)?)? == expected {
        true => Ok(()),
        false => Err("is another store after it went on".into()),
    }
}

/// Visits what power cuts could have left, and what others could have left of the openings and writes after them.
fn explore(driver: &Driver, label: &str, order: MetadataOrder, distinct: &mut HashSet<u64>) -> Outcome {
    let explorer = CrashExplorer::new(driver.sim.trace())
        .label(label)
        .metadata_order(order)
        .exhaustive_limit(256)
        .samples_per_point(64);
    let mut nth = 0;
    let report = explorer.for_each(|state| {
        nth += 1;
        distinct.insert(state.fingerprint());
        let sim = state.fs();
        check_state(driver, state.point(), &sim, nth % 4 == 0)?;
        if nth % 32 == 0 {
            explore_again(driver, state.point(), &state.fs(), distinct)?;
        }
        Ok::<(), String>(())
    });
    report.map(drop).map_err(|failure| failure.to_string())
}

/// The power fails again while the store is being opened.
fn explore_again(driver: &Driver, point: usize, sim: &SimFs, distinct: &mut HashSet<u64>) -> Outcome {
    drop((driver.kind.open)(sim)?);
    let explorer = CrashExplorer::new(sim.trace()).label("nested").exhaustive_limit(32).samples_per_point(16);
    let report = explorer.for_each(|state| {
        distinct.insert(state.fingerprint());
        check_state(driver, point, &state.fs(), false).map_err(|e| format!("crash while opening: {e}"))
    });
    report.map(drop).map_err(|failure| failure.to_string())
}

/// Visits states until there are [`STATES`] of them.
fn explore_many(kind: Kind, name: &str) {
    let next_seed = AtomicU64::new(0);
    let distinct = Mutex::new(HashSet::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while distinct.lock().unwrap().len() < STATES {
                    let seed = next_seed.fetch_add(1, Ordering::Relaxed);
                    let driver = if seed == 0 { run(kind, healthy) } else { run_seed(kind, seed) };
                    let order = if seed % 3 == 1 { MetadataOrder::Ordered } else { MetadataOrder::Free };
                    let mut visited = HashSet::new();
                    explore(&driver, &format!("{name}-{seed}"), order, &mut visited).unwrap();
                    distinct.lock().unwrap().extend(visited);
                }
            });
        }
    });
    let (distinct, workloads) = (distinct.into_inner().unwrap().len(), next_seed.into_inner());
    println!("{distinct} distinct states of {workloads} workloads");
}

#[test]
fn no_power_cut_takes_back_what_a_segmented_store_synced() {
    explore_many(SEGMENTED, "store");
}

#[test]
fn no_power_cut_takes_back_what_a_direct_store_synced_or_wrote_durably() {
    let direct = run(DIRECT, healthy);
    assert_eq!(direct.store().backend(), Backend::Direct);
    assert!(direct.sim.counters().calls(Call::WriteDirect) >= 9, "the blocks took another way");
    explore_many(DIRECT, "direct");
}

/// Garbage is what nobody wrote, so what was in flight cannot be judged; what was not, can, and the store opens.
#[test]
fn garbage_in_flight_does_not_keep_a_segmented_store_from_opening() {
    let explorer = CrashExplorer::new(run(SEGMENTED, healthy).sim.trace()).torn(Torn::Garbage);
    let report = explorer.for_each(|state| Image::of(&*(SEGMENTED.open)(&state.fs())?).map(drop)).unwrap();
    println!("{} distinct states", report.distinct);
    assert!(report.distinct > 500);
}

#[test]
fn a_lying_barrier_under_a_segmented_store_is_found() {
    // The barrier of one file alone, of those that the step's sync covers: of the first one, which was written to late (L04).
    const LATE_WRITE: usize = 4;
    let one_file = |step| match step {
        s if s == LATE_WRITE + 1 => FaultPlan::new().on(Call::Sync, 0..1, Fault::Ignore),
        _ => FaultPlan::new(),
    };
    let lies: [(&str, &dyn Fn(usize) -> FaultPlan); 3] = [
        ("bytes", &|_| FaultPlan::new().ignore_barriers()),
        ("names", &|_| FaultPlan::new().ignore_dir_syncs()),
        ("one-file", &one_file),
    ];
    for (lie, plan) in lies {
        let found = explore(&run(SEGMENTED, plan), lie, MetadataOrder::Free, &mut HashSet::new());
        let why = found.expect_err(lie);
        println!("{lie}: {}", why.lines().next().unwrap_or_default());
    }
}

#[test]
fn a_lying_barrier_under_a_direct_store_is_found() {
    // One direct write that is durable a step later only, and a fallback that forgets its barrier.
    const BLOCKS: usize = 4;
    let one_write = |step| match step {
        BLOCKS => FaultPlan::new().on(Call::WriteDirect, 0..1, Fault::Ignore),
        _ => FaultPlan::new(),
    };
    let fallback = |step| match step {
        BLOCKS => FaultPlan::new().fail(Call::WriteDirect, 0, Errno::Enotsup).on(Call::Sync, 0..1, Fault::Ignore),
        _ => FaultPlan::new(),
    };
    let lies: [(&str, &dyn Fn(usize) -> FaultPlan); 4] = [
        ("bytes", &|_| FaultPlan::new().ignore_barriers()),
        ("direct", &|_| FaultPlan::new().on(Call::WriteDirect, 0..u64::MAX, Fault::Ignore)),
        ("one-write", &one_write),
        ("fallback", &fallback),
    ];
    for (lie, plan) in lies {
        let found = explore(&run(DIRECT, plan), lie, MetadataOrder::Free, &mut HashSet::new());
        let why = found.expect_err(lie);
        println!("{lie}: {}", why.lines().next().unwrap_or_default());
    }
}

const FAULTS: &[Fault] = &[
    Fault::Fail(Errno::Eio),
    Fault::Fail(Errno::Enospc),
    Fault::Fail(Errno::Eintr),
    Fault::Fail(Errno::Enotsup),
    Fault::FailAfter(0, Errno::Eio),
    Fault::FailAfter(300, Errno::Eio),
    Fault::Short(7),
    Fault::ShortThenFail(600, Errno::Enospc),
];

#[derive(Default)]
struct Tally {
    faults: u64,
    failed_calls: u64,
    states: u64,
}

/// Runs the workload with one fault; `false` when it never came to it.
fn run_with_fault(
    kind: Kind,
    call: Call,
    nth: u64,
    fault: Fault,
    failed: FailedSync,
    tally: &mut Tally,
) -> Result<bool, String> {
    let sim = SimFs::with_options(SimOptions::new().failed_sync(failed));
    let mut driver = Driver::new(kind, sim);
    let plan = FaultPlan::new().on(call, nth..nth + 1, fault);
    driver.sim.set_faults(plan);
    let mut failed_at = None;
    let first: Step = |d| d.open();
    for (i, step) in std::iter::once(&first).chain(kind.steps).enumerate() {
        // A read may have been what fails.
        let done = match driver.sim.counters().faults > 0 && driver.model.now().len() < 2000 {
            true => driver.append(3000),
            false => step(&mut driver).and_then(|()| driver.check_live()),
        };
        let Err(error) = done else { continue };
        failed_at.get_or_insert(driver.sim.op_count());
        tally.failed_calls += 1;
        if driver.sim.counters().faults == 0 {
            return Err(format!("step {i}: {error}, and nothing had failed"));
        }
        again(&mut driver, call).map_err(|e| format!("step {i}: {error}: {e}"))?;
    }
    if driver.sim.counters().faults == 0 {
        return Ok(false);
    }
    tally.faults += 1;
    if let Some(at) = failed_at {
        let explorer = CrashExplorer::new(driver.sim.trace()).exhaustive_limit(8).samples_per_point(8);
        let report = explorer
            .points(at.saturating_sub(3)..=at + 12)
            .for_each(|state| check_state(&driver, state.point(), &state.fs(), false));
        tally.states += report.map_err(|failure| failure.to_string())?.distinct;
    }
    Ok(true)
}

/// After a failure: no later barrier of a handle whose barrier failed says Ok (L02), reading goes on, and a new handle goes on as well.
///
/// A file may be gone although its removal was reported as failed: the handle then cannot read that part.
fn again(driver: &mut Driver, failed: Call) -> Outcome {
    driver.sim.set_faults(FaultPlan::new());
    if let Some(store) = &driver.store {
        match Image::of(&**store) {
            Ok(found) => driver.model.accepts(&found).map_err(|e| format!("read after the failure: {e}"))?,
            // The store has stopped writing; what it cut off, or was about to, may be out of reach.
            Err(_) if failed == Call::Remove && store.sync().is_err() => return driver.recover(),
            Err(e) => return Err(e),
        }
        if failed == Call::WriteDirect && store.sync().is_ok() {
            return Err("a store goes on after a failed direct write".into());
        }
        let before = driver.sim.op_count();
        if store.sync().is_err() {
            let payload = vec![0; 2 * BLOCK];
            let start = payload.as_ptr().addr().next_multiple_of(BLOCK) - payload.as_ptr().addr();
            let block = [IoSlice::new(&payload[start..start + BLOCK])];
            let head = store.head();
            let latched = store.write_at(head, b"x").is_err()
                && store.truncate(0).is_err()
                && store.preallocate(head, 1).is_err()
                && store.write_durable(head, &block).is_err()
                && store.write_durable(head, &[IoSlice::new(b"x")]).is_err();
            let silent = store.sync().is_err() && driver.sim.op_count() == before;
            if !latched || !silent {
                return Err("a store whose barrier failed goes on".into());
            }
        }
    }
    driver.recover()
}

fn every_fault(mut run: impl FnMut(Call, u64, Fault, FailedSync, &mut Tally) -> Result<bool, String>) -> Tally {
    let mut tally = Tally::default();
    for call in Call::ALL {
        for &fault in FAULTS {
            for failed in [FailedSync::Old, FailedSync::Persisted] {
                if call != Call::Sync && failed != FailedSync::Old {
                    continue;
                }
                for nth in 0.. {
                    match run(call, nth, fault, failed, &mut tally) {
                        Ok(true) => {}
                        Ok(false) => break,
                        Err(why) => panic!("{call:?} number {nth}, {fault:?}, {failed:?}: {why}"),
                    }
                }
            }
        }
    }
    tally
}

#[test]
fn a_segmented_store_survives_every_failing_call() {
    survives_every_failing_call(SEGMENTED, 500);
}

#[test]
fn a_direct_store_survives_every_failing_call() {
    survives_every_failing_call(DIRECT, 400);
}

fn survives_every_failing_call(kind: Kind, at_least: u64) {
    let run = |call, nth, fault, failed, tally: &mut Tally| run_with_fault(kind, call, nth, fault, failed, tally);
    let Tally { faults, failed_calls, states } = every_fault(run);
    println!("{faults} faults, {failed_calls} of them reported, {states} crash states around them");
    assert!(faults > at_least && failed_calls > at_least * 2 / 5 && states > at_least * 2);
}

const FILE: &str = "/dir/settings";

/// Contents of different lengths, shorter and longer than before, empty too.
fn contents() -> Vec<Vec<u8>> {
    [3000, 100, 0, 9000, 9000].iter().zip(1..).map(|(len, byte)| vec![byte; *len]).collect()
}

/// What may be at the path, `None` for no file, from each operation on.
type Versions = Vec<(usize, Vec<Option<Vec<u8>>>)>;

/// Replaces a file again and again. Where a call is under way, and after one that failed, two contents are possible.
fn replace_all(sim: &SimFs) -> Result<Versions, String> {
    sim.create_dir(Path::new("/dir")).unwrap();
    sim.sync_dir(Path::new("/")).unwrap();
    let mut versions: Versions = vec![(sim.op_count(), vec![None])];
    for contents in contents() {
        let possible = versions.last().unwrap().1.clone();
        let old = sim.read_file(FILE).ok();
        let new = Some(contents.clone());
        let during: Vec<_> = possible.iter().cloned().chain([new.clone()]).collect();
        versions.push((sim.op_count(), during.clone()));
        let result = replace_file(sim, Path::new(FILE), &contents);
        let live = sim.read_file(FILE).ok();
        let expected = match &result {
            Ok(()) => vec![new.clone()],
            Err(e) => match e.state {
                ReplaceState::Old => possible,
                _ => during,
            },
        };
        let right = match result.as_ref().map_err(|e| e.state) {
            Ok(()) | Err(ReplaceState::NewUntilCrash) => live == new,
            Err(ReplaceState::Old) => live == old,
            Err(_) => live == new || live == old,
        };
        if !right {
            return Err(format!("{result:?}, and another file is there"));
        }
        versions.push((sim.op_count(), expected));
    }
    Ok(versions)
}

fn check_replaced(versions: &Versions, point: usize, sim: &SimFs) -> Outcome {
    let found = sim.read_file(FILE).ok();
    let last = versions.partition_point(|(at, _)| *at <= point);
    // Several entries at one point: the call before it, and the call after it, which has done nothing yet.
    let possible: Vec<_> = versions[..last]
        .iter()
        .rev()
        .take(1)
        .chain(versions[..last].iter().filter(|(at, _)| *at == point))
        .flat_map(|(_, possible)| possible)
        .collect();
    if last > 0 && !possible.contains(&&found) {
        let shown = |file: &Option<Vec<u8>>| file.as_ref().map(|bytes| (bytes.len(), bytes.first().copied()));
        return Err(format!(
            "{:?} found, possible {:?}",
            shown(&found),
            possible.into_iter().map(shown).collect::<Vec<_>>()
        ));
    }
    if last > 0 {
        // Whatever is left over is in nobody's way.
        replace_file(sim, Path::new(FILE), b"next").map_err(|e| format!("cannot be replaced again: {e}"))?;
        let names = sim.list(Path::new("/dir")).map_err(|e| e.to_string())?;
        if sim.read_file(FILE).ok().as_deref() != Some(b"next") || names.len() != 1 {
            return Err(format!("replaced again, and {names:?} are there"));
        }
    }
    Ok(())
}

fn explore_replaced(sim: &SimFs, versions: &Versions, order: MetadataOrder) -> Result<u64, String> {
    let explorer = CrashExplorer::new(sim.trace()).metadata_order(order).samples_per_point(128);
    let report = explorer.for_each(|state| check_replaced(versions, state.point(), &state.fs()));
    report.map(|report| report.distinct).map_err(|failure| failure.to_string())
}

#[test]
fn a_replaced_file_is_old_or_new_after_any_power_cut() {
    let sim = SimFs::new();
    let versions = replace_all(&sim).unwrap();
    let states: u64 = [MetadataOrder::Free, MetadataOrder::Ordered]
        .map(|order| explore_replaced(&sim, &versions, order).unwrap())
        .iter()
        .sum();
    println!("{states} distinct states");
    assert!(states > 300);
}

#[test]
fn a_lying_barrier_under_a_replaced_file_is_found() {
    for (lie, plan) in [("bytes", FaultPlan::new().ignore_barriers()), ("names", FaultPlan::new().ignore_dir_syncs())] {
        let sim = SimFs::new();
        sim.set_faults(plan);
        let versions = replace_all(&sim).unwrap();
        let why = explore_replaced(&sim, &versions, MetadataOrder::Free).expect_err(lie);
        println!("{lie}: {}", why.lines().next().unwrap_or_default());
    }
}

#[test]
fn a_replace_says_the_truth_about_every_failing_call() {
    let run = |call, nth: u64, fault, failed, tally: &mut Tally| {
        let sim = SimFs::with_options(SimOptions::new().failed_sync(failed));
        // The directory's creation and its barrier are not the subject.
        let skipped = u64::from(matches!(call, Call::CreateDir | Call::SyncDir));
        let nth = nth + skipped;
        sim.set_faults(FaultPlan::new().on(call, nth..nth + 1, fault));
        let versions = replace_all(&sim)?;
        if sim.counters().faults == 0 {
            return Ok(false);
        }
        tally.faults += 1;
        tally.failed_calls += u64::from(versions.iter().any(|(_, possible)| possible.len() > 1));
        tally.states += explore_replaced(&sim, &versions, MetadataOrder::Free)?;
        Ok(true)
    };
    let Tally { faults, states, .. } = every_fault(run);
    println!("{faults} faults, {states} crash states around them");
    assert!(faults > 100 && states > 1000);
}
