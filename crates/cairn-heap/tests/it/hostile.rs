//! guards: L20 L21 L33
//!
//! Damaged and forged files: foreign bytes, cuts, flipped bits, circles in lists, pointers out of
//! the arena. No call panics or loops. Operations refuse damaged metadata before they follow them,
//! and the check names the offset.

use std::sync::Arc;

use cairn_heap::{Block, Error, Heap, PolicyId};
use cairn_sim::SimFs;
use cairn_stack::Stack;

use crate::golden::crc32c;
use crate::model::{Dice, KEY, POLICIES, SIZE_CLASS, chain, policy};

pub(crate) fn stack(bytes: &[u8]) -> Stack {
    let stack = Stack::options().reserve(0).fs(Arc::new(SimFs::new())).open("/stack").unwrap();
    stack.push(bytes).unwrap();
    stack
}

/// A heap with free runs of several lengths, and its blocks that live.
pub(crate) fn sample(policy: PolicyId) -> (Vec<u8>, Vec<Block>) {
    let heap = Heap::open_with_key(stack(&[]), self::policy(policy), KEY).unwrap();
    let blocks: Vec<Block> = (0..24)
        .map(|n| heap.alloc_with(Dice(n).bytes(20 + n as usize % 3 * 90)).unwrap())
        .collect();
    blocks.iter().skip(1).step_by(2).for_each(|block| heap.dealloc(*block).unwrap());
    let live: Vec<Block> = blocks.into_iter().step_by(2).collect();
    heap.set_root(0, live[0]).unwrap();
    (heap.stack().peek(0).unwrap(), live)
}

#[test]
fn what_is_no_heap_is_refused_and_left_as_it_is() {
    let (good, _) = sample(SIZE_CLASS);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("one byte", vec![1]),
        ("text", b"not a heap ".repeat(500)),
        ("zeros", vec![0; 10_000]),
        ("cut in the magic", good[..7].to_vec()),
    ];
    for (name, bytes) in cases {
        let stack = self::stack(&bytes);
        let error = Heap::open(stack, self::policy(SIZE_CLASS)).unwrap_err();
        assert!(matches!(error, Error::NotAHeap { .. }), "{name}: {}", chain(&error));
        let error = cairn_heap::check(&self::stack(&bytes)).unwrap_err();
        assert!(matches!(error, Error::NotAHeap { .. }), "{name}: {}", chain(&error));
    }
    let mut newer = good.clone();
    newer[8] = 2;
    reseal(&mut newer, None);
    assert!(matches!(Heap::attach(stack(&newer)), Err(Error::UnsupportedVersion { found: 2, .. })));
    assert!(matches!(Heap::attach(stack(&[])), Err(Error::NotAHeap { .. })));
}

/// Works with a heap that may be damaged: everything returns, and what says that it changed nothing
/// has not.
fn work(bytes: &[u8], live: &[Block]) -> bool {
    let Ok(heap) = Heap::attach(stack(bytes)) else { return true };
    let report = heap.check().unwrap();
    let sum = report.header_bytes + report.allocated_bytes + report.free_bytes + report.lost_bytes;
    assert_eq!(sum, report.len);
    let mut noticed = !report.is_sound();
    _ = heap.stats();
    _ = heap.blocks().map(Iterator::count);
    let refused = |result: Result<(), Error>| match result {
        Err(
            Error::Corrupt { .. }
            | Error::InvalidBlock { .. }
            | Error::TooLarge { .. }
            | Error::Rooted { .. },
        ) => true,
        Err(other) => panic!("{}", chain(&other)),
        Ok(()) => false,
    };
    for len in [1, 20, 110, 1000] {
        let before = heap.stack().peek(0).unwrap();
        if refused(heap.alloc(len).map(drop)) {
            noticed = true;
            assert_eq!(heap.stack().peek(0).unwrap(), before);
        }
    }
    for (nth, block) in live.iter().enumerate().skip(1) {
        let before = heap.stack().peek(0).unwrap();
        let result =
            if nth % 3 == 0 { heap.realloc(*block, 300).map(drop) } else { heap.dealloc(*block) };
        if refused(result) {
            noticed = true;
            assert_eq!(heap.stack().peek(0).unwrap(), before);
        }
    }
    noticed
}

