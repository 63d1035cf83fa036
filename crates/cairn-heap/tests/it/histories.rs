//! guards: L31
//!
//! Copies of a heap that go their own way, and a part of one that comes into the other: a header of
//! the stack below is refused, and a block of the copy is no block of this heap.

use std::sync::Arc;

use cairn_heap::{Block, BlockFault, Error, Heap};
use cairn_sim::{SimFs, SimOptions};
use cairn_stack::Stack;

use crate::model::{Dice, KEY, SIZE_CLASS, chain, policy};

const PATH: &str = "/heap";
const SLOT: usize = 64 << 10;
const PAYLOAD: usize = 2 * SLOT;
/// Bytes of a block that is sure to cover a run's header in the payload's second 4 KiB.
const LEN: usize = 3000;

fn open(sim: &SimFs) -> Result<Heap, Error> {
    let stack = Stack::options().reserve(0).fs(Arc::new(sim.clone())).open(PATH)?;
    Heap::open_with_key(stack, policy(SIZE_CLASS), KEY)
}

/// A heap and a copy of it, each with another block that has the same place and length, and the
/// handle of the first one's.
fn parted(closed: bool) -> Result<([Vec<u8>; 2], u128), String> {
    let sim = SimFs::new();
    let heap = open(&sim).map_err(|e| chain(&e))?;
    heap.alloc_with(Dice(1).bytes(LEN)).map_err(|e| chain(&e))?;
    heap.close().map_err(|e| chain(&e))?;
    let common = sim.read_file(PATH).map_err(|e| e.to_string())?;
    let apart = |seed| {
        let sim = SimFs::with_options(SimOptions::new().seed(seed));
        sim.write_file(PATH, &common).map_err(|e| e.to_string())?;
        let heap = open(&sim).map_err(|e| chain(&e))?;
        let block = heap.alloc_with(Dice(seed).bytes(LEN)).map_err(|e| chain(&e))?;
        heap.set_root(0, block).map_err(|e| chain(&e))?;
        if closed {
            // The last commits of the stack are about other bytes: they would be written again.
            for _ in 0..2 {
                heap.alloc_with(Dice(9).bytes(2 * LEN)).map_err(|e| chain(&e))?;
            }
            heap.close().map_err(|e| chain(&e))?;
        }
        let file = sim.read_file(PATH).map_err(|e| e.to_string())?;
        Ok::<_, String>((file, block.to_raw()))
    };
    let ((ours, handle), (theirs, _)) = (apart(2)?, apart(3)?);
    Ok(([ours, theirs], handle))
}

#[test]
fn a_header_of_a_copy_below_a_heap_is_refused() {
    let ([ours, theirs], _) = parted(false).unwrap();
    for slot in [0, SLOT] {
        let mut mixed = ours.clone();
        mixed[slot..slot + 4096].copy_from_slice(&theirs[slot..slot + 4096]);
        let sim = SimFs::new();
        sim.write_file(PATH, &mixed).unwrap();
        let error = open(&sim).unwrap_err();
        assert!(
            matches!(error, Error::Stack(cairn_stack::Error::OtherHistory { .. })),
            "{}",
            chain(&error)
        );
        assert!(sim.read_file(PATH).unwrap() == mixed);
    }
}

/// Both copies have a block of the same length at the same place. 4 KiB with its run's header, and
/// most of its bytes, come from the copy.
pub(crate) fn a_block_of_a_copy() -> Result<(), String> {
    let ([mut ours, theirs], handle) = parted(true)?;
    let at = PAYLOAD + 4096;
    ours[at..at + 4096].copy_from_slice(&theirs[at..at + 4096]);
    let sim = SimFs::new();
    sim.write_file(PATH, &ours).map_err(|e| e.to_string())?;
    let heap = open(&sim).map_err(|e| chain(&e))?;
    for found in [heap.block(handle), heap.root(0)] {
        match found {
            Err(Error::InvalidBlock { fault: BlockFault::Reused, .. }) => {}
            other => return Err(format!("the copy's block is taken for ours: {other:?}")),
        }
    }
    let report = heap.check().map_err(|e| chain(&e))?;
    let named = report.violations.iter().any(|fault| fault.what.contains("root"));
    if named { Ok(()) } else { Err(format!("the check finds {:?}", report.violations)) }
}

#[test]
fn a_block_of_a_copy_is_no_block_of_this_heap() {
    a_block_of_a_copy().unwrap();
}

#[test]
fn tags_rise_over_openings_and_copies_never_share_one() {
    let tag = |block: Block| (block.to_raw() >> 64) as u64;
    let sim = SimFs::new();
    let mut last = 0;
    for _ in 0..5 {
        let heap = open(&sim).unwrap();
        for _ in 0..3 {
            let next = tag(heap.alloc(10).unwrap());
            assert!(next > last);
            last = next;
        }
    }
}
