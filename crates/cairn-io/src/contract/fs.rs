//! Checks of the file system seam, each in a directory of its own.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{ErrorKind, IoSlice};
use std::path::Path;
use std::sync::Arc;
use std::thread;

use super::tools::{Aligned, FsCheck, checks, expect_kind, pattern};
use crate::fs::{Access, File, Fs, read_full_at, write_all_at};

pub(super) const CHECKS: &[FsCheck] = checks![
    creation_is_exclusive,
    a_missing_name_is_not_found,
    two_handles_are_one_file,
    a_removed_file_stays_readable_through_its_handle,
    list_returns_the_names_that_exist,
    directories_are_created_once,
    a_missing_directory_cannot_be_synced,
    a_read_stops_at_the_end,
    a_gap_reads_as_zeros,
    slices_are_written_in_order,
    an_empty_write_changes_nothing,
    an_offset_out_of_reach_is_an_error,
    set_len_cuts_and_extends_with_zeros,
    allocation_keeps_contents_and_adds_zeros,
    a_read_only_handle_does_not_write,
    barriers_succeed_on_a_healthy_system,
    direct_writes_of_blocks_are_read_through_other_handles,
    a_direct_write_of_less_than_a_block_is_whole_or_refused,
    concurrent_writes_do_not_disturb_each_other,
    a_lock_excludes_other_handles_until_dropped,
    random_bytes_differ,
];

#[track_caller]
pub(super) fn create(fs: &dyn Fs, path: &Path, contents: &[u8]) -> Arc<dyn File> {
    let file = fs.create_new(path).expect("create_new");
    write_all_at(&*file, 0, &[IoSlice::new(contents)]).expect("write_at");
    file
}

#[track_caller]
pub(super) fn expect_contents(file: &dyn File, expected: &[u8]) {
    let len = usize::try_from(file.len().expect("len")).expect("a small file");
    assert_eq!(len, expected.len(), "another length");
    let mut found = vec![0xaa; len + 1];
    let n = read_full_at(file, 0, &mut found).expect("read_at");
    assert_eq!(n, len, "bytes read differ from the length");
    assert!(found[..n] == *expected, "other bytes");
}

#[track_caller]
pub(super) fn expect_file(fs: &dyn Fs, path: &Path, expected: &[u8]) {
    let file = fs.open(path, Access::Read).expect("open");
    expect_contents(&*file, expected);
}

fn creation_is_exclusive(fs: &dyn Fs, dir: &Path) {
    let path = dir.join("a");
    create(fs, &path, b"first");
    expect_kind(fs.create_new(&path), ErrorKind::AlreadyExists, "a second create_new");
    expect_file(fs, &path, b"first");
    let nowhere = dir.join("missing").join("a");
    expect_kind(fs.create_new(&nowhere), ErrorKind::NotFound, "create_new without a directory");
}

fn a_missing_name_is_not_found(fs: &dyn Fs, dir: &Path) {
    let (path, missing) = (dir.join("missing"), ErrorKind::NotFound);
    expect_kind(fs.open(&path, Access::Read), missing, "open for reading");
    expect_kind(fs.open(&path, Access::ReadWrite), missing, "open for writing");
    expect_kind(fs.remove(&path), missing, "remove");
    expect_kind(fs.list(&path), missing, "list");
    expect_list(fs, dir, &[]);
}

fn two_handles_are_one_file(fs: &dyn Fs, dir: &Path) {
    let path = dir.join("a");
    let first = create(fs, &path, b"one");
    let second = fs.open(&path, Access::ReadWrite).expect("open");
    write_all_at(&*second, 3, &[IoSlice::new(b", two")]).expect("write_at");
    expect_contents(&*first, b"one, two");
    first.set_len(3).expect("set_len");
    expect_contents(&*second, b"one");
}

fn a_removed_file_stays_readable_through_its_handle(fs: &dyn Fs, dir: &Path) {
    let path = dir.join("a");
    let old = create(fs, &path, b"old");
    fs.remove(&path).expect("remove");
    expect_kind(fs.open(&path, Access::Read), ErrorKind::NotFound, "open after remove");
    expect_contents(&*old, b"old");
    let new = create(fs, &path, b"another");
    write_all_at(&*old, 0, &[IoSlice::new(b"OLD")]).expect("write to the removed file");
    expect_contents(&*old, b"OLD");
    expect_contents(&*new, b"another");
}

