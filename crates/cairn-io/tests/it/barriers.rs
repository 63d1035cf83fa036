//! What `Ok` from a barrier covers: every file, every name, through the handle that wrote.
//!
//! guards: L04, L05, L06, L17, L53

use std::io::IoSlice;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use cairn_io::{Access, File, FileStore, Fs, SegmentedOptions, SegmentedStore, Store, write_all_at};
use tempfile::TempDir;

use crate::watched::WatchedFs;

fn file_store(fs: &WatchedFs) -> (TempDir, FileStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = FileStore::open(fs, &dir.path().join("data")).unwrap();
    (dir, store)
}

fn segmented(fs: &WatchedFs, open_files_max: usize) -> (TempDir, SegmentedStore) {
    let dir = tempfile::tempdir().unwrap();
    let options = SegmentedOptions::new().segment_size_bytes(4096).open_files_max(open_files_max);
    let store = options.open(Arc::new(fs.clone()), &dir.path().join("store")).unwrap();
    (dir, store)
}

#[test]
fn a_created_file_has_a_durable_name() {
    let fs = WatchedFs::default();
    let _kept = file_store(&fs);
    fs.expect_synced();
}

#[test]
fn a_missing_directory_barrier_is_noticed() {
    let fs = WatchedFs::default();
    fs.ignore_dir_syncs();
    let _kept = file_store(&fs);
    assert_eq!(fs.unsynced().len(), 1, "{:?}", fs.unsynced());
}

#[test]
fn a_write_or_a_cut_is_not_durable_before_the_sync() {
    let fs = WatchedFs::default();
    let (_dir, store) = file_store(&fs);
    store.write_at(0, b"abc").unwrap();
    assert_eq!(fs.unsynced().len(), 1);
    store.sync().unwrap();
    fs.expect_synced();
    store.truncate(1).unwrap();
    assert_eq!(fs.unsynced().len(), 1);
    store.sync().unwrap();
    fs.expect_synced();
    store.write_durable(0, &[IoSlice::new(b"x"), IoSlice::new(b"y")]).unwrap();
    fs.expect_synced();
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

/// An earlier process was killed between a change of names and its barrier.
#[test]
fn opening_makes_the_names_it_finds_durable() {
    let fs = WatchedFs::default();
    fs.ignore_dir_syncs();
    let dir = tempfile::tempdir().unwrap();
    let (file, store) = (dir.path().join("data"), dir.path().join("store"));
    let options = SegmentedOptions::new().segment_size_bytes(4096);
    drop(FileStore::open(&fs, &file).unwrap());
    options.open(Arc::new(fs.clone()), &store).unwrap();
    assert!(!fs.unsynced().is_empty());
    fs.heed_dir_syncs();
    FileStore::open(&fs, &file).unwrap();
    options.open(Arc::new(fs.clone()), &store).unwrap();
    fs.expect_synced();
}

#[test]
fn the_watch_sees_a_sync_of_the_wrong_file_or_handle() {
    let fs = WatchedFs::default();
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    let (first, second) = (fs.create_new(&a).unwrap(), fs.create_new(&b).unwrap());
    fs.sync_dir(dir.path()).unwrap();
    for file in [&first, &second] {
        write_all_at(&**file, 0, &[IoSlice::new(b"x")]).unwrap();
    }
    second.sync_data().unwrap();
    assert_eq!(fs.unsynced().len(), 1, "the first file is not synced");
    let other: Arc<dyn File> = fs.open(&a, Access::ReadWrite).unwrap();
    other.sync_data().unwrap();
    assert_eq!(fs.unsynced().len(), 1, "another handle's barrier counts for nothing");
    first.sync_data().unwrap();
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

fn segment_files(dir: &TempDir) -> Vec<String> {
    let names = std::fs::read_dir(dir.path().join("store")).unwrap();
    let names = names.map(|e| e.unwrap().file_name().into_string().unwrap());
    names.filter(|n| n.ends_with(".seg")).collect()
}
