//! guards: L08 L10 L12
//!
//! Who reads on and on has a thread that reads ahead, and who opens a log of many segments looks at several at once. What is found does not depend on it:
//! neither records, nor damage, nor what cannot be read.

use std::ffi::OsString;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use cairn_io::{Access, Backend, File, Fs};
use cairn_log::{Inspection, Log, Lsn};
use cairn_sim::{FaultPlan, SimFs};

use crate::model::DIR;

/// A simulated machine on which work in the background is allowed, or not. Counts open files and what was read ahead.
#[derive(Clone, Debug)]
pub(crate) struct Threaded {
    sim: SimFs,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    background: bool,
    open: AtomicUsize,
    bytes: AtomicUsize,
    ahead: AtomicUsize,
    parallel: AtomicUsize,
}

#[derive(Debug)]
struct ThreadedFile(Arc<dyn File>, Arc<Counts>);

impl Drop for ThreadedFile {
    fn drop(&mut self) {
        self.1.open.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Threaded {
    pub(crate) fn new(sim: &SimFs, background: bool) -> Self {
        Threaded { sim: sim.clone(), counts: Arc::new(Counts { background, ..Counts::default() }) }
    }

    fn file(&self, file: Arc<dyn File>) -> Arc<dyn File> {
        self.counts.open.fetch_add(1, Ordering::SeqCst);
        Arc::new(ThreadedFile(file, self.counts.clone()))
    }

    fn read_ahead(&self) -> usize {
        self.counts.ahead.load(Ordering::SeqCst)
    }
}

impl Fs for Threaded {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>> {
        self.sim.open(path, access).map(|file| self.file(file))
    }
    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.sim.create_new(path).map(|file| self.file(file))
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
    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        self.sim.list(dir)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.sim.sync_dir(dir)
    }
    fn background(&self) -> bool {
        self.counts.background
    }
    fn now(&self) -> SystemTime {
        self.sim.now()
    }
    fn random(&self) -> io::Result<[u8; 16]> {
        self.sim.random()
    }
}

impl File for ThreadedFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let by = |name| std::thread::current().name() == Some(name);
        let ahead = by("cairn-read");
        self.1.ahead.fetch_add(usize::from(ahead), Ordering::SeqCst);
        self.1.parallel.fetch_add(usize::from(by("cairn-parallel")), Ordering::SeqCst);
        self.1.bytes.fetch_add(buf.len(), Ordering::SeqCst);
        // Long enough for another thread, if there is one, to take its share.
        if !ahead && buf.len() >= 256 << 10 {
            std::thread::sleep(Duration::from_millis(1));
        } else if self.1.background && offset == 0 {
            std::thread::sleep(Duration::from_micros(100));
        }
        self.0.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.write_at(offset, slices)
    }
    fn block_size(&self) -> usize {
        self.0.block_size()
    }
    fn backend(&self) -> Backend {
        self.0.backend()
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
}

/// A log in one segment of several MiB, and that segment's file. Opening scans it unless it was closed.
pub(crate) fn large(closed: bool) -> (SimFs, PathBuf) {
    let sim = SimFs::new();
    let log = Log::options().segment_size(64 << 20).fs(Arc::new(sim.clone())).open(DIR).unwrap();
    for n in 0..30_000u32 {
        // Now and then one that fits in nothing that is read at once.
        let len = if n % 25_000 == 24_999 { 300_000 } else { 60 + n as usize % 90 };
        log.append(&n.to_le_bytes().repeat(len.div_ceil(4))[..len]).unwrap();
    }
    match closed {
        true => log.close().unwrap(),
        false => log.sync().unwrap(),
    }
    let path = sim.files().into_iter().map(|(path, _)| path).find(|path| path.extension().is_some()).unwrap();
    (sim, path)
}

/// What is there, in one line: how it ends, what does not verify, how many records are read, a checksum of them, and the error that ends them.
fn report(fs: &Threaded) -> String {
    let look = match Inspection::open_on(Arc::new(fs.clone()), DIR) {
        Ok(look) => look,
        Err(error) => return format!("{error:?}"),
    };
    let (mut records, mut sum, mut error) = (0u64, 0u64, None);
    let mut reader = match look.reader(Lsn::START) {
        Ok(reader) => reader,
        Err(error) => return format!("{error:?} {:?}", look.problems()),
    };
    loop {
        match reader.next_record() {
            Ok(Some(record)) => {
                records += 1;
                let bytes = record
                    .payload()
                    .iter()
                    .chain(&record.lsn().0.to_le_bytes())
                    .fold(0, |a: u64, b| a * 31 % 0xFFFF_FFFB + u64::from(*b));
                sum = sum * 31 % 0xFFFF_FFFB + bytes;
            }
            Ok(None) => break,
            Err(e) => {
                error = Some(e);
                break;
            }
        }
    }
    let verified = look.verify(|_| ()).unwrap();
    format!("{:?} {:?} {verified:?} {records} {sum} {error:?}", look.end_state(), look.problems())
}

fn same_report(sim: &SimFs, what: &str) -> String {
    let [alone, helped] = [false, true].map(|background| {
        let fs = Threaded::new(sim, background);
        let report = report(&fs);
        assert!(background || fs.read_ahead() + fs.counts.parallel.load(Ordering::SeqCst) == 0);
        assert_eq!(fs.counts.open.load(Ordering::SeqCst), 0, "{what}: a file is still open");
        report
    });
    assert_eq!(alone, helped, "{what}");
    alone
}