#[track_caller]
pub(super) fn expect_list(fs: &dyn Fs, dir: &Path, expected: &[&str]) {
    let names = fs.list(dir).expect("list");
    let found: BTreeSet<OsString> = names.iter().cloned().collect();
    assert_eq!(found.len(), names.len(), "a name is listed twice");
    let expected: BTreeSet<OsString> = expected.iter().map(OsString::from).collect();
    assert_eq!(found, expected, "other names");
}

fn list_returns_the_names_that_exist(fs: &dyn Fs, dir: &Path) {
    expect_list(fs, dir, &[]);
    for name in ["a", "b", "c"] {
        create(fs, &dir.join(name), b"");
    }
    fs.create_dir(&dir.join("d")).expect("create_dir");
    create(fs, &dir.join("d").join("inside"), b"");
    expect_list(fs, dir, &["a", "b", "c", "d"]);
    fs.remove(&dir.join("b")).expect("remove");
    expect_list(fs, dir, &["a", "c", "d"]);
}

fn directories_are_created_once(fs: &dyn Fs, dir: &Path) {
    let sub = dir.join("sub");
    fs.create_dir(&sub).expect("create_dir");
    expect_kind(fs.create_dir(&sub), ErrorKind::AlreadyExists, "a second create_dir");
    let file = dir.join("file");
    create(fs, &file, b"");
    expect_kind(fs.create_dir(&file), ErrorKind::AlreadyExists, "create_dir over a file");
    let deep = dir.join("x").join("y");
    expect_kind(fs.create_dir(&deep), ErrorKind::NotFound, "create_dir without a parent");
}

fn a_missing_directory_cannot_be_synced(fs: &dyn Fs, dir: &Path) {
    fs.sync_dir(dir).expect("sync_dir");
    expect_kind(fs.sync_dir(&dir.join("missing")), ErrorKind::NotFound, "sync_dir");
    create(fs, &dir.join("file"), b"");
    let synced = fs.sync_dir(&dir.join("file"));
    assert!(synced.is_err(), "a file was synced as a directory");
}

fn a_read_stops_at_the_end(fs: &dyn Fs, dir: &Path) {
    let file = create(fs, &dir.join("a"), b"abc");
    for offset in [3, 4, 1 << 40, i64::MAX as u64, u64::MAX] {
        let n = file.read_at(offset, &mut [0; 4]).expect("a read after the end");
        assert_eq!(n, 0, "a read at {offset}");
    }
    let mut buf = [0xff; 8];
    assert_eq!(read_full_at(&*file, 1, &mut buf).expect("read_at"), 2);
    assert_eq!(&buf[..2], b"bc");
    assert!(!file.is_empty().expect("is_empty"));
}

fn a_gap_reads_as_zeros(fs: &dyn Fs, dir: &Path) {
    let file = create(fs, &dir.join("a"), b"abc");
    write_all_at(&*file, 10_000, &[IoSlice::new(b"x")]).expect("write_at");
    let mut expected = b"abc".to_vec();
    expected.resize(10_000, 0);
    expected.push(b'x');
    expect_contents(&*file, &expected);
}

fn slices_are_written_in_order(fs: &dyn Fs, dir: &Path) {
    let file = create(fs, &dir.join("a"), b"");
    let bytes = pattern(30, 6000);
    // Empty ones first and in between, and more than one system call takes.
    let mut slices = vec![IoSlice::new(b"")];
    for chunk in bytes.chunks(3) {
        slices.extend([IoSlice::new(chunk), IoSlice::new(b"")]);
    }
    let n = file.write_at(0, &slices).expect("write_at");
    assert!(n > 0 && n <= bytes.len(), "{n} bytes written of {}", bytes.len());
    expect_contents(&*file, &bytes[..n]);
    write_all_at(&*file, 0, &slices).expect("write_all_at");
    expect_contents(&*file, &bytes);
}

fn an_empty_write_changes_nothing(fs: &dyn Fs, dir: &Path) {
    let file = create(fs, &dir.join("a"), b"abc");
    write_all_at(&*file, 100, &[]).expect("no slices");
    assert_eq!(file.write_at(100, &[IoSlice::new(b"")]).expect("an empty slice"), 0);
    expect_contents(&*file, b"abc");
}

