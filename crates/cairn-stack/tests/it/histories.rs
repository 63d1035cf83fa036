//! Copies of a stack that go their own way: a part of one of them in another one's place is told,
//! and neither is changed. What carries no number of its opening is told by what names it.

use std::sync::Arc;

use cairn_sim::SimFs;
use cairn_stack::{Error, ErrorKind, Inspection, Stack};

use crate::model::{Dice, PATH, chain};

const SLOT: usize = 64 << 10;

fn open(sim: &SimFs) -> cairn_stack::Result<Stack> {
    Stack::options().reserve(0).fs(Arc::new(sim.clone())).open(PATH)
}

/// A stack, and two copies of it that were written to apart, by commits of the same numbers and
/// lengths.
fn parted(closed: bool) -> Result<[Vec<u8>; 2], String> {
    let sim = SimFs::new();
    let stack = open(&sim).map_err(|e| chain(&e))?;
    stack.push([1; 5000]).map_err(|e| chain(&e))?;
    if closed {
        stack.close().map_err(|e| chain(&e))?;
    }
    let common = sim.read_file(PATH).map_err(|e| e.to_string())?;
    let apart = |seed| {
        let sim = SimFs::with_options(cairn_sim::SimOptions::new().seed(seed));
        sim.write_file(PATH, &common).map_err(|e| e.to_string())?;
        let stack = open(&sim).map_err(|e| chain(&e))?;
        for n in 0..3 {
            stack.push(Dice(seed + n).bytes(100)).map_err(|e| chain(&e))?;
        }
        sim.read_file(PATH).map_err(|e| e.to_string())
    };
    Ok([apart(2)?, apart(3)?])
}

fn refused(what: &str, file: &[u8]) -> Result<(), String> {
    let sim = SimFs::new();
    sim.write_file(PATH, file).map_err(|e| e.to_string())?;
    let looked = Inspection::open_on(&sim, PATH).map(drop);
    for refused in [looked, open(&sim).map(drop)] {
        match refused {
            Err(error @ Error::OtherHistory { commits: [newer, older], .. }) => {
                assert!(newer > older && error.kind() == ErrorKind::Repair);
            }
            other => return Err(format!("{what} is taken for its own: {other:?}")),
        }
    }
    match sim.read_file(PATH).is_ok_and(|found| found == file) {
        true => Ok(()),
        false => Err(format!("{what}: the file was changed")),
    }
}

/// Either slot of one copy in the other one.
pub(crate) fn a_header_of_a_copy() -> Result<(), String> {
    for closed in [false, true] {
        let files = parted(closed)?;
        for (ours, theirs) in [(&files[0], &files[1]), (&files[1], &files[0])] {
            for slot in [0, SLOT] {
                let mut mixed = ours.clone();
                mixed[slot..slot + 4096].copy_from_slice(&theirs[slot..slot + 4096]);
                refused(&format!("slot {slot} of a copy"), &mixed)?;
            }
        }
    }
    Ok(())
}

#[test]
fn a_header_of_a_copy_that_went_its_own_way_is_refused() {
    a_header_of_a_copy().unwrap();
}

/// The slot is one that the same stack wrote, before the one in the other slot or the one before
/// that. If it were just the one before, the newest commit would be as if it had never been
/// written.
#[test]
fn a_header_of_another_time_is_refused() {
    let sim = SimFs::new();
    let stack = open(&sim).unwrap();
    stack.push([1; 100]).unwrap();
    let before = sim.read_file(PATH).unwrap();
    for n in 0..4 {
        stack.push([n; 100]).unwrap();
    }
    for slot in [0, SLOT] {
        let mut mixed = sim.read_file(PATH).unwrap();
        mixed[slot..slot + 4096].copy_from_slice(&before[slot..slot + 4096]);
        refused(&format!("slot {slot} of another time"), &mixed).unwrap();
    }
}

/// A body longer than a block: what follows the block is of a copy, and the header proves its own
/// body. An unclosed stack goes back by that commit, as after a crash; it never shows the copy's
/// bytes.
#[test]
fn a_body_of_a_copy_is_no_body_of_this_one() {
    let files = [7, 8].map(|seed| {
        let sim = SimFs::new();
        let stack = open(&sim).unwrap();
        stack.push([1; 30_000]).unwrap();
        stack.close().unwrap();
        let copy = SimFs::with_options(cairn_sim::SimOptions::new().seed(seed));
        copy.write_file(PATH, sim.read_file(PATH).unwrap()).unwrap();
        let stack = open(&copy).unwrap();
        stack.set(0, Dice(seed).bytes(20_000)).unwrap();
        copy.read_file(PATH).unwrap()
    });
    let sequence = |slot: usize| files[0][slot + 32..slot + 40].iter().rev();
    let newer = if sequence(0).gt(sequence(SLOT)) { 0 } else { SLOT };
    let mut mixed = files[0].clone();
    mixed[newer + 8192..newer + 12_288].copy_from_slice(&files[1][newer + 8192..newer + 12_288]);
    let sim = SimFs::new();
    sim.write_file(PATH, &mixed).unwrap();
    assert_eq!(open(&sim).unwrap().peek(0).unwrap(), [1; 30_000]);
}

/// Two openings of one file never write the same header, whatever they do.
#[test]
fn openings_of_copies_write_different_headers() {
    let [one, other] = parted(true).unwrap();
    for slot in [0, SLOT] {
        assert_eq!(one[slot + 16..slot + 32], other[slot + 16..slot + 32], "one identity");
        assert_eq!(one[slot + 32..slot + 40], other[slot + 32..slot + 40], "one number");
        assert_ne!(one[slot + 88..slot + 96], other[slot + 88..slot + 96], "two openings");
    }
}
