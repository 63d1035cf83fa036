//! Opening a segmented store: what is ours, what is not, and that a refusal changes nothing.
//!
//! guards: L20, L21, L23, L25, L26

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_io::preamble::{Checksum, Preamble};
use cairn_io::{NativeFs, Store};
use cairn_segmented::{Error, SegmentedOptions, SegmentedStore};
use tempfile::TempDir;

fn open(dir: &Path) -> Result<SegmentedStore, Error> {
    SegmentedStore::open(Arc::new(NativeFs), dir)
}

fn sized(bytes: u64) -> SegmentedOptions {
    SegmentedOptions::new().segment_size_bytes(bytes)
}

/// A closed store of five segments of 4096 bytes, 18000 bytes in all.
fn five_segments() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let store = sized(4096).open(Arc::new(NativeFs), dir.path()).unwrap();
    store.write_at(0, &[1; 18_000]).unwrap();
    store.sync().unwrap();
    dir
}

fn segment(dir: &TempDir, index: u64) -> PathBuf {
    dir.path().join(format!("{index:020}.seg"))
}

fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let paths = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    paths.map(|p| (p.clone(), fs::read(p).unwrap())).collect()
}

/// Opens a damaged directory; nothing in it may change.
#[track_caller]
fn refusal(dir: &TempDir, options: &SegmentedOptions) -> Error {
    let before = contents(dir.path());
    let refused = options.open(Arc::new(NativeFs), dir.path());
    let e = refused.expect_err("a store that must be refused was opened");
    assert!(contents(dir.path()) == before, "a refused open has changed something");
    assert!(!e.to_string().is_empty());
    e
}

fn edit(path: &Path, edit: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    edit(&mut bytes);
    fs::write(path, bytes).unwrap();
}

#[test]
fn the_second_opener_is_told_that_it_is_locked() {
    let dir = five_segments();
    let first = open(dir.path()).unwrap();
    assert!(matches!(open(dir.path()), Err(Error::Locked { .. })));
    drop(first);
    open(dir.path()).unwrap();
}

#[test]
fn another_segment_size_is_refused_and_nothing_changes() {
    let dir = five_segments();
    let e = refusal(&dir, &sized(8192));
    assert!(matches!(e, Error::SegmentSizeMismatch { requested: 8192, found: 4096, .. }), "{e}");
    let store = open(dir.path()).unwrap();
    assert_eq!((store.segment_size_bytes(), store.len().unwrap()), (4096, 18_000));
}

#[test]
fn a_size_out_of_range_is_refused_before_anything_is_created() {
    let dir = tempfile::tempdir().unwrap();
    for bytes in [0, 1, 4095, 4097, (1 << 40) + 4096, u64::MAX] {
        let e = refusal(&dir, &sized(bytes));
        assert!(matches!(e, Error::InvalidOption { .. }), "{bytes}: {e}");
    }
}

#[test]
fn a_foreign_file_is_refused_and_kept() {
    for strange in [&b""[..], b"not ours", &[0; 4096], &[b'x'; 10_000]] {
        // Alone, then among ours, then with no lock file there.
        let alone = tempfile::tempdir().unwrap();
        fs::write(segment(&alone, 0), strange).unwrap();
        assert!(matches!(refusal(&alone, &sized(4096)), Error::Foreign { .. }));
        for index in [0, 2, 4] {
            let dir = five_segments();
            fs::write(segment(&dir, index), strange).unwrap();
            fs::remove_file(dir.path().join("store.lock")).unwrap();
            let e = refusal(&dir, &sized(4096));
            let Error::Foreign { path } = &e else { panic!("{e}") };
            assert_eq!(*path, segment(&dir, index));
        }
    }
}

#[test]
fn another_version_is_named() {
    let dir = five_segments();
    let newer = Preamble::<4096>::new(*b"CairnSeg", 2, Checksum::AtEnd);
    edit(&segment(&dir, 3), |bytes| newer.seal(bytes.first_chunk_mut().unwrap()));
    let e = refusal(&dir, &SegmentedOptions::new());
    assert!(matches!(e, Error::UnsupportedVersion { found: 2, supported: 1, .. }), "{e}");
}

#[test]
fn a_damaged_superblock_is_corrupt() {
    // Byte 8: a flipped bit in the version is damage, not a newer program.
    for at in [8, 12, 16, 33, 40, 50, 2000, 4095] {
        let dir = five_segments();
        edit(&segment(&dir, 1), |bytes| bytes[at] ^= 1);
        let e = refusal(&dir, &SegmentedOptions::new());
        assert!(matches!(e, Error::Corrupt { .. }), "byte {at}: {e}");
    }
}

