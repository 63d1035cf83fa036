//! guards: L57 L65
//!
//! Two histories of one log. A copy of a log is written to, and something of it comes back among
//! the files of the original: a segment, the state, a group. Identity, generation and positions are
//! the same in both. Opening refuses, by name, and changes nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_io::Fs;
use cairn_log::{CorruptionKind, EndState, Error, ErrorKind, Inspection, Log, Lsn, Options, Seq};
use cairn_sim::{Call, Chooser, Errno, Fault, FaultPlan, SimFs, SimOptions};

use crate::hostile::{crc32c, crc32c_append};
use crate::model::{DIR, contents};

const GROUP: usize = 4096;

pub(crate) fn options() -> Options {
    Log::options().segment_size(8 << 10).buffer_size(4 << 10).direct_io(false)
}

pub(crate) fn open(sim: &SimFs) -> cairn_log::Result<Log> {
    options().fs(Arc::new(sim.clone())).open(DIR)
}

fn names(sim: &SimFs) -> Vec<String> {
    let mut names: Vec<String> =
        sim.list(Path::new(DIR)).unwrap().into_iter().map(|n| n.into_string().unwrap()).collect();
    names.sort();
    names
}

pub(crate) fn segments(sim: &SimFs) -> Vec<String> {
    names(sim).into_iter().filter(|name| name.ends_with(".cairn")).collect()
}

fn at(name: &str) -> PathBuf {
    Path::new(DIR).join(name)
}

/// The last segment that holds a group: another one may have been made ahead.
fn last_written(sim: &SimFs) -> String {
    let holds = |name: &&String| sim.read_file(at(name)).unwrap()[GROUP..].iter().any(|b| *b != 0);
    segments(sim).iter().rfind(holds).unwrap().clone()
}

/// The same files in another place, where other random numbers are drawn.
pub(crate) fn copy_of(sim: &SimFs, seed: u64) -> SimFs {
    let copy = SimFs::with_options(SimOptions::new().seed(seed));
    copy.create_dir(Path::new(DIR)).unwrap();
    for name in names(sim) {
        copy.write_file(at(&name), sim.read_file(at(&name)).unwrap()).unwrap();
    }
    copy
}

pub(crate) fn bring(from: &SimFs, to: &SimFs, name: &str) {
    to.write_file(at(name), from.read_file(at(name)).unwrap()).unwrap();
}

/// Appends records of this one byte, each durable.
pub(crate) fn commit(log: &Log, fill: u8, count: usize) {
    (0..count).for_each(|_| {
        log.commit(&[fill; 700]).unwrap();
    });
}

/// Opens, appends and closes.
pub(crate) fn write(sim: &SimFs, fill: u8, count: usize) {
    let log = open(sim).unwrap();
    commit(&log, fill, count);
    log.close().unwrap();
}

/// Opens and appends, and dies.
pub(crate) fn die(sim: &SimFs, fill: u8, count: usize) -> SimFs {
    let log = open(sim).unwrap();
    commit(&log, fill, count);
    sim.kill();
    drop(log);
    sim.restart()
}

/// A log, and a copy of it that was made when it was closed.
pub(crate) fn parted() -> (SimFs, SimFs) {
    let ours = SimFs::with_options(SimOptions::new().seed(1));
    write(&ours, 0, 3);
    let theirs = copy_of(&ours, 2);
    (ours, theirs)
}

/// Opening refuses, `verify` tells, and nothing is changed.
pub(crate) fn refuses(sim: &SimFs, why: impl Fn(&Error) -> bool) -> Result<(), String> {
    let before = sim.fingerprint();
    let error = match open(sim) {
        Ok(log) => return Err(format!("opens with {} records", contents(&log)?.1.len())),
        Err(error) => error,
    };
    if !why(&error) || error.kind() != ErrorKind::Repair {
        return Err(error.to_string());
    }
    match Inspection::open_on(Arc::new(sim.clone()), DIR) {
        Ok(look) if look.verify(|_| ()).unwrap().problems.is_empty() => {
            return Err("verify likes it".into());
        }
        _ => {}
    }
    if sim.fingerprint() == before { Ok(()) } else { Err("refused, and changed".into()) }
}

/// Says that there are two histories, and names a file of each.
fn two(error: &Error) -> bool {
    matches!(error, Error::OtherHistory { path, other, .. }
        if path != other && path.starts_with(DIR) && other.starts_with(DIR))
}

