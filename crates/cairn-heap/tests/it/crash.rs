//! guards: L28 L30 L31 L32
//!
//! Power cuts at every point of random programs of alloc, free, realloc, write and roots, over all policies: whatever survives, the heap opens, its proof
//! holds, no byte is lost, and it holds exactly what it held before or after the step that was under way; also after crashes in recovery.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use cairn_sim::{CrashExplorer, FaultPlan, MetadataOrder, SectorSize, SimFs, SimOptions};

use crate::model::{Dice, Driver, POLICIES, check_goes_on, check_state};

/// A random program, run to its end.
pub(crate) fn run(seed: u64) -> Driver {
    let sector = if seed.is_multiple_of(4) { SectorSize::Bytes4096 } else { SectorSize::Bytes512 };
    let sim = SimFs::with_options(SimOptions::new().seed(seed).sector_size(sector));
    let mut driver = Driver::new(sim, POLICIES[(seed % 5) as usize]);
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

pub(crate) fn explore(
    driver: &Driver,
    label: &str,
    samples: usize,
    distinct: &mut HashSet<u64>,
    check: &dyn Fn(usize, &SimFs) -> Result<(), String>,
) -> Result<(), String> {
    let order = if label.len().is_multiple_of(5) { MetadataOrder::Ordered } else { MetadataOrder::Free };
    let mut nth = 0u64;
    let explorer = CrashExplorer::new(driver.sim.trace())
        .label(label)
        .metadata_order(order)
        .exhaustive_limit(samples as u64 * 4)
        .samples_per_point(samples);
    let report = explorer.for_each(|state| {
        nth += 1;
        distinct.insert(state.fingerprint());
        let sim = state.fs();
        check(state.point(), &sim)?;
        if nth.is_multiple_of(64) {
            let nested = CrashExplorer::new(sim.trace()).label("nested").exhaustive_limit(16).samples_per_point(8);
            let nested = nested.for_each(|again| {
                distinct.insert(again.fingerprint());
                let sim = again.fs();
                check(state.point(), &sim).map_err(|e| format!("crash in recovery: {e}"))
            });
            nested.map_err(|failure| failure.to_string())?;
        }
        if nth.is_multiple_of(32) {
            check_goes_on(driver, &sim, nth / 32)?;
        }
        Ok::<(), String>(())
    });
    report.map(drop).map_err(|failure| failure.to_string())
}

pub(crate) fn wanted(usual: usize) -> usize {
    std::env::var("CAIRN_CRASH_STATES").ok().and_then(|n| n.parse().ok()).unwrap_or(usual)
}

/// More with `CAIRN_CRASH_STATES=n`.
#[test]
fn after_a_power_cut_the_heap_is_as_before_or_after_and_nothing_leaked() {
    let wanted = wanted(40_000);
    let started = std::time::Instant::now();
    let next_seed = AtomicU64::new(1);
    let distinct = Mutex::new(HashSet::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while distinct.lock().unwrap().len() < wanted {
                    let seed = next_seed.fetch_add(1, Ordering::Relaxed);
                    let driver = run(seed);
                    let mut visited = HashSet::new();
                    let check = |point: usize, sim: &SimFs| check_state(&driver, point, sim);
                    explore(&driver, &format!("heap-{seed}"), 32, &mut visited, &check)
                        .unwrap_or_else(|e| panic!("{:?}, seed {seed}: {e}", driver.policy));
                    distinct.lock().unwrap().extend(visited);
                }
            });
        }
    });
    let distinct = distinct.into_inner().unwrap().len();
    let rate = distinct as f64 / started.elapsed().as_secs_f64();
    println!("{distinct} distinct states of {} programs, {rate:.0} states/s", next_seed.into_inner() - 1);
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
    assert!(explore(&driver, "no barriers", 32, &mut HashSet::new(), &check).is_err());
}
