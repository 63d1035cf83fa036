//! guards: L01 L36 L37
//!
//! The slot and the gate on their own under loom: every interleaving of a few threads, up to a
//! bound on preemptions. What is published is what is taken, nothing else; nobody sleeps with no
//! leader awake.
//!
//! ```sh
//! RUSTFLAGS="--cfg cairn_loom" cargo test --release -p cairn-commit --test loom -- --nocapture
//! ```
#![cfg(cairn_loom)]
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    unsafe_code,
    reason = "a test"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cairn_commit::gate::{Gate, Lead, Turn};
use cairn_commit::slot::{Abandoned, Slot, UNIT};
use cairn_commit::stop::Latch;
use loom::cell::UnsafeCell;
use loom::sync::atomic::AtomicU64 as Watched;
use loom::thread;

fn explore(name: &str, preemptions: usize, test: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 10_000;
    let count = Arc::new(AtomicU64::new(0));
    let counted = count.clone();
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        test();
    });
    println!("loom: {name}: {} interleavings", count.load(Ordering::Relaxed));
}

/// A slot with a cell beside each of its units, in which loom sees an access that nothing orders,
/// which it does not in the slot's memory; and a number that is changed while the slot is closed,
/// as the log's ring does.
struct Watch {
    slot: Slot,
    cells: Vec<UnsafeCell<u8>>,
    number: Watched,
}

impl Watch {
    fn opened(units: usize, start: usize, end: usize) -> Arc<Self> {
        let cells = (0..units).map(|_| UnsafeCell::new(0)).collect();
        let watch = Watch { slot: Slot::new(units * UNIT), cells, number: Watched::new(1) };
        watch.slot.contents().unwrap().open(start * UNIT, end * UNIT);
        Arc::new(watch)
    }

    /// Reserves, fills with the slot's number, and publishes; returns that number, and the unit
    /// where it was.
    fn fill(&self, units: usize) -> Option<(u8, usize)> {
        let mut part = self.slot.reserve(units * UNIT, 1)?;
        let (number, unit) = (self.number.load(Ordering::Relaxed) as u8, part.start() / UNIT);
        part.fill(number);
        for cell in &self.cells[unit..unit + units] {
            // SAFETY: loom fails if another thread may be at it.
            cell.with_mut(|cell| unsafe { *cell = number });
        }
        part.publish();
        Some((number, unit))
    }

    /// What is in a unit, for who may look at it.
    fn cell(&self, unit: usize) -> u8 {
        // SAFETY: as above.
        self.cells[unit].with(|cell| unsafe { *cell })
    }
}

#[test]
fn what_is_published_is_taken_and_nothing_else() {
    explore("two fill a slot, a third takes it", 3, || {
        let watch = Watch::opened(8, 1, 4);
        let fillers = [1, 2].map(|units| {
            let watch = watch.clone();
            thread::spawn(move || {
                [watch.fill(units), watch.fill(units)].into_iter().flatten().count()
            })
        });
        let extent = watch.slot.close();
        let contents = watch.slot.contents().unwrap();
        assert!(watch.slot.reserve(UNIT, 1).is_none(), "closed");
        assert_eq!((extent.start, watch.slot.close()), (UNIT, extent));
        for unit in 0..8 {
            let filled = u8::from(unit >= 1 && unit < extent.end / UNIT);
            assert_eq!((watch.cell(unit), contents[unit * UNIT]), (filled, filled));
        }
        let filled = fillers.into_iter().map(|t| t.join().unwrap()).sum::<usize>();
        assert_eq!(extent.items, filled as u64);
    });
}

#[test]
fn what_was_abandoned_is_never_complete() {
    explore("one fills a slot, one goes away, a third takes it", 3, || {
        let watch = Watch::opened(4, 0, 4);
        let filler = thread::spawn({
            let watch = watch.clone();
            move || watch.fill(1).is_some()
        });
        let abandons = thread::spawn({
            let watch = watch.clone();
            move || watch.slot.reserve(UNIT, 1).map(drop).is_some()
        });
        watch.slot.close();
        let taken = watch.slot.contents().map(drop);
        let (_, abandoned) = (filler.join().unwrap(), abandons.join().unwrap());
        assert_eq!(taken, if abandoned { Err(Abandoned) } else { Ok(()) });
        assert_eq!(watch.slot.is_complete(), if abandoned { Err(Abandoned) } else { Ok(true) });
    });
}

