//! What `Ok` from a barrier covers: every file, every name, through the handle that wrote.
//!
//! guards: L04, L05, L06, L17, L53

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use cairn_io::Store;
use cairn_segmented::{SegmentedOptions, SegmentedStore};
use cairn_trial::WatchedFs;
use tempfile::TempDir;

fn segmented(fs: &WatchedFs, open_files_max: usize) -> (TempDir, SegmentedStore) {
    let dir = tempfile::tempdir().unwrap();
    let options = SegmentedOptions::new().segment_size_bytes(4096).open_files_max(open_files_max);
    let store = options.open(Arc::new(fs.clone()), &dir.path().join("store")).unwrap();
    (dir, store)
}

#[test]
fn a_new_segmented_store_is_durable_with_its_directory() {
    let fs = WatchedFs::default();
    let (dir, _store) = segmented(&fs, 16);
    // The lock file's name may go: it is created anew.
    let lock = PathBuf::from("store").join("store.lock");
    let lost = fs.unsynced().into_iter().filter(|what| !what.ends_with(lock.to_str().unwrap()));
    assert_eq!(lost.collect::<Vec<_>>(), Vec::<String>::new());
    assert!(dir.path().join("store").is_dir());
}

#[test]
fn a_late_write_to_an_earlier_segment_is_synced() {
    let fs = WatchedFs::default();
    let (_dir, store) = segmented(&fs, 16);
    store.write_at(0, &[1; 20_000]).unwrap();
    store.sync().unwrap();
    fs.expect_synced();
    store.write_at(19_000, b"last segment").unwrap();
    store.write_at(5000, b"second segment").unwrap();
    assert_eq!(fs.unsynced().len(), 2, "{:?}", fs.unsynced());
    store.sync().unwrap();
    fs.expect_synced();
}

#[test]
fn a_write_that_was_under_way_during_a_sync_is_covered_by_the_next() {
    let fs = WatchedFs::default();
    let (_dir, store) = segmented(&fs, 16);
    let hold = fs.hold_the_next_write();
    thread::scope(|scope| {
        scope.spawn(|| store.write_at(0, b"slow").unwrap());
        hold.wait();
        store.sync().unwrap();
        hold.wait();
    });
    assert_eq!(fs.unsynced().len(), 1, "the write returned after the barrier");
    store.sync().unwrap();
    fs.expect_synced();
}

#[test]
fn descriptors_stay_open_while_unsynced_and_few_otherwise() {
    let fs = WatchedFs::default();
    let (_dir, store) = segmented(&fs, 3);
    store.write_at(0, &[1; 4096 * 12]).unwrap();
    store.sync().unwrap();
    // The lock file is one more.
    assert!(fs.open_handles() <= 4, "{} open", fs.open_handles());
    for segment in 0..12 {
        store.write_at(segment * 4096, b"late").unwrap();
    }
    assert_eq!(fs.open_handles(), 13);
    store.read_at(0, &mut [0; 50_000]).unwrap();
    fs.expect_no_violation();
    store.sync().unwrap();
    fs.expect_synced();
    assert!(fs.open_handles() <= 4, "{} open after the sync", fs.open_handles());
    store.read_at(0, &mut [0; 50_000]).unwrap();
    assert!(fs.open_handles() <= 4, "{} open after reading", fs.open_handles());
}

/// Fails within milliseconds if the directory's barrier after a removal is left out.
#[test]
fn truncated_segments_are_removed_durably_and_do_not_come_back() {
    let fs = WatchedFs::default();
    let (dir, store) = segmented(&fs, 16);
    store.write_at(0, &[1; 40_000]).unwrap();
    store.sync().unwrap();
    store.truncate(5000).unwrap();
    // The cut itself waits for the sync, the names do not.
    assert_eq!(fs.unsynced().len(), 1, "{:?}", fs.unsynced());
    store.sync().unwrap();
    fs.expect_synced();
    assert_eq!(segment_files(&dir).len(), 2);
    store.write_at(20_000, b"x").unwrap();
    store.sync().unwrap();
    fs.expect_synced();
    let mut gap = vec![0xff; 15_000];
    store.read_at(5000, &mut gap).unwrap();
    assert!(gap.iter().all(|b| *b == 0), "dropped bytes are back");
}

#[test]
fn a_dropped_prefix_is_durable_on_return() {
    let fs = WatchedFs::default();
    let (dir, store) = segmented(&fs, 16);
    store.write_at(0, &[1; 40_000]).unwrap();
    store.sync().unwrap();
    assert_eq!(store.truncate_before(20_000).unwrap(), 16_384);
    fs.expect_synced();
    assert_eq!(segment_files(&dir).len(), 6);
}

/// An earlier process was killed between a change of names and its barrier.
#[test]
fn opening_makes_the_names_it_finds_durable() {
    let fs = WatchedFs::default();
    fs.ignore_dir_syncs();
    let dir = tempfile::tempdir().unwrap();
    let options = SegmentedOptions::new().segment_size_bytes(4096);
    options.open(Arc::new(fs.clone()), dir.path()).unwrap();
    assert!(!fs.unsynced().is_empty());
    fs.heed_dir_syncs();
    options.open(Arc::new(fs.clone()), dir.path()).unwrap();
    fs.expect_synced();
}

fn segment_files(dir: &TempDir) -> Vec<String> {
    let names = std::fs::read_dir(dir.path().join("store")).unwrap();
    let names = names.map(|e| e.unwrap().file_name().into_string().unwrap());
    names.filter(|n| n.ends_with(".seg")).collect()
}