fn of_kind(kind: CorruptionKind) -> impl Fn(&Error) -> bool {
    move |error| matches!(error, Error::Corrupt(c) if c.kind == kind)
}

/// The story: the copy crashed, its recovery began generation 2, and what the original lacks is
/// added to it.
#[test]
fn a_generation_of_a_copy_takes_nothing_away() {
    for grown in [1, 100] {
        let (ours, theirs) = parted();
        let theirs = die(&theirs, 2, 10);
        write(&theirs, 2, 1);
        write(&ours, 1, grown);
        for name in segments(&theirs) {
            if !segments(&ours).contains(&name) {
                bring(&theirs, &ours, &name);
            }
        }
        refuses(&ours, two).unwrap();
    }
}

/// The other way round: everything of the copy comes, its state too, and what it does not have
/// stays.
pub(crate) fn what_reaches_further_than_its_cut_knew() -> Result<(), String> {
    let (ours, theirs) = parted();
    let theirs = die(&theirs, 2, 2);
    write(&theirs, 2, 1);
    write(&ours, 1, 100);
    // The segments that begin where the copy has others are gone: the rest is superseded.
    names(&theirs).iter().for_each(|name| bring(&theirs, &ours, name));
    refuses(&ours, two)
}

#[test]
fn a_superseded_segment_that_reaches_further_than_its_cut_knew_stays() {
    what_reaches_further_than_its_cut_knew().unwrap();
}

/// What a cut superseded is removed, also when it comes back from a backup.
#[test]
fn a_superseded_segment_of_ours_is_removed_as_ever() {
    let (ours, _) = parted();
    write(&ours, 1, 100);
    let before = copy_of(&ours, 3);
    let log = open(&ours).unwrap();
    let lsn = log.reader(Seq(20)).unwrap().next().unwrap().unwrap().lsn();
    log.truncate_after(lsn).unwrap();
    commit(&log, 3, 2);
    log.close().unwrap();
    let gone: Vec<_> =
        segments(&before).into_iter().filter(|n| !segments(&ours).contains(n)).collect();
    assert!(gone.len() > 3);
    for name in &gone {
        bring(&before, &ours, name);
    }
    let log = open(&ours).unwrap();
    assert_eq!(contents(&log).unwrap().1.len(), 23);
    assert!(log.open_report().removed.len() >= gone.len());
}

/// The position of a record.
fn lsn_of(log: &Log, seq: u64) -> Lsn {
    log.reader(Seq(seq)).unwrap().next().unwrap().unwrap().lsn()
}

fn cut_behind(sim: &SimFs, seq: u64) {
    let log = open(sim).unwrap();
    log.truncate_after(lsn_of(&log, seq)).unwrap();
    log.close().unwrap();
}

/// The copy had grown further than the original before it was cut: what its cut knew does not tell
/// the two apart, but who wrote does.
pub(crate) fn what_its_cut_never_saw() -> Result<(), String> {
    let (ours, theirs) = parted();
    write(&theirs, 2, 200);
    cut_behind(&theirs, 10);
    write(&ours, 1, 60);
    let before = segments(&ours).len();
    names(&theirs).iter().for_each(|name| bring(&theirs, &ours, name));
    assert!(segments(&ours).len() >= before, "some of ours stay");
    refuses(&ours, two)
}

#[test]
fn a_superseded_segment_of_an_opening_that_its_cut_does_not_know_stays() {
    what_its_cut_never_saw().unwrap();
}

/// A cut in the middle of a segment takes the rest of that out of the log, too: the file stays, and
/// what is in it is not read.
#[test]
fn what_a_cut_leaves_in_the_segment_before_is_of_its_history() {
    let options = |sim: &SimFs| {
        let fs = Arc::new(sim.clone());
        Log::options().segment_size(4 << 20).buffer_size(4 << 10).direct_io(false).fs(fs)
    };
    let fill = |sim: &SimFs, fill: u8, count: usize| {
        let log = options(sim).open(DIR).unwrap();
        commit(&log, fill, count);
        log.close().unwrap();
    };
    let ours = SimFs::with_options(SimOptions::new().seed(1));
    fill(&ours, 0, 500);
    let theirs = copy_of(&ours, 2);
    fill(&ours, 1, 100);
    fill(&theirs, 2, 400);
    let log = options(&theirs).open(DIR).unwrap();
    log.truncate_after(lsn_of(&log, 499)).unwrap();
    log.close().unwrap();
    let [first, cut] = &segments(&theirs)[..] else { panic!("{:?}", segments(&theirs)) };
    let mixed = copy_of(&ours, 3);
    [cut, "STATE"].iter().for_each(|name| bring(&theirs, &mixed, name));
    refuses(&mixed, two).unwrap();
    // What was there when the copy was made is in both.
    let whole = copy_of(&mixed, 4);
    bring(&theirs, &whole, first);
    assert_eq!(contents(&open(&whole).unwrap()).unwrap().1.len(), 500);
}

