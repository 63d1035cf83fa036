//! guards: L01 L09 L31 L32 L35
//!
//! A heap under shuttle, over all policies: eight threads that allocate, write, reallocate and free
//! at once, in hundreds of random schedules. No block is live twice, every owner finds what it
//! wrote, also after a power cut at points of what they did; and when a write or a barrier fails in
//! the middle of it, everybody is told what is so.
//!
//! Scheduling points are the stack's locks and its gate, before, within and after each commit.
//!
//! ```sh
//! RUSTFLAGS="--cfg cairn_shuttle" cargo test --release -p cairn-heap --test shuttle -- --nocapture
//! ```
#![cfg(cairn_shuttle)]
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    reason = "a test"
)]

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use cairn_heap::{Block, Error, Heap, Linear, Policy, PolicyId, Result, SizeClass, Slab};
use cairn_sim::{Call, CrashExplorer, Errno, FaultPlan, SimFs};
use cairn_stack::{Error as Stopped, Stack};
use shuttle::thread;

const POLICIES: [PolicyId; 3] =
    [PolicyId::Slab { block_size: 64 }, PolicyId::Linear, PolicyId::SizeClass];
const OWNERS: usize = 8;

fn open(sim: &SimFs, policy: PolicyId) -> Result<Heap> {
    let stack = Stack::options().reserve(4 << 10).fs(Arc::new(sim.clone())).open("/heap")?;
    let policy: Box<dyn Policy> = match policy {
        PolicyId::Slab { block_size } => Box::new(Slab { block_size }),
        PolicyId::Linear => Box::new(Linear),
        _ => Box::new(SizeClass),
    };
    Heap::open_with_key(stack, policy, 1 << 40)
}

fn explore(name: &str, schedules: usize, test: impl Fn(PolicyId) + Clone + Send + Sync + 'static) {
    for policy in POLICIES {
        let test = test.clone();
        shuttle::check_random(move || test(policy), schedules);
        println!("shuttle: {name}, {policy:?}: {schedules} schedules");
    }
}

/// What owner `n`'s block holds after its `step`th change.
fn contents(n: usize, step: usize) -> Vec<u8> {
    vec![(n * 16 + step + 1) as u8; 40 + 900 * ((n + step) % 3)]
}

/// What somebody was told: each owner's root, step by step, with the number of calls of the machine
/// when it was acknowledged.
#[derive(Default)]
struct Told {
    acknowledged: [Vec<(usize, Vec<u8>)>; OWNERS],
    tags: HashSet<u128>,
}

impl Told {
    /// A handle that a durable commit gave out.
    fn gave_out(&mut self, block: Block) {
        assert!(self.tags.insert(block.to_raw()), "a handle was given out twice");
    }

    /// Every owner's root holds what was acknowledged last by `point`, or what came next; and
    /// nothing else lives.
    fn check(&self, heap: &Heap, point: usize) -> std::result::Result<(), String> {
        let report = heap.check().map_err(|e| e.to_string())?;
        let live: HashMap<u64, Block> =
            heap.blocks().map_err(|e| e.to_string())?.map(|b| (b.start(), b)).collect();
        let mut reached = 0;
        for (n, steps) in self.acknowledged.iter().enumerate() {
            let root = heap.root(n).map_err(|e| e.to_string())?;
            let found = heap.read(root).map_err(|e| e.to_string())?;
            let done = steps.iter().take_while(|(at, _)| *at <= point).count();
            let before = done.checked_sub(1).map_or(Vec::new(), |last| steps[last].1.clone());
            let after = steps.get(done).map(|(_, contents)| contents);
            if found != before && Some(&found) != after {
                return Err(format!(
                    "owner {n} finds {} bytes, neither before nor after step {done}",
                    found.len()
                ));
            }
            reached += usize::from(!root.is_empty());
        }
        if !report.is_sound() || report.lost_bytes > 0 || live.len() != reached {
            return Err(format!("{} live blocks, {reached} are reached: {report:?}", live.len()));
        }
        Ok(())
    }
}

/// Allocates, writes, reallocates and frees a block that the owner's root names; each of it one
/// transaction.
fn change(heap: &Heap, n: usize, step: usize) -> Result<Vec<u8>> {
    let new = contents(n, step);
    heap.transaction(|tx| {
        let mut block = tx.root(n)?;
        thread::yield_now();
        match step {
            0 => tx.alloc_with(&new).and_then(|block| tx.set_root(n, block))?,
            1 | 2 => {
                block = tx.realloc(block, new.len() as u64)?;
                tx.write(block, &new)?;
            }
            _ => {
                tx.set_root(n, Block::EMPTY)?;
                tx.dealloc(block)?;
                return Ok(Vec::new());
            }
        }
        Ok(new)
    })
}

fn cut_power(told: &Told, sim: &SimFs, policy: PolicyId, states: &AtomicU64) {
    let explorer = CrashExplorer::new(sim.trace()).exhaustive_limit(1).samples_per_point(2);
    let report = explorer.for_each(|state| {
        // Some states of each: schedules matter more here.
        if state.fingerprint() % 16 != 0 {
            return Ok(());
        }
        states.fetch_add(1, Ordering::Relaxed);
        let heap = open(&state.fs(), policy).map_err(|e| format!("does not open: {e}"))?;
        told.check(&heap, state.point())
    });
    report.unwrap();
}