#[test]
fn what_is_found_does_not_depend_on_reading_ahead() {
    let (sim, path) = large(false);
    let whole = same_report(&sim, "whole");
    assert!(whole.starts_with("Unclosed [] ") && whole.contains(" 30000 "), "{whole}");
    let fs = Threaded::new(&sim, true);
    report(&fs);
    assert!(fs.read_ahead() > 0);
    let bytes = sim.read_file(&path).unwrap();
    let written = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    for at in (4096..written).step_by(377_777) {
        sim.flip_bit(&path, at as u64, 3).unwrap();
        assert_ne!(same_report(&sim, &format!("a bit at {at}")), whole);
        sim.flip_bit(&path, at as u64, 3).unwrap();
        let sector = at as u64 / 512 * 512;
        sim.set_faults(FaultPlan::new().unreadable(&path, sector..sector + 512));
        assert!(same_report(&sim, &format!("unreadable at {at}")).contains("Unreadable"), "at {at}");
        sim.set_faults(FaultPlan::new());
        sim.write_file(&path, &bytes[..at]).unwrap();
        assert_ne!(same_report(&sim, &format!("cut at {at}")), whole);
        sim.write_file(&path, &bytes).unwrap();
    }
    assert_eq!(same_report(&sim, "whole again"), whole);
}

#[test]
fn who_stops_reading_leaves_nothing_behind() {
    let (sim, _) = large(true);
    let fs = Threaded::new(&sim, true);
    let look = Inspection::open_on(Arc::new(fs.clone()), DIR).unwrap();
    let before = fs.read_ahead();
    let mut reader = look.reader(Lsn::START).unwrap();
    for _ in 0..12_000 {
        reader.next_record().unwrap().unwrap();
    }
    assert!(fs.read_ahead() > before);
    drop(reader);
    let after = fs.read_ahead();
    assert_eq!(fs.counts.open.load(Ordering::SeqCst), 0);
    std::thread::sleep(Duration::from_millis(5));
    assert_eq!(fs.read_ahead(), after);
}

#[test]
fn followers_and_short_reads_have_no_thread() {
    let (sim, _) = large(true);
    let fs = Threaded::new(&sim, true);
    let log = Log::options().fs(Arc::new(fs.clone())).open(DIR).unwrap();
    let opening = fs.read_ahead();
    for seq in [0, 10_000, 25_000] {
        let reader = log.reader(cairn_log::Seq(seq)).unwrap();
        assert_eq!(reader.take(2_000).filter(Result::is_ok).count(), 2_000);
    }
    let mut follower = log.follow(Lsn::START).unwrap();
    let mut followed = 0;
    while follower.try_next().unwrap().is_some() {
        followed += 1;
    }
    assert_eq!((followed, fs.read_ahead()), (30_000, opening));
}

/// Every byte of the last segment once, and what is carried into the next generation once more.
#[test]
fn an_opening_after_a_crash_reads_the_last_segment_once() {
    for background in [false, true] {
        let (sim, path) = large(false);
        let len = sim.read_file(&path).unwrap().len();
        let fs = Threaded::new(&sim, background);
        let log = Log::options().fs(Arc::new(fs.clone())).open(DIR).unwrap();
        let (report, read) = (log.open_report().clone(), fs.counts.bytes.load(Ordering::SeqCst));
        assert_eq!(report.records_scanned, 30_000);
        // What was read ahead of a record that fits in nothing is read again.
        let most = len + len / 2 + usize::try_from(report.bytes_carried).unwrap();
        assert!(read >= len && read <= most, "{read} bytes were read of {len}: {report:?}");
    }
}

#[test]
fn what_is_found_does_not_depend_on_looking_at_several_segments_at_once() {
    let sim = SimFs::new();
    let log = Log::options().segment_size(8 << 10).fs(Arc::new(sim.clone())).open(DIR).unwrap();
    for n in 0..240u32 {
        log.commit(&n.to_le_bytes().repeat(300)).unwrap();
    }
    log.close().unwrap();
    let whole = same_report(&sim, "whole");
    assert!(whole.starts_with("Closed [] ") && whole.contains(" 240 "), "{whole}");
    let fs = Threaded::new(&sim, true);
    report(&fs);
    assert!(fs.counts.parallel.load(Ordering::SeqCst) > 0);
    let segments: Vec<_> = sim.files().into_iter().filter(|(path, _)| path.extension().is_some()).collect();
    assert!(segments.len() > 32, "{}", segments.len());
    for (path, _) in segments.iter().step_by(7) {
        let bytes = sim.read_file(path).unwrap();
        // The superblock, the first group, the seal.
        for at in [20, 4096 + 8, bytes.len() - 20] {
            sim.flip_bit(path, at as u64, 3).unwrap();
            assert_ne!(same_report(&sim, &format!("a bit at {at} of {}", path.display())), whole);
            sim.flip_bit(path, at as u64, 3).unwrap();
        }
        sim.set_faults(FaultPlan::new().unreadable(path, 0..512));
        assert_ne!(same_report(&sim, &format!("unreadable {}", path.display())), whole);
        sim.set_faults(FaultPlan::new());
        sim.write_file(path, &bytes[..100]).unwrap();
        assert_ne!(same_report(&sim, &format!("cut {}", path.display())), whole);
        sim.write_file(path, &bytes).unwrap();
    }
    assert_eq!(same_report(&sim, "whole again"), whole);
    // That several descriptors are too many says nothing of the log.
    for limit in 1..4 {
        sim.set_faults(FaultPlan::new().max_open(limit));
        let look = Inspection::open_on(Arc::new(Threaded::new(&sim, true)), DIR).unwrap();
        assert!(look.problems().is_empty(), "{limit}: {:?}", look.problems());
    }
}
