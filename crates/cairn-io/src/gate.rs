//! The commit gate: who leads the next flush, and who waits for which.
//!
//! Work that needs a barrier is gathered in *rounds*, numbered by their owner: everything in round *n* becomes durable with one flush, and rounds
//! are covered in order. One thread at a time *leads*: it decides what is flushed, and does the I/O, in the caller's thread, for all who wait. The
//! others sleep on one word of their round, and are woken once, all together, when it is covered; when a leader is done, exactly one of those who
//! wait for a later round is woken to lead next. On the way out nobody takes a lock, so a record costs its thread one sleep.
//!
//! A leader that has decided which rounds it flushes may *pass on* the lead before its I/O. Those rounds are then *taken*: who waits for one of
//! them sleeps until it is covered, and who waits for a later one may lead, and flush, at the same time.
//!
//! Invariants:
//! 1. A round is covered only by who leads or has led, and only after its barrier, and those of all rounds before, have returned; the number of
//!    covered rounds never falls. Covering is one thread's at a time: whoever passes on the lead sees to that with a lock of its own.
//! 2. Who is about to sleep has said so (`waiting`) *before* looking whether somebody leads; a leader gives up leading *before* it
//!    looks who waits. With a full fence between the two on both sides, one of them sees the other: nobody sleeps with no leader awake, unless
//!    its round is taken. The same holds of the round: who is about to sleep looks once more whether it is covered, for only who covers it wakes all
//!    its sleepers. A taken round is covered, or the gate is ended.
//! 3. A word changes before its sleepers are woken, so who read it before does not fall asleep after.
//!
//! Group commit with a leader is as old as DeWitt et al., "Implementation techniques for main memory database systems", SIGMOD 1984; one word per
//! generation and a direct hand-over are what is left when every other wake-up is taken away.

use std::cell::Cell;
use std::time::Duration;

use crate::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
use crate::sync::{Stopwatch, Word};

/// Rounds that can be waited for apart from each other. With more at once, some sleepers are woken for nothing.
const WORDS: usize = 8;

/// The commit gate; see the [module](self).
#[derive(Debug)]
pub struct Gate {
    /// Rounds below this are covered.
    covered: AtomicU64,
    /// Rounds below this are covered, or will be without another leader. Changes only while somebody leads.
    taken: AtomicU64,
    led: AtomicBool,
    ended: AtomicBool,
    /// Those who want to lead whatever the round; they go first, or many writers would starve them.
    claims: Waiters,
    rounds: [Waiters; WORDS],
    /// How many are expected in the next flush, and how long the last ones took.
    expected: AtomicU32,
    flush_ns: AtomicU64,
}

#[derive(Debug)]
struct Waiters {
    word: Word,
    waiting: AtomicU32,
}

/// What somebody who waits for a round has to do.
#[derive(Debug)]
pub enum Turn<'a> {
    /// Nothing: the round is covered.
    Covered,
    /// Lead. Whether the round is covered is to be looked at again afterwards.
    Lead(Lead<'a>),
    /// Find out why: the gate was ended, and the round is not covered.
    Ended,
}

/// The right to do the I/O. Passed on when it is dropped, or before, by [`pass_on`](Self::pass_on).
#[derive(Debug)]
#[must_use = "leading ends when this is dropped"]
pub struct Lead<'a> {
    gate: &'a Gate,
    passed_on: Cell<bool>,
    /// What was covered when leading began.
    covered: u64,
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

impl Gate {
    /// A gate with no round covered and nobody leading. Rounds start at 0.
    pub fn new() -> Self {
        let waiters = || Waiters { word: Word::default(), waiting: AtomicU32::new(0) };
        Gate {
            covered: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            led: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            claims: waiters(),
            rounds: std::array::from_fn(|_| waiters()),
            expected: AtomicU32::new(0),
            flush_ns: AtomicU64::new(0),
        }
    }

    /// Rounds below this are covered.
    pub fn covered(&self) -> u64 {
        self.covered.load(Ordering::Acquire)
    }

    /// Whether somebody leads.
    pub fn is_led(&self) -> bool {
        self.led.load(Ordering::Acquire)
    }

    fn waiters(&self, round: u64) -> &Waiters {
        &self.rounds[usize::try_from(round % WORDS as u64).expect("less than the number of words")]
    }

