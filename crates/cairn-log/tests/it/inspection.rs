//! guards: L11 L12
//!
//! Looking at a log that somebody writes to; checking all of it.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;
use std::time::{Duration, SystemTime};

use cairn_io::{Access, File, Fs, NativeFs};
use cairn_log::{EndState, Error, Inspection, Log, Lsn, SegmentInfo, Seq};
use cairn_sim::SimFs;

/// A look that meets half of what a writer does must not call it damage: the reads of a scan are not one instant.
#[test]
fn a_live_log_is_never_taken_for_a_damaged_one() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::options().segment_size(256 << 10).open(dir.path()).unwrap();
    let done = AtomicBool::new(false);
    let (mut looks, mut torn) = (0, 0);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut n = 0u64;
            while !done.load(Ordering::Relaxed) {
                let lsn = log.commit(&[n as u8; 700]).unwrap();
                n += 1;
                if n.is_multiple_of(3000) {
                    log.truncate_before(lsn).unwrap();
                }
            }
            n
        });
        let mut seen = 0;
        while looks < 1500 {
            let look = Inspection::open(dir.path()).unwrap();
            assert!(look.problems().is_empty(), "look {looks}: {:?}", look.problems());
            torn += u64::from(matches!(look.end_state(), EndState::Torn { .. }));
            assert!(look.next_seq() >= Seq(seen), "the log only grows");
            seen = look.next_seq().0;
            looks += 1;
        }
        done.store(true, Ordering::Relaxed);
        assert!(writer.join().unwrap() >= seen);
    });
    println!("{looks} looks, {torn} of them at a group that was half written");
    log.close().unwrap();
    let look = Inspection::open(dir.path()).unwrap();
    assert_eq!(look.end_state(), EndState::Closed);
    let read = look.reader(Lsn::START).unwrap().count() as u64;
    assert_eq!(read, look.next_seq().0 - look.head_seq().0);
}

/// The real file system, which may forbid work in the background, and remembers which threads opened files.
#[derive(Debug)]
struct Watched {
    background: bool,
    threads: Mutex<HashSet<ThreadId>>,
}

impl Watched {
    fn new(background: bool) -> Arc<Self> {
        Arc::new(Watched { background, threads: Mutex::default() })
    }
}

impl Fs for Watched {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>> {
        self.threads.lock().unwrap().insert(std::thread::current().id());
        // Long enough for another thread, if there is one, to take its share.
        std::thread::sleep(Duration::from_millis(1));
        NativeFs.open(path, access)
    }
    fn create_new(&self, _: &Path) -> io::Result<Arc<dyn File>> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
    fn remove(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        NativeFs.list(dir)
    }
    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
    fn background(&self) -> bool {
        self.background
    }
    fn now(&self) -> SystemTime {
        NativeFs.now()
    }
    fn random(&self) -> io::Result<[u8; 16]> {
        NativeFs.random()
    }
}