#[test]
fn flipped_bits_of_metadata_are_noticed_and_never_followed() {
    for policy in [POLICIES[0], POLICIES[3], POLICIES[4]] {
        let (good, live) = sample(policy);
        assert!(!work(&good, &live));
        let inside = |at: u64| live.iter().any(|block| (block.start()..block.end()).contains(&at));
        let heap = Heap::attach(stack(&good)).unwrap();
        let mut meta: Vec<usize> = (0..2304).step_by(5).collect();
        meta.extend((2304..good.len()).step_by(3).filter(|at| !inside(*at as u64)));
        drop(heap);
        let (mut noticed, mut tried) = (0, 0);
        for at in meta {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            tried += 1;
            noticed += usize::from(work(&bad, &live));
            if at < 2304 {
                assert!(work(&bad, &live), "byte {at} of the header");
            }
        }
        println!("{policy:?}: {noticed} of {tried} flips were of metadata");
    }
}

#[test]
fn circles_and_pointers_out_of_the_arena_are_found() {
    for policy in [POLICIES[0], POLICIES[4]] {
        let (good, live) = sample(policy);
        // Links are behind the header of each free run; blocks of this sample that were freed lie
        // behind those that live.
        let frees: Vec<usize> = (2304..good.len())
            .step_by(16)
            .filter(|at| good[at + 4..at + 8] == [0xff; 4] && good[at + 24..at + 32] == [0; 8])
            .collect();
        assert!(frees.len() >= 6, "{policy:?}: {}", frees.len());
        for &run in &frees {
            for target in [
                run as u64,
                frees[0] as u64,
                7,
                64,
                2304,
                good.len() as u64 - 16,
                good.len() as u64,
                1 << 50,
                u64::MAX,
                live[0].start() - 32,
            ] {
                for link in [32, 40] {
                    let mut bad = good.clone();
                    if bad[run + link..run + link + 8] == target.to_le_bytes() {
                        continue;
                    }
                    bad[run + link..run + link + 8].copy_from_slice(&target.to_le_bytes());
                    let heap = Heap::attach(stack(&bad)).unwrap();
                    let report = heap.check().unwrap();
                    assert!(!report.is_sound(), "{policy:?}: link at {run} to {target}");
                    drop(heap);
                    work(&bad, &live);
                }
            }
        }
        // Cut in the arena, and longer than it was.
        for len in [2304, 2310, 2320, good.len() - 1, good.len() - 16, good.len() - 50] {
            assert!(Heap::attach(stack(&good[..len])).is_err());
            assert!(!cairn_heap::check(&stack(&good[..len])).unwrap().is_sound(), "{len}");
        }
        let longer = [&good[..], &[0; 100]].concat();
        let report = cairn_heap::check(&stack(&longer)).unwrap();
        assert_eq!(report.lost_bytes, 100);
        assert!(
            report.violations.iter().any(|violation| violation.offset == good.len() as u64),
            "{report:?}"
        );
    }
}

/// The header's checksums are made right again, and those of a run: what an enemy would do who
/// knows the format.
pub(crate) fn reseal(heap: &mut [u8], run: Option<usize>) {
    let fixed = crc32c(&[&heap[..12], &[0; 4], &heap[16..64]]);
    heap[12..16].copy_from_slice(&fixed.to_le_bytes());
    let changing = crc32c(&[&heap[32..40], &heap[64..112], &[0; 4], &heap[116..2304]]);
    heap[112..116].copy_from_slice(&changing.to_le_bytes());
    if let Some(at) = run.filter(|at| at + 32 <= heap.len()) {
        let crc = crc32c(&[&heap[32..40], &(at as u64).to_le_bytes(), &heap[at + 4..at + 32]]);
        heap[at..at + 4].copy_from_slice(&crc.to_le_bytes());
    }
}

pub(crate) fn long(heap: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(heap[at..at + 8].try_into().unwrap())
}

