//! Every implementation of the seams runs the contract suites, and the suites can fail.
//!
//! guards: L33 (overflowing sizes), L47 (a suite that cannot fail proves nothing)

use std::cell::Cell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use cairn_io::{Backend, DirectStore, FileStore, Fs, MemStore, NativeFs, Store, contract};
use cairn_sim::{SectorSize, SimFs, SimOptions};
use cairn_trial::WatchedFs;
use tempfile::TempDir;

use crate::direct::{Refusal, direct_dir, refusing};

/// Makes stores in directories of their own, which live as long as the test.
fn in_directories(make: impl Fn(&TempDir) -> Box<dyn Store>) {
    let dirs = Cell::new(Vec::new());
    contract::store(|| {
        let dir = tempfile::tempdir().unwrap();
        let store = make(&dir);
        let mut all = dirs.take();
        all.push(dir);
        dirs.set(all);
        store
    });
}

#[test]
fn native_fs_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    contract::fs(&NativeFs, dir.path());
}

#[test]
fn the_watched_file_system_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    contract::fs(&WatchedFs::default(), dir.path());
}

#[cfg(unix)]
#[test]
fn file_systems_that_have_links_keep_the_contract() {
    use std::os::unix::fs::symlink;
    let all: [&dyn Fs; 2] = [&NativeFs, &WatchedFs::default()];
    for fs in all {
        let dir = tempfile::tempdir().unwrap();
        contract::symbolic_links(fs, dir.path(), &|to, name| symlink(to, name));
    }
}

#[test]
fn mem_store_keeps_the_contract() {
    contract::store(|| Box::new(MemStore::new()));
    contract::store(|| Box::new(MemStore::with_capacity(1 << 16)));
}

#[test]
fn file_store_keeps_the_contract() {
    in_directories(|dir| Box::new(FileStore::open(&NativeFs, &dir.path().join("data")).unwrap()));
}

#[test]
fn file_store_keeps_the_contract_over_short_and_interrupted_calls() {
    let fs = WatchedFs::default();
    fs.be_choppy();
    in_directories(|dir| Box::new(FileStore::open(&fs, &dir.path().join("data")).unwrap()));
}

/// As [`in_directories`], where direct writes are possible.
fn in_direct_directories(make: impl Fn(&TempDir) -> Box<dyn Store>) {
    if direct_dir().is_none() {
        return;
    }
    let dirs = Cell::new(Vec::new());
    contract::store(|| {
        let dir = direct_dir().unwrap();
        let store = make(&dir);
        assert_ne!(store.backend(), Backend::Buffered);
        let mut all = dirs.take();
        all.push(dir);
        dirs.set(all);
        store
    });
}

#[test]
fn direct_files_keep_the_contract() {
    let Some(dir) = direct_dir() else { return };
    contract::fs(&NativeFs, dir.path());
}

#[test]
fn direct_store_keeps_the_contract() {
    in_direct_directories(|dir| {
        Box::new(DirectStore::open(&NativeFs, &dir.path().join("data")).unwrap())
    });
}

#[test]
fn direct_store_keeps_the_contract_on_a_simulated_machine() {
    for size in [SectorSize::Bytes512, SectorSize::Bytes4096] {
        contract::store(|| {
            let sim = SimFs::with_options(SimOptions::new().sector_size(size));
            Box::new(DirectStore::open(&sim, Path::new("/data")).unwrap())
        });
    }
    let sim = SimFs::new();
    contract::reopened_store(|| Box::new(DirectStore::open(&sim, Path::new("/data")).unwrap()));
}

#[test]
fn direct_store_keeps_the_contract_over_short_and_interrupted_calls() {
    let fs = WatchedFs::default();
    fs.be_choppy();
    in_direct_directories(|dir| {
        Box::new(DirectStore::open(&fs, &dir.path().join("data")).unwrap())
    });
}

/// Whatever way the file system takes, and where it takes none.
#[test]
fn direct_store_keeps_the_contract_where_direct_writes_are_refused() {
    in_directories(|dir| {
        Box::new(DirectStore::open(&refusing(Refusal::Open), &dir.path().join("data")).unwrap())
    });
    for kind in [io::ErrorKind::InvalidInput, io::ErrorKind::Unsupported] {
        let fs = refusing(Refusal::Write(kind));
        in_directories(|dir| Box::new(DirectStore::open(&fs, &dir.path().join("data")).unwrap()));
    }
}

