//! guards: L03 L05 L10 L11 L12 L13 L16 L17 L18 L22 L23 L25 L27 L29 L51 L53 L54
//!
//! Power cuts at every point of a workload: whatever subset of unsynced sectors, lengths and names
//! survives, the log opens without help and holds everything acknowledged, in order, once; also
//! when the power fails again during recovery, and again.

use std::sync::Mutex;

use cairn_log::{Log, Options};
use cairn_sim::{
    Again, Check, CrashExplorer, MetadataOrder, SimFs, SimOptions, Torn, Visit, Visited,
    explore_seeds,
};

use crate::model::{Driver, Medium, check_goes_on, check_state};
use crate::recycling::retaining;
use crate::spoil::{Met, spoil};
use crate::store::dropping;

pub(crate) fn tiny() -> Options {
    Log::options().segment_size(8 << 10).buffer_size(4 << 10)
}

/// The same, committing past the page cache or through it: every other seed one of them. And of
/// every four seeds two with segments in which there is room for more than one buffer, of which one
/// flush may then write several.
pub(crate) fn tiny_on(seed: u64) -> Options {
    let segment_size = if seed % 4 < 2 { 8 << 10 } else { 24 << 10 };
    tiny().segment_size(segment_size).direct_io(seed.is_multiple_of(2))
}

/// Appends, batches, rotation, both truncations, clean and unclean ends, failed barriers, a second
/// handle: seeded,
/// so that every run is another mix.
pub(crate) fn workload(driver: &mut Driver, seed: u64, steps: usize) -> cairn_log::Result<()> {
    let mut dice = Dice(seed);
    driver.open()?;
    for _ in 0..steps {
        let (head, end) = (driver.model.head, driver.end());
        match dice.below(100) {
            0..30 => driver.append(dice.below(300))?,
            30..36 => driver.append(600 + dice.below(2500))?,
            36..37 => driver.append(9000)?,
            37..47 => driver.batch(&[dice.below(200), dice.below(900), dice.below(100)])?,
            47..68 => driver.sync()?,
            68..74 => driver.flush()?,
            74..79 if end > head => driver.sync_to(end - 1)?,
            79..82 if end > head => {
                driver.truncate_before(head + dice.below((end - head) as usize) as u64)?
            }
            82..88 if end > head => {
                driver.truncate_after(head + dice.below((end - head) as usize) as u64)?
            }
            88..92 => {
                driver.close()?;
                driver.open()?;
            }
            92..95 => {
                driver.die();
                driver.open()?;
            }
            95..98 => {
                driver.sync()?;
                driver.append_before_sector_end()?;
            }
            98..99 => driver.open_another(),
            _ => driver.append(16)?,
        }
    }
    Ok(())
}

/// A small generator of numbers, so that a seed means the same for ever.
pub(crate) struct Dice(pub u64);

impl Dice {
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) % bound as u64) as usize
    }
}

/// Opens a disk, compares it with the model, and goes on with it; some disks are damaged besides.
struct Checks<'a> {
    driver: &'a Driver,
    spoils: bool,
    found: Option<Vec<Vec<u8>>>,
}

impl Check for Checks<'_> {
    fn check(&mut self, visit: Visit<'_>, sim: &SimFs) -> Result<(), String> {
        let (driver, point) = (self.driver, visit.point);
        if self.spoils && visit.recoveries == 0 && visit.nth.is_multiple_of(8) {
            spoil(driver, point, &visit.state.fs(), visit.state.fingerprint())?;
        }
        let found = check_state(driver, point, sim)?;
        if visit.recoveries == 0 {
            self.found = Some(found);
        }
        Ok(())
    }

    fn go_on(&mut self, visit: Visit<'_>, sim: &SimFs) -> Result<(), String> {
        match self.found.take() {
            Some(found) if visit.nth.is_multiple_of(16) => check_goes_on(self.driver, &found, sim),
            _ => Ok(()),
        }
    }
}

/// Visits what power cuts could have left of a workload that a driver ran.
pub(crate) fn explore(
    driver: &Driver,
    label: String,
    torn: Torn,
    order: MetadataOrder,
    visited: &mut Visited,
) -> Result<(), String> {
    explore_and(false, driver, label, torn, order, visited)
}