/// Whatever an interrupted removal leaves of what a cut superseded, the log opens: also when many
/// openings had written it, more than a cut lists.
#[test]
fn what_many_openings_wrote_is_removed_when_it_was_cut() {
    for openings in [3, 9, 12, 20, 40] {
        let (ours, _) = parted();
        (0..openings).for_each(|n| write(&ours, n, 12));
        let before = copy_of(&ours, 3);
        cut_behind(&ours, 1);
        let there = segments(&ours);
        let gone: Vec<_> =
            segments(&before).into_iter().filter(|name| !there.contains(name)).collect();
        assert!(gone.len() >= usize::from(openings));
        let alone = gone.iter().map(std::slice::from_ref);
        for left in alone.chain([&gone[..], &gone[1..], &gone[..gone.len() - 1]]) {
            let mixed = copy_of(&ours, 4);
            left.iter().for_each(|name| bring(&before, &mixed, name));
            let log = open(&mixed).unwrap_or_else(|why| panic!("{openings}, {left:?}: {why}"));
            assert_eq!(contents(&log).unwrap().1.len(), 2);
            assert_eq!(segments(&mixed).len(), there.len());
        }
    }
}

/// The same for openings that were killed, so that segments begin with a generation of their own: a
/// segment in the middle then ends with the seal of an opening that wrote nothing behind it.
#[test]
fn what_killed_openings_wrote_is_removed_when_it_was_cut() {
    for seed in 0..60 {
        let mut ours = SimFs::with_options(SimOptions::new().seed(seed));
        let mut dice = seed;
        let mut roll = |sides: usize| {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
            (dice >> 33) as usize % sides
        };
        let mut count = 0;
        for round in 0..12 {
            let log = open(&ours).unwrap_or_else(|why| panic!("seed {seed}, round {round}: {why}"));
            assert_eq!(contents(&log).unwrap().1.len(), count, "seed {seed}, round {round}");
            let added = 1 + roll(14);
            commit(&log, round, added);
            count += added;
            let before = copy_of(&ours, 100 + seed);
            if roll(3) == 0 {
                count = 1 + roll(count);
                log.truncate_after(lsn_of(&log, count as u64 - 1)).unwrap();
            }
            if roll(2) == 0 {
                ours.kill();
                drop(log);
                ours = ours.restart();
            } else {
                log.close().unwrap();
            }
            // As if the files that a cut superseded had not been removed yet.
            let there = segments(&ours);
            for name in segments(&before) {
                if !there.contains(&name) && roll(2) == 0 {
                    bring(&before, &ours, &name);
                }
            }
        }
    }
}

/// When the cut is gone as well, with the oldest records, nothing says what it took away: the file
/// is left alone.
#[test]
fn a_superseded_segment_of_which_no_cut_tells_is_left_alone() {
    let (ours, theirs) = parted();
    write(&ours, 1, 100);
    write(&theirs, 2, 100);
    cut_behind(&ours, 10);
    write(&ours, 3, 60);
    let log = open(&ours).unwrap();
    log.truncate_before(lsn_of(&log, 50)).unwrap();
    log.close().unwrap();
    let last = last_written(&theirs);
    assert!(!segments(&ours).contains(&last));
    bring(&theirs, &ours, &last);
    let kept = theirs.read_file(at(&last)).unwrap();
    let log = open(&ours).unwrap();
    assert_eq!(contents(&log).unwrap().1.len(), 71 - 50);
    assert!(log.open_report().strays.contains(&at(&last)), "{:?}", log.open_report());
    commit(&log, 4, 100);
    log.close().unwrap();
    assert_eq!(ours.read_file(at(&last)).unwrap(), kept);
    let look = Inspection::open_on(Arc::new(ours), DIR).unwrap();
    assert!(look.verify(|_| ()).unwrap().problems.is_empty());
}

