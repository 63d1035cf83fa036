//! guards: L21 L28
//!
//! The arena ends where the stack does. Opening refuses a stack that is longer or shorter, whatever
//! its bytes look like. The error and the check name the first stray byte, or the cut.

use cairn_heap::{Block, Error, Heap, PolicyId, Report, Violation};
use cairn_stack::Stack;

use crate::golden::crc32c;
use crate::hostile::{long, runs, stack};
use crate::model::{Dice, KEY, POLICIES, chain, policy};

/// Length of a heap's header.
const ARENA: usize = 2304;

/// A heap with nothing in it; one with free runs; one whose blocks all have the same length.
fn samples(policy: PolicyId) -> Vec<Vec<u8>> {
    [(0, 0, 1), (24, 90, 2), (12, 0, 100)]
        .map(|(count, step, every)| {
            let heap = Heap::open_with_key(stack(&[]), self::policy(policy), KEY).unwrap();
            let blocks: Vec<Block> = (0..count)
                .map(|n| heap.alloc_with(Dice(n).bytes(20 + n as usize % 3 * step)).unwrap())
                .collect();
            for block in blocks.iter().skip(1).step_by(every).take(count as usize / 3) {
                heap.dealloc(*block).unwrap();
            }
            heap.stack().peek(0).unwrap()
        })
        .to_vec()
}

/// A run's header as the format has it, for the place where it is to lie.
fn run_at(heap: &[u8], at: usize, len: u64, prev_len: u64, tag: Option<u64>) -> Vec<u8> {
    let unused = if tag.is_some() { 0u32 } else { u32::MAX };
    let mut bytes = vec![0; 4];
    bytes.extend(unused.to_le_bytes());
    for field in [len, prev_len, tag.unwrap_or(0)] {
        bytes.extend(field.to_le_bytes());
    }
    let crc = crc32c(&[&heap[32..40], &(at as u64).to_le_bytes(), &bytes[4..]]);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
    bytes.resize(len as usize, 0);
    bytes
}

/// Length of the run of a short block.
fn run_len(policy: PolicyId) -> usize {
    let heap = Heap::open_with_key(stack(&[]), self::policy(policy), KEY).unwrap();
    heap.alloc(1).unwrap();
    heap.stack().len() as usize - ARENA
}

/// Bytes that a heap's stack may be found to end with, and that no heap put there.
fn strays(good: &[u8], policy: PolicyId) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let run_len = run_len(policy);
    // Every length up to a run's, and some longer ones; these with all contents.
    let with_all = [1, 16, run_len, 2 * run_len, 16 * run_len, 4096, 70_000];
    for len in (1..=run_len + 1).chain(with_all) {
        let contents = [vec![0; len], vec![0x5a; len], vec![0xff; len], Dice(1).bytes(len)];
        for (nth, bytes) in contents.into_iter().enumerate() {
            if with_all.contains(&len) || len % 4 == nth {
                found.push((format!("{len} bytes of kind {nth}"), bytes));
            }
        }
    }
    found.push(("the heap's header".into(), good[..ARENA].to_vec()));
    found.push(("the heap".into(), good.to_vec()));
    let runs = runs(good);
    for (nth, at) in runs.iter().enumerate() {
        let end = runs.get(nth + 1).copied().unwrap_or(good.len());
        found.push((format!("a copy of run {nth}"), good[*at..end].to_vec()));
    }
    // Free space, or a block, whose header is right where it lies.
    let last_len = long(good, 72);
    for len in [run_len as u64, 2 * run_len as u64, last_len] {
        if len > 0 {
            let free = run_at(good, good.len(), len, last_len, None);
            found.push((format!("free space of {len} bytes"), free));
        }
        if len > 0 && len != last_len {
            let tag = Some(long(good, 64) - 1);
            let block = run_at(good, good.len(), len, last_len, tag);
            found.push((format!("a block of {len} bytes"), block));
        }
    }
    found
}

/// What the check says of a heap whose stack was changed while it was open: opening would refuse
/// it.
fn check_of(good: &[u8], bytes: &[u8]) -> Report {
    let heap = Heap::attach(stack(good)).unwrap();
    heap.stack().transaction(|tx| tx.resize(0).and_then(|()| tx.push(bytes))).unwrap();
    heap.check().unwrap()
}

/// A stack with these bytes, and the same one again: whether it is as before.
fn refused(bytes: &[u8], policy: PolicyId, name: &str) -> [Error; 2] {
    let fs = std::sync::Arc::new(cairn_sim::SimFs::new());
    let open = || Stack::options().reserve(0).fs(fs.clone()).open("/stack").unwrap();
    open().push(bytes).unwrap();
    let named = |opened: Result<Heap, Error>| match opened {
        Err(error) => error,
        Ok(heap) => panic!("{policy:?}, {name}: opens, and {:?}", heap.alloc(10)),
    };
    let errors = [named(Heap::open(open(), self::policy(policy))), named(Heap::attach(open()))];
    assert!(open().peek(0).unwrap() == bytes, "{name}: refused, and changed");
    errors
}

