//! guards: L39 L40
//!
//! The cost of operations, in system calls and barriers.

use cairn_heap::{Block, PolicyId, Result};
use cairn_sim::{Call, SimFs};

use crate::model::{POLICIES, barriers, open_at};

#[test]
fn every_operation_costs_one_barrier() {
    for policy in POLICIES {
        let sim = SimFs::new();
        let heap = open_at(&sim, policy).unwrap();
        let blocks: Vec<Block> = (0..50).map(|_| heap.alloc(100).unwrap()).collect();
        let one = |name: &str, run: &dyn Fn()| {
            let before = barriers(&sim);
            run();
            assert_eq!(barriers(&sim) - before, 1, "{policy:?}: {name}");
        };
        one("dealloc", &|| heap.dealloc(blocks[3]).unwrap());
        one("dealloc, neighbours joined", &|| heap.dealloc(blocks[4]).unwrap());
        one("alloc", &|| _ = heap.alloc(100).unwrap());
        one("realloc in place", &|| _ = heap.realloc(blocks[10], 90).unwrap());
        one("realloc that moves", &|| _ = heap.realloc(blocks[12], 3000).unwrap());
        one("write", &|| heap.write(blocks[20], [1; 100]).unwrap());
        one("root", &|| heap.set_root(1, blocks[20]).unwrap());
        one("ten allocations, writes, frees and a root", &|| {
            heap.transaction(|tx| {
                for n in 0..10 {
                    let block = tx.alloc(50 + n * 10)?;
                    tx.write(block, [7; 50])?;
                    tx.dealloc(blocks[25 + n as usize])?;
                    tx.set_root(2, block)?;
                }
                Ok::<_, cairn_heap::Error>(())
            })
            .unwrap();
        });
        let before = barriers(&sim);
        heap.read(blocks[20]).unwrap();
        heap.root(1).unwrap();
        assert_eq!(barriers(&sim), before);
    }
}

/// Calls of each kind, bytes read and written.
type Cost = ([u64; Call::ALL.len()], u64, u64);

fn cost(sim: &SimFs, since: Option<&Cost>) -> Cost {
    let counters = sim.counters();
    let (calls, read, written) = since.copied().unwrap_or_default();
    let mut nth = 0;
    let now = Call::ALL.map(|call| {
        nth += 1;
        counters.calls(call) - calls[nth - 1]
    });
    (now, counters.bytes_read - read, counters.bytes_written - written)
}

/// What a heap with so many free blocks has cost the system: opening it, and ten pairs of
/// operations on it. It was closed before, or its process died.
fn costs(policy: PolicyId, free: u64, closes: bool) -> [Cost; 2] {
    let sim = SimFs::new();
    let heap = open_at(&sim, policy).unwrap();
    let all: Vec<Block> =
        heap.transaction(|tx| (0..2 * free).map(|_| tx.alloc(40)).collect::<Result<_>>()).unwrap();
    heap.transaction(|tx| all.iter().step_by(2).try_for_each(|block| tx.dealloc(*block))).unwrap();
    // The last commit, which opening looks at, is the same for all.
    heap.set_user_area(0, [1; 8]).unwrap();
    heap.set_user_area(0, [2; 8]).unwrap();
    if closes {
        heap.close().unwrap()
    } else {
        drop(heap)
    }
    let before = cost(&sim, None);
    let heap = open_at(&sim, policy).unwrap();
    let opening = cost(&sim, Some(&before));
    assert_eq!(heap.stats().unwrap().free_runs, free);
    let before = cost(&sim, None);
    for _ in 0..10 {
        let block = heap.alloc(40).unwrap();
        heap.dealloc(block).unwrap();
    }
    [opening, cost(&sim, Some(&before))]
}

/// Not a call, not a byte more: opening reads no free block, and an operation only those it
/// changes.
#[test]
fn opening_and_operations_cost_the_same_however_many_blocks_are_free() {
    for policy in [POLICIES[0], POLICIES[4]] {
        for closes in [true, false] {
            // Too many for one commit of the stack to carry them in its header's block.
            let few = costs(policy, 200, closes);
            println!("{policy:?}, closed: {closes}: {few:?}");
            assert_eq!(few, costs(policy, 20_000, closes), "{policy:?}, closed: {closes}");
        }
    }
}