/// The second time there is as much room, in another place: who was slow takes its part of that, or
/// of nothing.
#[test]
fn a_slot_that_is_opened_again_mixes_nothing_up() {
    for (name, second) in [("as much room", 4..6), ("less room", 7..8)] {
        explore(
            &format!("two fill a slot that is closed and opened again with {name}"),
            3,
            move || {
                let (first, second) = (0..2, second.clone());
                let watch = Watch::opened(8, first.start, first.end);
                let fillers = [(); 2].map(|()| {
                    let watch = watch.clone();
                    thread::spawn(move || [watch.fill(1), watch.fill(1)])
                });
                let mut seen = Vec::new();
                for (number, range) in [(1, first.clone()), (2, second.clone())] {
                    let extent = watch.slot.close();
                    let contents = watch.slot.contents().unwrap();
                    assert_eq!(extent.start, range.start * UNIT);
                    assert!(extent.end <= range.end * UNIT);
                    for unit in range.start..extent.end / UNIT {
                        assert_eq!((watch.cell(unit), contents[unit * UNIT]), (number, number));
                        seen.push((number, unit));
                    }
                    if number == 1 {
                        watch.number.store(2, Ordering::Relaxed);
                        contents.open(second.start * UNIT, second.end * UNIT);
                    }
                }
                let mut filled: Vec<_> =
                    fillers.into_iter().flat_map(|t| t.join().unwrap()).flatten().collect();
                filled.sort_unstable();
                assert_eq!(filled, seen);
            },
        );
    }
}

/// A gate, and what is durable of the rounds behind it.
#[derive(Default)]
struct Behind {
    gate: Gate,
    durable: AtomicU64,
    leads: AtomicU64,
}

impl Behind {
    fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Waits, and leads `step` rounds further when it is its turn.
    fn pass(&self, round: u64, step: u64) {
        loop {
            match self.gate.wait(round) {
                Turn::Covered => break,
                Turn::Lead(lead) => {
                    let covered = self.gate.covered();
                    if covered <= round {
                        thread::yield_now();
                        assert_eq!(
                            self.durable.swap(covered + step, Ordering::SeqCst),
                            covered,
                            "one leads at a time"
                        );
                        self.leads.fetch_add(1, Ordering::SeqCst);
                        lead.cover(covered + step);
                    }
                }
                Turn::Ended => panic!("nobody ended it"),
            }
        }
        assert!(self.durable.load(Ordering::SeqCst) > round);
    }
}

#[test]
fn waiters_of_two_rounds_all_pass() {
    for (name, rounds) in [("0, 0 and 1", [0, 0, 1]), ("1, 1 and 0", [1, 1, 0])] {
        explore(&format!("three wait for rounds {name}"), 2, move || {
            let behind = Behind::new();
            let others = [rounds[1], rounds[2]].map(|round| {
                let behind = behind.clone();
                thread::spawn(move || behind.pass(round, 1))
            });
            behind.pass(rounds[0], 1);
            others.into_iter().for_each(|t| t.join().unwrap());
            assert_eq!(behind.leads.load(Ordering::SeqCst), 2);
            assert!(!behind.gate.is_led());
        });
    }
}

/// Rounds 0 and 8 sleep on one word: who is woken to lead next may find its own round covered.
#[test]
fn rounds_that_share_a_word_all_pass() {
    explore("three wait for rounds 0, 8 and 8", 2, || {
        let behind = Behind::new();
        let lead = behind.gate.try_lead().unwrap();
        let others = [0, 8].map(|round| {
            let behind = behind.clone();
            thread::spawn(move || behind.pass(round, 8))
        });
        drop(lead);
        behind.pass(8, 8);
        others.into_iter().for_each(|t| t.join().unwrap());
    });
}

