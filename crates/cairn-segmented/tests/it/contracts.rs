//! The segmented store keeps the contract of stores, on the real file system and on a simulated
//! one.
//!
//! guards: L33 (overflowing sizes)

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;

use cairn_io::{Backend, Fs, NativeFs, Store, contract};
use cairn_segmented::SegmentedOptions;
use cairn_sim::SimFs;
use cairn_trial::WatchedFs;
use tempfile::TempDir;

/// Makes stores in directories of their own, which live as long as the test.
fn in_directories(fs: &Arc<dyn Fs>, segment_size: u64) {
    let dirs = Cell::new(Vec::new());
    contract::store(|| {
        let dir = tempfile::tempdir().unwrap();
        let store = segmented(fs.clone(), &dir, segment_size);
        let mut all = dirs.take();
        all.push(dir);
        dirs.set(all);
        store
    });
}

fn segmented(fs: Arc<dyn Fs>, dir: &TempDir, segment_size: u64) -> Box<dyn Store> {
    let options = SegmentedOptions::new().segment_size_bytes(segment_size).open_files_max(2);
    Box::new(options.open(fs, dir.path()).unwrap())
}

#[test]
fn it_keeps_the_contract_in_one_file_and_in_many() {
    let native: Arc<dyn Fs> = Arc::new(NativeFs);
    for segment_size in [4096, 12_288, 1 << 20] {
        in_directories(&native, segment_size);
    }
}

#[test]
fn it_keeps_the_contract_over_short_and_interrupted_calls() {
    let fs = WatchedFs::default();
    fs.be_choppy();
    let choppy: Arc<dyn Fs> = Arc::new(fs.clone());
    in_directories(&choppy, 8192);
    fs.allow_closing_unsynced();
    fs.expect_no_violation();
}

#[test]
fn it_keeps_the_contract_on_a_simulated_machine() {
    let options = SegmentedOptions::new().segment_size_bytes(16 << 10);
    contract::store(|| {
        Box::new(options.open(Arc::new(SimFs::new()), Path::new("/store")).unwrap())
    });
}

#[test]
fn it_is_the_same_when_it_is_opened_again() {
    for segment_size in [4096, 65_536] {
        let dir = tempfile::tempdir().unwrap();
        contract::reopened_store(|| segmented(Arc::new(NativeFs), &dir, segment_size));
    }
}

#[test]
fn it_says_how_it_writes() {
    let dir = tempfile::tempdir().unwrap();
    let store = segmented(Arc::new(NativeFs), &dir, 4096);
    assert_eq!((store.backend(), store.block_size()), (Backend::Buffered, 1));
}
