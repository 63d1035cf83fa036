//! Copies of a log that is written to: whole, verified, brought up to date, never mistaken for
//! whole when they are not, and restored at the positions that the records had.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use cairn_io::Fs;
use cairn_log::{
    CopyReport, CorruptionKind, EndState, Error, Inspection, Log, Lsn, Options, Repair, Seq,
    backup, backup_on, restore, restore_on,
};
use cairn_sim::{CrashExplorer, SimFs};

use crate::model::chain;

const DIR: &str = "/data/log";
const COPY: &str = "/data/copy";

fn options(sim: &SimFs) -> Options {
    Log::options().segment_size(8 << 10).buffer_size(4 << 10).fs(Arc::new(sim.clone()))
}

fn machine() -> SimFs {
    let sim = SimFs::new();
    sim.create_dir(Path::new("/data")).unwrap();
    sim.sync_dir(Path::new("/")).unwrap();
    sim
}

fn commit(log: &Log, numbers: std::ops::Range<u64>) {
    for n in numbers {
        log.commit(&n.to_le_bytes().repeat(60)).unwrap();
    }
}

fn copy(sim: &SimFs) -> cairn_log::Result<CopyReport> {
    backup_on(Arc::new(sim.clone()), DIR, COPY, |_| ())
}

/// Position and payload of each record, by number.
type Records = BTreeMap<u64, (Lsn, Vec<u8>)>;

fn records(sim: &SimFs, dir: &str) -> Result<Records, String> {
    let look = Inspection::open_on(Arc::new(sim.clone()), dir).map_err(|e| chain(&e))?;
    let found = look.verify(|_| ()).map_err(|e| chain(&e))?;
    match (found.problems.first(), found.end_state) {
        (None, EndState::Closed) => {}
        (problem, end) => return Err(format!("{problem:?}, {end:?}")),
    }
    let all = look.reader(look.head_seq()).map_err(|e| chain(&e))?.map(|record| {
        let record = record.map_err(|e| chain(&e))?;
        Ok((record.seq().0, (record.lsn(), record.payload().to_vec())))
    });
    all.collect()
}

fn records_of(log: &Log) -> Records {
    let all = log.reader(log.head_lsn()).unwrap().map(|record| {
        let record = record.unwrap();
        (record.seq().0, (record.lsn(), record.payload().to_vec()))
    });
    all.collect()
}

fn first(log: &Log) -> u64 {
    records_of(log).into_keys().next().unwrap_or(log.next_seq().0)
}

fn lsn_of(log: &Log, seq: u64) -> Lsn {
    log.reader(Seq(seq)).unwrap().next().unwrap().unwrap().lsn()
}

/// After each of these the copy is brought up to date: it is the log, and only what is new was
/// copied.
#[test]
fn a_copy_is_the_log_whatever_was_done_to_that() {
    let sim = machine();
    let mut user = sim.second_process();
    let mut log = options(&user).open(DIR).unwrap();
    let mut next = 0;
    for step in 0..32 {
        match step % 8 {
            0 => {}
            1 => commit(&log, next..next + 3),
            2 => commit(&log, next..next + 40),
            3 => log.truncate_after(lsn_of(&log, next - 9)).unwrap(),
            4 => {
                log.append(b"never made durable").unwrap();
                log.flush().unwrap();
                user.kill();
                drop(log);
                user = sim.second_process();
                log = options(&user).open(DIR).unwrap();
            }
            5 => log.truncate_before(lsn_of(&log, next - 12)).unwrap(),
            6 => {
                log.close().unwrap();
                log = options(&user).open(DIR).unwrap();
            }
            _ => log.rotate().unwrap(),
        }
        next = log.next_seq().0;
        let report = copy(&sim).unwrap_or_else(|e| panic!("step {step}: {}", chain(&e)));
        assert_eq!(records(&sim, COPY).unwrap(), records_of(&log), "step {step}");
        assert_eq!((report.next_seq, report.head_seq.0), (Seq(next), first(&log)));
        // Again: nothing but the last segment.
        let report = copy(&sim).unwrap();
        assert_eq!((report.copied, report.restarts), (1, 0), "step {step}: {report:?}");
        assert_eq!(records(&sim, COPY).unwrap(), records_of(&log), "step {step}");
    }
    assert!(log.open_report().generation > 3);
}