pub(crate) fn a_sealed_segment_of_a_copy() -> Result<(), String> {
    let (ours, theirs) = parted();
    write(&ours, 1, 100);
    write(&theirs, 2, 100);
    let shared = segments(&ours);
    let middle = &shared[shared.len() / 2];
    assert!(segments(&theirs).contains(middle));
    bring(&theirs, &ours, middle);
    refuses(&ours, two)
}

#[test]
fn a_sealed_segment_of_a_copy_does_not_pass_for_ours() {
    a_sealed_segment_of_a_copy().unwrap();
    // Each of them, wherever it stands.
    let (ours, theirs) = parted();
    write(&ours, 1, 60);
    write(&theirs, 2, 60);
    for name in segments(&ours) {
        let mixed = copy_of(&ours, 4);
        bring(&theirs, &mixed, &name);
        refuses(&mixed, |_| true).unwrap_or_else(|why| panic!("{name}: {why}"));
    }
}

/// The same groups under a longer seal: an opening that goes on behind a mark knows more entries
/// of the index than the one that recovered.
pub(crate) fn a_longer_seal_of_a_copy() -> Result<(), String> {
    let ours = SimFs::with_options(SimOptions::new().seed(1));
    let log = open(&ours).unwrap();
    log.commit(&[0; 9000]).unwrap();
    ours.kill();
    drop(log);
    let ours = ours.restart();
    let log = open(&ours).unwrap();
    let theirs = copy_of(&ours, 2);
    commit(&log, 1, 3);
    log.close().unwrap();
    write(&theirs, 2, 2);
    let first = segments(&theirs)[0].clone();
    let len = |sim: &SimFs| sim.read_file(at(&first)).unwrap().len();
    assert!(len(&theirs) > len(&ours));
    bring(&theirs, &ours, &first);
    refuses(&ours, two)
}

#[test]
fn a_longer_seal_of_a_copy_does_not_pass_for_ours() {
    a_longer_seal_of_a_copy().unwrap();
}

pub(crate) fn the_last_segment_of_a_copy() -> Result<(), String> {
    // Closed both times, or neither: the state of the original stays.
    for closed in [true, false] {
        let (mut ours, mut theirs) = parted();
        for (sim, fill) in [(&mut ours, 1), (&mut theirs, 2)] {
            match closed {
                true => write(sim, fill, 4),
                false => *sim = die(sim, fill, 4),
            }
        }
        let last = last_written(&theirs);
        assert_eq!(last_written(&ours), last);
        bring(&theirs, &ours, &last);
        refuses(&ours, two)?;
    }
    Ok(())
}

#[test]
fn the_last_segment_of_a_copy_does_not_pass_for_ours() {
    the_last_segment_of_a_copy().unwrap();
}

#[test]
fn the_state_of_a_copy_or_of_another_time_does_not_pass_for_ours() {
    let (ours, theirs) = parted();
    let older = copy_of(&ours, 5);
    write(&ours, 1, 4);
    write(&theirs, 2, 8);
    for (other, why) in [(&older, "older"), (&theirs, "of a copy")] {
        let mixed = copy_of(&ours, 6);
        bring(other, &mixed, "STATE");
        refuses(&mixed, |_| true).unwrap_or_else(|problem| panic!("{why}: {problem}"));
    }
}

/// Where the header of the last group but `back` of a segment is.
fn group(bytes: &[u8], back: usize) -> usize {
    let (mut at, mut found) = (GROUP, Vec::new());
    while bytes.get(at + 4) == Some(&0xC7) {
        found.push(at);
        let len = u32::from_le_bytes(bytes[at + 8..at + 12].try_into().unwrap()) as usize;
        at += len + 8 * u16::from_le_bytes([bytes[at + 6], bytes[at + 7]]) as usize;
    }
    found[found.len() - 1 - back]
}

/// A block of the copy in the place of the same one here, with whole groups in it. `back` groups
/// follow.
pub(crate) fn a_group_of_a_copy(back: usize) -> Result<(), String> {
    let (ours, theirs) = parted();
    write(&ours, 1, 4);
    write(&theirs, 2, 4);
    let last = segments(&ours).pop().unwrap();
    let mut bytes = ours.read_file(at(&last)).unwrap();
    let other = theirs.read_file(at(&last)).unwrap();
    let (from, to) = (group(&bytes, back), group(&bytes, back - 1));
    bytes[from..to].copy_from_slice(&other[from..to]);
    ours.write_file(at(&last), bytes).unwrap();
    refuses(&ours, |error| two(error) || of_kind(CorruptionKind::History)(error))
}