/// The leader does nothing for anybody, and goes: somebody who waits leads.
#[test]
fn leading_is_handed_over() {
    explore("two wait for rounds 0 and 1 while a third leads", 2, || {
        let behind = Behind::new();
        let lead = behind.gate.try_lead().unwrap();
        let others = [0, 1].map(|round| {
            let behind = behind.clone();
            thread::spawn(move || behind.pass(round, 1))
        });
        drop(lead);
        others.into_iter().for_each(|t| t.join().unwrap());
    });
    explore("two wait for rounds 0 and 2 while a third covers round 0", 2, || {
        let behind = Behind::new();
        let lead = behind.gate.try_lead().unwrap();
        let others = [0, 2].map(|round| {
            let behind = behind.clone();
            thread::spawn(move || behind.pass(round, 1))
        });
        thread::yield_now();
        behind.durable.store(1, Ordering::SeqCst);
        lead.cover(1);
        drop(lead);
        others.into_iter().for_each(|t| t.join().unwrap());
    });
}

#[test]
fn a_claim_comes_to_lead() {
    explore("a claim, and two who wait for rounds 0 and 1", 2, || {
        let behind = Behind::new();
        let others = [0, 1].map(|round| {
            let behind = behind.clone();
            thread::spawn(move || behind.pass(round, 1))
        });
        let lead = behind.gate.claim();
        let durable = behind.durable.load(Ordering::SeqCst);
        thread::yield_now();
        assert_eq!(behind.durable.load(Ordering::SeqCst), durable, "one leads at a time");
        drop(lead);
        others.into_iter().for_each(|t| t.join().unwrap());
    });
    explore("three claims", 2, || {
        let behind = Behind::new();
        let inside = Arc::new(AtomicU64::new(0));
        let claims = |behind: Arc<Behind>, inside: Arc<AtomicU64>| {
            move || {
                let lead = behind.gate.claim();
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                thread::yield_now();
                inside.fetch_sub(1, Ordering::SeqCst);
                drop(lead);
            }
        };
        let others = [(); 2].map(|()| thread::spawn(claims(behind.clone(), inside.clone())));
        claims(behind, inside)();
        others.into_iter().for_each(|t| t.join().unwrap());
    });
}

#[test]
fn the_end_reaches_who_is_about_to_sleep() {
    let ended = |behind: Arc<Behind>, round| {
        move || assert!(matches!(behind.gate.wait(round), Turn::Ended))
    };
    // The leader ends the gate, and goes only when everybody else has gone: the end itself wakes.
    explore("two wait, and the leader ends the gate", 3, move || {
        let behind = Behind::new();
        let lead = behind.gate.try_lead().unwrap();
        let waiters = [0, 1].map(|round| thread::spawn(ended(behind.clone(), round)));
        behind.gate.end();
        waiters.into_iter().for_each(|t| t.join().unwrap());
        drop(lead);
        assert!(behind.gate.try_lead().is_some());
    });
    explore("one waits, the leader ends the gate and goes, another one claims", 3, move || {
        let behind = Behind::new();
        let lead = behind.gate.try_lead().unwrap();
        let waiter = thread::spawn({
            let behind = behind.clone();
            move || match behind.gate.wait(0) {
                Turn::Ended => {}
                // It looked before the end, and leads after it.
                Turn::Lead(lead) => drop(lead),
                Turn::Covered => panic!("nobody covered it"),
            }
        });
        let claims = thread::spawn({
            let behind = behind.clone();
            move || drop(behind.gate.claim())
        });
        behind.gate.end();
        drop(lead);
        waiter.join().unwrap();
        claims.join().unwrap();
    });
    // A thread that is told of the end finds the cause, and all find the same one.
    explore("three wait, and the one that leads fails and stops the writer", 2, move || {
        let (behind, latch) = (Behind::new(), Arc::new(Latch::new()));
        let fails = |thread: u64| {
            let (behind, latch) = (behind.clone(), latch.clone());
            move || {
                loop {
                    match behind.gate.wait(0) {
                        Turn::Lead(lead) => {
                            behind.gate.stop(&latch, thread, 0);
                            drop(lead);
                        }
                        Turn::Ended => break **latch.stop().expect("the cause").cause(),
                        Turn::Covered => panic!("nobody covered it"),
                    }
                }
            }
        };
        let others = [1, 2].map(|thread| thread::spawn(fails(thread)));
        let cause = fails(0)();
        others.into_iter().for_each(|t| assert_eq!(t.join().unwrap(), cause));
    });
}