    /// How many wait for rounds from `covered` on: for the open one, as a rule.
    fn waiting_from(&self, covered: u64) -> u32 {
        let rounds = covered..covered + 2;
        rounds.map(|round| self.waiters(round).waiting.load(Ordering::Relaxed)).sum()
    }

    /// Waits until `round` is covered, or until it is this thread's turn to see to that.
    pub fn wait(&self, round: u64) -> Turn<'_> {
        let waiters = self.waiters(round);
        loop {
            let seen = waiters.word.load();
            if self.covered() > round {
                return Turn::Covered;
            }
            if self.ended.load(Ordering::Acquire) {
                return Turn::Ended;
            }
            if self.claims.waiting.load(Ordering::Relaxed) == 0
                && !self.is_taken(round)
                && let Some(lead) = self.try_lead()
            {
                return Turn::Lead(lead);
            }
            waiters.sleep(seen, || {
                let led = self.led.load(Ordering::Acquire) || self.claims.waiting.load(Ordering::Acquire) > 0;
                // Whoever leads now may have begun after the round was covered, and would not wake those who wait for it.
                (led || self.is_taken(round)) && self.covered() <= round && !self.ended.load(Ordering::Acquire)
            });
        }
    }

    /// Leads as soon as nobody else does, ahead of those who wait for a round. Also after the end.
    pub fn claim(&self) -> Lead<'_> {
        loop {
            let seen = self.claims.word.load();
            if let Some(lead) = self.try_lead() {
                return lead;
            }
            self.claims.sleep(seen, || self.led.load(Ordering::Acquire));
        }
    }

    /// Leads if nobody else does.
    pub fn try_lead(&self) -> Option<Lead<'_>> {
        let led = self.led.compare_exchange(false, true, Ordering::AcqRel, Ordering::Relaxed);
        led.is_ok().then(|| Lead { gate: self, passed_on: Cell::new(false), covered: self.covered() })
    }

    fn is_taken(&self, round: u64) -> bool {
        self.taken.load(Ordering::Acquire) > round
    }

    /// Nobody leads from now on, until somebody else does: the first of those who wait. If nobody waits for a round to come, that is one of those whose
    /// round was covered last, because its word is the one looked at last. Left out, that made nothing faster, and 64 threads slower (decision 8).
    fn hand_over(&self, covered: u64) {
        self.led.store(false, Ordering::Release);
        fence(Ordering::SeqCst);
        let next = covered.max(self.taken.load(Ordering::Relaxed));
        if !self.claims.wake_one() && !self.ended.load(Ordering::Acquire) {
            let _ = (next..next + WORDS as u64).map(|round| self.waiters(round)).any(Waiters::wake_one);
        }
    }

    /// From now on nobody waits: whose round is not covered gets [`Turn::Ended`]. Leading goes on to be possible.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
        for waiters in &self.rounds {
            waiters.wake_all();
        }
    }
}

impl Lead<'_> {
    /// Says that all rounds below `rounds` are durable.
    pub fn cover(&self, rounds: u64) {
        debug_assert!(rounds >= self.gate.covered());
        self.gate.covered.store(rounds, Ordering::Release);
    }

    /// Takes all rounds below `rounds`, which this thread is to cover without leading any longer, and has somebody else lead beside it. If it cannot
    /// cover them it [ends](Gate::end) the gate.
    pub fn pass_on(&self, rounds: u64) {
        debug_assert!(!self.passed_on.get() && rounds >= self.gate.taken.load(Ordering::Relaxed));
        self.gate.taken.store(rounds, Ordering::Release);
        self.passed_on.set(true);
        self.gate.hand_over(self.gate.covered());
    }

    /// Waits for those whom the flush before woke, if they are about to come back: until `arrived` says that they are here, beside those who waited
    /// for this flush already; at most half of what a flush takes. Without it they come just too late, and wait for two flushes.
    pub fn gather(&self, arrived: impl Fn() -> u64) {
        let expected = u64::from(self.gate.expected.load(Ordering::Relaxed));
        if expected < 2 || arrived() >= expected {
            return;
        }
        let limit = Duration::from_nanos(self.gate.flush_ns.load(Ordering::Relaxed) / 2);
        let watch = Stopwatch::start();
        while watch.elapsed() < limit && arrived() < expected {
            crate::sync::thread::yield_now();
        }
    }

    /// Tells how long the barrier of a flush took, for [`gather`](Self::gather).
    pub fn took(&self, flush: Duration) {
        let ns = u64::try_from(flush.as_nanos()).unwrap_or(u64::MAX);
        let known = self.gate.flush_ns.load(Ordering::Relaxed);
        let smooth = if known == 0 { ns } else { known - known / 8 + ns / 8 };
        self.gate.flush_ns.store(smooth, Ordering::Relaxed);
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        let gate = self.gate;
        let covered = gate.covered();
        let leads = !self.passed_on.get();
        let early: u32 = if leads && covered > self.covered { gate.waiting_from(covered) } else { 0 };
        if leads {
            // Who leads next is woken first: gathering and the wake-ups of the others go on side by side.
            gate.hand_over(covered);
        } else {
            fence(Ordering::SeqCst);
        }
        let done = self.covered..covered.min(self.covered + WORDS as u64);
        let woken: u32 = done.map(|round| gate.waiters(round).wake_all()).sum();
        if leads && covered > self.covered {
            // The leader comes back, too; and some are here already.
            gate.expected.store(woken + 1 + early, Ordering::Relaxed);
        }
    }
}