/// Several segments are read at once, or all by the caller: what is reported is the same, in order of position, all damage of all segments.
#[test]
fn the_report_does_not_depend_on_who_reads() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::options().segment_size(64 << 10).open(dir.path()).unwrap();
    for n in 0..3000u32 {
        log.append(&n.to_le_bytes().repeat(1 + n as usize % 100)).unwrap();
        if n % 7 == 0 {
            log.sync().unwrap();
        }
    }
    log.close().unwrap();
    let whole = Inspection::open(dir.path()).unwrap().verify(|_| {}).unwrap();
    assert!(whole.problems.is_empty() && whole.records == 3000);
    let segments = Inspection::open(dir.path()).unwrap().segments();
    assert!(segments.len() >= 8, "{}", segments.len());
    // Twice in one segment, once in three others; one is missing.
    let spoilt = [(1, 9_000), (1, 40_000), (2, 30_000), (5, 4_096), (7, 20_000)];
    for (segment, offset) in spoilt {
        let mut bytes = std::fs::read(&segments[segment].path).unwrap();
        bytes[offset] ^= 1;
        std::fs::write(&segments[segment].path, bytes).unwrap();
    }
    std::fs::remove_file(&segments[3].path).unwrap();

    let mut reports = Vec::new();
    for background in [true, false, true] {
        let fs = Watched::new(background);
        let look = Inspection::open_on(fs.clone(), dir.path()).unwrap();
        let mut progress = 0;
        let found = look.verify(|bytes| progress += bytes).unwrap();
        assert_eq!(progress, found.bytes);
        assert_eq!(found.bytes, look.end_lsn().0, "gaps count: they belong to the segment before");
        let threads = fs.threads.lock().unwrap().len();
        assert!(background || threads == 1, "{threads} threads");
        reports.push(format!("{found:?}"));
        let places: Vec<_> = found
            .problems
            .iter()
            .map(|problem| match problem {
                Error::Corrupt(damage) => (damage.path.clone(), damage.lsn.0),
                other => panic!("{other}"),
            })
            .collect();
        assert!(places.is_sorted_by_key(|(_, lsn)| *lsn), "{places:?}");
        for (segment, offset) in spoilt {
            let SegmentInfo { path, base_lsn, .. } = &segments[segment];
            let at = base_lsn.0 + offset as u64 - 4096;
            let near = |(found, lsn): &&(PathBuf, u64)| found == path && (*lsn..*lsn + 8192).contains(&at);
            assert!(places.iter().any(|place| near(&place)), "{segment} {offset}: {places:?}");
        }
        assert!(places.iter().any(|(_, lsn)| *lsn == segments[3].base_lsn.0), "the gap: {places:?}");
    }
    assert!(reports.windows(2).all(|pair| pair[0] == pair[1]), "{reports:#?}");

    // A segment that goes while the others are read is an error, whoever meets it.
    let looks = [true, false].map(|background| Inspection::open_on(Watched::new(background), dir.path()).unwrap());
    std::fs::remove_file(&segments[4].path).unwrap();
    for look in looks {
        let error = look.verify(|_| {}).unwrap_err();
        assert!(matches!(&error, Error::Io { path, .. } if *path == segments[4].path), "{error}");
    }
}

/// Somebody who looks while a writer goes on: at the same step of each look.
#[derive(Debug)]
struct Interrupted {
    sim: SimFs,
    log: Log,
    /// Before which opening of a file, counted from the listing.
    step: usize,
    commits: usize,
    opened: AtomicUsize,
}

impl Fs for Interrupted {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>> {
        if self.opened.fetch_add(1, Ordering::Relaxed) == self.step {
            for _ in 0..self.commits {
                self.log.commit(&[7; 700]).unwrap();
            }
        }
        self.sim.open(path, access)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        self.opened.store(0, Ordering::Relaxed);
        self.sim.list(dir)
    }
    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.sim.create_new(path)
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.sim.create_dir(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.sim.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.sim.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.sim.sync_dir(dir)
    }
    fn now(&self) -> SystemTime {
        self.sim.now()
    }
    fn random(&self) -> io::Result<[u8; 16]> {
        self.sim.random()
    }
}

/// However fast the writer is: a look that takes as long as a rotation meets one every time, and looking again does not help.
#[test]
fn a_writer_that_rotates_during_every_look_is_no_damage() {
    let mut rotated = 0;
    for step in 0..12 {
        for commits in [3, 11, 20, 31] {
            let sim = SimFs::new();
            let options = Log::options().segment_size(16 << 10).buffer_size(4 << 10).direct_io(step % 2 == 0);
            let log = options.fs(Arc::new(sim.clone())).open("/log").unwrap();
            for _ in 0..40 {
                log.commit(&[7; 700]).unwrap();
            }
            let fs = Arc::new(Interrupted { sim, log, step, commits, opened: AtomicUsize::new(0) });
            for _ in 0..8 {
                let look = Inspection::open_on(fs.clone(), "/log").unwrap();
                assert!(look.problems().is_empty(), "step {step}, {commits} commits: {:?}", look.problems());
                assert!(look.next_seq() >= Seq(40));
            }
            rotated += fs.log.stats().rotations;
        }
    }
    assert!(rotated > 100);
}
