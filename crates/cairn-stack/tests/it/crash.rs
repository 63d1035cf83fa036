//! guards: L22 L23 L25 L27 L28 L29 L51 L53 L54
//!
//! Power cuts at every point of a workload: whatever subset of unsynced sectors, lengths and names
//! survives, the stack opens without help and is exactly as before or after the operation that was
//! under way; also when the power fails again during recovery, and again.

use std::path::Path;
use std::sync::{Arc, Mutex};

use cairn_segmented::SegmentedOptions;
use cairn_sim::{
    Again, Check, CrashExplorer, MetadataOrder, SectorSize, SimFs, SimOptions, Torn, Visit,
    Visited, explore_seeds,
};
use cairn_stack::{Durability, Error, Options, Stack};

use crate::model::{
    Change, Dice, Driver, SIZES, Sizes, any_change, chain, check_goes_on, check_state,
};
use crate::rows::Rows;

pub(crate) fn tiny() -> Options {
    Stack::options().reserve(4 << 10).buffer_size(16 << 10)
}

/// Every operation, transactions, clean and unclean ends: seeded, so that every run is another mix.
pub(crate) fn workload(
    driver: &mut Driver,
    seed: u64,
    steps: usize,
    sizes: Sizes,
) -> Result<(), Error> {
    let mut dice = Dice(seed);
    driver.open()?;
    for _ in 0..steps {
        match dice.below(100) {
            n @ 0..85 if n < 60 || sizes.whole_sectors => {
                let change = any_change(&mut dice, &driver.model, sizes);
                driver.change(&change)?;
            }
            60..85 => {
                let mut model = driver.model.clone();
                let mut changes = Vec::new();
                for _ in 0..1 + dice.below(9) {
                    let change = any_change(&mut dice, &model, sizes);
                    change.on_model(&mut model);
                    changes.push(change);
                }
                driver.transaction(&changes)?;
            }
            85..90 => driver.sync()?,
            90..94 => {
                driver.close()?;
                driver.open()?;
            }
            _ => {
                driver.die();
                driver.open_whatever_is_there().expect("nothing was lost without a power cut");
            }
        }
    }
    Ok(())
}

/// How many states of a point are visited.
#[derive(Clone, Copy)]
pub(crate) struct Effort {
    pub(crate) exhaustive: u64,
    pub(crate) samples: usize,
}

const LOW: Effort = Effort { exhaustive: 64, samples: 16 };
pub(crate) const LARGE: Sizes = Sizes { small: 4000, large: 200_000, longest: 400_000, ..SIZES };
/// Bodies between a block and a slot.
const BLOCKS: Sizes = Sizes { least: 4000, small: 1000, large: 9000, longest: 40_000, ..SIZES };
pub(crate) const USUAL: Effort = Effort { exhaustive: 256, samples: 64 };

/// Opens a disk, compares it with the model, and goes on with it.
struct Checks<'a> {
    driver: &'a Driver,
    /// The barrier behind which the stack has its name: before it there is nothing to go on with.
    created: Option<usize>,
}

impl Checks<'_> {
    fn exists(&self, point: usize) -> bool {
        self.created.is_some_and(|created| point > created)
    }
}

impl Check for Checks<'_> {
    fn check(&mut self, visit: Visit<'_>, sim: &SimFs) -> Result<(), String> {
        check_state(self.driver, visit.point, sim)
    }

    fn cuts_recovery(&self, visit: Visit<'_>) -> bool {
        self.exists(visit.point)
    }

    fn go_on(&mut self, visit: Visit<'_>, sim: &SimFs) -> Result<(), String> {
        if !self.exists(visit.point) || !visit.nth.is_multiple_of(32) {
            return Ok(());
        }
        check_goes_on(self.driver, sim, visit.nth / 32)
    }
}

/// Visits the disks that power cuts could have left of a workload that a driver ran.
pub(crate) fn explore(
    driver: &Driver,
    label: &str,
    (torn, order): (Torn, MetadataOrder),
    effort: Effort,
    visited: &mut Visited,
) -> Result<(), String> {
    let created =
        driver.sim.trace().ops().iter().position(|op| op.call() == Some(cairn_sim::Call::SyncDir));
    CrashExplorer::new(driver.sim.trace())
        .label(label)
        .torn(torn)
        .metadata_order(order)
        .exhaustive_limit(effort.exhaustive)
        .samples_per_point(effort.samples)
        .explore(Again { torn, ..Again::default() }, visited, &mut Checks { driver, created })
}

