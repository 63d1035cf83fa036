//! The way from an append to the disk: what waits for what, and how many calls and bytes it takes.
//! Counted at the simulated system calls, with calls held where they are to be slow; no clock
//! decides anything.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

use cairn_io::{Backend, File, Layer, Layered, Stat, Through};
use cairn_log::{Error, Inspection, Log, Lsn, Options, Retention, Seq};
use cairn_sim::{Call, SectorSize, SimFs, SimOptions};

use crate::concurrency::within;
use crate::crash::Dice;

const BACKENDS: [Backend; 2] = [Backend::Buffered, Backend::Direct];

fn open(sim: &SimFs, backend: Backend, options: Options) -> Log {
    let log = options
        .direct_io(backend == Backend::Direct)
        .fs(Arc::new(sim.clone()))
        .open("/log")
        .unwrap();
    assert_eq!(log.backend(), backend);
    log
}

/// guards: L39
///
/// Who commits alone writes at once, and once.
#[test]
fn a_commit_alone_is_one_write_and_one_barrier() {
    for backend in BACKENDS {
        let sim = SimFs::new();
        let log = open(&sim, backend, Log::options());
        log.commit(&[0; 100]).unwrap();
        let before = sim.counters();
        for n in 1..=200u8 {
            log.commit(&[n; 100]).unwrap();
            let calls = |call| sim.counters().calls(call) - before.calls(call);
            let n = u64::from(n);
            let expected = if backend == Backend::Direct { [0, 0, n] } else { [n, n, 0] };
            assert_eq!([calls(Call::Write), calls(Call::Sync), calls(Call::WriteDirect)], expected);
            assert_eq!(
                sim.counters().calls_total() - before.calls_total(),
                expected.iter().sum::<u64>(),
                "{backend:?}"
            );
        }
        assert_eq!(log.stats().barriers, 201);
    }
}

/// guards: L40
///
/// A commit writes its own bytes; past the page cache, the blocks that they are in, and never one
/// further back.
#[test]
fn a_small_commit_writes_one_block() {
    for (sector, block) in [(SectorSize::Bytes512, 512), (SectorSize::Bytes4096, 4096)] {
        for backend in BACKENDS {
            let sim = SimFs::with_options(SimOptions::new().sector_size(sector));
            let log = open(&sim, backend, Log::options());
            log.commit(&[0; 100]).unwrap();
            let (before, stats) = (sim.counters(), log.stats());
            let (commits, group) = (500, 56 + 112);
            for n in 0..commits {
                log.commit(&[n as u8; 100]).unwrap();
            }
            let bytes = sim.counters().bytes_written - before.bytes_written;
            assert_eq!(log.stats().bytes_written - stats.bytes_written, commits * group);
            match backend {
                // One block each, and the second one where a group lies in two.
                Backend::Direct => assert!(
                    bytes <= (commits + commits * group / block + 1) * block,
                    "{bytes} bytes"
                ),
                _ => assert_eq!(bytes, commits * group),
            }
        }
    }
}

/// guards: L40
///
/// Commits of small records alone, once their segment is sealed, take three fifths more than the
/// frames at most: no commit is padded to a block, and what was prepared and not used is given
/// back.
#[test]
fn sealed_segments_of_small_commits_take_three_fifths_more_than_the_frames() {
    for sector in [SectorSize::Bytes512, SectorSize::Bytes4096] {
        for backend in BACKENDS {
            let sim = SimFs::with_options(SimOptions::new().sector_size(sector));
            let log = open(&sim, backend, Log::options().segment_size(256 << 10));
            let mut lsn = Lsn::START;
            while log.stats().rotations < 4 {
                lsn = log.commit(&[7; 100]).unwrap();
                if log.stats().rotations == 2 {
                    // Those that follow are written into the files of these.
                    log.retain(Retention::From(lsn)).unwrap();
                }
            }
            assert!(log.stats().recycled > 0);
            let segments = Inspection::open_on(Arc::new(sim.clone()), "/log").unwrap().segments();
            let sealed: Vec<_> = segments.iter().filter(|s| s.sealed).collect();
            assert!(!sealed.is_empty(), "up to {lsn:?}");
            for segment in sealed {
                let frames = (segment.end_seq.0 - segment.base_seq.0) * 112;
                assert!(
                    segment.file_bytes * 5 <= frames * 8,
                    "{backend:?}: {} bytes for {frames}",
                    segment.file_bytes
                );
            }
        }
    }
}

