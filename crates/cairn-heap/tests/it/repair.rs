//! guards: L20 L28 L32
//!
//! Repairs: whatever is damaged but the fixed part of the header, each block whose run's header
//! verifies keeps its place, handle and contents, the heap is sound and can be used, a second
//! repair finds nothing to do, and a power cut leaves the heap as it was or repaired.

use std::collections::BTreeSet;
use std::sync::Arc;

use cairn_heap::{Block, Error, Heap, PolicyId, RepairPlan};
use cairn_sim::{CrashExplorer, SimFs};
use cairn_stack::Stack;

use crate::golden::crc32c;
use crate::hostile::{long, put, reseal, runs, sample, stack};
use crate::model::{Dice, PATH, POLICIES, SIZE_CLASS, chain, policy};

const ARENA: usize = 2304;

/// The blocks whose headers are as they were, and that are within the stack.
fn verifying(good: &[u8], bad: &[u8], live: &[Block]) -> Vec<Block> {
    let whole = |block: &&Block| {
        let header = block.start() as usize - 32..block.start() as usize;
        let run_end = header.start + long(good, header.start + 8) as usize;
        run_end <= bad.len() && good[header.clone()] == bad[header]
    };
    live.iter().filter(whole).copied().collect()
}

/// Repairs the heap in `bad`; returns what the plan says, if it can be made.
fn repaired(
    policy: PolicyId,
    good: &[u8],
    bad: &[u8],
    live: &[Block],
) -> Result<RepairPlan, Error> {
    let stack = stack(bad);
    let sound = cairn_heap::check(&stack).is_ok_and(|report| report.is_sound());
    let plan = RepairPlan::of(&stack)?;
    assert_eq!(plan.is_needed(), !sound, "{plan}");
    assert!(stack.peek(0)? == bad, "a plan changes nothing");
    plan.apply(&stack)?;
    let report = cairn_heap::check(&stack)?;
    assert_eq!(report.violations, [], "{plan}");
    let again = RepairPlan::of(&stack)?;
    assert!(!again.is_needed(), "a second repair finds something to do:\n{again}");
    let after = stack.peek(0)?;
    let starts: BTreeSet<usize> = runs(&after).into_iter().collect();
    for at in (ARENA..after.len().saturating_sub(31)).step_by(16) {
        let crc = crc32c(&[&after[32..40], &(at as u64).to_le_bytes(), &after[at + 4..at + 32]]);
        let verifies = after[at..at + 4] == crc.to_le_bytes();
        assert_eq!(verifies, starts.contains(&at), "a header at {at}, within a run\n{plan}");
    }
    let changed = plan.changed();
    for at in 0..after.len().max(bad.len()) {
        if after.get(at) != bad.get(at) {
            let named = changed.iter().any(|range| range.contains(&(at as u64)));
            assert!(named, "offset {at} is changed, and not named\n{plan}");
        }
    }
    let heap = Heap::open(stack, self::policy(policy))?;
    let kept = verifying(good, bad, live);
    assert_eq!(heap.blocks()?.count(), kept.len(), "{plan}");
    for block in &kept {
        let range = block.start() as usize..block.end() as usize;
        assert!(heap.read(*block)? == bad[range], "another block is at {}", block.start());
    }
    // It goes on, with what is left.
    let new = heap.alloc_with([7; 100])?;
    assert!(live.iter().all(|block| block.to_raw() != new.to_raw()));
    for block in kept.iter().skip(1) {
        heap.dealloc(*block)?;
    }
    assert!(heap.check()?.is_sound());
    Ok(plan)
}