#[test]
fn a_superblock_that_is_cut_short_is_corrupt() {
    for len in [8, 4095] {
        let dir = five_segments();
        edit(&segment(&dir, 4), |bytes| bytes.truncate(len));
        let e = refusal(&dir, &SegmentedOptions::new());
        assert!(matches!(e, Error::Corrupt { .. }), "{len} bytes: {e}");
    }
}

#[test]
fn a_segment_under_another_name_is_corrupt() {
    let dir = five_segments();
    fs::copy(segment(&dir, 1), segment(&dir, 2)).unwrap();
    let e = refusal(&dir, &SegmentedOptions::new());
    assert!(matches!(e, Error::Corrupt { offset: 40, .. }), "{e}");
}

#[test]
fn a_segment_of_another_store_is_refused() {
    let (dir, other) = (five_segments(), five_segments());
    fs::copy(segment(&other, 2), segment(&dir, 2)).unwrap();
    let e = refusal(&dir, &SegmentedOptions::new());
    assert!(matches!(e, Error::WrongStore { .. }), "{e}");
}

#[test]
fn a_missing_middle_segment_is_named() {
    for missing in 1..4 {
        let dir = five_segments();
        fs::remove_file(segment(&dir, missing)).unwrap();
        let e = refusal(&dir, &SegmentedOptions::new());
        let Error::MissingSegment { path } = &e else { panic!("{e}") };
        assert_eq!(*path, segment(&dir, missing));
    }
}

#[test]
fn a_segment_of_a_wrong_length_is_refused() {
    type Change = fn(&mut Vec<u8>);
    let cases: [(u64, Change); 3] = [
        (2, |bytes| bytes.truncate(8191)),
        (0, |bytes| bytes.push(0)),
        (4, |bytes| bytes.resize(8193, 0)),
    ];
    for (index, change) in cases {
        let dir = five_segments();
        edit(&segment(&dir, index), change);
        let e = refusal(&dir, &SegmentedOptions::new());
        assert!(matches!(e, Error::WrongLength { expected: 8192, .. }), "{e}");
    }
}

#[test]
fn strays_are_ignored_and_kept() {
    let dir = five_segments();
    let strays = ["notes.txt", "00000000000000000005.seg.tmp", "5.seg", "99999999999999999999.seg"];
    for name in strays {
        fs::write(dir.path().join(name), b"mine").unwrap();
    }
    let store = open(dir.path()).unwrap();
    assert_eq!(store.len().unwrap(), 18_000);
    // A leftover temporary file is in nobody's way.
    store.write_at(30_000, b"x").unwrap();
    for name in ["notes.txt", "5.seg", "99999999999999999999.seg"] {
        assert_eq!(fs::read(dir.path().join(name)).unwrap(), b"mine");
    }
}

#[test]
fn a_creation_that_stopped_anywhere_is_continued() {
    for stopped_with in [&[][..], &["store.lock"], &["store.lock", "00000000000000000000.seg.tmp"]]
    {
        let dir = tempfile::tempdir().unwrap();
        for name in stopped_with {
            fs::write(dir.path().join(name), b"").unwrap();
        }
        let store = sized(4096).open(Arc::new(NativeFs), dir.path()).unwrap();
        assert!(store.is_empty().unwrap());
    }
}

#[test]
fn a_directory_without_a_parent_is_not_created() {
    let dir = tempfile::tempdir().unwrap();
    let e = open(&dir.path().join("a").join("b")).unwrap_err();
    let Error::Io { source, .. } = &e else { panic!("{e}") };
    assert_eq!(source.kind(), io::ErrorKind::NotFound);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_write_far_behind_the_end_is_refused_before_files_fill_the_disk() {
    let dir = five_segments();
    let store = open(dir.path()).unwrap();
    let before = contents(dir.path());
    for offset in [4096 << 20, 1 << 50, u64::MAX - 10] {
        let e = store.write_at(offset, b"x").unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::FileTooLarge, "{offset}");
    }
    assert!(contents(dir.path()) == before);
}

#[test]
fn the_head_survives_reopening() {
    let dir = five_segments();
    let store = open(dir.path()).unwrap();
    assert_eq!(store.truncate_before(18_000).unwrap(), 16_384);
    let uuid = store.uuid();
    drop(store);
    let store = open(dir.path()).unwrap();
    assert_eq!((store.head(), store.len().unwrap(), store.uuid()), (16_384, 18_000, uuid));
    assert_eq!(store.dir(), dir.path());
    assert!(!segment(&dir, 3).exists() && segment(&dir, 4).exists());
}

#[test]
fn a_segment_cut_by_somebody_else_is_an_error_not_zeros() {
    let dir = five_segments();
    let store = open(dir.path()).unwrap();
    fs::OpenOptions::new().write(true).open(segment(&dir, 1)).unwrap().set_len(5000).unwrap();
    let e = store.read_at(0, &mut [0; 18_000]).unwrap_err();
    assert_eq!(e.kind(), io::ErrorKind::UnexpectedEof);
}
