//! guards: L01 L02 L09 L35 L36 L37
//!
//! The whole stack under shuttle: writers, transactions, readers and a closer on the simulated file
//! system, in thousands of random schedules; then power cuts at points of what they did. No thread
//! hangs, and no call returns a result that is not so.
//!
//! ```sh
//! export RUSTFLAGS="--cfg cairn_shuttle"
//! cargo test --release -p cairn-stack --test shuttle -- --nocapture
//! ```
#![cfg(cairn_shuttle)]
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    reason = "a test"
)]

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use cairn_io::{Backend, File, Layer, Layered, Stat, Through};
use cairn_sim::{Call, CrashExplorer, Errno, FaultPlan, SimFs};
use cairn_stack::{Durability, Error, Stack};
use shuttle::thread;

/// Every call lets other threads run before and after it, so that barriers and writes are no single
/// steps.
#[derive(Debug)]
struct Interrupted;

#[derive(Debug)]
struct InterruptedFile(Arc<dyn File>);

fn interrupted<T>(call: impl FnOnce() -> T) -> T {
    thread::yield_now();
    let result = call();
    thread::yield_now();
    result
}

impl Layer for Interrupted {
    fn file(&self, _: Through, _: &Path, file: Arc<dyn File>) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(InterruptedFile(file)))
    }
    /// There may be threads besides the test's.
    fn background(&self, _: bool) -> bool {
        true
    }
}

impl File for InterruptedFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        interrupted(|| self.0.read_at(offset, buf))
    }
    fn write_at(&self, offset: u64, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        interrupted(|| self.0.write_at(offset, slices))
    }
    fn block_size(&self) -> usize {
        self.0.block_size()
    }
    fn backend(&self) -> Backend {
        self.0.backend()
    }
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        interrupted(|| self.0.set_len(len))
    }
    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.0.allocate(offset, len)
    }
    fn sync_data(&self) -> io::Result<()> {
        interrupted(|| self.0.sync_data())
    }
    fn try_lock(&self) -> io::Result<bool> {
        self.0.try_lock()
    }
    fn unlock(&self) -> io::Result<()> {
        self.0.unlock()
    }
    fn stat(&self) -> io::Result<Stat> {
        self.0.stat()
    }
    fn data_from(&self, offset: u64) -> io::Result<u64> {
        self.0.data_from(offset)
    }
}

fn open(sim: &SimFs) -> cairn_stack::Result<Stack> {
    open_with(sim, Durability::Operation, false)
}

/// With direct writes, there is space ahead, so that small commits need nothing else.
fn open_with(sim: &SimFs, durability: Durability, direct: bool) -> cairn_stack::Result<Stack> {
    let options = Stack::options().reserve(if direct { 4096 } else { 0 }).direct_io(direct);
    options
        .durability(durability)
        .fs(Arc::new(Layered::new(Arc::new(sim.clone()), Interrupted)))
        .open("/stack")
}

fn explore(name: &str, schedules: usize, test: impl Fn(&AtomicU64) + Send + Sync + 'static) {
    let states = Arc::new(AtomicU64::new(0));
    let counted = states.clone();
    shuttle::check_random(move || test(&counted), schedules);
    println!(
        "shuttle: {name}: {schedules} schedules, {} crash states after them",
        states.load(Ordering::Relaxed)
    );
}

/// Items pushed: each a byte that says how many follow, and as many of a kind. They are whole in
/// every state.
fn items(bytes: &[u8]) -> Vec<u8> {
    let mut kinds = Vec::new();
    let mut rest = bytes;
    while let [len, kind, ..] = rest {
        let (item, after) = rest.split_at(usize::from(*len) + 1);
        assert!(item[1..].iter().all(|b| b == kind), "an item is torn");
        kinds.push(*kind);
        rest = after;
    }
    assert!(rest.is_empty());
    kinds
}

fn item(kind: u8) -> Vec<u8> {
    [&[100 + kind][..], &vec![kind; 100 + usize::from(kind)]].concat()
}

/// The pushes that were acknowledged, and when.
type Told = Arc<Mutex<Vec<(usize, u8)>>>;

/// Every item acknowledged by `point` is there once, and items are whole, behind `bottom` bytes.
fn check(told: &Told, point: usize, sim: &SimFs, bottom: u64) -> Result<(), String> {
    let stack = open(sim).map_err(|e| format!("does not open: {e}"))?;
    let kinds = match stack.len() {
        len if len < bottom => Vec::new(),
        _ => items(&stack.peek(bottom).map_err(|e| e.to_string())?),
    };
    for (at, kind) in told.lock().unwrap().iter() {
        let times = kinds.iter().filter(|k| *k == kind).count();
        if times > 1 || (*at <= point && times == 0) {
            return Err(format!("item {kind} is there {times} times"));
        }
    }
    Ok(())
}