fn explore_and(
    spoils: bool,
    driver: &Driver,
    label: String,
    torn: Torn,
    order: MetadataOrder,
    visited: &mut Visited,
) -> Result<(), String> {
    CrashExplorer::new(driver.sim.trace())
        .label(label)
        .torn(torn)
        .metadata_order(order)
        .exhaustive_limit(256)
        .samples_per_point(96)
        .explore(Again::default(), visited, &mut Checks { driver, spoils, found: None })
}

/// A workload with this seed, run to its end.
pub(crate) fn run(seed: u64, options: Options, steps: usize) -> Driver {
    run_in(Medium::Directory, seed, options, steps)
}

pub(crate) fn run_in(medium: Medium, seed: u64, options: Options, steps: usize) -> Driver {
    let mut driver = Driver::new(SimFs::with_options(SimOptions::new().seed(seed)), options);
    driver.medium = medium;
    workload(&mut driver, seed, steps).expect("nothing fails here");
    driver
}

/// So many states of the disk are visited; more with `CAIRN_CRASH_STATES=n`.
pub(crate) fn wanted() -> usize {
    std::env::var("CAIRN_CRASH_STATES").ok().and_then(|n| n.parse().ok()).unwrap_or(240_000)
}

#[test]
fn no_power_cut_takes_back_what_was_acknowledged() {
    let wanted = wanted();
    let met = Mutex::new(Met::default());
    let one = |seed: u64, visited: &mut Visited| {
        let order =
            if seed.is_multiple_of(4) { MetadataOrder::Ordered } else { MetadataOrder::Free };
        // Of ten workloads one runs on a file, and one on many, instead of a directory.
        let medium = match seed % 10 {
            0 => Medium::Files,
            5 => Medium::File,
            _ => Medium::Directory,
        };
        // A store cannot tell its own creation, torn inside a sector, from a foreign file, and
        // refuses it.
        let torn = if seed.is_multiple_of(3) && medium == Medium::Directory {
            Torn::Garbage
        } else {
            Torn::Versions
        };
        // Every seventh drops what is old, and writes on in its files.
        let driver = match seed % 7 {
            _ if medium == Medium::Files => dropping(seed, 60),
            0 if medium == Medium::Directory => retaining(seed, 100),
            _ => run_in(medium, seed, tiny_on(seed), 60),
        };
        explore_and(true, &driver, format!("crash-{seed}"), torn, order, visited).unwrap();
    };
    println!("{}", explore_seeds(wanted, one, || met.lock().unwrap().add_those_of_this_thread()));
    met.into_inner().unwrap().print();
}

/// Runs a workload until the process dies at system call `at`, and has a successor acknowledge a
/// record; says since when that one runs. `None` when the workload is over before.
pub(crate) fn killed(seed: u64, at: usize, options: Options) -> Option<(Driver, usize)> {
    let mut driver = Driver::new(SimFs::with_options(SimOptions::new().seed(seed)), options);
    driver.sim.kill_at(at);
    if workload(&mut driver, seed, 40).is_ok() && !driver.sim.is_dead() {
        return None;
    }
    driver.die();
    let reopened = driver.sim.op_count();
    driver.open().unwrap();
    driver.append(100).unwrap();
    driver.sync().unwrap();
    Some((driver, reopened))
}

/// guards: L03 L05 L51
///
/// The process dies at every system call in turn; its successor finds names and bytes that no
/// barrier ever covered, goes on, acknowledges, and then the power fails.
#[test]
fn what_a_killed_process_left_is_durable_before_its_successor_acknowledges() {
    let (mut kills, mut states) = (0, 0);
    for seed in 1..=3 {
        for at in 0.. {
            let Some((driver, reopened)) = killed(seed, at, tiny_on(seed)) else { break };
            kills += 1;
            let explorer =
                CrashExplorer::new(driver.sim.trace()).samples_per_point(16).exhaustive_limit(16);
            let report = explorer
                .points(reopened..=driver.sim.op_count())
                .for_each(|state| check_state(&driver, state.point(), &state.fs()).map(drop));
            states += report.unwrap().distinct;
        }
    }
    println!("{kills} kills, {states} states after them");
    assert!(kills > 100);
}
