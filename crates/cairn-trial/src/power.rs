//! The power fails under a store: every disk that could be left is opened and compared.

use cairn_sim::{Again, CrashExplorer, MetadataOrder, SimFs, Visit, Visited, explore_seeds};

use crate::driver::{Driver, Kind, Outcome, healthy, run, run_seed};
use crate::model::Image;

/// Distinct disks to visit, at least.
const STATES: usize = 20_000;

/// Opens what a crash left, compares, goes on with it, and opens it again.
pub(crate) fn check_state(driver: &Driver, point: usize, sim: &SimFs, go_on: bool) -> Outcome {
    let open = driver.kind.open;
    let store = open(sim)?;
    let found = Image::of(&*store)?;
    driver.accepts(point, &found)?;
    if !go_on {
        return Ok(());
    }
    let mut expected = found;
    expected.write(expected.bytes.len(), &[0xEE; 5000]);
    store
        .write_at(expected.len() - 5000, &[0xEE; 5000])
        .map_err(|e| format!("does not go on: {e}"))?;
    store.sync().map_err(|e| format!("does not sync: {e}"))?;
    drop(store);
    match Image::of(&*open(sim)?)? == expected {
        true => Ok(()),
        false => Err("is another store after it went on".into()),
    }
}

/// Visits the disks that a power cut could have left of the workload, and those that another cut
/// could have left of the opening after it.
///
/// # Errors
/// The first disk on which a promise is broken, and how to visit it again.
pub fn explore(
    driver: &Driver,
    label: &str,
    order: MetadataOrder,
    visited: &mut Visited,
) -> Outcome {
    let mut check = |visit: Visit<'_>, sim: &SimFs| {
        if visit.recoveries == 0 && visit.nth.is_multiple_of(4) {
            check_state(driver, visit.point, &visit.state.fs(), true)?;
        }
        check_state(driver, visit.point, sim, false)
    };
    CrashExplorer::new(driver.sim.trace())
        .label(label)
        .metadata_order(order)
        .exhaustive_limit(256)
        .samples_per_point(64)
        .explore(Again { every: 32, depth: 1, ..Again::default() }, visited, &mut check)
}

/// Visits disks of many workloads, until there are 20,000 distinct ones.
///
/// # Panics
/// At the first disk on which a promise is broken.
pub fn explore_many(kind: Kind, name: &str) {
    let one = |seed: u64, visited: &mut Visited| {
        let driver = if seed == 1 { run(kind, healthy) } else { run_seed(kind, seed) };
        let order = if seed % 3 == 1 { MetadataOrder::Ordered } else { MetadataOrder::Free };
        explore(&driver, &format!("{name}-{seed}"), order, visited).unwrap();
    };
    println!("{}", explore_seeds(STATES, one, || ()));
}