#[test]
fn a_group_of_a_copy_does_not_pass_for_ours() {
    (1..=2).for_each(|back| a_group_of_a_copy(back).unwrap());
}

/// The frames of a group of the copy under the header of ours.
pub(crate) fn the_frames_of_a_copy() -> Result<(), String> {
    let (ours, theirs) = parted();
    write(&ours, 1, 4);
    write(&theirs, 2, 4);
    let last = segments(&ours).pop().unwrap();
    let mut bytes = ours.read_file(at(&last)).unwrap();
    let other = theirs.read_file(at(&last)).unwrap();
    let (from, to) = (group(&bytes, 2) + 56, group(&bytes, 1));
    bytes[from..to].copy_from_slice(&other[from..to]);
    ours.write_file(at(&last), bytes).unwrap();
    refuses(&ours, |_| true)
}

#[test]
fn the_frames_of_a_copy_do_not_pass_for_ours() {
    the_frames_of_a_copy().unwrap();
}

/// The end of a closed log cannot be cut off without being missed: at whatever byte.
pub(crate) fn a_closed_log_that_was_cut() -> Result<(), String> {
    let (ours, _) = parted();
    write(&ours, 1, 6);
    let last = segments(&ours).pop().unwrap();
    let bytes = ours.read_file(at(&last)).unwrap();
    let mark = group(&bytes, 0);
    for len in (GROUP..mark).step_by(8) {
        for zeros in [false, true] {
            let cut = copy_of(&ours, 7);
            let mut bytes = bytes[..len].to_vec();
            bytes.resize(if zeros { mark } else { len }, 0);
            cut.write_file(at(&last), bytes).unwrap();
            let told = |error: &Error| matches!(error, Error::Corrupt(_));
            refuses(&cut, told).map_err(|why| format!("{len} bytes are left: {why}"))?;
        }
    }
    // The mark holds no record.
    let cut = copy_of(&ours, 7);
    cut.write_file(at(&last), &bytes[..mark]).unwrap();
    let log = open(&cut).map_err(|error| error.to_string())?;
    match contents(&log)?.1.len() {
        9 => Ok(()),
        found => Err(format!("{found} records")),
    }
}

#[test]
fn a_closed_log_that_was_cut_is_no_torn_one() {
    a_closed_log_that_was_cut().unwrap();
}

/// What was there when the last opening began is known durable, although that one did not end.
#[test]
fn what_an_opening_began_with_is_missed() {
    let (ours, _) = parted();
    let before = copy_of(&ours, 8);
    write(&ours, 1, 4);
    let ours = die(&ours, 2, 1);
    bring(&before, &ours, &segments(&before).pop().unwrap());
    refuses(&ours, |_| true).unwrap();
}

#[test]
fn a_missing_state_is_told_and_an_empty_one_says_nothing() {
    let (ours, _) = parted();
    let missing = copy_of(&ours, 9);
    missing.remove(&at("STATE")).unwrap();
    refuses(&missing, of_kind(CorruptionKind::State)).unwrap();
    let damaged = copy_of(&ours, 9);
    damaged.write_file(at("STATE"), vec![0xA5; 8192]).unwrap();
    refuses(&damaged, of_kind(CorruptionKind::State)).unwrap();
    let empty = copy_of(&ours, 9);
    empty.write_file(at("STATE"), Vec::new()).unwrap();
    assert_eq!(contents(&open(&empty).unwrap()).unwrap().1.len(), 3);
    let lost = copy_of(&ours, 9);
    segments(&lost).iter().for_each(|name| lost.remove(&at(name)).unwrap());
    refuses(&lost, of_kind(CorruptionKind::State)).unwrap();
}

/// A process that was killed has said that it writes; its successor finds all of it.
pub(crate) fn a_successor_finds_what_was_acknowledged() -> Result<(), String> {
    let (mut ours, _) = parted();
    for round in 1..4 {
        ours = die(&ours, 1, 1);
        let log = open(&ours).map_err(|error| error.to_string())?;
        let found = contents(&log)?.1.len();
        if found != 3 + 2 * round - 1 {
            return Err(format!("{found} records in round {round}"));
        }
        commit(&log, 2, 1);
        ours.kill();
        drop(log);
        ours = ours.restart();
    }
    Ok(())
}