fn cut_power(told: &Told, sim: &SimFs, bottom: u64, states: &AtomicU64) {
    let explorer = CrashExplorer::new(sim.trace()).exhaustive_limit(1).samples_per_point(4);
    let report = explorer.for_each(|state| {
        // Some states of each: schedules matter more here.
        if state.fingerprint() % 8 != 0 || state.point() < 8 {
            return Ok(());
        }
        states.fetch_add(1, Ordering::Relaxed);
        check(told, state.point(), &state.fs(), bottom)
    });
    report.unwrap();
}

#[test]
fn pushes_transactions_and_readers() {
    [false, true].into_iter().for_each(pushes_transactions_and_a_reader);
}

fn pushes_transactions_and_a_reader(direct: bool) {
    explore(
        &format!("two pushers, a transaction, a reader, direct {direct}"),
        3000,
        move |states| {
            let sim = SimFs::new();
            let stack = Arc::new(open_with(&sim, Durability::Operation, direct).unwrap());
            // Two counters that change together, below the items.
            stack.push([0; 16]).unwrap();
            let told = Told::default();
            let mut threads = Vec::new();
            for pusher in 0..2u8 {
                let (stack, sim, told) = (stack.clone(), sim.clone(), told.clone());
                threads.push(thread::spawn(move || {
                    for n in 0..2u8 {
                        let kind = 1 + pusher * 2 + n;
                        let at = stack.push(item(kind)).unwrap();
                        told.lock().unwrap().push((sim.op_count(), kind));
                        assert_eq!(stack.get(at..at + 2).unwrap(), [100 + kind, kind]);
                    }
                }));
            }
            threads.push(thread::spawn({
                let (stack, sim, told) = (stack.clone(), sim.clone(), told.clone());
                move || {
                    for n in 1..3u8 {
                        let kind = 10 + n;
                        stack
                            .transaction(|tx| {
                                tx.set(0, [n; 8])?;
                                tx.push(item(kind))?;
                                tx.set(8, [n; 8])
                            })
                            .unwrap();
                        told.lock().unwrap().push((sim.op_count(), kind));
                    }
                }
            }));
            threads.push(thread::spawn({
                let stack = stack.clone();
                move || {
                    let mut len = 0;
                    for _ in 0..4 {
                        let all = stack.peek(0).unwrap();
                        assert!(all.len() >= len, "nothing that was read is taken back");
                        len = all.len();
                        assert_eq!(all[..8], all[8..16], "counters are seen together");
                        items(&all[16..]);
                        thread::yield_now();
                    }
                }
            }));
            threads.into_iter().for_each(|t| t.join().unwrap());
            assert_eq!(items(&stack.peek(16).unwrap()).len(), 6);
            cut_power(&told, &sim, 16, states);
            Arc::into_inner(stack).unwrap().close().unwrap();
            assert_eq!(
                open(&sim).unwrap().len(),
                16 + told.lock().unwrap().iter().map(|(_, k)| 101 + u64::from(*k)).sum::<u64>()
            );
        },
    );
}

