//! Deliberate bugs, and whether seeds find them.

use std::fmt::Debug;

use super::{Simulation, Workload};
use crate::schedule::Broken;

/// What [`seek_bugs`] found out.
#[derive(Clone, Debug, Default)]
pub struct Sought {
    /// A line for each bug that was found: by which simulation, in which run, what broke.
    pub found: Vec<String>,
    /// A line for each other one. Also where a simulation fails as soon without the bug: then it
    /// says nothing of it.
    pub missed: Vec<String>,
}

/// Seeks each of these deliberate bugs with the simulations that `simulations` gives for it, one
/// after the other, the likeliest first. `with` runs what it is given while the bug is on.
///
/// Tests show with it that workloads and properties, which know of no bug, would find one.
pub fn seek_bugs<B: Copy + Debug, W: Workload>(
    bugs: impl IntoIterator<Item = B>,
    simulations: impl Fn(B) -> Vec<(&'static str, Simulation<W>)>,
    with: impl Fn(B, &dyn Fn() -> Option<(u64, Broken)>) -> Option<(u64, Broken)>,
) -> Sought {
    let mut sought = Sought::default();
    for bug in bugs {
        let seen = simulations(bug).into_iter().find_map(|(name, simulation)| {
            let (run, broken) = with(bug, &|| simulation.first_failure())?;
            Some((name, simulation, run, broken))
        });
        let Some((name, simulation, run, broken)) = seen else {
            sought.missed.push(format!("{bug:?}"));
            continue;
        };
        match simulation.runs(run).first_failure() {
            None => {
                let line = broken.text.lines().next().unwrap_or_default();
                sought
                    .found
                    .push(format!("{bug:?}: {name}, run {run}: {}: {line}", broken.property));
            }
            Some((run, _)) => {
                sought.missed.push(format!("{bug:?}: {name} fails without it, too, in run {run}"));
            }
        }
    }
    sought
}
