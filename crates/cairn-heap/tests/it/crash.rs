//! guards: L28 L30 L31 L32
//!
//! Power cuts at every point of random programs of alloc, free, realloc, write and roots, over all
//! policies. Whatever survives, the heap opens, the check finds no fault, no byte is lost, and the
//! contents are exactly those before or after the interrupted step; also after a crash in recovery.

use cairn_sim::{
    Again, Check, CrashExplorer, FaultPlan, MetadataOrder, SectorSize, SimFs, SimOptions, Visit,
    Visited, explore_seeds,
};

use crate::model::{ALL, Dice, Driver, POLICIES, check_goes_on, check_state};

/// A random program, run to its end.
pub(crate) fn run(seed: u64) -> Driver {
    let sector = if seed.is_multiple_of(4) { SectorSize::Bytes4096 } else { SectorSize::Bytes512 };
    let sim = SimFs::with_options(SimOptions::new().seed(seed).sector_size(sector));
    let mut driver = Driver::new(sim, ALL[seed as usize % ALL.len()]);
    let mut dice = Dice(seed);
    let sizes = [300, 1000, 3000, 20_000][dice.below(4)];
    driver.open().unwrap();
    for _ in 0..40 {
        match dice.below(100) {
            0..60 => driver.transaction(&mut dice, 1, sizes).unwrap(),
            60..90 => {
                let steps = 2 + dice.below(9);
                driver.transaction(&mut dice, steps, sizes).unwrap();
            }
            90..95 => {
                driver.heap.take().unwrap().close().unwrap();
                driver.open().unwrap();
            }
            _ => {
                driver.sim.kill();
                drop(driver.heap.take());
                driver.sim = driver.sim.restart();
                driver.open().unwrap();
            }
        }
    }
    driver
}

/// Has `check` look at a disk, and goes on with it.
struct Checks<'a> {
    driver: &'a Driver,
    check: &'a dyn Fn(usize, &SimFs) -> Result<(), String>,
}

impl Check for Checks<'_> {
    fn check(&mut self, visit: Visit<'_>, sim: &SimFs) -> Result<(), String> {
        (self.check)(visit.point, sim)
    }

    fn go_on(&mut self, visit: Visit<'_>, sim: &SimFs) -> Result<(), String> {
        if !visit.nth.is_multiple_of(32) {
            return Ok(());
        }
        check_goes_on(self.driver, sim, visit.nth / 32)
    }
}

pub(crate) fn explore(
    driver: &Driver,
    label: &str,
    samples: usize,
    visited: &mut Visited,
    check: &dyn Fn(usize, &SimFs) -> Result<(), String>,
) -> Result<(), String> {
    let order =
        if label.len().is_multiple_of(5) { MetadataOrder::Ordered } else { MetadataOrder::Free };
    CrashExplorer::new(driver.sim.trace())
        .label(label)
        .metadata_order(order)
        .exhaustive_limit(samples as u64 * 4)
        .samples_per_point(samples)
        .explore(Again { depth: 1, ..Again::default() }, visited, &mut Checks { driver, check })
}

pub(crate) fn wanted(usual: usize) -> usize {
    std::env::var("CAIRN_CRASH_STATES").ok().and_then(|n| n.parse().ok()).unwrap_or(usual)
}

/// More with `CAIRN_CRASH_STATES=n`.
#[test]
fn after_a_power_cut_the_heap_is_as_before_or_after_and_nothing_leaked() {
    let wanted = wanted(40_000);
    let one = |seed: u64, visited: &mut Visited| {
        let driver = run(seed);
        let check = |point: usize, sim: &SimFs| check_state(&driver, point, sim);
        explore(&driver, &format!("heap-{seed}"), 32, visited, &check)
            .unwrap_or_else(|e| panic!("{:?}, seed {seed}: {e}", driver.policy));
    };
    println!("{}", explore_seeds(wanted, one, || ()));
}

/// The explorer itself is asked: without barriers, states must fail.
#[test]
fn without_barriers_the_same_programs_fail() {
    let sim = SimFs::new();
    let mut driver = Driver::new(sim, POLICIES[4]);
    driver.open().unwrap();
    driver.sim.set_faults(FaultPlan::new().ignore_barriers());
    let mut dice = Dice(7);
    for _ in 0..20 {
        driver.transaction(&mut dice, 3, 1000).unwrap();
    }
    let check = |point: usize, sim: &SimFs| check_state(&driver, point, sim);
    assert!(explore(&driver, "no barriers", 32, &mut Visited::default(), &check).is_err());
}
