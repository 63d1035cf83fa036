//! The fault model, one statement at a time. Whoever tests storage code with this crate relies on
//! each of them: a simulator that forgets a state lets a bug through, one that invents a state
//! sends people after ghosts.

#![expect(clippy::unwrap_used, reason = "helpers outside of test functions unwrap as the tests do")]

mod contract;
mod crash;
mod direct;
mod explorer;
mod failed_sync;
mod faults;
mod model;
mod process;
mod world;

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

use cairn_io::{Access, File, Fs};
use cairn_sim::{CrashExplorer, CrashState, SimFs};

/// A file with a durable name.
fn create(sim: &SimFs, path: &str) -> Arc<dyn File> {
    let file = sim.create_new(Path::new(path)).unwrap();
    sim.sync_dir(Path::new(path).parent().unwrap()).unwrap();
    file
}

/// Renames within a directory, over whatever has the name.
fn replace(sim: &SimFs, from: &str, to: &str) -> io::Result<()> {
    let (dir, from) = sim.open_parent(Path::new(from))?;
    dir.replace(from, Path::new(to).file_name().unwrap())
}

fn open(sim: &SimFs, path: &str) -> Arc<dyn File> {
    sim.open(Path::new(path), Access::ReadWrite).unwrap()
}

fn write(file: &Arc<dyn File>, offset: u64, bytes: &[u8]) {
    assert_eq!(file.write_at(offset, &[IoSlice::new(bytes)]).unwrap(), bytes.len());
}

fn read(file: &Arc<dyn File>) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    let n = file.read_at(0, &mut bytes).unwrap();
    assert_eq!(n, bytes.len());
    bytes
}

/// The states of the last point of a trace.
fn last_states(explorer: &CrashExplorer, sim: &SimFs) -> Vec<CrashState> {
    let end = sim.op_count();
    let mut states = Vec::new();
    let explorer = explorer.clone().points(end..=end);
    explorer
        .for_each(|state| {
            states.push(state.clone());
            Ok::<(), String>(())
        })
        .unwrap();
    states
}

/// All contents a file can have after a power cut now; `None` for no file.
fn outcomes(sim: &SimFs, path: &str) -> Vec<Option<Vec<u8>>> {
    let states = last_states(&CrashExplorer::new(sim.trace()).exhaustive_limit(1 << 14), sim);
    let mut all: Vec<_> = states.iter().map(|state| state.fs().read_file(path).ok()).collect();
    all.sort();
    all.dedup();
    all
}