fn sector_size(seed: u64) -> SectorSize {
    if seed.is_multiple_of(4) { SectorSize::Bytes4096 } else { SectorSize::Bytes512 }
}

/// A workload with this seed, run to its end. Which machine it runs on, and how its stack was
/// opened, depends on the seed.
pub(crate) fn run(seed: u64, steps: usize, sizes: Sizes) -> Driver {
    let explicit = seed.is_multiple_of(3) && !sizes.whole_sectors;
    let durability = if explicit { Durability::Explicit } else { Durability::Operation };
    let sim = SimFs::with_options(SimOptions::new().seed(seed).sector_size(sector_size(seed)));
    let mut driver = Driver::new(sim, tiny().direct_io(seed % 8 < 4), durability);
    // The first bytes of a store have no name to wait for: there, garbage is no stack.
    driver.in_store = seed % 6 == 5 && !sizes.whole_sectors;
    workload(&mut driver, seed, steps, sizes).expect("nothing fails here");
    driver
}

/// Distinct states in every test run: enough to meet every row of the recovery table.
const STATES: usize = 60_000;

/// More, or fewer, with `CAIRN_CRASH_STATES=n`.
#[test]
fn after_a_power_cut_each_operation_took_place_or_did_not() {
    let asked = std::env::var("CAIRN_CRASH_STATES").ok().and_then(|n| n.parse().ok());
    let wanted = asked.unwrap_or(STATES);
    let rows = Mutex::new(Rows::default());
    let one = |seed: u64, visited: &mut Visited| {
        let order =
            if seed.is_multiple_of(5) { MetadataOrder::Ordered } else { MetadataOrder::Free };
        let torn = match sector_size(seed) {
            SectorSize::Bytes512 if seed % 11 < 5 => Torn::Garbage,
            _ => Torn::Versions,
        };
        // Some are about changes whose bodies do not fit in a block, or in a slot, and about holes.
        let (sizes, steps, effort) = match seed % 14 {
            0 | 7 => (LARGE, 12, USUAL),
            1 | 8 => (BLOCKS, 20, USUAL),
            3 => (Sizes { small: 3000, large: 2_000_000, longest: 2_500_000, ..SIZES }, 8, LOW),
            _ => (SIZES, 40, USUAL),
        };
        let sizes = Sizes { whole_sectors: torn == Torn::Garbage, ..sizes };
        let driver = run(seed, steps, sizes);
        explore(&driver, &format!("crash-{seed}"), (torn, order), effort, visited).unwrap();
        rows.lock().unwrap().absorb(&driver.rows);
    };
    println!("{}", explore_seeds(wanted, one, || ()));
    let rows = rows.into_inner().unwrap();
    rows.print();
    if wanted >= STATES {
        rows.check();
    }
}

/// Each operation alone, with all subsets of its sectors.
#[test]
fn every_subset_of_the_sectors_of_one_operation() {
    let start = Dice(5).bytes(3000);
    let operations = [
        vec![Change::Push(vec![1; 1])],
        vec![Change::Push(Dice(6).bytes(1400))],
        vec![Change::Pop(700)],
        vec![Change::Discard(3000)],
        vec![Change::Set(10, Dice(7).bytes(100))],
        vec![Change::Set(100, Dice(7).bytes(2000))],
        vec![Change::Zero(400..1700)],
        vec![Change::Extend(1000)],
        vec![Change::CompareAndSet(500, Dice(8).bytes(600))],
        vec![Change::Discard(1000), Change::Push(Dice(9).bytes(1500))],
        vec![
            Change::Set(0, vec![9; 10]),
            Change::Set(1024, vec![9; 10]),
            Change::Discard(100),
            Change::Push(vec![7; 500]),
        ],
        vec![
            Change::Zero(0..3000),
            Change::Discard(2999),
            Change::Extend(800),
            Change::Push(vec![3; 3]),
        ],
    ];
    let (mut visited, rows) = (Visited::default(), Rows::default());
    for (nth, operation) in operations.iter().enumerate() {
        for sector in [SectorSize::Bytes512, SectorSize::Bytes4096] {
            // Before and after another operation that changes in place, or pops, or neither.
            for (befores, direct) in
                [(0, true), (1, true), (2, true), (0, false), (1, false), (2, false)]
            {
                let before = [
                    Change::Push(vec![2; 2]),
                    Change::Set(600, Dice(11).bytes(900)),
                    Change::Discard(1),
                ][befores]
                    .clone();
                let sim = SimFs::with_options(SimOptions::new().sector_size(sector));
                let mut driver =
                    Driver::new(sim, tiny().reserve(0).direct_io(direct), Durability::Operation);
                driver.open().unwrap();
                driver.change(&Change::Push(start.clone())).unwrap();
                driver.change(&before).unwrap();
                let operation = operation.clone();
                let fits = driver.model.len() >= 3000
                    || !matches!(operation[0], Change::Discard(3000) | Change::Zero(_));
                if !fits {
                    continue;
                }
                match &operation[..] {
                    [one] => driver.change(one).unwrap(),
                    many => driver.transaction(many).unwrap(),
                }
                driver.change(&Change::Push(vec![5; 5])).unwrap();
                let effort = Effort { exhaustive: 1 << 13, samples: 300 };
                let how = (Torn::Versions, MetadataOrder::Free);
                explore(&driver, &format!("subsets-{nth}"), how, effort, &mut visited).unwrap();
                rows.absorb(&driver.rows);
            }
        }
    }
    println!("{} distinct states", visited.distinct());
    rows.print();
}