#[test]
fn pops_and_pushes_never_lose_or_double_an_item() {
    explore("two that push and pop", 3000, |_| {
        let sim = SimFs::new();
        let stack = Arc::new(open(&sim).unwrap());
        let popped = Arc::new(Mutex::new(Vec::new()));
        let threads: Vec<_> = (0..3u8)
            .map(|n| {
                let (stack, popped) = (stack.clone(), popped.clone());
                thread::spawn(move || {
                    stack.push([n + 1; 700]).unwrap();
                    if n > 0 {
                        let bytes = stack.pop(700).unwrap();
                        assert!(bytes.iter().all(|b| *b == bytes[0]), "one item as a whole");
                        popped.lock().unwrap().push(bytes[0]);
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|t| t.join().unwrap());
        let mut all = popped.lock().unwrap().clone();
        all.extend(stack.peek(0).unwrap().chunks(700).map(|item| item[0]));
        all.sort_unstable();
        assert_eq!(all, [1, 2, 3]);
    });
}

#[test]
fn a_failed_barrier_leaves_nobody_waiting_and_nobody_believing() {
    let direct = (0..3).map(|nth| (Call::WriteDirect, nth));
    for (call, nth) in (0..3).map(|nth| (Call::Sync, nth)).chain(direct) {
        explore(&format!("three pushers, {call:?} {nth} fails"), 1000, move |states| {
            let sim = SimFs::new();
            let direct = call == Call::WriteDirect;
            let stack = Arc::new(open_with(&sim, Durability::Operation, direct).unwrap());
            let told = Told::default();
            sim.set_faults(FaultPlan::new().fail(call, nth, Errno::Eio));
            let threads: Vec<_> = (0..3u8)
                .map(|pusher| {
                    let (stack, sim, told) = (stack.clone(), sim.clone(), told.clone());
                    thread::spawn(move || {
                        for n in 0..2u8 {
                            let kind = 1 + pusher * 2 + n;
                            match stack.push(item(kind)) {
                                Ok(_) => told.lock().unwrap().push((sim.op_count(), kind)),
                                // `Io`: the store refused to reserve space, a moment before the
                                // stack knew.
                                Err(
                                    Error::InDoubt { .. }
                                    | Error::Poisoned { .. }
                                    | Error::Io { .. },
                                ) => {}
                                Err(other) => panic!("{other:?}"),
                            }
                        }
                    })
                })
                .collect();
            threads.into_iter().for_each(|t| t.join().unwrap());
            let kinds = items(&stack.peek(0).unwrap());
            assert_eq!(
                kinds.len(),
                told.lock().unwrap().len(),
                "readers see what was acknowledged"
            );
            drop(stack);
            cut_power(&told, &sim, 0, states);
        });
    }
}

/// A failed write refuses its round and the rounds on top of it. Later rounds succeed.
#[test]
fn a_refused_round_takes_with_it_what_lies_on_top() {
    for nth in 0..4 {
        explore(
            &format!("a transaction and two pushers, write {nth} fails"),
            1000,
            move |states| {
                let sim = SimFs::new();
                let stack = Arc::new(open(&sim).unwrap());
                stack.push([0; 16]).unwrap();
                let told = Told::default();
                sim.set_faults(FaultPlan::new().fail(Call::Write, nth, Errno::Enospc));
                let push = |kind: u8| {
                    let (stack, sim, told) = (stack.clone(), sim.clone(), told.clone());
                    move || match stack.push(item(kind)) {
                        Ok(_) => told.lock().unwrap().push((sim.op_count(), kind)),
                        Err(
                            Error::Full { .. } | Error::InDoubt { .. } | Error::Poisoned { .. },
                        ) => {}
                        Err(other) => panic!("{other:?}"),
                    }
                };
                let mut threads = vec![thread::spawn(push(1)), thread::spawn(push(2))];
                threads.push(thread::spawn({
                    let (stack, sim, told) = (stack.clone(), sim.clone(), told.clone());
                    move || {
                        let result = stack.transaction(|tx| {
                            tx.set(0, [7; 16])?;
                            thread::yield_now();
                            tx.push(item(3))
                        });
                        match result {
                            Ok(_) => told.lock().unwrap().push((sim.op_count(), 3)),
                            Err(
                                Error::Full { .. } | Error::InDoubt { .. } | Error::Poisoned { .. },
                            ) => {}
                            Err(other) => panic!("{other:?}"),
                        }
                    }
                }));
                threads.into_iter().for_each(|t| t.join().unwrap());
                let kinds = items(&stack.peek(16).unwrap());
                assert_eq!(
                    kinds.len(),
                    told.lock().unwrap().len(),
                    "what was refused is not there"
                );
                assert_eq!(stack.get(0..1).unwrap() == [7], kinds.contains(&3));
                drop(stack);
                cut_power(&told, &sim, 16, states);
            },
        );
    }
}

#[test]
fn closing_and_explicit_syncs_meet_writers() {
    explore("explicit durability, two writers, a syncer", 2000, |_| {
        let sim = SimFs::new();
        let stack = Arc::new(open_with(&sim, Durability::Explicit, true).unwrap());
        let threads: Vec<_> = (1..3u8)
            .map(|n| {
                let stack = stack.clone();
                thread::spawn(move || {
                    stack.push(item(n)).unwrap();
                    stack.sync().unwrap();
                    stack.push(item(n + 10)).unwrap();
                })
            })
            .collect();
        stack.sync().unwrap();
        assert!(items(&stack.peek(0).unwrap()).len() <= 4);
        threads.into_iter().for_each(|t| t.join().unwrap());
        Arc::into_inner(stack).unwrap().close().unwrap();
        assert_eq!(items(&open(&sim).unwrap().peek(0).unwrap()).len(), 4);
    });
}