impl Waiters {
    /// Sleeps unless the word is no longer what was `seen`, or there is nobody who will wake.
    fn sleep(&self, seen: u32, will_be_woken: impl Fn() -> bool) {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        fence(Ordering::SeqCst);
        if will_be_woken() {
            self.word.wait(seen);
        }
        self.waiting.fetch_sub(1, Ordering::AcqRel);
    }

    /// Whether there was somebody to wake.
    fn wake_one(&self) -> bool {
        if self.waiting.load(Ordering::Acquire) == 0 {
            return false;
        }
        self.word.bump();
        self.word.wake_one();
        true
    }

    /// How many there were to wake.
    fn wake_all(&self) -> u32 {
        let waiting = self.waiting.load(Ordering::Acquire);
        if waiting > 0 {
            self.word.bump();
            self.word.wake_all();
        }
        waiting
    }
}

#[cfg(all(test, not(any(cairn_loom, cairn_shuttle))))]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    fn until(done: impl Fn() -> bool) {
        while !done() {
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_claim_goes_before_those_who_wait() {
        let gate = Gate::new();
        let lead = gate.try_lead().unwrap();
        thread::scope(|scope| {
            let (led, order) = mpsc::channel();
            for _ in 0..3 {
                let (gate, led) = (&gate, led.clone());
                scope.spawn(move || {
                    if let Turn::Lead(lead) = gate.wait(0) {
                        led.send("waited").unwrap();
                        lead.cover(1);
                    }
                });
            }
            until(|| gate.rounds[0].waiting.load(Ordering::Relaxed) == 3);
            let gate = &gate;
            scope.spawn(move || {
                let lead = gate.claim();
                led.send("claimed").unwrap();
                drop(lead);
            });
            until(|| gate.claims.waiting.load(Ordering::Relaxed) == 1);
            // Who comes now does not pass the claim by, either.
            drop(lead);
            assert_eq!([order.recv().unwrap(), order.recv().unwrap()], ["claimed", "waited"]);
        });
        assert_eq!(gate.covered(), 1);
        assert!(!gate.is_led());
        assert_eq!(gate.rounds[0].waiting.load(Ordering::Relaxed), 0);
    }

    /// Every one of them alone makes the next one lead: a wake-up that is lost is one that nobody makes up for.
    #[test]
    fn many_threads_lead_and_wait_in_turn() {
        let (gate, next) = (Gate::new(), AtomicU64::new(0));
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        let round = next.load(Ordering::Relaxed).max(gate.covered());
                        while let Turn::Lead(lead) = gate.wait(round) {
                            if gate.covered() <= round {
                                let covered = gate.covered() + 1;
                                next.store(covered, Ordering::Relaxed);
                                lead.cover(covered);
                            }
                        }
                        assert!(gate.covered() > round);
                    }
                });
            }
            scope.spawn(|| (0..500).for_each(|_| drop(gate.claim())));
        });
        assert!(!gate.is_led());
    }

    #[test]
    fn the_end_is_no_obstacle_to_leading() {
        let gate = Gate::new();
        gate.try_lead().unwrap().cover(2);
        gate.end();
        assert!(matches!(gate.wait(1), Turn::Covered));
        assert!(matches!(gate.wait(2), Turn::Ended));
        let lead = gate.claim();
        assert!(gate.try_lead().is_none());
        lead.cover(3);
        drop(lead);
        assert!(matches!(gate.wait(2), Turn::Covered));
    }
}