#[test]
fn openings_that_are_killed_know_each_other() {
    a_successor_finds_what_was_acknowledged().unwrap();
}

/// The log is copied while it is open, and the copy recovered: it goes on with a file of its own.
/// Nothing in the original knows more than the copy did, and it has a recovery to do itself.
pub(crate) fn what_a_copy_of_an_open_log_went_on_with() -> Result<(), String> {
    for grown in [0, 1, 20] {
        let (ours, _) = parted();
        let log = open(&ours).unwrap();
        commit(&log, 1, 1);
        let theirs = copy_of(&ours, 2);
        commit(&log, 1, grown);
        ours.kill();
        drop(log);
        let ours = ours.restart();
        write(&theirs, 2, 1);
        for name in segments(&theirs) {
            if !segments(&ours).contains(&name) {
                bring(&theirs, &ours, &name);
            }
        }
        refuses(&ours, two)?;
    }
    Ok(())
}

#[test]
fn a_recovery_of_a_copy_does_not_pass_for_ours() {
    what_a_copy_of_an_open_log_went_on_with().unwrap();
}

/// The end of the log is cut, and what the state says of that cannot be written. A copy made then
/// goes its own way, less far than the log reached before.
pub(crate) fn a_copy_of_a_log_that_was_cut() -> Result<(), String> {
    let mut tried = 0;
    for nth in 0..12 {
        let (ours, _) = parted();
        let log = open(&ours).unwrap();
        let state = ours.read_file(at("STATE")).unwrap();
        ours.set_faults(FaultPlan::new().on(Call::Write, nth..u64::MAX, Fault::Fail(Errno::Eio)));
        let cut = log.truncate_after(Lsn(56));
        ours.kill();
        drop(log);
        let ours = ours.restart();
        ours.set_faults(FaultPlan::new());
        let is_cut = segments(&ours).iter().any(|name| name.ends_with("-0000000002.cairn"));
        if cut.is_ok() || !is_cut || ours.read_file(at("STATE")).unwrap() != state {
            continue;
        }
        let theirs = copy_of(&ours, 2);
        write(&theirs, 2, 1);
        bring(&theirs, &ours, &segments(&theirs)[0]);
        refuses(&ours, |error| matches!(error, Error::OtherHistory { .. }))?;
        tried += 1;
    }
    if tried > 0 { Ok(()) } else { Err("no write failed in between".into()) }
}

#[test]
fn a_copy_of_a_log_that_was_cut_does_not_pass_for_ours() {
    a_copy_of_a_log_that_was_cut().unwrap();
}

/// What a cut of the end superseded cannot be removed, and later somebody removes the segment that
/// the cut began: what is left is a whole log, of before the cut.
pub(crate) fn a_cut_that_is_lost_beside_what_it_superseded() -> Result<(), String> {
    let (sim, _) = parted();
    let log = open(&sim).unwrap();
    sim.set_faults(FaultPlan::new().on(Call::Remove, 1..u64::MAX, Fault::Fail(Errno::Eio)));
    log.truncate_after(Lsn(56)).unwrap_err();
    commit(&log, 1, 1);
    sim.kill();
    drop(log);
    let sim = sim.restart();
    let names = segments(&sim);
    assert_eq!(names.len(), 2, "{names:?}");
    sim.remove(&at(&names[1])).unwrap();
    refuses(&sim, |error| matches!(error, Error::OtherHistory { .. } | Error::Corrupt(_)))
}

#[test]
fn a_lost_cut_is_missed() {
    a_cut_that_is_lost_beside_what_it_superseded().unwrap();
}

/// A cut of the end began a segment that holds a mark alone, and somebody cuts that off. The next
/// opening begins another segment in its place, which follows the same group.
#[test]
fn a_cut_whose_mark_is_damaged_goes_on_in_one_history() {
    let sim = SimFs::new();
    let open = |sim: &SimFs| options().segment_size(1 << 20).fs(Arc::new(sim.clone())).open(DIR);
    let log = open(&sim).unwrap();
    let lsns: Vec<Lsn> = (0..500).map(|_| log.commit(&[1; 1000]).unwrap()).collect();
    // More than an opening carries over as a whole.
    log.truncate_after(lsns[400]).unwrap();
    sim.kill();
    drop(log);
    let sim = sim.restart();
    let cut = segments(&sim).pop().unwrap();
    assert!(cut.ends_with("-0000000002.cairn"), "{cut}");
    let bytes = sim.read_file(at(&cut)).unwrap();
    sim.write_file(at(&cut), &bytes[..GROUP + 28]).unwrap();
    let log = open(&sim).unwrap();
    log.commit(b"one more").unwrap();
    log.close().unwrap();
    let look = Inspection::open_on(Arc::new(sim.clone()), DIR).unwrap();
    let problems = look.verify(|_| ()).unwrap().problems;
    assert!(problems.is_empty(), "{problems:?}");
    assert_eq!(contents(&open(&sim).unwrap()).unwrap().1.len(), 402);
}

