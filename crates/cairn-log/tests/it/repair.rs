//! guards: L10 L14 L20
//!
//! A repair loses nothing that verifies: whatever byte of a log is damaged, the repaired log opens,
//! holds every record that was not hit at its position, and takes more.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use cairn_log::{Error, Gap, Inspection, Lsn, Repair};
use cairn_sim::{SimFs, SimOptions};

use crate::damage::{Image, SUPERBLOCK, options_on};
use crate::model::DIR;

/// A cleanly closed log of three segments: groups as they come, or one record a group.
pub(crate) fn closed_log(alone: bool) -> Image {
    let sim = SimFs::with_options(SimOptions::new().seed(1));
    let log = options_on(&sim).open(DIR).unwrap();
    let look = || Inspection::open_on(Arc::new(sim.clone()), DIR).unwrap().segments().len();
    let (mut records, mut more) = (Vec::new(), 30);
    while more > 0 {
        let n = records.len();
        records.push(vec![n as u8; n % 23]);
        log.append(&records[n]).unwrap();
        if alone || n % 40 == 39 {
            log.sync().unwrap();
        }
        more -= i32::from(look() == 3);
    }
    let lsns = log.reader(Lsn::START).unwrap().map(|r| r.unwrap().lsn().0).collect();
    log.close().unwrap();
    let image = Image::of(&sim, records, lsns);
    assert_eq!(image.segments().len(), 3);
    image
}

pub(crate) fn plan(sim: &SimFs) -> cairn_log::Result<Repair> {
    Repair::plan_on(Arc::new(sim.clone()), DIR, |_| ())
}

/// Repairs, and finds nothing to repair in what comes of it.
pub(crate) fn repair(sim: &SimFs) -> Result<Repair, String> {
    let done = plan(sim).and_then(|plan| plan.apply(|_| ()));
    let done = done.map_err(|e| format!("repair: {e}"))?;
    let again = plan(sim).map_err(|e| format!("second repair: {e}"))?;
    match again.is_needed() {
        true => Err(format!("a second repair would find something: {again:?}")),
        false => Ok(done),
    }
}

/// Everything that is read, and the gaps that are told on the way.
fn read(reader: cairn_log::Result<cairn_log::Reader>) -> Result<Found, String> {
    let (mut records, mut gaps) = (Vec::new(), Vec::new());
    for record in reader.map_err(|e| format!("reader: {e}"))? {
        match record {
            Ok(record) => records.push((record.lsn().0, record.seq().0, record.payload().to_vec())),
            Err(Error::Gap(gap)) => gaps.push(gap),
            Err(error) => return Err(format!("read: {error}")),
        }
    }
    Ok(Found { records, gaps })
}

#[derive(Debug, PartialEq)]
pub(crate) struct Found {
    records: Vec<(u64, u64, Vec<u8>)>,
    pub(crate) gaps: Vec<Gap>,
}

/// Opens the repaired log, and checks that it holds all records but `hit` where they were, also
/// after it went on. Returns what it read first.
pub(crate) fn check(sim: &SimFs, image: &Image, hit: &BTreeSet<usize>) -> Result<Found, String> {
    let expected: Vec<_> = (0..image.records.len())
        .filter(|n| !hit.contains(n))
        .map(|n| (image.lsns[n], n as u64, image.records[n].clone()))
        .collect();
    let log = options_on(sim).open(DIR).map_err(|e| format!("open: {e}"))?;
    let found = read(log.reader(Lsn::START))?;
    if found.records != expected {
        let (a, b) = (&found.records, &expected);
        let at = a.iter().zip(b).position(|(a, b)| a != b);
        return Err(format!("{} records, not {}; differ at {at:?}", a.len(), b.len()));
    }
    let lsn = log.commit(b"one more").map_err(|e| format!("commit: {e}"))?;
    let again = read(log.reader(Lsn::START))?;
    if again.gaps != found.gaps || again.records.len() != expected.len() + 1 {
        return Err(format!("after a commit: {:?}", again.gaps));
    }
    let reported: Vec<_> = log.open_report().gaps.clone();
    if reported != found.gaps {
        return Err(format!("reported {reported:?}, read {:?}", found.gaps));
    }
    log.close().map_err(|e| format!("close: {e}"))?;
    let log = options_on(sim).open(DIR).map_err(|e| format!("open again: {e}"))?;
    let last = log.reader(lsn).map_err(|e| format!("the new record: {e}"))?.next();
    if !last.is_some_and(|r| r.is_ok_and(|r| r.payload() == b"one more")) {
        return Err("the new record is not there".to_owned());
    }
    Ok(found)
}

