//! guards: L01 L09 L41
//!
//! Many threads at once: their results fit one order of their operations, they share barriers, and
//! readers do not wait for barriers.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::time::{Duration, Instant};

use cairn_sim::{Call, SimFs};
use cairn_stack::{Error, Stack};

use crate::model::{Dice, PATH, chain};

/// The result that a call returned.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Told {
    At(u64),
    Bytes(Vec<u8>),
    Was(bool),
    Done,
    Refused,
}

/// What it asked.
#[derive(Clone, Debug)]
enum Ask {
    Push(Vec<u8>),
    Pop(u64),
    Discard(u64),
    Set(u64, Vec<u8>),
    Swap(u64, u8, u8),
    TryExtend(u64, u64),
    TryDiscard(u64, u64),
    Read,
    /// Pops, and pushes twice as much.
    Transaction(u64, u8),
}

impl Ask {
    fn any(dice: &mut Dice) -> Self {
        let bytes = (0..1 + dice.below(4)).map(|_| dice.below(4) as u8).collect();
        let small = dice.below(6) as u64;
        match dice.below(9) {
            0 | 1 => Ask::Push(bytes),
            2 => Ask::Pop(small),
            3 => Ask::Discard(small),
            4 => Ask::Set(small, bytes),
            5 => Ask::Swap(small, dice.below(4) as u8, dice.below(4) as u8),
            6 => Ask::TryExtend(small, 1 + dice.below(3) as u64),
            7 => match dice.below(2) {
                0 => Ask::TryDiscard(small, dice.below(4) as u64),
                _ => Ask::Transaction(small, dice.below(4) as u8),
            },
            _ => Ask::Read,
        }
    }

    fn of(&self, stack: &Stack) -> Told {
        let told = match self {
            Ask::Push(bytes) => stack.push(bytes).map(Told::At),
            Ask::Pop(bytes) => stack.pop(*bytes).map(Told::Bytes),
            Ask::Discard(bytes) => stack.discard(*bytes).map(|()| Told::Done),
            Ask::Set(at, bytes) => stack.set(*at, bytes).map(|()| Told::Done),
            Ask::Swap(at, from, to) => stack.compare_and_set(*at, [*from], [*to]).map(Told::Was),
            Ask::TryExtend(len, zeros) => stack.try_extend_zeros(*len, *zeros).map(Told::Was),
            Ask::TryDiscard(len, bytes) => stack.try_discard(*len, *bytes).map(Told::Was),
            Ask::Read => stack.peek(0).map(Told::Bytes),
            Ask::Transaction(bytes, fill) => stack.transaction(|tx| {
                let popped = tx.pop(*bytes)?;
                tx.push(vec![*fill; 2 * popped.len()])?;
                Ok(Told::Bytes(popped))
            }),
        };
        match told {
            Ok(told) => told,
            Err(Error::OutOfRange { .. } | Error::TooShort { .. }) => Told::Refused,
            Err(other) => panic!("{}", chain(&other)),
        }
    }

    fn of_model(&self, model: &mut Vec<u8>) -> Told {
        let len = model.len();
        let start_of_last = |bytes: &u64| len.checked_sub(*bytes as usize);
        match self {
            Ask::Push(bytes) => {
                model.extend(bytes);
                Told::At(len as u64)
            }
            Ask::Pop(bytes) => {
                start_of_last(bytes).map_or(Told::Refused, |at| Told::Bytes(model.split_off(at)))
            }
            Ask::Discard(bytes) => start_of_last(bytes).map_or(Told::Refused, |at| {
                model.truncate(at);
                Told::Done
            }),
            Ask::Set(at, bytes) => match model.get_mut(*at as usize..*at as usize + bytes.len()) {
                Some(place) => {
                    place.copy_from_slice(bytes);
                    Told::Done
                }
                None => Told::Refused,
            },
            Ask::Swap(at, from, to) => match model.get_mut(*at as usize) {
                Some(byte) if byte == from => {
                    *byte = *to;
                    Told::Was(true)
                }
                Some(_) => Told::Was(false),
                None => Told::Refused,
            },
            Ask::TryExtend(expected, zeros) if len as u64 == *expected => {
                model.resize(len + *zeros as usize, 0);
                Told::Was(true)
            }
            Ask::TryDiscard(expected, bytes) if len as u64 == *expected => start_of_last(bytes)
                .map_or(Told::Refused, |at| {
                    model.truncate(at);
                    Told::Was(true)
                }),
            Ask::TryExtend(..) | Ask::TryDiscard(..) => Told::Was(false),
            Ask::Read => Told::Bytes(model.clone()),
            Ask::Transaction(bytes, fill) => start_of_last(bytes).map_or(Told::Refused, |at| {
                let popped = model.split_off(at);
                model.extend(vec![*fill; 2 * popped.len()]);
                Told::Bytes(popped)
            }),
        }
    }
}

#[derive(Debug)]
struct Call1 {
    asked: u64,
    answered: u64,
    ask: Ask,
    told: Told,
}

/// Whether the calls fit one order that ends in the state `last`. A call that returned before
/// another one began comes first.
fn fits_one_order(
    calls: &[Call1],
    done: u64,
    model: &[u8],
    last: &[u8],
    seen: &mut HashSet<(u64, Vec<u8>)>,
) -> bool {
    if done.count_ones() as usize == calls.len() {
        return model == last;
    }
    if !seen.insert((done, model.to_vec())) {
        return false;
    }
    let open = |i: &usize| done & (1 << i) == 0;
    let first_answer = (0..calls.len()).filter(open).map(|i| calls[i].answered).min().unwrap();
    (0..calls.len()).filter(open).filter(|i| calls[*i].asked < first_answer).any(|i| {
        let mut model = model.to_vec();
        calls[i].ask.of_model(&mut model) == calls[i].told
            && fits_one_order(calls, done | 1 << i, &model, last, seen)
    })
}