pub(crate) fn put(heap: &mut [u8], at: usize, value: u64) {
    heap[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

/// Where the runs of a heap start.
pub(crate) fn runs(heap: &[u8]) -> Vec<usize> {
    let next =
        |at: &usize| Some(at + long(heap, at + 8) as usize).filter(|next| *next < heap.len());
    std::iter::successors(Some(2304).filter(|at| *at < heap.len()), next).collect()
}

/// Each thing that can be wrong, done to a heap that is whole otherwise, checksums made right: the
/// check says what, and where.
// Length: a list, one line or a few for each thing that can be wrong.
#[test]
pub(crate) fn the_check_names_everything_that_can_be_wrong_and_its_place() {
    let (good, _) = sample(SIZE_CLASS);
    let runs = runs(&good);
    // Blocks and free runs take turns.
    let is_free = |run: &usize| good[run + 4..run + 8] == [0xff; 4];
    assert!(runs.iter().enumerate().all(|(nth, run)| is_free(run) == (nth % 2 == 1)));
    let head = |bin: usize| 768 + 8 * bin;
    let bin_of = |run: usize| (long(&good, run + 8) / 16) as usize - 1;
    // The first two of a list.
    let first = runs
        .iter()
        .copied()
        .find(|run| is_free(run) && long(&good, run + 40) == 0 && long(&good, run + 32) != 0);
    let first = first.unwrap();
    let second = long(&good, first + 32) as usize;
    let other =
        runs.iter().copied().find(|run| is_free(run) && bin_of(*run) != bin_of(first)).unwrap();
    let (next_tag, key) = (long(&good, 64), long(&good, 32));
    let found = |bad: &[u8]| {
        let heap = Heap::attach(stack(&good)).unwrap();
        heap.stack().transaction(|tx| tx.resize(0).and_then(|()| tx.push(bad))).unwrap();
        heap.check().unwrap().violations
    };
    assert_eq!(found(&good), []);
    let says = |offset: usize, what: &str, sealed: bool, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bad = good.clone();
        change(&mut bad);
        if sealed {
            runs.iter().for_each(|run| reseal(&mut bad, Some(*run)));
        }
        let found = found(&bad);
        let said = found
            .iter()
            .any(|violation| (violation.offset, violation.what) == (offset as u64, what));
        assert!(said, "offset {offset}: {what}; found {found:?}");
    };
    says(100, "the stack ends within the heap's header", false, &|heap| heap.truncate(100));
    says(0, "this is not the header of a heap of this format version", true, &|heap| {
        heap[0] = b'X'
    });
    says(0, "this is not the header of a heap of this format version", true, &|heap| heap[8] = 2);
    says(0, "the fixed part of the heap's header does not match its checksum", false, &|heap| {
        heap[50] = 1
    });
    says(16, "there is no such policy", true, &|heap| heap[16] = 9);
    says(64, "the heap's header does not match its checksum", false, &|heap| heap[130] ^= 1);
    says(good.len(), "the heap ends here, but the stack is longer", false, &|heap| heap.push(0));
    says(*runs.last().unwrap(), "the stack ends within this run", false, &|heap| _ = heap.pop());
    says(runs[4], "a run should start here, but there is no valid run header", false, &|heap| {
        heap[runs[4] + 9] ^= 1
    });
    says(runs[5], "the recorded length of the previous run is wrong", true, &|heap| {
        put(heap, runs[5] + 16, 48)
    });
    for (run, what) in
        [(runs[2], "two adjacent runs are free"), (*runs.last().unwrap(), "the last run is free")]
    {
        says(run, what, true, &|heap| {
            heap[run + 4..run + 8].fill(0xff);
            put(heap, run + 24, 0);
        });
    }
    says(64, "the next tag is below the first one", true, &|heap| put(heap, 64, key - 1));
    for tag in [next_tag, key - 1] {
        says(runs[4], "a block's tag was never given out", true, &|heap| {
            put(heap, runs[4] + 24, tag)
        });
    }
    says(runs[4], "two blocks have the same tag", true, &|heap| {
        put(heap, runs[4] + 24, long(&good, runs[2] + 24))
    });
    says(72, "the length of the last run is wrong", true, &|heap| put(heap, 72, 16));
    for counter in [80, 88, 96, 104] {
        says(counter, "a counter is wrong", true, &|heap| {
            put(heap, counter, long(&good, counter) + 1)
        });
    }
    says(256 + 16 * 7, "this root names no live block", true, &|heap| {
        put(heap, 256 + 16 * 7, runs[3] as u64 + 32);
        put(heap, 256 + 16 * 7 + 8, key);
    });
    says(head(190), "the bit of this list of free runs is wrong", true, &|heap| {
        heap[192 + 23] = 1 << 6
    });
    says(runs[2], "a list of free runs points here, but no free run starts here", true, &|heap| {
        put(heap, head(bin_of(first)), runs[2] as u64);
    });
    says(first, "a free run is in a list twice, or in two lists", true, &|heap| {
        put(heap, second + 32, first as u64)
    });
    says(other, "a free run is in the list of another length", true, &|heap| {
        put(heap, head(bin_of(first)), other as u64);
        put(heap, head(bin_of(other)), first as u64);
    });
    says(second, "links of free runs do not match", true, &|heap| {
        put(heap, second + 40, other as u64)
    });
    says(second, "a free run is in no list", true, &|heap| put(heap, first + 32, 0));
}

/// A link that does not lead back is not followed, and an operation that finds one, or anything
/// else, halfway changes nothing, whatever its transaction makes of the error.
#[test]
pub(crate) fn what_is_found_halfway_breaks_the_transaction() {
    let (good, live) = sample(SIZE_CLASS);
    let runs = runs(&good);
    let refused =
        |bad: &[u8],
         at: usize,
         operate: &dyn Fn(&mut cairn_heap::Transaction<'_, '_>) -> Result<(), Error>| {
            let heap = Heap::attach(stack(bad)).unwrap();
            let result = heap.transaction(|tx| {
                let error = operate(tx).unwrap_err();
                assert!(
                    matches!(error, Error::Corrupt { offset, .. } if offset == at as u64),
                    "{at}: {}",
                    chain(&error)
                );
                Ok(())
            });
            assert!(matches!(result, Err(Error::Corrupt { .. })), "{result:?}");
            assert!(heap.stack().peek(0).unwrap() == bad, "it changed something");
        };
    let first = runs
        .iter()
        .copied()
        .skip(1)
        .step_by(2)
        .find(|run| long(&good, run + 40) == 0 && long(&good, run + 32) != 0);
    let first = first.unwrap();
    let second = long(&good, first + 32) as usize;
    let mut bad = good.clone();
    put(&mut bad, second + 40, 0);
    // It would take the first one out of its list.
    refused(&bad, second, &|tx| tx.alloc(long(&good, first + 8) - 32).map(drop));
    // Joined with the free run before it, and then the one behind it is damaged.
    let nth = live.iter().position(|block| block.start() as usize == runs[4] + 32).unwrap();
    let mut bad = good.clone();
    bad[runs[5] + 9] ^= 1;
    refused(&bad, runs[5], &|tx| tx.dealloc(live[nth]));
}

#[test]
fn wrong_metadata_with_right_checksums_lead_to_no_panic_and_no_loop() {
    for policy in [POLICIES[0], POLICIES[3], POLICIES[4]] {
        let (good, live) = sample(policy);
        let runs = runs(&good);
        let (mut dice, mut found, rounds) = (Dice(3), 0, 3000);
        for _ in 0..rounds {
            let mut bad = good.clone();
            for _ in 0..1 + dice.below(3) {
                let values = [
                    0,
                    1,
                    16,
                    32,
                    48,
                    96,
                    1 << 40,
                    1 << 61,
                    1 << 62,
                    u64::MAX - 1,
                    u64::MAX,
                    good.len() as u64,
                ];
                let value = match dice.below(3) {
                    0 => values[dice.below(values.len())],
                    1 => runs[dice.below(runs.len())] as u64,
                    _ => dice.below(1 << 13) as u64,
                };
                let run = runs[dice.below(runs.len())];
                let (at, run) = match dice.below(3) {
                    0 => ([64, 72, 80, 88, 96, 104, 192, 200][dice.below(8)], None),
                    1 => (256 + 8 * dice.below(256), None),
                    _ => (run + [4, 8, 16, 24, 32, 40][dice.below(6)], Some(run)),
                };
                bad[at..at + 8].copy_from_slice(&value.to_le_bytes());
                reseal(&mut bad, run);
            }
            found += usize::from(work(&bad, &live));
        }
        println!("{policy:?}: {found} of {rounds} were noticed");
        assert!(found > rounds / 2);
    }
}
