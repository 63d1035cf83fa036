//! guards: L39 L40
//!
//! What operations cost, counted where the system is called.

use cairn_heap::{Allocator, Block, Policy};
use cairn_sim::{Call, SimFs};

use crate::model::{POLICIES, open_at};

#[test]
fn every_operation_costs_one_barrier() {
    for policy in POLICIES {
        let sim = SimFs::new();
        let heap = open_at(&sim, policy).unwrap();
        let blocks: Vec<Block> = (0..50).map(|_| heap.alloc(100).unwrap()).collect();
        let one = |name: &str, run: &dyn Fn()| {
            let before = sim.counters().calls(Call::Sync);
            run();
            assert_eq!(sim.counters().calls(Call::Sync) - before, 1, "{policy:?}: {name}");
        };
        one("dealloc", &|| heap.dealloc(blocks[3]).unwrap());
        one("dealloc, neighbours joined", &|| heap.dealloc(blocks[4]).unwrap());
        one("alloc", &|| _ = heap.alloc(100).unwrap());
        one("realloc in place", &|| _ = heap.realloc(blocks[10], 90).unwrap());
        one("realloc that moves", &|| _ = heap.realloc(blocks[12], 3000).unwrap());
        one("write", &|| blocks[20].write(&heap, [1; 100]).unwrap());
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
        let before = sim.counters().calls(Call::Sync);
        blocks[20].read(&heap).unwrap();
        heap.root(1).unwrap();
        assert_eq!(sim.counters().calls(Call::Sync), before);
    }
}

/// What is read and written does not grow with the number of blocks.
#[test]
fn opening_and_operations_cost_the_same_with_many_free_runs() {
    let cost = |blocks: u64| {
        let sim = SimFs::new();
        let heap = open_at(&sim, Policy::SizeClass).unwrap();
        let all: Vec<Block> =
            heap.transaction(|tx| (0..blocks).map(|_| tx.alloc(40)).collect::<Result<_, _>>()).unwrap();
        heap.transaction(|tx| all.iter().step_by(2).try_for_each(|block| tx.dealloc(*block))).unwrap();
        heap.close().unwrap();
        let read = sim.counters().bytes_read;
        let heap = open_at(&sim, Policy::SizeClass).unwrap();
        assert_eq!(heap.stats().unwrap().free_runs, blocks / 2);
        for _ in 0..10 {
            let block = heap.alloc(40).unwrap();
            heap.dealloc(block).unwrap();
        }
        sim.counters().bytes_read - read
    };
    let (few, many) = (cost(40), cost(20_000));
    println!("bytes read: {few} and {many}");
    assert!(many < few + 40_000);
}
