//! guards: L10 L11 L20
//!
//! Damage on top of power cuts, and which rows of the table of ends were met. A power cut alone
//! leaves no damage; so of some of the states that it leaves a bit is flipped, a sector is zeroed
//! or cannot be read, the groups of a segment or a whole file are gone. Opening refuses and changes
//! nothing, or shows records that were appended, in order, and no others.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use cairn_log::{ErrorKind, end_cases_met};
use cairn_sim::{CrashExplorer, FaultPlan, SimFs};

use crate::crash::{Dice, run, run_in, tiny_on};
use crate::damage::SUPERBLOCK;
use crate::model::{Driver, Medium, STORE, chain, check_state, contents};
use crate::recycling::retaining;
use crate::store::dropping;
use crate::strangers::exchange;

const SECTOR: u64 = 512;

/// The files that hold the log, the newest last, and how many bytes of each are not only space: up
/// to the last one that is not zero.
fn files(driver: &Driver, sim: &SimFs) -> Vec<(PathBuf, u64)> {
    let holds = |path: &PathBuf| match driver.medium {
        Medium::Directory => path.extension().is_some_and(|e| e == "cairn"),
        Medium::File => path.starts_with(STORE),
        Medium::Files => path.starts_with(STORE) && path.file_name().is_some_and(|n| n != "LOCK"),
    };
    let in_use = |path: PathBuf| {
        let bytes = sim.read_file(&path).unwrap();
        let len = bytes.iter().rposition(|b| *b != 0).map_or(0, |last| last as u64 + 1);
        (path, len)
    };
    sim.files().into_iter().map(|(path, _)| path).filter(holds).map(in_use).collect()
}

/// What is done to a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Damage {
    FlippedBit,
    ZeroedSector,
    UnreadableSector,
    GroupsGone,
    FileGone,
    /// A group of a copy that went its own way.
    Exchanged,
}

/// Damages what a power cut left, opens it, and compares what is shown with what was appended.
pub(crate) fn spoil(driver: &Driver, point: usize, sim: &SimFs, seed: u64) -> Result<(), String> {
    let mut dice = Dice(seed);
    let damage = [
        Damage::FlippedBit,
        Damage::ZeroedSector,
        Damage::UnreadableSector,
        Damage::GroupsGone,
        Damage::FileGone,
        Damage::Exchanged,
    ][dice.below(6)];
    let files = files(driver, sim);
    // Of a directory one of the last two: those before them are not looked at when it is opened.
    let all = driver.medium == Medium::Files && dice.below(2) == 0;
    let looked_at = if all { files.len().max(1) } else { 2 };
    let Some(nth) = files.len().checked_sub(1 + dice.below(looked_at)) else { return Ok(()) };
    let (path, len) = &files[nth];
    let Some(room) = len.checked_sub(SUPERBLOCK).filter(|room| *room > 0) else {
        if damage == Damage::FileGone && driver.medium == Medium::Directory {
            cairn_io::Fs::remove(sim, path).unwrap();
            return shown(driver, point, sim, damage);
        }
        return Ok(());
    };
    // Every other time near the end.
    let room = if dice.below(2) == 0 { room.min(2 * SECTOR) } else { room };
    let at = len - 1 - dice.below(room as usize) as u64;
    match damage {
        Damage::FlippedBit => sim.flip_bit(path, at, dice.below(8) as u8).unwrap(),
        Damage::UnreadableSector => {
            // Also behind the last byte: there the log goes on.
            let at = (at - at % SECTOR) + SECTOR * dice.below(2) as u64;
            sim.set_faults(FaultPlan::new().unreadable(path, at..at + SECTOR));
        }
        Damage::FileGone if driver.medium == Medium::Directory => {
            cairn_io::Fs::remove(sim, path).unwrap();
        }
        Damage::Exchanged => {
            let mut bytes = sim.read_file(path).unwrap();
            // A store without its beginning does not say whose it is here.
            if driver.medium == Medium::Files || !exchange(&mut bytes, dice.below(1 << 10)) {
                return Ok(());
            }
            sim.write_file(path, bytes).unwrap();
        }
        _ => {
            let mut bytes = sim.read_file(path).unwrap();
            let end = bytes.len();
            let (from, to) = match damage {
                Damage::ZeroedSector => (at - at % SECTOR, at - at % SECTOR + SECTOR),
                _ => (SUPERBLOCK, u64::MAX),
            };
            bytes[from as usize..end.min(usize::try_from(to).unwrap_or(end))].fill(0);
            sim.write_file(path, bytes).unwrap();
        }
    }
    shown(driver, point, sim, damage)
}

