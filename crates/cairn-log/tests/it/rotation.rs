//! guards: L43
//!
//! Segments that get their names while the ones before are still written to: what their superblocks
//! leave open, what tells it, and what an empty one may not hide. Power cuts around them are in
//! `crash.rs` and `recycling.rs`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cairn_io::Fs;
use cairn_log::{
    CorruptionKind, EndState, Error, Inspection, Log, Lsn, Options, Retention, Seq, Start,
};
use cairn_sim::SimFs;

use crate::crash::{run, tiny_on};
use crate::damage::{Image, SUPERBLOCK};
use crate::hostile::{crc32c, crc32c_append};
use crate::model::{DIR, contents};

const OPEN: [u8; 8] = [0xff; 8];
const GROUP: usize = SUPERBLOCK as usize;

fn options(sim: &SimFs) -> Options {
    Log::options().segment_size(8 << 10).buffer_size(4 << 10).fs(Arc::new(sim.clone()))
}

fn inspect(sim: &SimFs) -> Inspection {
    Inspection::open_on(Arc::new(sim.clone()), DIR).unwrap()
}

fn record(n: u64) -> Vec<u8> {
    format!("record {n} {}", "x".repeat((n % 61) as usize)).into_bytes()
}

/// Three hundred records, and a process that dies; the last segment has its name, and nothing in
/// it.
fn killed() -> Image {
    let sim = SimFs::new();
    let log = options(&sim).open(DIR).unwrap();
    let records: Vec<_> = (0..300).map(record).collect();
    let lsns = records.iter().map(|record| log.commit(record).unwrap().0).collect();
    sim.kill();
    drop(log);
    let image = Image::of(&sim.restart(), records, lsns);
    let last = &image.files[image.last_segment()].1;
    assert!(last[48..56] == OPEN && last[GROUP..].iter().all(|b| *b == 0));
    image
}

/// The same, closed.
fn closed() -> Image {
    let sim = killed().plant();
    options(&sim).open(DIR).unwrap().close().unwrap();
    let mut image = killed();
    image.files = Image::of(&sim, Vec::new(), Vec::new()).files;
    assert!(image.made_ahead().len() > 2);
    image
}

impl Image {
    /// Segments with a group whose number is open, but the last one.
    fn made_ahead(&self) -> Vec<usize> {
        let mut segments = self.segments();
        segments.pop();
        segments.retain(|i| self.files[*i].1[48..56] == OPEN);
        segments
    }

    /// Where in its file the header of the seal of the segment before this one is.
    fn seal_before(&self, file: usize) -> usize {
        let before = &self.files[file - 1];
        let end = GROUP + (self.base_lsn(file) - self.base_lsn(file - 1)) as usize;
        let len = u32::from_le_bytes(before.1[end - 8..end - 4].try_into().unwrap()) as usize;
        assert_eq!(before.1[end - len + 5], 3, "the kind of a seal");
        end - len
    }

    /// Gives the group whose header is here another first number, and a checksum that is right.
    fn renumber(&mut self, file: usize, at: usize, change: impl Fn(u64) -> u64) {
        let bytes = &mut self.files[file].1;
        let seed = crc32c(&bytes[16..32]);
        let group = &mut bytes[at..at + 56];
        let seq = u64::from_le_bytes(group[32..40].try_into().unwrap());
        group[32..40].copy_from_slice(&change(seq).to_le_bytes());
        let crc = crc32c_append(seed, &group[4..]);
        group[..4].copy_from_slice(&crc.to_le_bytes());
    }
}

/// Opening is refused for this segment's first group, and changes nothing.
fn refused(image: &Image, file: usize) {
    let sim = image.plant();
    let before = sim.fingerprint();
    let why = |error: &Error| match error {
        Error::Corrupt(c) => c.kind == CorruptionKind::Group && c.lsn.0 == image.base_lsn(file),
        // A seal with another number has another checksum.
        Error::OtherHistory { lsn, .. } => lsn.0 == image.base_lsn(file),
        _ => false,
    };
    let error = options(&sim).open(DIR).expect_err("nothing tells the number for certain");
    assert!(why(&error), "{error:?}");
    let found = inspect(&sim);
    assert!(found.problems().iter().any(why), "{:?}", found.problems());
    found.verify(|_| ()).unwrap();
    let _ = found.reader(Lsn::START).map(|reader| reader.count());
    let _ = found.reader(Start::Seq(Seq(200))).map(|reader| reader.count());
    assert_eq!(sim.fingerprint(), before);
}

