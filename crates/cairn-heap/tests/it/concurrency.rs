//! guards: L01 L35 L41
//!
//! Eight threads allocate, write, reallocate and free. No block is live twice, every thread reads
//! back its own bytes, and threads share barriers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use cairn_heap::{Block, Heap, SizeClass};
use cairn_sim::{Call, SimFs};
use cairn_stack::Stack;

use crate::model::{Dice, PATH, POLICIES, State, barriers, open_at};

fn work(
    heap: &Heap,
    thread: u64,
    rounds: usize,
    all: &Mutex<HashMap<u64, u64>>,
) -> Vec<(Block, Vec<u8>)> {
    let mut dice = Dice(thread * 77 + 1);
    let mut mine: Vec<(Block, Vec<u8>)> = Vec::new();
    for _ in 0..rounds {
        let len = 1 + dice.below(400);
        match dice.below(10) {
            0..4 => {
                let bytes = dice.bytes(len);
                let block = heap.alloc_with(&bytes).unwrap();
                let tag = (block.to_raw() >> 64) as u64;
                assert_eq!(all.lock().unwrap().insert(tag, thread), None, "a tag was given twice");
                mine.push((block, bytes));
            }
            4..6 if !mine.is_empty() => {
                let nth = dice.below(mine.len());
                let (block, bytes) = &mut mine[nth];
                *block = heap.realloc(*block, len as u64).unwrap();
                bytes.resize(len, 0);
                let tag = (block.to_raw() >> 64) as u64;
                assert_eq!(all.lock().unwrap().insert(tag, thread), None, "a tag was given twice");
            }
            6..8 if !mine.is_empty() => {
                let nth = dice.below(mine.len());
                let (block, bytes) = &mut mine[nth];
                *bytes = dice.bytes(bytes.len());
                heap.write(*block, &*bytes).unwrap();
            }
            _ if !mine.is_empty() => {
                let (block, bytes) = mine.swap_remove(dice.below(mine.len()));
                assert_eq!(heap.read(block).unwrap(), bytes, "somebody else wrote here");
                heap.dealloc(block).unwrap();
                assert!(heap.read(block).is_err());
            }
            _ => {}
        }
        if let Some((block, bytes)) = mine.last() {
            assert_eq!(heap.read(*block).unwrap(), *bytes);
        }
    }
    mine
}

#[test]
fn no_block_lives_twice_and_everybody_finds_his_own() {
    for policy in POLICIES {
        let sim = SimFs::new();
        let heap = open_at(&sim, policy).unwrap();
        let all = Mutex::new(HashMap::new());
        let owned: Vec<(Block, Vec<u8>)> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|n| {
                    scope.spawn({
                        let (heap, all) = (&heap, &all);
                        move || work(heap, n, 150, all)
                    })
                })
                .collect();
            // Somebody checks all the while.
            for _ in 0..20 {
                assert!(heap.check().unwrap().is_sound());
            }
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        let state = State::of(&heap).unwrap();
        let owned: std::collections::BTreeMap<u128, Vec<u8>> =
            owned.into_iter().map(|(block, bytes)| (block.to_raw(), bytes)).collect();
        assert!(state.blocks == owned, "{policy:?}");
        drop(heap);
        assert_eq!(
            State::of(
                &open_at(&sim.power_cut(&mut cairn_sim::Chooser::nothing()), policy).unwrap()
            )
            .unwrap(),
            state
        );
    }
}

#[test]
fn operations_of_many_threads_share_barriers() {
    let sim = SimFs::new();
    let stack = Stack::options().fs(Arc::new(sim.clone())).open(PATH).unwrap();
    let heap = Heap::open(stack, SizeClass).unwrap();
    // The file is long enough after it.
    let block = heap.alloc(2000).unwrap();
    heap.dealloc(block).unwrap();
    let holds = [Call::Sync, Call::WriteDirect].map(|call| sim.hold(call));
    let (before, operations) = (barriers(&sim), heap.stack().stats().operations);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| heap.alloc(100).unwrap());
        }
        // One leads, and is held; all others come meanwhile, and wait for the next barrier
        // together.
        while heap.stack().stats().operations < operations + 8 {
            std::thread::yield_now();
        }
        drop(holds);
    });
    let barriers = barriers(&sim) - before;
    println!("8 allocations, {barriers} barriers");
    assert!(barriers <= 3);
    assert_eq!(State::of(&heap).unwrap().blocks.len(), 8);
}