/// A cut in the middle of a segment, in the middle of a group.
#[test]
fn a_copy_is_the_log_where_a_cut_begins_inside_of_a_segment() {
    let sim = machine();
    let log = options(&sim).segment_size(4 << 20).buffer_size(64 << 10).open(DIR).unwrap();
    (0..800u64).for_each(|n| {
        log.append(&n.to_le_bytes().repeat(90)).unwrap();
    });
    log.sync().unwrap();
    log.truncate_after(lsn_of(&log, 601)).unwrap();
    commit(&log, 602..620);
    for _ in 0..2 {
        copy(&sim).unwrap();
        assert_eq!(records(&sim, COPY).unwrap(), records_of(&log));
        assert_eq!(log.next_seq(), Seq(620));
    }
}

#[test]
fn a_copy_restores_and_goes_on_with_the_same_positions() {
    let sim = machine();
    let fs: Arc<dyn Fs> = Arc::new(sim.clone());
    let log = options(&sim).open(DIR).unwrap();
    commit(&log, 0..50);
    copy(&sim).unwrap();
    let all = records_of(&log);
    // An empty log, and one that was closed.
    let report = restore_on(fs.clone(), COPY, "/data/again", |_| ()).unwrap();
    assert_eq!((report.next_seq, report.restarts), (Seq(50), 0));
    let again = options(&sim).open("/data/again").unwrap();
    assert_eq!(again.open_report().end_state, EndState::Closed);
    assert!(again.open_report().strays.is_empty(), "{:?}", again.open_report());
    assert_eq!(records_of(&again), all);
    commit(&again, 50..60);
    commit(&log, 50..60);
    // A log that is there is not replaced, nor is a backup, nor anybody's directory.
    sim.create_dir(Path::new("/data/others")).unwrap();
    sim.write_file("/data/others/thesis.txt", b"years of work").unwrap();
    for place in [DIR, COPY, "/data/again", "/data/others"] {
        let before = sim.files();
        let mut refused = vec![restore_on(fs.clone(), COPY, place, |_| ())];
        if place != COPY {
            refused.push(backup_on(fs.clone(), COPY, place, |_| ()));
        }
        for refused in refused {
            let error = refused.unwrap_err();
            let taken = matches!(&error, Error::Io { source, .. }
                if source.kind() == std::io::ErrorKind::AlreadyExists);
            assert!(taken, "{place}: {}", chain(&error));
        }
        assert_eq!(sim.files(), before, "{place}");
    }
    again.close().unwrap();
    log.close().unwrap();
    assert_eq!(records(&sim, DIR).unwrap().len(), 60);
    // A copy that somebody wrote to is a log of its own.
    let copied = options(&sim).open(COPY).unwrap();
    commit(&copied, 50..51);
    copied.close().unwrap();
    let error = copy(&sim).unwrap_err();
    assert!(chain(&error).contains("written to"), "{}", chain(&error));
    assert_eq!(records(&sim, COPY).unwrap().len(), 51);
}

#[test]
fn an_empty_log_is_copied() {
    let sim = machine();
    drop(options(&sim).open(DIR).unwrap());
    copy(&sim).unwrap();
    assert!(options(&sim).open(COPY).unwrap().next_seq() == Seq(0));
}

