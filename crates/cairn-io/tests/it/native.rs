//! What only the real file system has.

use std::io::ErrorKind;
use std::path::Path;

use cairn_io::{Access, Fs, NativeFs};

#[test]
fn the_empty_path_is_the_current_directory() {
    assert!(!NativeFs.list(Path::new("")).unwrap().is_empty());
    NativeFs.sync_dir(Path::new("")).unwrap();
}

/// `/dev/full` takes a write like a full disk does.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_storage_full() {
    use std::io::IoSlice;
    let Ok(full) = NativeFs.open(Path::new("/dev/full"), Access::ReadWrite) else { return };
    let e = cairn_io::write_all_at(&*full, 0, &[IoSlice::new(b"x")]).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::StorageFull);
}

#[test]
fn allocation_that_no_disk_can_hold_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = NativeFs.create_new(&dir.path().join("a")).unwrap();
    file.allocate(0, 1 << 60).unwrap_err();
    assert_eq!(file.len().unwrap(), 0);
    let missing = NativeFs.open(&dir.path().join("b"), Access::Read);
    assert_eq!(missing.unwrap_err().kind(), ErrorKind::NotFound);
}

/// What the kernel reports, not what is usual: a block that is too large wastes space, one that is
/// too small is refused.
#[cfg(target_os = "linux")]
#[test]
fn a_direct_handle_takes_its_blocks_and_says_how_it_writes() {
    use std::io::IoSlice;
    let Some(dir) = crate::direct::direct_dir() else { return };
    let path = dir.path().join("a");
    let file = NativeFs.create_new(&path).unwrap();
    let direct = NativeFs.open_direct(&path).unwrap();
    let (block, memory) = (direct.block_size(), crate::direct::Block([5; 4096]));
    assert!((512..=4096).contains(&block), "{block}");
    assert_eq!(direct.backend(), cairn_io::Backend::Direct);
    assert_eq!(direct.write_at(block as u64, &[IoSlice::new(&memory.0[..block])]).unwrap(), block);
    let mut found = vec![0xff; 2 * block];
    assert_eq!(cairn_io::read_full_at(&*file, 0, &mut found).unwrap(), 2 * block);
    assert!(
        found[..block].iter().all(|byte| *byte == 0)
            && found[block..].iter().all(|byte| *byte == 5)
    );
    direct.read_at(0, &mut found).unwrap_err();
}

#[test]
fn a_file_reaches_further_than_4_gib() {
    use cairn_io::{FileStore, Store};
    let dir = tempfile::tempdir().unwrap();
    let store = FileStore::open(&NativeFs, &dir.path().join("sparse")).unwrap();
    let at = (4 << 30) - 3;
    store.write_at(at, b"across").unwrap();
    store.preallocate(at + 6, 100).unwrap();
    store.sync().unwrap();
    let mut found = [0; 8];
    assert_eq!(store.read_at(at - 1, &mut found).unwrap(), 8);
    assert_eq!(&found, b"\0across\0");
    store.truncate(at + 4).unwrap();
    assert_eq!((store.len().unwrap(), store.read_at(at, &mut found).unwrap()), (at + 4, 4));
    let mut start = [0xff; 4];
    assert_eq!((store.read_at(0, &mut start).unwrap(), start), (4, [0; 4]));
}

/// Such a file system, as procfs is one, makes no name durable. Its answer alone, "invalid
/// argument", reads like a fault of the caller's.
#[cfg(target_os = "linux")]
#[test]
fn a_file_system_without_a_barrier_for_directories_is_named_as_the_reason() {
    let error = NativeFs.sync_dir(Path::new("/proc")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let told = error.to_string();
    assert!(told.contains("file system") && told.contains("another one"), "{told}");
    // Other answers stay as they are.
    let missing = NativeFs.sync_dir(Path::new("/no/such/directory")).unwrap_err();
    assert_eq!(missing.raw_os_error(), Some(2));
}