#[test]
fn a_log_is_rotated_both_ways() {
    let mut ways = BTreeSet::new();
    for seed in 1..30 {
        let driver = run(seed, tiny_on(seed), 60);
        let segments = inspect(&driver.sim).segments();
        let rotated = segments.windows(2).filter(|pair| pair[0].generation == pair[1].generation);
        ways.extend(
            rotated.map(|pair| driver.sim.read_file(&pair[1].path).unwrap()[48..56] == OPEN),
        );
    }
    assert_eq!(ways.len(), 2, "in the workloads of the crash exploration");
}

#[test]
fn two_sources_that_tell_different_numbers_are_refused() {
    for file in closed().made_ahead() {
        let changes: [fn(u64) -> u64; 4] = [|n| n + 1, |n| n - 1, |_| 0, |n| n + 1000];
        for change in changes {
            let mut by_group = closed();
            by_group.renumber(file, GROUP, change);
            refused(&by_group, file);
            let mut by_seal = closed();
            let at = by_seal.seal_before(file);
            by_seal.renumber(file - 1, at, change);
            refused(&by_seal, file);
        }
    }
}

/// Numbers that cannot be are none, whatever the checksum says.
#[test]
fn a_number_that_cannot_be_is_none() {
    for file in closed().made_ahead() {
        for number in [u64::MAX, 1 << 63, closed().base_lsn(file) + 1] {
            let mut image = closed();
            let at = image.seal_before(file);
            image.renumber(file, GROUP, |_| number);
            image.renumber(file - 1, at, |_| number);
            refused(&image, file);
        }
    }
}

#[test]
fn a_number_is_known_while_one_source_is_whole() {
    let image = closed();
    for file in image.made_ahead() {
        let seal = image.seal_before(file);
        let start = image.base_lsn(file);
        let before = image.lsns.iter().filter(|lsn| **lsn < start).count();
        // The seal of the segment before is no longer one: nothing else is lost.
        for at in [seal, seal + 33, image.files[file - 1].1.len() - 1] {
            let mut damaged = image.clone();
            damaged.files[file - 1].1[at] ^= 1;
            let log = options(&damaged.plant()).open(DIR).unwrap();
            let tail: Vec<_> =
                log.reader(Start::Lsn(Lsn(start))).unwrap().map(|r| r.unwrap().seq().0).collect();
            assert!(tail.into_iter().eq(before as u64..300));
        }
        // The first group is no longer one: what is behind it keeps its numbers.
        let mut damaged = image.clone();
        damaged.files[file].1[GROUP + 33] ^= 1;
        let log = options(&damaged.plant()).open(DIR).unwrap();
        let read: Vec<_> = log.reader(Lsn::START).unwrap().collect();
        assert_eq!(read.iter().filter(|r| r.is_ok()).count(), before);
        let Some(Err(Error::Corrupt(c))) = read.last() else { panic!("{:?}", read.last()) };
        assert_eq!((c.kind, c.lsn.0), (CorruptionKind::Group, start));
        assert_eq!(
            inspect(&damaged.plant()).segments()[file - image.segments()[0]].base_seq,
            Seq(before as u64)
        );
        // Both.
        damaged.files[file - 1].1[seal + 33] ^= 1;
        refused(&damaged, file);
    }
}

/// What precedes it was dropped long ago: the first group alone tells.
#[test]
fn the_oldest_segment_tells_its_number_itself() {
    let sim = closed().plant();
    let log = options(&sim).open(DIR).unwrap();
    let third = inspect(&sim).segments()[2].clone();
    log.retain(Retention::From(third.base_lsn)).unwrap();
    log.close().unwrap();
    assert!(sim.read_file(&third.path).unwrap()[48..56] == OPEN);
    let log = options(&sim).open(DIR).unwrap();
    assert_eq!(contents(&log).unwrap().0, third.base_seq.0);
    drop(log);
    let mut image = Image::of(&sim, Vec::new(), Vec::new());
    let file = image.files.iter().position(|(path, _)| *path == third.path).unwrap();
    image.files[file].1[GROUP + 33] ^= 1;
    refused(&image, file);
}

#[test]
fn an_empty_successor_is_no_part_of_the_log() {
    let image = killed();
    let sim = image.plant();
    let found = inspect(&sim);
    assert!(found.problems().is_empty(), "{:?}", found.problems());
    assert_eq!((found.end_state(), found.next_seq()), (EndState::Unclosed, Seq(300)));
    assert_eq!(found.obsolete(), [image.files[image.last_segment()].0.clone()]);
    let log = options(&sim).open(DIR).unwrap();
    assert_eq!(contents(&log).unwrap(), (0, image.records.clone()));
    log.close().unwrap();
    assert!(
        sim.read_file(&image.files[image.last_segment()].0).is_err(),
        "the next writer removes it"
    );
}