/// Rounds that are in flight beside each other. What is done is covered in order, under a lock, as
/// the gate asks for.
struct Flights {
    gate: Gate,
    state: loom::sync::Mutex<FlightState>,
}

#[derive(Default)]
struct FlightState {
    /// Rounds below this were taken; those that are done of them.
    taken: u64,
    done: Vec<u64>,
    beside: bool,
}

impl Flights {
    fn new() -> Arc<Self> {
        Arc::new(Flights { gate: Gate::new(), state: loom::sync::Mutex::default() })
    }

    /// Waits, and takes the next `step` rounds when it is its turn.
    fn pass(&self, round: u64, step: u64) {
        loop {
            match self.gate.wait(round) {
                Turn::Covered => break,
                Turn::Lead(lead) => {
                    let mut state = self.state.lock().unwrap();
                    let first = state.taken;
                    if first > round {
                        continue;
                    }
                    state.beside |= first > self.gate.covered();
                    state.taken += step;
                    drop(state);
                    lead.pass_on(first + step);
                    thread::yield_now();
                    self.land(&lead, first, step);
                }
                Turn::Ended => panic!("nobody ended it"),
            }
        }
        assert!(
            (0..=round / step).all(|n| self.state.lock().unwrap().done.contains(&(n * step))),
            "all before it are done"
        );
    }

    fn land(&self, lead: &Lead<'_>, first: u64, step: u64) {
        let mut state = self.state.lock().unwrap();
        state.done.push(first);
        let mut covered = self.gate.covered();
        while state.done.contains(&covered) {
            covered += step;
            lead.cover(covered);
        }
    }
}

#[test]
fn rounds_in_flight_are_covered_in_order_and_nobody_sleeps_on() {
    let beside = Arc::new(AtomicU64::new(0));
    for (name, rounds) in
        [("0, 1 and 1", [0, 1, 1]), ("1, 0 and 0", [1, 0, 0]), ("0, 1 and 2", [0, 1, 2])]
    {
        let beside = beside.clone();
        explore(
            &format!("three wait for rounds {name}, which are in flight beside each other"),
            2,
            move || {
                let flights = Flights::new();
                let others = [rounds[1], rounds[2]].map(|round| {
                    let flights = flights.clone();
                    thread::spawn(move || flights.pass(round, 1))
                });
                flights.pass(rounds[0], 1);
                others.into_iter().for_each(|t| t.join().unwrap());
                assert!(!flights.gate.is_led());
                beside
                    .fetch_add(u64::from(flights.state.lock().unwrap().beside), Ordering::Relaxed);
            },
        );
    }
    assert!(beside.load(Ordering::Relaxed) > 0);
}

/// Who is woken to lead may find its own round taken, and sleeps again: the other one on that word
/// is woken at the latest when that round is covered.
#[test]
fn a_round_in_flight_shares_its_word_with_a_later_one() {
    explore("two wait for rounds 0 and 8 while 0 to 7 are in flight", 3, || {
        let flights = Flights::new();
        let lead = flights.gate.try_lead().unwrap();
        flights.state.lock().unwrap().taken = 8;
        let others = [0, 8].map(|round| {
            let flights = flights.clone();
            thread::spawn(move || flights.pass(round, 8))
        });
        lead.pass_on(8);
        flights.land(&lead, 0, 8);
        drop(lead);
        others.into_iter().for_each(|t| t.join().unwrap());
    });
}

#[test]
fn a_round_in_flight_that_fails_is_heard_of() {
    explore(
        "a round in flight fails, somebody waits for it, and somebody for the next one",
        3,
        || {
            let flights = Flights::new();
            let lead = flights.gate.try_lead().unwrap();
            let waiters = [0, 1].map(|round| {
                let flights = flights.clone();
                thread::spawn(move || {
                    loop {
                        match flights.gate.wait(round) {
                            Turn::Lead(lead) => {
                                // What comes behind it fails as well.
                                if round == 1 {
                                    flights.gate.end();
                                }
                                drop(lead);
                            }
                            Turn::Ended => break,
                            Turn::Covered => panic!("nobody covered it"),
                        }
                    }
                })
            });
            lead.pass_on(1);
            flights.gate.end();
            drop(lead);
            waiters.into_iter().for_each(|t| t.join().unwrap());
        },
    );
}