/// Commits that are more than their block: bodies that fill a slot or are behind the payload, and
/// bytes that are appended where they belong. Whatever part of one arrives, and whatever it
/// overwrites of the commit before the last, its row of the recovery table is met.
#[test]
fn commits_that_are_more_than_their_block() {
    let rows = Rows::default();
    for sector in [SectorSize::Bytes512, SectorSize::Bytes4096] {
        for (direct, len, part) in
            [(true, 9_000, 5_000), (false, 9_000, 5_000), (true, 80_000, 70_000)]
        {
            let mut dice = Dice(len as u64);
            let mut part = || dice.bytes(part);
            let changes = [
                Change::Push(part()),
                Change::Push(part()),
                Change::Set(0, part()),
                Change::Set(1000, part()),
                Change::Set(2000, part()),
                Change::Push(part()),
                Change::Discard(len),
                Change::Push(part()),
            ];
            let sim = SimFs::with_options(SimOptions::new().sector_size(sector));
            let mut driver = Driver::new(sim, tiny().direct_io(direct), Durability::Operation);
            driver.open().unwrap();
            changes.iter().for_each(|change| driver.change(change).unwrap());
            let how = (Torn::Versions, MetadataOrder::Free);
            let label = format!("parts-{sector:?}-{direct}-{len}");
            let mut visited = Visited::default();
            explore(&driver, &label, how, USUAL, &mut visited).unwrap();
            rows.absorb(&driver.rows);
        }
    }
    rows.print();
    rows.check_all_of_a_file();
}

/// A store of several files grows in steps. The power is also cut while the stack is created.
#[test]
fn a_stack_in_several_files() {
    let open = |sim: &SimFs| {
        let fs = Arc::new(sim.clone());
        let options = SegmentedOptions::new().segment_size_bytes(16 << 10);
        let store = options.open(fs.clone(), Path::new("/store")).map_err(|e| chain(&e))?;
        tiny().fs(fs).open_store(Arc::new(store)).map_err(|e| chain(&e))
    };
    let sim = SimFs::new();
    let stack = open(&sim).unwrap();
    let mut history = vec![(0, Vec::new())];
    for change in [
        Change::Push(vec![1; 5000]),
        Change::Set(100, vec![2; 600]),
        Change::Pop(2000),
        Change::Push(vec![3; 9]),
    ] {
        let mut model = history.last().unwrap().1.clone();
        change.on_stack(&stack, &model).unwrap();
        change.on_model(&mut model);
        history.push((sim.op_count(), model));
    }
    let report = CrashExplorer::new(sim.trace()).samples_per_point(200).for_each(|state| {
        let found = open(&state.fs())?.peek(0).map_err(|e| chain(&e))?;
        let acknowledged = history.iter().rposition(|(at, _)| *at <= state.point()).unwrap();
        match history[acknowledged..].iter().take(2).any(|(_, model)| *model == found) {
            true => Ok(()),
            false => Err(format!("{} bytes after {acknowledged} changes", found.len())),
        }
    });
    println!("{} distinct states", report.unwrap().distinct);
}