#[test]
fn a_flipped_bit_costs_the_block_whose_header_it_hits_and_no_other() {
    for policy in [POLICIES[0], POLICIES[3], POLICIES[4]] {
        let (good, live) = sample(policy);
        let (mut needed, mut refused) = (0, 0);
        for at in (0..good.len()).step_by(3) {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            match repaired(policy, &good, &bad, &live) {
                Ok(plan) => {
                    needed += usize::from(plan.is_needed());
                    assert_eq!(plan.header_damaged, at < ARENA, "{at}");
                    assert!(plan.lost.len() <= 1, "{plan}");
                    // Root 0 names the first block.
                    let cleared =
                        live[0].start() as usize - 32 <= at && at < live[0].start() as usize;
                    assert!(
                        plan.cleared_roots.is_empty() || cleared || (256..768).contains(&at),
                        "byte {at}: {plan}"
                    );
                }
                Err(Error::Corrupt { .. } | Error::NotAHeap { .. }) if at < 64 => refused += 1,
                Err(Error::UnsupportedVersion { .. }) if at < 64 => refused += 1,
                Err(error) => panic!("byte {at}: {}", chain(&error)),
            }
        }
        assert_eq!(refused, 22, "the fixed part has the key of all other checksums");
        println!("{policy:?}: {needed} repairs");
    }
}

/// Garbage, zeros, stray bytes, cuts, several at once.
#[test]
fn whatever_is_damaged_all_blocks_that_verify_stay() {
    for seed in 0..600u64 {
        let mut dice = Dice(seed * 7 + 1);
        let policy = POLICIES[seed as usize % POLICIES.len()];
        let (good, live) = sample(policy);
        let mut bad = good.clone();
        for _ in 0..1 + dice.below(3) {
            let at = 64 + dice.below(bad.len() - 64);
            let len = (1 + dice.below(400)).min(bad.len() - at);
            match dice.below(5) {
                0 => bad[at..at + len].fill(0),
                1 => bad[at..at + len].copy_from_slice(&dice.bytes(len)),
                2 => bad.extend(dice.bytes(len)),
                3 => bad.truncate(bad.len().saturating_sub(len).max(ARENA + 1)),
                _ => bad[at] ^= 1,
            }
        }
        let plan = repaired(policy, &good, &bad, &live);
        plan.unwrap_or_else(|error| panic!("seed {seed}: {}", chain(&error)));
    }
}

/// Faults under right checksums: lists, counters, recorded lengths, tags, free runs side by side.
#[test]
fn what_the_check_finds_under_right_checksums_is_repaired() {
    let (good, live) = sample(SIZE_CLASS);
    let runs = runs(&good);
    let last = *runs.last().unwrap();
    type Damage<'a> = &'a dyn Fn(&mut Vec<u8>);
    let damages: [Damage<'_>; 8] = [
        &|heap| put(heap, runs[5] + 16, 48),
        &|heap| put(heap, 72, 16),
        &|heap| put(heap, 80, 7),
        &|heap| put(heap, 104, 7),
        &|heap| heap[192 + 23] = 1 << 6,
        &|heap| put(heap, 768, 48),
        &|heap| put(heap, runs[1] + 32, runs[3] as u64),
        &|heap| put(heap, 256 + 16 * 7, runs[3] as u64 + 32),
    ];
    for (nth, damage) in damages.iter().enumerate() {
        let mut bad = good.clone();
        damage(&mut bad);
        runs.iter().for_each(|run| reseal(&mut bad, Some(*run)));
        let stack = stack(&bad);
        let plan = RepairPlan::of(&stack).unwrap();
        assert!(plan.is_needed() && !plan.header_damaged && plan.lost.is_empty(), "{nth}: {plan}");
        plan.apply(&stack).unwrap();
        assert!(cairn_heap::check(&stack).unwrap().is_sound(), "{nth}: {plan}");
        let heap = Heap::attach(stack).unwrap();
        assert_eq!(heap.blocks().unwrap().count(), live.len(), "{nth}");
        assert_eq!(heap.root(0).unwrap(), live[0]);
        assert_eq!(plan.cleared_roots.len(), usize::from(nth == 7));
    }
    // The last block was freed, and nothing cut it off.
    let mut bad = good.clone();
    bad[last + 4..last + 8].fill(0xff);
    put(&mut bad, last + 24, 0);
    reseal(&mut bad, Some(last));
    let stack = stack(&bad);
    let plan = RepairPlan::of(&stack).unwrap();
    plan.apply(&stack).unwrap();
    assert!(stack.len() == plan.len && plan.len < plan.old_len);
    assert!(cairn_heap::check(&stack).unwrap().is_sound());
}