/// The records of which a byte of the file is part.
pub(crate) fn hit_by(image: &Image, file: usize, offset: usize) -> BTreeSet<usize> {
    let Some(at) = (offset as u64).checked_sub(SUPERBLOCK) else { return BTreeSet::new() };
    let lsn = image.base_lsn(file) + at;
    let end = |n: usize| image.lsns[n] + (12 + image.records[n].len() as u64).next_multiple_of(8);
    (0..image.lsns.len()).filter(|n| (image.lsns[*n]..end(*n)).contains(&lsn)).collect()
}

/// Flips a bit, repairs, and checks.
pub(crate) fn flip_and_check(
    image: &Image,
    file: usize,
    offset: usize,
    bit: u8,
) -> Result<(), String> {
    let sim = image.plant();
    let path = &image.files[file].0;
    sim.flip_bit(path, offset as u64, bit).unwrap();
    let hit = hit_by(image, file, offset);
    let before = segments(&sim);
    let repaired = repair(&sim)?;
    if segments(&sim) != before {
        return Err("a byte of a segment changed".to_owned());
    }
    let lost: u64 = repaired.gaps().iter().filter_map(Gap::records).sum();
    if lost != hit.len() as u64 {
        return Err(format!("said to be lost: {:?}, hit: {hit:?}", repaired.gaps()));
    }
    let found = check(&sim, image, &hit)?;
    if found.gaps != repaired.gaps() {
        return Err(format!("read {:?}, planned {:?}", found.gaps, repaired.gaps()));
    }
    Ok(())
}

fn segments(sim: &SimFs) -> Vec<(PathBuf, Vec<u8>)> {
    let bytes = |(path, _): (PathBuf, u64)| (path.clone(), sim.read_file(&path).unwrap());
    let is_segment = |(path, _): &(PathBuf, u64)| path.extension().is_some_and(|e| e == "cairn");
    sim.files().into_iter().filter(is_segment).map(bytes).collect()
}

/// Of so many bytes one is damaged, unless all are; no multiple of two, so that each bit has its
/// turn.
const SAMPLE: usize = 11;

/// The bits that are flipped, as file, offset and bit: a sample of bytes, one bit of each in turn,
/// but of the zeros of superblocks fewer; every bit with `CAIRN_EVERY_BIT=1`.
fn places(image: &Image) -> Vec<(usize, usize, u8)> {
    let every_bit = std::env::var_os("CAIRN_EVERY_BIT").is_some();
    let mut places = Vec::new();
    for file in image.segments() {
        let holds_something = |offset: &usize| !(136..4096).contains(offset);
        for offset in 0..image.files[file].1.len() {
            if every_bit {
                places.extend((0..8).map(|bit| (file, offset, bit)));
            } else if holds_something(&offset) || offset.is_multiple_of(64) {
                places.push((file, offset, (offset % 8) as u8));
            }
        }
    }
    places.into_iter().step_by(if every_bit { 1 } else { SAMPLE }).collect()
}

#[test]
fn whatever_bit_flips_a_repair_loses_the_records_that_it_hit_and_no_others() {
    for alone in [false, true] {
        let image = closed_log(alone);
        let places = places(&image);
        let failures = Mutex::new(Vec::new());
        let next = AtomicUsize::new(0);
        let flip = || {
            while let Some((file, offset, bit)) = places.get(next.fetch_add(1, Ordering::Relaxed)) {
                if let Err(error) = flip_and_check(&image, *file, *offset, *bit) {
                    let place = format!("alone {alone}, file {file}, offset {offset}, bit {bit}");
                    failures.lock().unwrap().push(format!("{place}: {error}"));
                }
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(flip);
            scope.spawn(flip);
        });
        let failures = failures.into_inner().unwrap();
        let first = &failures[..failures.len().min(12)];
        assert!(failures.is_empty(), "{} of {}: {first:#?}", failures.len(), places.len());
        assert!(places.len() > 1_500, "{}", places.len());
    }
}