/// guards: L41
///
/// While a barrier runs: whoever reads goes on reading, whoever appends appends, whoever asks is
/// answered.
#[test]
fn nobody_who_reads_waits_for_a_running_barrier() {
    for (backend, call) in BACKENDS.into_iter().zip([Call::Sync, Call::WriteDirect]) {
        let sim = SimFs::new();
        let log = Arc::new(open(&sim, backend, Log::options()));
        let lsns: Vec<_> = (0..100u8).map(|n| log.append(&[n; 100]).unwrap()).collect();
        log.sync().unwrap();
        let mut reader = log.reader(Lsn::START).unwrap();
        let mut follower = log.follow(Lsn::START).unwrap();
        if backend == Backend::Buffered {
            // With the operating system, and so to be read by a new reader, too.
            log.append(&[100; 100]).unwrap();
            log.flush().unwrap();
        }
        let hold = sim.hold(call);
        let committer = thread::spawn({
            let log = log.clone();
            let more = backend == Backend::Direct;
            move || {
                if more {
                    log.append(&[100; 100]).unwrap();
                }
                log.sync().unwrap()
            }
        });
        hold.wait_for(1);
        within("a reader", {
            let log = log.clone();
            move || {
                for n in 0..100u8 {
                    assert_eq!(reader.next_record().unwrap().unwrap().payload(), [n; 100]);
                    assert_eq!(follower.try_next().unwrap().unwrap().payload(), [n; 100]);
                }
                assert!(follower.try_next().unwrap().is_none(), "not durable yet");
                assert_eq!(log.durable_lsn(), log.durable_lsn().min(log.appended_lsn()));
                assert_eq!(log.stats().records, 101);
                assert_eq!(log.next_seq(), Seq(101));
                log.sync_to(lsns[99]).unwrap();
                if backend == Backend::Buffered {
                    assert_eq!(log.reader(Lsn::START).unwrap().count(), 101);
                }
                log.append(b"meanwhile").unwrap();
            }
        });
        assert_eq!(hold.waiting(), 1, "all that was while it ran");
        drop(hold);
        committer.join().unwrap();
    }
}

/// guards: L42
///
/// Opening reads a block of each segment and the last one, not the log; and what is open at a time
/// does not depend on how many there are.
#[test]
fn opening_reads_little_and_keeps_little_open() {
    let mut open_files = Vec::new();
    for segments in [10, 100] {
        let sim = SimFs::new();
        let options = || Log::options().segment_size(64 << 10);
        let log = open(&sim, Backend::Direct, options());
        while log.stats().rotations < segments - 1 {
            log.append(&[7; 2000]).unwrap();
        }
        log.close().unwrap();
        let total: u64 = sim.files().iter().map(|(_, len)| len).sum();
        assert!(total > (segments - 1) * (60 << 10));
        let sim = sim.restart();
        let before = sim.counters();
        let log = open(&sim, Backend::Direct, options());
        assert_eq!(log.open_report().segments as u64, segments);
        let read = sim.counters().bytes_read - before.bytes_read;
        assert!(read <= segments * 8192 + (192 << 10), "{read} of {total} bytes read");
        assert_eq!(
            log.reader(Lsn::START).unwrap().map(|r| r.unwrap().seq()).last(),
            Some(Seq(log.next_seq().0 - 1))
        );
        open_files.push((sim.counters().open_files, sim.counters().open_files_max));
    }
    assert_eq!(open_files[0], open_files[1]);
    assert!(open_files[0].1 <= 8, "{open_files:?}");
}

