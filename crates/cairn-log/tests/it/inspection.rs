//! guards: L11 L12
//!
//! Looking at a log that somebody writes to; checking all of it.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;
use std::time::Duration;

use cairn_io::{Fs, Layer, Layered, NativeFs, Through};
use cairn_log::{EndState, Error, Inspection, Log, Lsn, SegmentInfo, Seq};
use cairn_sim::SimFs;

/// A look that meets half of what a writer does must not call it damage: the reads of a scan are
/// not one instant.
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

/// The real file system, which may forbid work in the background, and remembers which threads
/// opened files.
#[derive(Debug)]
struct Watched {
    background: bool,
    threads: Mutex<HashSet<ThreadId>>,
}

/// The real file system, without writing.
fn watched(background: bool) -> Arc<Layered<Watched>> {
    let watched = Watched { background, threads: Mutex::default() };
    Arc::new(Layered::new(Arc::new(NativeFs), watched))
}

impl Layer for Watched {
    fn before(&self, call: Through, _: &Path, _: Option<&Path>) -> io::Result<()> {
        match call {
            Through::Open => {
                self.threads.lock().unwrap().insert(std::thread::current().id());
                // Long enough for another thread, if there is one, to take its share.
                std::thread::sleep(Duration::from_millis(1));
                Ok(())
            }
            Through::List => Ok(()),
            _ => Err(io::ErrorKind::ReadOnlyFilesystem.into()),
        }
    }
    fn background(&self, _: bool) -> bool {
        self.background
    }
}

/// Several segments are read at once, or all by the caller: what is reported is the same, in order
/// of position, all damage of all segments.
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
        let fs = watched(background);
        let look = Inspection::open_on(fs.clone(), dir.path()).unwrap();
        let mut progress = 0;
        let found = look.verify(|bytes| progress += bytes).unwrap();
        assert_eq!(progress, found.bytes);
        assert_eq!(found.bytes, look.end_lsn().0, "gaps count: they belong to the segment before");
        let threads = fs.layer().threads.lock().unwrap().len();
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
            let near =
                |(found, lsn): &&(PathBuf, u64)| found == path && (*lsn..*lsn + 8192).contains(&at);
            assert!(places.iter().any(|place| near(&place)), "{segment} {offset}: {places:?}");
        }
        assert!(
            places.iter().any(|(_, lsn)| *lsn == segments[3].base_lsn.0),
            "the gap: {places:?}"
        );
    }
    assert!(reports.windows(2).all(|pair| pair[0] == pair[1]), "{reports:#?}");

    // A segment that goes while the others are read is an error, whoever meets it.
    let looks = [true, false]
        .map(|background| Inspection::open_on(watched(background), dir.path()).unwrap());
    std::fs::remove_file(&segments[4].path).unwrap();
    for look in looks {
        let error = look.verify(|_| {}).unwrap_err();
        assert!(matches!(&error, Error::Io { path, .. } if *path == segments[4].path), "{error}");
    }
}

/// Somebody who looks while a writer goes on: at the same step of each look.
#[derive(Debug)]
struct Interrupted {
    log: Log,
    /// Before which opening of a file, counted from the listing.
    step: usize,
    commits: usize,
    opened: AtomicUsize,
}

impl Layer for Interrupted {
    fn before(&self, call: Through, _: &Path, _: Option<&Path>) -> io::Result<()> {
        match call {
            Through::List => self.opened.store(0, Ordering::Relaxed),
            Through::Open if self.opened.fetch_add(1, Ordering::Relaxed) == self.step => {
                for _ in 0..self.commits {
                    self.log.commit(&[7; 700]).unwrap();
                }
            }
            _ => {}
        }
        Ok(())
    }
    fn background(&self, _: bool) -> bool {
        true
    }
}

/// However fast the writer is: a look that takes as long as a rotation meets one every time, and
/// looking again does not help.
#[test]
fn a_writer_that_rotates_during_every_look_is_no_damage() {
    let mut rotated = 0;
    for step in 0..12 {
        for commits in [3, 11, 20, 31] {
            let sim = SimFs::new();
            let options =
                Log::options().segment_size(16 << 10).buffer_size(4 << 10).direct_io(step % 2 == 0);
            let log = options.fs(Arc::new(sim.clone())).open("/log").unwrap();
            for _ in 0..40 {
                log.commit(&[7; 700]).unwrap();
            }
            let opened = AtomicUsize::new(0);
            let fs = Layered::new(Arc::new(sim), Interrupted { log, step, commits, opened });
            let fs = Arc::new(fs);
            for _ in 0..8 {
                let look = Inspection::open_on(fs.clone(), "/log").unwrap();
                assert!(
                    look.problems().is_empty(),
                    "step {step}, {commits} commits: {:?}",
                    look.problems()
                );
                assert!(look.next_seq() >= Seq(40));
            }
            rotated += fs.layer().log.stats().rotations;
        }
    }
    assert!(rotated > 100);
}