/// Without the header nothing says which tags were given out to blocks that are gone.
#[test]
fn a_handle_that_was_gone_before_the_header_was_damaged_stays_gone() {
    let sim = SimFs::new();
    let open = || Stack::options().fs(Arc::new(sim.clone())).open(PATH).unwrap();
    let tag = |block: Block| (block.to_raw() >> 64) as u64;
    let kept = Heap::open(open(), policy(SIZE_CLASS)).unwrap().alloc(100).unwrap();
    // Each opening leaves out tags; twenty of them more than one can.
    let gone = (0..20).map(|_| {
        let heap = Heap::open(open(), policy(SIZE_CLASS)).unwrap();
        let block = heap.alloc(100).unwrap();
        heap.dealloc(block).unwrap();
        tag(block)
    });
    let gone = gone.max().unwrap();
    let stack = open();
    stack.set(64, [0; 8]).unwrap();
    let plan = RepairPlan::of(&stack).unwrap();
    assert!(plan.header_damaged);
    plan.apply(&stack).unwrap();
    let heap = Heap::open(stack, policy(SIZE_CLASS)).unwrap();
    assert!(tag(heap.alloc(100).unwrap()) > gone);
    assert_eq!(heap.read(kept).unwrap(), [0; 100]);
}

#[test]
fn a_power_cut_leaves_the_heap_as_it_was_or_repaired() {
    let (good, live) = sample(SIZE_CLASS);
    let mut bad = good.clone();
    let lost = runs(&good)[4];
    bad[lost + 9] ^= 1;
    bad[130] ^= 1;
    bad.extend([0x5a; 700]);
    let sim = SimFs::new();
    let open = |sim: &SimFs| Stack::options().reserve(0).fs(Arc::new(sim.clone())).open(PATH);
    let stack = open(&sim).unwrap();
    stack.push(&bad).unwrap();
    let before = sim.op_count();
    let plan = RepairPlan::of(&stack).unwrap();
    plan.apply(&stack).unwrap();
    let repaired = stack.peek(0).unwrap();
    let explorer = CrashExplorer::new(sim.trace()).points(before..=sim.op_count());
    let (mut as_it_was, mut done) = (0, 0);
    let report = explorer.exhaustive_limit(1 << 12).samples_per_point(200).for_each(|state| {
        let stack = open(&state.fs()).map_err(|e| chain(&e))?;
        let found = stack.peek(0).map_err(|e| chain(&e))?;
        match () {
            () if found == bad => as_it_was += 1,
            () if found == repaired => done += 1,
            () => return Err(format!("{} bytes of a third state", found.len())),
        }
        let plan = RepairPlan::of(&stack).map_err(|e| chain(&e))?;
        plan.apply(&stack).map_err(|e| chain(&e))?;
        match stack.peek(0).map_err(|e| chain(&e))? == repaired {
            true => Ok(()),
            false => Err("another repair".to_owned()),
        }
    });
    report.unwrap();
    println!("{as_it_was} states as it was, {done} repaired");
    assert!(as_it_was > 0 && done > 0);
    assert_eq!(Heap::attach(stack).unwrap().blocks().unwrap().count(), live.len() - 1);
}

#[test]
fn a_plan_of_another_state_is_refused() {
    let (good, _) = sample(SIZE_CLASS);
    let mut bad = good;
    bad[130] ^= 1;
    let stack = stack(&bad);
    let plan = RepairPlan::of(&stack).unwrap();
    stack.push("more").unwrap();
    assert!(matches!(plan.apply(&stack), Err(Error::Outdated)));
    bad.extend(b"more");
    assert!(stack.peek(0).unwrap() == bad);
    for refused in [&b""[..], b"no heap", &bad[..40]] {
        assert!(RepairPlan::of(&self::stack(refused)).is_err());
    }
}