/// Notes what the log does to files, in order: the call, the file's name, and how many bytes.
#[derive(Clone, Debug, Default)]
struct Noting(Arc<Mutex<Vec<Noted>>>);

type Noted = (&'static str, String, u64);

#[derive(Debug)]
struct NotingFile(Arc<dyn File>, String, Noting);

impl Noting {
    fn note(&self, call: &'static str, path: &Path, bytes: u64) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        self.0.lock().unwrap().push((call, name, bytes));
    }
}

impl Layer for Noting {
    fn before(&self, call: Through, path: &Path, _: Option<&Path>) -> io::Result<()> {
        let call = match call {
            Through::Open => "open",
            Through::OpenDirect => "open direct",
            Through::CreateNew => "create",
            Through::Rename => "rename",
            Through::Remove => "remove",
            Through::Sync => "sync dir",
            _ => return Ok(()),
        };
        self.note(call, path, 0);
        Ok(())
    }
    fn file(&self, _: Through, path: &Path, file: Arc<dyn File>) -> io::Result<Arc<dyn File>> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Arc::new(NotingFile(file, name, self.clone())))
    }
}

impl File for NotingFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let bytes = slices.iter().map(|slice| slice.len() as u64).sum();
        self.2.note("write", Path::new(&self.1), bytes);
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
        self.2.note("set length", Path::new(&self.1), 0);
        self.0.set_len(len)
    }
    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.2.note("allocate", Path::new(&self.1), len);
        self.0.allocate(offset, len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.2.note("sync", Path::new(&self.1), 0);
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

/// guards: L43
///
/// The commit that meets a rotation waits for one barrier more than others do, that of the seal.
/// The next segment has its name by then, and all the space the seal takes is there. What is
/// prepared next comes after the commit; the simulator does it inline, other systems have a thread
/// for it.
#[test]
fn a_rotation_finds_everything_prepared() {
    for backend in BACKENDS {
        let fs = Layered::new(Arc::new(SimFs::new()), Noting::default());
        let options = Log::options().segment_size(512 << 10).direct_io(backend == Backend::Direct);
        let log = options.fs(Arc::new(fs.clone())).open("/log").unwrap();
        let mut seen = 0;
        while seen < 5 {
            fs.layer().0.lock().unwrap().clear();
            let rotations = log.stats().rotations;
            log.commit(&[1; 1000]).unwrap();
            if log.stats().rotations == rotations {
                continue;
            }
            seen += 1;
            let calls = fs.layer().0.lock().unwrap().clone();
            // Past the page cache, a write is its own barrier.
            let seal = if backend == Backend::Direct { &["write"][..] } else { &["write", "sync"] };
            let (sealed, rest) = calls.split_at(seal.len());
            assert!(sealed.iter().map(|(call, ..)| call).eq(seal), "{calls:?}");
            assert!(sealed[0].2 < 8 << 10, "{calls:?}");
            for (call, ..) in rest {
                assert!(!["create", "rename", "remove", "sync dir"].contains(call), "{calls:?}");
            }
            assert_eq!(
                rest.iter().filter(|(call, ..)| *call == "sync").count(),
                seal.len() - 1,
                "{calls:?}"
            );
        }
    }
}

#[test]
fn try_append_refuses_where_append_would_wait_and_loses_no_order() {
    for backend in BACKENDS {
        let sim = SimFs::new();
        let log = open(
            &sim,
            backend,
            Log::options().segment_size(32 << 10).buffer_size(4 << 10).buffers(2),
        );
        let (mut refused, mut lsns) = (0, Vec::new());
        while lsns.len() < 300 {
            let record = [(lsns.len() as u32).to_le_bytes(); 200].concat();
            match log.try_append(&record) {
                Ok(lsn) => lsns.push(lsn),
                Err(Error::WouldBlock) => {
                    refused += 1;
                    let calls = sim.counters().calls_total();
                    assert!(
                        matches!(log.try_append(&record), Err(Error::WouldBlock)),
                        "nothing has changed"
                    );
                    assert_eq!(sim.counters().calls_total(), calls, "it does nothing");
                    // One that waits: for a write, for space, or for the next segment.
                    lsns.push(log.append(&record).unwrap());
                }
                Err(other) => panic!("{other:?}"),
            }
        }
        assert!(refused > 20, "{refused} refused");
        assert!(lsns.is_sorted());
        for (n, record) in log.reader(Lsn::START).unwrap().enumerate() {
            let record = record.unwrap();
            assert_eq!((record.seq(), record.lsn()), (Seq(n as u64), lsns[n]));
            assert_eq!(record.payload()[..4], (n as u32).to_le_bytes());
        }
        assert_eq!(log.next_seq(), Seq(300));
    }
}

/// The log is frozen while a truncation's barrier runs.
#[test]
fn try_append_refuses_while_the_log_is_frozen() {
    let sim = SimFs::new();
    let log = Arc::new(open(&sim, Backend::Buffered, Log::options()));
    let first = log.append(b"first").unwrap();
    log.append(b"cut").unwrap();
    let hold = sim.hold(Call::Sync);
    let cutter = thread::spawn({
        let log = log.clone();
        move || log.truncate_after(first).unwrap()
    });
    hold.wait_for(1);
    for _ in 0..3 {
        assert!(matches!(log.try_append(b"refused"), Err(Error::WouldBlock)));
    }
    drop(hold);
    cutter.join().unwrap();
    log.try_append(b"second").or_else(|_| log.append(b"second")).unwrap();
    let found: Vec<_> =
        log.reader(Lsn::START).unwrap().map(|r| r.unwrap().into_payload()).collect();
    assert_eq!(found, [&b"first"[..], b"second"]);
}

/// Several threads that never wait, and one that makes room: each one's records are in its order,
/// and none is there twice.
#[test]
fn threads_that_never_wait_keep_their_order() {
    for backend in BACKENDS {
        within("a thread that does not wait", move || {
            let sim = SimFs::new();
            let log = open(
                &sim,
                backend,
                Log::options().segment_size(32 << 10).buffer_size(4 << 10).buffers(2),
            );
            thread::scope(|scope| {
                let writers: Vec<_> = (0..3u8)
                    .map(|t| {
                        let log = &log;
                        scope.spawn(move || {
                            for n in 0..200u8 {
                                while let Err(error) = log.try_append(&[[t, n]; 100].concat()) {
                                    assert!(matches!(error, Error::WouldBlock), "{error:?}");
                                    thread::yield_now();
                                }
                            }
                        })
                    })
                    .collect();
                while writers.iter().any(|writer| !writer.is_finished()) {
                    log.append(&[255; 3000]).unwrap();
                    log.sync().unwrap();
                }
            });
            let mut next = [0u8; 3];
            for record in log.reader(Lsn::START).unwrap() {
                let record = record.unwrap();
                if let Some(next) = next.get_mut(usize::from(record.payload()[0])) {
                    assert_eq!(record.payload()[1], *next);
                    *next += 1;
                }
            }
            assert_eq!(next, [200; 3]);
        });
    }
}

/// Records and batches of every size around that of a buffer, with one more behind each.
#[test]
fn records_about_as_large_as_a_buffer() {
    for backend in BACKENDS {
        for sector in [SectorSize::Bytes512, SectorSize::Bytes4096] {
            let sim = SimFs::with_options(SimOptions::new().sector_size(sector));
            let options = || Log::options().segment_size(64 << 10).buffer_size(4 << 10).buffers(2);
            let log = open(&sim, backend, options());
            let mut expected: Vec<Vec<u8>> = Vec::new();
            let sizes = (4096 - 80..4096 + 24)
                .step_by(3)
                .chain([8000, 8192, 12_288, 60_000, 70_000, 0, 200_000]);
            for (n, size) in sizes.enumerate() {
                let record = vec![n as u8; size];
                match n % 3 {
                    0 => drop(log.append(&record).unwrap()),
                    1 => drop(log.commit(&record).unwrap()),
                    _ => {
                        log.append_batch([&record[..size / 2], &record[size / 2..]]).unwrap();
                        expected.push(record[..size / 2].to_vec());
                    }
                }
                expected.push(if n % 3 < 2 { record } else { record[size / 2..].to_vec() });
                log.append(&[n as u8; 9]).unwrap();
                expected.push(vec![n as u8; 9]);
                if n % 5 == 0 {
                    log.sync().unwrap();
                }
            }
            log.sync().unwrap();
            let read = |log: &Log| -> Vec<_> {
                log.reader(Lsn::START)
                    .unwrap()
                    .map(|r| r.unwrap().into_payload().to_vec())
                    .collect()
            };
            assert!(read(&log) == expected);
            drop(log);
            let log = open(&sim.restart(), backend, options());
            assert!(read(&log) == expected, "after opening again");
        }
    }
}

/// guards: L36 L38
///
/// Two buffers of the least size, many threads, records of every size, on the real file system with
/// all its threads.
#[test]
fn many_threads_with_tiny_buffers() {
    for (direct, background) in [(false, true), (true, true), (false, false), (true, false)] {
        within("a thread", move || {
            let dir = tempfile::tempdir().unwrap();
            let options = Log::options()
                .segment_size(64 << 10)
                .buffer_size(4 << 10)
                .buffers(2)
                .direct_io(direct);
            // The simulator prepares inline and takes no time; the real one has threads.
            let (options, path) = match background {
                true => (options, dir.path().to_owned()),
                false => (options.fs(Arc::new(SimFs::new())), "/log".into()),
            };
            let log = options.clone().open(&path).unwrap();
            let (threads, each) = (6u64, 120u64);
            thread::scope(|scope| {
                for t in 0..threads {
                    let log = &log;
                    scope.spawn(move || {
                        let mut dice = Dice(t + 1);
                        for n in 0..each {
                            let mut record = [t.to_le_bytes(), n.to_le_bytes()].concat();
                            let size = if dice.below(10) == 0 {
                                dice.below(9000)
                            } else {
                                dice.below(600)
                            };
                            record.resize(16 + size, t as u8);
                            match dice.below(4) {
                                0 => drop(log.commit(&record).unwrap()),
                                1 => drop(log.submit(&record).unwrap()),
                                2 => {
                                    let lsn = log.append(&record).unwrap();
                                    if dice.below(4) == 0 {
                                        log.sync_to(lsn).unwrap();
                                        assert!(log.durable_lsn() > lsn);
                                    }
                                }
                                _ => {
                                    while let Err(error) = log.try_append(&record) {
                                        assert!(matches!(error, Error::WouldBlock), "{error:?}");
                                        log.flush().unwrap();
                                        if dice.below(4) == 0 {
                                            log.append(&record).unwrap();
                                            break;
                                        }
                                    }
                                }
                            }
                        }
                    });
                }
            });
            log.close().unwrap();
            let log = options.open(&path).unwrap();
            let mut next = vec![0; threads as usize];
            for (i, record) in log.reader(Lsn::START).unwrap().enumerate() {
                let record = record.unwrap();
                assert_eq!(record.seq(), Seq(i as u64));
                let (t, n) = record.payload()[..16].split_at(8);
                let t = u64::from_le_bytes(t.try_into().unwrap()) as usize;
                assert_eq!(u64::from_le_bytes(n.try_into().unwrap()), next[t]);
                next[t] += 1;
            }
            assert_eq!(next, vec![each; threads as usize]);
        });
    }
}
