//! What `Ok` from a barrier covers: every byte, every name, through the handle that wrote.
//!
//! guards: L05, L06, L53

use std::io::IoSlice;
use std::sync::Arc;

use cairn_io::{Access, File, FileStore, Fs, Store, write_all_at};
use cairn_trial::WatchedFs;
use tempfile::TempDir;

fn file_store(fs: &WatchedFs) -> (TempDir, FileStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = FileStore::open(fs, &dir.path().join("data")).unwrap();
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

/// An earlier process was killed between a change of names and its barrier.
#[test]
fn opening_makes_the_name_it_finds_durable() {
    let fs = WatchedFs::default();
    fs.ignore_dir_syncs();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("data");
    drop(FileStore::open(&fs, &file).unwrap());
    assert!(!fs.unsynced().is_empty());
    fs.heed_dir_syncs();
    FileStore::open(&fs, &file).unwrap();
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