fn an_offset_out_of_reach_is_an_error(fs: &dyn Fs, dir: &Path) {
    let file = create(fs, &dir.join("a"), b"abc");
    for offset in [u64::MAX - 1, u64::MAX, i64::MAX as u64 + 1] {
        let written = write_all_at(&*file, offset, &[IoSlice::new(b"wxyz")]);
        assert!(written.is_err(), "a write at {offset} said Ok");
    }
    assert!(file.set_len(u64::MAX).is_err(), "a length of u64::MAX was accepted");
    assert!(file.allocate(u64::MAX, 2).is_err(), "an overflowing allocation was accepted");
    expect_contents(&*file, b"abc");
}

fn set_len_cuts_and_extends_with_zeros(fs: &dyn Fs, dir: &Path) {
    let bytes = pattern(31, 10_000);
    let file = create(fs, &dir.join("a"), &bytes);
    for len in [9000, 8192, 5000, 1] {
        file.set_len(len as u64).expect("set_len");
        expect_contents(&*file, &bytes[..len]);
    }
    file.set_len(10_000).expect("set_len");
    let mut expected = bytes[..1].to_vec();
    expected.resize(10_000, 0);
    expect_contents(&*file, &expected);
    file.set_len(0).expect("set_len");
    assert!(file.is_empty().expect("is_empty"));
}

fn allocation_keeps_contents_and_adds_zeros(fs: &dyn Fs, dir: &Path) {
    let mut expected = pattern(32, 5000);
    let file = create(fs, &dir.join("a"), &expected);
    match file.allocate(4000, 20_000) {
        Ok(()) => {
            expected.resize(24_000, 0);
            expect_contents(&*file, &expected);
            file.allocate(0, 100).expect("allocation inside the file");
        }
        Err(e) if e.kind() == ErrorKind::Unsupported => {}
        Err(e) => panic!("allocation must succeed or be unsupported, not: {e}"),
    }
    expect_contents(&*file, &expected);
}

fn a_read_only_handle_does_not_write(fs: &dyn Fs, dir: &Path) {
    let path = dir.join("a");
    create(fs, &path, b"abc");
    let file = fs.open(&path, Access::Read).expect("open");
    let written = write_all_at(&*file, 0, &[IoSlice::new(b"x")]);
    assert!(written.is_err(), "a write through a read-only handle said Ok");
    assert!(file.set_len(0).is_err(), "a cut through a read-only handle said Ok");
    expect_contents(&*file, b"abc");
}

fn barriers_succeed_on_a_healthy_system(fs: &dyn Fs, dir: &Path) {
    let file = create(fs, &dir.join("a"), b"abc");
    for _ in 0..2 {
        file.sync_data().expect("sync_data");
        fs.sync_dir(dir).expect("sync_dir");
    }
    fs.remove(&dir.join("a")).expect("remove");
    file.sync_data().expect("sync_data of a removed file");
    fs.sync_dir(dir).expect("sync_dir after a removal");
}

/// The direct handle of an existing file, if the file system has such handles.
fn open_direct(fs: &dyn Fs, path: &Path) -> Option<Arc<dyn File>> {
    let (dir, name) = fs.open_parent(path).expect("open_dir");
    let file = dir.open(name, Access::ReadWrite).expect("open");
    expect_kind(
        dir.open_direct("missing".as_ref(), &*file).map_err(|e| match e.kind() {
            ErrorKind::Unsupported => ErrorKind::NotFound.into(),
            _ => e,
        }),
        ErrorKind::NotFound,
        "open_direct of a missing file",
    );
    match dir.open_direct(name, &*file) {
        Ok(direct) => {
            let block = direct.block_size();
            assert!(block.is_power_of_two(), "a block of {block} bytes");
            Some(direct)
        }
        Err(e) if e.kind() == ErrorKind::Unsupported => None,
        Err(e) => panic!("a direct handle must be opened or be unsupported, not: {e}"),
    }
}