#[test]
fn what_eight_threads_are_told_fits_one_order() {
    for seed in 0..150 {
        let sim = SimFs::new();
        let stack = Stack::options().fs(Arc::new(sim.clone())).reserve(4096).open(PATH).unwrap();
        stack.push([1, 2, 3]).unwrap();
        let clock = AtomicU64::new(0);
        let calls = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (stack, clock, calls) = (&stack, &clock, &calls);
                scope.spawn(move || {
                    let mut dice = Dice(seed * 8 + thread);
                    for _ in 0..5 {
                        let ask = Ask::any(&mut dice);
                        let asked = clock.fetch_add(1, Ordering::SeqCst);
                        let told = ask.of(stack);
                        let answered = clock.fetch_add(1, Ordering::SeqCst);
                        calls.lock().unwrap().push(Call1 { asked, answered, ask, told });
                    }
                });
            }
        });
        let last = stack.peek(0).unwrap();
        let mut calls = calls.into_inner().unwrap();
        calls.sort_by_key(|call| call.asked);
        assert!(
            fits_one_order(&calls, 0, &[1, 2, 3], &last, &mut HashSet::new()),
            "seed {seed}: {calls:#?}"
        );
        drop(stack);
        let reopened = Stack::options().fs(Arc::new(sim)).open(PATH).unwrap();
        assert_eq!(reopened.peek(0).unwrap(), last);
    }
}

/// What a small commit waits for, if it may be a direct write, and if not.
const BARRIERS: [(bool, Call); 2] = [(false, Call::Sync), (true, Call::WriteDirect)];

#[test]
fn those_who_wait_share_a_barrier() {
    BARRIERS.into_iter().for_each(those_who_wait_share);
}

fn those_who_wait_share((direct, barrier): (bool, Call)) {
    let sim = SimFs::new();
    let stack = Stack::options().direct_io(direct).fs(Arc::new(sim.clone())).open(PATH).unwrap();
    // The file is long enough after it.
    stack.push([0; 2000]).unwrap();
    stack.discard(2000).unwrap();
    let held = sim.hold(barrier);
    let before = stack.stats();
    std::thread::scope(|scope| {
        for n in 0..16u8 {
            let stack = &stack;
            scope.spawn(move || stack.push([n; 10]).unwrap());
        }
        while stack.stats().operations < before.operations + 16 {
            std::thread::yield_now();
        }
        assert_eq!(stack.len(), 0, "nothing is seen before its barrier");
        drop(held);
    });
    let after = stack.stats();
    assert_eq!((after.len, after.operations - before.operations), (160, 16));
    assert!(after.barriers - before.barriers <= 3, "{after:?}");
}

/// guards: L41
#[test]
fn readers_do_not_wait_for_a_barrier() {
    BARRIERS.into_iter().for_each(readers_do_not_wait);
}

fn readers_do_not_wait((direct, barrier): (bool, Call)) {
    let sim = SimFs::new();
    let stack = Stack::options().direct_io(direct).fs(Arc::new(sim.clone())).open(PATH).unwrap();
    stack.push([1; 100]).unwrap();
    stack.set(10, [2; 10]).unwrap();
    let held = sim.hold(barrier);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (stack, over) = (&stack, &over);
        let barrier = Arc::new(Barrier::new(2));
        let started = barrier.clone();
        scope.spawn(move || {
            started.wait();
            stack
                .transaction(|tx| {
                    tx.set(5, [3; 10])?;
                    tx.discard(50)?;
                    tx.push([4; 200])
                })
                .unwrap();
            over.store(true, Ordering::SeqCst);
        });
        barrier.wait();
        let until = Instant::now() + Duration::from_millis(200);
        let mut reads = 0;
        while Instant::now() < until {
            let all = stack.peek(0).unwrap();
            assert_eq!((all.len(), &all[8..12]), (100, &[1, 1, 2, 2][..]));
            reads += 1;
        }
        assert!(!over.load(Ordering::SeqCst) && reads > 100);
        drop(held);
    });
    assert_eq!(stack.get(4..16).unwrap(), [1, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 2]);
    assert_eq!(stack.len(), 250);
}

/// Two places that are always changed together are never seen apart, whatever happens in between.
#[test]
fn a_snapshot_is_of_one_moment() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::open(dir.path().join("stack")).unwrap();
    let far = 300_000;
    stack.push(vec![0; far + 8]).unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (stack, over) = (&stack, &over);
        for _ in 0..2 {
            scope.spawn(move || {
                let mut reads = 0u64;
                let mut last = 0;
                while !over.load(Ordering::SeqCst) || reads == 0 {
                    let both = stack.get_many(&[0..8, far as u64..far as u64 + 8]).unwrap();
                    assert_eq!(both[0], both[1]);
                    let whole = stack.get(0..far as u64 + 8).unwrap();
                    assert_eq!(whole[..8], whole[far..]);
                    let now = u64::from_le_bytes(whole[..8].try_into().unwrap());
                    assert!(now >= last, "time goes on");
                    (last, reads) = (now, reads + 1);
                }
            });
        }
        for n in 1..400u64 {
            stack
                .transaction(|tx| {
                    tx.set(0, n.to_le_bytes())?;
                    // In place, or by taking off and putting on again.
                    match n % 3 {
                        0 => tx.set(far as u64, n.to_le_bytes()),
                        _ => {
                            tx.discard(8 + n % 1000)?;
                            tx.push(vec![0; n as usize % 1000])?;
                            tx.push(n.to_le_bytes()).map(drop)
                        }
                    }
                })
                .unwrap();
        }
        over.store(true, Ordering::SeqCst);
    });
}
