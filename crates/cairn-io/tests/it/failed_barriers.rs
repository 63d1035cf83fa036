//! After a failed barrier nothing is written and no barrier says Ok, for whomever it was.
//!
//! guards: L02, L08, L51, L52

use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

use cairn_io::{Backend, DirectStore, File, FileStore, Fs, NativeFs, Stat, Store};
use cairn_trial::{WatchedFs, expect_stopped};

use crate::direct::{Block, direct_dir};

#[test]
fn file_store_latches_the_first_failed_barrier() {
    let (fs, dir) = (WatchedFs::default(), tempfile::tempdir().unwrap());
    let store = FileStore::open(&fs, &dir.path().join("data")).unwrap();
    store.write_durable(0, &[IoSlice::new(b"abc")]).unwrap();
    store.write_at(0, b"abc").unwrap();
    fs.fail_at(0);
    store.sync().unwrap_err();
    assert_eq!(fs.failed(), Some("sync_data"));
    expect_stopped(&store);
}

#[test]
fn direct_store_latches_the_first_failed_barrier_and_the_first_failed_direct_write() {
    let Some(dir) = direct_dir() else { return };
    let block = Block([b'x'; 4096]);
    for (name, kind) in [("a", "sync_data"), ("b", "write_direct")] {
        let fs = WatchedFs::default();
        let store = DirectStore::open(&fs, &dir.path().join(name)).unwrap();
        store.write_durable(0, &[IoSlice::new(&block.0)]).unwrap();
        store.write_durable(0, &[IoSlice::new(b"abc")]).unwrap();
        store.write_at(0, b"abc").unwrap();
        fs.fail_at(0);
        let failed = match kind {
            "sync_data" => store.sync(),
            _ => store.write_durable(4096, &[IoSlice::new(&block.0)]),
        };
        failed.unwrap_err();
        assert_eq!(fs.failed(), Some(kind));
        expect_stopped(&store);
        store.write_durable(0, &[IoSlice::new(&block.0)]).unwrap_err();
        assert_eq!(store.backend(), Backend::Direct, "a failure is no refusal");
    }
}

#[test]
fn a_failed_write_alone_stops_nothing() {
    let (fs, dir) = (WatchedFs::default(), tempfile::tempdir().unwrap());
    let store = FileStore::open(&fs, &dir.path().join("data")).unwrap();
    store.write_at(0, b"abc").unwrap();
    fs.fail_at(0);
    store.write_at(3, b"def").unwrap_err();
    store.sync().unwrap();
    store.write_durable(3, &[IoSlice::new(b"def")]).unwrap();
    fs.expect_synced();
}

/// As Linux does it: each failure is reported once, to whichever barrier comes first.
#[derive(Debug)]
struct ReportsOnce {
    inner: Arc<dyn File>,
    barriers: AtomicU64,
    running: AtomicU64,
}

impl File for ReportsOnce {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.inner.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.inner.write_at(offset, slices)
    }
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }
    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.inner.allocate(offset, len)
    }
    fn sync_data(&self) -> io::Result<()> {
        let alone = self.running.fetch_add(1, Ordering::SeqCst) == 0;
        let n = self.barriers.fetch_add(1, Ordering::SeqCst);
        thread::sleep(std::time::Duration::from_millis(2));
        self.running.fetch_sub(1, Ordering::SeqCst);
        assert!(alone, "two barriers at once: one of them would take the other's error");
        if n == 0 { Err(io::Error::other("injected once")) } else { Ok(()) }
    }
    fn try_lock(&self) -> io::Result<bool> {
        self.inner.try_lock()
    }
    fn unlock(&self) -> io::Result<()> {
        Ok(())
    }
    fn stat(&self) -> io::Result<Stat> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[test]
fn an_error_reported_once_reaches_every_waiter() {
    let dir = tempfile::tempdir().unwrap();
    let inner = NativeFs.create_new(&dir.path().join("data")).unwrap();
    let file = ReportsOnce { inner, barriers: AtomicU64::new(0), running: AtomicU64::new(0) };
    let store = FileStore::new(Arc::new(file));
    let start = Barrier::new(8);
    let ok = thread::scope(|scope| {
        let waiters = [(); 8].map(|()| {
            scope.spawn(|| {
                store.write_at(0, b"abc").unwrap();
                start.wait();
                store.sync().is_ok()
            })
        });
        waiters.map(|w| w.join().unwrap())
    });
    assert_eq!(ok, [false; 8], "somebody was told Ok about lost bytes");
    expect_stopped(&store);
}

/// Counts barriers: each takes a while, so that waiters pile up.
#[test]
fn waiters_share_barriers() {
    let dir = tempfile::tempdir().unwrap();
    let inner = NativeFs.create_new(&dir.path().join("data")).unwrap();
    let file =
        Arc::new(ReportsOnce { inner, barriers: AtomicU64::new(1), running: AtomicU64::new(0) });
    let store = FileStore::new(Arc::clone(&file) as Arc<dyn File>);
    let start = Barrier::new(16);
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                start.wait();
                store.sync().unwrap();
            });
        }
    });
    // The first may begin before the others called, and one that is late runs its own; never one
    // each.
    let barriers = file.barriers.load(Ordering::SeqCst) - 1;
    assert!(barriers < 16, "{barriers} barriers for 16 waiters");
}