/// What a damaged log shows.
fn shown(driver: &Driver, point: usize, sim: &SimFs, damage: Damage) -> Result<(), String> {
    let before = sim.fingerprint();
    match driver.medium.open(sim, &driver.options) {
        Err(error) if !matches!(error.kind(), ErrorKind::Repair | ErrorKind::System) => {
            Err(format!("{damage:?}: refused with {}", chain(&error)))
        }
        // A store of many files may have ended a drop of its beginning before the log was found.
        Err(_) if driver.medium != Medium::Files && sim.fingerprint() != before => {
            Err(format!("{damage:?}: refused, and changed"))
        }
        Err(_) => Ok(()),
        Ok(log) => match contents(&log) {
            // A lost segment of the newest generation uncovers what it superseded, which nothing
            // tells from the log.
            Ok((first, found))
                if damage != Damage::FileGone && !driver.timeline.knew(point, first, &found) =>
            {
                Err(format!(
                    "{damage:?}: {} records from {first} were never in the log",
                    found.len()
                ))
            }
            // Damage that opening does not look for is found by reading.
            Ok(_) | Err(_) => Ok(()),
        },
    }
}

/// How often each row of the table of ends was met, by what the log ends in.
#[derive(Default)]
pub(crate) struct Met(BTreeMap<(&'static str, String), u64>);

/// Rows that no exploration meets, and why.
const NEVER_MET: [(&str, &str, &str); 1] = [(
    "another history",
    "beheaded",
    "as in a store that is whole; the adversary finds no identity",
)];

impl Met {
    pub(crate) fn add_those_of_this_thread(&mut self) {
        for (case, medium, count) in end_cases_met() {
            *self.0.entry((case.label(), medium)).or_default() += count;
        }
    }

    pub(crate) fn print(&self) {
        for ((label, medium), count) in &self.0 {
            println!("{count:9} {label}, {medium}");
        }
    }

    fn never(&self) -> Vec<(&str, &str)> {
        let never = self.0.iter().filter(|(_, count)| **count == 0);
        never.map(|((label, medium), _)| (*label, medium.as_str())).collect()
    }
}

/// A row that is never met is a hole in the adversary, or cannot be met.
#[test]
fn every_row_of_the_table_of_ends_is_met_but_those_that_nothing_can_make() {
    let met = Mutex::new(Met::default());
    let next_seed = AtomicU64::new(1);
    let states = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let seed @ ..=36 = next_seed.fetch_add(1, Ordering::Relaxed) {
                    let driver = match seed % 6 {
                        0 => run_in(Medium::File, seed, tiny_on(seed), 60),
                        1 | 2 => dropping(seed, 30),
                        3 => run(seed, tiny_on(seed / 6), 60),
                        _ => retaining(seed, 100),
                    };
                    // A store without its beginning is seldom: at most points there is no drop yet.
                    let samples = if driver.medium == Medium::Files { 12 } else { 1 };
                    let explorer = CrashExplorer::new(driver.sim.trace())
                        .label(format!("rows-{seed}"))
                        .samples_per_point(samples)
                        .exhaustive_limit(2);
                    let report = explorer.for_each(|state| {
                        check_state(&driver, state.point(), &state.fs())?;
                        spoil(&driver, state.point(), &state.fs(), state.fingerprint())?;
                        spoil(&driver, state.point(), &state.fs(), !state.fingerprint())
                    });
                    let distinct = report.unwrap_or_else(|failure| panic!("{failure}")).distinct;
                    states.fetch_add(distinct as u64, Ordering::Relaxed);
                }
                met.lock().unwrap().add_those_of_this_thread();
            });
        }
    });
    let met = met.into_inner().unwrap();
    println!("{} distinct states, each damaged in two ways", states.into_inner());
    met.print();
    let expected: Vec<_> = NEVER_MET.iter().map(|(label, medium, _)| (*label, *medium)).collect();
    assert_eq!(met.never(), expected);
}