/// A file system that runs something at one call.
#[derive(Debug)]
struct AtCall {
    calls: AtomicUsize,
    at: AtomicUsize,
    act: Mutex<Option<Act>>,
}

struct Act(Box<dyn FnOnce() + Send>);

impl std::fmt::Debug for Act {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an act")
    }
}

impl AtCall {
    fn count(&self) {
        if self.calls.fetch_add(1, Ordering::Relaxed) == self.at.load(Ordering::Relaxed) {
            let act = self.act.lock().unwrap().take();
            act.into_iter().for_each(|act| (act.0)());
        }
    }
}

impl Layer for AtCall {
    fn before(&self, call: Through, _: &Path, _: Option<&Path>) -> io::Result<()> {
        if call == Through::Open {
            self.count();
        }
        Ok(())
    }
    fn after(&self, call: Through, _: &Path, _: Option<&Path>) -> io::Result<()> {
        if call == Through::List {
            self.count();
        }
        Ok(())
    }
    fn background(&self, _: bool) -> bool {
        false
    }
}

/// Looks at a log, and verifies it, while something happens at each call that either makes.
fn looked_at_while(
    act: impl Fn(Arc<Log>, &SimFs) + Send + Sync + Copy + 'static,
) -> Result<u32, String> {
    for nth in 0.. {
        let sim = SimFs::new();
        let options = Log::options().segment_size(8 << 10).fs(Arc::new(sim.clone()));
        let log = Arc::new(options.open("/log").unwrap());
        for n in 0..60u8 {
            log.commit(&[n; 700]).unwrap();
        }
        let (acts, fs) = (log.clone(), sim.clone());
        let at_call = AtCall {
            calls: AtomicUsize::new(0),
            at: AtomicUsize::new(nth),
            act: Mutex::new(Some(Act(Box::new(move || act(acts, &fs))))),
        };
        let fs = Arc::new(Layered::new(Arc::new(sim), at_call));
        let looked = Inspection::open_on(fs.clone(), "/log");
        let found = looked.map_err(|e| format!("call {nth}: {e}"))?;
        let verified = found.verify(|_| ()).map_err(|e| format!("call {nth}: {e}"))?;
        if let Some(problem) = found.problems().iter().chain(&verified.problems).next() {
            return Err(format!("call {nth}: {problem}"));
        }
        if fs.layer().act.lock().unwrap().is_some() {
            return Ok(u32::try_from(nth).unwrap());
        }
    }
    unreachable!()
}

/// Whatever a writer drops, recycles or appends between two calls of a look.
#[test]
fn what_a_writer_does_between_two_calls_is_no_damage() {
    fn drops(log: Arc<Log>, _: &SimFs) {
        log.truncate_before(log.appended_lsn()).unwrap();
    }
    fn recycles(log: Arc<Log>, _: &SimFs) {
        log.truncate_before(log.appended_lsn()).unwrap();
        for n in 0..60u8 {
            log.commit(&[n; 700]).unwrap();
        }
    }
    fn appends(log: Arc<Log>, _: &SimFs) {
        for n in 0..20u8 {
            log.commit(&[n; 700]).unwrap();
        }
    }
    fn cuts(log: Arc<Log>, _: &SimFs) {
        let middle = log.reader(Seq(20)).unwrap().next_record().unwrap().unwrap().lsn();
        log.truncate_after(middle).unwrap();
        log.commit(b"another history").unwrap();
    }
    let acts: [fn(Arc<Log>, &SimFs); 4] = [drops, recycles, appends, cuts];
    for act in acts {
        let calls = looked_at_while(act).unwrap();
        assert!(calls > 20, "{calls}");
    }
}

/// A file that is gone for another reason is a loss, also beside a writer.
#[test]
fn a_segment_that_somebody_removes_is_missed() {
    fn removes(_: Arc<Log>, sim: &SimFs) {
        let mut files: Vec<PathBuf> = sim.files().into_iter().map(|(path, _)| path).collect();
        files.sort();
        let third =
            files.iter().filter(|path| path.extension().is_some_and(|e| e == "cairn")).nth(2);
        sim.remove(third.unwrap()).unwrap();
    }
    let removed = || looked_at_while(removes);
    println!("{}", removed().unwrap_err());
    // Removed by the last calls alone, no look would miss it but for that one.
    let sees_each = |nth: usize| {
        let sim = SimFs::new();
        let options = Log::options().segment_size(8 << 10).fs(Arc::new(sim.clone()));
        let log = Arc::new(options.open("/log").unwrap());
        for n in 0..60u8 {
            log.commit(&[n; 700]).unwrap();
        }
        let found = Inspection::open_on(Arc::new(sim.clone()), "/log").unwrap();
        sim.remove(&found.segments()[nth].path).unwrap();
        found.verify(|_| ())
    };
    for nth in 0..4 {
        let error = sees_each(nth).unwrap_err();
        assert!(matches!(error, Error::Io { .. }), "{error}");
    }
    let trusts = cairn_log::Mutation::TrustAbsence.during(|| sees_each(1));
    assert!(trusts.is_ok(), "the bug hides it");
}