/// A damaged log is refused, and what was copied before stays.
#[test]
fn a_damaged_log_does_not_become_a_backup() {
    let sim = machine();
    let log = options(&sim).open(DIR).unwrap();
    commit(&log, 0..40);
    copy(&sim).unwrap();
    let whole = records(&sim, COPY).unwrap();
    commit(&log, 40..80);
    log.close().unwrap();
    let segments = sim.files().into_iter().map(|(path, _)| path);
    let segments: Vec<_> = segments
        .filter(|p| p.starts_with(DIR) && p.extension().is_some_and(|e| e == "cairn"))
        .collect();
    let middle = &segments[segments.len() - 2];
    let mut bytes = sim.read_file(middle).unwrap();
    bytes[5000] ^= 1;
    sim.write_file(middle, bytes).unwrap();
    let error = copy(&sim).unwrap_err();
    let Error::Corrupt(damage) = &error else { panic!("{}", chain(&error)) };
    assert_eq!(&damage.path, middle);
    assert_eq!(records(&sim, COPY).unwrap(), whole);
    // Nor is there a first copy of it.
    backup_on(Arc::new(sim.clone()), DIR, "/data/first", |_| ()).unwrap_err();
    assert!(matches!(options(&sim).open("/data/first"),
        Err(Error::Corrupt(c)) if c.kind == CorruptionKind::State));
}

/// The power fails at any moment of a copy: then there is the copy that was there, or the new one,
/// or none that opens; and copying again makes it whole.
#[test]
fn an_interrupted_copy_is_never_taken_for_a_whole_one() {
    let (mut none, mut old, mut new) = (0, 0, 0);
    for earlier in [false, true] {
        let sim = machine();
        let log = options(&sim).open(DIR).unwrap();
        commit(&log, 0..30);
        if earlier {
            copy(&sim).unwrap();
        }
        let before = records_of(&log);
        log.truncate_before(lsn_of(&log, 14)).unwrap();
        commit(&log, 30..60);
        log.close().unwrap();
        let from = sim.op_count();
        copy(&sim).unwrap();
        let (all, done) = (records(&sim, DIR).unwrap(), sim.op_count());
        let explorer = CrashExplorer::new(sim.trace()).samples_per_point(8).exhaustive_limit(16);
        let report = explorer.points(from..=done).for_each(|state| {
            let machine = state.fs();
            match options(&machine).open(COPY) {
                // Nothing was there yet, not even a note: a new log.
                Ok(log) if log.open_report().created => none += 1,
                Ok(log) if records_of(&log) == all => new += 1,
                Ok(log) if earlier && records_of(&log) == before => old += 1,
                Ok(log) => return Err(format!("opens with {} records", records_of(&log).len())),
                Err(Error::Corrupt(_)) => none += 1,
                Err(error) => return Err(chain(&error)),
            }
            if state.point() == done && new == 0 {
                return Err("not durable on return".into());
            }
            let machine = state.fs();
            match copy(&machine) {
                Ok(_) if records(&machine, COPY)? == all => Ok(()),
                Ok(_) => Err("another copy is not the log".into()),
                Err(error) => Err(format!("cannot be repeated: {}", chain(&error))),
            }
        });
        report.unwrap();
    }
    println!("{none} without a log, {old} with the old copy, {new} with the new one");
    assert!(none > 10 && old > 10 && new > 0);
}

