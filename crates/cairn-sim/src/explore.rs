//! One driver for crash tests: every disk that a power cut could have left of a workload is
//! checked; of some of them the power fails again during recovery, and again; and the program goes
//! on with some.

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::explorer::{CrashExplorer, CrashState};
use crate::fs::SimFs;
use crate::model::Torn;

/// A disk that [`CrashExplorer::explore`] visits.
#[derive(Clone, Copy, Debug)]
pub struct Visit<'a> {
    /// How many operations of the workload had been done when the power failed first. What was
    /// acknowledged by then must be there.
    pub point: usize,
    /// Power cuts that followed, during recovery: 0, 1, 2, …
    pub recoveries: u32,
    /// How many disks were visited before this one.
    pub nth: u64,
    /// The disk.
    pub state: &'a CrashState,
}

/// What is asked of a disk. A closure that takes a visit and a file system checks only.
pub trait Check {
    /// Opens what is on the disk and compares it with what was promised.
    ///
    /// # Errors
    /// What is wrong.
    fn check(&mut self, visit: Visit<'_>, sim: &SimFs) -> Result<(), String>;

    /// Whether the recovery from this disk may be cut.
    fn cuts_recovery(&self, _visit: Visit<'_>) -> bool {
        true
    }

    /// Uses what [`check`](Self::check) has opened, on the same file system. Called after the
    /// recovery was cut, if it was; not for disks that a cut of a recovery left.
    ///
    /// # Errors
    /// What is wrong.
    fn go_on(&mut self, _visit: Visit<'_>, _sim: &SimFs) -> Result<(), String> {
        Ok(())
    }
}

impl<F: FnMut(Visit<'_>, &SimFs) -> Result<(), String>> Check for F {
    fn check(&mut self, visit: Visit<'_>, sim: &SimFs) -> Result<(), String> {
        self(visit, sim)
    }
}

/// Which recoveries are cut.
#[derive(Clone, Copy, Debug)]
pub struct Again {
    /// The recovery of every so many disks is cut; at least 1.
    pub every: u64,
    /// Most power cuts in a row during recovery.
    pub depth: u32,
    /// What such a cut can leave of sectors that were being written.
    pub torn: Torn,
}

impl Default for Again {
    /// Of every 64th disk the recovery is cut, up to twice in a row.
    fn default() -> Self {
        Again { every: 64, depth: 2, torn: Torn::Versions }
    }
}

/// The disks that were visited, equal ones once.
#[derive(Clone, Debug, Default)]
pub struct Visited {
    distinct: HashSet<u64>,
    states: u64,
}

impl Visited {
    /// Different disks.
    pub fn distinct(&self) -> usize {
        self.distinct.len()
    }

    /// Disks, equal ones counted each time.
    pub fn states(&self) -> u64 {
        self.states
    }

    fn note(&mut self, state: &CrashState) -> u64 {
        self.distinct.insert(state.fingerprint());
        self.states += 1;
        self.states - 1
    }
}

impl CrashExplorer {
    /// Visits every state as [`for_each`](Self::for_each) does, and those of power cuts during the
    /// recovery that `check` did, as `again` says. Counts them in `visited`.
    ///
    /// # Errors
    /// The first disk on which a promise is broken, and how to visit it again.
    pub fn explore(
        &self,
        again: Again,
        visited: &mut Visited,
        check: &mut dyn Check,
    ) -> Result<(), String> {
        let report = self.for_each(|state| {
            let nth = visited.note(state);
            let visit = Visit { point: state.point(), recoveries: 0, nth, state };
            let sim = state.fs();
            check.check(visit, &sim)?;
            if again.depth > 0 && nth.is_multiple_of(again.every) && check.cuts_recovery(visit) {
                cut_recovery(again, 1, visit.point, &sim, visited, check)?;
            }
            check.go_on(visit, &sim)
        });
        report.map(drop).map_err(|failure| failure.to_string())
    }
}

/// The power fails again during the recovery that `sim` went through, and again during that one's.
fn cut_recovery(
    again: Again,
    recoveries: u32,
    point: usize,
    sim: &SimFs,
    visited: &mut Visited,
    check: &mut dyn Check,
) -> Result<(), String> {
    let explorer = CrashExplorer::new(sim.trace())
        .label("recovery")
        .torn(again.torn)
        .exhaustive_limit(16)
        .samples_per_point(8);
    let mut of_these = 0u64;
    let report = explorer.for_each(|state| {
        of_these += 1;
        let nth = visited.note(state);
        let sim = state.fs();
        check
            .check(Visit { point, recoveries, nth, state }, &sim)
            .map_err(|e| format!("crash in recovery: {e}"))?;
        if recoveries < again.depth && of_these.is_multiple_of(16) {
            cut_recovery(again, recoveries + 1, point, &sim, visited, check)?;
        }
        Ok::<(), String>(())
    });
    report.map(drop).map_err(|failure| failure.to_string())
}

/// What [`explore_seeds`] visited.
#[derive(Clone, Copy, Debug)]
pub struct Explorations {
    /// Different disks.
    pub distinct: usize,
    /// Workloads, one for each seed.
    pub workloads: u64,
    /// The seed of the first of them.
    pub first_seed: u64,
    /// How long it took.
    pub elapsed: Duration,
}

impl fmt::Display for Explorations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Explorations { distinct, workloads, first_seed, elapsed } = self;
        let rate = *distinct as f64 / elapsed.as_secs_f64().max(f64::MIN_POSITIVE);
        write!(
            f,
            "{distinct} distinct states of {workloads} workloads from seed {first_seed} on, \
             {rate:.0} states/s"
        )
    }
}

/// Runs `explore` with one seed after the other, in two threads, until so many different disks were
/// visited. Each thread calls `ended` when it is done. The first seed is that of the environment's
/// `CAIRN_CRASH_FIRST`, or 1.
///
/// # Panics
/// When `explore` does.
pub fn explore_seeds(
    distinct: usize,
    explore: impl Fn(u64, &mut Visited) + Sync,
    ended: impl Fn() + Sync,
) -> Explorations {
    let begun = Instant::now();
    let first_seed =
        std::env::var("CAIRN_CRASH_FIRST").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let next_seed = AtomicU64::new(first_seed);
    let found: Mutex<HashSet<u64>> = Mutex::default();
    let lock = || found.lock().unwrap_or_else(PoisonError::into_inner);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while lock().len() < distinct {
                    let mut visited = Visited::default();
                    explore(next_seed.fetch_add(1, Ordering::Relaxed), &mut visited);
                    lock().extend(visited.distinct);
                }
                ended();
            });
        }
    });
    Explorations {
        distinct: lock().len(),
        workloads: next_seed.into_inner().wrapping_sub(first_seed),
        first_seed,
        elapsed: begun.elapsed(),
    }
}
