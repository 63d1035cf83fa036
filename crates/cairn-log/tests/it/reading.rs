//! guards: L08 L10 L12
//!
//! Who reads on and on has a thread that reads ahead, and who opens a log of many segments looks at
//! several at once. What is found does not depend on it: neither records, nor damage, nor what
//! cannot be read.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cairn_log::{Inspection, Log, Lsn};
use cairn_sim::{Call, FaultPlan, SimFs};

use crate::hooked::{Hook, Hooked, hooked};
use crate::model::DIR;

/// Counts open files, and reads by the log's own threads.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    background: bool,
    open: AtomicUsize,
    bytes: AtomicUsize,
    ahead: AtomicUsize,
    parallel: AtomicUsize,
}

impl Counts {
    fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    fn ahead(&self) -> usize {
        self.ahead.load(Ordering::SeqCst)
    }

    fn parallel(&self) -> usize {
        self.parallel.load(Ordering::SeqCst)
    }
}

impl Hook for Counts {
    fn after(&self, call: Call, _: &Path) -> io::Result<()> {
        let opens = matches!(call, Call::Open | Call::Create);
        self.open.fetch_add(usize::from(opens), Ordering::SeqCst);
        Ok(())
    }
    fn reading(&self, offset: u64, len: usize) {
        let by = |name| std::thread::current().name() == Some(name);
        let ahead = by("cairn-read");
        self.ahead.fetch_add(usize::from(ahead), Ordering::SeqCst);
        self.parallel.fetch_add(usize::from(by("cairn-parallel")), Ordering::SeqCst);
        self.bytes.fetch_add(len, Ordering::SeqCst);
        // Long enough for another thread, if there is one, to take its share.
        if !ahead && len >= 256 << 10 {
            std::thread::sleep(Duration::from_millis(1));
        } else if self.background && offset == 0 {
            std::thread::sleep(Duration::from_micros(100));
        }
    }
    fn closed(&self) {
        self.open.fetch_sub(1, Ordering::SeqCst);
    }
    fn background(&self, _: bool) -> bool {
        self.background
    }
}

/// A simulated machine on which work in the background is allowed, or not.
pub(crate) type Threaded = Hooked<Counts>;

pub(crate) fn threaded(sim: &SimFs, background: bool) -> Threaded {
    hooked(Arc::new(sim.clone()), Counts { background, ..Counts::default() })
}

/// A log in one segment of several MiB, and that segment's file. Opening scans it unless it was
/// closed.
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
    let path = sim
        .files()
        .into_iter()
        .map(|(path, _)| path)
        .find(|path| path.extension().is_some())
        .unwrap();
    (sim, path)
}

/// What is there, in one line: how it ends, what does not verify, how many records are read, a
/// checksum of them, and the error that ends them.
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
        let fs = threaded(sim, background);
        let report = report(&fs);
        assert!(background || fs.layer().hook.ahead() + fs.layer().hook.parallel() == 0);
        assert_eq!(fs.layer().hook.open(), 0, "{what}: a file is still open");
        report
    });
    assert_eq!(alone, helped, "{what}");
    alone
}

#[test]
fn what_is_found_does_not_depend_on_reading_ahead() {
    let (sim, path) = large(false);
    let whole = same_report(&sim, "whole");
    assert!(whole.starts_with("Closed [] ") && whole.contains(" 30000 "), "{whole}");
    let fs = threaded(&sim, true);
    report(&fs);
    assert!(fs.layer().hook.ahead() > 0);
    let bytes = sim.read_file(&path).unwrap();
    let written = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    for at in (4096..written).step_by(377_777) {
        sim.flip_bit(&path, at as u64, 3).unwrap();
        assert_ne!(same_report(&sim, &format!("a bit at {at}")), whole);
        sim.flip_bit(&path, at as u64, 3).unwrap();
        let sector = at as u64 / 512 * 512;
        sim.set_faults(FaultPlan::new().unreadable(&path, sector..sector + 512));
        assert!(
            same_report(&sim, &format!("unreadable at {at}")).contains("Unreadable"),
            "at {at}"
        );
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
    let fs = threaded(&sim, true);
    let look = Inspection::open_on(Arc::new(fs.clone()), DIR).unwrap();
    let before = fs.layer().hook.ahead();
    let mut reader = look.reader(Lsn::START).unwrap();
    for _ in 0..12_000 {
        reader.next_record().unwrap().unwrap();
    }
    assert!(fs.layer().hook.ahead() > before);
    drop(reader);
    let after = fs.layer().hook.ahead();
    assert_eq!(fs.layer().hook.open(), 0);
    std::thread::sleep(Duration::from_millis(5));
    assert_eq!(fs.layer().hook.ahead(), after);
}

#[test]
fn followers_and_short_reads_have_no_thread() {
    let (sim, _) = large(true);
    let fs = threaded(&sim, true);
    let log = Log::options().fs(Arc::new(fs.clone())).open(DIR).unwrap();
    // Who read ahead for the opening may not have ended yet.
    let mut opening = fs.layer().hook.ahead();
    loop {
        std::thread::sleep(Duration::from_millis(20));
        let now = fs.layer().hook.ahead();
        if now == opening {
            break;
        }
        opening = now;
    }
    for seq in [0, 10_000, 25_000] {
        let reader = log.reader(cairn_log::Seq(seq)).unwrap();
        assert_eq!(reader.take(2_000).filter(Result::is_ok).count(), 2_000);
    }
    let mut follower = log.follow(Lsn::START).unwrap();
    let mut followed = 0;
    while follower.try_next().unwrap().is_some() {
        followed += 1;
    }
    assert_eq!((followed, fs.layer().hook.ahead()), (30_000, opening));
}

/// Every byte of the last segment once, and what is carried into the next generation once more.
#[test]
fn an_opening_after_a_crash_reads_the_last_segment_once() {
    for background in [false, true] {
        let (sim, path) = large(false);
        let len = sim.read_file(&path).unwrap().len();
        let fs = threaded(&sim, background);
        let log = Log::options().fs(Arc::new(fs.clone())).open(DIR).unwrap();
        let (report, read) =
            (log.open_report().clone(), fs.layer().hook.bytes.load(Ordering::SeqCst));
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
    let fs = threaded(&sim, true);
    report(&fs);
    assert!(fs.layer().hook.parallel() > 0);
    let segments: Vec<_> =
        sim.files().into_iter().filter(|(path, _)| path.extension().is_some()).collect();
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
    // One of them is the directory.
    for limit in 2..5 {
        sim.set_faults(FaultPlan::new().max_open(limit));
        let look = Inspection::open_on(Arc::new(threaded(&sim, true)), DIR).unwrap();
        assert!(look.problems().is_empty(), "{limit}: {:?}", look.problems());
    }
}