fn direct_writes_of_blocks_are_read_through_other_handles(fs: &dyn Fs, dir: &Path) {
    let path = dir.join("a");
    let file = create(fs, &path, b"");
    assert_eq!(file.block_size(), 1, "the block of an ordinary handle");
    let Some(direct) = open_direct(fs, &path) else { return };
    let block = direct.block_size();
    let mut expected = pattern(34, 3 * block);
    write_all_at(&*file, 0, &[IoSlice::new(&expected)]).expect("write_at");
    // Over bytes that no barrier has covered, inside, at the end, and behind it.
    for (seed, at, blocks) in [(35, 1, 1), (36, 2, 2), (37, 6, 1), (38, 0, 3)] {
        let bytes = Aligned::pattern(seed, blocks * block, block);
        let slices = [IoSlice::new(&bytes[..block]), IoSlice::new(&bytes[block..])];
        write_all_at(&*direct, (at * block) as u64, &slices[..blocks.min(2)])
            .expect("a direct write");
        expected.resize(expected.len().max((at + blocks) * block), 0);
        expected[at * block..(at + blocks) * block].copy_from_slice(&bytes);
        expect_contents(&*file, &expected);
        assert_eq!(direct.len().expect("len"), expected.len() as u64);
    }
    // And the other way round.
    write_all_at(&*file, 5, &[IoSlice::new(b"five")]).expect("write_at");
    expected[5..9].copy_from_slice(b"five");
    let bytes = Aligned::pattern(39, block, block);
    write_all_at(&*direct, block as u64, &[IoSlice::new(&bytes)]).expect("a direct write");
    expected[block..2 * block].copy_from_slice(&bytes);
    file.sync_data().expect("sync_data");
    expect_contents(&*file, &expected);
}

fn a_direct_write_of_less_than_a_block_is_whole_or_refused(fs: &dyn Fs, dir: &Path) {
    let path = dir.join("a");
    let old = pattern(45, 70_000);
    let file = create(fs, &path, &old);
    let Some(direct) = open_direct(fs, &path) else { return };
    let block = direct.block_size();
    let bytes = Aligned::pattern(46, 2 * block, block);
    for (offset, part) in [(1, &bytes[..block]), (0, &bytes[..block - 1]), (0, &bytes[1..=block])] {
        let mut expected = old.clone();
        match direct.write_at(offset as u64, &[IoSlice::new(part)]) {
            Ok(n) => expected[offset..offset + n].copy_from_slice(&part[..n]),
            Err(e) => {
                assert_eq!(
                    e.kind(),
                    ErrorKind::InvalidInput,
                    "a direct write of {} bytes at {offset}",
                    part.len()
                )
            }
        }
        expect_contents(&*file, &expected);
        write_all_at(&*file, 0, &[IoSlice::new(&old)]).expect("write_at");
    }
}

fn concurrent_writes_do_not_disturb_each_other(fs: &dyn Fs, dir: &Path) {
    const STRIPE: usize = 333;
    let file = create(fs, &dir.join("a"), b"");
    let expected = pattern(33, STRIPE * 64);
    thread::scope(|scope| {
        for first in 0..4 {
            let (file, expected) = (&file, &expected);
            scope.spawn(move || {
                for at in (first..64).step_by(4).map(|stripe| stripe * STRIPE) {
                    let slices = [IoSlice::new(&expected[at..at + STRIPE])];
                    write_all_at(&**file, at as u64, &slices).expect("write_at");
                }
            });
        }
    });
    expect_contents(&*file, &expected);
}

fn a_lock_excludes_other_handles_until_dropped(fs: &dyn Fs, dir: &Path) {
    let path = dir.join("a");
    let first = create(fs, &path, b"");
    let second = fs.open(&path, Access::ReadWrite).expect("open");
    assert!(first.try_lock().expect("try_lock"), "a free lock was refused");
    assert!(!second.try_lock().expect("try_lock"), "two handles hold the lock");
    drop(first);
    assert!(second.try_lock().expect("try_lock"), "the lock outlived its handle");
    let third = fs.open(&path, Access::ReadWrite).expect("open");
    second.unlock().expect("unlock");
    assert!(third.try_lock().expect("try_lock"), "a lock that was given back was refused");
    second.unlock().expect("unlock of what is not locked");
    assert!(!second.try_lock().expect("try_lock"), "a handle gave another one's lock back");
    let other = create(fs, &dir.join("b"), b"");
    assert!(other.try_lock().expect("try_lock"), "another file's lock is in the way");
}

fn random_bytes_differ(fs: &dyn Fs, _dir: &Path) {
    let first = fs.random().expect("random");
    assert_ne!(first, fs.random().expect("random"), "random() repeats itself");
}