#[test]
fn eight_owners_each_find_what_they_wrote_and_no_block_lives_twice() {
    explore("eight owners", 1000, |policy| {
        let sim = SimFs::new();
        let heap = Arc::new(open(&sim, policy).unwrap());
        let told = Arc::new(Mutex::new(Told::default()));
        let owners: Vec<_> = (0..OWNERS)
            .map(|n| {
                let (heap, sim, told) = (heap.clone(), sim.clone(), told.clone());
                thread::spawn(move || {
                    // Some end with a block, some without.
                    for step in 0..3 + n % 2 {
                        let now = change(&heap, n, step).unwrap();
                        told.lock().unwrap().acknowledged[n].push((sim.op_count(), now.clone()));
                        let root = heap.root(n).unwrap();
                        assert_eq!(heap.read(root).unwrap(), now, "somebody else wrote here");
                    }
                    // And a block that nobody else knows of.
                    let block = heap.alloc_with(contents(n, 5)).unwrap();
                    told.lock().unwrap().gave_out(block);
                    heap.write(block, contents(n, 2)[..40].to_vec()).unwrap();
                    let longer = heap.realloc(block, 150).unwrap();
                    told.lock().unwrap().gave_out(longer);
                    assert_eq!(heap.read(longer).unwrap()[..40], contents(n, 2)[..40]);
                    heap.dealloc(longer).unwrap();
                    assert!(heap.dealloc(longer).is_err() && heap.read(block).is_err());
                })
            })
            .collect();
        owners.into_iter().for_each(|owner| owner.join().unwrap());
        let told = told.lock().unwrap();
        told.check(&heap, usize::MAX).unwrap();
        drop(heap);
        told.check(&open(&sim.restart(), policy).unwrap(), usize::MAX).unwrap();
    });
}

#[test]
fn a_power_cut_among_owners_leaves_each_before_or_after_its_step() {
    let states = Arc::new(AtomicU64::new(0));
    let counted = states.clone();
    explore("four owners, power cuts", 200, move |policy| {
        let sim = SimFs::new();
        let heap = Arc::new(open(&sim, policy).unwrap());
        let told = Arc::new(Mutex::new(Told::default()));
        let owners: Vec<_> = (0..4)
            .map(|n| {
                let (heap, sim, told) = (heap.clone(), sim.clone(), told.clone());
                thread::spawn(move || {
                    for step in 0..4 {
                        let now = change(&heap, n, step).unwrap();
                        told.lock().unwrap().acknowledged[n].push((sim.op_count(), now));
                    }
                })
            })
            .collect();
        owners.into_iter().for_each(|owner| owner.join().unwrap());
        drop(heap);
        cut_power(&told.lock().unwrap(), &sim, policy, &counted);
    });
    println!("{} crash states after them", states.load(Ordering::Relaxed));
}

/// A failed write refuses a round and what lies on top of it, and the next ones go on, with tags
/// that nobody has; or, as a failed barrier does, it ends the heap, and what was under way took
/// place as a whole or not at all.
// Length: what each error means stands beside the call that returns it.
#[test]
fn a_failure_among_owners_is_told_to_those_whom_it_concerns() {
    let (refused, in_doubt) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    for (call, errno) in
        [(Call::Write, Errno::Enospc), (Call::WriteDirect, Errno::Eio), (Call::Sync, Errno::Eio)]
    {
        for nth in 0..3 {
            let counts = (refused.clone(), in_doubt.clone());
            explore(&format!("four owners, {call:?} {nth} fails"), 100, move |policy| {
                let sim = SimFs::new();
                let heap = Arc::new(open(&sim, policy).unwrap());
                let told = Arc::new(Mutex::new(Told::default()));
                sim.set_faults(FaultPlan::new().fail(call, nth, errno));
                let owners: Vec<_> = (0..4)
                    .map(|n| {
                        let (heap, sim, told, counts) =
                            (heap.clone(), sim.clone(), told.clone(), counts.clone());
                        thread::spawn(move || {
                            for step in 0..3 {
                                let now = loop {
                                    match change(&heap, n, step) {
                                        Ok(now) => break now,
                                        Err(Error::Stack(Stopped::Full { .. })) => {
                                            counts.0.fetch_add(1, Ordering::Relaxed);
                                        }
                                        Err(Error::Stack(Stopped::InDoubt { .. })) => {
                                            counts.1.fetch_add(1, Ordering::Relaxed);
                                            told.lock().unwrap().acknowledged[n]
                                                .push((usize::MAX, contents(n, step)));
                                            return false;
                                        }
                                        // `Io`: the store refused to reserve space, a moment before
                                        // the stack knew.
                                        Err(Error::Stack(
                                            Stopped::Poisoned { .. } | Stopped::Io { .. },
                                        )) => {
                                            return false;
                                        }
                                        Err(error) => panic!("{error}"),
                                    }
                                };
                                // No lock of the test's own is held while others may run.
                                let root = heap.root(n).unwrap();
                                let mut told = told.lock().unwrap();
                                told.acknowledged[n].push((sim.op_count(), now));
                                told.gave_out(root);
                            }
                            true
                        })
                    })
                    .collect();
                let ended = owners
                    .into_iter()
                    .map(|owner| owner.join().unwrap())
                    .filter(|done| !done)
                    .count();
                assert_eq!(heap.alloc(1).and_then(|block| heap.dealloc(block)).is_err(), ended > 0);
                let told = told.lock().unwrap();
                told.check(&heap, usize::MAX - 1).unwrap();
                drop(heap);
                told.check(&open(&sim.restart(), policy).unwrap(), usize::MAX - 1).unwrap();
            });
        }
    }
    let (refused, in_doubt) = (refused.load(Ordering::Relaxed), in_doubt.load(Ordering::Relaxed));
    println!("{refused} changes were refused and repeated, {in_doubt} were in doubt");
    assert!(refused > 100 && in_doubt > 100);
}