/// A log that was rotated and dropped: the mark is the first group of the new segment, and never
/// became durable. The next opening believed it as far as what precedes it.
pub(crate) fn a_first_mark_that_the_power_takes() -> Result<(), String> {
    let (sim, _) = parted();
    let log = open(&sim).unwrap();
    commit(&log, 1, 1);
    log.rotate().unwrap();
    drop(log);
    let log = open(&sim).unwrap();
    assert_eq!(log.open_report().end_state, EndState::Closed);
    let sim = sim.power_cut(&mut Chooser::nothing());
    drop(log);
    let log = open(&sim).map_err(|error| error.to_string())?;
    assert_eq!(contents(&log)?.1.len(), 4);
    Ok(())
}

#[test]
fn a_segment_ends_behind_its_seal() {
    a_first_mark_that_the_power_takes().unwrap();
}

/// The generation that the state speaks of.
fn stated_generation(sim: &SimFs) -> u32 {
    let state = sim.read_file(at("STATE")).unwrap();
    let number = |slot: &&[u8]| u64::from_le_bytes(slot[32..40].try_into().unwrap());
    let newest = state.chunks(4096).max_by_key(number).unwrap();
    u32::from_le_bytes(newest[52..56].try_into().unwrap())
}

/// A recovery is interrupted at any step, and the next one at any step, and so on: every one of
/// them believes the cut of the one before, and all that was acknowledged is there. Where the mark
/// behind such a cut is damaged before the state says that it is durable, the next one cuts, too.
pub(crate) fn recoveries_that_are_interrupted() -> Result<(), String> {
    fn again(sim: &SimFs, depth: usize) -> Result<(), String> {
        let begun = sim.op_count();
        let log = open(sim).map_err(|error| error.to_string())?;
        let found = contents(&log)?.1.len();
        if found != 5 {
            return Err(format!("{found} records"));
        }
        let (steps, trace) = (begun..=sim.op_count(), sim.trace());
        drop(log);
        if depth == 0 {
            return Ok(());
        }
        // Any other state of the disk is for the exploration of power cuts.
        steps.into_iter().try_for_each(|step| {
            let sim = trace.crash_at(step, &mut Chooser::everything());
            let last = last_written(&sim);
            let bytes = sim.read_file(at(&last)).unwrap();
            let mark = group(&bytes, 0);
            let is_mark = bytes[mark + 8..mark + 12] == [56, 0, 0, 0];
            if is_mark && last[21..31].parse::<u32>().unwrap() > stated_generation(&sim) {
                sim.flip_bit(at(&last), mark as u64, 0).unwrap();
            }
            again(&sim, depth - 1)
        })
    }
    let (ours, _) = parted();
    let sim = die(&ours, 1, 2);
    again(&sim.power_cut(&mut Chooser::everything()), 3)
}

#[test]
fn recoveries_believe_the_one_before() {
    recoveries_that_are_interrupted().unwrap();
}

#[test]
fn a_log_goes_on_with_the_numbers_of_another_one() {
    let sim = SimFs::new();
    let at = |lsn, seq| options().fs(Arc::new(sim.clone())).create_at(Lsn(lsn), Seq(seq));
    for (lsn, seq) in [(4, 0), (8, 9), (1 << 63, 0), ((1 << 63) - (1 << 40), 0)] {
        assert!(matches!(at(lsn, seq).open(DIR), Err(Error::InvalidOption { .. })), "{lsn} {seq}");
    }
    let log = at(1 << 33, 777).open(DIR).unwrap();
    assert_eq!((log.head_lsn(), log.appended_lsn(), log.next_seq()), {
        let lsn = Lsn(1 << 33);
        (lsn, lsn, Seq(777))
    });
    commit(&log, 1, 30);
    sim.kill();
    drop(log);
    let sim = sim.restart();
    // A log that is there keeps its numbers.
    let log = options().fs(Arc::new(sim.clone())).create_at(Lsn(8), Seq(0)).open(DIR).unwrap();
    let (first, found) = contents(&log).unwrap();
    assert_eq!((first, found.len(), log.next_seq()), (777, 30, Seq(807)));
    assert_eq!(log.reader(Lsn::START).unwrap().next().unwrap().unwrap().seq(), Seq(777));
    log.truncate_before(log.reader(Seq(800)).unwrap().next().unwrap().unwrap().lsn()).unwrap();
    log.close().unwrap();
    let look = Inspection::open_on(Arc::new(sim), DIR).unwrap();
    assert!(look.verify(|_| ()).unwrap().problems.is_empty());
    assert_eq!(look.head_seq(), Seq(800));
}

