//! guards: L39 L40 L49
//!
//! What operations cost, counted where the system is called.

use std::sync::Arc;

use cairn_io::Backend;
use cairn_sim::{Call, Chooser, Errno, FaultPlan, SimFs};
use cairn_stack::Stack;

use crate::model::PATH;

fn open(sim: &SimFs, direct: bool) -> Stack {
    let stack = Stack::options().direct_io(direct).fs(Arc::new(sim.clone())).open(PATH).unwrap();
    assert_eq!(stack.backend(), if direct { Backend::Direct } else { Backend::Buffered });
    stack
}

/// Barriers, writes, bytes written. A direct write is both.
fn cost(sim: &SimFs, run: impl FnOnce()) -> (u64, u64, u64) {
    let count = || {
        let counters = sim.counters();
        let direct = counters.calls(Call::WriteDirect);
        (
            counters.calls(Call::Sync) + direct,
            counters.calls(Call::Write) + direct,
            counters.bytes_written,
        )
    };
    let before = count();
    run();
    let after = count();
    (after.0 - before.0, after.1 - before.1, after.2 - before.2)
}

#[test]
fn every_operation_costs_one_barrier_and_few_writes() {
    [false, true].into_iter().for_each(every_operation_costs_one);
}

fn every_operation_costs_one(direct: bool) {
    let sim = SimFs::new();
    let stack = open(&sim, direct);
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
    one("push 4 KiB, and what was carried before in place", 4, &|| {
        _ = stack.push([2; 4096]).unwrap()
    });
    one("pop", 1, &|| _ = stack.pop(50).unwrap());
    one("discard", 1, &|| stack.discard(50).unwrap());
    one("set 64 B", 1, &|| stack.set(1000, [3; 64]).unwrap());
    one("another set 64 B", 1, &|| stack.set(5000, [3; 64]).unwrap());
    one("zero", 2, &|| stack.zero(70_000..74_000).unwrap());
    one("set 4 KiB, and what was carried before in place", 5, &|| {
        stack.set(9000, [4; 4096]).unwrap()
    });
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
    [false, true].into_iter().for_each(creating_opening_and_closing_take_a_few);
}

fn creating_opening_and_closing_take_a_few(direct: bool) {
    let sim = SimFs::new();
    let open = |sim: &SimFs| open(sim, direct);
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
    assert!(
        bytes < 20_000 && sim.counters().bytes_read - read < 30_000,
        "the newest commit, not the stack"
    );
    let stack = open(&sim);
    let (barriers, ..) = cost(&sim, || stack.close().unwrap());
    assert_eq!(barriers, 2);
}

/// A small commit is one direct write and nothing else. A commit with other bytes goes through the
/// page cache.
#[test]
fn a_small_commit_is_one_direct_write() {
    let sim = SimFs::new();
    let stack = open(&sim, true);
    stack.push(vec![1; 100_000]).unwrap();
    stack.set(0, [1]).unwrap();
    let direct = || sim.counters().calls(Call::WriteDirect);
    let small: [&dyn Fn(); 5] = [
        &|| _ = stack.push([2; 100]).unwrap(),
        &|| _ = stack.pop(50).unwrap(),
        &|| stack.set(1000, [3; 64]).unwrap(),
        &|| stack.zero(0..10).unwrap(),
        &|| _ = stack.compare_and_set(2000, [1], [2]).unwrap(),
    ];
    for operation in small {
        let before = direct();
        let (barriers, writes, bytes) = cost(&sim, operation);
        assert_eq!((barriers, writes, bytes, direct() - before), (1, 1, 4096, 1));
    }
    let before = direct();
    let (barriers, ..) = cost(&sim, || stack.set(9000, [4; 4096]).unwrap());
    assert_eq!((barriers, direct() - before), (1, 0));
}

/// Pushing writes zeros ahead, so that hardly any commit makes the file longer; little by little,
/// so that a stack that stays small costs little.
#[test]
fn commits_go_into_zeros_that_are_there_already() {
    let sim = SimFs::new();
    let stack = open(&sim, true);
    stack.push([7; 100]).unwrap();
    assert!(sim.counters().bytes_written < 300_000, "{:?}", sim.counters());
    let before = sim.counters();
    let mut lengths = vec![sim.files()];
    for n in 0..20_000u32 {
        stack.push([n as u8; 100]).unwrap();
        if n.is_multiple_of(50) {
            lengths.push(sim.files());
        }
    }
    lengths.dedup();
    let after = sim.counters();
    let calls = |call| after.calls(call) - before.calls(call);
    assert!(
        lengths.len() <= 3 && calls(Call::Allocate) <= 2 && calls(Call::SetLen) == 0,
        "{lengths:?}"
    );
    // One in forty goes in place.
    assert!(calls(Call::WriteDirect) > 19_000, "{after:?}");
    assert!(after.bytes_written - before.bytes_written < 20_000 * 4096 + (6 << 20));
}

/// Zeros ahead are no part of an operation: it succeeds without them.
#[test]
fn zeros_ahead_may_fail() {
    // The first write makes the file as long as the stack, the second is zeros behind.
    for (nth, taken) in [(0, false), (1, true)] {
        let sim = SimFs::new();
        let stack = open(&sim, true);
        sim.set_faults(FaultPlan::new().fail(Call::Write, nth, Errno::Enospc));
        assert_eq!(stack.push([1; 100]).is_ok(), taken);
        assert_eq!(sim.counters().faults, 1);
        for n in 0..50 {
            stack.push([n; 100]).unwrap();
        }
        let expected = u64::from(taken) * 100 + 5000;
        let after = sim.power_cut(&mut Chooser::nothing());
        assert_eq!((stack.len(), open(&after, true).len()), (expected, expected));
    }
}