/// A thread appends, rotates, truncates at both ends and has segments recycled, and others are
/// dropped, while the log is copied again and again: each copy holds what was acknowledged before
/// it began, at its position.
#[test]
fn many_copies_beside_a_writer() {
    let rounds = std::env::var("CAIRN_BACKUPS").map_or(60, |n| n.parse().unwrap());
    let home = tempfile::tempdir().unwrap();
    let (dir, to) = (home.path().join("log"), home.path().join("copy"));
    let log = Log::options().segment_size(16 << 10).buffer_size(4 << 10).open(&dir).unwrap();
    log.commit(&payload(0)).unwrap();
    let (acknowledged, ended) = (AtomicU64::new(1), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut kept = std::collections::VecDeque::from([(0, log.head_lsn())]);
            let mut n = 1;
            while !ended.load(Ordering::Relaxed) {
                let lsn = log.commit(&payload(n)).unwrap();
                n += 1;
                acknowledged.store(n, Ordering::SeqCst);
                kept.push_back((n - 1, lsn));
                if kept.len() > 400 {
                    kept.drain(..150);
                    log.truncate_before(kept[0].1).unwrap();
                }
                if n % 8 == 0 {
                    std::thread::sleep(std::time::Duration::from_micros(300));
                }
            }
        });
        let (mut restarts, mut copied, mut segments) = (0, 0, 0);
        for round in 0..rounds {
            let before = acknowledged.load(Ordering::SeqCst);
            let report = backup(&dir, &to, |_| ()).unwrap_or_else(|e| panic!("{}", chain(&e)));
            assert!(report.next_seq.0 >= before, "{report:?}, {before} acknowledged");
            let look = Inspection::open(&to).unwrap();
            assert_eq!(look.end_state(), EndState::Closed);
            assert!(look.verify(|_| ()).unwrap().problems.is_empty());
            let mut next = look.head_seq().0;
            for record in look.reader(look.head_seq()).unwrap() {
                let record = record.unwrap();
                assert_eq!((record.seq().0, record.payload()), (next, &payload(next)[..]));
                next += 1;
            }
            assert_eq!(next, report.next_seq.0);
            if round % 10 == 0 {
                let again = home.path().join(format!("again{round}"));
                restore(&to, &again, |_| ()).unwrap();
                let again = Log::open(&again).unwrap();
                for seq in [look.head_seq(), Seq(next - 1)] {
                    let at = |mut reader: cairn_log::Reader| {
                        let record = reader.next_record().unwrap().unwrap();
                        (record.lsn(), record.seq(), record.payload().to_vec())
                    };
                    assert_eq!(at(again.reader(seq).unwrap()), at(look.reader(seq).unwrap()));
                }
            }
            restarts += report.restarts;
            copied += report.copied;
            segments += report.segments;
        }
        ended.store(true, Ordering::Relaxed);
        println!("{rounds} copies, {copied} of {segments} segments copied, {restarts} restarts");
        assert!(copied < segments, "what is sealed is copied once");
    });
    assert!(log.stats().recycled > 0 && log.stats().rotations > 10, "{:?}", log.stats());
}

fn payload(n: u64) -> Vec<u8> {
    n.to_le_bytes().repeat(40)
}

/// Damage within a segment, no superblock, a segment that is gone: the copy has the gaps that the
/// repair told, and so has what is restored from it.
#[test]
fn a_copy_of_a_repaired_log_has_its_gaps() {
    let sim = machine();
    let log = options(&sim).open(DIR).unwrap();
    commit(&log, 0..120);
    log.close().unwrap();
    let segment = |nth: usize| -> PathBuf {
        let is_segment = |(path, _): &(PathBuf, u64)| {
            path.starts_with(DIR) && path.extension().is_some_and(|e| e == "cairn")
        };
        sim.files().into_iter().filter(is_segment).map(|(path, _)| path).nth(nth).unwrap()
    };
    sim.flip_bit(segment(1), 5_000, 0).unwrap();
    let bytes = sim.read_file(segment(3)).unwrap();
    sim.write_file(segment(3), [&[0; 4096], &bytes[4096..]].concat()).unwrap();
    sim.remove(&segment(5)).unwrap();
    assert!(copy(&sim).is_err());
    let fs: Arc<dyn Fs> = Arc::new(sim.clone());
    let repaired = Repair::plan_on(fs.clone(), DIR, |_| ()).unwrap().apply(|_| ()).unwrap();
    assert_eq!(repaired.gaps().len(), 2);
    // Once anew, and once over a copy that is there.
    for _ in 0..2 {
        copy(&sim).unwrap();
    }
    let again = "/data/again";
    restore_on(fs, COPY, again, |_| ()).unwrap();
    let read = |dir: &str| {
        let log = options(&sim).open(dir).unwrap();
        let gaps = log.open_report().gaps.clone();
        let told = |record: cairn_log::Result<cairn_log::Record>| match record {
            Ok(record) => Ok((record.lsn(), record.payload().to_vec())),
            Err(Error::Gap(gap)) => Err(gap),
            Err(error) => panic!("{dir}: {}", chain(&error)),
        };
        (gaps, log.reader(Lsn::START).unwrap().map(told).collect::<Vec<_>>())
    };
    let original = read(DIR);
    assert_eq!(original.0, repaired.gaps());
    assert_eq!(read(again), original);
}
