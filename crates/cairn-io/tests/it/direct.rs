//! Writes past the page cache: which way a store takes, what it does when that way is refused, and
//! what others see meanwhile.
//!
//! guards: L02, L08, L46, L47

use std::io::{self, ErrorKind, IoSlice};
use std::path::Path;
use std::sync::{Arc, Barrier};
use std::thread;

use cairn_io::{
    Access, Backend, DirectStore, File, Fs, Layer, Layered, NativeFs, Stat, Store, Through,
};
use cairn_sim::{Call, Errno, FaultPlan, SimFs};
use cairn_trial::WatchedFs;
use tempfile::TempDir;

/// A whole number of any device's blocks.
#[derive(Clone)]
#[repr(align(4096))]
pub(crate) struct Block(pub(crate) [u8; 4096]);

/// A directory where direct writes are possible; `None`, and a line saying so, where there is none.
#[expect(clippy::print_stdout, reason = "a test that checks nothing must not look as if it did")]
pub(crate) fn direct_dir() -> Option<TempDir> {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = dir.path().join("probe");
    NativeFs.create_new(&path).unwrap();
    let opened = NativeFs.open_direct(&path);
    NativeFs.remove(&path).unwrap();
    match opened {
        Ok(_) => Some(dir),
        Err(e) => {
            assert_eq!(e.kind(), ErrorKind::Unsupported);
            println!("SKIPPED: no direct writes in {}", dir.path().display());
            None
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Refusal {
    Open,
    Write(ErrorKind),
}

/// Direct writes are refused: when the handle is opened, or not before the first write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refusing(pub(crate) Refusal);

/// The real file system, without direct writes.
pub(crate) fn refusing(refusal: Refusal) -> Layered<Refusing> {
    Layered::new(Arc::new(NativeFs), Refusing(refusal))
}

#[derive(Debug)]
struct RefusingFile(Arc<dyn File>, ErrorKind);

impl Layer for Refusing {
    fn before(&self, call: Through, _: &Path, _: Option<&Path>) -> io::Result<()> {
        match (call, self.0) {
            (Through::OpenDirect, Refusal::Open) => Err(ErrorKind::Unsupported.into()),
            _ => Ok(()),
        }
    }
    fn file(&self, call: Through, path: &Path, file: Arc<dyn File>) -> io::Result<Arc<dyn File>> {
        match (call, self.0) {
            (Through::OpenDirect, Refusal::Write(kind)) => {
                Ok(Arc::new(RefusingFile(NativeFs.open(path, Access::ReadWrite)?, kind)))
            }
            _ => Ok(file),
        }
    }
}

impl File for RefusingFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(offset, buf)
    }
    fn write_at(&self, _offset: u64, _slices: &[IoSlice<'_>]) -> io::Result<usize> {
        Err(self.1.into())
    }
    fn block_size(&self) -> usize {
        512
    }
    fn backend(&self) -> Backend {
        Backend::Direct
    }
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.0.allocate(offset, len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
    fn try_lock(&self) -> io::Result<bool> {
        self.0.try_lock()
    }
    fn unlock(&self) -> io::Result<()> {
        self.0.unlock()
    }
    fn stat(&self) -> io::Result<Stat> {
        self.0.stat()
    }
    fn data_from(&self, offset: u64) -> io::Result<u64> {
        self.0.data_from(offset)
    }
}

/// What the simulated machine was asked to write directly, and to sync.
fn calls(sim: &SimFs) -> (u64, u64, u64) {
    let counters = sim.counters();
    (counters.calls(Call::WriteDirect), counters.calls(Call::Write), counters.calls(Call::Sync))
}

fn simulated() -> (SimFs, DirectStore) {
    let sim = SimFs::new();
    let store = DirectStore::open(&sim, Path::new("/data")).unwrap();
    (sim, store)
}

#[test]
fn blocks_are_one_direct_write_and_no_barrier() {
    let (sim, store) = simulated();
    let block = Block([1; 4096]);
    assert_eq!((store.backend(), store.block_size()), (Backend::Direct, 512));
    store
        .write_durable(
            512,
            &[IoSlice::new(&block.0), IoSlice::new(b""), IoSlice::new(&block.0[512..1024])],
        )
        .unwrap();
    assert_eq!(calls(&sim), (1, 0, 0));
    assert!(sim.dirty().is_empty());
}

#[test]
fn what_is_no_block_is_written_and_synced() {
    let block = Block([1; 4096]);
    let cases: [(u64, &[u8]); 4] =
        [(0, &block.0[..100]), (100, &block.0), (0, &block.0[8..520]), (512, b"abc")];
    for (offset, bytes) in cases {
        let (sim, store) = simulated();
        store.write_durable(offset, &[IoSlice::new(bytes)]).unwrap();
        assert_eq!(calls(&sim), (0, 1, 1), "{} bytes at {offset}", bytes.len());
        assert!(sim.dirty().is_empty());
        assert_eq!(store.backend(), Backend::Direct);
    }
}

#[test]
fn a_refused_write_is_done_the_other_way_and_so_are_all_later_ones() {
    let block = Block([1; 4096]);
    for errno in [Errno::Enotsup, Errno::Kind(ErrorKind::InvalidInput)] {
        let (sim, store) = simulated();
        store.write_durable(0, &[IoSlice::new(&block.0)]).unwrap();
        sim.set_faults(FaultPlan::new().fail(Call::WriteDirect, 0, errno));
        store.write_durable(4096, &[IoSlice::new(&block.0)]).unwrap();
        assert_eq!(calls(&sim), (2, 1, 1), "{errno:?}");
        assert_eq!(store.backend(), Backend::Buffered);
        store.write_durable(8192, &[IoSlice::new(&block.0)]).unwrap();
        assert_eq!(calls(&sim), (2, 2, 2), "{errno:?}");
        assert_eq!(store.block_size(), 512, "callers have sized their buffers by it");
        assert!(sim.dirty().is_empty());
    }
}

/// The last byte of the largest file would be one too far: no way of writing takes that, and the
/// next write is direct again.
#[test]
fn a_write_that_no_way_takes_does_not_give_up_direct_writes() {
    let (sim, store) = simulated();
    let block = Block([1; 4096]);
    sim.set_faults(
        FaultPlan::new().fail(Call::WriteDirect, 0, Errno::Kind(ErrorKind::InvalidInput)).fail(
            Call::Write,
            0,
            Errno::Kind(ErrorKind::InvalidInput),
        ),
    );
    store.write_durable(0, &[IoSlice::new(&block.0)]).unwrap_err();
    assert_eq!(store.backend(), Backend::Direct);
    store.write_durable(0, &[IoSlice::new(&block.0)]).unwrap();
    assert_eq!(calls(&sim).0, 2);
    let Some(dir) = direct_dir() else { return };
    let store = DirectStore::open(&NativeFs, &dir.path().join("data")).unwrap();
    store.write_durable(i64::MAX as u64 - 4095, &[IoSlice::new(&block.0)]).unwrap_err();
    // Where the system says "too large" instead, the store has stopped: whether bytes were written
    // is not known from an error.
    match store.sync() {
        Ok(()) => store.write_durable(0, &[IoSlice::new(&block.0)]).unwrap(),
        Err(e) => assert_eq!(e.kind(), ErrorKind::FileTooLarge),
    }
}

#[test]
fn a_refusal_after_a_part_was_written_is_a_failure() {
    let (sim, store) = simulated();
    let block = Block([1; 4096]);
    sim.set_faults(FaultPlan::new().on(
        Call::WriteDirect,
        0..1,
        cairn_sim::Fault::ShortThenFail(700, Errno::Kind(ErrorKind::InvalidInput)),
    ));
    store.write_durable(0, &[IoSlice::new(&block.0)]).unwrap_err();
    store.sync().unwrap_err();
    assert_eq!(store.backend(), Backend::Direct);
}

#[test]
fn a_write_that_never_gets_on_fails() {
    let (sim, store) = simulated();
    let block = Block([1; 4096]);
    sim.set_faults(FaultPlan::new().on(
        Call::WriteDirect,
        1..u64::MAX,
        cairn_sim::Fault::Short(100),
    ));
    store.write_durable(0, &[IoSlice::new(&block.0)]).unwrap();
    let e = store.write_durable(4096, &[IoSlice::new(&block.0)]).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::WriteZero);
    store.sync().unwrap_err();
}

/// Another write that was under way when one failed says nothing that could be taken for success,
/// nor does a barrier.
#[test]
fn no_call_says_ok_after_a_failure_beside_it() {
    for call in [Call::WriteDirect, Call::Sync] {
        let (sim, store) = simulated();
        store.write_at(0, b"abc").unwrap();
        let plan = match call {
            Call::Sync => FaultPlan::new().fail(Call::WriteDirect, 0, Errno::Eio),
            _ => FaultPlan::new().fail(Call::Sync, 0, Errno::Eio),
        };
        sim.set_faults(plan);
        let hold = sim.hold(call);
        thread::scope(|scope| {
            let held = scope.spawn(|| match call {
                Call::Sync => store.sync(),
                _ => store.write_durable(4096, &[IoSlice::new(&Block([1; 4096]).0)]),
            });
            hold.wait_for(1);
            // Neither waits for the other.
            let failed = match call {
                Call::Sync => store.write_durable(4096, &[IoSlice::new(&Block([1; 4096]).0)]),
                _ => store.sync(),
            };
            failed.unwrap_err();
            store.write_at(0, b"x").unwrap_err();
            drop(hold);
            held.join().unwrap().unwrap_err();
        });
        assert_eq!(sim.counters().faults, 1);
    }
}

#[test]
fn direct_writes_run_beside_each_other_and_beside_a_barrier() {
    let (sim, store) = simulated();
    let hold = sim.hold(Call::WriteDirect);
    thread::scope(|scope| {
        for place in 0..3 {
            let store = &store;
            scope.spawn(move || {
                store.write_durable(place * 4096, &[IoSlice::new(&Block([1; 4096]).0)]).unwrap()
            });
        }
        hold.wait_for(3);
        store.sync().unwrap();
        drop(hold);
    });
    assert_eq!(store.len().unwrap(), 3 * 4096);
}

#[test]
fn direct_bytes_are_behind_a_barrier_and_others_are_not() {
    let Some(dir) = direct_dir() else { return };
    let fs = WatchedFs::default();
    let store = DirectStore::open(&fs, &dir.path().join("data")).unwrap();
    let block = Block([1; 4096]);
    store.write_durable(0, &[IoSlice::new(&block.0)]).unwrap();
    fs.expect_synced();
    store.write_at(5, b"abc").unwrap();
    store.write_durable(0, &[IoSlice::new(&block.0)]).unwrap();
    assert_eq!(fs.unsynced().len(), 1);
    store.sync().unwrap();
    fs.expect_synced();
}

/// Readers follow a writer of blocks: what is acknowledged is read, in whole blocks, through the
/// page cache and from the start.
#[test]
fn readers_see_what_is_written_past_the_page_cache() {
    const BLOCKS: u8 = 200;
    let Some(dir) = direct_dir() else { return };
    let store = DirectStore::open(&NativeFs, &dir.path().join("data")).unwrap();
    store.write_at(0, &vec![0; usize::from(BLOCKS) * 4096]).unwrap();
    let written = std::sync::atomic::AtomicU8::new(0);
    let start = Barrier::new(3);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                start.wait();
                let mut found = vec![0; usize::from(BLOCKS) * 4096];
                loop {
                    let done = written.load(std::sync::atomic::Ordering::SeqCst);
                    store.read_at(0, &mut found).unwrap();
                    for (block, byte) in found.chunks(4096).zip(1..=done) {
                        assert!(
                            block.iter().all(|found| *found == byte),
                            "block {byte} of {done} is not what was written"
                        );
                    }
                    if done == BLOCKS {
                        return;
                    }
                }
            });
        }
        start.wait();
        for byte in 1..=BLOCKS {
            store
                .write_durable(u64::from(byte - 1) * 4096, &[IoSlice::new(&Block([byte; 4096]).0)])
                .unwrap();
            written.store(byte, std::sync::atomic::Ordering::SeqCst);
        }
    });
}

#[test]
fn stores_say_how_they_write() {
    let dir = tempfile::tempdir().unwrap();
    let file = cairn_io::FileStore::open(&NativeFs, &dir.path().join("file")).unwrap();
    let refusing = DirectStore::open(&refusing(Refusal::Open), &dir.path().join("direct")).unwrap();
    let memory = cairn_io::MemStore::new();
    let stores: [(&dyn Store, &str); 3] =
        [(&file, "buffered"), (&refusing, "buffered"), (&memory, "memory")];
    for (store, name) in stores {
        assert_eq!((store.backend().to_string().as_str(), store.block_size()), (name, 1));
    }
    let missing = NativeFs.open_direct(&dir.path().join("missing"));
    assert!([ErrorKind::NotFound, ErrorKind::Unsupported].contains(&missing.unwrap_err().kind()));
}
