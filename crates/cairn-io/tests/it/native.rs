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