/// The process ended before the space that was reserved in a segment was given back.
#[test]
fn a_missing_segment_is_named_also_where_the_file_before_reaches_into_it() {
    let sim = closed().plant();
    let found = inspect(&sim).segments();
    let mut bytes = sim.read_file(&found[0].path).unwrap();
    bytes.resize(bytes.len() + 600, 0);
    sim.write_file(&found[0].path, bytes).unwrap();
    Fs::remove(&sim, &found[1].path).unwrap();
    match inspect(&sim).problems() {
        [Error::Corrupt(lost)] => {
            let (from, to) = (found[1].base_lsn, found[2].base_lsn);
            assert_eq!(lost.kind, CorruptionKind::MissingSegment, "{lost:?}");
            assert_eq!((lost.lsn, lost.resumes), (from, Some(to)), "{lost:?}");
        }
        other => panic!("{other:?}"),
    }
}

/// The segment that was written to is lost. The one before is sealed, and an empty one is there
/// that follows the lost one.
#[test]
fn an_empty_successor_does_not_hide_a_lost_segment() {
    let mut image = killed();
    let lost = image.last_segment() - 1;
    let (path, _) = image.files.remove(lost);
    let sim = image.plant();
    let before = sim.fingerprint();
    let error = options(&sim).open(DIR).expect_err("acknowledged records are lost");
    assert!(
        matches!(&error, Error::Corrupt(c) if c.kind == CorruptionKind::MissingSegment),
        "{error:?}"
    );
    assert!(!inspect(&sim).problems().is_empty(), "without {path:?}");
    assert_eq!(sim.fingerprint(), before);
    // And with nothing left but that one.
    let last = image.last_segment();
    image
        .files
        .retain(|(path, _)| path.extension().is_none() || *path == killed().files[last + 1].0);
    let error = options(&image.plant()).open(DIR).expect_err("all records are lost");
    assert!(matches!(&error, Error::Corrupt(_)), "{error:?}");
}

/// Names that are in the directory and no segment of the log in use.
fn names_ahead(sim: &SimFs) -> Vec<PathBuf> {
    inspect(sim).obsolete().to_vec()
}

/// guards: L05
#[test]
fn a_name_goes_before_what_it_says_is_wrong() {
    for direct in [true, false] {
        let sim = SimFs::new();
        let log = options(&sim).direct_io(direct).open(DIR).unwrap();
        let lsns: Vec<_> = (0..40).map(|n| log.commit(&record(n)).unwrap()).collect();
        let [ahead] = &names_ahead(&sim)[..] else { panic!("{:?}", names_ahead(&sim)) };
        let head = |sim: &SimFs| {
            u64::from_le_bytes(
                sim.read_file(&names_ahead(sim)[0]).unwrap()[56..64].try_into().unwrap(),
            )
        };
        assert_eq!(head(&sim), 0);
        log.truncate_before(lsns[20]).unwrap();
        // Made anew, with the new head, once the truncation was over.
        assert_eq!((names_ahead(&sim), head(&sim)), (vec![ahead.clone()], lsns[20].0));
        log.truncate_after(lsns[30]).unwrap();
        assert!(names_ahead(&sim).iter().all(|name| name != ahead), "of another generation");
        log.close().unwrap();
        assert_eq!(names_ahead(&sim), [] as [PathBuf; 0]);
        let files = Fs::list(&sim, Path::new(DIR)).unwrap();
        assert_eq!(files.len(), 2 + inspect(&sim).segments().len(), "{files:?}");
    }
}

/// A segment that was made ahead is older than its first record: what is dropped by age was written
/// before that.
#[test]
fn nothing_younger_than_asked_is_dropped() {
    let sim = SimFs::new();
    let mut log = Some(options(&sim).open(DIR).unwrap());
    let mut written: Vec<SystemTime> = Vec::new();
    let mut dropped = 0;
    for n in 0..900u64 {
        let open = log.take().unwrap_or_else(|| options(&sim).open(DIR).unwrap());
        written.push(sim.now());
        open.commit(&record(n)).unwrap();
        // Each look at the clock takes a millisecond.
        let mut now = sim.now();
        (0..n % 17).for_each(|_| now = sim.now());
        if n % 7 == 0 {
            let age = Duration::from_millis(100 + n % 400);
            open.retain(Retention::Age(age)).unwrap();
            let (first, _) = contents(&open).unwrap();
            if let Some(youngest) = written[..first as usize].last() {
                let was = now.duration_since(*youngest).unwrap();
                assert!(
                    was + Duration::from_millis(10) > age,
                    "record {} was {was:?} old, {age:?} asked for",
                    first - 1
                );
            }
            dropped = first;
        }
        match n % 90 {
            40 => open.close().unwrap(),
            _ => log = Some(open),
        }
    }
    assert!(dropped > 400, "{dropped}");
}