#[test]
fn reopened_stores_are_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    contract::reopened_store(|| Box::new(FileStore::open(&NativeFs, &path).unwrap()));
    if let Some(dir) = direct_dir() {
        let path = dir.path().join("data");
        contract::reopened_store(|| Box::new(DirectStore::open(&NativeFs, &path).unwrap()));
    }
}

#[test]
fn mem_store_hands_out_its_bytes() {
    let store = MemStore::from_bytes(*b"0123456789");
    assert_eq!(store.truncate_before(4).unwrap(), 4);
    let copy = store.clone();
    store.write_at(4, b"x").unwrap();
    assert_eq!(store.into_bytes(), b"x56789");
    assert_eq!(copy.to_bytes(), b"456789");
    assert_eq!(copy.head(), 4);
}

#[test]
fn mem_store_refuses_what_does_not_fit() {
    let store = MemStore::new();
    let e = store.preallocate(0, u64::MAX).unwrap_err();
    assert_eq!(e.kind(), io::ErrorKind::OutOfMemory);
    let e = store.write_at(u64::MAX - 1, b"x").unwrap_err();
    assert_eq!(e.kind(), io::ErrorKind::OutOfMemory);
    assert_eq!(store.len().unwrap(), 0);
}

/// What a broken store does wrong.
#[derive(Clone, Copy, Debug)]
enum Fault {
    TruncateKeepsBytes,
    TruncateExtends,
    ShortReads,
    LostWrite,
    HeadTooFar,
    EmptyWriteGrows,
    PreallocationClears,
}

#[derive(Debug)]
struct Broken(MemStore, Fault);

impl Store for Broken {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        match self.1 {
            Fault::EmptyWriteGrows if bytes.is_empty() => {
                self.0.write_at(offset, b"x")?;
                self.0.truncate(offset)
            }
            Fault::LostWrite if offset == 4095 => Ok(()),
            _ => self.0.write_at(offset, bytes),
        }
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let n = match self.1 {
            Fault::ShortReads => buf.len().min(65_536),
            _ => buf.len(),
        };
        self.0.read_at(offset, &mut buf[..n])
    }
    fn truncate(&self, len: u64) -> io::Result<()> {
        match self.1 {
            Fault::TruncateKeepsBytes => Ok(()),
            Fault::TruncateExtends if len > self.0.len()? && len < 1 << 20 => {
                self.0.write_at(len - 1, &[0])
            }
            _ => self.0.truncate(len),
        }
    }
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn head(&self) -> u64 {
        self.0.head()
    }
    fn truncate_before(&self, offset: u64) -> io::Result<u64> {
        let more = matches!(self.1, Fault::HeadTooFar) && offset < self.0.len()?;
        self.0.truncate_before(offset + u64::from(more))
    }
    fn preallocate(&self, offset: u64, len: u64) -> io::Result<()> {
        match self.1 {
            Fault::PreallocationClears if len > 0 && len < 1 << 20 => {
                self.0.write_at(offset, &vec![0; usize::try_from(len).unwrap()])
            }
            _ => self.0.preallocate(offset, len),
        }
    }
}

#[test]
fn the_suite_finds_broken_stores() {
    use Fault::*;
    for (fault, check) in [
        (TruncateKeepsBytes, "truncation_drops_the_tail"),
        (TruncateExtends, "truncation_at_or_beyond_the_end_changes_nothing"),
        (ShortReads, "a_read_is_short_only_at_the_end"),
        (LostWrite, "an_overwrite_changes_its_range_only"),
        (HeadTooFar, "the_head_never_exceeds_the_offset_asked_for"),
        (EmptyWriteGrows, "an_empty_write_changes_nothing"),
        (PreallocationClears, "preallocation_keeps_what_is_stored"),
    ] {
        let suite = || contract::store(|| Box::new(Broken(MemStore::new(), fault)));
        let panic = catch_unwind(AssertUnwindSafe(suite)).expect_err("a broken store passed");
        let text = panic.downcast_ref::<String>().unwrap();
        assert!(text.contains(check), "{fault:?}: {text}");
    }
}
