//! guards: L39 L40 L49
//!
//! What operations cost, counted where the system is called.

use std::sync::Arc;

use cairn_sim::{Call, SimFs};
use cairn_stack::Stack;

use crate::model::PATH;

fn open(sim: &SimFs) -> Stack {
    Stack::options().fs(Arc::new(sim.clone())).open(PATH).unwrap()
}

/// Barriers, writes, bytes written.
fn cost(sim: &SimFs, run: impl FnOnce()) -> (u64, u64, u64) {
    let count = || {
        let counters = sim.counters();
        (counters.calls(Call::Sync), counters.calls(Call::Write), counters.bytes_written)
    };
    let before = count();
    run();
    let after = count();
    (after.0 - before.0, after.1 - before.1, after.2 - before.2)
}

#[test]
fn every_operation_costs_one_barrier_and_few_writes() {
    let sim = SimFs::new();
    let stack = open(&sim);
    stack.push(vec![1; 100_000]).unwrap();
    // One more, so that nothing of the push is left to be done.
    stack.set(0, [1]).unwrap();
    stack.discard(1).unwrap();
    let one = |name: &str, writes_max: u64, run: &dyn Fn()| {
        let (barriers, writes, bytes) = cost(&sim, run);
        println!("{name}: {barriers} barrier, {writes} writes, {bytes} bytes");
        assert_eq!(barriers, 1, "{name}");
        assert!(writes <= writes_max, "{name}: {writes} writes");
    };
    one("push 100 B", 2, &|| _ = stack.push([2; 100]).unwrap());
    one("push 4 KiB, and what was carried before in place", 4, &|| _ = stack.push([2; 4096]).unwrap());
    one("pop", 1, &|| _ = stack.pop(50).unwrap());
    one("discard", 1, &|| stack.discard(50).unwrap());
    one("set 64 B", 1, &|| stack.set(1000, [3; 64]).unwrap());
    one("another set 64 B", 1, &|| stack.set(5000, [3; 64]).unwrap());
    one("zero", 2, &|| stack.zero(70_000..74_000).unwrap());
    one("set 4 KiB, and what was carried before in place", 5, &|| stack.set(9000, [4; 4096]).unwrap());
    one("extend over what was there before", 3, &|| _ = stack.extend(100).unwrap());
    one("compare and set", 2, &|| _ = stack.compare_and_set(0, [1; 8], [5; 8]).unwrap());
    let transaction = || {
        stack
            .transaction(|tx| {
                for n in 0..8u8 {
                    tx.set(u64::from(n) * 11_000, [n; 4096])?;
                }
                tx.push([9; 4096])
            })
            .unwrap();
    };
    one("eight sets and a push of 4 KiB each", 5, &transaction);
    one("the same, and what was carried before in place", 11, &transaction);
    one("push, and that in place", 11, &|| _ = stack.push([2; 100]).unwrap());
    let (barriers, _, bytes) = cost(&sim, || stack.set(1, vec![7; 90_000]).unwrap());
    assert_eq!(barriers, 1, "a large set");
    assert!(bytes < 100_000);
    let (barriers, ..) = cost(&sim, || _ = stack.push([1]).unwrap());
    assert_eq!(barriers, 2, "what comes after it");
    let (barriers, ..) = cost(&sim, || _ = stack.get(0..1000).unwrap());
    assert_eq!(barriers, 0);
}

#[test]
fn creating_opening_and_closing_take_a_few_barriers() {
    let sim = SimFs::new();
    let (barriers, ..) = cost(&sim, || drop(open(&sim)));
    assert_eq!(barriers, 3);
    let stack = open(&sim);
    for _ in 0..100 {
        stack.push([1; 1000]).unwrap();
    }
    drop(stack);
    let read = sim.counters().bytes_read;
    let (barriers, _, bytes) = cost(&sim, || drop(open(&sim)));
    assert_eq!(barriers, 2);
    assert!(bytes < 20_000 && sim.counters().bytes_read - read < 30_000, "the newest commit, not the stack");
    let stack = open(&sim);
    let (barriers, ..) = cost(&sim, || stack.close().unwrap());
    assert_eq!(barriers, 2);
}