#[test]
pub(crate) fn stray_bytes_behind_the_arena_are_refused_and_named() {
    for policy in POLICIES {
        for good in samples(policy) {
            for (name, stray) in strays(&good, policy) {
                let bad = [&good[..], &stray].concat();
                for error in refused(&bad, policy, &name) {
                    let Error::StrayBytes { offset, len } = error else {
                        panic!("{policy:?}, {name}: {}", chain(&error));
                    };
                    assert_eq!((offset, len), (good.len() as u64, stray.len() as u64), "{name}");
                }
                for report in [check_of(&good, &bad), cairn_heap::check(&stack(&bad)).unwrap()] {
                    let end = good.len() as u64;
                    let here = |found: &&Violation| found.offset == end;
                    let said = report.violations.iter().find(here).map(|found| found.what);
                    let ends = "the heap ends here, but the stack is longer";
                    assert_eq!(said, Some(ends), "{policy:?}, {name}: {report:?}");
                    let earlier = |found: &Violation| (ARENA as u64..end).contains(&found.offset);
                    assert!(!report.violations.iter().any(earlier), "{name}: {report:?}");
                }
            }
        }
    }
}

/// Cut within a run: that run is named. Cut between two: the end is.
#[test]
fn a_stack_that_ends_before_the_arena_is_refused_and_the_cut_named() {
    let (mut refusals, mut left) = (0, 0);
    for policy in POLICIES {
        for good in samples(policy).into_iter().filter(|good| good.len() > ARENA) {
            let runs = runs(&good);
            let mut cuts: Vec<usize> = (0..good.len()).step_by(97).skip(1).collect();
            cuts.extend([1, 7, 8, 9, 63, 64, 127, 128, 2303, good.len() - 1]);
            cuts.extend(
                runs.iter().flat_map(|at| [at - 1, *at, at + 1, at + 16, at + 32, at + 48]),
            );
            for len in cuts.into_iter().filter(|len| *len < good.len()) {
                let bad = &good[..len];
                let name = format!("the first {len} of {} bytes", good.len());
                if equal_runs_at(&good, &runs, len) {
                    // No field of the header tells; handles of the lost block are refused, and the
                    // check counts.
                    let heap = Heap::attach(stack(bad));
                    assert!(
                        heap.ok().is_none_or(|heap| !heap.check().unwrap().is_sound()),
                        "{name}"
                    );
                    left += 1;
                    continue;
                }
                let cut = runs.iter().rev().find(|at| **at <= len).copied();
                for error in refused(bad, policy, &name) {
                    refusals += 1;
                    match error {
                        Error::NotAHeap { .. } if len < 8 => {}
                        Error::Corrupt { offset, .. } if len < ARENA => {
                            assert_eq!(offset, len as u64, "{name}");
                        }
                        Error::Corrupt { offset, .. } => {
                            assert_eq!(Some(offset), cut.map(|at| at as u64), "{policy:?}, {name}");
                        }
                        other => panic!("{policy:?}, {name}: {}", chain(&other)),
                    }
                }
                assert!(!check_of(&good, bad).is_sound(), "{name}");
            }
        }
    }
    println!("{refusals} openings were refused, {left} cuts left runs of equal lengths");
    assert!(refusals > 0 && left > 0);
}

/// Whether the run before this place is a block as long as the last run of all.
fn equal_runs_at(good: &[u8], runs: &[usize], place: usize) -> bool {
    let Some(nth) = runs.iter().position(|at| *at == place).filter(|nth| *nth > 0) else {
        return false;
    };
    let before = runs[nth - 1];
    long(good, before + 8) == long(good, 72) && good[before + 4..before + 8] != [0xff; 4]
}

/// The stack of an open heap is changed behind its back: what would grow at the end is refused,
/// with the byte, and changes nothing; what needs no end goes on.
#[test]
pub(crate) fn a_heap_does_not_grow_behind_stray_bytes() {
    for policy in POLICIES {
        for len in [1, 15, 16, run_len(policy), 5000] {
            let heap = Heap::open_with_key(stack(&[]), self::policy(policy), KEY).unwrap();
            let blocks = [(); 3].map(|()| heap.alloc_with([7; 40]).unwrap());
            let arena_end = heap.stack().len();
            heap.stack().push(vec![0x5a; len]).unwrap();
            let before = heap.stack().peek(0).unwrap();
            let stray = |result: Result<Block, Error>| match result {
                Err(Error::StrayBytes { offset, len: found }) => {
                    assert_eq!((offset, found), (arena_end, len as u64), "{policy:?}, {len}");
                }
                other => panic!("{policy:?}, {len} bytes: {other:?}"),
            };
            stray(heap.alloc(20));
            stray(heap.alloc_with([1; 3000]));
            stray(heap.realloc(blocks[0], 9000));
            assert!(heap.stack().peek(0).unwrap() == before, "refused, and changed");
            heap.write(blocks[1], [8; 40]).unwrap();
            heap.dealloc(blocks[0]).unwrap();
            // Without them it is whole.
            heap.stack().discard(len as u64).unwrap();
            assert!(heap.check().unwrap().is_sound());
            heap.realloc(blocks[1], 9000).unwrap();
        }
    }
}
