//! The simulated file system keeps the contract that real ones keep, so that what runs on it runs
//! on them.

use std::cell::Cell;
use std::path::Path;

use cairn_io::{FileStore, Fs, contract};
use cairn_sim::{FaultPlan, SectorSize, SimFs, SimOptions};

#[test]
fn sim_fs_keeps_the_contract() {
    for size in [SectorSize::Bytes512, SectorSize::Bytes4096] {
        let sim = SimFs::with_options(SimOptions::new().sector_size(size));
        let scratch = Path::new("/scratch");
        sim.create_dir(scratch).unwrap();
        contract::fs(&sim, scratch);
    }
}

#[test]
fn links_of_sim_fs_keep_the_contract() {
    let sim = SimFs::new();
    sim.create_dir(Path::new("/scratch")).unwrap();
    contract::symbolic_links(&sim, Path::new("/scratch"), &|to, name| sim.symlink(to, name));
}

#[test]
fn second_process_keeps_the_contract() {
    let sim = SimFs::new();
    sim.create_dir(Path::new("/scratch")).unwrap();
    contract::fs(&sim.second_process(), Path::new("/scratch"));
}

#[test]
fn file_store_on_sim_fs_keeps_the_contract() {
    contract::store(|| Box::new(FileStore::open(&SimFs::new(), Path::new("/data")).unwrap()));
}

#[test]
fn reopened_store_on_sim_fs_is_the_same_also_after_the_process_died() {
    let sim = SimFs::new();
    contract::reopened_store(|| Box::new(FileStore::open(&sim, Path::new("/data")).unwrap()));
    let process = Cell::new(Some(SimFs::new()));
    contract::reopened_store(|| {
        let next = process.take().unwrap().restart();
        process.set(Some(next.clone()));
        Box::new(FileStore::open(&next, Path::new("/data")).unwrap())
    });
}

/// The suite can fail here too: a disk that is full keeps no contract.
#[test]
#[should_panic(expected = "the Store contract is violated")]
fn full_disk_does_not_keep_the_contract() {
    contract::store(|| {
        let sim = SimFs::new();
        sim.set_faults(FaultPlan::new().capacity(4096));
        Box::new(FileStore::open(&sim, Path::new("/data")).unwrap())
    });
}