/// Positions end before 2^63, and nothing that was acknowledged is lost there.
#[test]
fn positions_end_and_say_so() {
    let end = (1u64 << 63) - (1 << 40);
    let sim = SimFs::new();
    let start = Lsn(end - (20 << 10));
    let create = || options().fs(Arc::new(sim.clone())).create_at(start, Seq(0));
    let log = create().open(DIR).unwrap();
    let mut count = 0;
    let error = loop {
        match log.commit(&[1; 700]) {
            Ok(_) => count += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Exhausted { what: "positions" }), "{error}");
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert!(count > 20 && log.appended_lsn() <= Lsn(end));
    assert!(matches!(log.append_batch([[0; 700]; 9]), Err(Error::Exhausted { .. })));
    log.close().unwrap();
    let log = open(&sim).unwrap();
    assert_eq!(contents(&log).unwrap().1.len(), count);
    assert!(matches!(log.append(&[1; 700]), Err(Error::Exhausted { .. })));
    log.truncate_after(log.reader(Seq(3)).unwrap().next().unwrap().unwrap().lsn()).unwrap();
    log.commit(b"there is room again").unwrap();
}

/// The last generation there can be is read, and none begins behind it.
#[test]
fn generations_end_and_say_so() {
    let (ours, _) = parted();
    let name = segments(&ours).pop().unwrap();
    let mut bytes = ours.read_file(at(&name)).unwrap();
    bytes[32..36].copy_from_slice(&u32::MAX.to_le_bytes());
    bytes[12..16].fill(0);
    let crc = crc32c(&bytes[..4096]);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    bytes.truncate(GROUP);
    ours.remove(&at(&name)).unwrap();
    ours.write_file(at(&name.replace("0000000001.cairn", "4294967295.cairn")), bytes).unwrap();
    ours.write_file(at("STATE"), Vec::new()).unwrap();
    let log = open(&ours).unwrap();
    commit(&log, 1, 2);
    let first = log.reader(Lsn::START).unwrap().next().unwrap().unwrap().lsn();
    let error = log.truncate_after(first).unwrap_err();
    assert!(matches!(error, Error::Exhausted { what: "generations" }), "{error}");
    // It changed nothing.
    commit(&log, 1, 1);
    assert_eq!(contents(&log).unwrap().1.len(), 3);
    log.close().unwrap();
    write(&ours, 1, 1);
    let ours = die(&ours, 1, 1);
    assert!(matches!(open(&ours), Err(Error::Exhausted { what: "generations" })));
    let look = Inspection::open_on(Arc::new(ours), DIR).unwrap();
    assert_eq!(look.reader(Lsn::START).unwrap().count(), 5);
}

/// A group of which the epoch is another one, as one of a copy would have it.
pub(crate) fn exchange(bytes: &mut [u8], nth: usize) -> bool {
    let base = u64::from_le_bytes(bytes[40..48].try_into().unwrap());
    let log = crc32c(&bytes[16..32]);
    let is_group = |at: &usize| {
        let group = &bytes[*at..*at + 56];
        let lsn = base + (*at - GROUP) as u64;
        group[4] == 0xC7
            && group[16..24] == lsn.to_le_bytes()
            && group[..4] == crc32c_append(log, &group[4..]).to_le_bytes()
    };
    let groups: Vec<usize> =
        (GROUP..bytes.len().saturating_sub(55)).step_by(8).filter(is_group).collect();
    let Some(at) = groups.get(nth % groups.len().max(1)).copied() else { return false };
    bytes[at + 40] ^= 1;
    let crc = crc32c_append(log, &bytes[at + 4..at + 56]);
    bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
    true
}
